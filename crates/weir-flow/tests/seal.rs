//! Sealing: parts of a record lie in their hours, and nothing is lost between them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::HashMap;

use proptest::prelude::*;
use weir_flow::batch::{Epoch, Gap};
use weir_flow::frame::{Batch, Header, Note};
use weir_flow::ledger::Clock;
use weir_flow::seal::{SealLimits, Sealed, Sealer};
use weir_flow::time::{HOUR, SECOND};
use weir_flow::{BootTime, Counters, FlowRecord, Protocol, RecordFlags, Totals};

/// The machine booted at twenty past an hour.
const OFFSET: u64 = 480_000 * HOUR + 20 * 60 * SECOND;

fn record(connection: u64, from: u64, to: u64, counters: [u64; 4], flags: u16) -> FlowRecord {
    let [base, packets, sent, received] = counters;
    let totals = |by: [u64; 3]| Totals {
        sent: Counters { packets: base + by[0], bytes: base + by[1] },
        received: Counters { packets: base + by[0], bytes: base + by[2] },
    };
    FlowRecord {
        connection,
        zone: 0,
        protocol: Protocol::TCP,
        source: "10.0.0.1".parse().unwrap(),
        source_port: 1,
        destination: "10.0.0.2".parse().unwrap(),
        destination_port: 80,
        service: None,
        translated_source: None,
        start: None,
        interval_from: BootTime(from),
        interval_to: BootTime(to),
        from: totals([0; 3]),
        to: totals([packets, sent, received]),
        state: weir_flow::ConnectionState::default(),
        flags: RecordFlags(flags),
    }
}

fn clock(at: u64) -> Clock {
    Clock { now: BootTime(at), wall_offset_nanos: OFFSET.cast_signed() }
}

/// Seals records in this order, read at `at`; every batch with its records.
fn seal(records: &[FlowRecord], at: u64, limits: SealLimits) -> Vec<(Header, Vec<FlowRecord>)> {
    let mut batches = Vec::new();
    let mut keep = |sealed: Sealed<'_>| {
        let batch = Batch::decode(sealed.frame).unwrap();
        assert_eq!(batch.header, sealed.header);
        batches.push((batch.header, batch.records().map(Result::unwrap).collect()));
    };
    let mut sealer = Sealer::new(Epoch(1), 2, 10, limits);
    sealer.set_clock(clock(at), &mut keep);
    for record in records {
        sealer.record(record, &mut keep);
    }
    sealer.seal(&mut keep);
    assert_eq!(sealer.next_sequence(), 10 + batches.len() as u64);
    batches
}

fn moment() -> impl Strategy<Value = u64> {
    // Within an hour, across a few, across more than two days; and exactly at an hour's end.
    let spread = prop_oneof![0..HOUR, 0..5 * HOUR, 0..90 * HOUR];
    prop_oneof![spread, (1..5_u64).prop_map(|hour| hour * HOUR - OFFSET % HOUR)]
}

fn records() -> impl Strategy<Value = Vec<FlowRecord>> {
    let counters = [0..1_000_u64, 0..10_000_u64, 0..u64::MAX / 4, 0..3_u64];
    let one = (moment(), moment(), counters, 0_u16..256);
    proptest::collection::vec(one, 1..12).prop_map(|all| {
        let all = all.into_iter().enumerate();
        let made = all.map(|(index, (a, b, counters, flags))| {
            record(index as u64, a.min(b), a.max(b), counters, flags)
        });
        made.collect()
    })
}

const ENDS: [RecordFlags; 3] = [RecordFlags::CLOSED, RecordFlags::FAILED, RecordFlags::UNREPLIED];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn parts_lie_in_their_hours_and_sum_up(records in records(), limit in 1..9_u32) {
        let limits = SealLimits { records: limit, bytes: 1 << 20 };
        let batches = seal(&records, 100 * HOUR, limits);
        let mut parts: HashMap<u64, Vec<FlowRecord>> = HashMap::new();
        for (index, (header, held)) in batches.iter().enumerate() {
            prop_assert_eq!(header.id.sequence, 10 + index as u64);
            prop_assert!(!held.is_empty() && held.len() <= limit as usize);
            for part in held {
                let from = part.interval_from.to_wall(header.wall_offset_nanos).0;
                let to = part.interval_to.to_wall(header.wall_offset_nanos).0;
                prop_assert!(from >= header.hour * HOUR, "begins {} before", header.hour * HOUR - from);
                prop_assert!(from <= to && to <= (header.hour + 1) * HOUR);
                parts.entry(part.connection).or_default().push(*part);
            }
        }
        for whole in &records {
            let parts = &parts[&whole.connection];
            prop_assert!(parts.len() <= 48);
            let (first, last) = (parts[0], parts[parts.len() - 1]);
            prop_assert_eq!((first.from, last.to), (whole.from, whole.to));
            prop_assert_eq!(last.interval_to, whole.interval_to);
            let began = whole.interval_from.0;
            prop_assert!(first.interval_from.0 == began || parts.len() == 48);
            for pair in parts.windows(2) {
                prop_assert_eq!(pair[0].to, pair[1].from);
                prop_assert_eq!(pair[0].interval_to, pair[1].interval_from);
            }
            for (index, part) in parts.iter().enumerate() {
                prop_assert!(part.to.since(part.from).is_some());
                let has = |flag| part.flags.has(flag);
                let of = |flag| whole.flags.has(flag);
                let opened = RecordFlags::OPENED;
                prop_assert_eq!(has(opened), of(opened) && index == 0);
                for end in ENDS {
                    prop_assert_eq!(has(end), of(end) && index + 1 == parts.len());
                }
                prop_assert_eq!(has(RecordFlags::SPLIT), parts.len() > 1);
            }
        }
    }
}

#[test]
fn a_cut_is_in_proportion_to_the_time() {
    // Half an hour on either side of nine tenths of nothing: 40 min before, 10 min after.
    let end_of_hour = HOUR - OFFSET % HOUR;
    let minute = 60 * SECOND;
    let from = end_of_hour - 40 * minute;
    let whole = record(1, from, end_of_hour + 10 * minute, [7, 5, 5_000, 3], 0);
    let batches = seal(&[whole], 3 * HOUR, SealLimits::default());
    let bytes: Vec<u64> = batches.iter().map(|(_, parts)| parts[0].delta().sent.bytes).collect();
    assert_eq!(bytes, [4_000, 1_000]);
    assert_eq!(batches[1].0.hour, batches[0].0.hour + 1);
}

#[test]
fn a_batch_ends_at_its_limit_of_bytes_and_notes_count() {
    let limits = SealLimits { records: 1_000_000, bytes: 4_096 };
    let mut sizes = Vec::new();
    let mut notes = 0;
    let mut keep = |sealed: Sealed<'_>| {
        sizes.push(sealed.frame.len());
        notes += Batch::decode(sealed.frame).unwrap().notes().count();
    };
    let mut sealer = Sealer::new(Epoch(1), 2, 1, limits);
    sealer.set_clock(clock(HOUR), &mut keep);
    for connection in 0..2_000 {
        sealer.note(&Note::Forget(connection), &mut keep);
    }
    sealer.note(&Note::Gap(Gap::default()), &mut keep);
    sealer.seal(&mut keep);
    sealer.seal(&mut keep);
    assert_eq!(notes, 2_001);
    assert!(sizes.len() >= 5 && sizes.iter().all(|size| *size < 4_200), "{sizes:?}");
}
