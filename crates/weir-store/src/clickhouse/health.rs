//! How the store is.

use super::connection::{Connection, Format, Statement};
use super::ddl::SCHEMA_VERSION;
use super::lists::rows_held;
use super::refusal::{ACCESS_DENIED, code_of};
use super::rows::{Malformed, Rows};
use crate::check::KeptLevel;
use crate::{Health, LevelHealth, Result};

const OPERATION: &str = "ask how the store is";

pub(super) fn health(connection: &Connection, levels: &[KeptLevel; 3]) -> Result<Health> {
    let kept = levels.iter().filter(|kept| kept.retention > 0);
    let levels = kept.map(|kept| level(connection, kept)).collect::<Result<_>>()?;
    let version = ask(connection, "SELECT version()", |rows| rows.text().map(str::to_owned))?;
    let versions = format!("SELECT toUInt64(max(version)) FROM {SCHEMA_VERSION}");
    let schema_version = ask(connection, &versions, number)?;
    // Of the replica that was asked.
    let parts = "SELECT sum(bytes_on_disk) FROM system.parts WHERE database = {database:String}";
    let file_bytes = ask(connection, parts, number)?;
    let disks = "SELECT count(), min(unreserved_space) FROM system.disks WHERE name IN \
                 (SELECT disk_name FROM system.parts WHERE database = {database:String})";
    let free_disk_bytes = match ask(connection, disks, |rows| Ok((rows.u64()?, rows.u64()?))) {
        Ok((disks, free)) => (disks > 0).then_some(free),
        // Not everybody may look at the server's disks.
        Err(error) if code_of(&error) == Some(ACCESS_DENIED) => None,
        Err(error) => return Err(error),
    };
    Ok(Health {
        engine: format!("ClickHouse {version}"),
        schema_version: u32::try_from(schema_version).unwrap_or(u32::MAX),
        levels,
        file_bytes,
        reusable_bytes: 0,
        free_disk_bytes,
        endpoints: None,
        edges: None,
    })
}

fn level(connection: &Connection, kept: &KeptLevel) -> Result<LevelHealth> {
    let from = rows_held(kept);
    let sql = format!("SELECT count(), toUInt32(min(window)), toUInt32(max(window)) FROM {from}");
    let (rows, oldest, newest) =
        ask(connection, &sql, |rows| Ok((rows.u64()?, rows.u32()?, rows.u32()?)))?;
    let there = |window: u32| (rows > 0).then(|| window.into());
    Ok(LevelHealth {
        level: kept.level,
        retention_seconds: kept.retention,
        rows,
        oldest: there(oldest),
        newest: there(newest),
    })
}

fn number(rows: &mut Rows<'_>) -> std::result::Result<u64, Malformed> {
    rows.u64()
}

/// Asks for one row.
fn ask<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnOnce(&mut Rows<'_>) -> std::result::Result<T, Malformed>,
) -> Result<T> {
    let statement = Statement::new(OPERATION, sql).text("database", connection.database());
    let answer = connection.rows(statement, Format::RowBinary)?;
    read(&mut Rows::new(&answer))
        .map_err(|Malformed| connection.unreadable(OPERATION, "rows of another shape"))
}
