//! The ledger's promise: each byte once, whatever the dump looks like; and the journal's: what was
//! made durable is the ledger again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(clippy::needless_for_each, reason = "one line says it")]

use std::collections::HashMap;
use std::net::IpAddr;

use proptest::prelude::*;
use weir_flow::batch::{Digest, Epoch};
use weir_flow::frame::{Batch, Note};
use weir_flow::journal::{Recovery, decode_last_words, encode_last_word};
use weir_flow::ledger::{Clock, Ledger, Slot, Surroundings};
use weir_flow::sample::Status;
use weir_flow::seal::{SealLimits, Sealed, Sealer};
use weir_flow::time::SECOND;
use weir_flow::{
    BootTime, Counters, FlowRecord, Protocol, RecordFlags, Sample, Totals, Tuple, WallTime,
};

const EPOCH: Epoch = Epoch(77);

fn totals(bytes: u64) -> Totals {
    let counters = |bytes| Counters { packets: bytes / 10, bytes };
    Totals { sent: counters(bytes), received: counters(bytes * 2) }
}

fn sample(port: u16, bytes: u64) -> Sample {
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let original = Tuple {
        protocol: Protocol::TCP,
        source: address(1),
        destination: address(2),
        source_port: port,
        destination_port: 80,
    };
    let reply = Tuple {
        source: address(2),
        destination: address(1),
        source_port: 80,
        destination_port: port,
        ..original
    };
    Sample {
        id: u32::from(port),
        original,
        reply,
        totals: Some(totals(bytes)),
        status: Status(0b110),
        start: Some(WallTime(u64::from(port))),
        ..Sample::default()
    }
}

fn clock(seconds: u64) -> Clock {
    Clock { now: BootTime(seconds * SECOND), wall_offset_nanos: 0 }
}

/// One complete tick over these entries and events.
fn tick(ledger: &mut Ledger, at: u64, entries: &[Sample], events: &[Sample]) -> Vec<FlowRecord> {
    let mut records = Vec::new();
    ledger.begin_dump(clock(at));
    entries.iter().for_each(|entry| ledger.observe(entry, &mut records));
    ledger.end_dump(true, &mut records);
    events.iter().for_each(|event| ledger.destroyed(event, clock(at), &mut records));
    ledger.judge(&mut records);
    records
}

fn bytes(records: &[FlowRecord]) -> u64 {
    records.iter().map(|record| record.delta().bytes()).sum()
}

#[test]
fn a_foreign_zeroer_is_counted_and_billed_from_zero() {
    let mut ledger = Ledger::new(EPOCH, false);
    assert_eq!(bytes(&tick(&mut ledger, 1, &[sample(1, 1_000)], &[])), 3_000);
    let records = tick(&mut ledger, 2, &[sample(1, 300)], &[]);
    assert_eq!((records.len(), bytes(&records)), (1, 900));
    assert!(records[0].flags.has(RecordFlags::ZEROED) && records[0].from == Totals::default());
    // Also when the last word is the first to show it.
    let records = tick(&mut ledger, 3, &[], &[sample(1, 100)]);
    assert!(records[0].flags.has(RecordFlags::ZEROED.with(RecordFlags::CLOSED)));
    assert_eq!((bytes(&records), ledger.counts().foreign_zeroings, ledger.live()), (300, 2, 0));
}

#[test]
fn what_carries_no_counters_stays_unknown() {
    let mut ledger = Ledger::new(EPOCH, false);
    let unknown = Sample { totals: None, ..sample(1, 0) };
    let records = tick(&mut ledger, 1, &[unknown], &[]);
    assert_eq!(records.len(), 1);
    assert!(records[0].flags.has(RecordFlags::UNCOUNTED.with(RecordFlags::OPENED)));
    assert_eq!(tick(&mut ledger, 2, &[unknown], &[]), []);
    let records = tick(&mut ledger, 3, &[], &[unknown]);
    assert!(records[0].flags.has(RecordFlags::UNCOUNTED.with(RecordFlags::CLOSED)));
    assert_eq!((bytes(&records), ledger.counts().uncounted_entries), (0, 1));
}

#[test]
fn two_zones_entries_of_one_connection_count_once() {
    let plain = Sample { zone: 5, ..sample(1, 1_000) };
    let mut translated = sample(1, 1_000);
    translated.original.destination = IpAddr::from([10, 96, 0, 1]);
    for order in [[plain, translated], [translated, plain]] {
        let mut ledger = Ledger::new(EPOCH, false);
        let records = tick(&mut ledger, 1, &order, &[]);
        assert_eq!((records.len(), bytes(&records)), (1, 3_000));
        assert!(records[0].service.is_some(), "the translated entry counts");
        let more = order.map(|entry| Sample { totals: Some(totals(1_500)), ..entry });
        assert_eq!(bytes(&tick(&mut ledger, 2, &more, &[])), 1_500);
        let records = tick(&mut ledger, 3, &[], &more);
        assert_eq!((records.len(), bytes(&records)), (1, 0));
        assert_eq!((ledger.counts().shadow_entries, ledger.live()), (1, 0));
    }
}

#[test]
fn what_a_dump_shows_after_the_last_word_is_old_news() {
    // More last words than the ledger holds back: they are settled in the middle of the dump.
    let all: Vec<Sample> = (0..9_000).map(|port| sample(port, 10)).collect();
    let mut ledger = Ledger::new(EPOCH, false);
    assert_eq!(bytes(&tick(&mut ledger, 1, &all, &[])), 9_000 * 30);
    let mut records = Vec::new();
    ledger.begin_dump(clock(2));
    all.iter().for_each(|last| ledger.destroyed(last, clock(2), &mut records));
    all.iter().for_each(|entry| ledger.observe(entry, &mut records));
    ledger.end_dump(true, &mut records);
    assert_eq!(ledger.judge(&mut records).forgotten, Vec::<u64>::new());
    assert_eq!((records.len(), bytes(&records), ledger.live()), (9_000, 0, 0));
    // The rest still lined up, and had their last words waiting.
    assert_eq!(ledger.counts().stale_entries, 8_192);
}

/// A seeded sequence (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % bound.max(1) as u64).unwrap()
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A table that churns, and the truth about each connection, by its port.
#[derive(Default)]
struct Table {
    live: Vec<Sample>,
    truth: HashMap<u16, u64>,
    opened: u16,
    /// Live entries that no dump has shown since one that should have.
    hidden: Vec<u16>,
}

impl Table {
    fn open(&mut self, dice: &mut Dice) {
        for _ in 0..dice.below(40) {
            self.opened += 1;
            let bytes = dice.below(5_000) as u64;
            let place = dice.below(self.live.len() + 1);
            self.live.insert(place, sample(self.opened, bytes));
            self.truth.insert(self.opened, totals(bytes).bytes());
        }
    }

    fn carry(&mut self, dice: &mut Dice) {
        for entry in &mut self.live {
            if dice.one_in(3) {
                let more = dice.below(2_000) as u64;
                let sent = entry.totals.unwrap().sent.bytes + more;
                entry.totals = Some(totals(sent));
                self.truth.insert(entry.original.source_port, totals(sent).bytes());
            }
        }
    }

    /// Some end: their last words, and what a dump may still show of them.
    fn end(&mut self, dice: &mut Dice) -> Vec<Sample> {
        let mut ended = Vec::new();
        self.live.retain(|entry| {
            let ends = dice.one_in(8);
            if ends {
                ended.push(*entry);
            }
            !ends
        });
        ended
    }

    /// What a dump shows: the order of the table, or that of a resized one; a few twice, a few not
    /// at all, a few that have ended already.
    fn shown(&mut self, dice: &mut Dice, ended: &[Sample]) -> Vec<Sample> {
        let mut shown = self.live.clone();
        if dice.one_in(4) {
            for place in (1..shown.len()).rev() {
                shown.swap(place, dice.below(place + 1));
            }
        }
        // A live entry can hide once until it is seen again, not twice.
        shown.retain(|entry| !dice.one_in(30) || self.hidden.contains(&entry.original.source_port));
        for _ in 0..dice.below(4) {
            if let Some(again) = shown.get(dice.below(shown.len())).copied() {
                shown.insert(dice.below(shown.len()), again);
            }
        }
        for old in ended {
            if dice.one_in(2) {
                shown.insert(dice.below(shown.len() + 1), *old);
            }
        }
        shown
    }

    /// One tick with whatever may go wrong in it.
    fn tick(
        &mut self,
        dice: &mut Dice,
        ledger: &mut Ledger,
        at: u64,
        out: &mut dyn Surroundings,
    ) -> Vec<Sample> {
        self.open(dice);
        self.carry(dice);
        let ended = self.end(dice);
        let shown = self.shown(dice, &ended);
        let complete = !dice.one_in(5);
        let cut = if complete { shown.len() } else { dice.below(shown.len() + 1) };
        // Each last word is read before the dump, in the middle of it, or behind it.
        let when: Vec<usize> = ended.iter().map(|_| dice.below(3)).collect();
        let hear = |ledger: &mut Ledger, now: usize, out: &mut dyn Surroundings| {
            for (last, when) in ended.iter().zip(&when) {
                if *when == now {
                    ledger.destroyed(last, clock(at), out);
                }
            }
        };
        hear(ledger, 0, out);
        ledger.begin_dump(clock(at));
        let half = dice.below(cut + 1);
        shown[..half].iter().for_each(|entry| ledger.observe(entry, out));
        hear(ledger, 1, out);
        shown[half..cut].iter().for_each(|entry| ledger.observe(entry, out));
        ledger.end_dump(complete, out);
        hear(ledger, 2, out);
        let gone = ledger.judge(out).forgotten;
        assert_eq!(gone, Vec::<u64>::new(), "nothing ends unseen here");
        let seen = |port: u16| shown[..cut].iter().any(|e| e.original.source_port == port);
        self.hidden.retain(|port| !seen(*port));
        if complete {
            let live = self.live.iter().map(|entry| entry.original.source_port);
            self.hidden.extend(live.filter(|port| !seen(*port)));
        }
        ended
    }
}

/// Adds up by port, and holds each record to the one before it.
#[derive(Default)]
struct Sum {
    bytes: HashMap<u16, u64>,
    last: HashMap<u64, Totals>,
}

impl Surroundings for Sum {
    fn record(&mut self, record: &FlowRecord) {
        let before = self.last.insert(record.connection, record.to).unwrap_or_default();
        assert_eq!(before, record.from, "records telescope");
        assert!(record.interval_from <= record.interval_to);
        *self.bytes.entry(record.source_port).or_default() += record.delta().bytes();
    }
}

/// Records on their way into batches.
struct Pen<'a> {
    sealer: &'a mut Sealer,
    frames: &'a mut Vec<Vec<u8>>,
}

impl Surroundings for Pen<'_> {
    fn record(&mut self, record: &FlowRecord) {
        let Self { sealer, frames } = self;
        sealer.record(record, &mut |sealed: Sealed<'_>| frames.push(sealed.frame.to_vec()));
    }
}

/// A complete look at the table as it is, to settle what a broken one left open.
fn look(table: &Table, ledger: &mut Ledger, at: u64, out: &mut dyn Surroundings) {
    ledger.begin_dump(clock(at));
    table.live.iter().for_each(|entry| ledger.observe(entry, out));
    ledger.end_dump(true, out);
    ledger.judge(out);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_sum_of_all_deltas_is_what_grew(seed: u64, ticks in 1..25_u64) {
        let (mut dice, mut table) = (Dice(seed), Table::default());
        let (mut ledger, mut sum) = (Ledger::new(EPOCH, false), Sum::default());
        for at in 1..=ticks {
            table.tick(&mut dice, &mut ledger, at, &mut sum);
        }
        for at in 1..=2 {
            look(&table, &mut ledger, ticks + at, &mut sum);
        }
        prop_assert_eq!(ledger.live(), table.live.len());
        prop_assert_eq!(&sum.bytes, &table.truth);
        prop_assert_eq!(ledger.counts().foreign_zeroings, 0);
    }

    #[test]
    fn checkpoint_and_any_prefix_of_frames_and_last_words_are_the_ledger(
        seed: u64,
        before in 1..6_u64,
        after in 1..6_u64,
        cut in any::<proptest::sample::Index>(),
        torn in 0..9_usize,
    ) {
        let (mut dice, mut table) = (Dice(seed), Table::default());
        let mut ledger = Ledger::new(EPOCH, false);
        let mut sealer = Sealer::new(EPOCH, 9, 1, SealLimits { records: 5, bytes: 1 << 20 });
        let mut frames: Vec<Vec<u8>> = Vec::new();
        let mut durable = 0;
        let (mut checkpoint, mut words) = ((0, Vec::<Slot>::new()), Vec::new());
        for at in 1..=before + after {
            durable = frames.len();
            sealer.set_clock(clock(at), &mut |_| unreachable!("all was sealed"));
            let mut pen = Pen { sealer: &mut sealer, frames: &mut frames };
            let ended = table.tick(&mut dice, &mut ledger, at, &mut pen);
            ended.iter().for_each(|last| encode_last_word(&mut words, last, clock(at)));
            sealer.seal(&mut |sealed: Sealed<'_>| frames.push(sealed.frame.to_vec()));
            if at == before {
                checkpoint = (frames.len(), ledger.slots().copied().collect());
                words.clear();
            }
        }
        // The last tick's batches are cut off somewhere; the open frame ends in a torn item.
        let kept = durable.max(checkpoint.0);
        let kept = kept + cut.index(frames.len() - kept + 1);
        words.extend_from_slice(&[90, 0, 1, 2, 3, 4, 5, 6][..torn.min(8)]);

        let mut recovery = Recovery::new(EPOCH, 9, decode_last_words(&words).0);
        checkpoint.1.iter().for_each(|slot| recovery.slot(*slot));
        let mut sum = Sum::default();
        for (index, frame) in frames[..kept].iter().enumerate() {
            let batch = Batch::decode(frame).unwrap();
            prop_assert_eq!(batch.header.id.sequence, index as u64 + 1);
            batch.records().for_each(|record| sum.record(&record.unwrap()));
            if index >= checkpoint.0 {
                recovery.frame(&batch).unwrap();
            }
        }
        let (mut recovered, left) = recovery.finish();
        for (last, read_at) in left {
            recovered.destroyed(&last, read_at, &mut sum);
        }
        for at in 1..=2 {
            look(&table, &mut recovered, before + after + at, &mut sum);
        }
        prop_assert_eq!(recovered.live(), table.live.len());
        prop_assert_eq!(&sum.bytes, &table.truth);
    }
}

#[test]
fn a_baseline_notes_what_is_old_and_bills_what_began_meanwhile() {
    let mut ledger = Ledger::new(EPOCH, true);
    let old = sample(1, 1_000);
    let new = Sample { start: Some(WallTime(20 * SECOND)), ..sample(2, 50) };
    assert_eq!(bytes(&tick(&mut ledger, 10, &[old, new], &[])), 150);
    assert!(!ledger.is_baseline());
    let grown = Sample { totals: Some(totals(1_001)), ..old };
    assert_eq!(bytes(&tick(&mut ledger, 21, &[grown, new], &[])), 3);
}

#[test]
fn an_end_that_nobody_heard_is_told_after_two_dumps() {
    let mut ledger = Ledger::new(EPOCH, false);
    tick(&mut ledger, 1, &[sample(1, 10), sample(2, 10)], &[]);
    let mut records = Vec::new();
    let mut gone = Vec::new();
    for at in 2..5 {
        ledger.begin_dump(clock(at));
        ledger.observe(&sample(2, 10), &mut records);
        ledger.end_dump(true, &mut records);
        gone.push(ledger.judge(&mut records).forgotten.len());
    }
    assert_eq!((gone, ledger.live(), records.len()), (vec![0, 1, 0], 1, 0));
    // A note of it makes the recovered ledger forget it, too.
    let mut recovery = Recovery::new(EPOCH, 1, Vec::new());
    let mut known = Ledger::new(EPOCH, false);
    let seen = tick(&mut known, 1, &[sample(1, 10)], &[]);
    known.slots().for_each(|slot| recovery.slot(*slot));
    let mut sealer = Sealer::new(EPOCH, 1, 1, SealLimits::default());
    let mut frame = Vec::new();
    let mut keep = |sealed: Sealed<'_>| frame = sealed.frame.to_vec();
    sealer.note(&Note::Forget(seen[0].connection), &mut keep);
    sealer.seal(&mut keep);
    let batch = Batch::decode(&frame).unwrap();
    assert_ne!(batch.header.digest, Digest(0));
    recovery.frame(&batch).unwrap();
    assert_eq!(recovery.finish().0.live(), 0);
}

#[test]
fn what_stands_is_told_once_when_asked_and_bills_nothing() {
    let idle = sample(40_000, 500);
    let mut ledger = Ledger::new(EPOCH, true);
    ledger.announce();
    let mut told = Vec::new();
    for at in 1..=4 {
        if at == 3 {
            ledger.announce();
        }
        told.push(tick(&mut ledger, at, &[idle], &[]));
    }
    let lengths: Vec<usize> = told.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1, 0, 1, 0]);
    for record in told.iter().flatten() {
        assert!(record.flags.has(RecordFlags::PRESENT) && !record.flags.has(RecordFlags::OPENED));
        assert_eq!((record.delta(), record.to), (Totals::default(), totals(500)));
    }
}
