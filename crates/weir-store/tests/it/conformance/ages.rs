//! What time does to what is stored.

use weir_flow::Level;
use weir_store::{FlowStore, Options, Outcome, Retention, StoreError};

use super::{DAY, HOUR, Open, Opened, total};
use crate::support::{NOON, Spelled, commit, commit_all, folded, ip, model, query, text};

/// Retentions short enough to cross.
pub(super) fn short() -> Options {
    let retention = Retention { ten_seconds: HOUR, minute: 3 * HOUR, hour: DAY };
    Options { retention, ..Options::default() }
}

pub(crate) fn prune(store: &dyn FlowStore, now: u64) -> [u64; 3] {
    let mut rows = [0; 3];
    for _ in 0..1_000 {
        let pruned = store.prune(now).unwrap();
        for (sum, deleted) in rows.iter_mut().zip(pruned.rows) {
            *sum += deleted;
        }
        if !pruned.more {
            return rows;
        }
    }
    panic!("pruning does not end");
}

pub(super) fn late_batches_go_where_they_are_still_held(open: Open<'_>) {
    let Opened { store, .. } = &open(short());
    prune(&**store, NOON);
    let late = |ago| folded(&[Spelled::new(NOON - ago, "10.0.0.1", "10.0.0.2", ago)]);
    for (number, ago) in [(1, 10), (2, 2 * HOUR), (3, 5 * HOUR)] {
        assert_eq!(commit(&**store, "n1", number, &late(ago), &[]), Outcome::Committed);
    }
    assert_eq!(commit(&**store, "n1", 4, &late(2 * DAY), &[]), Outcome::TooOld);
    assert_eq!(store.committed().unwrap()[0].ranges.low_water(), 3);
    let rows: Vec<u64> = store.health().unwrap().levels.iter().map(|level| level.rows).collect();
    assert_eq!(rows, [1, 2, 3]);
    let bytes = |from, to| {
        let table = store.query(&query(NOON - from..NOON - to, "source.address")).unwrap();
        (text(&table), table.level, table.covers)
    };
    assert_eq!(bytes(10, 0), (vec!["10.0.0.1 10".to_owned()], Level::TenSeconds, NOON - 10..NOON));
    // Only the minute, only the hour is left: the range grows to it and says so.
    let ago = 2 * HOUR;
    assert_eq!(
        bytes(ago, ago - 10),
        (vec![format!("10.0.0.1 {ago}")], Level::Minute, NOON - ago..NOON - ago + 60)
    );
    let ago = 5 * HOUR;
    assert_eq!(
        bytes(ago, ago - 10),
        (vec![format!("10.0.0.1 {ago}")], Level::Hour, NOON - ago..NOON - ago + HOUR)
    );
    assert_eq!(total(&**store), 10 + 7 * HOUR);
}

pub(super) fn pruning_goes_on_until_nothing_is_left(open: Open<'_>) {
    let Opened { store, .. } = &open(short());
    // More rows than one call deletes, in one window of the coarsest level.
    let flows: Vec<Spelled> = (0..12_000_u32)
        .map(|i| {
            let source = std::net::Ipv4Addr::from(0x0a00_0000 + i).to_string();
            Spelled::new(NOON + u64::from(i % 6) * 10, &source, "192.0.2.1", 1)
        })
        .collect();
    for (number, flows) in (1..).zip(flows.chunks(4_000)) {
        assert_eq!(commit(&**store, "n1", number, &folded(flows), &[]), Outcome::Committed);
    }
    assert_eq!(prune(&**store, NOON + HOUR), [0; 3]);
    assert_eq!(total(&**store), 12_000);
    prune(&**store, NOON + 2 * HOUR);
    let rows = |level: usize| store.health().unwrap().levels[level].rows;
    assert_eq!([rows(0), rows(1), rows(2)], [0, 12_000, 12_000]);
    assert_eq!(total(&**store), 12_000);
    assert!(store.health().unwrap().edges.is_none_or(|edges| edges == 12_000));
    // Going back in time brings nothing back and deletes nothing.
    assert_eq!(prune(&**store, NOON - DAY), [0; 3]);

    prune(&**store, NOON + 3 * DAY);
    let health = store.health().unwrap();
    assert!(health.endpoints.is_none_or(|left| left == 0), "{health:?}");
    assert!(health.edges.is_none_or(|left| left == 0), "{health:?}");
    assert_eq!(total(&**store), 0);
    assert_eq!(store.committed().unwrap(), []);
    // What was forgotten can be learnt again, but not the old batches.
    assert_eq!(commit(&**store, "n1", 1, &folded(&flows[..10]), &[]), Outcome::TooOld);
    let mut again = flows[0].clone();
    again.window = NOON + 3 * DAY;
    assert_eq!(commit(&**store, "n1", 1, &folded(&[again]), &[]), Outcome::Committed);
    assert_eq!(total(&**store), 1);
}

pub(super) fn switched_off_levels_are_not_read(open: Open<'_>) {
    let retention = Retention { ten_seconds: DAY, minute: 0, hour: 0 };
    let Opened { store, .. } = &open(Options { retention, ..Options::default() });
    commit_all(&**store, 1, &[Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 5)]);
    let table = store.query(&query(NOON - DAY..NOON + DAY, "source.address")).unwrap();
    assert_eq!((text(&table), table.level), (vec!["10.0.0.1 5".to_owned()], Level::TenSeconds));
    assert_eq!(store.health().unwrap().levels.len(), 1);
    let none = Retention { ten_seconds: 0, ..retention };
    let Opened { store, .. } = &open(Options { retention: none, ..Options::default() });
    assert!(matches!(store.query(&query(0..10, "")), Err(StoreError::Query { .. })));
}

/// Names stay as long as a fact refers to them, however old their first fact is.
pub(super) fn pruning_keeps_what_is_in_use(open: Open<'_>) {
    let Opened { store, .. } = &open(short());
    let mut flows: Vec<Spelled> = Vec::new();
    let mut sequence = 0;
    for step in 0..60 {
        let now = NOON + step * HOUR;
        // Some endpoints every third hour, some once a day and late, some once.
        for (kind, source, late) in [(1, step % 3, 0), (2, step % 24, 2 * HOUR), (3, step, 0)] {
            let source_address = format!("10.{kind}.0.{source}");
            let mut flow = Spelled::new(now - late, &source_address, "192.0.2.1", step + 1);
            flow.service = Some((ip("10.96.0.1"), u16::try_from(source).unwrap()));
            sequence += 1;
            let outcome = commit(&**store, "n1", sequence, &folded(&[flow.clone()]), &[]);
            assert_eq!(outcome, Outcome::Committed);
            flows.push(flow);
        }
        prune(&**store, now);
        let query = query(0..u64::MAX, "source.id,service");
        let table = store.query(&query).unwrap();
        assert_eq!(table.rows, model(&flows, &query, &table), "hour {step}");
        // The coarsest level holds the whole hours of a day.
        assert_eq!(table.covers.start, now - DAY);
    }
    // 3 frequent ones, 24 daily ones, the single ones of the last day, and the destination.
    let endpoints = store.health().unwrap().endpoints;
    assert!(endpoints.is_none_or(|left| (52..=54).contains(&left)), "{endpoints:?}");
}
