//! One record over the windows that its interval touches.

use crate::record::{FlowRecord, RecordFlags};
use crate::time::{HOUR, SECOND, WallTime};

use super::{Level, Measures};

/// The longest stretch over which one record is spread, in seconds. The counters of a longer
/// interval go to its last part, so that no record makes windows without limit.
pub const LONGEST_SPREAD_SECONDS: u64 = 7 * 24 * 3_600;

const MINUTE: u64 = 60 * SECOND;

/// Calls `each` with the start of a 10-second window (seconds since 1970) and the record's part in
/// it; a window may come more than once, and parts without anything in them do not come.
///
/// The interval is half-open. Each counter is split by floor in proportion to the time spent in
/// each window; the remainder goes to the last. To bound the windows, an interval longer than a
/// minute is split at minutes only, and one longer than an hour at hours only: each such part then
/// stands in the last 10-second window that the interval touches in that minute or hour. Openings
/// always stand in the window of the connection's start, ends in the interval's last window.
pub(super) fn spread(record: &FlowRecord, wall_offset: i64, mut each: impl FnMut(u64, Measures)) {
    let to = record.interval_to.to_wall(wall_offset).0;
    let earliest = to.saturating_sub(LONGEST_SPREAD_SECONDS * SECOND);
    let from = record.interval_from.to_wall(wall_offset).0.clamp(earliest, to);
    // Half-open, except that an interval without length still lies in a window.
    let last_window = window_of((to - 1.min(to)).max(from));

    let total = counted(record);
    let mut rest = total;
    if !total.is_zero() {
        let duration = to - from;
        for (window, nanos) in parts(from, to) {
            if window == last_window {
                break;
            }
            let part = scaled(total, nanos, duration);
            rest = without(rest, part);
            if !part.is_zero() {
                each(window, part);
            }
        }
    }
    rest.connections_closed = u64::from(record.flags.has(RecordFlags::CLOSED));
    rest.connections_failed = u64::from(record.flags.has(RecordFlags::FAILED));
    rest.connections_unreplied = u64::from(record.flags.has(RecordFlags::UNREPLIED));
    if !rest.is_zero() {
        each(last_window, rest);
    }

    let first_seen = first_seen(record);
    if !first_seen.is_zero() {
        let start = record.start.map(|WallTime(nanos)| nanos);
        let start = start.filter(|start| (from..=to).contains(start)).unwrap_or(from);
        each(window_of(start).min(last_window), first_seen);
    }
}

/// The start of the finest window that holds this moment, in seconds.
fn window_of(nanos: u64) -> u64 {
    let seconds = nanos / SECOND;
    seconds - seconds % Level::TenSeconds.seconds()
}

/// The windows of `from..to` and the nanoseconds in each, in order.
fn parts(from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
    let duration = to - from;
    let step = if duration <= MINUTE {
        Level::TenSeconds.seconds() * SECOND
    } else if duration <= HOUR {
        MINUTE
    } else {
        HOUR
    };
    let mut at = from;
    std::iter::from_fn(move || {
        if at >= to {
            return None;
        }
        let end = (at / step).saturating_add(1).saturating_mul(step).min(to);
        let part = (window_of(end - 1), end - at);
        at = end;
        Some(part)
    })
}

fn counted(record: &FlowRecord) -> Measures {
    let delta = record.delta();
    Measures {
        bytes_sent: delta.sent.bytes,
        bytes_received: delta.received.bytes,
        packets_sent: delta.sent.packets,
        packets_received: delta.received.packets,
        ..Measures::default()
    }
}

fn first_seen(record: &FlowRecord) -> Measures {
    let opened = record.flags.has(RecordFlags::OPENED);
    let uncounted = opened && record.flags.has(RecordFlags::UNCOUNTED);
    Measures {
        connections_opened: u64::from(opened),
        connections_uncounted: u64::from(uncounted),
        ..Measures::default()
    }
}

/// `nanos` of `duration` of each counter, rounded down.
fn scaled(total: Measures, nanos: u64, duration: u64) -> Measures {
    let scale = |counter: u64| {
        let part = u128::from(counter) * u128::from(nanos) / u128::from(duration);
        u64::try_from(part).expect("a part of an interval is no longer than the interval")
    };
    Measures {
        bytes_sent: scale(total.bytes_sent),
        bytes_received: scale(total.bytes_received),
        packets_sent: scale(total.packets_sent),
        packets_received: scale(total.packets_received),
        ..Measures::default()
    }
}

fn without(rest: Measures, part: Measures) -> Measures {
    // Floors never add up to more than the whole.
    Measures {
        bytes_sent: rest.bytes_sent - part.bytes_sent,
        bytes_received: rest.bytes_received - part.bytes_received,
        packets_sent: rest.packets_sent - part.packets_sent,
        packets_received: rest.packets_received - part.packets_received,
        ..rest
    }
}
