//! The tables, and the numbers that stand for times and levels in them.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use weir_flow::Level;

use super::database_error;
use crate::check::{LAST_SECOND, SUMS};
use crate::{Result, StoreError};

/// The schema this code writes.
pub(super) const VERSION: u32 = 2;

/// "weir" in ASCII, in the file's header: tells weir's databases from others.
const APPLICATION: i64 = 0x7765_6972;

/// Windows are stored as multiples of their length since 2026-01-01T00:00:00Z. The finest then
/// fit three bytes until August 2028, against four since 1970.
const ORIGIN: i64 = 1_767_225_600;

const TABLES: &str = "
CREATE TABLE node (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- `last` in every dictionary: the latest hour since 1970 whose facts may refer to the row.
CREATE TABLE endpoint (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    address BLOB NOT NULL,
    host TEXT,
    unit TEXT,
    container TEXT,
    executable TEXT,
    namespace TEXT,
    pod TEXT,
    service TEXT,
    workload_kind TEXT,
    workload_name TEXT,
    node TEXT,
    zone TEXT,
    region TEXT,
    app TEXT,
    labels TEXT,
    cloud TEXT,
    cloud_service TEXT,
    range_name TEXT,
    resolution INTEGER,
    unresolved INTEGER,
    workload TEXT,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    entity TEXT NOT NULL,
    last INTEGER NOT NULL
) STRICT;
CREATE INDEX endpoint_address ON endpoint (address);
CREATE INDEX endpoint_name ON endpoint (name);
CREATE INDEX endpoint_entity ON endpoint (entity);
CREATE INDEX endpoint_owner ON endpoint (owner);
CREATE INDEX endpoint_namespace ON endpoint (namespace);

-- `name`: NAMESPACE/NAME of the Kubernetes service; empty where it is not known.
CREATE TABLE service (
    id INTEGER PRIMARY KEY,
    address BLOB NOT NULL,
    port INTEGER NOT NULL,
    name TEXT NOT NULL,
    last INTEGER NOT NULL,
    UNIQUE (address, port, name)
) STRICT;

-- A flow key without its window. Service 0: none.
CREATE TABLE edge (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    destination INTEGER NOT NULL,
    destination_port INTEGER NOT NULL,
    protocol INTEGER NOT NULL,
    service INTEGER NOT NULL,
    class INTEGER NOT NULL,
    node INTEGER NOT NULL,
    ip_version INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX edge_key
    ON edge (source, destination, destination_port, protocol, service, class, node);
CREATE INDEX edge_destination ON edge (destination);

-- `horizon`: seconds since 1970 before which the level holds nothing. `retention` 0: not kept.
CREATE TABLE level (
    seconds INTEGER PRIMARY KEY,
    retention INTEGER NOT NULL,
    horizon INTEGER NOT NULL
) STRICT;
INSERT INTO level VALUES (10, 0, 0), (60, 0, 0), (3600, 0, 0);

CREATE TABLE epoch (
    id INTEGER PRIMARY KEY,
    epoch BLOB NOT NULL UNIQUE,
    node TEXT NOT NULL,
    last INTEGER NOT NULL
) STRICT;

CREATE TABLE committed (
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (epoch, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE digest (
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (epoch, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE gap (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL,
    epoch BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    from_seconds INTEGER NOT NULL,
    to_seconds INTEGER NOT NULL,
    connections INTEGER NOT NULL,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    bytes_bound INTEGER
) STRICT;
CREATE INDEX gap_to ON gap (to_seconds);

CREATE TABLE counter (
    hour INTEGER NOT NULL,
    node INTEGER NOT NULL,
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (hour, node, name)
) STRICT, WITHOUT ROWID;

-- What others keep here to find it again after a restart. `until`: seconds since 1970.
CREATE TABLE memory (
    key BLOB PRIMARY KEY,
    value BLOB NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX memory_until ON memory (until);
";

/// From version 1, which knew neither clusters nor second legs.
const FROM_VERSION_1: &str = "
ALTER TABLE endpoint ADD COLUMN namespace TEXT;
ALTER TABLE endpoint ADD COLUMN pod TEXT;
ALTER TABLE endpoint ADD COLUMN service TEXT;
ALTER TABLE endpoint ADD COLUMN workload_kind TEXT;
ALTER TABLE endpoint ADD COLUMN workload_name TEXT;
ALTER TABLE endpoint ADD COLUMN node TEXT;
ALTER TABLE endpoint ADD COLUMN zone TEXT;
ALTER TABLE endpoint ADD COLUMN region TEXT;
ALTER TABLE endpoint ADD COLUMN app TEXT;
ALTER TABLE endpoint ADD COLUMN labels TEXT;
ALTER TABLE endpoint ADD COLUMN cloud TEXT;
ALTER TABLE endpoint ADD COLUMN cloud_service TEXT;
ALTER TABLE endpoint ADD COLUMN range_name TEXT;
ALTER TABLE endpoint ADD COLUMN resolution INTEGER;
ALTER TABLE endpoint ADD COLUMN workload TEXT;
ALTER TABLE endpoint ADD COLUMN owner TEXT NOT NULL DEFAULT '';
UPDATE endpoint SET owner = entity;
CREATE INDEX endpoint_owner ON endpoint (owner);
CREATE INDEX endpoint_namespace ON endpoint (namespace);

CREATE TABLE service_2 (
    id INTEGER PRIMARY KEY,
    address BLOB NOT NULL,
    port INTEGER NOT NULL,
    name TEXT NOT NULL,
    last INTEGER NOT NULL,
    UNIQUE (address, port, name)
) STRICT;
INSERT INTO service_2 SELECT id, address, port, '', last FROM service;
DROP TABLE service;
ALTER TABLE service_2 RENAME TO service;

CREATE TABLE memory (
    key BLOB PRIMARY KEY,
    value BLOB NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX memory_until ON memory (until);
";

/// Facts by edge, of a level.
pub(super) fn flow_table(level: Level) -> &'static str {
    match level {
        Level::TenSeconds => "flow_10s",
        Level::Minute => "flow_1m",
        Level::Hour => "flow_1h",
    }
}

/// Facts by [`super::facts::TotalKey`], of a level.
pub(super) fn total_table(level: Level) -> &'static str {
    match level {
        Level::TenSeconds => "total_10s",
        Level::Minute => "total_1m",
        Level::Hour => "total_1h",
    }
}

/// The number that stands for a window in a level's tables. The window is at most
/// [`LAST_SECOND`] or a bound of a range, which is clamped to it.
pub(super) fn window_number(level: Level, seconds: u64) -> i64 {
    let seconds = i64::try_from(seconds.min(LAST_SECOND + 1)).expect("clamped to the year 9999");
    (seconds - ORIGIN).div_euclid(level_seconds(level))
}

/// The window a number stands for, seconds since 1970.
pub(super) fn window_seconds(level: Level, number: i64) -> u64 {
    let seconds = number.saturating_mul(level_seconds(level)).saturating_add(ORIGIN);
    u64::try_from(seconds).unwrap_or(0)
}

fn level_seconds(level: Level) -> i64 {
    i64::try_from(level.seconds()).expect("a level is at most an hour")
}

/// Makes the tables in an empty database, brings those of an earlier weir up to date; refuses
/// databases of others and of a later weir.
pub(super) fn prepare(connection: &mut Connection, file: &Path) -> Result<()> {
    let failed = |error| database_error("make tables", file, error);
    let found = found(connection, file)?;
    if found == Some(VERSION) {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    if found.is_none() {
        make(&transaction).map_err(failed)?;
    } else {
        upgrade(&transaction).map_err(failed)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
    transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    transaction.commit().map_err(failed)
}

fn make(transaction: &Connection) -> rusqlite::Result<()> {
    transaction.execute_batch(TABLES)?;
    Level::ALL
        .into_iter()
        .flat_map(fact_tables)
        .try_for_each(|(table, key)| transaction.execute_batch(&fact_table(table, key)))
}

fn upgrade(transaction: &Connection) -> rusqlite::Result<()> {
    transaction.execute_batch(FROM_VERSION_1)?;
    Level::ALL.into_iter().flat_map(fact_tables).try_for_each(|(table, _)| {
        transaction.execute_batch(&format!(
            "ALTER TABLE {table} ADD COLUMN transit_bytes INTEGER NOT NULL DEFAULT 0"
        ))
    })
}

fn fact_tables(level: Level) -> [(&'static str, &'static str); 2] {
    [(flow_table(level), "edge"), (total_table(level), "key")]
}

/// True when the database has this code's tables; false when it is empty; an error when it has
/// others.
pub(super) fn known(connection: &Connection, file: &Path) -> Result<bool> {
    match found(connection, file)? {
        None => Ok(false),
        Some(VERSION) => Ok(true),
        Some(found) => Err(StoreError::Older { path: file.to_owned(), found, known: VERSION }),
    }
}

/// The version of the tables, at most this code's; `None` in an empty database.
pub(super) fn found(connection: &Connection, file: &Path) -> Result<Option<u32>> {
    let number = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|error| database_error("read the header", file, error))
    };
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, u32::try_from(version), tables) {
        (0, Ok(0), 0) => Ok(None),
        (APPLICATION, Ok(found @ 1..=VERSION), _) => Ok(Some(found)),
        (APPLICATION, ..) => {
            Err(StoreError::Newer { path: file.to_owned(), found: version, known: VERSION })
        }
        _ => Err(StoreError::Foreign { path: file.to_owned() }),
    }
}

fn fact_table(table: &str, key: &str) -> String {
    let sums = SUMS.join(" INTEGER NOT NULL, ");
    format!(
        "CREATE TABLE {table} (window INTEGER NOT NULL, {key} INTEGER NOT NULL, \
         {sums} INTEGER NOT NULL, \
         PRIMARY KEY (window, {key})) STRICT, WITHOUT ROWID"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_numbers_and_back() {
        for level in Level::ALL {
            for seconds in [0, 3_600, 1_767_225_600, 1_767_229_200, 4_102_444_800] {
                let number = window_number(level, seconds);
                assert_eq!(window_seconds(level, number), seconds);
                assert_eq!(window_seconds(level, number + 1), seconds + level.seconds());
            }
        }
        assert_eq!(window_number(Level::TenSeconds, u64::MAX), 25_163_507_520);
    }
}
