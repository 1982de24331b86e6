//! Printing a benchmark's figures, and reading clocks of work.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs;
use std::mem::zeroed;

use anyhow::{Context as _, Result};

/// A figure without a target.
pub fn inform(name: &str, value: f64, unit: &str) {
    println!("{name} {} {unit}", digits(value));
}

/// A figure that must not exceed `target`.
pub fn at_most(name: &str, value: f64, unit: &str, target: f64) {
    let word = if value <= target { "ok" } else { "short" };
    println!("{name} {} {unit} target <= {target} {word}", digits(value));
}

/// Whole numbers as such, small ones with three decimals.
fn digits(value: f64) -> String {
    if value.fract() == 0.0 || value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

/// The middle one; not a number where there is none.
pub fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}

/// The one that `percent` of the others do not exceed; not a number where there is none.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((values.len() * percent / 100).min(last)).copied().unwrap_or(f64::NAN)
}

/// A count for arithmetic with figures.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^52")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// Seconds of CPU that the calling thread has used, user and system.
pub fn thread_cpu() -> f64 {
    cpu(libc::RUSAGE_THREAD)
}

/// The same of all threads of the process.
pub fn process_cpu() -> f64 {
    cpu(libc::RUSAGE_SELF)
}

fn cpu(who: i32) -> f64 {
    // SAFETY: all-zero is a valid rusage.
    #[expect(unsafe_code, reason = "a C structure")]
    let mut usage: libc::rusage = unsafe { zeroed() };
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: the structure lives across the call.
    let code = unsafe { libc::getrusage(who, &raw mut usage) };
    assert!(code == 0, "getrusage knows both scopes");
    let seconds = |time: libc::timeval| {
        let micros = u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or_default();
        float(micros) / 1e6
    };
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// A number of a process's `status`, which are in KiB.
pub fn kilobytes(process: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("no {name} in status"))
}
