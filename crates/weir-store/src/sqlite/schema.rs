//! The tables, and the numbers that stand for times and levels in them.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use weir_flow::Level;

use super::database_error;
use crate::{Result, StoreError};

/// The schema this code writes.
pub(super) const VERSION: u32 = 1;

/// "weir" in ASCII, in the file's header: tells weir's databases from others.
const APPLICATION: i64 = 0x7765_6972;

/// Windows are stored as multiples of their length since 2026-01-01T00:00:00Z. The finest then
/// fit three bytes until August 2028, against four since 1970.
const ORIGIN: i64 = 1_767_225_600;

/// 9999-12-31T23:59:59Z: no window begins later.
pub(super) const LAST_SECOND: u64 = 253_402_300_799;

/// The columns of sums, in the order of [`super::facts::columns`].
pub(super) const SUMS: [&str; 9] = [
    "bytes_sent",
    "bytes_received",
    "packets_sent",
    "packets_received",
    "connections_opened",
    "connections_closed",
    "connections_failed",
    "connections_unreplied",
    "connections_uncounted",
];

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
    unresolved INTEGER,
    name TEXT NOT NULL,
    entity TEXT NOT NULL,
    last INTEGER NOT NULL
) STRICT;
CREATE INDEX endpoint_address ON endpoint (address);
CREATE INDEX endpoint_name ON endpoint (name);
CREATE INDEX endpoint_entity ON endpoint (entity);

CREATE TABLE service (
    id INTEGER PRIMARY KEY,
    address BLOB NOT NULL,
    port INTEGER NOT NULL,
    last INTEGER NOT NULL,
    UNIQUE (address, port)
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

/// Makes the tables in an empty database; refuses databases of others and of a later weir.
pub(super) fn prepare(connection: &mut Connection, file: &Path) -> Result<()> {
    let failed = |error| database_error("make tables", file, error);
    if known(connection, file)? {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    transaction.execute_batch(TABLES).map_err(failed)?;
    for level in Level::ALL {
        for (table, key) in [(flow_table(level), "edge"), (total_table(level), "key")] {
            transaction.execute_batch(&fact_table(table, key)).map_err(failed)?;
        }
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
    transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// True when the database has this code's tables; false when it is empty; an error when it has
/// others.
pub(super) fn known(connection: &Connection, file: &Path) -> Result<bool> {
    let number = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|error| database_error("read the header", file, error))
    };
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, version, tables) {
        (0, 0, 0) => Ok(false),
        (APPLICATION, found, _) if found == i64::from(VERSION) => Ok(true),
        (APPLICATION, found, _) => {
            Err(StoreError::Newer { path: file.to_owned(), found, known: VERSION })
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
