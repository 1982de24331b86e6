//! For how long each level is kept, and since when it holds.

use weir_flow::Level;

use super::connection::{Connection, Format, Statement};
use super::ddl::LEVEL;
use super::rows::{Malformed, Rows};
use super::schema::flow_table;
use crate::check::KeptLevel;
use crate::{Result, Retention};

/// The levels as they stand. A horizon never moves back.
pub(super) fn read(connection: &Connection) -> Result<[KeptLevel; 3]> {
    let operation = "read the levels";
    let sql = format!(
        "SELECT seconds, argMax(retention, written), max(horizon) FROM {LEVEL} GROUP BY seconds"
    );
    let statement = Statement::new(operation, sql).setting("select_sequential_consistency", 1);
    let answer = connection.rows(statement, Format::RowBinary)?;
    let mut levels = Level::ALL.map(|level| KeptLevel { level, retention: 0, horizon: 0 });
    let mut rows = Rows::new(&answer);
    let mut read = || -> std::result::Result<(), Malformed> {
        while !rows.is_empty() {
            let (seconds, retention, horizon) = (rows.u32()?, rows.u64()?, rows.u64()?);
            for kept in &mut levels {
                if kept.level.seconds() == u64::from(seconds) {
                    *kept = KeptLevel { retention, horizon, ..*kept };
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
    let mut levels = read(connection)?;
    let mut changed = Vec::new();
    for kept in &mut levels {
        let wanted = retention.of(kept.level);
        if kept.retention == wanted {
            continue;
        }
        if kept.retention == 0
            && let Some(newest) = newest(connection)?
        {
            kept.horizon = kept.horizon.max((newest / 3_600 + 1) * 3_600);
        }
        kept.retention = wanted;
        changed.push(*kept);
    }
    write(connection, &changed)?;
    Ok(levels)
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
