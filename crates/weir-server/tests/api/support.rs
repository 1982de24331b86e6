//! A server over a filled store, and the store's counter.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use weir_flow::time::SECOND;
use weir_flow::{
    BatchId, Class, Digest, Endpoint, EndpointKind, Epoch, Field, Flow, FlowKey, Folded, Level,
    Measures, Protocol, WallTime,
};
use weir_server::answer::{NodeStatus, State};
use weir_server::api::{self, Limits, Running};
use weir_server::{Board, Live, Query};
use weir_store::{
    CommitBatch, CommittedEpoch, CounterSum, FlowQuery, FlowStore, Health, Memory, Options,
    Outcome, Pruned, Result as Stored, SqliteStore, StoredGap, Table,
};

/// 2026-11-20T12:00:00Z.
pub(crate) const NOON: u64 = 1_795_176_000;
/// What the server's clock says.
pub(crate) const NOW: u64 = NOON + 5;
/// More than a double holds.
pub(crate) const HUGE: u64 = (1 << 60) + 1;

/// A flow of the finest level.
#[derive(Clone, Debug)]
pub(crate) struct Spelled {
    pub(crate) window: u64,
    pub(crate) protocol: Protocol,
    pub(crate) source: Endpoint,
    pub(crate) port: u16,
    pub(crate) service: Option<(IpAddr, u16)>,
    pub(crate) measures: Measures,
}

/// What a source sent to the one destination there is.
pub(crate) fn sent(window: u64, source: u32, bytes_sent: u64) -> Spelled {
    let [_, a, b, c] = source.to_be_bytes();
    let address = IpAddr::from([10, a, b, c]);
    let measures = Measures { bytes_sent, packets_sent: 1, ..Measures::default() };
    Spelled {
        window,
        protocol: Protocol::TCP,
        source: Endpoint {
            unit: Some(format!("unit{source}.service").into()),
            host: Some("box".into()),
            ..Endpoint::bare(EndpointKind::Host, address)
        },
        port: 443,
        service: None,
        measures,
    }
}

/// Ten minutes of traffic before noon, with one flow of each kind that is special.
pub(crate) fn traffic() -> Vec<Spelled> {
    let mut flows = Vec::new();
    for window in (NOON - 600..NOON).step_by(10) {
        for source in 0..7 {
            // Not each source in each window.
            if (window / 10 + u64::from(source)) % 3 != 0 {
                flows.push(sent(window, source, 1_000 + u64::from(source)));
            }
        }
    }
    let last = NOON - 10;
    flows.push(sent(last, 100, HUGE));
    flows.push(Spelled { protocol: Protocol::ICMP, port: 0x800, ..sent(last, 101, 84) });
    let service = Some((IpAddr::from([10, 96, 0, 10]), 80));
    flows.push(Spelled { service, ..sent(last, 102, 500) });
    let uncounted = Measures { connections_uncounted: 1, ..Measures::default() };
    flows.push(Spelled { measures: uncounted, ..sent(last, 103, 0) });
    flows
}

pub(crate) fn commit(store: &dyn FlowStore, sequence: u64, flows: &[Spelled]) {
    let folded = folded(flows);
    let batch = CommitBatch {
        node: "n1",
        id: BatchId { epoch: Epoch(7), sequence },
        digest: Digest(sequence.into()),
        end_seconds: NOON,
        flows: &folded,
        gaps: &[],
        counters: &[("records", 5)],
        records: &[],
        wall_offset: 0,
    };
    assert_eq!(store.commit(&[batch]).unwrap(), [Outcome::Committed]);
}

fn folded(flows: &[Spelled]) -> Folded {
    let mut endpoints =
        vec![Arc::new(Endpoint::bare(EndpointKind::External, IpAddr::from([192, 0, 2, 1])))];
    let mut levels: [BTreeMap<FlowKey, Measures>; 3] = Default::default();
    for flow in flows {
        let found = endpoints.iter().position(|known| **known == flow.source);
        let source = found.unwrap_or_else(|| {
            endpoints.push(Arc::new(flow.source.clone()));
            endpoints.len() - 1
        });
        for (level, sums) in Level::ALL.into_iter().zip(&mut levels) {
            let key = FlowKey {
                window: flow.window - flow.window % level.seconds(),
                protocol: flow.protocol,
                source: u32::try_from(source).unwrap(),
                destination: 0,
                destination_port: flow.port,
                service: flow.service,
                service_name: None,
                class: Class::Internet,
            };
            *sums.entry(key).or_default() += flow.measures;
        }
    }
    let levels =
        levels.map(|sums| sums.into_iter().map(|(key, measures)| Flow { key, measures }).collect());
    Folded { endpoints, levels, ..Folded::default() }
}

/// The embedded store, which counts the questions it gets and takes its time.
pub(crate) struct Counting {
    store: SqliteStore,
    pub(crate) queries: AtomicUsize,
    pub(crate) at_once: AtomicUsize,
    pub(crate) most_at_once: AtomicUsize,
    pub(crate) delay: Mutex<Duration>,
}

impl FlowStore for Counting {
    fn commit(&self, batches: &[CommitBatch<'_>]) -> Stored<Vec<Outcome>> {
        self.store.commit(batches)
    }

    fn committed(&self) -> Stored<Vec<CommittedEpoch>> {
        self.store.committed()
    }

    fn query(&self, query: &FlowQuery) -> Stored<Table> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
        std::thread::sleep(*self.delay.lock().unwrap());
        let answer = self.store.query(query);
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    fn values(&self, dimension: Field, prefix: &str, limit: usize) -> Stored<Vec<String>> {
        self.store.values(dimension, prefix, limit)
    }

    fn gaps(&self, range: Range<u64>) -> Stored<Vec<StoredGap>> {
        self.store.gaps(range)
    }

    fn counters(&self, range: Range<u64>) -> Stored<Vec<CounterSum>> {
        self.store.counters(range)
    }

    fn remember(&self, memories: &[Memory]) -> Stored<()> {
        self.store.remember(memories)
    }

    fn remembered(&self, prefix: &[u8], after: &[u8], limit: usize) -> Stored<Vec<Memory>> {
        self.store.remembered(prefix, after, limit)
    }

    fn prune(&self, now_seconds: u64) -> Stored<Pruned> {
        self.store.prune(now_seconds)
    }

    fn health(&self) -> Stored<Health> {
        self.store.health()
    }
}

/// A server that is gone after the test, with its store.
pub(crate) struct Served {
    pub(crate) store: Arc<Counting>,
    pub(crate) query: Arc<Query>,
    pub(crate) address: SocketAddr,
    pub(crate) running: Running,
    _directory: TempDir,
}

pub(crate) fn served() -> Served {
    served_within(Limits::default())
}

pub(crate) fn served_within(limits: Limits) -> Served {
    let directory = TempDir::new().unwrap();
    let store = Arc::new(Counting {
        store: SqliteStore::open(directory.path(), Options::default()).unwrap(),
        queries: AtomicUsize::new(0),
        at_once: AtomicUsize::new(0),
        most_at_once: AtomicUsize::new(0),
        delay: Mutex::default(),
    });
    commit(&*store, 1, &traffic());
    let board = Arc::new(Board::new(Some("/var/lib/weir".to_owned())));
    let updated = Some("2026-11-20T12:00:02Z".to_owned());
    board.put(NodeStatus {
        node: "n1".to_owned(),
        state: State::Reading,
        updated,
        ..NodeStatus::default()
    });
    let clock: weir_server::Clock = Arc::new(|| WallTime(NOW * SECOND));
    let for_query = Arc::clone(&store) as Arc<dyn FlowStore>;
    let query = Arc::new(Query::new(for_query, Arc::new(Live::default()), board, clock.clone()));
    let changes: Arc<AtomicU64> = query.changes();
    let options = api::Options { limits, ..api::Options::new(clock, changes) };
    let running = api::start(&["127.0.0.1:0".parse().unwrap()], query.clone(), &options).unwrap();
    Served { store, query, address: running.addresses[0], running, _directory: directory }
}
