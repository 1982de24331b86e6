//! Where flows rest.
//!
//! [`FlowStore`] is the one seam between weir and a database: batches of folded flows go in,
//! answers to typed [`FlowQuery`]s come out, and no SQL text crosses it. [`SqliteStore`] is the
//! embedded store, [`ClickHouseStore`] the one for many machines. What every store promises:
//!
//! * A batch is committed once, whole, and durably before [`FlowStore::commit`] returns; its number
//!   rests in the same transaction as its rows.
//! * Only sums come out, never counts of rows. What is asked for is summed by group.
//! * All times are seconds since 1970, UTC. Ranges are half-open.
//! * Answers are deterministic: ties are broken by the group's keys.
//! * What one batch brings to a stored sum is at most `i64::MAX`. A sum over what was stored stays
//!   at `u64::MAX`; it never wraps.
//! * An empty name is no name.

mod check;
mod clickhouse;
mod error;
mod options;
mod plan;
mod query;
mod sqlite;

use std::fmt;
use std::ops::Range;

use weir_flow::attribution::Attributed;
use weir_flow::batch::Gap;
use weir_flow::ingest::Ranges;
use weir_flow::{BatchId, Digest, Epoch, Field, FlowRecord, Folded, Level, kubenetmon};

pub use clickhouse::{
    ClickHouseOptions, ClickHouseStore, Grants, KubenetmonTable, Migrated, Password, RebuiltHour,
};
pub use error::{InvalidBatch, StoreError};
pub use options::{Limits, Options, Retention};
pub use query::{Cell, Column, FlowQuery, Measure, Order, Table};
pub use sqlite::{SqliteStore, WriterProcess};

/// What the operations of a store return.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A place where flows rest. Shared by reference between threads; one commit at a time.
pub trait FlowStore: Send + Sync {
    /// Commits batches in one durable transaction and answers for each, in order. A batch that is
    /// not taken leaves no trace and does not touch the others; an error means that none was taken.
    fn commit(&self, batches: &[CommitBatch<'_>]) -> Result<Vec<Outcome>>;

    /// What has been committed, per epoch, as far as it is still known: enough to rebuild the
    /// decision which batch is new.
    fn committed(&self) -> Result<Vec<CommittedEpoch>>;

    /// The same of one epoch: asked again where others may have committed since
    /// ([`FlowStore::is_shared`]).
    fn committed_of(&self, epoch: Epoch) -> Result<Option<CommittedEpoch>> {
        Ok(self.committed()?.into_iter().find(|known| known.epoch == epoch))
    }

    /// True where several servers may commit at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// True where [`CommitBatch::records`] are written somewhere, too. Who commits may leave them
    /// away otherwise.
    fn wants_records(&self) -> bool {
        false
    }

    /// The table of kubenetmon's that is written besides, for rows that come another way.
    fn kubenetmon(&self) -> Option<&dyn KubenetmonSink> {
        None
    }

    /// Answers a query.
    fn query(&self, query: &FlowQuery) -> Result<Table>;

    /// Values of a field that are in the store and begin with `prefix` as they are written in
    /// filters, in order, at most `limit`.
    fn values(&self, dimension: Field, prefix: &str, limit: usize) -> Result<Vec<String>>;

    /// Gaps that touch the range, by their beginning and their batch; at most the newest 10,000.
    fn gaps(&self, range: Range<u64>) -> Result<Vec<StoredGap>>;

    /// The agents' own counters, summed over the UTC hours that the range touches. One that comes
    /// to nothing is left out.
    fn counters(&self, range: Range<u64>) -> Result<Vec<CounterSum>>;

    /// Keeps these durably until their time is over, in place of what has the same key.
    fn remember(&self, memories: &[Memory]) -> Result<()>;

    /// What is kept under keys that begin with `prefix` and come after `after`, by key, at most
    /// `limit`.
    fn remembered(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Memory>>;

    /// Deletes what is past its retention, a bounded amount of work per call. Call it again while
    /// [`Pruned::more`] holds.
    fn prune(&self, now_seconds: u64) -> Result<Pruned>;

    /// How the store is.
    fn health(&self) -> Result<Health>;
}

/// A table of kubenetmon's, which takes rows that are no part of weir's own.
pub trait KubenetmonSink: Send + Sync {
    /// Inserts rows, durably before it returns. The same rows with the same `token` are taken once,
    /// however often they are offered within the table's deduplication window.
    fn insert_kubenetmon(&self, rows: &[kubenetmon::Row], token: Option<&str>) -> Result<()>;

    /// What became of the records of the batches committed so far.
    fn kubenetmon_counts(&self) -> kubenetmon::Counts {
        kubenetmon::Counts::default()
    }
}

/// One batch on its way into the store.
#[derive(Clone, Copy, Debug)]
pub struct CommitBatch<'a> {
    /// The observer's node.
    pub node: &'a str,
    /// Which batch.
    pub id: BatchId,
    /// The digest of its content.
    pub digest: Digest,
    /// Wall-clock second since 1970 at which the batch's interval ended; decides the UTC hour of
    /// its counters. An interval that ends with an hour belongs to it.
    pub end_seconds: u64,
    /// Its flows, folded per level.
    pub flows: &'a Folded,
    /// What is known to be missing.
    pub gaps: &'a [Gap],
    /// The agent's own counters for this batch (`records`, `lost_events`, …), summed per node and
    /// UTC hour.
    pub counters: &'a [(&'a str, i64)],
    /// Its records with their ends, before the view rule and the fold: for stores that keep them
    /// in a form of their own, too ([`FlowStore::wants_records`]). Empty where nobody asks.
    pub records: &'a [(FlowRecord, Attributed)],
    /// What to add to the records' boot time to get wall time, nanoseconds.
    pub wall_offset: i64,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable now.
    Committed,
    /// It was durable already; nothing was added.
    AlreadyCommitted,
    /// The number is taken by other content. Nothing was added; somebody should look.
    DigestMismatch,
    /// It is older than what the coarsest level keeps. Nothing was added.
    TooOld,
    /// Too many holes in the numbering, or too many epochs: worth another try later.
    NoRoom,
    /// It contradicts itself and will never be taken.
    Invalid(InvalidBatch),
}

/// What has been committed of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedEpoch {
    /// Which epoch.
    pub epoch: Epoch,
    /// The node that speaks in it.
    pub node: String,
    /// The committed numbers.
    pub ranges: Ranges,
    /// Digests of the newest of them, by number.
    pub digests: Vec<(u64, Digest)>,
}

/// A gap as it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGap {
    /// The observer's node.
    pub node: String,
    /// The batch it came with.
    pub batch: BatchId,
    /// What is missing.
    pub gap: Gap,
}

/// An agent's counter, summed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CounterSum {
    /// The observer's node.
    pub node: String,
    /// The counter's name.
    pub name: String,
    /// Its sum.
    pub value: i64,
}

/// Something that somebody wants to find again after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Under which key.
    pub key: Vec<u8>,
    /// What.
    pub value: Vec<u8>,
    /// Until when, seconds since 1970; pruned later.
    pub until_seconds: u64,
}

/// What a call of [`FlowStore::prune`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows per level, in the order of [`Level::ALL`].
    pub rows: [u64; 3],
    /// Dictionary rows that nothing refers to any more.
    pub dictionary: u64,
    /// Gaps, counters and epochs past the last retention, and memories whose time is over.
    pub other: u64,
    /// True when there is more to remove now.
    pub more: bool,
}

/// How a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The engine and its version, for people.
    pub engine: String,
    /// Version of the schema.
    pub schema_version: u32,
    /// Each level that is kept, finest first.
    pub levels: Vec<LevelHealth>,
    /// Bytes on disk, with everything that belongs to the store.
    pub file_bytes: u64,
    /// Of those, bytes free for new rows.
    pub reusable_bytes: u64,
    /// Bytes an ordinary user may still write on that disk; unknown where it cannot be asked.
    pub free_disk_bytes: Option<u64>,
    /// Distinct endpoints in the dictionary; `None` where the store has none.
    pub endpoints: Option<u64>,
    /// Distinct flow keys, windows aside, in the dictionary; `None` where the store has none.
    pub edges: Option<u64>,
}

/// How one level is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelHealth {
    /// Which level.
    pub level: Level,
    /// For how long it is kept, seconds.
    pub retention_seconds: u64,
    /// Stored rows. A figure about the store, not about traffic.
    pub rows: u64,
    /// Start of its oldest window, seconds since 1970.
    pub oldest: Option<u64>,
    /// Start of its newest window, seconds since 1970.
    pub newest: Option<u64>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed => f.write_str("committed"),
            Self::AlreadyCommitted => f.write_str("already committed"),
            Self::DigestMismatch => {
                f.write_str("a batch with this number and other content is committed already")
            }
            Self::TooOld => f.write_str("older than anything the store keeps"),
            Self::NoRoom => f.write_str("too many batches are missing before this one"),
            Self::Invalid(reason) => write!(f, "invalid: {reason}"),
        }
    }
}
