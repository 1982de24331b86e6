//! The store for what one machine cannot hold: ClickHouse, over its HTTP interface.
//!
//! Any number of servers may write to it at the same time and answer from it.

mod commit;
mod connection;
mod ddl;
mod encode;
mod filter;
mod health;
mod kubenetmon;
mod levels;
mod lists;
mod lookup;
mod memory;
mod migrate;
mod options;
mod prune;
mod read;
mod rebuild;
mod refusal;
mod rows;
mod schema;
mod tls;

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_flow::{BatchId, Epoch, Field};

use crate::{
    CommitBatch, CommittedEpoch, CounterSum, FlowQuery, FlowStore, Health, KubenetmonSink, Memory,
    Outcome, Pruned, Result, StoredGap, Table,
};

use crate::check::KeptLevel;
use commit::{Place, Writer};
use connection::Connection;
use kubenetmon::Kubenetmon;

pub use migrate::{Grants, Migrated};
pub use options::{ClickHouseOptions, KubenetmonTable, Password};
pub use rebuild::RebuiltHour;

/// For how long the levels are believed to be as they were read: another server may have moved a
/// horizon, and drops nothing for an hour.
const LEVELS_FRESH: Duration = Duration::from_secs(5);

/// Flows in ClickHouse.
#[derive(Debug)]
pub struct ClickHouseStore {
    options: ClickHouseOptions,
    connection: Connection,
    /// The tables are, whatever the options say.
    is_replicated: bool,
    /// Blocks of which every table remembers the tokens.
    window: u64,
    levels: Mutex<(Instant, [KeptLevel; 3])>,
    writer: Mutex<Writer>,
    versions: Mutex<memory::Versions>,
    kubenetmon: Option<Kubenetmon>,
}

impl ClickHouseStore {
    /// Reaches ClickHouse, makes or brings up to date the tables (where the options say so) and
    /// reads the levels.
    pub fn open(options: ClickHouseOptions) -> Result<Self> {
        let connection = Connection::new(&options)?;
        migrate::prepare(&connection, &options)?;
        let tables = migrate::tables(&connection)?;
        let is_replicated = tables
            .iter()
            .any(|table| table.name == ddl::RAW && table.engine.starts_with("Replicated"));
        let window = migrate::window(&tables);
        let levels = levels::keep(&connection, options.retention)?;
        let kubenetmon = Kubenetmon::open(&connection, &options)?;
        Ok(Self {
            options,
            connection,
            is_replicated,
            window,
            levels: Mutex::new((Instant::now(), levels)),
            writer: Mutex::default(),
            versions: Mutex::default(),
            kubenetmon,
        })
    }

    /// Makes the tables, or brings them up to date, and no more.
    pub fn migrate(options: &ClickHouseOptions) -> Result<Migrated> {
        let connection = Connection::new(options)?;
        let migrated = migrate::migrate(&connection, options)?;
        if let Some(table) = &options.kubenetmon {
            kubenetmon::prepare(&connection, options, table, true)?;
        }
        Ok(migrated)
    }

    /// The statements that give a user what a server needs.
    pub fn grants(options: &ClickHouseOptions, user: &str) -> Grants {
        migrate::grants(options, user)
    }

    /// Compares the roll-ups of the hours that the range touches with the raw table, and makes
    /// those anew that differ. The hours should be over.
    pub fn rebuild(&self, range: Range<u64>) -> Result<Vec<RebuiltHour>> {
        let raw = self.levels()?[0];
        let held_from = if self.options.expire {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            raw.horizon.max(now.saturating_sub(raw.retention.max(86_400)))
        } else {
            raw.horizon
        };
        rebuild::rebuild(&self.connection, &range, held_from)
    }

    /// Hours whose roll-ups may not be what the raw table says, since a batch of theirs was sent
    /// again long after it was written. For [`ClickHouseStore::rebuild`].
    pub fn hours_in_doubt(&self) -> Result<Vec<u64>> {
        rebuild::in_doubt(&self.connection)
    }

    /// Batches of these hours that stand in the raw table more than once; at most 1,000.
    pub fn audit(&self, range: Range<u64>) -> Result<Vec<BatchId>> {
        rebuild::doubles(&self.connection, &range)
    }

    /// What batches are committed with.
    fn place(&self) -> Result<Place<'_>> {
        Ok(Place {
            connection: &self.connection,
            options: &self.options,
            is_replicated: self.is_replicated,
            window: self.window,
            levels: self.levels()?,
            kubenetmon: self.kubenetmon.as_ref(),
        })
    }

    /// The levels as they stand.
    fn levels(&self) -> Result<[KeptLevel; 3]> {
        let (read, levels) = *locked(&self.levels);
        if read.elapsed() < LEVELS_FRESH {
            return Ok(levels);
        }
        let levels = levels::read(&self.connection)?;
        *locked(&self.levels) = (Instant::now(), levels);
        Ok(levels)
    }
}

/// What a thread that panicked left behind is whole: it is replaced, never changed in part.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FlowStore for ClickHouseStore {
    fn commit(&self, batches: &[CommitBatch<'_>]) -> Result<Vec<Outcome>> {
        let mut writer = locked(&self.writer);
        writer.commit(&self.place()?, batches)
    }

    fn committed(&self) -> Result<Vec<CommittedEpoch>> {
        lookup::committed(&self.connection, &[], commit::horizon(&self.levels()?))
    }

    fn committed_of(&self, epoch: Epoch) -> Result<Option<CommittedEpoch>> {
        let horizon = commit::horizon(&self.levels()?);
        Ok(lookup::committed(&self.connection, &[epoch], horizon)?.pop())
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn wants_records(&self) -> bool {
        self.kubenetmon.is_some()
    }

    fn kubenetmon(&self) -> Option<&dyn KubenetmonSink> {
        self.kubenetmon.is_some().then_some(self as &dyn KubenetmonSink)
    }

    fn query(&self, query: &FlowQuery) -> Result<Table> {
        read::query(&self.connection, &self.levels()?, query, &self.options.limits)
    }

    fn values(&self, dimension: Field, prefix: &str, limit: usize) -> Result<Vec<String>> {
        let limits = &self.options.limits;
        lists::values(&self.connection, &self.levels()?, dimension, prefix, limit, limits)
    }

    fn gaps(&self, range: Range<u64>) -> Result<Vec<StoredGap>> {
        lists::gaps(&self.connection, &self.levels()?, &range, &self.options.limits)
    }

    fn counters(&self, range: Range<u64>) -> Result<Vec<CounterSum>> {
        lists::counters(&self.connection, &self.levels()?, &range, &self.options.limits)
    }

    fn remember(&self, memories: &[Memory]) -> Result<()> {
        memory::remember(&self.connection, &mut locked(&self.versions), memories)
    }

    fn remembered(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Memory>> {
        memory::remembered(&self.connection, prefix, after, limit)
    }

    fn prune(&self, now_seconds: u64) -> Result<Pruned> {
        let before = levels::read(&self.connection)?;
        if self.options.expire {
            // Horizons never move back, and are everybody's: one clock that is wrong must not move
            // them.
            levels::check_clock(&self.connection, now_seconds)?;
        }
        let (levels, pruned) = prune::prune(&self.connection, &before, now_seconds)?;
        *locked(&self.levels) = (Instant::now(), levels);
        Ok(pruned)
    }

    fn health(&self) -> Result<Health> {
        health::health(&self.connection, &self.levels()?)
    }
}

impl KubenetmonSink for ClickHouseStore {
    fn insert_kubenetmon(
        &self,
        rows: &[weir_flow::kubenetmon::Row],
        token: Option<&str>,
    ) -> Result<()> {
        match &self.kubenetmon {
            Some(table) => table.insert(&self.place()?, rows, token),
            None => Ok(()),
        }
    }

    fn kubenetmon_counts(&self) -> weir_flow::kubenetmon::Counts {
        self.kubenetmon.as_ref().map(Kubenetmon::counts).unwrap_or_default()
    }
}
