//! What asking weir costs: live connections, and the HTTP API over a large store.
//!
//! `cargo bench -p weir-server --bench api`. Prints one figure a line:
//! `NAME VALUE UNIT target OP X ok|short`. `WEIR_BENCH_ROWS` sets how many rows of the finest level
//! the store has, `WEIR_BENCH_SECONDS` how long readers ask. The filled store is kept in the target
//! directory for the next run.

mod http;
mod live;
mod readers;
mod served;

use std::env;

use anyhow::{Context as _, Result};
use mimalloc::MiMalloc;
use weir_lab::figures::{at_most, float, inform, kilobytes, median, percentile};

use crate::http::Client;
use crate::readers::{Asked, Group};
use crate::served::Served;

/// The product's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const READERS: usize = 50;
/// Rounds of one question alone, before, between and after the readers.
const ALONE_ROUNDS: usize = 15;
const BY: &str = "/api/v1/top?by=source.name,destination.name&limit=20";

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // This program again, as the process that asks.
    if arguments.first().is_some_and(|word| word == readers::CHILD) {
        return readers::child(&arguments[1..]);
    }
    // `cargo test --all-targets` runs this too, without the flag.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    live::measure()?;
    let served = Served::start(setting("WEIR_BENCH_ROWS", 10_000_000)?)?;
    let seconds = setting("WEIR_BENCH_SECONDS", 15)?;
    let resident = || Ok::<_, anyhow::Error>(float(kilobytes(std::process::id(), "VmRSS:")?) / 1e3);
    let before = resident()?;
    for since in ["1h", "24h"] {
        measure(&served, since, seconds)?;
    }
    different_questions(&served, seconds)?;
    inform("api_resident_before", before, "MB");
    inform("api_resident_after", resident()?, "MB");
    Ok(())
}

fn setting(name: &str, default: u64) -> Result<u64> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
        Err(_) => Ok(default),
    }
}

/// A question alone, and asked by fifty while something is committed every second.
fn measure(served: &Served, since: &str, seconds: u64) -> Result<()> {
    let path = format!("{BY}&since={since}");
    let paths = vec![path.clone(); READERS];
    let mut alone = ask_alone(served, &path)?;
    // All at the same moment, each second: the worst that dashboards do.
    let together = served
        .while_committing(|address| readers::ask(address, seconds, Group::Together, &paths))?;
    alone.extend(ask_alone(served, &path)?);
    let on_and_on = served
        .while_committing(|address| readers::ask(address, seconds, Group::OnAndOn, &paths))?;
    alone.extend(ask_alone(served, &path)?);

    let one = median(&mut alone);
    inform(&format!("api_top_{since}_alone_p50"), one, "ms");
    inform(&format!("api_top_{since}_alone_p99"), percentile(&mut alone, 99), "ms");
    for (name, asked) in [("together", together), ("on_and_on", on_and_on)] {
        report(&format!("api_top_{since}_{READERS}_{name}"), asked, Some(one), seconds);
    }
    Ok(())
}

/// Fifty different questions at the same moment: none is answered by another's answer.
fn different_questions(served: &Served, seconds: u64) -> Result<()> {
    let filtered = |unit| format!("{BY}&since=1h&filter=unit%20%3D%20app-{unit}.service");
    let paths: Vec<String> = (0..READERS).map(filtered).collect();
    let mut alone = Vec::new();
    for path in paths.iter().take(ALONE_ROUNDS) {
        alone.extend(ask_alone_once(served, &mut Client::connect(served.address())?, path));
    }
    let one = median(&mut alone);
    inform("api_top_1h_filtered_alone_p50", one, "ms");
    let asked = served
        .while_committing(|address| readers::ask(address, seconds, Group::Together, &paths))?;
    report(&format!("api_top_1h_{READERS}_different"), asked, None, seconds);
    Ok(())
}

fn report(name: &str, asked: Asked, alone: Option<f64>, seconds: u64) {
    let Asked { mut milliseconds, refused } = asked;
    let answers = float(milliseconds.len() as u64);
    inform(&format!("{name}_answers"), answers / float(seconds), "1/s");
    inform(&format!("{name}_refused"), float(refused), "answers");
    inform(&format!("{name}_p50"), median(&mut milliseconds), "ms");
    let slow = percentile(&mut milliseconds, 99);
    inform(&format!("{name}_p99"), slow, "ms");
    if let Some(alone) = alone {
        at_most(&format!("{name}_p99_over_alone"), slow / alone, "ratio", 3.0);
    }
}

/// Milliseconds of a question that nobody else asks, each time after the store has changed.
fn ask_alone(served: &Served, path: &str) -> Result<Vec<f64>> {
    let mut client = Client::connect(served.address())?;
    (0..ALONE_ROUNDS).map(|_| ask_alone_once(served, &mut client, path)).collect()
}

fn ask_alone_once(served: &Served, client: &mut Client, path: &str) -> Result<f64> {
    served.commit();
    let answer = client.get(path)?;
    answer.ensure_rows(path)?;
    Ok(answer.milliseconds)
}
