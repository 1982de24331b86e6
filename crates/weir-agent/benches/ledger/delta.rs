//! Reading, and reading with the ledger, without anything behind it.

use std::hint::black_box;

use anyhow::{Result, ensure};
use weir_agent::{FlowSource as _, Visitor, clock};
use weir_conntrack::Dump;
use weir_flow::ledger::{Ledger, Slot, Surroundings};
use weir_flow::{Epoch, FlowRecord, Sample};
use weir_lab::figures::{at_most, float, inform, median, thread_cpu};
use weir_lab::fill;

use crate::allocator;
use crate::floor::Floor;
use crate::moving::Moving;

/// Interleaved rounds; the medians count.
const ROUNDS: usize = 11;

pub(crate) fn measure(entries: u32) -> Result<()> {
    let mut floor = Floor::open()?;
    let mut dump = Dump::open()?;
    let before = allocator::held();
    let mut still = Reader::open(0, entries)?;
    let ledger_bytes = float(allocator::held() - before) / f64::from(entries);
    let mut moving = Reader::open(100, entries)?;

    let (mut floors, mut parses, mut stills, mut movings) = (vec![], vec![], vec![], vec![]);
    let mut allocations = 0;
    for round in 0..ROUNDS {
        let one = floor.once()?;
        let parse = parse_once(&mut dump, entries)?;
        let delta = still.tick(0)?;
        let other = floor.once()?;
        let before = allocator::allocations();
        let active = moving.tick(u64::from(entries))?;
        allocations += allocator::allocations() - before;
        let around = f64::midpoint(one, other);
        // Whoever follows the floor finds the same caches, so all stand in one order.
        floors.push(around);
        parses.push(parse / around);
        stills.push(delta / around);
        movings.push(active / around);
        ensure!(round == 0 || still.ledger.live() == moving.ledger.live(), "both see one table");
    }
    let table = format!("{}k", entries / 1_000);
    let floor = median(&mut floors) * 1e9 / f64::from(entries);
    inform(&format!("ledger_floor_{table}"), floor, "ns/entry");
    at_most(&format!("read_over_floor_{table}"), median(&mut parses), "ratio", 1.09);
    at_most(&format!("delta_over_floor_{table}"), median(&mut stills), "ratio", 1.10);
    inform(&format!("delta_all_active_over_floor_{table}"), median(&mut movings), "ratio");
    let beyond = |ratio: f64| (ratio - 1.0) * floor;
    inform("read_beyond_floor", beyond(median(&mut parses)), "ns/entry");
    inform("delta_beyond_floor", beyond(median(&mut stills)), "ns/entry");
    inform("delta_all_active_beyond_floor", beyond(median(&mut movings)), "ns/entry");

    let slot = u64::try_from(size_of::<Slot>()).unwrap_or(u64::MAX);
    at_most("ledger_slot", float(slot), "bytes", 48.0);
    inform("ledger_heap", ledger_bytes, "bytes/connection");
    let ticks = u64::try_from(ROUNDS).unwrap_or(u64::MAX);
    let per_tick = float(allocations) / float(ticks);
    inform("ledger_allocations_per_tick", per_tick, "allocations");
    // Rounded to thousandths: what does not grow with the table vanishes.
    let per_record = (per_tick / f64::from(entries) * 1e3).round() / 1e3;
    at_most("ledger_allocations_per_record", per_record, "allocations", 0.0);
    Ok(())
}

/// A table to which one in a hundred is added before each tick: newcomers must be found to be new,
/// and must line up from then on. Leaves them in the table.
pub(crate) fn measure_growth(entries: u32) -> Result<()> {
    let mut floor = Floor::open()?;
    let mut reader = Reader::open(0, entries)?;
    let mut ratios = Vec::new();
    let newcomers = entries / 100;
    let mut now = entries;
    for _ in 0..ROUNDS {
        fill::fill(now, newcomers)?;
        now += newcomers;
        let floor = floor.once()?;
        ratios.push(reader.tick(newcomers.into())? / floor);
    }
    let table = format!("{}k", entries / 1_000);
    let name = format!("delta_1_percent_new_over_floor_{table}");
    inform(&name, median(&mut ratios), "ratio");
    let misses = reader.ledger.counts().misses;
    at_most("delta_misses_beyond_newcomers", float(misses) - f64::from(now), "entries", 0.0);
    Ok(())
}

/// CPU seconds of a dump whose entries are read.
fn parse_once(dump: &mut Dump, entries: u32) -> Result<f64> {
    let before = thread_cpu();
    dump.start()?;
    let mut read = 0;
    while let Some(chunk) = dump.next_chunk()? {
        chunk.entries(|sample| {
            black_box(sample);
            read += 1;
        });
    }
    let used = thread_cpu() - before;
    ensure!(read == entries, "{read} entries of {entries} were read");
    Ok(used)
}

/// The product's source and ledger; its records go nowhere.
struct Reader {
    source: Moving,
    ledger: Ledger,
}

struct Nowhere(u64);

impl Surroundings for Nowhere {
    fn record(&mut self, record: &FlowRecord) {
        black_box(record);
        self.0 += 1;
    }
}

struct Desk<'a> {
    ledger: &'a mut Ledger,
    nowhere: &'a mut Nowhere,
}

impl Visitor for Desk<'_> {
    fn last_word(&mut self, sample: &Sample) {
        self.ledger.destroyed(sample, clock::now(), self.nowhere);
    }

    #[inline]
    fn entry(&mut self, sample: &Sample) {
        self.ledger.observe(sample, self.nowhere);
    }
}

impl Reader {
    /// A reader that knows the table.
    fn open(percent: u32, entries: u32) -> Result<Self> {
        let source = Moving::open(percent)?;
        let mut reader = Self { source, ledger: Ledger::new(Epoch(1), true) };
        reader.tick(0)?;
        ensure!(u32::try_from(reader.ledger.live())? == entries, "not every entry was read");
        Ok(reader)
    }

    /// CPU seconds of a tick that must make this many records.
    fn tick(&mut self, records: u64) -> Result<f64> {
        let before = thread_cpu();
        let mut nowhere = Nowhere(0);
        self.ledger.begin_dump(clock::now());
        self.source.begin_dump()?;
        loop {
            let mut desk = Desk { ledger: &mut self.ledger, nowhere: &mut nowhere };
            if self.source.next_piece(&mut desk)?.is_none() {
                break;
            }
        }
        self.ledger.end_dump(true, &mut nowhere);
        let judgement = self.ledger.judge(&mut nowhere);
        let used = thread_cpu() - before;
        ensure!(judgement.forgotten.is_empty(), "the table stands still");
        ensure!(nowhere.0 == records, "{} records instead of {records}", nowhere.0);
        Ok(used)
    }
}
