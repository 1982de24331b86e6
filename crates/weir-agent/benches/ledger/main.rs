//! What the agent half costs on a large table, against a floor in the same run.
//!
//! `cargo bench -p weir-agent --bench ledger`, as root. Prints one figure a line:
//! `NAME VALUE UNIT target OP X ok|short`. `WEIR_BENCH_ENTRIES` makes the table smaller or larger
//! than 250,000; `WEIR_BENCH_ONLY=agent` measures the
//! whole agent alone; `WEIR_BENCH_DIR` puts the spool elsewhere than the system's temporary directory.
//!
//! The floor is the same dump received and thrown away.

mod agent;
mod allocator;
mod delta;
mod floor;
mod memory;
mod moving;
mod taker;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use weir_agent::pages;
use weir_conntrack::sysctl;
use weir_conntrack::tracking::Tracking;
use weir_lab::fill::{self, RaisedMax};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // This program again, as the process whose memory is measured.
    if let [word, percent, way] = arguments.as_slice()
        && word == memory::CHILD
    {
        return memory::child(percent.parse().context("the share of moving entries")?, way);
    }
    if let [word, certificate] = arguments.as_slice()
        && word == taker::CHILD
    {
        return taker::child(Path::new(certificate));
    }
    // `cargo test --all-targets` runs this too, without the flag.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let entries = match std::env::var("WEIR_BENCH_ENTRIES") {
        Ok(text) => text.parse().with_context(|| format!("{text} is not a number of entries"))?,
        Err(_) => 250_000,
    };
    let _max = RaisedMax::at_least(u64::from(entries) + 100_000)?;
    fill::own_namespace()?;
    Tracking::open()?.install()?;
    ensure!(sysctl::enable().refused.is_empty(), "accounting could not be switched on");
    fill::fill(0, entries)?;
    // As the product begins.
    pages::keep_small();

    // `WEIR_BENCH_ONLY=agent` leaves out what the ledger alone costs.
    let only_agent = std::env::var_os("WEIR_BENCH_ONLY").is_some_and(|only| only == "agent");
    if !only_agent {
        memory::measure(entries)?;
        delta::measure(entries)?;
        agent::measure(entries, 100)?;
        agent::measure(entries, 10)?;
    }
    memory::measure_wire(entries)?;
    agent::measure_wire(entries, 100)?;
    agent::measure_wire(entries, 10)?;
    if only_agent {
        return Ok(());
    }
    delta::measure_growth(entries)
}
