//! A store whose failures are counted and remembered, so that somebody can say since when it is
//! away and why.

mod failure;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_flow::time::SECOND;
use weir_flow::{Epoch, Field, WallTime};
use weir_store::{
    CommitBatch, CommittedEpoch, CounterSum, FlowQuery, FlowStore, Health, KubenetmonSink, Memory,
    Outcome, Pruned, Result, StoreError, StoredGap, Table,
};

use self::failure::reason;
use crate::ingest::chain;
use crate::query::Clock;

pub use self::failure::comes_back;
pub(crate) use self::failure::is_away;

/// Whoever found the store away is believed for this long.
const AWAY_SECONDS: u64 = 5;

/// A store, and somebody who notes how it does.
pub struct Attended {
    store: Arc<dyn FlowStore>,
    state: Arc<StoreState>,
}

/// How a store does.
pub struct StoreState {
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// `None` while all is well.
    writing: Option<Trouble>,
    reading: Option<Trouble>,
    errors: BTreeMap<&'static str, u64>,
}

/// What goes wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: WallTime,
    /// The stable name of the kind of failure.
    pub reason: &'static str,
    /// The last failure, with its causes.
    pub error: String,
    /// Tries that failed since.
    pub failures: u64,
    /// When the last of them failed.
    pub last: WallTime,
    /// The store itself could not be reached: nothing was wrong with what it was asked.
    pub is_away: bool,
}

/// What a store is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Taking batches.
    Writing,
    /// Answering.
    Reading,
    /// Anything that nobody waits for: counted only.
    Keeping,
}

impl StoreState {
    /// Nothing went wrong yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, known: Mutex::default() }
    }

    /// Why batches are not taken, where they are not.
    pub fn writing(&self) -> Option<Trouble> {
        self.known().writing.clone()
    }

    /// Why questions are not answered, where they are not.
    pub fn reading(&self) -> Option<Trouble> {
        self.known().reading.clone()
    }

    /// Why it is not worth asking: it was found away a moment ago.
    pub fn is_away(&self) -> Option<Trouble> {
        let now = (self.clock)();
        let recent = |at: WallTime| now.0.abs_diff(at.0) < AWAY_SECONDS * SECOND;
        self.reading().filter(|trouble| trouble.is_away && recent(trouble.last))
    }

    /// The more serious of both.
    pub fn trouble(&self) -> Option<Trouble> {
        let known = self.known();
        known.writing.clone().or_else(|| known.reading.clone())
    }

    /// Failures so far, by the stable name of their kind.
    pub fn errors(&self) -> BTreeMap<&'static str, u64> {
        self.known().errors.clone()
    }

    /// It could not even be opened.
    pub fn cannot_open(&self, error: &StoreError) {
        self.failed(Use::Writing, error);
        let mut known = self.known();
        let writing = known.writing.clone();
        known.reading = writing;
    }

    /// It was opened.
    pub fn opened(&self) {
        let mut known = self.known();
        (known.writing, known.reading) = (None, None);
    }

    fn note<T>(&self, purpose: Use, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => self.went_well(purpose),
            Err(error) => self.failed(purpose, error),
        }
        result
    }

    fn went_well(&self, purpose: Use) {
        let mut known = self.known();
        let over = match purpose {
            Use::Writing => known.writing.take(),
            Use::Reading => known.reading.take(),
            Use::Keeping => None,
        };
        drop(known);
        if let Some(Trouble { failures, .. }) = over {
            tracing::warn!(failures, "the store is back");
        }
    }

    fn failed(&self, purpose: Use, error: &StoreError) {
        // Whoever asked too much learns it; the store is well.
        let Some(reason) = reason(error) else { return };
        let now = (self.clock)();
        let mut known = self.known();
        *known.errors.entry(reason).or_default() += 1;
        let Known { writing, reading, .. } = &mut *known;
        let trouble = match purpose {
            Use::Writing => writing,
            Use::Reading => reading,
            Use::Keeping => return,
        };
        let text = chain(error);
        let is_new = trouble.as_ref().is_none_or(|trouble| trouble.reason != reason);
        let before = trouble.take();
        *trouble = Some(Trouble {
            since: before.as_ref().map_or(now, |before| before.since),
            reason,
            error: text.clone(),
            failures: before.map_or(0, |before| before.failures) + 1,
            last: now,
            is_away: is_away(error),
        });
        drop(known);
        if is_new {
            tracing::warn!(reason, error = text, "the store fails");
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is whole in itself.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attended {
    /// Notes there how `store` does.
    pub fn new(store: Arc<dyn FlowStore>, state: Arc<StoreState>) -> Self {
        Self { store, state }
    }
}

impl FlowStore for Attended {
    fn commit(&self, batches: &[CommitBatch<'_>]) -> Result<Vec<Outcome>> {
        self.state.note(Use::Writing, self.store.commit(batches))
    }

    fn committed(&self) -> Result<Vec<CommittedEpoch>> {
        self.state.note(Use::Reading, self.store.committed())
    }

    fn committed_of(&self, epoch: Epoch) -> Result<Option<CommittedEpoch>> {
        self.state.note(Use::Reading, self.store.committed_of(epoch))
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn wants_records(&self) -> bool {
        self.store.wants_records()
    }

    fn kubenetmon(&self) -> Option<&dyn KubenetmonSink> {
        self.store.kubenetmon()
    }

    fn query(&self, query: &FlowQuery) -> Result<Table> {
        self.state.note(Use::Reading, self.store.query(query))
    }

    fn values(&self, dimension: Field, prefix: &str, limit: usize) -> Result<Vec<String>> {
        self.state.note(Use::Reading, self.store.values(dimension, prefix, limit))
    }

    fn gaps(&self, range: Range<u64>) -> Result<Vec<StoredGap>> {
        self.state.note(Use::Reading, self.store.gaps(range))
    }

    fn counters(&self, range: Range<u64>) -> Result<Vec<CounterSum>> {
        self.state.note(Use::Reading, self.store.counters(range))
    }

    fn remember(&self, memories: &[Memory]) -> Result<()> {
        self.state.note(Use::Keeping, self.store.remember(memories))
    }

    fn remembered(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Memory>> {
        self.state.note(Use::Keeping, self.store.remembered(prefix, after, limit))
    }

    fn prune(&self, now_seconds: u64) -> Result<Pruned> {
        self.state.note(Use::Keeping, self.store.prune(now_seconds))
    }

    fn health(&self) -> Result<Health> {
        self.state.note(Use::Reading, self.store.health())
    }
}

impl fmt::Debug for Attended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attended").field("state", &self.state).finish_non_exhaustive()
    }
}

impl fmt::Debug for StoreState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreState").field("known", &self.known).finish_non_exhaustive()
    }
}
