//! For how long each level is kept, and since when it holds.

use weir_flow::Level;

use super::connection::{Connection, Format, Statement};
use super::ddl::LEVEL;
use super::rows::{Malformed, Rows};
use super::schema::flow_table;
use crate::check::KeptLevel;
use crate::{Result, Retention, StoreError};

/// The levels as they stand. A horizon never moves back. A level without a row is an error: taken
/// for one that is not kept, everything it holds would be deleted.
pub(super) fn read(connection: &Connection) -> Result<[KeptLevel; 3]> {
    let mut levels = Level::ALL.map(|level| KeptLevel { level, retention: 0, horizon: 0 });
    for (kept, known) in levels.iter_mut().zip(known(connection)?) {
        *kept = known.ok_or_else(|| incomplete(connection))?;
    }
    Ok(levels)
}

fn incomplete(connection: &Connection) -> StoreError {
    StoreError::ClickHouseTable {
        table: format!("{}.{LEVEL}", connection.database()),
        detail: "it does not say how long each level is kept: another replica may not have its \
                 rows yet, or they were lost; put them back (seconds, retention, horizon, written) \
                 before anything is read or deleted"
            .to_owned(),
    }
}

/// The levels that have a row, in the order of [`Level::ALL`].
fn known(connection: &Connection) -> Result<[Option<KeptLevel>; 3]> {
    let operation = "read the levels";
    let sql = format!(
        "SELECT seconds, argMax(retention, written), max(horizon) FROM {LEVEL} GROUP BY seconds"
    );
    let statement = Statement::new(operation, sql).setting("select_sequential_consistency", 1);
    let answer = connection.rows(statement, Format::RowBinary)?;
    let mut levels = [None; 3];
    let mut rows = Rows::new(&answer);
    let mut read = || -> std::result::Result<(), Malformed> {
        while !rows.is_empty() {
            let (seconds, retention, horizon) = (rows.u32()?, rows.u64()?, rows.u64()?);
            for (kept, level) in levels.iter_mut().zip(Level::ALL) {
                if level.seconds() == u64::from(seconds) {
                    *kept = Some(KeptLevel { level, retention, horizon });
                }
            }
        }
        Ok(())
    };
    read().map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    Ok(levels)
}

/// Brings the levels to this retention. A level that is switched on begins to hold when everything
/// else already has rows: what it missed lies before its horizon.
pub(super) fn keep(connection: &Connection, retention: Retention) -> Result<[KeptLevel; 3]> {
    let known = known(connection)?;
    let newest = newest(connection)?;
    // Tables that were just made have no rows of either kind.
    if newest.is_some() && known.iter().any(Option::is_none) {
        return Err(incomplete(connection));
    }
    let mut levels = Level::ALL.map(|level| KeptLevel { level, retention: 0, horizon: 0 });
    let mut changed = Vec::new();
    for (kept, known) in levels.iter_mut().zip(known) {
        let wanted = retention.of(kept.level);
        *kept = known.unwrap_or(*kept);
        if known.is_some_and(|known| known.retention == wanted) {
            continue;
        }
        if known.is_some_and(|known| known.retention == 0)
            && let Some(newest) = newest
        {
            kept.horizon = kept.horizon.max((newest / 3_600 + 1) * 3_600);
        }
        kept.retention = wanted;
        changed.push(*kept);
    }
    write(connection, &changed)?;
    Ok(levels)
}

/// Seconds by which a server's clock and the engine's may differ.
const CLOCKS_APART: u64 = 3_600;

/// An error where the engine tells quite another time.
pub(super) fn check_clock(connection: &Connection, now_seconds: u64) -> Result<()> {
    let operation = "compare the clocks";
    let statement = Statement::new(operation, "SELECT toUInt32(now())");
    let answer = connection.rows(statement, Format::RowBinary)?;
    let engine = Rows::new(&answer)
        .u32()
        .map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    if u64::from(engine).abs_diff(now_seconds) > CLOCKS_APART {
        return Err(connection.unreadable(
            operation,
            format!(
                "it is {engine} there and {now_seconds} here (seconds since 1970): nothing is \
                 deleted until both clocks are right"
            ),
        ));
    }
    Ok(())
}

/// Writes levels down.
pub(super) fn write(connection: &Connection, levels: &[KeptLevel]) -> Result<()> {
    if levels.is_empty() {
        return Ok(());
    }
    let rows: Vec<String> = levels
        .iter()
        .map(|kept| {
            let (seconds, retention) = (kept.level.seconds(), kept.retention);
            format!("({seconds}, {retention}, {})", kept.horizon)
        })
        .collect();
    let sql = format!(
        "INSERT INTO {LEVEL} (seconds, retention, horizon, written) \
         SELECT level.1, level.2, level.3, now64(6, 'UTC') \
         FROM (SELECT arrayJoin([{}]) AS level)",
        rows.join(", ")
    );
    connection.run(Statement::new("keep the levels", sql).setting("async_insert", 0))
}

/// The newest hour of any flow.
fn newest(connection: &Connection) -> Result<Option<u64>> {
    let operation = "find the newest flow";
    let sql = format!("SELECT count(), toUInt32(max(window)) FROM {}", flow_table(Level::Hour));
    let answer = connection.rows(Statement::new(operation, sql), Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut read = || Ok((rows.u64()?, rows.u32()?));
    let (count, newest) =
        read().map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    Ok((count > 0).then_some(u64::from(newest)))
}
