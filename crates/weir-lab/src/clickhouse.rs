//! ClickHouse's engine for tests: the real engine, from the Python package chdb, behind a small
//! stand-in for the server's HTTP interface ([`Engine`]), and faults to put before it ([`Faults`]).
//!
//! Tests use a real server instead where `WEIR_TEST_CLICKHOUSE_URL` names one.

mod database;
mod faults;
pub(crate) mod http;
mod process;

use std::io::Write as _;

pub use database::Database;
pub use faults::{Fault, Faults};

use crate::LabError;
use process::Process;

/// Names a server that tests use in place of the engine: `http://HOST:8123`. Its user and password
/// come from `WEIR_TEST_CLICKHOUSE_USER` and `WEIR_TEST_CLICKHOUSE_PASSWORD`.
pub const SERVER: &str = "WEIR_TEST_CLICKHOUSE_URL";

/// A user of the engine, besides `default`, who needs no password.
pub const USER: (&str, &str) = ("weir", "secret");
/// A user of the engine who may read and change no setting (`readonly = 1`).
pub const READER: (&str, &str) = ("reader", "secret");
/// A user of the engine who may read and change settings (`readonly = 2`).
pub const VIEWER: (&str, &str) = ("viewer", "secret");

/// An engine, or a server, that answers.
#[derive(Debug)]
pub struct Engine {
    url: String,
    account: Option<Account>,
    process: Option<Process>,
}

/// As whom to ask.
#[derive(Clone, Debug)]
struct Account {
    user: String,
    password: String,
}

/// What an engine has cost since it began.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Processor time of the engine itself, seconds.
    pub engine_cpu_seconds: f64,
    /// Processor time of the stand-in for the server, seconds.
    pub server_cpu_seconds: f64,
    /// Requests.
    pub requests: u64,
}

impl Engine {
    /// The one that all tests of this machine share: started when it is first needed, and gone some
    /// minutes after nobody needs it. Or the server that is named.
    pub fn shared() -> Result<Self, LabError> {
        if let Some(engine) = Self::named() {
            return Ok(engine);
        }
        Ok(Self { url: process::shared()?, account: None, process: None })
    }

    /// One for this test alone, which may kill it. Gone when dropped.
    pub fn own() -> Result<Self, LabError> {
        let process = Process::start()?;
        Ok(Self { url: process.url(), account: None, process: Some(process) })
    }

    /// [`Engine::shared`] for a test; `None` where there is none, said loudly. Where nothing must be
    /// skipped (`CI=true`) that is an error.
    pub fn for_test(what: &str) -> Result<Option<Self>, LabError> {
        or_skipped(Self::shared(), what)
    }

    /// [`Engine::own`] for a test, with the same rule.
    pub fn own_for_test(what: &str) -> Result<Option<Self>, LabError> {
        or_skipped(Self::own(), what)
    }

    fn named() -> Option<Self> {
        let url = std::env::var(SERVER).ok().filter(|url| !url.is_empty())?;
        let user = std::env::var("WEIR_TEST_CLICKHOUSE_USER").ok();
        let password = std::env::var("WEIR_TEST_CLICKHOUSE_PASSWORD").unwrap_or_default();
        let account = user.map(|user| Account { user, password });
        Some(Self { url: url.trim_end_matches('/').to_owned(), account, process: None })
    }

    /// True for a server that was named: it has its own users, and cannot be told apart from one
    /// that others use.
    pub fn is_server(&self) -> bool {
        std::env::var(SERVER).is_ok_and(|url| url.trim_end_matches('/') == self.url)
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// As whom to ask; `None`: `default` without a password.
    pub fn user(&self) -> Option<&str> {
        self.account.as_ref().map(|account| account.user.as_str())
    }

    /// The user's password.
    pub fn password(&self) -> Option<&str> {
        self.account.as_ref().map(|account| account.password.as_str())
    }

    /// A database with a name of its own, dropped at the end.
    pub fn database(&self) -> Result<Database, LabError> {
        Database::create(self)
    }

    /// A name for a database, which is not made but dropped at the end.
    pub fn name(&self) -> Database {
        Database::named(self)
    }

    /// Runs a statement in `default`.
    pub fn run(&self, sql: &str) -> Result<String, LabError> {
        http::statement(self, "default", sql, &[])
    }

    /// What it has cost; an error for a server that was named.
    pub fn cost(&self) -> Result<Cost, LabError> {
        http::cost(self)
    }

    /// The process, of an engine of one's own.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref()?.pid()
    }

    /// Kills an engine of one's own with SIGKILL and waits until it is gone. Nothing happens to a
    /// shared one.
    pub fn kill(&mut self) -> Result<(), LabError> {
        self.process.as_mut().map_or(Ok(()), Process::kill)
    }

    /// Starts a killed engine again, at the same address and with what it had stored.
    pub fn restart(&mut self) -> Result<(), LabError> {
        self.process.as_mut().map_or(Ok(()), Process::restart)
    }
}

fn or_skipped(engine: Result<Engine, LabError>, what: &str) -> Result<Option<Engine>, LabError> {
    let error = match engine {
        Ok(engine) => return Ok(Some(engine)),
        Err(error) => error,
    };
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        return Err(error);
    }
    // Past the test harness, which would keep it to itself.
    let told = writeln!(std::io::stderr(), "SKIPPED: {what} needs ClickHouse's engine: {error}");
    told.map_err(crate::error::io_error("write to", "standard error"))?;
    Ok(None)
}
