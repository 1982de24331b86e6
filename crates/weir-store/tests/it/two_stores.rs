//! Both stores answer alike: random batches into each, random questions to both.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use weir_flow::batch::{Gap, GapReason};
use weir_flow::{BatchId, Digest, Epoch, Field, Folded};
use weir_store::{
    CommitBatch, CommittedEpoch, FlowQuery, FlowStore, Options, Outcome, Retention, StoreError,
    Table,
};

use crate::conformance::ages::prune;
use crate::conformance::answers::HOSTILE;
use crate::conformance::properties::{a_flow, a_query};
use crate::support::{NOON, Spelled, batch, clickhouse, engine, folded, sqlite};

const HOUR: u64 = 3_600;
/// A range in which nothing is.
const BACKWARDS: Range<u64> = Range { start: NOON + HOUR, end: NOON };
/// Queries to one set of flows.
const QUERIES: u32 = 250;

/// How many queries; `WEIR_TEST_QUERIES` asks for more.
fn wanted() -> u32 {
    std::env::var("WEIR_TEST_QUERIES").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

#[test]
fn both_stores_answer_alike() {
    let Some(engine) = engine("the two-store property test") else { return };
    let started = Instant::now();
    let rounds = wanted().div_ceil(QUERIES);
    let mut lists = 0;
    for round in 0..rounds {
        let options = Options { retention: short(), ..Options::default() };
        let embedded = sqlite(options);
        let large = clickhouse(&engine, options);
        let stores: Stores<'_> = [&embedded.store, &large.store];
        let mut runner = runner(round);
        let drawn = vec(a_delivery(), 12).new_tree(&mut runner).unwrap().current();
        let mut deliveries = Vec::new();
        for (number, delivery) in drawn.into_iter().enumerate() {
            deliveries.push(delivery.with(number));
        }
        commit(stores, &deliveries, &mut runner);
        // Half of the rounds lose the older part of the finer levels.
        if round % 2 == 1 {
            // The one removes rows, the other whole days, and both forget the same windows.
            let [removed, _] = stores.map(|store| prune(store, NOON + 3 * HOUR));
            assert!(removed[0] > 0 && removed[1] > 0, "{removed:?}");
        }
        ask(stores, round);
        lists += same_lists(stores);
    }
    println!(
        "{} queries and {lists} lists to both stores in {:.1} s, no difference",
        rounds * QUERIES,
        started.elapsed().as_secs_f64()
    );
}

type Stores<'a> = [&'a dyn FlowStore; 2];

/// Short enough to cross within the flows' hours.
fn short() -> Retention {
    Retention { ten_seconds: HOUR, minute: 2 * HOUR, hour: 400 * 24 * HOUR }
}

/// The same for every run, so that a difference comes back; another one for every round.
fn runner(round: u32) -> TestRunner {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&round.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    TestRunner::new_with_rng(ProptestConfig { failure_persistence: None, ..config() }, random)
}

fn config() -> ProptestConfig {
    ProptestConfig::with_cases(QUERIES)
}

fn ask(stores: Stores<'_>, round: u32) {
    let answered = runner(round + 1_000_000).run(&a_query(), |query| {
        let [one, other] = stores.map(|store| store.query(&query));
        prop_assert!(
            same(&one, &other),
            "asked {query:?}\nembedded   {one:?}\nClickHouse {other:?}"
        );
        Ok(())
    });
    answered.unwrap();
}

fn same(one: &weir_store::Result<Table>, other: &weir_store::Result<Table>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one == other,
        (Err(one), Err(other)) => kind(one) == kind(other),
        _ => false,
    }
}

fn kind(error: &StoreError) -> std::mem::Discriminant<StoreError> {
    std::mem::discriminant(error)
}

/// A batch as it is drawn.
#[derive(Clone, Debug)]
struct Delivery {
    flows: Vec<Spelled>,
    gaps: Vec<Gap>,
    counters: Vec<(&'static str, i64)>,
    end_seconds: u64,
    /// How often it is sent besides.
    again: usize,
}

/// A batch with its number: of one node, whose epoch it is.
struct Numbered {
    node: String,
    id: BatchId,
    folded: Folded,
    delivery: Delivery,
}

fn a_delivery() -> impl Strategy<Value = Delivery> {
    let reasons = [GapReason::AgentDown, GapReason::EventsLost, GapReason::TrackingOff];
    let any = || prop_oneof![Just(0_u64), 0_u64..1_000, Just(u64::MAX)];
    let gap = (select(reasons.to_vec()), 0..2 * HOUR, 0..HOUR, any(), any(), any(), any())
        .prop_map(|(reason, from, length, connections, records, bytes, bound)| Gap {
            reason,
            from_seconds: NOON + from,
            to_seconds: NOON + from + length,
            connections,
            records,
            bytes,
            bytes_bound: (bound > 0).then_some(bound),
        });
    // Sums that stay at their bound do not depend on the order in which they get there.
    let counter = prop_oneof![
        (select(vec!["records", HOSTILE[1]]), prop_oneof![Just(i64::MAX), 0_i64..9_999]),
        (select(vec!["lost_events", HOSTILE[3]]), prop_oneof![Just(i64::MIN), -9_999_i64..1]),
        (Just("frames"), -99_i64..99),
    ];
    (vec(a_flow(), 0..60), vec(gap, 0..3), vec(counter, 0..4), 0..3 * HOUR, 0_usize..3).prop_map(
        |(flows, gaps, counters, end, again)| {
            // A counter is said once per batch.
            let counters = counters.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
            Delivery { flows, gaps, counters, end_seconds: NOON + end, again }
        },
    )
}

impl Delivery {
    /// Nodes take turns; each has its epoch, and numbers with holes.
    fn with(mut self, number: usize) -> Numbered {
        let node = ["n1", "n2", "name'3"][number % 3].to_owned();
        for flow in &mut self.flows {
            flow.node.clone_from(&node);
        }
        let sequence = 1 + number as u64 / 3 * 2;
        let id = BatchId { epoch: Epoch(u128::MAX - (number % 3) as u128), sequence };
        Numbered { node, id, folded: folded(&self.flows), delivery: self }
    }
}

impl Numbered {
    fn batch(&self) -> CommitBatch<'_> {
        CommitBatch {
            id: self.id,
            digest: Digest(u128::from(self.id.sequence) << 64 | self.id.epoch.0 >> 64),
            end_seconds: self.delivery.end_seconds,
            counters: &self.delivery.counters,
            ..batch(&self.node, self.id.sequence, &self.folded, &self.delivery.gaps)
        }
    }
}

/// Commits in groups of any size and order, some batches more than once, some with other content.
fn commit(stores: Stores<'_>, deliveries: &[Numbered], runner: &mut TestRunner) {
    let mut order: Vec<usize> = (0..deliveries.len())
        .flat_map(|at| std::iter::repeat_n(at, 1 + deliveries[at].delivery.again))
        .collect();
    order = Just(order).prop_shuffle().new_tree(runner).unwrap().current();
    for group in order.chunks(5) {
        let batches: Vec<CommitBatch<'_>> =
            group.iter().map(|at| deliveries[*at].batch()).collect();
        let [one, other] = stores.map(|store| store.commit(&batches).unwrap());
        assert_eq!(one, other, "{group:?}");
    }
    let forged = CommitBatch { digest: Digest(1), ..deliveries[0].batch() };
    let stranger = CommitBatch {
        node: "stranger",
        id: BatchId { sequence: 99, ..deliveries[0].id },
        ..deliveries[0].batch()
    };
    let old = CommitBatch { id: BatchId { sequence: 98, ..deliveries[0].id }, ..forged };
    let [one, other] =
        stores.map(|store| store.commit(&[forged, stranger, deliveries[1].batch(), old]).unwrap());
    assert_eq!(one, other);
    assert_eq!(one[0], Outcome::DigestMismatch);
}

/// Everything besides queries. Returns how many lists were compared.
fn same_lists(stores: Stores<'_>) -> u32 {
    let mut compared = 0;
    for field in Field::all() {
        for (prefix, limit) in
            [("", 1_000), ("", 3), ("n", 5), ("1", 10), ("x'; DROP", 10), ("fd", 10), ("I", 4)]
        {
            let [one, other] = stores.map(|store| store.values(field, prefix, limit));
            match (one, other) {
                (Ok(one), Ok(other)) => assert_eq!(one, other, "{field} {prefix:?} {limit}"),
                (one, other) => assert!(
                    kind(&one.unwrap_err()) == kind(&other.unwrap_err()),
                    "{field} {prefix:?}"
                ),
            }
            compared += 1;
        }
    }
    let ranges = [0..u64::MAX, NOON..NOON + HOUR, NOON + 100..NOON + 101, 0..NOON, BACKWARDS];
    for range in ranges {
        let [one, other] = stores.map(|store| store.gaps(range.clone()).unwrap());
        assert_eq!(one, other, "{range:?}");
        let [one, other] = stores.map(|store| store.counters(range.clone()).unwrap());
        assert_eq!(one, other, "{range:?}");
        compared += 2;
    }
    let [one, other] = stores.map(|store| sorted(store.committed().unwrap()));
    assert_eq!(one, other);
    for known in &one {
        let [one, other] = stores.map(|store| store.committed_of(known.epoch).unwrap());
        assert_eq!(one, other);
        compared += 1;
    }
    let [one, other] = stores.map(|store| {
        let levels = store.health().unwrap().levels;
        levels.iter().map(|level| (level.level, level.oldest, level.newest)).collect::<Vec<_>>()
    });
    assert_eq!(one, other);
    compared + 2
}

fn sorted(mut committed: Vec<CommittedEpoch>) -> Vec<CommittedEpoch> {
    committed.sort_by_key(|known| known.epoch);
    committed
}

/// A question that cannot be answered is refused alike.
#[test]
fn both_stores_refuse_alike() {
    let Some(engine) = engine("refused questions") else { return };
    let embedded = sqlite(Options::default());
    let large = clickhouse(&engine, Options::default());
    let base = crate::support::query(NOON..NOON + HOUR, "class");
    let questions = [
        FlowQuery { bucket_seconds: Some(0), ..base.clone() },
        FlowQuery { measures: Vec::new(), group_by: Vec::new(), ..base.clone() },
        FlowQuery { range: NOON..NOON, ..base.clone() },
        FlowQuery { range: BACKWARDS, ..base.clone() },
        FlowQuery { range: 0..u64::MAX, bucket_seconds: Some(u64::MAX), ..base.clone() },
        FlowQuery { group_by: Field::all().chain(Field::all()).collect(), ..base.clone() },
        FlowQuery { limit: Some(0), ..base },
    ];
    for question in questions {
        let one = embedded.store.query(&question);
        let other = large.store.query(&question);
        assert!(same(&one, &other), "{question:?}\n{one:?}\n{other:?}");
    }
}
