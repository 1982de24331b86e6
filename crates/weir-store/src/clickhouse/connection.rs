//! The way to ClickHouse: its HTTP interface through the official client, on threads of our own.
//!
//! The store's operations wait for their answers and may be called from any thread, also from one
//! that drives another runtime; so every request runs on the connection's own runtime and its
//! answer comes back through a channel.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use clickhouse::query::BytesCursor;
use clickhouse::{Client, Compression};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::{Builder, Runtime};

use super::options::ClickHouseOptions;
use super::{refusal, tls};
use crate::{Limits, Result, StoreError};

/// ClickHouse closes idle connections after 3 seconds in its oldest releases.
const IDLE: Duration = Duration::from_secs(2);
/// Answers are collected in memory up to here.
const ANSWER_BYTES: usize = 1 << 30;
/// How much longer a long statement may take than others.
const LONG: u32 = 20;
/// Given to the engine to stop by itself before nobody waits any more.
const GRACE: Duration = Duration::from_secs(2);

/// A connection, shared by reference and by clones.
#[derive(Clone)]
pub(super) struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    /// The same, in no database.
    outside: Client,
    url: String,
    database: String,
    timeout: Duration,
    /// Taken when it ends.
    runtime: Option<Runtime>,
}

/// How an answer's rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One value after the other, as wide as their types.
    RowBinary,
    /// A JSON array per line.
    JsonCompactEachRow,
}

/// What a statement's `{name:Type}` stands for. What users wrote goes this way only.
#[derive(Clone, Debug)]
pub(super) enum Parameter {
    Text(String),
    Number(u64),
}

/// A statement on its way.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    operation: &'static str,
    sql: String,
    parameters: Vec<(String, Parameter)>,
    settings: Vec<(String, String)>,
    timeout: Option<Duration>,
    limits: Option<Limits>,
    is_long: bool,
    /// Whether it is about the cluster's database, which may not be there yet.
    in_database: bool,
}

impl Statement {
    /// `operation` completes "cannot …" in errors.
    pub(super) fn new(operation: &'static str, sql: impl Into<String>) -> Self {
        Self {
            operation,
            sql: sql.into(),
            parameters: Vec::new(),
            settings: Vec::new(),
            timeout: None,
            limits: None,
            is_long: false,
            in_database: true,
        }
    }

    /// It may take long: it changes tables, or copies between them.
    pub(super) fn long(mut self) -> Self {
        self.is_long = true;
        self
    }

    /// It names databases itself.
    pub(super) fn outside(mut self) -> Self {
        self.in_database = false;
        self
    }

    /// Names a parameter (`{name:Type}` in the text).
    pub(super) fn parameter(mut self, name: impl Into<String>, value: Parameter) -> Self {
        self.parameters.push((name.into(), value));
        self
    }

    pub(super) fn number(self, name: &str, value: u64) -> Self {
        self.parameter(name, Parameter::Number(value))
    }

    pub(super) fn text(self, name: &str, value: impl Into<String>) -> Self {
        self.parameter(name, Parameter::Text(value.into()))
    }

    /// A setting of the engine's.
    pub(super) fn setting(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Answers within these bounds, or with [`StoreError::TimedOut`],
    /// [`StoreError::TooManyGroups`] or [`StoreError::TooLarge`].
    pub(super) fn within(mut self, limits: &Limits) -> Self {
        self.limits = Some(*limits);
        self.timeout = Some(Duration::from_secs(limits.query_seconds).saturating_add(GRACE));
        self.setting("max_execution_time", limits.query_seconds)
            .setting("max_rows_to_group_by", limits.query_groups)
            .setting("group_by_overflow_mode", "throw")
            .setting("timeout_overflow_mode", "throw")
    }
}

impl Connection {
    /// Makes a connection; nothing is asked yet.
    pub(super) fn new(options: &ClickHouseOptions) -> Result<Self> {
        let setup =
            |detail: String| StoreError::ClickHouseSetup { url: shown(&options.url), detail };
        let secure = check_url(&options.url).map_err(setup)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("clickhouse")
            .enable_all()
            .build()
            .map_err(|error| setup(format!("no threads for it ({error})")))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(options.timeout));
        let mut http = HttpClient::builder(TokioExecutor::new());
        http.pool_idle_timeout(IDLE);
        let client = if secure {
            let config =
                tls::config(options.ca.as_deref(), options.insecure_skip_verify).map_err(setup)?;
            let tls = HttpsConnectorBuilder::new()
                .with_tls_config(config)
                .https_only()
                .enable_http1()
                .wrap_connector(tcp);
            Client::with_http_client(http.build(tls))
        } else {
            Client::with_http_client(http.build(tcp))
        };
        let mut client = client
            .with_url(&options.url)
            .with_compression(Compression::Lz4)
            .with_product_info("weir", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &options.user {
            client = client.with_user(user);
        }
        if let Some(password) = &options.password {
            client = client.with_password(password.reveal());
        }
        let shared = Shared {
            client: client.clone().with_database(&options.database),
            outside: client,
            url: options.url.clone(),
            database: options.database.clone(),
            timeout: options.timeout,
            runtime: Some(runtime),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The cluster's database.
    pub(super) fn database(&self) -> &str {
        &self.shared.database
    }

    /// Runs a query and returns its rows.
    pub(super) fn rows(&self, statement: Statement, format: Format) -> Result<Bytes> {
        let connection = self.clone();
        self.wait(async move { connection.fetch(statement, format).await })
    }

    /// Runs a statement without an answer.
    pub(super) fn run(&self, statement: Statement) -> Result<()> {
        let connection = self.clone();
        self.wait(async move { connection.execute(statement).await })
    }

    /// Runs a future on the connection's runtime and waits for it, in any thread.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = sync_channel(1);
        let runtime = self.shared.runtime.as_ref().expect("the runtime ends with the connection");
        let task = runtime.spawn(async move {
            // Who asked is gone when this fails, and nobody is left to tell.
            drop(sender.send(future.await));
        });
        receiver.recv().unwrap_or_else(|_| {
            task.abort();
            Err(StoreError::ClickHouseUnreachable {
                operation: "wait for an answer",
                url: self.shared.url.clone(),
                detail: "the request ended without one".to_owned(),
            })
        })
    }

    /// [`Connection::rows`] for who is on the runtime already.
    pub(super) async fn fetch(&self, statement: Statement, format: Format) -> Result<Bytes> {
        let operation = statement.operation;
        let limits = statement.limits;
        let timeout = self.timeout(&statement);
        let format = match format {
            Format::RowBinary => "RowBinary",
            Format::JsonCompactEachRow => "JSONCompactEachRow",
        };
        let answer = async {
            let mut cursor = self
                .prepare(statement)
                .fetch_bytes(format)
                .map_err(|error| self.error(operation, limits, &error))?;
            self.collect(operation, limits, &mut cursor).await
        };
        self.in_time(operation, limits, timeout, answer).await
    }

    /// [`Connection::run`] for who is on the runtime already.
    pub(super) async fn execute(&self, statement: Statement) -> Result<()> {
        let operation = statement.operation;
        let timeout = self.timeout(&statement);
        let answer = async {
            let done = self.prepare(statement).execute().await;
            done.map_err(|error| self.error(operation, None, &error))
        };
        self.in_time(operation, None, timeout, answer).await
    }

    /// Sends rows (`INSERT INTO … FORMAT RowBinary`) as one insert.
    pub(super) async fn insert(&self, statement: Statement, rows: Bytes) -> Result<()> {
        let operation = statement.operation;
        let timeout = self.timeout(&statement);
        let answer = async {
            let mut insert = self.shared.client.insert_formatted_with(statement.sql);
            for (name, value) in statement.settings {
                insert = insert.with_setting(name, value);
            }
            let sent = async {
                insert.send(rows).await?;
                insert.end().await
            };
            sent.await.map_err(|error| self.error(operation, None, &error))
        };
        self.in_time(operation, None, timeout, answer).await
    }

    fn timeout(&self, statement: &Statement) -> Duration {
        let usual = self.shared.timeout;
        let usual = if statement.is_long { usual.saturating_mul(LONG) } else { usual };
        statement.timeout.unwrap_or(usual)
    }

    fn prepare(&self, statement: Statement) -> clickhouse::query::Query {
        let client = if statement.in_database { &self.shared.client } else { &self.shared.outside };
        let mut query = client.query_raw(&statement.sql);
        for (name, value) in statement.settings {
            query = query.with_setting(name, value);
        }
        for (name, value) in statement.parameters {
            query = match value {
                Parameter::Text(text) => query.param(&name, text),
                Parameter::Number(number) => query.param(&name, number),
            };
        }
        query
    }

    async fn collect(
        &self,
        operation: &'static str,
        limits: Option<Limits>,
        cursor: &mut BytesCursor,
    ) -> Result<Bytes> {
        let mut collected = Vec::new();
        while let Some(chunk) =
            cursor.next().await.map_err(|error| self.error(operation, limits, &error))?
        {
            if collected.len() + chunk.len() > ANSWER_BYTES {
                let detail = "the answer is longer than 1 GiB".to_owned();
                return Err(match limits {
                    Some(_) => StoreError::TooLarge { detail },
                    None => self.unreadable(operation, detail),
                });
            }
            collected.extend_from_slice(&chunk);
        }
        Ok(collected.into())
    }

    async fn in_time<T>(
        &self,
        operation: &'static str,
        limits: Option<Limits>,
        timeout: Duration,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(match limits {
                Some(limits) => StoreError::TimedOut { seconds: limits.query_seconds },
                None => StoreError::ClickHouseSlow {
                    operation,
                    url: self.shared.url.clone(),
                    seconds: timeout.as_secs(),
                },
            }),
        }
    }

    /// The error for an answer that is not what was asked for.
    pub(super) fn unreadable(
        &self,
        operation: &'static str,
        detail: impl Into<String>,
    ) -> StoreError {
        StoreError::ClickHouseAnswer {
            operation,
            url: self.shared.url.clone(),
            detail: detail.into(),
        }
    }

    fn error(
        &self,
        operation: &'static str,
        limits: Option<Limits>,
        error: &clickhouse::error::Error,
    ) -> StoreError {
        let url = self.shared.url.clone();
        match error {
            clickhouse::error::Error::BadResponse(text) => {
                refusal::error(operation, url, limits, text)
            }
            clickhouse::error::Error::Network(_) => {
                StoreError::ClickHouseUnreachable { operation, url, detail: chain(error) }
            }
            _ => StoreError::ClickHouseAnswer { operation, url, detail: chain(error) },
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("url", &self.shared.url)
            .field("database", &self.shared.database)
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is not allowed where another runtime drives this thread.
            runtime.shutdown_background();
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &clickhouse::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// The address without what may be secret in it.
fn shown(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            let path = path.split(['?', '#']).next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => "an address without http:// or https://".to_owned(),
    }
}

/// True for TLS. An error says what is wrong.
fn check_url(url: &str) -> std::result::Result<bool, String> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| "write it as http://HOST:8123 or https://HOST:8443".to_owned())?;
    if rest.split(['/', '?', '#']).next().unwrap_or_default().contains('@') {
        return Err("user and password have places of their own: take them out of it".to_owned());
    }
    if rest.contains(['?', '#']) {
        return Err(
            "settings and database have places of their own: take them out of it".to_owned()
        );
    }
    match scheme {
        "http" => Ok(false),
        "https" => Ok(true),
        _ => Err("only http:// and https:// lead to ClickHouse's HTTP interface".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_shown_without_secrets() {
        assert_eq!(check_url("http://a:8123"), Ok(false));
        assert_eq!(check_url("https://a:8443/path"), Ok(true));
        for wrong in ["a:8123", "tcp://a:9000", "http://u:p@a:8123", "http://a/?password=x"] {
            assert!(check_url(wrong).is_err(), "{wrong}");
        }
        assert_eq!(shown("http://u:p@a:8123/x?password=y"), "http://a:8123/x");
    }

    #[test]
    fn a_connection_may_be_dropped_on_another_runtime() {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let options = ClickHouseOptions::new("http://127.0.0.1:1", "weir");
            let connection = Connection::new(&options).unwrap();
            let refused = connection.run(Statement::new("ask", "SELECT 1"));
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("out of reach") && error.contains("refused"), "{error}");
        });
    }
}
