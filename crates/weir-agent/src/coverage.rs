//! How much of what the machine's network moved was counted, and why it was not all.
//!
//! [`Coverage`] compares the ledger's deltas with [`Moved`] over the same intervals. When it is
//! low, [`diagnose`] names the causes among the [`Facts`], with the command that removes each. No
//! cause found is an answer too: traffic is missing and nobody knows why.

mod facts;
mod rules;

use std::collections::VecDeque;
use std::fmt;

use weir_flow::BootTime;
use weir_flow::time::SECOND;

pub use self::facts::{Counted, Facts};
pub use self::rules::{Place, Rules};
use crate::interfaces::Moved;

/// How far back the window of [`Coverage::ratio`] reaches.
pub const WINDOW_SECONDS: u64 = 60;
/// At most this many intervals are kept, however short they are.
const MAX_INTERVALS: usize = 256;
/// Below this many expected bytes a ratio says nothing: what is not tracked by nature (neighbour
/// discovery, ICMP errors) weighs too much.
const MIN_BYTES: u64 = 256 * 1024;
/// Below this ratio something is wrong rather than imprecise.
const LOW: f64 = 0.9;
/// A cause that explains less than one part in this many of the expected bytes is not named.
const SIGNIFICANT_PART: u64 = 100;
/// Names listed in a sentence at most.
const LISTED: usize = 4;

/// Counted against expected bytes, in a sliding window and in total.
#[derive(Debug, Default)]
pub struct Coverage {
    /// When each interval ended, the oldest first.
    window: VecDeque<(BootTime, Share)>,
    recent: Share,
    total: Share,
    incomparable: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    counted: u64,
    expected: u64,
}

impl Coverage {
    /// Adds an interval that ended `now`: what was counted, and what moved.
    pub fn add(&mut self, now: BootTime, counted: Counted, moved: &Moved) {
        let expected = match counted.from_here {
            Some(from_here) => moved.expected_with(from_here),
            None => moved.expected_l3_bytes(),
        };
        let share = Share { counted: counted.bytes, expected };
        self.window.push_back((now, share));
        self.recent.add(share);
        self.total.add(share);
        let begin = now.0.saturating_sub(WINDOW_SECONDS * SECOND);
        while self
            .window
            .front()
            .is_some_and(|(at, _)| at.0 <= begin || self.window.len() > MAX_INTERVALS)
        {
            if let Some((_, old)) = self.window.pop_front() {
                self.recent.remove(old);
            }
        }
    }

    /// Notes an interval whose counters could not be compared (see
    /// [`crate::interfaces::InterfaceCounters::difference`]). It has no part in any ratio.
    pub fn skip(&mut self) {
        self.incomparable += 1;
    }

    /// Counted ÷ expected bytes of the last minute; `None` while too little moved to say.
    ///
    /// 1 is everything. It can be a little more: the two are not read at the same instant.
    pub fn ratio(&self) -> Option<f64> {
        self.recent.ratio()
    }

    /// Counted ÷ expected bytes since the beginning.
    pub fn total_ratio(&self) -> Option<f64> {
        self.total.ratio()
    }

    /// True when the last minute's ratio is so low that something is wrong.
    pub fn is_low(&self) -> bool {
        self.ratio().is_some_and(|ratio| ratio < LOW)
    }

    /// Bytes expected and not counted in the last minute.
    pub fn missing_bytes(&self) -> u64 {
        self.recent.expected.saturating_sub(self.recent.counted)
    }

    /// Intervals that [`Coverage::skip`] noted.
    pub fn incomparable(&self) -> u64 {
        self.incomparable
    }
}

impl Share {
    fn add(&mut self, other: Self) {
        self.counted = self.counted.saturating_add(other.counted);
        self.expected = self.expected.saturating_add(other.expected);
    }

    fn remove(&mut self, other: Self) {
        self.counted = self.counted.saturating_sub(other.counted);
        self.expected = self.expected.saturating_sub(other.expected);
    }

    fn ratio(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
        let ratio = self.counted as f64 / self.expected as f64;
        (self.expected >= MIN_BYTES).then_some(ratio)
    }
}

/// Why bytes that moved were not counted. Displayed as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The kernel has no connection tracking here.
    ConntrackAbsent,
    /// Nothing is tracked, because no rule asks for it.
    TrackingIdle,
    /// `nf_conntrack_acct` is 0.
    AccountingOff,
    /// Entries made while accounting was off never get counters.
    EntriesWithoutCounters {
        /// How many there are.
        entries: u64,
    },
    /// Frames cross bridges outside connection tracking.
    BridgeNotTracked {
        /// Bridges, the busiest first.
        bridges: Vec<String>,
        /// Bytes from port to port.
        bytes: u64,
        /// IPv4 is tracked there; `None`: the module `br_netfilter` is not loaded.
        ipv4: Option<bool>,
        /// The same for IPv6.
        ipv6: Option<bool>,
    },
    /// Rules exempt packets from tracking.
    Notrack {
        /// Where, at most [`Rules::LIMIT`].
        rules: Vec<Place>,
    },
    /// Whether rules exempt packets from tracking could not be found out.
    NotrackUnknown {
        /// Why not.
        reason: String,
    },
    /// Packets take a path past the counters of their entries.
    Offloaded {
        /// Entries so marked.
        entries: u64,
        /// Flowtables that do not count (without `counter`).
        flowtables: Vec<Place>,
    },
    /// Interfaces receive what the IP stack never sees.
    Bypassed {
        /// Interfaces, the busiest first.
        interfaces: Vec<String>,
        /// Bytes.
        bytes: u64,
    },
}

impl Cause {
    /// The stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ConntrackAbsent => "conntrack_absent",
            Self::TrackingIdle => "tracking_idle",
            Self::AccountingOff => "accounting_off",
            Self::EntriesWithoutCounters { .. } => "entries_without_counters",
            Self::BridgeNotTracked { .. } => "bridge_not_tracked",
            Self::Notrack { .. } => "notrack_rules",
            Self::NotrackUnknown { .. } => "notrack_unknown",
            Self::Offloaded { .. } => "offloaded",
            Self::Bypassed { .. } => "bypassed",
        }
    }

    /// The command that removes the cause, where one does. It is to be run as root in the network
    /// namespace concerned.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::ConntrackAbsent => Some("modprobe nf_conntrack".to_owned()),
            Self::TrackingIdle => Some("weir up --activate-conntrack".to_owned()),
            Self::AccountingOff => Some("sysctl -w net.netfilter.nf_conntrack_acct=1".to_owned()),
            Self::BridgeNotTracked { ipv4, ipv6, .. } => Some(bridge_remedy(*ipv4, *ipv6)),
            Self::Notrack { rules } => rules.first().and_then(Place::deletion),
            Self::Offloaded { flowtables, .. } => flowtables.first().map(|place| {
                let Place { family, table, name, .. } = place;
                format!("nft 'add flowtable {family} {table} {name} {{ counter; }}'")
            }),
            Self::EntriesWithoutCounters { .. }
            | Self::NotrackUnknown { .. }
            | Self::Bypassed { .. } => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConntrackAbsent => f.write_str(
                "the kernel has no connection tracking here: the module nf_conntrack is not loaded",
            ),
            Self::TrackingIdle => {
                f.write_str("connection tracking is idle, because no firewall rule uses it")
            }
            Self::AccountingOff => f.write_str(
                "connections are tracked but not counted, because nf_conntrack_acct is 0; \
                 switched on, it counts connections made from then on",
            ),
            Self::EntriesWithoutCounters { entries } => write!(
                f,
                "{entries} connections were made while nf_conntrack_acct was 0 and never get \
                 counters; they go as the connections end"
            ),
            Self::BridgeNotTracked { bridges, bytes, .. } => write!(
                f,
                "{bytes} bytes went from port to port of a bridge ({}), which is not tracked",
                list(bridges)
            ),
            Self::Notrack { rules } => write!(
                f,
                "rules exempt packets from tracking, which may be intended: {}",
                list(rules)
            ),
            Self::NotrackUnknown { reason } => {
                write!(f, "whether rules exempt packets from tracking is unknown: {reason}")
            }
            Self::Offloaded { entries, flowtables } => {
                write!(f, "{entries} connections are offloaded, past their counters")?;
                if flowtables.is_empty() {
                    return Ok(());
                }
                write!(f, "; flowtables without a counter: {}", list(flowtables))
            }
            Self::Bypassed { interfaces, bytes } => write!(
                f,
                "{bytes} bytes were received that the kernel's IP stack never saw, as with an eBPF \
                 datapath, packets dropped by XDP, Open vSwitch or macvlan; busiest: {}",
                list(interfaces)
            ),
        }
    }
}

/// Names what explains a low coverage, the gravest first. Pure: the same facts, the same causes.
pub fn diagnose(facts: &Facts) -> Vec<Cause> {
    let mut causes = Vec::new();
    let Facts { settings, counted, moved, rules, tracked } = facts;
    if settings.accounting.is_none() && settings.count.is_none() {
        causes.push(Cause::ConntrackAbsent);
    } else if *tracked == Some(false) {
        causes.push(Cause::TrackingIdle);
    }
    if settings.accounting == Some(false) {
        causes.push(Cause::AccountingOff);
    }
    if counted.entries_without_counters > 0 {
        causes.push(Cause::EntriesWithoutCounters { entries: counted.entries_without_counters });
    }
    let significant = (moved.expected_l3_bytes() / SIGNIFICANT_PART).max(1);
    let (ipv4, ipv6) = (settings.bridged_ipv4, settings.bridged_ipv6);
    if moved.bridged >= significant && (ipv4, ipv6) != (Some(true), Some(true)) {
        causes.push(Cause::BridgeNotTracked {
            bridges: names(&moved.bridges),
            bytes: moved.bridged,
            ipv4,
            ipv6,
        });
    }
    if moved.bypassed > 0 {
        causes
            .push(Cause::Bypassed { interfaces: names(&moved.interfaces), bytes: moved.bypassed });
    }
    if counted.offloaded_entries > 0 || !rules.flowtables.is_empty() {
        causes.push(Cause::Offloaded {
            entries: counted.offloaded_entries,
            flowtables: rules.flowtables.clone(),
        });
    }
    if !rules.notrack.is_empty() {
        causes.push(Cause::Notrack { rules: rules.notrack.clone() });
    }
    if let Some(reason) = &rules.unknown {
        causes.push(Cause::NotrackUnknown { reason: reason.clone() });
    }
    causes
}

fn bridge_remedy(ipv4: Option<bool>, ipv6: Option<bool>) -> String {
    let mut command = String::new();
    if ipv4.is_none() {
        command.push_str("modprobe br_netfilter && ");
    }
    command.push_str("sysctl -w");
    for (state, name) in [(ipv4, "iptables"), (ipv6, "ip6tables")] {
        if state != Some(true) {
            command.push_str(" net.bridge.bridge-nf-call-");
            command.push_str(name);
            command.push_str("=1");
        }
    }
    command
}

fn names(interfaces: &[(String, u64)]) -> Vec<String> {
    interfaces.iter().map(|(name, _)| name.clone()).collect()
}

/// The first few, and how many more.
fn list<T: fmt::Display>(all: &[T]) -> String {
    let shown: Vec<String> = all.iter().take(LISTED).map(T::to_string).collect();
    let shown = shown.join(", ");
    match all.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
