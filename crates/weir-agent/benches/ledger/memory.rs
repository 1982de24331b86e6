//! What the agent half holds in memory, as the kernel counts it, in a process of its own.

#![expect(clippy::print_stdout, reason = "the measured process tells its figures to the other")]

use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_agent::coverage::Counted;
use weir_agent::{AgentStatus, Carry, Environment, pages};
use weir_flow::batch::Gap;
use weir_flow::connection::{Listeners, NoListeners};
use weir_lab::figures::{at_most, float, inform, kilobytes};

use crate::agent::{self, Opened, Taker};
use crate::taker::TakingProcess;

/// Argument of the process that is measured; the next one is the share of moving entries.
pub(crate) const CHILD: &str = "--measured-process";

const TICKS: u64 = 8;
/// Shorter than any real interval on such a table, so memory has less time to be given back.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn measure(entries: u32) -> Result<()> {
    measure_way("agent", entries, "call", [(10, 20.0), (100, 40.0)])
}

/// The same with delivery over TLS to another process.
pub(crate) fn measure_wire(entries: u32) -> Result<()> {
    measure_way("agent_wire", entries, "wire", [(10, 67.1), (100, 67.1)])
}

fn measure_way(what: &str, entries: u32, way: &str, targets: [(u32, f64); 2]) -> Result<()> {
    let megabytes = |kilobytes: u64| float(kilobytes) * 1024.0 / 1e6;
    for (percent, target) in targets {
        // A process started here is in the filled namespace, too.
        let output = Command::new(std::env::current_exe()?)
            .args([CHILD, &percent.to_string(), way])
            .output()
            .context("cannot start the process to be measured")?;
        let told = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<u64> =
            told.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [connections, resident, peak] = numbers.as_slice() else {
            let error = String::from_utf8_lossy(&output.stderr);
            anyhow::bail!("the measured process said {told:?} and {error:?}");
        };
        // The wire itself is another.
        let others = connections.abs_diff(u64::from(entries));
        ensure!(others <= 2, "it saw {connections} connections");
        let name = format!("{}k_{percent}_percent_active", entries / 1_000);
        at_most(&format!("{what}_resident_{name}"), megabytes(*resident), "MB", target);
        inform(&format!("{what}_resident_peak_{name}"), megabytes(*peak), "MB");
    }
    Ok(())
}

/// The measured process: an agent for a few ticks, in the network namespace it was started in.
pub(crate) fn child(percent: u32, way: &str) -> Result<()> {
    // As the product begins.
    pages::keep_small();
    let directory = agent::directory()?;
    let elsewhere = agent::directory()?;
    let Opened { agent, frames, identity } = agent::open(&directory, percent, INTERVAL)?;
    drop(frames);
    let taking = (way == "wire").then(|| TakingProcess::start(elsewhere.path())).transpose()?;
    let mut carrier: Box<dyn Carry> = match &taking {
        Some(taking) => Box::new(taking.way(identity)),
        None => Box::new(Taker),
    };
    let stopping = AtomicBool::new(false);
    let mut scales = Scales { stopping: &stopping, connections: 0, resident: 0 };
    agent.run(&mut scales, carrier.as_mut(), &stopping)?;
    // The kernel keeps the peak less promptly than the present.
    let peak = kilobytes(process::id(), "VmHWM:")?.max(scales.resident);
    println!("{} {} {peak}", scales.connections, scales.resident);
    Ok(())
}

/// Weighs the process at the end of each tick, when the most is in flight.
struct Scales<'a> {
    stopping: &'a AtomicBool,
    connections: usize,
    /// The most after any tick but the first, kilobytes.
    resident: u64,
}

impl Environment for Scales<'_> {
    fn listeners(&self) -> &dyn Listeners {
        &NoListeners
    }

    fn tick_begins(&mut self) -> Vec<Gap> {
        Vec::new()
    }

    fn tick_ends(&mut self, _: Counted) -> Vec<(String, i64)> {
        Vec::new()
    }

    fn downtime_bound(&mut self) -> Option<u64> {
        None
    }

    fn show(&mut self, status: AgentStatus) {
        self.connections = status.connections;
        let resident =
            kilobytes(process::id(), "VmRSS:").expect("the kernel tells of this process");
        self.resident = self.resident.max(resident);
        if status.ticks >= TICKS {
            self.stopping.store(true, Ordering::Release);
        }
    }
}
