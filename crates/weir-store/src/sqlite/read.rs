//! Answering queries: facts are scanned once, each edge is looked up once, sums are kept by group.

use std::cmp::Ordering;
use std::time::Instant;

use hashbrown::HashMap;
use rusqlite::types::Value as Parameter;
use rusqlite::{Connection, Row, Statement, params_from_iter};
use weir_flow::{Filter, Level, Measures};

use super::ReadError;
use super::facts::TotalKey;
use super::filter::{Target, condition, fits_totals, total_has};
use super::resolve::{Edge, Groups};
use super::schema::{flow_table, total_table, window_number, window_seconds};
use crate::Limits;
use crate::check::{LAST_SECOND, SUMS};
use crate::plan::{HeldLevel, Plan, plan};
use crate::{Cell, Column, FlowQuery, Measure, Order, StoreError, Table};

/// Edges that are looked up one by one before all are read in one go instead.
const SINGLE_LOOKUPS: i64 = 2_000;

/// Stands for a group or a slot that there is not.
const NONE: u32 = u32::MAX;

pub(super) fn query(
    connection: &Connection,
    query: &FlowQuery,
    limits: Limits,
    deadline: Instant,
) -> Result<Table, ReadError> {
    let levels = held_levels(connection)?;
    let range = query.range.start.min(LAST_SECOND + 1)..query.range.end.min(LAST_SECOND + 1);
    let plan = plan(&range, query.bucket_seconds, &levels)
        .ok_or(StoreError::Query { reason: "has no level to read: none is kept" })?;

    let needs = Needs::of(query);
    let mut sums = Sums::new(&needs, plan.bucket_seconds, limits.query_groups);
    let mut groups = Groups::new(connection, &query.group_by)?;
    if fits_totals(&query.filter) && query.group_by.iter().all(|field| total_has(*field)) {
        scan_totals(connection, &plan, &query.filter, &needs, &mut groups, &mut sums)?;
    } else {
        scan_edges(connection, &plan, &query.filter, &needs, &mut groups, &mut sums)?;
    }
    if Instant::now() > deadline {
        return Err(StoreError::TimedOut { seconds: limits.query_seconds }.into());
    }
    Ok(table(query, plan, &groups, &sums, &needs))
}

/// The levels that are kept, finest first.
pub(super) fn held_levels(connection: &Connection) -> rusqlite::Result<Vec<HeldLevel>> {
    let mut statement = connection.prepare_cached(
        "SELECT seconds, horizon FROM level WHERE retention > 0 ORDER BY seconds",
    )?;
    let levels = statement
        .query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(levels
        .into_iter()
        .filter_map(|(seconds, horizon)| {
            let known = |level: &Level| level.seconds().cast_signed() == seconds;
            let level = Level::ALL.into_iter().find(known)?;
            Some(HeldLevel { level, horizon: u64::try_from(horizon).unwrap_or(0) })
        })
        .collect())
}

/// The stored sums a query needs, as indices into [`SUMS`].
struct Needs {
    columns: Vec<usize>,
}

impl Needs {
    fn of(query: &FlowQuery) -> Self {
        let ordered = match query.order {
            Order::Measure(measure) => Some(measure),
            Order::Keys => None,
        };
        let mut columns: Vec<usize> = query
            .measures
            .iter()
            .copied()
            .chain(ordered)
            .flat_map(|measure| match measure {
                Measure::Bytes => vec![0, 1],
                Measure::BytesSent => vec![0],
                Measure::BytesReceived => vec![1],
                Measure::Packets => vec![2, 3],
                Measure::PacketsSent => vec![2],
                Measure::PacketsReceived => vec![3],
                Measure::ConnectionsOpened => vec![4],
                Measure::ConnectionsClosed => vec![5],
                Measure::ConnectionsFailed => vec![6],
                Measure::ConnectionsUnreplied => vec![7],
                Measure::ConnectionsUncounted => vec![8],
                Measure::TransitBytes => vec![9],
            })
            .collect();
        columns.sort_unstable();
        columns.dedup();
        Self { columns }
    }

    /// The sums of a slot, where they belong.
    fn measures(&self, sums: &[u64]) -> Measures {
        let mut all = [0; SUMS.len()];
        for (column, sum) in self.columns.iter().zip(sums) {
            all[*column] = *sum;
        }
        let [
            sent,
            received,
            packets_sent,
            packets_received,
            opened,
            closed,
            failed,
            unreplied,
            uncounted,
            transit_bytes,
        ] = all;
        Measures {
            bytes_sent: sent,
            bytes_received: received,
            packets_sent,
            packets_received,
            connections_opened: opened,
            connections_closed: closed,
            connections_failed: failed,
            connections_unreplied: unreplied,
            connections_uncounted: uncounted,
            transit_bytes,
        }
    }
}

/// Sums by bucket and group.
struct Sums {
    bucket: Option<u64>,
    limit: usize,
    width: usize,
    /// Without buckets: the slot of each group.
    by_group: Vec<u32>,
    /// With buckets: the slot of each bucket and group.
    by_bucket: HashMap<(u64, u32), u32>,
    /// Bucket and group of each slot.
    slots: Vec<(Option<u64>, u32)>,
    /// `width` sums a slot.
    values: Vec<u64>,
}

impl Sums {
    fn new(needs: &Needs, bucket: Option<u64>, limit: usize) -> Self {
        Self {
            bucket,
            limit,
            width: needs.columns.len(),
            by_group: Vec::new(),
            by_bucket: HashMap::new(),
            slots: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Adds a fact: its sums stand in the row from the third column on.
    fn add(&mut self, level: Level, group: u32, row: &Row<'_>) -> Result<(), ReadError> {
        let slot = match self.bucket {
            None => {
                if self.by_group.len() <= group as usize {
                    self.by_group.resize(group as usize + 1, NONE);
                }
                match self.by_group[group as usize] {
                    NONE => {
                        let slot = self.new_slot(None, group)?;
                        self.by_group[group as usize] = slot;
                        slot
                    }
                    slot => slot,
                }
            }
            Some(bucket) => {
                let window = window_seconds(level, row.get_ref(0)?.as_i64().map_err(type_error)?);
                let start = window - window % bucket;
                if let Some(slot) = self.by_bucket.get(&(start, group)) {
                    *slot
                } else {
                    let slot = self.new_slot(Some(start), group)?;
                    self.by_bucket.insert((start, group), slot);
                    slot
                }
            }
        };
        let first = slot as usize * self.width;
        for (column, sum) in self.values[first..first + self.width].iter_mut().enumerate() {
            let value = row.get_ref(column + 2)?.as_i64().map_err(type_error)?;
            *sum = sum.saturating_add(u64::try_from(value).unwrap_or(0));
        }
        Ok(())
    }

    fn new_slot(&mut self, bucket: Option<u64>, group: u32) -> Result<u32, StoreError> {
        let limit = self.limit;
        let slot = u32::try_from(self.slots.len())
            .ok()
            .filter(|slot| (*slot as usize) < limit && *slot != NONE)
            .ok_or(StoreError::TooManyGroups { limit })?;
        self.slots.push((bucket, group));
        self.values.resize(self.values.len() + self.width, 0);
        Ok(slot)
    }

    fn of(&self, slot: usize) -> &[u64] {
        &self.values[slot * self.width..(slot + 1) * self.width]
    }
}

fn type_error(error: rusqlite::types::FromSqlError) -> ReadError {
    ReadError::Sqlite(error.into())
}

fn scan_totals(
    connection: &Connection,
    plan: &Plan,
    filter: &Filter,
    needs: &Needs,
    groups: &mut Groups<'_>,
    sums: &mut Sums,
) -> Result<(), ReadError> {
    let mut known: HashMap<i64, u32> = HashMap::new();
    for (level, part) in &plan.segments {
        let bounds = bounds(*level, part).map(Parameter::Integer).to_vec();
        let condition = condition(filter, Target::Total, bounds);
        let sql = scan(total_table(*level), "key", needs, &condition.sql);
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(&condition.parameters))?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(1)?.as_i64().map_err(type_error)?;
            let group = if let Some(group) = known.get(&key) {
                *group
            } else {
                let group = groups.of_total(TotalKey(key))?;
                known.insert(key, group);
                group
            };
            sums.add(*level, group, row)?;
        }
    }
    Ok(())
}

fn scan_edges(
    connection: &Connection,
    plan: &Plan,
    filter: &Filter,
    needs: &Needs,
    groups: &mut Groups<'_>,
    sums: &mut Sums,
) -> Result<(), ReadError> {
    let mut edges = Edges::matching(connection, filter, groups)?;
    for (level, part) in &plan.segments {
        let sql = scan(flow_table(*level), "edge", needs, "1");
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query(bounds(*level, part))?;
        while let Some(row) = rows.next()? {
            let edge = row.get_ref(1)?.as_i64().map_err(type_error)?;
            match edges.group(edge, groups)? {
                NONE => {}
                group => sums.add(*level, group, row)?,
            }
        }
    }
    Ok(())
}

fn bounds(level: Level, part: &std::ops::Range<u64>) -> [i64; 2] {
    [window_number(level, part.start), window_number(level, part.end)]
}

fn scan(table: &str, key: &str, needs: &Needs, condition: &str) -> String {
    let sums: Vec<&str> = needs.columns.iter().map(|column| SUMS[*column]).collect();
    let columns = [&["window", key][..], &sums].concat().join(", ");
    format!(
        "SELECT {columns} FROM {table} AS fact \
         WHERE window >= ?1 AND window < ?2 AND {condition}"
    )
}

/// The groups of edges.
struct Edges<'c> {
    connection: &'c Connection,
    groups: HashMap<i64, u32>,
    find: Statement<'c>,
    /// Edges that may still be looked up one by one; `None` when `groups` has all that match.
    lookups: Option<i64>,
}

impl<'c> Edges<'c> {
    /// With a filter, the dictionary is matched first: it is far smaller than the facts, and has
    /// indices where the facts have none. Without one, edges are looked up as they are met.
    fn matching(
        connection: &'c Connection,
        filter: &Filter,
        groups: &mut Groups<'_>,
    ) -> rusqlite::Result<Self> {
        let columns = Edge::COLUMNS;
        let mut edges = Self {
            connection,
            groups: HashMap::new(),
            find: connection.prepare(&format!("SELECT {columns} FROM edge WHERE id = ?1"))?,
            lookups: Some(SINGLE_LOOKUPS),
        };
        if *filter != Filter::All {
            let condition = condition(filter, Target::Edge, Vec::new());
            edges.read(
                &format!("SELECT {columns} FROM edge WHERE {}", condition.sql),
                condition.parameters,
                groups,
            )?;
        }
        Ok(edges)
    }

    /// The group of an edge; [`NONE`] when it does not match.
    fn group(&mut self, edge: i64, groups: &mut Groups<'_>) -> rusqlite::Result<u32> {
        if let Some(group) = self.groups.get(&edge) {
            return Ok(*group);
        }
        match &mut self.lookups {
            None => Ok(NONE),
            Some(0) => {
                let sql = format!("SELECT {} FROM edge", Edge::COLUMNS);
                self.read(&sql, Vec::new(), groups)?;
                Ok(self.groups.get(&edge).copied().unwrap_or(NONE))
            }
            Some(left) => {
                *left -= 1;
                let mut rows = self.find.query([edge])?;
                let group = match rows.next()? {
                    Some(row) => groups.of_edge(&Edge::read(row)?)?,
                    None => NONE,
                };
                self.groups.insert(edge, group);
                Ok(group)
            }
        }
    }

    /// Reads all edges that can match.
    fn read(
        &mut self,
        sql: &str,
        parameters: Vec<Parameter>,
        groups: &mut Groups<'_>,
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query(params_from_iter(parameters))?;
        while let Some(row) = rows.next()? {
            let edge = Edge::read(row)?;
            self.groups.insert(edge.id, groups.of_edge(&edge)?);
        }
        self.lookups = None;
        Ok(())
    }
}

fn table(query: &FlowQuery, plan: Plan, groups: &Groups<'_>, sums: &Sums, needs: &Needs) -> Table {
    let (order, more) = ordered(query, groups, sums, needs);
    let rows = order
        .into_iter()
        .map(|slot| {
            let (bucket, group) = sums.slots[slot];
            let measures = needs.measures(sums.of(slot));
            bucket
                .map(Cell::Time)
                .into_iter()
                .chain(groups.cells(group))
                .chain(query.measures.iter().map(|measure| Cell::Sum(measure.of(&measures))))
                .collect()
        })
        .collect();
    let columns = plan
        .bucket_seconds
        .map(|_| Column::Bucket)
        .into_iter()
        .chain(query.group_by.iter().copied().map(Column::Field))
        .chain(query.measures.iter().copied().map(Column::Measure))
        .collect();
    Table {
        columns,
        rows,
        level: plan.level,
        window_seconds: plan.window_seconds,
        bucket_seconds: plan.bucket_seconds,
        covers: plan.covers,
        more,
    }
}

/// The slots in the order of the answer, and whether the limit left some out.
fn ordered(
    query: &FlowQuery,
    groups: &Groups<'_>,
    sums: &Sums,
    needs: &Needs,
) -> (Vec<usize>, bool) {
    let ranks = groups.ranks();
    let weight = |slot: usize| match query.order {
        Order::Measure(measure) => measure.of(&needs.measures(sums.of(slot))),
        Order::Keys => 0,
    };
    let mut slots: Vec<(u64, usize)> =
        (0..sums.slots.len()).map(|slot| (weight(slot), slot)).collect();
    let compare = |left: &(u64, usize), right: &(u64, usize)| -> Ordering {
        let (left_bucket, left_group) = sums.slots[left.1];
        let (right_bucket, right_group) = sums.slots[right.1];
        let rank = |atom: &u32| ranks[*atom as usize];
        right.0.cmp(&left.0).then(left_bucket.cmp(&right_bucket)).then_with(|| {
            groups.key(left_group).iter().map(rank).cmp(groups.key(right_group).iter().map(rank))
        })
    };
    let limit = query.limit.unwrap_or(usize::MAX);
    let more = limit < slots.len();
    if more {
        if limit > 0 {
            slots.select_nth_unstable_by(limit, compare);
        }
        slots.truncate(limit);
    }
    slots.sort_unstable_by(compare);
    (slots.into_iter().map(|(_, slot)| slot).collect(), more)
}
