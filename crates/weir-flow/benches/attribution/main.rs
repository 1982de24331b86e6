//! What it costs to say who talked to whom: attribute, judge the view, classify, fold.
//!
//! One line a figure: `NAME VALUE UNIT target OP X ok|short`. The cluster is made up: 30,000 pods,
//! 5,000 services, 45,000 published prefixes; records come from twenty of its nodes. The floor is
//! the same records folded, their ends known beforehand.

mod allocator;
mod report;
mod world;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hashbrown::HashMap;
use weir_flow::attribution::{Attributed, attribute};
use weir_flow::class::Class;
use weir_flow::fold::Folder;
use weir_flow::ranges::{Prefix, Range, Ranges};
use weir_flow::time::SECOND;
use weir_flow::{
    BootTime, ConnectionState, Counters, Endpoint, EndpointKind, FlowRecord, Protocol, RecordFlags,
    Totals, View,
};

use report::{Shortest, Target, floor, precise, report};
use world::{Dice, NODES, PODS_PER_NODE, SERVICES, at, node_name, pod_address, service_address};

const OBSERVERS: u32 = 20;
const RECORDS_PER_BATCH: u32 = 10_000;
/// Pods that one node's pods talk to.
const PEERS: u32 = 2_000;
const PREFIXES: u32 = 45_000;
const RECORDS: usize = (OBSERVERS * RECORDS_PER_BATCH) as usize;
/// Records timed at once: so few that nobody else gets the processor meanwhile.
const PART: usize = 500;
const ROUNDS: usize = 15;

fn main() {
    // `cargo test --all-targets` runs this too, without the flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut book = world::without_pods();
    world::add_pods(&mut book);
    book.set_ranges(Arc::new(ranges()));
    floor("book", precise(allocator::heap().held) / 1e6, "MB");
    let batches: Vec<(String, Vec<FlowRecord>)> = (0..OBSERVERS).map(batch).collect();

    let mut folder = Folder::default();
    let (mut shortest, mut allocations) = (parts(), u64::MAX);
    for _ in 0..ROUNDS {
        let (mut part, mut counted, mut allocated) = (0, 0, 0);
        for (node, batch) in &batches {
            let observer = book.as_seen_by(node, 0);
            for records in batch.chunks(PART) {
                let before = allocator::heap().allocations;
                counted += shortest.time(part, || {
                    records
                        .iter()
                        .filter(|record| {
                            let ends = attribute(record, 0, &observer);
                            folder.add(record, 0, &ends);
                            ends.view.counts()
                        })
                        .count()
                });
                allocated += allocator::heap().allocations - before;
                part += 1;
            }
            black_box(folder.finish());
        }
        assert_eq!(counted, RECORDS, "each record's source is its observer's");
        allocations = allocations.min(allocated);
    }
    let (taken, folded) = (shortest.seconds(), fold_alone(&batches));
    let records = precise(RECORDS as u64);
    floor("fold_alone", records / folded, "records/s");
    report("attribute_and_fold", records / taken, "records/s", &Target::AtLeast(1_000_000.0));
    report("attribute_and_fold_to_floor", taken / folded, "x", &Target::AtMost(5.0));
    // The names of a batch's services go away with the batch: their list grows anew.
    let allocations = precise(allocations) / f64::from(OBSERVERS);
    report("attribute_allocations", allocations, "in 10,000 records", &Target::AtMost(16.0));
}

fn parts() -> Shortest {
    Shortest::of(RECORDS / PART)
}

/// The same records with as many ends, but given.
fn fold_alone(batches: &[(String, Vec<FlowRecord>)]) -> f64 {
    let mut known: HashMap<IpAddr, Arc<Endpoint>> = HashMap::new();
    let mut end = |address| {
        let bare = || Arc::new(Endpoint::bare(EndpointKind::External, address));
        Arc::clone(known.entry(address).or_insert_with(bare))
    };
    let mut ends = |record: &FlowRecord| Attributed {
        source: end(record.source),
        destination: end(record.destination),
        class: Class::Internet,
        service: None,
        view: View::ONLY,
    };
    let batches: Vec<Vec<(&FlowRecord, Attributed)>> = batches
        .iter()
        .map(|(_, batch)| batch.iter().map(|record| (record, ends(record))).collect())
        .collect();
    let mut folder = Folder::default();
    let mut shortest = parts();
    for _ in 0..ROUNDS {
        let mut part = 0;
        for batch in &batches {
            for records in batch.chunks(PART) {
                shortest.time(part, || {
                    for (record, ends) in records {
                        folder.add(record, 0, ends);
                    }
                });
                part += 1;
            }
            black_box(folder.finish());
        }
    }
    shortest.seconds()
}

/// What one node's pods did in an interval: six in ten records are of services, two of pods
/// elsewhere, two of the outside.
fn batch(observer: u32) -> (String, Vec<FlowRecord>) {
    let node = observer * 7;
    let mut dice = Dice(u64::from(observer));
    let mut peer = |_| (dice.roll(NODES), dice.roll(PODS_PER_NODE));
    let peers: Vec<(u32, u32)> = (0..PEERS).map(&mut peer).collect();
    let mut record = |number: u32| {
        let source = pod_address(node, dice.roll(PODS_PER_NODE));
        let (elsewhere, pod) = peers[dice.roll(PEERS) as usize];
        let pod = pod_address(elsewhere, pod);
        let (destination, port, service) = match dice.roll(10) {
            0..6 => (pod, 8_080, Some((service_address(dice.roll(SERVICES)), 80))),
            6..8 => (pod, 5_432, None),
            _ => (outside(dice.roll(2_000)), 443, None),
        };
        let counters = |bytes| Counters { packets: 3, bytes };
        FlowRecord {
            connection: u64::from(number),
            zone: 0,
            protocol: Protocol::TCP,
            source,
            source_port: 40_000,
            destination,
            destination_port: port,
            service,
            translated_source: None,
            start: Some(at(100)),
            interval_from: BootTime(100 * SECOND),
            interval_to: BootTime(105 * SECOND),
            from: Totals::default(),
            to: Totals { sent: counters(200), received: counters(4_000) },
            state: ConnectionState::default(),
            flags: RecordFlags::OPENED,
        }
    };
    (node_name(node), (0..RECORDS_PER_BATCH).map(&mut record).collect())
}

/// Spread over the published ranges.
fn outside(number: u32) -> IpAddr {
    Ipv4Addr::from(0x1000_0000 + number * 90_001).into()
}

fn ranges() -> Ranges {
    let range = |number: u32| {
        let prefix = Prefix::new(Ipv4Addr::from(0x1000_0000 + number * 4_096).into(), 22);
        let range = Range {
            cloud: Some(["aws", "gcp", "azure"][number as usize % 3].into()),
            region: Some(format!("region-{}", number % 60).into()),
            service: Some(format!("service-{}", number % 100).into()),
            ..Range::default()
        };
        (prefix.expect("a prefix"), range)
    };
    let own: Vec<(Prefix, Range)> = (0..PREFIXES).map(range).collect();
    Ranges::new(&[], &own)
}
