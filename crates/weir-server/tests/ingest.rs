//! A batch is taken once, into the real embedded store, whatever happens around it.

#![expect(clippy::panic, reason = "a test that got another answer should say which")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use weir_flow::attribution::Question;
use weir_flow::batch::{Gap, GapReason};
use weir_flow::frame::{FrameBuilder, Header, Note};
use weir_flow::ingest::Answer;
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
const NOON: u64 = 12 * 3_600 + 20_000 * 86_400;
const NOW: WallTime = WallTime((NOON + 61) * SECOND);

struct Hosts;

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

fn here() -> Speaker {
    Speaker::here("node")
}

fn record(port: u16, bytes: u64) -> FlowRecord {
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let sent = Counters { packets: 1, bytes };
    FlowRecord {
        connection: u64::from(port),
        zone: 0,
        protocol: Protocol::TCP,
        source: address(1),
        source_port: port,
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
    }
}

/// A batch as an agent seals it, whose clock runs `ahead_seconds` ahead of the store's.
fn frame(sequence: u64, records: &[FlowRecord], notes: &[Note], ahead_seconds: u64) -> Vec<u8> {
    let mut builder = FrameBuilder::default();
    for record in records {
        builder.record(record);
    }
    for note in notes {
        builder.note(note);
    }
    let offset = (NOON + ahead_seconds) * SECOND;
    let header = Header {
        id: BatchId { epoch: Epoch(5), sequence },
        hour: offset / HOUR,
        wall_offset_nanos: offset.cast_signed(),
        sealed_at: BootTime(60 * SECOND),
        boot: 1,
        records: 0,
        digest: Digest(0),
    };
    builder.finish(header).1.to_vec()
}

fn one(sequence: u64, bytes: u64) -> Vec<u8> {
    frame(sequence, &[record(1_000, bytes)], &[], 0)
}

fn sqlite(directory: &Path) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(directory, Options::default()).unwrap())
}

fn ingest(store: &Arc<impl FlowStore + 'static>) -> Ingest<Hosts> {
    let store = Arc::clone(store) as Arc<dyn FlowStore>;
    Ingest::new(store, Hosts).unwrap()
}

/// What is stored in a range: bytes and openings.
fn stored(store: &dyn FlowStore, range: Range<u64>) -> (u64, u64) {
    let query = FlowQuery {
        range,
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

fn all(store: &dyn FlowStore) -> (u64, u64) {
    stored(store, 0..u64::MAX)
}

fn refusal(answer: &Answer) -> &str {
    match answer {
        Answer::Refused { reason } => reason,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn a_batch_is_counted_once_however_often_it_comes() {
    let directory = TempDir::new().unwrap();
    let store = sqlite(directory.path());
    let mut ingest = ingest(&store);
    for sequence in [1, 2, 1, 1, 2] {
        assert_eq!(ingest.accept(&here(), &one(sequence, 100), NOW), Answer::Committed);
    }
    assert_eq!(all(&*store), (200, 2));
    let counts = ingest.counts();
    assert_eq!((counts.committed, counts.known, counts.refused), (2, 3, 0));
}

#[test]
fn the_same_number_with_other_content_is_refused_and_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let store = sqlite(directory.path());
    let mut ingest = ingest(&store);
    assert_eq!(ingest.accept(&here(), &one(1, 100), NOW), Answer::Committed);
    let answer = ingest.accept(&here(), &one(1, 101), NOW);
    assert!(refusal(&answer).contains("other content"), "{answer:?}");
    assert_eq!(ingest.accept(&here(), &one(1, 100), NOW), Answer::Committed);
    assert_eq!((all(&*store), ingest.counts().refused), ((100, 1), 1));
}

#[test]
fn a_restart_continues_where_the_store_stands() {
    let directory = TempDir::new().unwrap();
    for expected in [(0, 300), (3, 300), (3, 300)] {
        let store = sqlite(directory.path());
        let mut ingest = ingest(&store);
        for sequence in [1, 2, 5] {
            assert_eq!(ingest.accept(&here(), &one(sequence, 100), NOW), Answer::Committed);
        }
        assert_eq!((ingest.counts().known, all(&*store).0), expected);
        let answer = ingest.accept(&here(), &one(5, 7), NOW);
        assert!(refusal(&answer).contains("other content"), "the digest is kept, too: {answer:?}");
    }
    let store = sqlite(directory.path());
    assert_eq!(
        ingest(&store).accept(&here(), &one(3, 1), NOW),
        Answer::Committed,
        "a hole is filled"
    );
    assert_eq!(all(&*store).0, 301);
}

#[test]
fn too_many_holes_are_put_off() {
    let directory = TempDir::new().unwrap();
    let store = sqlite(directory.path());
    let mut ingest = ingest(&store);
    let answers: Vec<Answer> =
        (1..=70).map(|number| ingest.accept(&here(), &one(number * 2, 1), NOW)).collect();
    let committed = answers.iter().filter(|answer| **answer == Answer::Committed).count();
    assert_eq!(committed, 64);
    assert!(matches!(answers[69], Answer::Retry { .. }), "{:?}", answers[69]);
    assert_eq!(ingest.counts().retried, 6);
    assert_eq!(
        ingest.accept(&here(), &one(1, 1), NOW),
        Answer::Committed,
        "the backlog comes first"
    );
}

#[test]
fn what_comes_from_the_future_is_moved_to_now_and_counted() {
    let directory = TempDir::new().unwrap();
    let store = sqlite(directory.path());
    let mut ingest = ingest(&store);
    let ahead = |sequence, seconds| frame(sequence, &[record(1_000, 100)], &[], seconds);
    assert_eq!(ingest.accept(&here(), &ahead(1, 119), NOW), Answer::Committed);
    assert_eq!(ingest.counts().future, 0, "two minutes are borne");
    assert_eq!(ingest.accept(&here(), &ahead(2, 40 * 86_400), NOW), Answer::Committed);
    assert_eq!(ingest.counts().future, 1);
    assert_eq!(all(&*store).0, 200);
    let by_now = NOON..NOON + 3 * 60 + 10;
    assert_eq!(stored(&*store, by_now).0, 200, "nothing lies in the future");
}

#[test]
fn garbage_is_refused_and_leaves_no_trace() {
    let directory = TempDir::new().unwrap();
    let store = sqlite(directory.path());
    let mut ingest = ingest(&store);
    let good = one(1, 100);
    let mut flipped = good.clone();
    flipped[good.len() - 1] ^= 1;
    for bytes in [&b""[..], b"WEIRBAT\x01", &good[..good.len() - 1], &flipped] {
        assert!(matches!(ingest.accept(&here(), bytes, NOW), Answer::Refused { .. }));
    }
    assert_eq!((all(&*store), ingest.counts().refused), ((0, 0), 4));
    assert_eq!(ingest.accept(&here(), &good, NOW), Answer::Committed);
    assert_eq!(all(&*store), (100, 1), "and nothing of it slipped into the next");
}

#[test]
fn gaps_and_counts_are_stored_with_the_batch() {
    let directory = TempDir::new().unwrap();
    let store = sqlite(directory.path());
    let mut ingest = ingest(&store);
    let gap = Gap {
        reason: GapReason::AgentDown,
        from_seconds: NOON,
        to_seconds: NOON + 9,
        connections: 3,
        bytes_bound: Some(0),
        ..Gap::default()
    };
    let notes = [Note::Gap(gap), Note::Forget(9), Note::Health("lost_events".to_owned(), 4)];
    let batch = frame(1, &[], &notes, 0);
    for _ in 0..2 {
        assert_eq!(ingest.accept(&here(), &batch, NOW), Answer::Committed);
    }
    let gaps = store.gaps(0..u64::MAX >> 1).unwrap();
    assert_eq!(gaps.iter().map(|stored| stored.gap).collect::<Vec<_>>(), [gap]);
    let counters = store.counters(NOON..NOON + 3_600).unwrap();
    assert_eq!(counters.len(), 1, "{counters:?}");
    assert_eq!((counters[0].name.as_str(), counters[0].value), ("lost_events", 4));
}

/// A store whose disk is full while it is told so.
struct Failing {
    store: Arc<SqliteStore>,
    fails: AtomicBool,
}

impl FlowStore for Failing {
    fn commit(&self, batches: &[CommitBatch<'_>]) -> Stored<Vec<Outcome>> {
        if self.fails.load(Ordering::Relaxed) {
            let path = "/full/flows.db".into();
            return Err(StoreError::Full { operation: "commit a batch", path });
        }
        self.store.commit(batches)
    }

    fn committed(&self) -> Stored<Vec<CommittedEpoch>> {
        self.store.committed()
    }

    fn query(&self, query: &FlowQuery) -> Stored<Table> {
        self.store.query(query)
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

#[test]
fn a_store_that_fails_is_tried_again_and_nothing_is_lost_or_doubled() {
    let directory = TempDir::new().unwrap();
    let store = sqlite(directory.path());
    let failing = Arc::new(Failing { store, fails: AtomicBool::new(true) });
    let mut ingest = ingest(&failing);
    for _ in 0..3 {
        match ingest.accept(&here(), &one(1, 100), NOW) {
            Answer::Retry { after, reason } => {
                assert!(reason.contains("no space left") && reason.contains("/full/flows.db"));
                assert!(!after.is_zero());
            }
            other => panic!("{other:?}"),
        }
    }
    failing.fails.store(false, Ordering::Relaxed);
    assert_eq!(ingest.accept(&here(), &one(1, 100), NOW), Answer::Committed);
    assert_eq!(all(&*failing), (100, 1));
    assert_eq!((ingest.counts().retried, ingest.counts().committed), (3, 1));
}
