//! The connections as they are now: bounded, in memory, ports and all.
//!
//! Fed by ingest with every new batch's attributed records. Counters are absolute and batches come
//! in order, so a record tells all there is to know of its connection. A *tick* is one reading of a
//! node's kernel; all batches it was cut into bear the same time, and it is shown when the last was taken. What a connection moved in the
//! newest tick, over the time measured, is its rate; one that the newest tick does not tell of
//! moved nothing.

mod group;
mod hold;
mod node;
mod numbers;
mod page;
mod table;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashSet;
use weir_flow::attribution::Attributed;
use weir_flow::frame::Header;
use weir_flow::{FlowRecord, RecordFlags, WallTime};

pub(crate) use self::hold::Hold;
use self::table::Table;
use crate::answer::{Connections, ConnectionsQuestion, Rates, RatesQuestion};

/// Connections held at most, of all nodes together, unless told otherwise.
pub const DEFAULT_LIMIT: usize = 1 << 18;

/// Live connections of every observer.
#[derive(Debug)]
pub struct Live {
    table: RwLock<Table>,
}

impl Default for Live {
    fn default() -> Self {
        Self::with_limit(DEFAULT_LIMIT)
    }
}

impl Live {
    /// Holds at most `limit` connections. One more is left out, and counted
    /// ([`Connections::left_out`]).
    pub fn with_limit(limit: usize) -> Self {
        Self { table: RwLock::new(Table::new(limit)) }
    }

    /// Takes a batch of `node`, whose clock is `wall_offset` from wall time. `None` where there is
    /// nothing to learn from it: it was taken already. One that is older than what is known only
    /// tells what has ended.
    pub fn take<'a>(
        &'a self,
        node: &str,
        header: &Header,
        wall_offset: i64,
    ) -> Option<TakingBatch<'a>> {
        let mut table = self.write();
        let (node, is_late) = table.begin(node, header, wall_offset)?;
        Some(TakingBatch { table, epoch: header.id.epoch.0, node, wall_offset, is_late })
    }

    /// Connections as they are at `now`.
    pub fn connections(&self, question: &ConnectionsQuestion, now: WallTime) -> Connections {
        page::page(&self.read(), &Hidden::default(), question, now)
    }

    /// What moves at `now`.
    pub fn rates(&self, question: &RatesQuestion, now: WallTime) -> Rates {
        group::rates(&self.read(), &Hidden::default(), question, now)
    }

    /// The same without these nodes, and what is held of every node.
    pub(crate) fn connections_without(
        &self,
        hidden: &Hidden,
        question: &ConnectionsQuestion,
        now: WallTime,
    ) -> (Connections, Vec<Hold>) {
        let table = self.read();
        (page::page(&table, hidden, question, now), table.holds())
    }

    /// The same without these nodes, and what is held of every node.
    pub(crate) fn rates_without(
        &self,
        hidden: &Hidden,
        question: &RatesQuestion,
        now: WallTime,
    ) -> (Rates, Vec<Hold>) {
        let table = self.read();
        (group::rates(&table, hidden, question, now), table.holds())
    }

    /// What is held of every node.
    pub(crate) fn holds(&self) -> Vec<Hold> {
        self.read().holds()
    }

    /// Forgets a node where another server has newer batches of it than this one.
    pub(crate) fn let_go(&self, than: &Hold) {
        self.write().let_go(than);
    }

    // A table whose writer panicked is at worst one batch short, which the next ones repair.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names of nodes that are not shown.
pub(crate) type Hidden = HashSet<String>;

/// A batch being taken; nobody reads meanwhile.
#[derive(Debug)]
pub struct TakingBatch<'a> {
    table: RwLockWriteGuard<'a, Table>,
    epoch: u128,
    node: usize,
    wall_offset: i64,
    /// It is older than what is known: only what ended in it counts.
    is_late: bool,
}

impl TakingBatch<'_> {
    /// One of its records. A connection that several nodes see is shown as the one that counts it
    /// sees it.
    pub fn record(&mut self, record: &FlowRecord, ends: &Attributed) {
        if !ends.view.counts() {
            return;
        }
        let key = (self.epoch, record.connection);
        if self.is_late {
            if record.flags.has(RecordFlags::CLOSED) {
                self.table.forget(key);
            }
            return;
        }
        self.table.record(key, self.node, self.wall_offset, record, ends);
    }

    /// A connection that left unseen.
    pub fn forget(&mut self, connection: u64) {
        self.table.forget((self.epoch, connection));
    }

    /// Batches of the node are missing: some of its connections may have ended in them.
    pub fn missing(&mut self) {
        if !self.is_late {
            self.table.clear(self.node);
        }
    }

    /// This was the last batch of its tick: from now on the tick is shown.
    pub fn finish_tick(&mut self) {
        if !self.is_late {
            self.table.finish(self.node);
        }
    }
}

#[cfg(test)]
mod tests;
