//! Nothing is lost or made in folding, at any level, in any order.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use proptest::prelude::*;

use super::spread::spread;
use super::*;
use crate::attribution::Attributed;
use crate::class::classify;
use crate::counters::{Counters, Totals};
use crate::endpoint::EndpointKind;
use crate::record::{FlowRecord, RecordFlags};
use crate::time::{BootTime, SECOND, WallTime};
use crate::view::View;

/// 2023-11-14T22:13:20Z, not on a minute.
const BOOT: u64 = 1_700_000_000;

/// A record over these seconds since the boot, with this many bytes sent.
fn record(from: u64, to: u64, bytes: u64) -> FlowRecord {
    FlowRecord {
        connection: 1,
        zone: 0,
        protocol: Protocol::TCP,
        source: Ipv4Addr::new(10, 0, 0, 1).into(),
        source_port: 40_000,
        destination: Ipv4Addr::new(10, 0, 0, 2).into(),
        destination_port: 80,
        service: None,
        translated_source: None,
        start: None,
        interval_from: BootTime(from * SECOND),
        interval_to: BootTime(to * SECOND),
        from: Totals::default(),
        to: Totals {
            sent: Counters { packets: bytes / 100, bytes },
            received: Counters::default(),
        },
        state: crate::ConnectionState::default(),
        flags: RecordFlags::default(),
    }
}

fn offset() -> i64 {
    i64::try_from(BOOT * SECOND).unwrap()
}

/// (window relative to the boot, bytes sent, opened, closed), merged and in order.
fn windows(record: &FlowRecord) -> Vec<(i64, u64, u64, u64)> {
    let mut windows: BTreeMap<i64, Measures> = BTreeMap::new();
    spread(record, offset(), |window, part| {
        *windows.entry(window.cast_signed() - BOOT.cast_signed()).or_default() += part;
    });
    let row = |(window, part): (&i64, &Measures)| {
        (*window, part.bytes_sent, part.connections_opened, part.connections_closed)
    };
    windows.iter().map(row).collect()
}

#[test]
fn a_short_record_is_split_at_ten_seconds() {
    assert_eq!(windows(&record(1, 6, 100)), [(0, 100, 0, 0)]);
    assert_eq!(windows(&record(8, 13, 100)), [(0, 40, 0, 0), (10, 60, 0, 0)]);
    // Half-open: the end belongs to the window before it.
    assert_eq!(windows(&record(5, 10, 100)), [(0, 100, 0, 0)]);
    // By floor, the remainder to the last.
    assert_eq!(windows(&record(5, 20, 100)), [(0, 33, 0, 0), (10, 67, 0, 0)]);
    assert_eq!(windows(&record(9, 21, 2)), [(10, 1, 0, 0), (20, 1, 0, 0)]);
    assert_eq!(windows(&record(5, 5, 100)), [(0, 100, 0, 0)]);
    assert_eq!(windows(&record(10, 10, 100)), [(10, 100, 0, 0)]);
    assert_eq!(windows(&record(1, 6, 0)), []);
}

#[test]
fn a_long_record_is_split_at_minutes_then_at_hours() {
    // The boot is 20 s into a minute and 13 min 20 s into an hour.
    assert_eq!(windows(&record(0, 60, 60)).len(), 6);
    assert_eq!(windows(&record(0, 100, 100)), [(30, 40, 0, 0), (90, 60, 0, 0)]);
    assert_eq!(windows(&record(10, 75, 65)), [(30, 30, 0, 0), (70, 35, 0, 0)]);
    let hours = windows(&record(0, 7_200, 7_200));
    assert_eq!(hours, [(2_790, 2_800, 0, 0), (6_390, 3_600, 0, 0), (7_190, 800, 0, 0)]);
}

#[test]
fn a_record_longer_than_any_is_bounded() {
    let mut record = record(0, 1, 1_000);
    record.interval_to = BootTime(u64::MAX);
    let mut parts = 0;
    let mut bytes = 0;
    spread(&record, i64::MAX, |_, part| {
        parts += 1;
        bytes += part.bytes_sent;
    });
    assert!((168..=169).contains(&parts), "{parts}");
    assert_eq!(bytes, 1_000);
}

#[test]
fn events_stand_where_they_happened() {
    let both = RecordFlags::OPENED.with(RecordFlags::CLOSED);
    let mut ended = FlowRecord { flags: both, ..record(3, 35, 32) };
    assert_eq!(windows(&ended), [(0, 7, 1, 0), (10, 10, 0, 0), (20, 10, 0, 0), (30, 5, 0, 1)]);
    ended.start = Some(WallTime((BOOT + 22) * SECOND));
    assert_eq!(windows(&ended)[2], (20, 10, 1, 0));
    // A start outside the interval is not believed.
    ended.start = Some(WallTime((BOOT - 50) * SECOND));
    assert_eq!(windows(&ended)[0], (0, 7, 1, 0));
    // Even where the counters are spread by minutes, the opening is exact.
    let long = FlowRecord { flags: both, ..record(3, 103, 100) };
    assert_eq!(windows(&long), [(0, 0, 1, 0), (30, 37, 0, 0), (90, 60, 0, 0), (100, 3, 0, 1)]);
}

#[test]
fn connections_without_counters_are_counted_once() {
    let uncounted = |flags: RecordFlags| {
        let flags = flags.with(RecordFlags::UNCOUNTED);
        let mut sum = Measures::default();
        spread(&FlowRecord { flags, ..record(0, 5, 0) }, 0, |_, part| sum += part);
        sum.connections_uncounted
    };
    assert_eq!(uncounted(RecordFlags::OPENED), 1);
    assert_eq!(uncounted(RecordFlags::CLOSED), 0);
}

fn external(address: IpAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint::bare(EndpointKind::External, address))
}

fn fold_all(limit: usize, records: &[(FlowRecord, Attributed)]) -> Folded {
    let mut folder = Folder::with_external_limit(limit);
    for (record, ends) in records {
        folder.add(record, offset(), ends);
    }
    folder.finish()
}

fn sum(flows: &[Flow]) -> Measures {
    let mut sum = Measures::default();
    for flow in flows {
        sum += flow.measures;
    }
    sum
}

#[test]
fn the_largest_externals_stay_exact_and_the_rest_becomes_networks() {
    let host = Arc::new(Endpoint::bare(EndpointKind::Host, Ipv4Addr::new(10, 0, 0, 1).into()));
    let pair = |address: &str, bytes| {
        let destination = external(address.parse().unwrap());
        let class = Class::Internet;
        (
            record(0, 5, bytes),
            Attributed {
                source: Arc::clone(&host),
                destination,
                class,
                service: None,
                view: View::ONLY,
            },
        )
    };
    let records = [
        pair("1.1.1.1", 500),
        pair("2001:db8:1:2::3", 400),
        pair("8.8.4.4", 30),
        pair("8.8.4.7", 25),
        pair("2001:db8:9:2::3", 50),
        pair("2001:db8:9:4::3", 1),
        pair("9.9.9.9", 2),
        pair("2620:fe::9", 1),
    ];
    let folded = fold_all(2, &records);
    let named: BTreeMap<String, u64> = folded.levels[0]
        .iter()
        .map(|flow| {
            let address = folded.endpoints[flow.key.destination as usize].address;
            (address.to_string(), flow.measures.bytes_sent)
        })
        .collect();
    let expected = [
        ("0.0.0.0", 2),
        ("1.1.1.1", 500),
        ("2001:db8:1:2::3", 400),
        ("2001:db8:9::", 51),
        ("8.8.4.0", 55),
        ("::", 1),
    ];
    assert_eq!(named, expected.map(|(name, bytes)| (name.to_owned(), bytes)).into());
    assert_eq!(folded.folded_keys, 6);
    // Only what a key points to is handed on.
    assert_eq!(folded.endpoints.len(), 1 + expected.len());
    assert_eq!(fold_all(8, &records).folded_keys, 0);
}

#[test]
fn equal_endpoints_are_one_and_a_folder_starts_anew() {
    let ends = |last| Attributed {
        source: external(Ipv4Addr::new(1, 1, 1, last).into()),
        destination: external(Ipv4Addr::new(9, 9, 9, 9).into()),
        class: Class::Internet,
        service: None,
        view: View::ONLY,
    };
    let mut folder = Folder::default();
    for _ in 0..3 {
        folder.add(&record(0, 5, 7), offset(), &ends(1));
    }
    let first = folder.finish();
    assert_eq!((first.endpoints.len(), first.levels[0].len()), (2, 1));
    assert_eq!(first.levels[0][0].measures.bytes_sent, 21);
    folder.add(&record(0, 5, 7), offset(), &ends(2));
    let second = folder.finish();
    assert_eq!(second.endpoints[0], ends(2).source);
    assert_eq!(sum(&second.levels[2]).bytes_sent, 7);
    assert_eq!(folder.finish().levels, <[Vec<Flow>; 3]>::default());
}

fn any_counters() -> impl Strategy<Value = Counters> {
    prop_oneof![
        Just(Counters::default()),
        (0..1_u64 << 40, 0..1_u64 << 50).prop_map(|(packets, bytes)| Counters { packets, bytes }),
        (0..3_u64, 0..300_u64).prop_map(|(packets, bytes)| Counters { packets, bytes }),
    ]
}

fn any_end() -> impl Strategy<Value = Arc<Endpoint>> {
    prop_oneof![
        (0_u8..3).prop_map(|last| {
            let address = Ipv4Addr::new(10, 0, 0, last).into();
            Arc::new(Endpoint::bare(EndpointKind::Host, address))
        }),
        (0_u8..3, 0_u8..4).prop_map(|(net, last)| external(Ipv4Addr::new(8, 8, net, last).into())),
        (0_u16..3, 0_u16..4).prop_map(|(net, last)| external(
            Ipv6Addr::new(0x2600, 0, net, 0, 0, 0, 0, last).into()
        )),
    ]
}

fn any_record() -> impl Strategy<Value = (FlowRecord, Attributed)> {
    let duration = prop_oneof![Just(0), 0..70_000_u64, 0..4_000_000_u64, 0..20_000_000_u64];
    let times = (0..10_000_000_u64, duration, proptest::option::of(0..40_000_000_u64));
    let counters = (any_counters(), any_counters(), any_counters(), any_counters());
    (times, counters, 0..1_u16 << 10, any_end(), any_end(), 0..3_u16, any::<bool>()).prop_map(
        |((from, duration, start), counters, flags, source, destination, port, dialled)| {
            // One that is only present has grown by nothing and seen no event.
            let flags = flags & !RecordFlags::PRESENT.0;
            let before = Totals { sent: counters.0, received: counters.1 };
            let mut after = before;
            after += Totals { sent: counters.2, received: counters.3 };
            let record = FlowRecord {
                destination_port: port,
                service: dialled.then_some((Ipv4Addr::new(10, 96, 0, 1).into(), 443)),
                start: start.map(|millis| WallTime(BOOT * SECOND + millis * 1_000_000)),
                interval_from: BootTime(from * 1_000_000),
                interval_to: BootTime((from + duration) * 1_000_000),
                from: before,
                to: after,
                flags: RecordFlags(flags),
                ..record(0, 0, 0)
            };
            let class = classify(&source, &destination);
            (record, Attributed { source, destination, class, service: None, view: View::ONLY })
        },
    )
}

/// What the records say in all, without any window.
fn truth(records: &[(FlowRecord, Attributed)]) -> Measures {
    let mut sum = Measures::default();
    for (record, _) in records {
        let has = |flag| u64::from(record.flags.has(flag));
        sum += Measures {
            bytes_sent: record.to.sent.bytes - record.from.sent.bytes,
            bytes_received: record.to.received.bytes - record.from.received.bytes,
            packets_sent: record.to.sent.packets - record.from.sent.packets,
            packets_received: record.to.received.packets - record.from.received.packets,
            connections_opened: has(RecordFlags::OPENED),
            connections_closed: has(RecordFlags::CLOSED),
            connections_failed: has(RecordFlags::FAILED),
            connections_unreplied: has(RecordFlags::UNREPLIED),
            connections_uncounted: has(RecordFlags::OPENED) & has(RecordFlags::UNCOUNTED),
            transit_bytes: 0,
        };
    }
    sum
}

/// A level's rows by everything but the endpoints' numbers.
fn named(folded: &Folded, level: usize) -> Vec<(String, Measures)> {
    let mut rows: Vec<(String, Measures)> = folded.levels[level]
        .iter()
        .map(|Flow { key, measures }| {
            let ends = [key.source, key.destination].map(|end| &folded.endpoints[end as usize]);
            let key = FlowKey { source: 0, destination: 0, ..*key };
            (format!("{key:?} {ends:?}"), *measures)
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

fn any_batch() -> impl Strategy<Value = Vec<(FlowRecord, Attributed)>> {
    proptest::collection::vec(any_record(), 0..24)
}

proptest! {
    #[test]
    fn every_level_holds_the_batch_exactly_once(records in any_batch(), limit in 0_usize..12) {
        let folded = fold_all(limit, &records);
        for level in &folded.levels {
            prop_assert_eq!(sum(level), truth(&records));
            prop_assert!(level.is_sorted_by(|a, b| a.key < b.key), "sorted, each key once");
            prop_assert!(level.iter().all(|flow| !flow.measures.is_zero()));
        }
    }

    #[test]
    fn every_row_is_the_sum_of_its_finer_rows(records in any_batch()) {
        let folded = fold_all(12, &records);
        for (index, level) in Level::ALL.into_iter().enumerate().skip(1) {
            let mut sums: BTreeMap<FlowKey, Measures> = BTreeMap::new();
            for Flow { key, measures } in &folded.levels[index - 1] {
                let window = key.window - key.window % level.seconds();
                *sums.entry(FlowKey { window, ..*key }).or_default() += *measures;
            }
            let rows: Vec<(FlowKey, Measures)> = sums.into_iter().collect();
            let level = &folded.levels[index];
            prop_assert_eq!(level.iter().map(|f| (f.key, f.measures)).collect::<Vec<_>>(), rows);
        }
    }

    #[test]
    fn the_order_of_the_records_does_not_matter(
        (records, shuffled) in any_batch()
            .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle())),
        limit in 0_usize..12,
    ) {
        let (one, other) = (fold_all(limit, &records), fold_all(limit, &shuffled));
        prop_assert_eq!(one.folded_keys, other.folded_keys);
        for level in 0..3 {
            prop_assert_eq!(named(&one, level), named(&other, level));
        }
    }

    #[test]
    fn no_part_lies_outside_its_record((record, _) in any_record()) {
        let first = (record.interval_from.0 / SECOND + BOOT) / 10 * 10;
        let last = (record.interval_to.0 / SECOND + BOOT) / 10 * 10;
        spread(&record, offset(), |window, _| {
            assert!((first..=last).contains(&window), "{window} not in {first}..={last}");
        });
    }

    #[test]
    fn the_bound_holds(records in any_batch(), limit in 0_usize..4) {
        let folded = fold_all(limit, &records);
        let externals = folded.endpoints.iter().filter(|e| e.kind == EndpointKind::External);
        prop_assert!(externals.count() <= 2 * limit + 2);
    }
}

/// What a view bills: everything, nothing but the second leg, or nothing.
#[test]
fn only_the_view_that_counts_is_summed() {
    let fold = |view| {
        let mut folder = Folder::default();
        let (source, destination) = (external([1, 1, 1, 1].into()), external([2, 2, 2, 2].into()));
        let service = Some("shop/web".into());
        let ends = Attributed { source, destination, class: Class::Internet, service, view };
        folder.add(&record(0, 5, 700), offset(), &ends);
        folder.finish()
    };
    let sums = |view| {
        let folded = fold(view);
        let sums: Vec<_> = folded.levels[2].iter().map(|flow| flow.measures).collect();
        sums.first().map(|sums| (sums.bytes_sent, sums.packets_sent, sums.transit_bytes))
    };
    assert_eq!(sums(View::ONLY), Some((700, 7, 0)));
    assert_eq!(sums(View::Counts { transit: true }), Some((700, 7, 700)));
    assert_eq!(sums(View::Transit), Some((0, 0, 700)));
    for view in [View::Second, View::Foreign, View::Undecided] {
        assert_eq!(sums(view), None);
    }
    let folded = fold(View::ONLY);
    assert_eq!(
        &*folded.service_names[folded.levels[0][0].key.service_name.unwrap() as usize],
        "shop/web"
    );
}
