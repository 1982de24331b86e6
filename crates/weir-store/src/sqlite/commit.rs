//! Writing: batches in, once, whole.

use hashbrown::HashMap;
use rusqlite::{CachedStatement, Connection, Savepoint, Transaction, TransactionBehavior, params};
use weir_flow::fold::Flow;
use weir_flow::ingest::Inserted;
use weir_flow::{Level, Measures, Name};

use super::dictionary::{Dictionary, Memory};
use super::facts::{EdgeKey, TotalKey, ip_version, stored};
use super::lists::{self, KnownEpoch};
use super::schema::{flow_table, total_table, window_number};
use crate::Retention;
use crate::check::{KeptLevel, LAST_SECOND, SUMS, check, columns, is_too_old};
use crate::{CommitBatch, InvalidBatch, Outcome};

/// Digests kept per epoch: the newest this many numbers, half a day of 10-second batches.
const DIGESTS: u64 = 4_096;
/// Epochs known at a time. A node makes a new one only when it loses its spool.
const EPOCHS: usize = 65_536;
/// Of these, of one node: nobody may use up the room of all.
const EPOCHS_OF_NODE: usize = 256;
/// The one connection that writes, with what it remembers.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) memory: Memory,
    /// By epoch; what is in the database, never what a transaction is about to add.
    pub(super) epochs: HashMap<u128, KnownEpoch>,
    pub(super) levels: [KeptLevel; 3],
    pub(super) sweep: Sweep,
}

/// The search for dictionary rows that nothing refers to any more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweep {
    /// Where it goes on in each dictionary; 0: at the beginning.
    pub(super) at: [i64; 3],
    /// The hour since 1970 it looks for now, or looked for last.
    pub(super) hour: u64,
}

impl Writer {
    pub(super) fn new(mut connection: Connection, retention: Retention) -> rusqlite::Result<Self> {
        connection.set_prepared_statement_cache_capacity(64);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let levels = keep_levels(&transaction, retention)?;
        let epochs = lists::epochs(&transaction)?;
        transaction.commit()?;
        Ok(Self { connection, memory: Memory::new(), epochs, levels, sweep: Sweep::default() })
    }

    pub(super) fn commit(&mut self, batches: &[CommitBatch<'_>]) -> rusqlite::Result<Vec<Outcome>> {
        let mut changed = HashMap::new();
        let result = self.commit_in_one(batches, &mut changed);
        match &result {
            Ok(_) => self.epochs.extend(changed),
            // The rows this transaction added are gone.
            Err(_) => self.memory.clear(),
        }
        result
    }

    fn commit_in_one(
        &mut self,
        batches: &[CommitBatch<'_>],
        changed: &mut HashMap<u128, KnownEpoch>,
    ) -> rusqlite::Result<Vec<Outcome>> {
        let Self { connection, memory, epochs, levels, .. } = self;
        let mut transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(batches.len());
        for batch in batches {
            let known = changed.get(&batch.id.epoch.0).or_else(|| epochs.get(&batch.id.epoch.0));
            let room = known.is_some()
                || (epochs.len() + changed.len() < EPOCHS
                    && epochs.values().filter(|epoch| epoch.node == batch.node).count()
                        < EPOCHS_OF_NODE);
            let outcome = match decide(batch, known, room, levels, &transaction)? {
                Decision::Refuse(outcome) => outcome,
                Decision::Take(epoch) => {
                    let before = known.cloned();
                    let (outcome, epoch) =
                        take(batch, before.as_ref(), epoch, levels, memory, &mut transaction)?;
                    if let Some(epoch) = epoch {
                        changed.insert(batch.id.epoch.0, epoch);
                    }
                    outcome
                }
            };
            outcomes.push(outcome);
        }
        transaction.commit()?;
        Ok(outcomes)
    }
}

/// Reads the levels, and brings them to this writer's retention. A level that is switched on
/// begins to hold when everything else already has rows: what it missed lies before its horizon.
fn keep_levels(
    transaction: &Transaction<'_>,
    retention: Retention,
) -> rusqlite::Result<[KeptLevel; 3]> {
    let mut newest = None;
    for level in Level::ALL {
        newest = newest.max(super::health::newest(transaction, level)?);
    }
    let mut levels = Level::ALL.map(|level| KeptLevel { level, retention: 0, horizon: 0 });
    for kept in &mut levels {
        let stored: (u64, u64) = transaction.query_row(
            "SELECT retention, horizon FROM level WHERE seconds = ?1",
            [kept.level.seconds().cast_signed()],
            |row| Ok((seconds(row.get(0)?), seconds(row.get(1)?))),
        )?;
        kept.retention = retention.of(kept.level);
        kept.horizon = match newest {
            Some(newest) if stored.0 == 0 && kept.retention > 0 => {
                stored.1.max((newest / 3_600 + 1) * 3_600)
            }
            _ => stored.1,
        };
        transaction.execute(
            "UPDATE level SET retention = ?2, horizon = ?3 WHERE seconds = ?1",
            [kept.level.seconds(), kept.retention, kept.horizon].map(crate::sqlite::facts::stored),
        )?;
    }
    Ok(levels)
}

fn seconds(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What is to be done with a batch.
enum Decision {
    Refuse(Outcome),
    /// Its epoch, with its number in.
    Take(KnownEpoch),
}

fn decide(
    batch: &CommitBatch<'_>,
    known: Option<&KnownEpoch>,
    room: bool,
    levels: &[KeptLevel; 3],
    connection: &Connection,
) -> rusqlite::Result<Decision> {
    let refuse = |outcome| Ok(Decision::Refuse(outcome));
    if let Err(reason) = check(batch) {
        return refuse(Outcome::Invalid(reason));
    }
    let mut epoch = match known {
        Some(epoch) if epoch.node != batch.node => {
            let owner = epoch.node.clone();
            return refuse(Outcome::Invalid(InvalidBatch::OtherNode { owner }));
        }
        Some(epoch) => epoch.clone(),
        None if !room => return refuse(Outcome::NoRoom),
        None => KnownEpoch::new(batch.node),
    };
    match epoch.ranges.insert(batch.id.sequence) {
        Inserted::New => {}
        Inserted::NoRoom => return refuse(Outcome::NoRoom),
        Inserted::Known => {
            let digest = lists::digest(connection, epoch.id, batch.id.sequence)?;
            let same = digest.is_none_or(|digest| digest == batch.digest);
            return refuse(if same { Outcome::AlreadyCommitted } else { Outcome::DigestMismatch });
        }
    }
    if is_too_old(batch, levels) {
        return refuse(Outcome::TooOld);
    }
    epoch.last = epoch.last.max(batch.end_seconds.min(LAST_SECOND));
    Ok(Decision::Take(epoch))
}

/// Writes a batch within a savepoint. A row the database refuses takes back this batch alone.
fn take(
    batch: &CommitBatch<'_>,
    before: Option<&KnownEpoch>,
    mut epoch: KnownEpoch,
    levels: &[KeptLevel; 3],
    memory: &mut Memory,
    transaction: &mut Transaction<'_>,
) -> rusqlite::Result<(Outcome, Option<KnownEpoch>)> {
    let mut savepoint = transaction.savepoint()?;
    match write(batch, before, &mut epoch, levels, memory, &savepoint) {
        Ok(()) => {
            savepoint.commit()?;
            Ok((Outcome::Committed, Some(epoch)))
        }
        Err(rusqlite::Error::SqliteFailure(failure, text))
            if failure.code == rusqlite::ErrorCode::ConstraintViolation =>
        {
            savepoint.rollback()?;
            memory.clear();
            let text = text.unwrap_or_else(|| failure.to_string());
            Ok((Outcome::Invalid(InvalidBatch::Row(text)), None))
        }
        Err(error) => Err(error),
    }
}

fn write(
    batch: &CommitBatch<'_>,
    before: Option<&KnownEpoch>,
    epoch: &mut KnownEpoch,
    levels: &[KeptLevel; 3],
    memory: &mut Memory,
    savepoint: &Savepoint<'_>,
) -> rusqlite::Result<()> {
    let node = write_flows(batch, levels, memory, savepoint)?;
    write_gaps(batch, node, savepoint)?;
    write_counters(batch, node, savepoint)?;
    lists::write_epoch(savepoint, batch.id.epoch, before, epoch)?;
    savepoint
        .prepare_cached("INSERT INTO digest (epoch, sequence, digest) VALUES (?1, ?2, ?3)")?
        .execute(params![epoch.id, stored(batch.id.sequence), batch.digest.0.to_be_bytes()])?;
    savepoint
        .prepare_cached("DELETE FROM digest WHERE epoch = ?1 AND sequence <= ?2")?
        .execute([epoch.id, stored(epoch.newest().saturating_sub(DIGESTS))])?;
    Ok(())
}

/// Writes the flows and totals of all levels; returns the node's id.
fn write_flows(
    batch: &CommitBatch<'_>,
    levels: &[KeptLevel; 3],
    memory: &mut Memory,
    connection: &Connection,
) -> rusqlite::Result<i64> {
    let mut dictionary = Dictionary::new(memory, connection)?;
    let node = dictionary.node(batch.node)?;
    let flows = batch.flows.levels.iter().flatten();
    let Some(last) = flows.map(|flow| hour(flow.key.window)).max() else { return Ok(node) };
    let endpoints: Vec<(i64, u8)> = batch
        .flows
        .endpoints
        .iter()
        .map(|endpoint| {
            let endpoint = endpoint.without_empty_names();
            Ok((dictionary.endpoint(&endpoint, last)?, ip_version(&endpoint)))
        })
        .collect::<rusqlite::Result<_>>()?;

    let places = Places {
        node,
        endpoints: &endpoints,
        service_names: &batch.flows.service_names,
        unnamed: Name::from(""),
        last,
    };
    let mut rows = Vec::new();
    let mut totals = HashMap::new();
    for (kept, flows) in levels.iter().zip(&batch.flows.levels) {
        rows.clear();
        totals.clear();
        for flow in flows.iter().filter(|flow| kept.takes(flow.key.window)) {
            let (edge, total) = places.of(flow, &mut dictionary)?;
            let window = window_number(kept.level, flow.key.window);
            *totals.entry((window, total)).or_insert_with(Measures::default) += flow.measures;
            rows.push((window, edge, flow));
        }
        // In the order of the table, so that its pages fill up one after the other.
        rows.sort_unstable_by_key(|&(window, edge, _)| (window, edge));
        let mut insert = connection.prepare_cached(&upsert(flow_table(kept.level), "edge"))?;
        for (window, edge, flow) in &rows {
            add(&mut insert, *window, *edge, &flow.measures)?;
        }
        let mut insert = connection.prepare_cached(&upsert(total_table(kept.level), "key"))?;
        let mut totals: Vec<_> = totals.drain().collect();
        totals.sort_unstable_by_key(|(key, _)| *key);
        for ((window, key), measures) in &totals {
            add(&mut insert, *window, key.0, measures)?;
        }
    }
    Ok(node)
}

/// A batch's dictionaries, as ids.
struct Places<'a> {
    node: i64,
    /// Id and IP version.
    endpoints: &'a [(i64, u8)],
    service_names: &'a [Name],
    unnamed: Name,
    /// The batch's last hour.
    last: i64,
}

impl Places<'_> {
    /// The edge and the total a flow belongs to.
    fn of(
        &self,
        flow: &Flow,
        dictionary: &mut Dictionary<'_>,
    ) -> rusqlite::Result<(i64, TotalKey)> {
        let key = &flow.key;
        let (source, version) = self.endpoints[key.source as usize];
        let (destination, _) = self.endpoints[key.destination as usize];
        let name = key.service_name.map_or(&self.unnamed, |n| &self.service_names[n as usize]);
        let edge = EdgeKey {
            source,
            destination,
            service: dictionary.service(key.service, name, self.last)?,
            node: self.node,
            destination_port: key.destination_port,
            protocol: key.protocol.0,
            class: key.class.code(),
        };
        let edge = dictionary.edge(&edge, version, hour(key.window))?;
        Ok((edge, TotalKey::new(self.node, key, version)))
    }
}

fn hour(window: u64) -> i64 {
    stored(window / 3_600)
}

/// Adds to a row, or makes it. An addition that leaves the range of integers is a real number in
/// SQLite, and the lesser of the two is then the largest integer.
fn upsert(table: &str, key: &str) -> String {
    let names = SUMS.join(", ");
    let sums: Vec<String> = SUMS
        .iter()
        .map(|sum| format!("{sum} = min({sum} + excluded.{sum}, {})", i64::MAX))
        .collect();
    format!(
        "INSERT INTO {table} (window, {key}, {names}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
         ON CONFLICT DO UPDATE SET {}",
        sums.join(", ")
    )
}

fn add(
    insert: &mut CachedStatement<'_>,
    window: i64,
    key: i64,
    measures: &Measures,
) -> rusqlite::Result<()> {
    insert.raw_bind_parameter(1, window)?;
    insert.raw_bind_parameter(2, key)?;
    for (index, sum) in columns(measures).into_iter().enumerate() {
        insert.raw_bind_parameter(index + 3, stored(sum))?;
    }
    insert.raw_execute()?;
    Ok(())
}

fn write_gaps(batch: &CommitBatch<'_>, node: i64, connection: &Connection) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO gap (node, epoch, sequence, reason, from_seconds, to_seconds, connections, \
         records, bytes, bytes_bound) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for gap in batch.gaps {
        insert.execute(params![
            node,
            batch.id.epoch.0.to_be_bytes(),
            stored(batch.id.sequence),
            gap.reason.code(),
            stored(gap.from_seconds),
            stored(gap.to_seconds),
            stored(gap.connections),
            stored(gap.records),
            stored(gap.bytes),
            gap.bytes_bound.map(stored),
        ])?;
    }
    Ok(())
}

fn write_counters(
    batch: &CommitBatch<'_>,
    node: i64,
    connection: &Connection,
) -> rusqlite::Result<()> {
    // An interval that ends with the hour belongs to that hour.
    let hour = hour(batch.end_seconds.saturating_sub(1).min(LAST_SECOND));
    let mut insert = connection.prepare_cached(&format!(
        "INSERT INTO counter (hour, node, name, value) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT DO UPDATE SET value = max(min(value + excluded.value, {}), {})",
        i64::MAX,
        // The literal of the least integer is a real number; the next one is not.
        i64::MIN + 1,
    ))?;
    for (name, value) in batch.counters {
        insert.execute(params![hour, node, name, (*value).max(i64::MIN + 1)])?;
    }
    Ok(())
}
