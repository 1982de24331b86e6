//! Making an hour's roll-ups anew from the raw table, where they are not what it says.
//!
//! The raw table is the truth as long as it holds the hour. An hour should be over and its batches
//! delivered before it is rebuilt: what arrives meanwhile is noticed by comparing again.

use std::ops::Range;

use weir_flow::{BatchId, Epoch, Level};

use super::connection::{Connection, Format, Statement};
use super::ddl::{BATCH, COUNTER, DOUBT, GAP, RAW, roll_up_columns};
use super::rows::{Malformed, Rows};
use super::schema::flow_table;
use crate::check::SUMS;
use crate::{Result, StoreError};

/// How often an hour is tried that changes meanwhile.
const TRIES: u32 = 3;
/// Batches with more than one row that are named.
const DOUBLES: usize = 1_000;

/// What became of an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuiltHour {
    /// Its start, seconds since 1970.
    pub hour: u64,
    /// Tables that did not say what the raw table says, and do now.
    pub rebuilt: Vec<&'static str>,
}

/// Compares the hours that the range touches, and rebuilds those that differ. `held_from`: where
/// the raw table begins.
pub(super) fn rebuild(
    connection: &Connection,
    range: &Range<u64>,
    held_from: u64,
) -> Result<Vec<RebuiltHour>> {
    let first = range.start - range.start % 3_600;
    if first < held_from {
        return Err(StoreError::Query {
            reason: "begins before what the raw table still holds: those hours stay as they are",
        });
    }
    let mut hours = Vec::new();
    for hour in (first..range.end).step_by(3_600) {
        let mut rebuilt = Vec::new();
        for derived in derived() {
            if bring_to_raw(connection, &derived, hour)? {
                rebuilt.push(derived.table);
            }
        }
        // These keep one row per key whatever is added: adding all again puts back what is missing.
        for (table, select) in [(BATCH, batches(hour)), (GAP, gaps(hour))] {
            let sql = format!("INSERT INTO {table} {select}");
            connection.run(rewrite("put batches back", sql))?;
        }
        let sql = format!("DELETE FROM {DOUBT} WHERE hour = toDateTime({hour}, 'UTC')");
        connection.run(rewrite("note that an hour is compared", sql))?;
        hours.push(RebuiltHour { hour, rebuilt });
    }
    Ok(hours)
}

/// Hours that are noted down to be compared, in order.
pub(super) fn in_doubt(connection: &Connection) -> Result<Vec<u64>> {
    let operation = "read the hours to compare";
    let sql = format!("SELECT DISTINCT toUInt32(hour) AS start FROM {DOUBT} ORDER BY start");
    let answer = connection.rows(Statement::new(operation, sql), Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut hours = Vec::new();
    while !rows.is_empty() {
        let hour = rows
            .u32()
            .map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
        hours.push(u64::from(hour));
    }
    Ok(hours)
}

/// Batches of these hours that stand in the raw table more than once: each counts double.
pub(super) fn doubles(connection: &Connection, range: &Range<u64>) -> Result<Vec<BatchId>> {
    let operation = "look for batches that count double";
    let sql = format!(
        "SELECT epoch, sequence FROM {RAW} WHERE is_batch = 1 AND window >= {} AND window < {} \
         GROUP BY epoch, sequence HAVING count() > 1 ORDER BY epoch, sequence LIMIT {DOUBLES}",
        time(range.start - range.start % 3_600),
        time(range.end)
    );
    let answer = connection.rows(Statement::new(operation, sql), Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut doubles = Vec::new();
    let mut read = || -> std::result::Result<(), Malformed> {
        while !rows.is_empty() {
            doubles.push(BatchId { epoch: Epoch(rows.u128()?), sequence: rows.u64()? });
        }
        Ok(())
    };
    read().map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    Ok(doubles)
}

/// A table that follows from the raw one.
struct Derived {
    table: &'static str,
    /// Its column of time.
    time: &'static str,
    /// Its columns, keys first.
    keys: Vec<String>,
    sums: Vec<&'static str>,
    /// The same columns from the raw table, before they are summed.
    from_raw: String,
}

fn derived() -> Vec<Derived> {
    let flows = [(Level::Minute, "toStartOfMinute"), (Level::Hour, "toStartOfHour")];
    let mut all: Vec<Derived> = flows
        .into_iter()
        .map(|(level, start)| {
            let keys: Vec<String> = roll_up_columns()
                .into_iter()
                .filter(|name| !SUMS.contains(&name.as_str()))
                .collect();
            let rest = keys[1..].join(", ");
            let sums = SUMS.join(", ");
            let from_raw = format!(
                "SELECT {start}(raw.window) AS window, {rest}, {sums} FROM {RAW} AS raw \
                 WHERE is_batch = 0 AND raw.window >= FROM_TIME AND raw.window < TO_TIME"
            );
            Derived {
                table: flow_table(level),
                time: "window",
                keys,
                sums: SUMS.to_vec(),
                from_raw,
            }
        })
        .collect();
    all.push(Derived {
        table: COUNTER,
        time: "hour",
        keys: ["hour", "node", "name"].map(str::to_owned).to_vec(),
        sums: vec!["value"],
        from_raw: format!(
            "SELECT toStartOfHour(raw.window) AS hour, node, counter.name AS name, \
             toInt128(counter.value) AS value FROM {RAW} AS raw ARRAY JOIN counters AS counter \
             WHERE is_batch = 1 AND raw.window >= FROM_TIME AND raw.window < TO_TIME"
        ),
    });
    all
}

/// True where the table differed from the raw one.
fn bring_to_raw(connection: &Connection, derived: &Derived, hour: u64) -> Result<bool> {
    let (from, to) = (time(hour), time(hour + 3_600));
    let raw = derived.from_raw.replace("FROM_TIME", &from).replace("TO_TIME", &to);
    let Derived { table, time, keys, sums, .. } = derived;
    let columns = [keys.join(", "), sums.join(", ")].join(", ");
    let here = format!("{time} >= {from} AND {time} < {to}");
    let rolled = format!("SELECT {columns} FROM {table} WHERE {here}");
    for _ in 0..TRIES {
        if print_of(connection, derived, &raw)? == print_of(connection, derived, &rolled)? {
            return Ok(false);
        }
        connection.run(rewrite("delete an hour", format!("DELETE FROM {table} WHERE {here}")))?;
        let sql = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM ({raw})");
        connection.run(rewrite("rebuild an hour", sql))?;
        if print_of(connection, derived, &raw)? == print_of(connection, derived, &rolled)? {
            return Ok(true);
        }
    }
    Err(StoreError::ClickHouseTable {
        table: (*table).to_owned(),
        detail: "it changes while it is rebuilt: try again when the hour is over".to_owned(),
    })
}

/// A print of what the rows say, whatever parts they lie in: how many, and a hash of their sums.
fn print_of(connection: &Connection, derived: &Derived, rows: &str) -> Result<(u64, u64)> {
    let operation = "compare an hour";
    let keys = derived.keys.join(", ");
    let sums: Vec<String> =
        derived.sums.iter().map(|sum| format!("sum({sum}) AS sum_of_{sum}")).collect();
    let names: Vec<String> = derived.sums.iter().map(|sum| format!("sum_of_{sum}")).collect();
    // Rows that sum to nothing vanish when parts are merged.
    let nothing: Vec<String> = names.iter().map(|name| format!("{name} != 0")).collect();
    let sql = format!(
        "SELECT count(), sum(cityHash64({keys}, {})) FROM \
         (SELECT {keys}, {} FROM ({rows}) GROUP BY {keys} HAVING {})",
        names.join(", "),
        sums.join(", "),
        nothing.join(" OR ")
    );
    let statement = Statement::new(operation, sql).setting("select_sequential_consistency", 1);
    let answer = connection.rows(statement, Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut read = || Ok((rows.u64()?, rows.u64()?));
    read().map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))
}

fn batches(hour: u64) -> String {
    format!(
        "SELECT epoch, sequence, node, digest, end_seconds, written FROM {RAW} \
         WHERE is_batch = 1 AND window = {}",
        time(hour)
    )
}

fn gaps(hour: u64) -> String {
    format!(
        "SELECT node, epoch, sequence, position, gap.reason, gap.from_seconds, gap.to_seconds, \
         gap.connections, gap.records, gap.bytes, gap.bytes_bound \
         FROM {RAW} ARRAY JOIN gaps AS gap, arrayEnumerate(gaps) AS position \
         WHERE is_batch = 1 AND window = {}",
        time(hour)
    )
}

/// Not known by any token: it is meant to be written again.
fn rewrite(operation: &'static str, sql: String) -> Statement {
    Statement::new(operation, sql)
        .long()
        .setting("insert_deduplicate", 0)
        .setting("async_insert", 0)
        .setting("lightweight_deletes_sync", 2)
}

fn time(seconds: u64) -> String {
    format!("toDateTime({}, 'UTC')", seconds.min(u64::from(u32::MAX)))
}
