//! A batch counts once, whatever happens on the way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weir_flow::{BatchId, Level};
use weir_lab::clickhouse::{Engine, Fault, Faults};
use weir_store::{
    ClickHouseOptions, ClickHouseStore, FlowStore, Options, Outcome, Retention, StoreError,
};

use super::{HOUR, bytes, bytes_of, code, content, open, options_through, stand_in, through};
use crate::support::{
    EPOCH, NOON, Spelled, batch, clickhouse, clickhouse_options, commit, engine, folded,
};

const INSERT: &str = "INSERT INTO flow_10s";

#[test]
fn a_batch_is_one_block() {
    let Some(engine) = engine("one batch, one block") else { return };
    let opened = clickhouse(&engine, Options::default());
    // More rows than a block has by default, in one window so that none is folded away.
    let flows: Vec<Spelled> = (0..70_000_u32)
        .map(|i| {
            let source = std::net::Ipv4Addr::from(0x0a00_0000 + i).to_string();
            Spelled::new(NOON, &source, "192.0.2.1", 1)
        })
        .collect();
    let mut flows = folded_quickly(&flows);
    // The test's own fold keeps every level; the coarse ones are not looked at here.
    flows.folded_keys = 0;
    opened.store.commit(&[batch("n1", 1, &flows, &[])]).unwrap();
    for table in ["flow_10s", "flow_1m", "flow_1h", "batch"] {
        let parts = format!(
            "SELECT uniqExact(min_block_number), sum(rows) > 0 FROM system.parts \
             WHERE database = currentDatabase() AND table = '{table}' AND active"
        );
        assert_eq!(opened.database.run(&parts).unwrap(), "1\t1\n", "{table}");
    }
}

/// `folded` looks every endpoint up in a list; here there are too many for that.
fn folded_quickly(flows: &[Spelled]) -> weir_flow::Folded {
    let mut whole = folded(&flows[..1]);
    let Some(first) = whole.levels[0].first().copied() else { return whole };
    for (at, flow) in flows.iter().enumerate().skip(1) {
        let index = u32::try_from(whole.endpoints.len()).unwrap();
        whole.endpoints.push(std::sync::Arc::new(flow.source.clone()));
        for (level, flows) in Level::ALL.into_iter().zip(&mut whole.levels) {
            let mut copy = first;
            copy.key.source = index;
            copy.key.window -= copy.key.window % level.seconds();
            flows.push(copy);
        }
        assert!(at > 0);
    }
    whole
}

#[test]
fn an_answer_that_got_lost_is_asked_for_again_and_counts_once() {
    let Some(engine) = stand_in("a lost answer") else { return };
    let database = engine.name();
    let faults = Faults::before(&engine).unwrap();
    let store = through(&faults, &database);
    for (number, (fault, was_done)) in
        (1..).zip([(Fault::CutAfter, true), (Fault::CutBefore, false), (Fault::CutDuring, false)])
    {
        let flows = content(number);
        faults.add(INSERT, fault, 1);
        let error = store.commit(&[batch("n1", number, &flows, &[])]).unwrap_err();
        assert!(matches!(error, StoreError::ClickHouseUnreachable { .. }), "{error}");
        let expected = if was_done { Outcome::AlreadyCommitted } else { Outcome::Committed };
        assert_eq!(commit(&store, "n1", number, &flows, &[]), expected);
        assert_eq!(bytes(&store), bytes_of(1..=number));
    }
    // So it does at a server that was started since.
    let again = open(&database);
    let flows = content(1);
    assert_eq!(commit(&again, "n1", 1, &flows, &[]), Outcome::AlreadyCommitted);
    assert_eq!(bytes(&again), bytes_of(1..=3));
    assert_eq!(again.committed().unwrap()[0].ranges.low_water(), 3);
}

#[test]
fn of_a_group_that_failed_each_batch_counts_once() {
    let Some(engine) = stand_in("a group that fails in part") else { return };
    let database = engine.name();
    let faults = Faults::before(&engine).unwrap();
    let store = through(&faults, &database);
    let contents: Vec<_> = (1..=12).map(content).collect();
    let group: Vec<_> =
        (1..).zip(&contents).map(|(number, flows)| batch("n1", number, flows, &[])).collect();
    for (token, fault) in
        [("-3-", Fault::CutAfter), ("-5-", Fault::CutBefore), ("-8-", Fault::CutDuring)]
    {
        // The token in the address tells the inserts apart.
        faults.add(token, fault, 1);
    }
    let mut failures = 0;
    let outcomes = loop {
        match store.commit(&group) {
            Ok(outcomes) => break outcomes,
            Err(_) => failures += 1,
        }
        assert!(failures < 12);
    };
    assert!(failures > 0, "no fault was met");
    let taken =
        |outcome: &Outcome| matches!(outcome, Outcome::Committed | Outcome::AlreadyCommitted);
    assert!(outcomes.iter().all(taken), "{outcomes:?}");
    assert_eq!(bytes(&store), bytes_of(1..=12));
    assert_eq!(store.audit(NOON..NOON + 4 * HOUR).unwrap(), []);
}

#[test]
fn a_view_that_threw_is_healed_by_the_next_try() {
    let Some(engine) = engine("healing") else { return };
    for is_new_server in [false, true] {
        let opened = clickhouse(&engine, Options::default());
        let flows = content(4);
        opened.database.run("CREATE TABLE aside (n UInt8) ENGINE = MergeTree ORDER BY n").unwrap();
        let view = "CREATE MATERIALIZED VIEW a_throws TO aside AS \
                    SELECT throwIf(is_batch = 1) AS n FROM flow_10s";
        opened.database.run(view).unwrap();
        let error = opened.store.commit(&[batch("n1", 4, &flows, &[])]).unwrap_err();
        assert_eq!(code(&error), Some(395), "{error}");
        opened.database.run("DROP TABLE a_throws").unwrap();
        let other = open(&opened.database);
        let store = if is_new_server { &other } else { &opened.store };
        let outcome = commit(store, "n1", 4, &flows, &[]);
        assert!(matches!(outcome, Outcome::Committed | Outcome::AlreadyCommitted), "{outcome}");
        assert_eq!(bytes(store), bytes_of([4]));
        assert_eq!(store.committed().unwrap()[0].ranges.spans(), [(4, 4)]);
    }
}

#[test]
fn a_killed_engine_leaves_a_batch_whole_or_not_at_all() {
    let Some(mut engine) = Engine::own_for_test("an engine killed mid-insert").unwrap() else {
        return;
    };
    let database = engine.name();
    let store = open(&database);
    let first = content(1);
    assert_eq!(commit(&store, "n1", 1, &first, &[]), Outcome::Committed);
    // The insert stands still in a view when the engine dies, before or after the roll-ups.
    database.run("CREATE TABLE aside (n UInt8) ENGINE = MergeTree ORDER BY n").unwrap();
    for (number, name) in [(2, "a_slow"), (3, "zz_slow"), (4, "flow_1m_slow")] {
        let view = format!(
            "CREATE MATERIALIZED VIEW {name} TO aside AS \
             SELECT sleepEachRow(2.5) AS n FROM flow_10s WHERE is_batch = 1"
        );
        database.run(&view).unwrap();
        let flows = content(number);
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| store.commit(&[batch("n1", number, &flows, &[])]));
            let running = "SELECT count() FROM system.processes WHERE query_kind = 'Insert'";
            while !sent.is_finished() && database.run(running).unwrap() == "0\n" {
                std::thread::yield_now();
            }
            engine.kill().unwrap();
            sent.join().unwrap().unwrap_err();
        });
        engine.restart().unwrap();
        database.run(&format!("DROP TABLE {name}")).unwrap();
        let outcome = commit(&store, "n1", number, &flows, &[]);
        assert!(matches!(outcome, Outcome::Committed | Outcome::AlreadyCommitted), "{outcome}");
        assert_eq!(bytes(&store), bytes_of(1..=number), "{name}");
    }
    assert_eq!(bytes(&open(&database)), bytes_of(1..=4));
}

#[test]
fn beyond_the_window_a_retry_is_found_and_its_hour_is_compared() {
    let Some(engine) = engine("a retry beyond the window") else { return };
    let database = engine.name();
    let options = ClickHouseOptions { deduplication_window: 5, ..clickhouse_options(&database) };
    let store = ClickHouseStore::open(options.clone()).unwrap();
    for number in 1..=8 {
        let flows = content(number);
        assert_eq!(commit(&store, "n1", number, &flows, &[]), Outcome::Committed);
    }
    // What a view that failed long ago would have left.
    for gone in ["flow_1m WHERE window >= 0", "batch WHERE sequence = 1"] {
        let delete = format!("DELETE FROM {gone} SETTINGS lightweight_deletes_sync = 2");
        database.run(&delete).unwrap();
    }
    let restarted = ClickHouseStore::open(options).unwrap();
    let flows = content(1);
    assert_eq!(commit(&restarted, "n1", 1, &flows, &[]), Outcome::AlreadyCommitted);
    assert_eq!(restarted.audit(NOON..NOON + 4 * HOUR).unwrap(), []);
    let doubts = restarted.hours_in_doubt().unwrap();
    assert_eq!(doubts.len(), 1, "{doubts:?}");
    let rebuilt = restarted.rebuild(NOON..NOON + 2 * HOUR).unwrap();
    assert!(rebuilt.iter().any(|hour| hour.rebuilt == ["flow_1m"]), "{rebuilt:?}");
    assert_eq!(bytes(&restarted), bytes_of(1..=8));
    assert!(restarted.hours_in_doubt().unwrap().is_empty());
    let again = restarted.rebuild(NOON..NOON + 2 * HOUR).unwrap();
    assert!(again.iter().all(|hour| hour.rebuilt.is_empty()), "{again:?}");
}

#[test]
fn an_hour_that_was_rebuilt_is_not_filled_once_more_by_a_retry() {
    let Some(engine) = engine("a retry after a rebuild") else { return };
    let opened = clickhouse(&engine, Options::default());
    let (store, database) = (&opened.store, &opened.database);
    // As if a view had failed: its table knows neither the rows nor the token, and nobody noted
    // that the batch is complete.
    let view = database.run("SHOW CREATE TABLE flow_1m_view FORMAT TSVRaw").unwrap();
    database.run("DROP TABLE flow_1m_view").unwrap();
    let flows = content(1);
    assert_eq!(commit(store, "n1", 1, &flows, &[]), Outcome::Committed);
    let delete = "DELETE FROM batch WHERE sequence = 1 SETTINGS lightweight_deletes_sync = 2";
    database.run(delete).unwrap();
    database.run(&view).unwrap();

    let rebuilt = store.rebuild(NOON..NOON + 2 * HOUR).unwrap();
    assert!(rebuilt.iter().any(|hour| hour.rebuilt == ["flow_1m"]), "{rebuilt:?}");
    assert_eq!(commit(store, "n1", 1, &flows, &[]), Outcome::AlreadyCommitted);
    assert_eq!(bytes(store), bytes_of(1..=1));
}

#[test]
fn a_double_is_found_by_the_audit() {
    let Some(engine) = engine("the audit") else { return };
    let opened = clickhouse(&engine, Options::default());
    let flows = content(1);
    assert_eq!(commit(&opened.store, "n1", 1, &flows, &[]), Outcome::Committed);
    let double = "INSERT INTO flow_10s SETTINGS insert_deduplicate = 0 SELECT * FROM flow_10s";
    opened.database.run(double).unwrap();
    let found = opened.store.audit(NOON..NOON + 4 * HOUR).unwrap();
    assert_eq!(found, [BatchId { epoch: EPOCH, sequence: 1 }]);
}

/// A batch over more days than the engine likes in one insert must not stick for ever.
#[test]
fn more_than_a_hundred_days_are_one_batch() {
    let Some(engine) = engine("many partitions") else { return };
    let retention =
        Retention { ten_seconds: 400 * 86_400, minute: 400 * 86_400, hour: 400 * 86_400 };
    let database = engine.name();
    let options = ClickHouseOptions { retention, ..clickhouse_options(&database) };
    let store = ClickHouseStore::open(options.clone()).unwrap();
    let flows: Vec<Spelled> =
        (0..110).map(|day| Spelled::new(NOON - day * 86_400, "10.0.0.1", "10.0.0.2", 1)).collect();
    let flows = folded(&flows);
    assert_eq!(commit(&store, "n1", 1, &flows, &[]), Outcome::Committed);
    let again = ClickHouseStore::open(options).unwrap();
    assert_eq!(commit(&again, "n1", 1, &flows, &[]), Outcome::AlreadyCommitted);
    let table = again.query(&crate::support::query(0..u64::MAX, "")).unwrap();
    assert_eq!(crate::support::text(&table), ["110"]);
}

/// A failed commit asks a bounded number of times and leaves the next try to its caller.
#[test]
fn refusals_are_told_and_not_stormed() {
    let Some(engine) = stand_in("refusals") else { return };
    let database = engine.name();
    let faults = Faults::before(&engine).unwrap();
    let store = through(&faults, &database);
    let refusals: [(u16, u32, &str, &str); 7] = [
        (500, 201, "Quota for user `default` for 60s has been exceeded", "quota"),
        (500, 243, "Cannot reserve 1.00 MiB, not enough space", "disk"),
        (500, 241, "Memory limit (total) exceeded", "memory"),
        (500, 252, "Too many parts (3000)", "parts"),
        (500, 242, "Table is in readonly mode", "read-only"),
        (500, 202, "Too many simultaneous queries", "queries"),
        (500, 999, "Session expired", "Keeper"),
    ];
    for (number, (status, code, text, advice)) in (1..).zip(refusals) {
        let flows = content(number);
        let before = faults.seen(INSERT);
        faults.add(INSERT, Fault::Answer { status, code, text: text.to_owned() }, 1);
        let error = store.commit(&[batch("n1", number, &flows, &[])]).unwrap_err();
        assert_eq!(super::code(&error), Some(code), "{error}");
        assert!(error.to_string().contains(advice), "{error}");
        assert_eq!(faults.seen(INSERT) - before, 1, "{code} was tried again");
        assert_eq!(commit(&store, "n1", number, &flows, &[]), Outcome::Committed);
    }
    assert_eq!(bytes(&store), bytes_of(1..=7));
}

#[test]
fn a_slow_engine_is_given_up_in_time_and_counts_once() {
    let Some(engine) = stand_in("a slow engine") else { return };
    let database = engine.name();
    drop(open(&database));
    let faults = Faults::before(&engine).unwrap();
    let options = ClickHouseOptions {
        timeout: Duration::from_secs(1),
        ..options_through(&faults, &database)
    };
    let store = ClickHouseStore::open(options).unwrap();
    faults.add(INSERT, Fault::Hold, 1);
    let flows = content(1);
    let error = store.commit(&[batch("n1", 1, &flows, &[])]).unwrap_err();
    assert!(matches!(error, StoreError::ClickHouseSlow { .. }), "{error}");
    faults.clear();
    assert_eq!(commit(&store, "n1", 1, &flows, &[]), Outcome::AlreadyCommitted);
    assert_eq!(bytes(&store), bytes_of([1]));
}

#[test]
fn an_engine_that_is_away_takes_nothing_and_goes_on_where_it_was() {
    let Some(engine) = stand_in("an engine that is away") else { return };
    let database = engine.name();
    let faults = Faults::before(&engine).unwrap();
    let store = through(&faults, &database);
    let is_away = AtomicBool::new(false);
    for number in 1..=6 {
        if number == 3 {
            faults.go_away();
            is_away.store(true, Ordering::Relaxed);
        }
        let flows = content(number);
        let committed = store.commit(&[batch("n1", number, &flows, &[])]);
        if is_away.swap(false, Ordering::Relaxed) {
            let error = committed.unwrap_err();
            assert!(matches!(error, StoreError::ClickHouseUnreachable { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(faults.url()) && text.contains("wait in the agents"), "{text}");
            faults.clear();
            assert_eq!(commit(&store, "n1", number, &flows, &[]), Outcome::Committed);
        } else {
            assert_eq!(committed.unwrap(), [Outcome::Committed]);
        }
    }
    assert_eq!(bytes(&store), bytes_of(1..=6));
}
