//! Making the tables, and bringing them up to date.
//!
//! A change of the schema first *expands*: columns, tables and views are added that an older writer
//! may leave alone, so that servers of both versions work side by side. What is no longer needed
//! goes with a later version. Every statement may be run twice; the lock keeps servers that start
//! together from doing so.

use std::time::Duration;

use serde_json::Value;
use weir_flow::Level;

use super::connection::{Connection, Format, Statement};
use super::ddl::{
    COUNTER, Ddl, LOCK, MEMORY, RAW, SCHEMA_VERSION, TABLES, WRITTEN_BY_BATCHES, quoted,
    raw_columns, roll_up_columns,
};
use super::options::ClickHouseOptions;
use super::refusal::{REPLICA_EXISTS, TABLE_EXISTS, UNKNOWN_DATABASE, UNKNOWN_TABLE, code_of};
use super::schema::{VERSION, flow_table};
use crate::{Result, StoreError};

/// A lock older than this was left behind by a server that died.
const LOCK_SECONDS: u64 = 600;
/// What every release remembers at least in a replicated table, unless it is told otherwise.
const LEAST_WINDOW: u64 = 100;
/// Between two looks at a lock that is held.
const LOOK: Duration = Duration::from_millis(250);

/// What stands in the table of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// 0 while the first is being made.
    version: u32,
    /// The oldest version whose writers may go on.
    oldest_writer: u32,
}

/// What bringing up to date did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The version before; `None` where there were no tables.
    pub from: Option<u32>,
    /// The version now.
    pub to: u32,
}

/// Finds the tables as this code needs them, bringing them up to date where the options say so.
pub(super) fn prepare(connection: &Connection, options: &ClickHouseOptions) -> Result<()> {
    let found = find(connection)?;
    let database = || options.database.clone();
    match found {
        Some(found) if found.version > VERSION && found.oldest_writer > VERSION => {
            let found = found.version;
            return Err(StoreError::ClickHouseNewer {
                database: database(),
                found,
                known: VERSION,
            });
        }
        Some(found) if found.version >= VERSION => {}
        _ if options.migrate => {
            migrate(connection, options)?;
        }
        _ => {
            let found = found.map_or(0, |found| found.version);
            return Err(StoreError::ClickHouseOlder {
                database: database(),
                found,
                known: VERSION,
            });
        }
    }
    verify(connection, options)?;
    if options.migrate { keep_settings(connection, options) } else { Ok(()) }
}

/// Makes the tables or brings them up to date, one server at a time.
pub(super) fn migrate(connection: &Connection, options: &ClickHouseOptions) -> Result<Migrated> {
    let ddl = Ddl { options };
    let run = |operation, sql: String| connection.run(statement(operation, sql).long());
    let before = find(connection)?;
    let from = before.map(|found| found.version);
    if let Some(found) = before.filter(|found| found.version >= VERSION) {
        if found.oldest_writer > VERSION {
            let (database, found) = (options.database.clone(), found.version);
            return Err(StoreError::ClickHouseNewer { database, found, known: VERSION });
        }
        return Ok(Migrated { from, to: found.version });
    }
    run("make the database", ddl.database())?;
    if before.is_none() {
        refuse_foreign(connection, options)?;
    }
    let _lock = Lock::wait(connection, options)?;
    // Somebody else may have done it while we waited.
    if let Some(found) = find(connection)?.filter(|found| found.version >= VERSION) {
        return Ok(Migrated { from, to: found.version });
    }
    run("make the table of versions", ddl.schema_version())?;
    for sql in ddl.first() {
        run("make the tables", sql)?;
    }
    run(
        "write the version down",
        format!(
            "INSERT INTO {} (version, oldest_writer, written) SELECT {VERSION}, {VERSION}, now()",
            ddl.named(SCHEMA_VERSION)
        ),
    )?;
    tracing::info!(database = options.database, version = VERSION, "the tables are up to date");
    Ok(Migrated { from, to: VERSION })
}

/// The statements that give a user what a server needs to work, and what one needs to make the
/// tables, each for itself. `user` stands in them as it is.
pub(super) fn grants(options: &ClickHouseOptions, user: &str) -> Grants {
    let database = &options.database;
    let all = format!("{}.*", quoted(database));
    let user = quoted(user);
    let memory = format!("{}.{MEMORY}", quoted(database));
    let mut grants = Grants {
        serve: vec![
            format!("GRANT SELECT, INSERT ON {all} TO {user}"),
            format!("GRANT ALTER DELETE ON {memory} TO {user}"),
            format!("GRANT SELECT ON system.parts TO {user}"),
            format!("GRANT SELECT ON system.disks TO {user}"),
        ],
        migrate: vec![
            format!("GRANT CREATE DATABASE, CREATE TABLE, CREATE VIEW ON {all} TO {user}"),
            format!("GRANT ALTER, DROP TABLE, DROP VIEW ON {all} TO {user}"),
        ],
    };
    if let Some(kubenetmon) = &options.kubenetmon {
        let table = format!("{}.{}", quoted(&kubenetmon.database), quoted(&kubenetmon.table));
        grants.serve.push(format!("GRANT SELECT, INSERT ON {table} TO {user}"));
        let database = quoted(&kubenetmon.database);
        grants.migrate.push(format!("GRANT CREATE DATABASE ON {database}.* TO {user}"));
        grants.migrate.push(format!("GRANT CREATE TABLE, ALTER ON {table} TO {user}"));
    }
    if options.cluster.is_some() {
        grants.migrate.push(format!("GRANT CLUSTER ON *.* TO {user}"));
    }
    grants
}

/// What a user must be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// To serve: read, insert, forget memories. Old flows are deleted by the tables' own expiry.
    pub serve: Vec<String>,
    /// To make the tables, to bring them up to date, to rebuild hours and to drop old days at once.
    pub migrate: Vec<String>,
}

/// What is there; `None` without a table of versions.
fn find(connection: &Connection) -> Result<Option<Found>> {
    let sql = format!(
        "SELECT max(version), argMax(oldest_writer, version) FROM {}.{SCHEMA_VERSION}",
        quoted(connection.database())
    );
    let operation = "read the schema's version";
    match connection.rows(statement(operation, sql), Format::JsonCompactEachRow) {
        Ok(answer) => {
            let rows = texts(connection, operation, &answer)?;
            let number = |at: usize| {
                rows.first().and_then(|row| row.get(at)).and_then(|text| text.parse().ok())
            };
            let (version, oldest_writer) = number(0)
                .zip(number(1))
                .ok_or_else(|| connection.unreadable(operation, "no numbers"))?;
            Ok(Some(Found { version, oldest_writer }))
        }
        Err(error) if matches!(code_of(&error), Some(UNKNOWN_TABLE | UNKNOWN_DATABASE)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tables of our names without a table of versions are another program's.
fn refuse_foreign(connection: &Connection, options: &ClickHouseOptions) -> Result<()> {
    match tables(connection)?.into_iter().find(|table| TABLES.contains(&table.name.as_str())) {
        Some(table) => Err(StoreError::ClickHouseForeign {
            database: options.database.clone(),
            table: table.name,
        }),
        None => Ok(()),
    }
}

/// Every table as this code needs it: there, with its columns and a memory of tokens.
fn verify(connection: &Connection, options: &ClickHouseOptions) -> Result<()> {
    let ddl = Ddl { options };
    let there = tables(connection)?;
    let wrong = |table: &str, detail: String| {
        Err(StoreError::ClickHouseTable { table: format!("{}.{table}", options.database), detail })
    };
    for name in TABLES {
        let Some(table) = there.iter().find(|table| table.name == name) else {
            return wrong(
                name,
                "it is missing, or this user may not see it: run `weir server migrate`, or grant \
                 what `weir server grants` prints"
                    .to_owned(),
            );
        };
        if table.is_written_by_batches()
            && table.window() == Some(0)
            && let Some(setting) = table.window_setting()
        {
            return wrong(
                name,
                format!(
                    "it remembers no tokens, so that a batch sent twice would count twice: run {}",
                    ddl.window(name, setting)
                ),
            );
        }
    }
    let columns = columns(connection)?;
    let needed = [
        (RAW, raw_columns()),
        (flow_table(Level::Minute), roll_up_columns()),
        (flow_table(Level::Hour), roll_up_columns()),
        (COUNTER, ["hour", "node", "name", "value"].map(str::to_owned).to_vec()),
    ];
    for (table, needed) in needed {
        let is_there = |name: &String| columns.iter().any(|(of, it)| of == table && it == name);
        if let Some(missing) = needed.iter().find(|name| !is_there(name)) {
            return wrong(
                table,
                format!(
                    "its column {missing} is missing: put it back, or drop the table of versions \
                     ({}) and run `weir server migrate`",
                    ddl.named(SCHEMA_VERSION)
                ),
            );
        }
    }
    Ok(())
}

/// Brings the tables' own expiry to the retention, and their memory of tokens to the options.
fn keep_settings(connection: &Connection, options: &ClickHouseOptions) -> Result<()> {
    let ddl = Ddl { options };
    let there = tables(connection)?;
    for table in there.iter().filter(|table| table.is_written_by_batches()) {
        let differs = table.window() != Some(options.deduplication_window.max(1));
        if let Some(setting) = table.window_setting().filter(|_| differs) {
            let change = ddl.window(&table.name, setting);
            connection.run(statement("change how many tokens are remembered", change).long())?;
        }
    }
    for expiry in ddl.expiries() {
        let table = there.iter().find(|table| table.name == expiry.table);
        if table.is_some_and(|table| !table.definition.contains(&expiry.rule)) {
            let change = statement("change how long flows are kept", expiry.change)
                .long()
                // Parts that are there already learn it when they are merged.
                .setting("materialize_ttl_after_modify", 0);
            connection.run(change)?;
        }
    }
    Ok(())
}

/// A table as the engine describes it.
#[derive(Debug)]
pub(super) struct TableFound {
    pub(super) name: String,
    pub(super) engine: String,
    /// Engine, order, expiry, settings.
    definition: String,
}

impl TableFound {
    fn is_written_by_batches(&self) -> bool {
        WRITTEN_BY_BATCHES.contains(&self.name.as_str())
    }

    /// Blocks of which it remembers the tokens; `None` where the engine decides.
    fn window(&self) -> Option<u64> {
        let setting = self.window_setting()?;
        let written =
            self.definition.split_once(&format!(" {setting} = ")).and_then(|(_, rest)| {
                let digits =
                    rest.trim_start_matches('\'').split(|c: char| !c.is_ascii_digit()).next();
                digits.and_then(|digits| digits.parse().ok())
            });
        let unwritten = if self.engine.starts_with("Replicated") { None } else { Some(0) };
        written.or(unwritten)
    }

    /// The setting that says so; `None` for engines that have none.
    fn window_setting(&self) -> Option<&'static str> {
        if self.engine.starts_with("Shared") {
            None
        } else if self.engine.starts_with("Replicated") {
            Some("replicated_deduplication_window")
        } else {
            Some("non_replicated_deduplication_window")
        }
    }
}

/// Blocks of which every table remembers the tokens.
pub(super) fn window(tables: &[TableFound]) -> u64 {
    let written = tables.iter().filter(|table| table.is_written_by_batches());
    written.map(|table| table.window().unwrap_or(LEAST_WINDOW)).min().unwrap_or(0)
}

/// The database's tables.
pub(super) fn tables(connection: &Connection) -> Result<Vec<TableFound>> {
    let operation = "look at the tables";
    let sql =
        "SELECT name, engine, engine_full FROM system.tables WHERE database = {database:String}";
    let statement = statement(operation, sql).text("database", connection.database());
    let answer = connection.rows(statement, Format::JsonCompactEachRow)?;
    texts(connection, operation, &answer)?
        .into_iter()
        .map(|row| {
            let [name, engine, definition] = <[String; 3]>::try_from(row)
                .map_err(|_other| connection.unreadable(operation, "rows of another shape"))?;
            Ok(TableFound { name, engine, definition })
        })
        .collect()
}

/// Table and name of every column.
fn columns(connection: &Connection) -> Result<Vec<(String, String)>> {
    let operation = "look at the columns";
    let sql = "SELECT table, name FROM system.columns WHERE database = {database:String}";
    let statement = statement(operation, sql).text("database", connection.database());
    let answer = connection.rows(statement, Format::JsonCompactEachRow)?;
    texts(connection, operation, &answer)?
        .into_iter()
        .map(|row| {
            <[String; 2]>::try_from(row)
                .map(|[table, name]| (table, name))
                .map_err(|_other| connection.unreadable(operation, "rows of another shape"))
        })
        .collect()
}

/// Rows of JSON as text.
pub(super) fn texts(
    connection: &Connection,
    operation: &'static str,
    answer: &[u8],
) -> Result<Vec<Vec<String>>> {
    answer
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let row: Vec<Value> = serde_json::from_slice(line)
                .map_err(|error| connection.unreadable(operation, error.to_string()))?;
            Ok(row
                .into_iter()
                .map(|value| match value {
                    Value::String(text) => text,
                    other => other.to_string(),
                })
                .collect())
        })
        .collect()
}

/// A statement that names its database.
fn statement(operation: &'static str, sql: impl Into<String>) -> Statement {
    Statement::new(operation, sql).outside()
}

/// Held while the tables are changed: a table that only one can make.
struct Lock<'a> {
    connection: &'a Connection,
    options: &'a ClickHouseOptions,
}

impl<'a> Lock<'a> {
    /// Waits for whoever holds it, as long as a statement may take.
    fn wait(connection: &'a Connection, options: &'a ClickHouseOptions) -> Result<Self> {
        let mut looks = options.timeout.as_millis() / LOOK.as_millis();
        loop {
            match Self::take(connection, options) {
                Err(StoreError::ClickHouseMigrating { .. }) if looks > 0 => looks -= 1,
                other => return other,
            }
            connection.wait(async {
                tokio::time::sleep(LOOK).await;
                Ok(())
            })?;
        }
    }

    fn take(connection: &'a Connection, options: &'a ClickHouseOptions) -> Result<Self> {
        let ddl = Ddl { options };
        let owner = format!("process {} of {}", std::process::id(), host());
        let make = || connection.run(statement("lock the tables", ddl.lock(&owner)));
        let is_taken =
            |error: &StoreError| matches!(code_of(error), Some(TABLE_EXISTS | REPLICA_EXISTS));
        match make() {
            Err(error) if is_taken(&error) => {
                let (holder, seconds) = Self::holder(connection)?;
                if seconds < LOCK_SECONDS {
                    let database = options.database.clone();
                    return Err(StoreError::ClickHouseMigrating { database, owner: holder });
                }
                tracing::warn!(holder, seconds, "a lock on the tables was left behind: removed");
                connection.run(statement("remove an old lock", ddl.unlock()))?;
                make()?;
            }
            other => other?,
        }
        Ok(Self { connection, options })
    }

    /// Who holds it, and for how many seconds. A lock on another replica is as old as it may be.
    fn holder(connection: &Connection) -> Result<(String, u64)> {
        let operation = "look who holds the lock";
        let sql = "SELECT comment, toUInt64(greatest(0, now() - metadata_modification_time)) \
                   FROM system.tables WHERE database = {database:String} AND name = {lock:String}";
        let statement =
            statement(operation, sql).text("database", connection.database()).text("lock", LOCK);
        let answer = connection.rows(statement, Format::JsonCompactEachRow)?;
        let rows = texts(connection, operation, &answer)?;
        let Some(row) = rows.into_iter().next() else {
            return Ok(("a server at another replica".to_owned(), 0));
        };
        let seconds = row.get(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok((row.into_iter().next().unwrap_or_default(), seconds))
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let ddl = Ddl { options: self.options };
        if let Err(error) = self.connection.run(statement("unlock the tables", ddl.unlock())) {
            tracing::warn!(%error, "the lock on the tables stays until it is old");
        }
    }
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "an unknown host".to_owned(), |name| name.trim().to_owned())
}
