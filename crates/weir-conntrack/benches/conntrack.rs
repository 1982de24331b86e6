//! What reading conntrack costs, against a floor in the same run, and what is lost under load.
//!
//! `cargo bench -p weir-conntrack`, as root. Prints one figure a line:
//! `NAME VALUE UNIT target OP X ok|short`. `WEIR_BENCH_ENTRIES` and `WEIR_BENCH_SECONDS` make it
//! smaller or larger.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::mem::zeroed;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_conntrack::message::KIND_GET;
use weir_conntrack::netlink::{Received, Request, Socket};
use weir_conntrack::tracking::Tracking;
use weir_conntrack::{Drained, Dump, Events, sysctl};
use weir_lab::fill::{self, RaisedMax};

/// Interleaved rounds of floor and parser; the medians count.
const ROUNDS: usize = 9;
/// Ends of connections per second that must be heard without loss.
const RATE: f64 = 50_000.0;
/// The generator aims a little higher, because a paced run never exceeds its aim.
const AIMED_RATE: u32 = 51_000;
/// How long the reader rests between drains.
const REST: Duration = Duration::from_millis(10);

fn main() -> Result<()> {
    // `cargo test --all-targets` runs this too, without the flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let entries = setting("WEIR_BENCH_ENTRIES", 250_000)?;
    let seconds = setting("WEIR_BENCH_SECONDS", 30)?;
    let _max = RaisedMax::at_least(u64::from(entries) + 100_000)?;
    fill::own_namespace()?;
    Tracking::open()?.install()?;
    ensure!(sysctl::enable().refused.is_empty(), "accounting could not be switched on");

    parse(entries)?;
    fill::flush()?;
    overflow()?;
    destroy(seconds)
}

fn setting(name: &str, default: u32) -> Result<u32> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
        Err(_) => Ok(default),
    }
}

/// Dumps a table, with and without reading what comes.
fn parse(entries: u32) -> Result<()> {
    fill::fill(0, entries)?;
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let mut buffer = vec![0; 32 * 1024];
    let mut dump = Dump::open()?;
    let (mut floors, mut parses, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut allocations = 0;
    // The first round warms caches and is not counted. The two take turns in going first.
    for round in 0..=ROUNDS {
        let first = if round % 2 == 0 { Some(floor_once(&socket, &mut buffer)?) } else { None };
        let (parse, allocated) = parse_once(&mut dump, entries)?;
        let floor = match first {
            Some(floor) => floor,
            None => floor_once(&socket, &mut buffer)?,
        };
        if round > 0 {
            allocations += allocated;
            floors.push(floor);
            parses.push(parse);
            ratios.push(parse / floor);
        }
    }
    let per_entry = 1e9 / f64::from(entries);
    let table = format!("{}k", entries / 1000);
    inform(&format!("floor_{table}"), median(&mut floors) * per_entry, "ns/entry");
    inform(&format!("parse_{table}"), median(&mut parses) * per_entry, "ns/entry");
    inform(
        &format!("parse_over_floor_{table}_of_medians"),
        median(&mut parses) / median(&mut floors),
        "ratio",
    );
    at_most(&format!("parse_over_floor_{table}"), median(&mut ratios), "ratio", 1.09);
    at_most("decode_allocations", float(allocations), "allocations", 0.0);
    Ok(())
}

/// CPU seconds of receiving a dump and throwing it away.
fn floor_once(socket: &Socket, buffer: &mut [u8]) -> Result<f64> {
    let before = cpu();
    socket.send(Request::new(KIND_GET, Request::DUMP, &[0; 4]).bytes())?;
    let mut bytes = 0;
    while let Received::Data(size) = socket.receive(buffer)? {
        bytes += size;
    }
    ensure!(bytes > 0, "the floor read nothing");
    Ok(cpu() - before)
}

/// CPU seconds of a dump whose entries are read, and the allocations after its request.
fn parse_once(dump: &mut Dump, entries: u32) -> Result<(f64, u64)> {
    let before = cpu();
    dump.start()?;
    let allocated = ALLOCATIONS.load(Ordering::Relaxed);
    let (mut read, mut sum) = (0_u32, 0_u64);
    while let Some(chunk) = dump.next_chunk()? {
        chunk.entries(|sample| {
            read += 1;
            sum = sum.wrapping_add(u64::from(sample.id));
        });
    }
    let used = cpu() - before;
    ensure!(read == entries && sum > 0, "{read} entries of {entries} were read");
    Ok((used, ALLOCATIONS.load(Ordering::Relaxed) - allocated))
}

/// Overruns a small buffer and balances the books.
fn overflow() -> Result<()> {
    const SENT: u32 = 20_000;
    let mut events = Events::open(256 * 1024)?;
    fill::fill(0, SENT)?;
    fill::flush()?;
    let drained = drain(&mut events)?;
    ensure!(drained.lost > 0, "the buffer was meant to overrun");
    inform("overflow_lost", float(drained.lost), "events");
    let balance = float(drained.received + drained.malformed + drained.lost) - f64::from(SENT);
    at_most("overflow_unaccounted", balance.abs(), "events", 0.0);
    Ok(())
}

/// Ends connections at a steady rate while this thread listens.
fn destroy(seconds: u32) -> Result<()> {
    let mut events = Events::open(Events::RECEIVE_BUFFER_BYTES)?;
    let duration = Duration::from_secs(seconds.into());
    let generator = thread::spawn(move || fill::churn(AIMED_RATE, duration));
    let before = cpu();
    let mut sum = Drained::default();
    while !generator.is_finished() {
        add(&mut sum, drain(&mut events)?);
        thread::sleep(REST);
    }
    let churned = generator.join().ok().context("the generator panicked")??;
    add(&mut sum, drain(&mut events)?);
    let used = cpu() - before;
    at_least("destroy_rate", churned.rate(), "events/s", RATE);
    at_most("destroy_lost", float(sum.lost), "events", 0.0);
    let balance = float(sum.received + sum.lost) - float(churned.entries);
    at_most("destroy_unaccounted", balance.abs(), "events", 0.0);
    inform("destroy_reader", used * 1e9 / float(sum.received), "ns/event");
    inform("destroy_reader_share", 100.0 * used / churned.took.as_secs_f64(), "percent_of_core");
    Ok(())
}

fn drain(events: &mut Events) -> Result<Drained> {
    let mut sum = Drained { more: true, ..Drained::default() };
    while sum.more {
        add(&mut sum, events.drain(|_| {})?);
    }
    Ok(sum)
}

fn add(sum: &mut Drained, drained: Drained) {
    sum.received += drained.received;
    sum.malformed += drained.malformed;
    sum.lost += drained.lost;
    sum.overrun |= drained.overrun;
    sum.more = drained.more;
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A figure without a target.
fn inform(name: &str, value: f64, unit: &str) {
    println!("{name} {} {unit}", digits(value));
}

fn at_most(name: &str, value: f64, unit: &str, target: f64) {
    judge(name, value, unit, "<=", target, value <= target);
}

fn at_least(name: &str, value: f64, unit: &str, target: f64) {
    judge(name, value, unit, ">=", target, value >= target);
}

fn judge(name: &str, value: f64, unit: &str, operator: &str, target: f64, met: bool) {
    let word = if met { "ok" } else { "short" };
    println!("{name} {} {unit} target {operator} {target} {word}", digits(value));
}

/// Whole numbers as such, small ones with three decimals.
fn digits(value: f64) -> String {
    if value.fract() == 0.0 || value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Seconds of CPU that this thread has used, user and system.
fn cpu() -> f64 {
    // SAFETY: all-zero is a valid rusage.
    #[expect(unsafe_code, reason = "a C structure")]
    let mut usage: libc::rusage = unsafe { zeroed() };
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: the structure lives across the call.
    let code = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    assert!(code == 0, "getrusage knows RUSAGE_THREAD");
    let seconds = |time: libc::timeval| {
        let micros = u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or_default();
        float(micros) / 1e6
    };
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "the trait is unsafe; everything is passed on to the system")]
// SAFETY: alloc and dealloc are the system's own; realloc and alloc_zeroed are built on them.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps this method's contract, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps this method's contract, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}
