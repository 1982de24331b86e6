//! Writing: every batch one insert, looked up by its number before and known by its token.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use weir_flow::ingest::Inserted;
use weir_flow::{BatchId, Epoch};

use super::connection::{Connection, Statement};
use super::ddl::{DOUBT, WINDOW_SECONDS};
use super::encode;
use super::kubenetmon::Kubenetmon;
use super::lookup::{self, Found, KnownEpoch};
use super::options::ClickHouseOptions;
use super::refusal::{QUORUM_PENDING, code_of};
use crate::check::{KeptLevel, check, is_too_old};
use crate::{CommitBatch, InvalidBatch, Outcome, Result};

/// Inserts under way at a time.
const INSERTS: usize = 8;
/// Epochs remembered at a time; one that is forgotten is read again.
const EPOCHS: usize = 16_384;
/// Tries of an insert that another's quorum stands in the way of.
const QUORUM_TRIES: u32 = 20;

/// What the writer remembers. All of it can be read again.
#[derive(Debug, Default)]
pub(super) struct Writer {
    epochs: HashMap<Epoch, KnownEpoch>,
}

/// What a group is committed with.
pub(super) struct Place<'a> {
    pub(super) connection: &'a Connection,
    pub(super) options: &'a ClickHouseOptions,
    pub(super) is_replicated: bool,
    /// Blocks of which every table remembers the tokens.
    pub(super) window: u64,
    pub(super) levels: [KeptLevel; 3],
    pub(super) kubenetmon: Option<&'a Kubenetmon>,
}

impl Place<'_> {
    /// Inserts under way at a time.
    pub(super) fn width(&self) -> usize {
        // A quorum is waited for by one insert at a time.
        if self.is_replicated { 1 } else { INSERTS }
    }
}

/// One insert to be done.
pub(super) struct Insert {
    /// Which of the group's batches.
    pub(super) at: usize,
    pub(super) token: String,
    pub(super) rows: Bytes,
}

impl Writer {
    pub(super) fn commit(
        &mut self,
        place: &Place<'_>,
        batches: &[CommitBatch<'_>],
    ) -> Result<Vec<Outcome>> {
        let mut outcomes: Vec<Option<Outcome>> = batches.iter().map(refuse_invalid).collect();
        let wanted: Vec<(BatchId, u32)> = batches
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| outcome.is_none())
            .map(|(batch, _)| (batch.id, encode::hour(batch)))
            .collect();
        let horizon = horizon(&place.levels);
        let found = lookup::batches(place.connection, &wanted, horizon)?;
        self.learn_epochs(place, &wanted, horizon)?;

        let mut group = Group { found: &found, taken: HashMap::new(), epochs: HashMap::new() };
        let mut take = Vec::new();
        let mut heal = Vec::new();
        for (at, batch) in batches.iter().enumerate() {
            if outcomes[at].is_some() {
                continue;
            }
            let outcome = self.decide(place, batch, horizon, &mut group)?;
            match outcome {
                Outcome::Committed => take.push(at),
                Outcome::AlreadyCommitted
                    if found.get(&batch.id).is_some_and(|found| !found.is_complete) =>
                {
                    heal.push(at);
                }
                _ => {}
            }
            outcomes[at] = Some(outcome);
        }
        self.heal(place, batches, &heal, &found)?;
        if let Some(table) = place.kubenetmon {
            table.commit(place, batches, &take)?;
        }
        self.insert(place, batches, &take)?;
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Reads the epochs of these batches, as far as they are not remembered.
    fn learn_epochs(
        &mut self,
        place: &Place<'_>,
        wanted: &[(BatchId, u32)],
        horizon: u64,
    ) -> Result<()> {
        let mut unknown: Vec<Epoch> = wanted
            .iter()
            .map(|(id, _)| id.epoch)
            .filter(|epoch| !self.epochs.contains_key(epoch))
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        if self.epochs.len() + unknown.len() > EPOCHS {
            self.epochs.clear();
        }
        self.epochs.extend(lookup::epochs(place.connection, &unknown, horizon)?);
        Ok(())
    }

    /// What becomes of a batch; [`Outcome::Committed`] where it is to be written.
    fn decide(
        &mut self,
        place: &Place<'_>,
        batch: &CommitBatch<'_>,
        horizon: u64,
        group: &mut Group<'_>,
    ) -> Result<Outcome> {
        let epoch = batch.id.epoch;
        let owner = group.owner(&self.epochs, batch.id);
        if let Some(owner) = owner.filter(|owner| *owner != batch.node) {
            let owner = owner.to_owned();
            return Ok(Outcome::Invalid(InvalidBatch::OtherNode { owner }));
        }
        match group.is_same(batch) {
            Some(true) => return Ok(Outcome::AlreadyCommitted),
            Some(false) => return Ok(Outcome::DigestMismatch),
            None => {}
        }
        let known = group.known(&self.epochs, batch);
        if known.ranges.would_insert(batch.id.sequence) != Inserted::New {
            // Others may have filled holes, or this number was forgotten with its hour.
            self.epochs.remove(&epoch);
            self.epochs.extend(lookup::epochs(place.connection, &[epoch], horizon)?);
            group.relearn(&self.epochs, batch);
        }
        let KnownEpoch { mut ranges, .. } = group.known(&self.epochs, batch);
        if ranges.insert(batch.id.sequence) == Inserted::NoRoom {
            return Ok(Outcome::NoRoom);
        }
        if is_too_old(batch, &place.levels) {
            return Ok(Outcome::TooOld);
        }
        group.take(batch, ranges);
        Ok(Outcome::Committed)
    }

    /// Writes batches, several at a time, and remembers those that are there.
    fn insert(
        &mut self,
        place: &Place<'_>,
        batches: &[CommitBatch<'_>],
        take: &[usize],
    ) -> Result<()> {
        if take.is_empty() {
            return Ok(());
        }
        let now = now();
        let inserts: Vec<Insert> = take
            .iter()
            .map(|&at| {
                let batch = &batches[at];
                Insert { at, token: token(batch), rows: encode::rows(batch, now) }
            })
            .collect();
        let connection = place.connection.clone();
        let settings = settings(place);
        let (sql, width) = (encode::insert().into(), place.width());
        let done = place.connection.wait(async move {
            Ok(insert_all(&connection, sql, inserts, &settings, width).await)
        })?;
        let (mut failed, mut complete) = (None, Vec::new());
        for (at, result) in done {
            match result {
                Ok(()) => complete.push(at),
                Err(error) => failed = Some(error),
            }
        }
        self.complete(place, batches, &complete)?;
        failed.map_or(Ok(()), Err)
    }

    /// Notes that these batches reached every table. Only then are they in the table of batches:
    /// what is in the raw table alone is healed when it comes again.
    fn complete(
        &mut self,
        place: &Place<'_>,
        batches: &[CommitBatch<'_>],
        complete: &[usize],
    ) -> Result<()> {
        if complete.is_empty() {
            return Ok(());
        }
        let rows = encode::batch_rows(complete.iter().map(|&at| &batches[at]), now());
        let insert = encode::insert_batches();
        let mut statement = Statement::new("note down which batches are complete", insert);
        for (name, value) in settings(place) {
            // Who notes the same again adds nothing: the table keeps one row a number.
            let value = if name == "insert_deduplicate" { "0".to_owned() } else { value };
            statement = statement.setting(name, value);
        }
        let connection = place.connection.clone();
        place.connection.wait(async move { connection.insert(statement, rows).await })?;
        for &at in complete {
            self.remember(&batches[at]);
        }
        Ok(())
    }

    /// What another process wrote, or this one without an answer, may not have reached every
    /// table: the same insert again puts that right and adds nothing, as long as every table still
    /// remembers its token. Beyond that the hour is noted down to be compared.
    fn heal(
        &mut self,
        place: &Place<'_>,
        batches: &[CommitBatch<'_>],
        heal: &[usize],
        found: &HashMap<BatchId, Found>,
    ) -> Result<()> {
        let written = |at: &usize| found.get(&batches[*at].id).map_or(0, |found| found.written);
        let Some(oldest) = heal.iter().map(written).min() else { return Ok(()) };
        let since = lookup::written_since(place.connection, oldest)?;
        // Half of it, since clocks differ and others write meanwhile.
        let is_recent = now().saturating_sub(oldest) < WINDOW_SECONDS / 2;
        if since < place.window / 2 && is_recent {
            return self.insert(place, batches, heal);
        }
        let mut hours: Vec<String> =
            heal.iter().map(|&at| format!("{}", encode::hour(&batches[at]))).collect();
        hours.sort_unstable();
        hours.dedup();
        tracing::warn!(
            hours = hours.len(),
            "batches came again long after they were written: `weir server rebuild` compares their hours"
        );
        let sql = format!(
            "INSERT INTO {DOUBT} (hour, written) SELECT toDateTime(hour, 'UTC'), now64(6, 'UTC') \
             FROM (SELECT arrayJoin([{}]) AS hour)",
            hours.join(", ")
        );
        let statement = Statement::new("note hours to compare", sql).setting("async_insert", 0);
        place.connection.run(statement)?;
        self.complete(place, batches, heal)
    }

    /// A batch is there with everything that hangs on it.
    fn remember(&mut self, batch: &CommitBatch<'_>) {
        let known = self.epochs.entry(batch.id.epoch).or_default();
        batch.node.clone_into(&mut known.node);
        // Without room for it, the epoch is read again when a number does not fit.
        known.ranges.insert(batch.id.sequence);
    }
}

/// What is known while one group is decided, before any of it is written.
struct Group<'a> {
    found: &'a HashMap<BatchId, Found>,
    taken: HashMap<BatchId, weir_flow::Digest>,
    /// Epochs with the numbers that this group adds.
    epochs: HashMap<Epoch, KnownEpoch>,
}

impl Group<'_> {
    /// Whose epoch it is, where that is known.
    fn owner<'a>(&'a self, epochs: &'a HashMap<Epoch, KnownEpoch>, id: BatchId) -> Option<&'a str> {
        self.epochs
            .get(&id.epoch)
            .or_else(|| epochs.get(&id.epoch))
            .map(|known| known.node.as_str())
            .or_else(|| self.found.get(&id).map(|found| found.node.as_str()))
    }

    /// Whether the number is taken by the same content, where it is taken. A digest that is no
    /// longer known is believed to be the same.
    fn is_same(&self, batch: &CommitBatch<'_>) -> Option<bool> {
        let taken = self.taken.get(&batch.id).map(|digest| *digest == batch.digest);
        taken.or_else(|| {
            let found = self.found.get(&batch.id)?;
            Some(found.digest.is_none_or(|digest| digest == batch.digest))
        })
    }

    fn known(&self, epochs: &HashMap<Epoch, KnownEpoch>, batch: &CommitBatch<'_>) -> KnownEpoch {
        let epoch = batch.id.epoch;
        self.epochs
            .get(&epoch)
            .or_else(|| epochs.get(&epoch))
            .cloned()
            .unwrap_or_else(|| KnownEpoch { node: batch.node.to_owned(), ..KnownEpoch::default() })
    }

    /// Puts what this group adds on what was read again.
    fn relearn(&mut self, epochs: &HashMap<Epoch, KnownEpoch>, batch: &CommitBatch<'_>) {
        let epoch = batch.id.epoch;
        self.epochs.remove(&epoch);
        let mut known = self.known(epochs, batch);
        for id in self.taken.keys().filter(|id| id.epoch == epoch) {
            known.ranges.insert(id.sequence);
        }
        self.epochs.insert(epoch, known);
    }

    fn take(&mut self, batch: &CommitBatch<'_>, ranges: weir_flow::ingest::Ranges) {
        let node = batch.node.to_owned();
        self.epochs.insert(batch.id.epoch, KnownEpoch { node, ranges });
        self.taken.insert(batch.id, batch.digest);
    }
}

/// What is wrong with a batch by itself, for this store: its windows have 32 bits.
fn refuse_invalid(batch: &CommitBatch<'_>) -> Option<Outcome> {
    let beyond = || {
        let flow =
            batch.flows.levels[0].iter().find(|flow| flow.key.window > encode::LAST_WINDOW)?;
        Some(InvalidBatch::Window { window: flow.key.window, level_seconds: 10 })
    };
    check(batch).err().or_else(beyond).map(Outcome::Invalid)
}

/// The second before which everything is forgotten.
pub(super) fn horizon(levels: &[KeptLevel; 3]) -> u64 {
    levels.iter().map(|kept| kept.horizon).min().unwrap_or(0)
}

/// Blocks with the same token count once in every table they reach. Tokens are known by partition,
/// and the raw table's is a day: the day makes the token as strong everywhere, no weaker.
pub(super) fn token(batch: &CommitBatch<'_>) -> String {
    let day = encode::hour(batch) / 86_400;
    format!("{:032x}-{}-{day}", batch.id.epoch.0, batch.id.sequence)
}

/// The settings with which an insert is one block, durable, and known by its token in every table.
pub(super) fn settings(place: &Place<'_>) -> Vec<(&'static str, String)> {
    let mut settings: Vec<(&'static str, String)> = [
        ("async_insert", "0"),
        ("wait_end_of_query", "1"),
        ("insert_deduplicate", "1"),
        ("deduplicate_blocks_in_dependent_materialized_views", "1"),
        ("materialized_views_ignore_errors", "0"),
        ("input_format_parallel_parsing", "0"),
        ("max_insert_threads", "1"),
        ("max_insert_block_size", "10000000"),
        ("min_insert_block_size_rows", "10000000"),
        ("min_insert_block_size_bytes", "4294967296"),
        ("throw_on_max_partitions_per_insert_block", "0"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    if place.is_replicated {
        let milliseconds = place.options.timeout.as_millis();
        settings.push(("insert_quorum", "auto".to_owned()));
        // A look-up with sequential consistency sees only what such inserts wrote.
        settings.push(("insert_quorum_parallel", "0".to_owned()));
        settings.push(("insert_quorum_timeout", milliseconds.to_string()));
    }
    settings
}

/// Does inserts, several at a time.
pub(super) async fn insert_all(
    connection: &Connection,
    sql: Arc<str>,
    inserts: Vec<Insert>,
    settings: &[(&'static str, String)],
    width: usize,
) -> Vec<(usize, Result<()>)> {
    let turns = Arc::new(Semaphore::new(width));
    let mut tasks = JoinSet::new();
    for insert in inserts {
        let (connection, turns, sql) = (connection.clone(), Arc::clone(&turns), Arc::clone(&sql));
        let settings = settings.to_vec();
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            (insert.at, insert_one(&connection, &sql, &insert, &settings).await)
        });
    }
    tasks.join_all().await
}

async fn insert_one(
    connection: &Connection,
    sql: &str,
    insert: &Insert,
    settings: &[(&'static str, String)],
) -> Result<()> {
    let mut tries = 0;
    loop {
        let mut statement = Statement::new("insert a batch", sql)
            .setting("insert_deduplication_token", &insert.token);
        for (name, value) in settings {
            statement = statement.setting(name, value);
        }
        match connection.insert(statement, insert.rows.clone()).await {
            // Another server's insert is waited for.
            Err(error) if code_of(&error) == Some(QUORUM_PENDING) && tries < QUORUM_TRIES => {
                tries += 1;
                let pause = 25 * u64::from(tries) + u64::try_from(insert.at % 8).unwrap_or(0) * 10;
                tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            }
            result => return result,
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
