//! The one place of the agent where clocks are read.

use std::fs;

use weir_flow::ledger::Clock;
use weir_flow::{BootTime, WallTime};

use crate::AgentError;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Reads `CLOCK_BOOTTIME` and what to add to it to get wall time.
pub fn now() -> Clock {
    // Stopped between the two readings, the process would take the pause for an offset.
    const APART_NANOS: u64 = 1_000_000;
    let (mut boot, mut wall) = (read(libc::CLOCK_BOOTTIME), read(libc::CLOCK_REALTIME));
    for _ in 0..3 {
        let after = read(libc::CLOCK_BOOTTIME);
        if after - boot <= APART_NANOS {
            break;
        }
        (boot, wall) = (after, read(libc::CLOCK_REALTIME));
    }
    let wall_offset_nanos = wall.cast_signed().wrapping_sub(boot.cast_signed());
    Clock { now: BootTime(boot), wall_offset_nanos }
}

/// Wall time now.
pub fn wall() -> WallTime {
    WallTime(read(libc::CLOCK_REALTIME))
}

/// CPU time of the calling thread so far, nanoseconds.
pub fn thread_cpu_nanos() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The id of this boot: boot time means nothing in another one.
pub fn boot_id() -> Result<u128, AgentError> {
    let text = fs::read_to_string(BOOT_ID)
        .map_err(|source| AgentError::Kernel { path: BOOT_ID, source })?;
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&hex, 16).map_err(|error| AgentError::Kernel {
        path: BOOT_ID,
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
    })
}

#[expect(unsafe_code, reason = "std has no CLOCK_BOOTTIME and no thread CPU clock")]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to; the clock ids exist on every Linux since
    // 2.6.39, and a failure leaves the zeroed value.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
