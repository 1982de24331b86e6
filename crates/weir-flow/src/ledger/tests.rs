use std::net::Ipv4Addr;

use super::*;
use crate::counters::Counters;
use crate::tuple::Protocol;
use crate::tuple::Tuple;

fn sample(id: u32, bytes: u64) -> Sample {
    let original = Tuple {
        protocol: Protocol::TCP,
        source: Ipv4Addr::from(0x0a00_0000 + id).into(),
        destination: Ipv4Addr::new(10, 200, 0, 1).into(),
        source_port: 40_000,
        destination_port: 443,
    };
    let reply = Tuple {
        source: original.destination,
        destination: original.source,
        source_port: original.destination_port,
        destination_port: original.source_port,
        ..original
    };
    let sent = Counters { packets: 1, bytes };
    let totals = Some(Totals { sent, received: Counters::default() });
    Sample { id, original, reply, totals, ..Sample::default() }
}

/// Dumps these entries, in this order, and gives the bytes billed.
fn tick(ledger: &mut Ledger, entries: impl Iterator<Item = Sample>) -> u64 {
    let mut records = Vec::<FlowRecord>::new();
    let now = BootTime(ledger.clock.now.0 + 1_000_000_000);
    ledger.begin_dump(Clock { now, wall_offset_nanos: 0 });
    for entry in entries {
        ledger.observe(&entry, &mut records);
    }
    ledger.end_dump(true, &mut records);
    let judgement = ledger.judge(&mut records);
    assert!(judgement.forgotten.is_empty());
    records.iter().map(|record| record.delta().bytes()).sum()
}

/// More than the ledger holds back at once, so that it settles in the middle of a dump, too.
const ENTRIES: u32 = 10_000;

#[test]
fn what_was_seen_once_lines_up_in_the_next_dump() {
    let mut ledger = Ledger::new(Epoch(1), false);
    assert_eq!(tick(&mut ledger, (0..ENTRIES).map(|id| sample(id, 10))), 10 * u64::from(ENTRIES));
    assert_eq!(ledger.counts().misses, u64::from(ENTRIES));
    assert_eq!(tick(&mut ledger, (0..ENTRIES).map(|id| sample(id, 11))), u64::from(ENTRIES));
    assert_eq!(ledger.counts().misses, u64::from(ENTRIES), "a table in order has no misses");
}

#[test]
fn newcomers_take_their_place_and_a_new_order_is_learnt_at_once() {
    let mut ledger = Ledger::new(Epoch(1), false);
    let even = || (0..ENTRIES).map(|id| id * 2);
    tick(&mut ledger, even().map(|id| sample(id, 10)));
    let before = ledger.counts().misses;
    // A newcomer behind every hundredth.
    let all = || even().flat_map(|id| [Some(id), (id % 200 == 0).then_some(id + 1)]).flatten();
    let newcomers = u64::from(ENTRIES / 100);
    assert_eq!(tick(&mut ledger, all().map(|id| sample(id, 10))), 10 * newcomers);
    assert_eq!(ledger.counts().misses - before, newcomers);
    assert_eq!(tick(&mut ledger, all().map(|id| sample(id, 10))), 0);
    assert_eq!(ledger.counts().misses - before, newcomers, "each is a miss once");
    // A resized hash table is dumped in another order altogether.
    let mut turned: Vec<u32> = all().collect();
    turned.reverse();
    tick(&mut ledger, turned.iter().map(|id| sample(*id, 10)));
    let resized = ledger.counts().misses;
    let billed = tick(&mut ledger, turned.iter().map(|id| sample(*id, 12)));
    assert_eq!((billed, ledger.counts().misses), (2 * (u64::from(ENTRIES) + newcomers), resized));
    assert_eq!(ledger.live(), turned.len());
}

#[test]
fn the_place_of_an_entry_that_never_was_stays_empty() {
    let mut ledger = Ledger::new(Epoch(1), false);
    let mut records = Vec::<FlowRecord>::new();
    let clock = Clock { now: BootTime(1), wall_offset_nanos: 0 };
    ledger.begin_dump(clock);
    // Shown twice, and its end is read before the dump is over.
    ledger.observe(&sample(1, 10), &mut records);
    ledger.observe(&sample(2, 10), &mut records);
    ledger.observe(&sample(1, 15), &mut records);
    ledger.destroyed(&sample(2, 20), clock, &mut records);
    ledger.end_dump(true, &mut records);
    ledger.judge(&mut records);
    assert_eq!(records.iter().map(|record| record.delta().bytes()).sum::<u64>(), 35);
    assert_eq!((ledger.live(), ledger.slots().count()), (1, 1));
    assert_eq!(tick(&mut ledger, std::iter::once(sample(1, 16))), 1);
    assert_eq!(ledger.slots().count(), 1);
}
