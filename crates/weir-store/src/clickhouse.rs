//! The store for what one machine cannot hold: ClickHouse, over its HTTP interface.
//!
//! Any number of servers may write to it at the same time and answer from it.

mod options;
mod schema;

use std::ops::Range;

use weir_flow::{Epoch, Field};

use crate::{
    CommitBatch, CommittedEpoch, CounterSum, FlowQuery, FlowStore, Health, Memory, Outcome, Pruned,
    Result, StoredGap, Table,
};

pub use options::{ClickHouseOptions, KubenetmonTable, Password};

/// Flows in ClickHouse.
#[derive(Debug)]
pub struct ClickHouseStore {
    options: ClickHouseOptions,
}

impl ClickHouseStore {
    /// Reaches ClickHouse, makes or brings up to date the tables (where the options say so) and
    /// reads the levels.
    pub fn open(options: ClickHouseOptions) -> Result<Self> {
        Ok(Self { options })
    }
}

impl FlowStore for ClickHouseStore {
    fn commit(&self, _batches: &[CommitBatch<'_>]) -> Result<Vec<Outcome>> {
        todo!()
    }

    fn committed(&self) -> Result<Vec<CommittedEpoch>> {
        todo!()
    }

    fn committed_of(&self, _epoch: Epoch) -> Result<Option<CommittedEpoch>> {
        todo!()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn wants_records(&self) -> bool {
        self.options.kubenetmon.is_some()
    }

    fn query(&self, _query: &FlowQuery) -> Result<Table> {
        todo!()
    }

    fn values(&self, _dimension: Field, _prefix: &str, _limit: usize) -> Result<Vec<String>> {
        todo!()
    }

    fn gaps(&self, _range: Range<u64>) -> Result<Vec<StoredGap>> {
        todo!()
    }

    fn counters(&self, _range: Range<u64>) -> Result<Vec<CounterSum>> {
        todo!()
    }

    fn remember(&self, _memories: &[Memory]) -> Result<()> {
        todo!()
    }

    fn remembered(&self, _prefix: &[u8], _after: &[u8], _limit: usize) -> Result<Vec<Memory>> {
        todo!()
    }

    fn prune(&self, _now_seconds: u64) -> Result<Pruned> {
        todo!()
    }

    fn health(&self) -> Result<Health> {
        todo!()
    }
}
