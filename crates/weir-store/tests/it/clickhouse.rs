//! What holds for ClickHouse alone: the engine's own rules, and what breaks on the way to it.

mod answers;
mod commits;
mod engine;
mod races;
mod setup;

use weir_flow::Folded;
use weir_lab::clickhouse::{Database, Engine, Faults};
use weir_store::{ClickHouseOptions, ClickHouseStore, FlowQuery, FlowStore, Measure, StoreError};

use crate::support::{NOON, Spelled, clickhouse_options, folded, query};

const HOUR: u64 = 3_600;

/// Flows of a batch whose number says how many bytes they have: 10 in as many windows.
fn content(sequence: u64) -> Folded {
    let flows: Vec<Spelled> = (0..10)
        .map(|i| {
            let source = format!("10.0.{}.{i}", sequence % 5);
            Spelled::new(NOON + 10 * (sequence % 300 + i), &source, "192.0.2.1", sequence)
        })
        .collect();
    folded(&flows)
}

/// The bytes of these batches.
fn bytes_of(sequences: impl IntoIterator<Item = u64>) -> u64 {
    sequences.into_iter().map(|sequence| 10 * sequence).sum()
}

/// The same bytes at every level, or a panic: what every fault must leave behind.
fn bytes(store: &dyn FlowStore) -> u64 {
    let sums = [Some(10), Some(60), Some(HOUR)].map(|bucket_seconds| {
        let query = FlowQuery {
            bucket_seconds,
            measures: vec![Measure::Bytes],
            ..query(NOON..NOON + 4 * HOUR, "")
        };
        let table = store.query(&query).unwrap();
        table.rows.iter().filter_map(|row| row.last()?.sum()).sum::<u64>()
    });
    assert!(sums.iter().all(|sum| *sum == sums[0]), "the levels differ: {sums:?}");
    sums[0]
}

/// A store that reaches its database through faults.
fn through(faults: &Faults, database: &Database) -> ClickHouseStore {
    ClickHouseStore::open(options_through(faults, database)).unwrap()
}

fn options_through(faults: &Faults, database: &Database) -> ClickHouseOptions {
    ClickHouseOptions { url: faults.url().to_owned(), ..clickhouse_options(database) }
}

fn open(database: &Database) -> ClickHouseStore {
    ClickHouseStore::open(clickhouse_options(database)).unwrap()
}

fn code(error: &StoreError) -> Option<u32> {
    match error {
        StoreError::ClickHouseRefused { code, .. } => Some(*code),
        _ => None,
    }
}

/// The shared engine, where it is ours to put faults before.
fn stand_in(what: &str) -> Option<Engine> {
    crate::support::engine(what).filter(|engine| !engine.is_server())
}
