//! Forgetting what is past its retention: first the word that it is gone, then whole partitions.

use weir_flow::Level;

use super::connection::{Connection, Format, Statement};
use super::ddl::{BATCH, COUNTER, GAP, quoted};
use super::refusal::{ACCESS_DENIED, code_of};
use super::rows::{Malformed, Rows};
use super::schema::flow_table;
use super::{levels, memory};
use crate::check::KeptLevel;
use crate::{Pruned, Result};

/// Seconds by which rows outlive the word that they are gone: who asked just before still finds
/// them.
const GRACE: u64 = 3_600;
/// What partitions are named by.
const DAY: &str = "toYYYYMMDD";
const MONTH: &str = "toYYYYMM";
/// Partitions dropped per call.
const PARTITIONS: usize = 32;

/// Moves the horizons to `now_seconds` and drops what lies wholly before them.
pub(super) fn prune(
    connection: &Connection,
    before: &[KeptLevel; 3],
    now_seconds: u64,
) -> Result<([KeptLevel; 3], Pruned)> {
    let levels = before.map(|kept| advanced(kept, now_seconds));
    let moved: Vec<KeptLevel> = levels
        .iter()
        .zip(before)
        .filter(|(now, before)| now.horizon != before.horizon)
        .map(|(now, _)| *now)
        .collect();
    levels::write(connection, &moved)?;
    let mut pruned = Pruned::default();
    let mut left = PARTITIONS;
    for (kept, rows) in levels.iter().zip(&mut pruned.rows) {
        // The raw table is also where batches land: it keeps a day of them at least.
        let is_raw = kept.level == Level::TenSeconds;
        let horizon = if is_raw && kept.retention == 0 {
            kept.horizon.saturating_sub(86_400)
        } else {
            kept.horizon
        };
        let partition = if kept.level == Level::Hour { MONTH } else { DAY };
        *rows = drop_before(connection, flow_table(kept.level), partition, horizon, &mut left)?;
    }
    let horizon = levels.iter().map(|kept| kept.horizon).min().unwrap_or(0);
    for table in [BATCH, COUNTER, GAP] {
        pruned.other += drop_before(connection, table, MONTH, horizon, &mut left)?;
    }
    pruned.other += memory::forget(connection, now_seconds)?;
    pruned.more = left == 0;
    Ok((levels, pruned))
}

/// The level with its horizon at its retention's end. A horizon never moves back.
fn advanced(kept: KeptLevel, now_seconds: u64) -> KeptLevel {
    let oldest = now_seconds.saturating_sub(kept.retention);
    let horizon = kept.horizon.max(oldest - oldest % kept.level.seconds());
    KeptLevel { horizon, ..kept }
}

/// Drops partitions that lie wholly before; `partition` is what they are named by. Returns their
/// rows.
fn drop_before(
    connection: &Connection,
    table: &str,
    partition: &str,
    horizon: u64,
    left: &mut usize,
) -> Result<u64> {
    let operation = "look for days past their retention";
    let before = horizon.saturating_sub(GRACE).min(u64::from(u32::MAX));
    let sql = format!(
        "SELECT partition, sum(rows) FROM system.parts \
         WHERE database = {{database:String}} AND table = {{table:String}} AND active AND rows > 0 \
         AND toUInt32OrZero(partition) < {partition}(toDateTime({before}, 'UTC')) \
         GROUP BY partition ORDER BY partition LIMIT {left}"
    );
    let statement =
        Statement::new(operation, sql).text("database", connection.database()).text("table", table);
    let answer = connection.rows(statement, Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut partitions = Vec::new();
    let mut read = || -> std::result::Result<(), Malformed> {
        while !rows.is_empty() {
            partitions.push((rows.text()?.to_owned(), rows.u64()?));
        }
        Ok(())
    };
    read().map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    let mut dropped = 0;
    for (partition, rows) in partitions {
        // Partitions are numbers by our own tables.
        if !partition.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let sql = format!("ALTER TABLE {} DROP PARTITION {partition}", quoted(table));
        match connection.run(Statement::new("drop a day past its retention", sql).long()) {
            Ok(()) => {
                dropped += rows;
                *left -= 1;
            }
            // Nobody reads it any more, and the tables' own expiry removes it.
            Err(error) if code_of(&error) == Some(ACCESS_DENIED) => return Ok(dropped),
            Err(error) => return Err(error),
        }
    }
    Ok(dropped)
}
