//! How a store is, as it is answered.

use std::ops::Range;

use weir_store::{CommittedEpoch, CounterSum, FlowStore, Health, LevelHealth, StoredGap};

use crate::answer::{Gap, NodeCounter, StoreLevel, StoreStatus};
use crate::moment::rfc3339;

/// How the store is, and what is missing and was counted in `range` (seconds since 1970).
pub fn store_status(
    store: &dyn FlowStore,
    range: Range<u64>,
) -> weir_store::Result<(StoreStatus, Vec<Gap>, Vec<NodeCounter>)> {
    let gaps = store.gaps(range.clone())?.into_iter().map(gap).collect();
    let counters = store.counters(range)?.into_iter().map(counter).collect();
    let batches = store.committed()?.iter().map(batches).sum();
    Ok((status(store.health()?, batches), gaps, counters))
}

fn batches(epoch: &CommittedEpoch) -> u64 {
    epoch.ranges.spans().iter().map(|(first, last)| last - first + 1).sum()
}

fn status(health: Health, batches: u64) -> StoreStatus {
    let Health {
        engine,
        schema_version,
        levels,
        file_bytes,
        reusable_bytes,
        free_disk_bytes,
        endpoints,
        edges,
    } = health;
    StoreStatus {
        engine,
        schema_version,
        batches,
        file_bytes,
        reusable_bytes,
        free_disk_bytes,
        endpoints,
        edges,
        levels: levels.iter().map(level).collect(),
    }
}

fn level(health: &LevelHealth) -> StoreLevel {
    let LevelHealth { level, retention_seconds, rows, oldest, newest } = *health;
    StoreLevel {
        window_seconds: level.seconds(),
        retention_seconds,
        rows,
        oldest: oldest.map(rfc3339),
        newest: newest.map(rfc3339),
    }
}

fn gap(stored: StoredGap) -> Gap {
    let StoredGap { node, batch: _, gap } = stored;
    Gap {
        node,
        reason: gap.reason.name().to_owned(),
        from: rfc3339(gap.from_seconds),
        to: rfc3339(gap.to_seconds),
        connections: gap.connections,
        records: gap.records,
        bytes: gap.bytes,
        bytes_bound: gap.bytes_bound,
    }
}

fn counter(sum: CounterSum) -> NodeCounter {
    let CounterSum { node, name, value } = sum;
    NodeCounter { node, name, value }
}
