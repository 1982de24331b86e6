//! Questions when the engine, or something in its place, does not answer them.

use std::time::Duration;

use weir_lab::clickhouse::{Fault, Faults};
use weir_store::{
    ClickHouseOptions, ClickHouseStore, FlowQuery, FlowStore, Limits, Options, StoreError,
};

use super::{HOUR, bytes_of, content, options_through, stand_in, through};
use crate::support::{NOON, clickhouse, commit, engine, query, text};

const SELECT: &str = "connections_opened";

/// A question whose statement can be told apart by a column it alone reads.
fn question() -> FlowQuery {
    FlowQuery {
        measures: vec![weir_store::Measure::Bytes, weir_store::Measure::ConnectionsOpened],
        ..query(NOON..NOON + 4 * HOUR, "")
    }
}

#[test]
fn an_answer_that_breaks_off_is_an_error_and_never_a_part() {
    let Some(engine) = stand_in("broken answers") else { return };
    let database = engine.name();
    let faults = Faults::before(&engine).unwrap();
    let store = through(&faults, &database);
    commit(&store, "n1", 1, &content(1), &[]);
    for fault in [Fault::CutBefore, Fault::CutAfter, Fault::CutAnswer] {
        faults.add(SELECT, fault.clone(), 1);
        let error = store.query(&question()).unwrap_err();
        assert!(matches!(error, StoreError::ClickHouseUnreachable { .. }), "{fault:?}: {error}");
    }
    let table = store.query(&question()).unwrap();
    assert_eq!(text(&table), [format!("{} 0", bytes_of([1]))]);
}

#[test]
fn what_is_no_clickhouse_is_an_error() {
    let Some(engine) = stand_in("another program's answers") else { return };
    let database = engine.name();
    let faults = Faults::before(&engine).unwrap();
    let store = through(&faults, &database);
    let pages: [(u16, &[u8]); 5] = [
        (200, b"<html><body>It works!</body></html>"),
        (200, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        (200, b"\x01"),
        (502, b"<html>Bad \x1b[31mGateway</html>"),
        (404, b""),
    ];
    for (status, body) in pages {
        let page = Fault::Page { status, body: body.to_vec() };
        for operation in 0..5 {
            faults.add("", page.clone(), u64::MAX);
            let error = match operation {
                0 => store.query(&question()).unwrap_err(),
                1 => store.values(crate::support::fields("source.unit")[0], "", 5).unwrap_err(),
                2 => store.committed().unwrap_err(),
                3 => store.counters(0..NOON).unwrap_err(),
                _ => store.health().unwrap_err(),
            };
            faults.clear();
            let text = error.to_string();
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }
    // Nothing of it is remembered.
    let flows = content(1);
    commit(&store, "n1", 1, &flows, &[]);
    assert_eq!(text(&store.query(&question()).unwrap()), [format!("{} 0", bytes_of([1]))]);
}

#[test]
fn a_question_that_takes_too_long_or_too_much_is_given_up() {
    let Some(engine) = stand_in("slow questions") else { return };
    let database = engine.name();
    let faults = Faults::before(&engine).unwrap();
    let options = ClickHouseOptions {
        limits: Limits { query_seconds: 1, ..Limits::default() },
        timeout: Duration::from_secs(3),
        ..options_through(&faults, &database)
    };
    let store = ClickHouseStore::open(options).unwrap();
    faults.add(SELECT, Fault::Hold, 1);
    let error = store.query(&question()).unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { seconds: 1 }), "{error}");
    faults.clear();
    // The engine's own word for it.
    let text = "Timeout exceeded: elapsed 1.01 seconds".to_owned();
    faults.add(SELECT, Fault::Answer { status: 408, code: 159, text }, 1);
    let error = store.query(&question()).unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { seconds: 1 }), "{error}");
    store.query(&question()).unwrap();

    let text = "Query memory limit exceeded: would use 10.00 GiB".to_owned();
    faults.add(SELECT, Fault::Answer { status: 500, code: 241, text }, 1);
    let error = store.query(&question()).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("shorter range"), "{error}");
}

#[test]
fn too_many_groups_are_the_same_error_as_everywhere() {
    let Some(engine) = engine("too many groups") else { return };
    let limits = Limits { query_groups: 3, ..Limits::default() };
    let opened = clickhouse(&engine, Options { limits, ..Options::default() });
    commit(&opened.store, "n1", 1, &content(1), &[]);
    let error = opened.store.query(&query(NOON..NOON + HOUR, "source.address")).unwrap_err();
    assert!(matches!(error, StoreError::TooManyGroups { limit: 3 }), "{error}");
}
