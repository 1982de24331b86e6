//! Everything that is read but flows and batches: values, gaps, counters.

use std::cmp::Reverse;
use std::ops::Range;

use weir_flow::batch::{Gap, GapReason};
use weir_flow::{BatchId, Epoch, Field, Level};

use super::commit::horizon;
use super::connection::{Connection, Format, Statement};
use super::ddl::{COUNTER, GAP};
use super::filter::Parameters;
use super::read::{Texts, cell, key};
use super::rows::{Malformed, Rows};
use super::schema::{column, flow_table};
use crate::check::KeptLevel;
use crate::{Cell, CounterSum, Limits, Result, StoredGap};

/// Gaps in one answer.
const GAPS: usize = 10_000;
/// Values that are looked through at a time where only part of them is wanted.
const PAGE: usize = 100_000;
const HOUR: u64 = 3_600;

pub(super) fn values(
    connection: &Connection,
    levels: &[KeptLevel; 3],
    dimension: Field,
    beginning: &str,
    limit: usize,
    limits: &Limits,
) -> Result<Vec<String>> {
    let operation = "list values";
    let Some(from) = rows_furthest_back(levels) else { return Ok(Vec::new()) };
    let columns = key(dimension).join(", ");
    let mut parameters = Parameters::default();
    // Text is stored as it is written: the engine can tell how it begins.
    let mut wanted = String::new();
    if let Some(name) = text_column(dimension) {
        let beginning = parameters.bind("String", beginning);
        wanted = format!(" AND startsWith({name}, {beginning})");
    }
    let mut values = Vec::new();
    let mut offset = 0;
    while values.len() < limit {
        let page = if wanted.is_empty() { PAGE } else { (limit - values.len()).saturating_add(1) };
        let sql = format!(
            "SELECT DISTINCT {columns} FROM {from}{wanted} ORDER BY {columns} \
             LIMIT {page} OFFSET {offset}"
        );
        let statement = parameters.statement(operation, &sql).within(limits);
        let answer = connection.rows(statement, Format::RowBinary)?;
        let mut rows = Rows::new(&answer);
        let mut texts = Texts::default();
        let mut seen = 0;
        while !rows.is_empty() {
            seen += 1;
            let cell = cell(dimension, &mut rows, &mut texts)
                .map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
            let value = cell.to_string();
            if cell != Cell::None && value.starts_with(beginning) && values.len() < limit {
                values.push(value);
            }
        }
        if seen < page {
            break;
        }
        offset += page;
    }
    Ok(values)
}

/// Every flow that is held, of the level that reaches back furthest; the coarser where two do.
fn rows_furthest_back(levels: &[KeptLevel; 3]) -> Option<String> {
    let kept = levels.iter().filter(|kept| kept.retention > 0);
    let kept = kept.min_by_key(|kept| (kept.horizon, Reverse(kept.level)))?;
    Some(rows_held(kept))
}

/// The table and the condition for flows of a level that are held.
pub(super) fn rows_held(kept: &KeptLevel) -> String {
    let flows_only = if kept.level == Level::TenSeconds { "is_batch = 0 AND " } else { "" };
    format!("{} WHERE {flows_only}window >= {}", flow_table(kept.level), time(kept.horizon))
}

/// A time as a column has it.
fn time(seconds: u64) -> String {
    format!("toDateTime({}, 'UTC')", seconds.min(u32::MAX.into()))
}

/// The column of a field that is stored as it is written.
fn text_column(field: Field) -> Option<String> {
    use weir_flow::EndpointField::{Kind, Resolution, Unresolved};
    let is_code = matches!(
        field,
        Field::DestinationPort
            | Field::Protocol
            | Field::Class
            | Field::IpVersion
            | Field::Endpoint(_, Kind | Resolution | Unresolved)
    );
    column(field).filter(|_| !is_code)
}

pub(super) fn gaps(
    connection: &Connection,
    levels: &[KeptLevel; 3],
    range: &Range<u64>,
    limits: &Limits,
) -> Result<Vec<StoredGap>> {
    let operation = "read gaps";
    let sql = format!(
        "SELECT toString(node), epoch, sequence, reason, from_seconds, to_seconds, connections, \
         records, bytes, bytes_bound FROM {GAP} FINAL \
         WHERE to_seconds >= {{start:UInt64}} AND from_seconds < {{end:UInt64}} \
         ORDER BY from_seconds DESC, epoch DESC, sequence DESC, position DESC LIMIT {GAPS}"
    );
    let statement = Statement::new(operation, sql)
        .number("start", range.start.max(horizon(levels)))
        .number("end", range.end)
        .within(limits);
    let answer = connection.rows(statement, Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut gaps = Vec::new();
    while !rows.is_empty() {
        let gap = gap(&mut rows)
            .map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
        gaps.push(gap);
    }
    gaps.reverse();
    Ok(gaps)
}

fn gap(rows: &mut Rows<'_>) -> std::result::Result<StoredGap, Malformed> {
    Ok(StoredGap {
        node: rows.text()?.to_owned(),
        batch: BatchId { epoch: Epoch(rows.u128()?), sequence: rows.u64()? },
        gap: Gap {
            reason: GapReason::from_code(rows.u8()?).unwrap_or_default(),
            from_seconds: rows.u64()?,
            to_seconds: rows.u64()?,
            connections: rows.u64()?,
            records: rows.u64()?,
            bytes: rows.u64()?,
            bytes_bound: match rows.u8()? {
                0 => Some(rows.u64()?),
                _ => None,
            },
        },
    })
}

pub(super) fn counters(
    connection: &Connection,
    levels: &[KeptLevel; 3],
    range: &Range<u64>,
    limits: &Limits,
) -> Result<Vec<CounterSum>> {
    let operation = "read counters";
    let sql = format!(
        "SELECT toString(node), toString(name), \
         toInt64(least(greatest(sum(toInt128(value)) AS total, {least}), {most})) \
         FROM {COUNTER} WHERE hour >= {start} AND hour < {end} \
         GROUP BY node, name HAVING total != 0 ORDER BY node, name",
        least = i64::MIN + 1,
        most = i64::MAX,
        start = time((range.start - range.start % HOUR).max(horizon(levels))),
        end = time(range.end.div_ceil(HOUR).saturating_mul(HOUR)),
    );
    let answer =
        connection.rows(Statement::new(operation, sql).within(limits), Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut counters = Vec::new();
    let mut read = || -> std::result::Result<(), Malformed> {
        while !rows.is_empty() {
            let (node, name) = (rows.text()?.to_owned(), rows.text()?.to_owned());
            counters.push(CounterSum { node, name, value: rows.i64()? });
        }
        Ok(())
    };
    read().map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    Ok(counters)
}
