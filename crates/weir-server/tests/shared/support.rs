//! Servers that share a store, and stores that fail as they are told.

use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use weir_flow::attribution::Question;
use weir_flow::frame::{FrameBuilder, Header};
use weir_flow::time::{HOUR, SECOND};
use weir_flow::{
    BatchId, BootTime, Counters, Digest, Directory, Endpoint, EndpointKind, Epoch, Field, Filter,
    FlowRecord, Protocol, RecordFlags, Totals, WallTime,
};
use weir_server::{Directories, Ingest, Speaker};
use weir_store::{
    CommitBatch, CommittedEpoch, CounterSum, FlowQuery, FlowStore, Health, Measure, Memory,
    Options, Order, Outcome, Pruned, Result as Stored, SqliteStore, StoreError, StoredGap, Table,
};

/// Noon of a day; every batch is sealed a minute later.
pub(crate) const NOON: u64 = 12 * 3_600 + 20_000 * 86_400;
pub(crate) const NOW: WallTime = WallTime((NOON + 61) * SECOND);
pub(crate) const EPOCH: Epoch = Epoch(5);

pub(crate) struct Hosts;

impl Directory for Hosts {
    fn resolve(&self, question: &Question) -> Arc<Endpoint> {
        Arc::new(Endpoint::bare(EndpointKind::Host, question.address))
    }
}

impl Directories for Hosts {
    fn lend(&self, _: &str, _: u64, ask: &mut dyn FnMut(&dyn Directory)) {
        ask(self);
    }
}

/// The agent of a node, as somebody made sure.
pub(crate) fn agent(node: &str) -> Speaker {
    Speaker { authenticated: true, ..Speaker::here(node) }
}

/// A batch of one connection, as an agent seals it.
pub(crate) fn frame(sequence: u64, bytes: u64) -> Vec<u8> {
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let sent = Counters { packets: 1, bytes };
    let mut builder = FrameBuilder::default();
    builder.record(&FlowRecord {
        connection: sequence,
        zone: 0,
        protocol: Protocol::TCP,
        source: address(1),
        source_port: 1_000,
        destination: address(2),
        destination_port: 80,
        service: None,
        translated_source: None,
        start: None,
        interval_from: BootTime(SECOND),
        interval_to: BootTime(60 * SECOND),
        from: Totals::default(),
        to: Totals { sent, received: Counters::default() },
        state: weir_flow::ConnectionState::from_code(19),
        flags: RecordFlags::OPENED,
    });
    let header = Header {
        id: BatchId { epoch: EPOCH, sequence },
        hour: NOON * SECOND / HOUR,
        wall_offset_nanos: (NOON * SECOND).cast_signed(),
        sealed_at: BootTime(60 * SECOND),
        boot: 1,
        records: 0,
        digest: Digest(0),
    };
    builder.finish(header).1.to_vec()
}

/// A server that begins now.
pub(crate) fn server(store: &Arc<impl FlowStore + 'static>) -> Ingest<Hosts> {
    Ingest::new(Arc::clone(store) as Arc<dyn FlowStore>, Hosts).unwrap()
}

/// All that is stored: bytes and openings.
pub(crate) fn all(store: &dyn FlowStore) -> (u64, u64) {
    let query = FlowQuery {
        range: NOON - 3_600..NOON + 3_600,
        filter: Filter::All,
        group_by: vec![Field::Protocol],
        bucket_seconds: None,
        measures: vec![Measure::Bytes, Measure::ConnectionsOpened],
        order: Order::Measure(Measure::Bytes),
        limit: None,
    };
    let table = store.query(&query).unwrap();
    let sum = |column: usize| table.rows.iter().filter_map(|row| row[column].sum()).sum();
    (sum(1), sum(2))
}

/// An embedded store that says others write to it, too, and fails as it is told.
pub(crate) struct Told {
    store: Arc<SqliteStore>,
    /// It cannot be reached.
    pub(crate) is_away: AtomicBool,
    /// Groups with this batch are refused; 0: none is.
    pub(crate) poison: AtomicU64,
    /// Groups that somebody tried to commit.
    pub(crate) tries: AtomicU64,
    /// Times somebody asked what is committed of an epoch.
    pub(crate) looks: AtomicU64,
}

impl Told {
    pub(crate) fn open(directory: &Path) -> Arc<Self> {
        let store = SqliteStore::open(directory, Options::default()).unwrap();
        Self::reach(Arc::new(store))
    }

    /// Another server's way to the same store.
    pub(crate) fn beside(&self) -> Arc<Self> {
        Self::reach(Arc::clone(&self.store))
    }

    fn reach(store: Arc<SqliteStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            is_away: AtomicBool::new(false),
            poison: AtomicU64::new(0),
            tries: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        })
    }

    fn reached(&self, operation: &'static str) -> Stored<&SqliteStore> {
        if !self.is_away.load(Ordering::Relaxed) {
            return Ok(&self.store);
        }
        let (url, detail) = ("http://ch:8123".to_owned(), "connection refused".to_owned());
        Err(StoreError::ClickHouseUnreachable { operation, url, detail })
    }
}

impl FlowStore for Told {
    fn commit(&self, batches: &[CommitBatch<'_>]) -> Stored<Vec<Outcome>> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        let store = self.reached("insert a batch")?;
        let poison = self.poison.load(Ordering::Relaxed);
        if batches.iter().any(|batch| batch.id.sequence == poison) {
            let (url, detail) = (String::new(), "Code: 48".to_owned());
            let operation = "insert a batch";
            return Err(StoreError::ClickHouseRefused {
                operation,
                url,
                code: 48,
                detail,
                advice: "",
            });
        }
        store.commit(batches)
    }

    fn committed(&self) -> Stored<Vec<CommittedEpoch>> {
        self.reached("read what is committed")?.committed()
    }

    fn committed_of(&self, epoch: Epoch) -> Stored<Option<CommittedEpoch>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.reached("read what is committed")?.committed_of(epoch)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn query(&self, query: &FlowQuery) -> Stored<Table> {
        self.reached("answer")?.query(query)
    }

    fn values(&self, dimension: Field, prefix: &str, limit: usize) -> Stored<Vec<String>> {
        self.reached("answer")?.values(dimension, prefix, limit)
    }

    fn gaps(&self, range: Range<u64>) -> Stored<Vec<StoredGap>> {
        self.reached("read gaps")?.gaps(range)
    }

    fn counters(&self, range: Range<u64>) -> Stored<Vec<CounterSum>> {
        self.reached("read counters")?.counters(range)
    }

    fn remember(&self, memories: &[Memory]) -> Stored<()> {
        self.reached("remember")?.remember(memories)
    }

    fn remembered(&self, prefix: &[u8], after: &[u8], limit: usize) -> Stored<Vec<Memory>> {
        self.reached("remember")?.remembered(prefix, after, limit)
    }

    fn prune(&self, now_seconds: u64) -> Stored<Pruned> {
        self.reached("prune")?.prune(now_seconds)
    }

    fn health(&self) -> Stored<Health> {
        self.reached("look")?.health()
    }
}
