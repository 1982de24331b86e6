//! How ClickHouse is reached, and how the store is kept there.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Limits, Retention};

/// How ClickHouse is reached, and how the store is kept there.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct ClickHouseOptions {
    /// Its HTTP interface: `http://HOST:8123` or `https://HOST:8443`.
    pub url: String,
    /// The database, made where it is missing; one for each cluster.
    pub database: String,
    /// As whom; `None`: ClickHouse's `default`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Password>,
    /// Who signs the server's certificate, PEM; `None`: the system's and Mozilla's roots.
    pub ca: Option<PathBuf>,
    /// Take any certificate. For trying things out.
    pub insecure_skip_verify: bool,
    /// The ClickHouse cluster on which tables are made (`ON CLUSTER`).
    pub cluster: Option<String>,
    /// Tables are replicated.
    pub replicated: bool,
    /// For how long flows are kept.
    pub retention: Retention,
    /// Within which bounds questions are answered; `file_bytes` means nothing here.
    pub limits: Limits,
    /// The engine itself deletes what is past its retention (TTL). Off only in tests, whose flows
    /// are of any age.
    pub expire: bool,
    /// Bring the tables up to date at the start.
    pub migrate: bool,
    /// Blocks of which every table remembers the tokens.
    pub deduplication_window: u64,
    /// How long an insert or a statement may take.
    pub timeout: Duration,
    /// kubenetmon's table, where it is written besides.
    pub kubenetmon: Option<KubenetmonTable>,
}

/// kubenetmon's table.
#[derive(Clone, Debug)]
pub struct KubenetmonTable {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
    /// What its rows say of this cluster.
    pub settings: weir_flow::kubenetmon::Settings,
}

/// A password. Shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps it.
    pub fn new(password: String) -> Self {
        Self(password)
    }

    /// What it is.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl ClickHouseOptions {
    /// The defaults, at this address.
    pub fn new(url: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            database: database.into(),
            user: None,
            password: None,
            ca: None,
            insecure_skip_verify: false,
            cluster: None,
            replicated: false,
            retention: Retention::default(),
            limits: Limits::default(),
            expire: true,
            migrate: true,
            deduplication_window: 10_000,
            timeout: Duration::from_secs(30),
            kubenetmon: None,
        }
    }
}
