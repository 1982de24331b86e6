//! What becomes of a batch.

use weir_flow::batch::{Gap, GapReason};
use weir_flow::ingest::MAX_RANGES;
use weir_flow::{BatchId, Digest, Epoch, Folded};
use weir_store::{CommitBatch, CounterSum, InvalidBatch, Outcome};

use super::{HOUR, Open, Opened, opened, total};
use crate::support::{EPOCH, NOON, Spelled, batch, commit, folded, unit};

pub(super) fn a_number_counts_once(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let flows = folded(&[Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 5)]);
    let first = batch("n1", 1, &flows, &[]);
    let other = CommitBatch { digest: Digest(99), ..first };
    assert_eq!(
        store.commit(&[first, first, other]).unwrap(),
        [Outcome::Committed, Outcome::AlreadyCommitted, Outcome::DigestMismatch]
    );
    assert_eq!(store.commit(&[first]).unwrap(), [Outcome::AlreadyCommitted]);
    assert_eq!(store.commit(&[other]).unwrap(), [Outcome::DigestMismatch]);
    assert_eq!(total(&**store), 5);
    let known = store.committed().unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].epoch, known[0].node.as_str()), (EPOCH, "n1"));
    assert_eq!(known[0].ranges.low_water(), 1);
    assert_eq!(known[0].digests, [(1, Digest(1))]);
}

pub(super) fn one_bad_batch_spoils_no_other(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let good = folded(&[Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 5)]);
    let mut bad = good.clone();
    bad.levels[0][0].key.source = 9;
    let outcomes = store
        .commit(&[
            batch("n1", 1, &good, &[]),
            batch("n1", 2, &bad, &[]),
            batch("n1", 3, &good, &[]),
        ])
        .unwrap();
    let refused = Outcome::Invalid(InvalidBatch::Endpoint { index: 9, len: 2 });
    assert_eq!(outcomes, [Outcome::Committed, refused, Outcome::Committed]);
    assert_eq!(total(&**store), 10);
    assert_eq!(store.committed().unwrap()[0].ranges.spans(), [(1, 1), (3, 3)]);
    // The number is still free for what replaces it.
    let gap = Gap { reason: GapReason::Refused, ..Gap::default() };
    assert_eq!(commit(&**store, "n1", 2, &Folded::default(), &[gap]), Outcome::Committed);
    assert_eq!(store.committed().unwrap()[0].ranges.low_water(), 3);
}

pub(super) fn a_batch_that_contradicts_itself_is_refused(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let good = folded(&[Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 5)]);
    let changed = |change: fn(&mut Folded)| {
        let mut flows = good.clone();
        change(&mut flows);
        commit(&**store, "n1", 1, &flows, &[])
    };
    let reasons = [
        changed(|flows| flows.levels[1][0].key.window += 10),
        changed(|flows| flows.levels[0][0].key.window = u64::MAX / 10 * 10),
        changed(|flows| flows.levels[2].clear()),
        changed(|flows| flows.levels[1][0].measures.connections_failed += 1),
        commit(&**store, "n1", 0, &good, &[]),
        commit(&**store, "n1", u64::MAX, &good, &[]),
        commit(&**store, &"n".repeat(300), 1, &good, &[]),
        changed(|flows| {
            let endpoint = unit("10.0.0.1", &"u".repeat(5_000));
            flows.endpoints[0] = endpoint.into();
        }),
    ];
    for (index, outcome) in reasons.iter().enumerate() {
        assert!(matches!(outcome, Outcome::Invalid(_)), "{index}: {outcome:?}");
    }
    assert_eq!(total(&**store), 0);
    assert_eq!(store.committed().unwrap(), []);
    assert_eq!(commit(&**store, "n1", 1, &good, &[]), Outcome::Committed);
}

pub(super) fn numbers_may_come_in_any_order_within_bounds(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let flows = folded(&[Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 1)]);
    let holes = MAX_RANGES as u64;
    for i in 0..holes {
        assert_eq!(commit(&**store, "n1", 3 + 2 * i, &flows, &[]), Outcome::Committed);
    }
    assert_eq!(commit(&**store, "n1", 10_000, &flows, &[]), Outcome::NoRoom);
    assert_eq!(total(&**store), holes);
    for number in 1..=2 + 2 * holes {
        let expected = if number % 2 == 1 && number > 1 {
            Outcome::AlreadyCommitted
        } else {
            Outcome::Committed
        };
        assert_eq!(commit(&**store, "n1", number, &flows, &[]), expected, "{number}");
    }
    assert_eq!(store.committed().unwrap()[0].ranges.spans(), [(1, 2 + 2 * holes)]);
    assert_eq!(commit(&**store, "n1", 10_000, &flows, &[]), Outcome::Committed);
    assert_eq!(total(&**store), 3 + 2 * holes);
}

pub(super) fn an_epoch_is_of_one_node(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let flows = folded(&[Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 1)]);
    assert_eq!(commit(&**store, "n1", 1, &flows, &[]), Outcome::Committed);
    let owner = "n1".to_owned();
    assert_eq!(
        commit(&**store, "n2", 2, &flows, &[]),
        Outcome::Invalid(InvalidBatch::OtherNode { owner })
    );
    // The same number in another epoch is another batch.
    let other = CommitBatch {
        id: BatchId { epoch: Epoch(u128::MAX), sequence: 1 },
        ..batch("n2", 1, &flows, &[])
    };
    assert_eq!(store.commit(&[other]).unwrap(), [Outcome::Committed]);
    assert_eq!(store.committed().unwrap().len(), 2);
}

pub(super) fn gaps_and_counters_come_back(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let gap = |reason, from, to| Gap {
        reason,
        from_seconds: from,
        to_seconds: to,
        connections: 1,
        records: 2,
        bytes: 3,
        bytes_bound: Some(u64::MAX),
    };
    let empty = Folded::default();
    let gaps =
        [gap(GapReason::EventsLost, NOON + 50, NOON + 60), gap(GapReason::AgentDown, NOON, NOON)];
    let first = batch("n1", 1, &empty, &gaps);
    let counters = [("records", 5), ("lost_events", -1), ("given_back", 3), ("nothing", 0)];
    let first = CommitBatch { counters: &counters, end_seconds: NOON, ..first };
    let late = [("records", 7)];
    let second = batch("n1", 2, &empty, &[]);
    let taken_back = CommitBatch {
        counters: &[("given_back", -3)],
        end_seconds: NOON,
        ..batch("n1", 4, &empty, &[])
    };
    let second = CommitBatch { counters: &late, end_seconds: NOON + 1, ..second };
    let most = [("records", i64::MAX)];
    let third = CommitBatch {
        counters: &most,
        ..CommitBatch { id: BatchId { epoch: EPOCH, sequence: 3 }, ..second }
    };
    assert_eq!(store.commit(&[first, first, second, third]).unwrap()[3], Outcome::Committed);
    assert_eq!(store.commit(&[taken_back]).unwrap(), [Outcome::Committed]);

    let reasons = |range| {
        let gaps = store.gaps(range).unwrap();
        gaps.into_iter().map(|stored| stored.gap.reason).collect::<Vec<_>>()
    };
    assert_eq!(reasons(0..u64::MAX), [GapReason::AgentDown, GapReason::EventsLost]);
    assert_eq!(reasons(NOON + 55..NOON + 56), [GapReason::EventsLost]);
    assert_eq!(reasons(NOON + 61..NOON + 70), []);
    let stored = &store.gaps(0..u64::MAX).unwrap()[1];
    assert_eq!((stored.node.as_str(), stored.batch), ("n1", first.id));
    let bound = Some(i64::MAX.unsigned_abs());
    assert_eq!(stored.gap, Gap { bytes_bound: bound, ..gaps[0] });

    let sum =
        |name: &str, value| CounterSum { node: "n1".to_owned(), name: name.to_owned(), value };
    // What ended with the hour is the hour's before; what comes to nothing is not listed.
    assert_eq!(
        store.counters(NOON - 1..NOON).unwrap(),
        [sum("lost_events", -1), sum("records", 5)]
    );
    assert_eq!(store.counters(NOON..NOON + 1).unwrap(), [sum("records", i64::MAX)]);
    assert_eq!(store.counters(0..NOON - HOUR).unwrap(), []);
}
