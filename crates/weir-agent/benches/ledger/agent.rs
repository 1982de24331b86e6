//! The whole agent half: reading, ledger, sealing, the spool on disk with its syncs, delivery to
//! one who takes everything: by a function call, or compressed and over TLS to another process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use weir_agent::coverage::Counted;
use weir_agent::spool::Frames;
use weir_agent::wire::Speaker;
use weir_agent::{
    Agent, AgentConfig, AgentStatus, Carry, Deliver, Environment, Spool, SpoolLimits, clock,
};
use weir_flow::batch::Gap;
use weir_flow::connection::{Listeners, NoListeners};
use weir_flow::ingest::Answer;
use weir_flow::seal::SealLimits;
use weir_lab::figures::{at_most, float, inform, median, process_cpu};

use crate::floor::Floor;
use crate::moving::Moving;
use crate::taker::TakingProcess;

/// Rounds of floor and tick; the medians count.
const ROUNDS: usize = 9;
/// Ticks before them: the baseline, and the first that bills.
const WARM_UP: usize = 2;

/// Takes every batch.
pub(crate) struct Taker;

impl Deliver for Taker {
    fn deliver(&mut self, _: &[u8]) -> Answer {
        Answer::Committed
    }
}

/// A directory for a spool, on a disk.
pub(crate) fn directory() -> Result<TempDir> {
    let parent = std::env::var_os("WEIR_BENCH_DIR");
    let parent = parent.map_or_else(std::env::temp_dir, Into::into);
    tempfile::Builder::new()
        .prefix("wbench-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot make a directory in {}", parent.display()))
}

/// An agent over a new spool, its batches, and how it works: as often as it is told to.
pub(crate) fn open(spool: &TempDir, percent: u32, interval: Duration) -> Result<Opened> {
    let config = AgentConfig { interval, cpu_budget: 1e6, seal: SealLimits::default() };
    let limits = SpoolLimits::default();
    let (spool, recovered) = Spool::open(spool.path(), clock::boot_id()?, clock::wall(), limits)?;
    let frames = Arc::clone(spool.frames());
    let identity =
        Speaker { epoch: spool.epoch(), epoch_born: spool.epoch_born(), boot: spool.boot() };
    let agent = Agent::new(config, Moving::open(percent)?, spool, recovered);
    Ok(Opened { agent, frames, identity })
}

pub(crate) struct Opened {
    pub(crate) agent: Agent<Moving>,
    pub(crate) frames: Arc<Frames>,
    pub(crate) identity: Speaker,
}

/// The agent half as `weir up` has it.
pub(crate) fn measure(entries: u32, percent: u32) -> Result<()> {
    let directory = directory()?;
    let opened = open(&directory, percent, Duration::ZERO)?;
    measure_one("agent", entries, percent, opened, &mut Taker, 1.8)
}

/// The whole agent of a node.
pub(crate) fn measure_wire(entries: u32, percent: u32) -> Result<()> {
    let (directory, elsewhere) = (directory()?, directory()?);
    let taking = TakingProcess::start(elsewhere.path())?;
    let opened = open(&directory, percent, Duration::ZERO)?;
    let mut way = taking.way(opened.identity);
    let watch = way.status();
    measure_one("agent_wire", entries, percent, opened, &mut way, 2.0)?;
    let sent = watch.get();
    let records = float(u64::from(entries)) * float(u64::try_from(WARM_UP + ROUNDS)?);
    inform("agent_wire_compression", float(sent.frame_bytes) / float(sent.wire_bytes), "ratio");
    inform("agent_wire_bytes", float(sent.wire_bytes) / records, "bytes/record");
    Ok(())
}

fn measure_one(
    what: &str,
    entries: u32,
    percent: u32,
    opened: Opened,
    carrier: &mut dyn Carry,
    target: f64,
) -> Result<()> {
    let Opened { agent, frames, .. } = opened;
    let stopping = AtomicBool::new(false);
    let mut meter = Meter {
        floor: Floor::open()?,
        frames,
        stopping: &stopping,
        floors: Vec::new(),
        ticks: Vec::new(),
        begun_at: 0.0,
        records: 0,
    };
    agent.run(&mut meter, carrier, &stopping)?;

    let Meter { floors, ticks, records, .. } = meter;
    let measured = floors.iter().zip(&ticks).skip(WARM_UP).take(ROUNDS);
    let mut ratios: Vec<f64> = measured.clone().map(|(floor, tick)| tick / floor).collect();
    let mut beyond: Vec<f64> = measured.clone().map(|(floor, tick)| tick - floor).collect();
    let mut costs: Vec<f64> = measured.map(|(_, tick)| *tick).collect();
    ensure!(ratios.len() == ROUNDS, "only {} rounds were measured", ratios.len());
    let billing = float(u64::try_from(WARM_UP - 1 + ROUNDS)?);
    let share = float(records) / billing / f64::from(entries) * 100.0;
    ensure!((share - f64::from(percent)).abs() < 1.0, "{share} % of the entries moved");
    let name = format!("{}k_{percent}_percent_active", entries / 1_000);
    inform(&format!("{what}_tick_{name}"), median(&mut costs) * 1e3, "ms_of_cpu");
    let beyond = median(&mut beyond) * 1e9 / f64::from(entries);
    inform(&format!("{what}_beyond_floor_{name}"), beyond, "ns/entry");
    let ratio = median(&mut ratios);
    if percent == 100 {
        at_most(&format!("{what}_over_floor_{name}"), ratio, "ratio", target);
    } else {
        inform(&format!("{what}_over_floor_{name}"), ratio, "ratio");
    }
    Ok(())
}

/// Measures a floor before each tick, and the tick with everything it sets off in other threads.
struct Meter<'a> {
    floor: Floor,
    frames: Arc<Frames>,
    stopping: &'a AtomicBool,
    floors: Vec<f64>,
    ticks: Vec<f64>,
    begun_at: f64,
    records: u64,
}

impl Meter<'_> {
    /// Waits until the disk and the delivery have done what the last tick asked of them. Before
    /// the baseline stands nothing is delivered, and nothing waits.
    fn let_it_settle(&self) {
        loop {
            // Longer than a batch takes from the queue to the disk.
            thread::sleep(Duration::from_millis(200));
            let undelivered = self.frames.load().undelivered;
            if undelivered == 0 {
                return;
            }
        }
    }
}

impl Environment for Meter<'_> {
    fn listeners(&self) -> &dyn Listeners {
        &NoListeners
    }

    fn tick_begins(&mut self) -> Vec<Gap> {
        self.let_it_settle();
        if !self.floors.is_empty() {
            self.ticks.push(process_cpu() - self.begun_at);
        }
        self.floors.push(self.floor.once().expect("the table can be dumped"));
        self.begun_at = process_cpu();
        Vec::new()
    }

    fn tick_ends(&mut self, _: Counted) -> Vec<(String, i64)> {
        Vec::new()
    }

    fn downtime_bound(&mut self) -> Option<u64> {
        None
    }

    fn show(&mut self, status: AgentStatus) {
        if self.floors.len() == WARM_UP + ROUNDS {
            self.records = status.records;
            // Its last two looks are not measured.
            self.stopping.store(true, Ordering::Release);
        }
    }
}
