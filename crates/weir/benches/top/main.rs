//! What `weir top` costs over large connection tables, on a terminal of 120 columns and 40 lines.
//!
//! `cargo bench -p weir --bench top`, as root, with tmux. Prints one figure a line:
//! `NAME VALUE UNIT target OP X ok|short`. `WEIR_BENCH_SECONDS` sets how long it is watched.
//!
//! Everything happens in a network namespace of its own. Large tables are synthetic entries; the
//! connections that move are datagrams on the namespace's loopback.

mod screen;
mod talk;

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_conntrack::sysctl;
use weir_conntrack::tracking::Tracking;
use weir_lab::figures::{at_most, float, inform, kilobytes, median};
use weir_lab::fill::{self, RaisedMax};

use crate::screen::Screen;
use crate::talk::Talk;

/// Starts of each table; the medians count.
const STARTS: usize = 5;
const MANY: u32 = 100_000;
const USUAL: u32 = 10_000;
/// Before the cost is measured: all connections are known then, and the first look is over.
const WARM_UP: Duration = Duration::from_secs(6);
/// A screen is complete when this many connections are on it.
const ROWS: usize = 10;
const BETWEEN_KEYS: Duration = Duration::from_millis(50);
/// Scrolling, every order, every grouping, and back.
const KEYS: [&str; 24] = [
    "Down", "Down", "PageDown", "PageDown", "End", "Home", "s", "PageDown", "s", "End", "s", "s",
    "s", "Home", "t", "t", "Tab", "Down", "g", "Down", "g", "Tab", "n", "n",
];

fn main() -> Result<()> {
    // `cargo test --all-targets` runs this too, without the flag.
    if !env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let seconds = match env::var("WEIR_BENCH_SECONDS") {
        Ok(text) => text.parse().with_context(|| format!("{text} is not a number of seconds"))?,
        Err(_) => 30,
    };
    let _max = RaisedMax::at_least(u64::from(MANY) * 2)?;
    fill::own_namespace()?;
    talk::loopback_up()?;
    Tracking::open()?.install()?;
    ensure!(sysctl::enable().refused.is_empty(), "accounting could not be switched on");
    let screen = Screen::open()?;

    cost(&screen, seconds)?;
    fill::flush()?;
    for (before, entries) in [(0, USUAL), (USUAL, MANY)] {
        fill::fill(before, entries - before)?;
        first_screen(&screen, entries)?;
    }
    pictures(&screen, seconds)
}

/// From the start of the program to a screen with connections on it.
fn first_screen(screen: &Screen, entries: u32) -> Result<()> {
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let begun = Instant::now();
        screen.start("warn")?;
        screen.wait_for("10.200.0.10", ROWS)?;
        first.push(begun.elapsed().as_secs_f64() * 1e3);
        screen.wait_for(&format!("Connections ({},000)", entries / 1_000), 1)?;
        all.push(begun.elapsed().as_secs_f64() * 1e3);
        screen.quit()?;
    }
    let table = format!("{}k", entries / 1_000);
    at_most(&format!("top_first_screen_{table}"), median(&mut first), "ms", 1_000.0);
    inform(&format!("top_all_on_screen_{table}"), median(&mut all), "ms");
    Ok(())
}

/// CPU time while a tenth of the connections moves every second.
fn cost(screen: &Screen, seconds: u64) -> Result<()> {
    let talk = Talk::between(USUAL)?;
    screen.start("warn")?;
    // This machine names its own ends by their sockets, not by their addresses.
    screen.wait_for("unreplied", ROWS)?;
    thread::sleep(WARM_UP);
    let (begun, before) = (Instant::now(), screen.cpu_seconds()?);
    thread::sleep(Duration::from_secs(seconds));
    let (took, used) = (begun.elapsed().as_secs_f64(), screen.cpu_seconds()? - before);
    let resident = float(kilobytes(screen.process()?, "VmRSS:")?) * 1_024.0 / 1e6;
    screen.quit()?;
    ensure!(talk.stop()?, "not every connection moved in time");
    at_most("top_cpu_10k_10_percent_moving", used / took * 100.0, "%_of_a_core", 5.0);
    inform("top_resident_10k", resident, "MB");
    Ok(())
}

/// Pictures of a large table that is scrolled and sorted without rest.
fn pictures(screen: &Screen, seconds: u64) -> Result<()> {
    screen.start("debug")?;
    screen.wait_for("10.200.0.10", ROWS)?;
    let (begun, before) = (Instant::now(), screen.cpu_seconds()?);
    for key in KEYS.iter().cycle() {
        if begun.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        screen.key(key)?;
        thread::sleep(BETWEEN_KEYS);
    }
    let (took, used) = (begun.elapsed().as_secs_f64(), screen.cpu_seconds()? - before);
    let resident = float(kilobytes(screen.process()?, "VmRSS:")?) * 1_024.0 / 1e6;
    screen.quit()?;
    let said = screen.said()?;
    let number = |name: &str| -> Result<f64> {
        let value = said.split([' ', '\n']).rev().find_map(|word| word.strip_prefix(name));
        let value = value.with_context(|| format!("weir did not tell {name}: {said}"))?;
        value.parse().with_context(|| format!("{name} is no number in {said}"))
    };
    inform("top_pictures_100k", number("pictures=")?, "pictures");
    at_most("top_picture_100k_mean", number("mean_ms=")?, "ms", 16.0);
    at_most("top_picture_100k_dearest", number("dearest_cpu_ms=")?, "ms_of_cpu", 16.0);
    // Others on the same cores take part in this one.
    inform("top_picture_100k_longest", number("longest_ms=")?, "ms");
    inform("top_cpu_100k_keys_held", used / took * 100.0, "%_of_a_core");
    inform("top_resident_100k", resident, "MB");
    Ok(())
}
