//! A flow record: one connection, one interval, both directions.

use std::net::IpAddr;

use crate::counters::Totals;
use crate::state::ConnectionState;
use crate::time::{BootTime, WallTime};
use crate::tuple::Protocol;

/// What one connection did in one interval, as the ledger measured it.
///
/// Counters are absolute, so that overlap and gap between two records of one connection can be
/// proven: the `from` of a record is the `to` of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// The connection's key, unique within an epoch (see [`crate::batch::Epoch`]).
    pub connection: u64,
    /// Conntrack zone.
    pub zone: u16,
    /// IP protocol.
    pub protocol: Protocol,
    /// Who opened the connection.
    pub source: IpAddr,
    /// Its port (ICMP: the identifier).
    pub source_port: u16,
    /// The real backend, not the virtual address.
    pub destination: IpAddr,
    /// Its port (ICMP: type and code).
    pub destination_port: u16,
    /// The service address dialled, where it differs from the backend.
    pub service: Option<(IpAddr, u16)>,
    /// The address and port the source was translated to, where it was.
    pub translated_source: Option<(IpAddr, u16)>,
    /// When the connection was opened; `None` where the kernel does not say.
    pub start: Option<WallTime>,
    /// Where the measured interval begins.
    pub interval_from: BootTime,
    /// Where it ends. Never before `interval_from`.
    pub interval_to: BootTime,
    /// Absolute counters at `interval_from`.
    pub from: Totals,
    /// Absolute counters at `interval_to`.
    pub to: Totals,
    /// The stage it is in at `interval_to`.
    pub state: ConnectionState,
    /// What else happened.
    pub flags: RecordFlags,
}

impl FlowRecord {
    /// What was counted in the interval.
    pub fn delta(&self) -> Totals {
        // A record is only made with `to` at or after `from`; a decoder refuses any other.
        self.to.since(self.from).unwrap_or_default()
    }
}

/// Events and doubts of a record, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecordFlags(pub u16);

impl RecordFlags {
    /// The connection was opened in this record's interval.
    pub const OPENED: Self = Self(1);
    /// The connection ended with this record.
    pub const CLOSED: Self = Self(1 << 1);
    /// It ended as TCP without a reply, or reset before it was established.
    pub const FAILED: Self = Self(1 << 2);
    /// It ended as a datagram connection that never had a reply.
    pub const UNREPLIED: Self = Self(1 << 3);
    /// The entry carries no counters: bytes and packets are unknown, not zero.
    pub const UNCOUNTED: Self = Self(1 << 4);
    /// The kernel made the entry from the middle of a stream.
    pub const PICKED_UP: Self = Self(1 << 5);
    /// The kernel's directions were exchanged to make the listening end the destination.
    pub const TURNED: Self = Self(1 << 6);
    /// The counters had gone backwards: somebody else zeroed them. `from` is zero again.
    pub const ZEROED: Self = Self(1 << 7);
    /// Only part of a longer interval, cut at an hour; event flags stand on the part they belong to.
    pub const SPLIT: Self = Self(1 << 8);
    /// Nothing happened: the connection is there, with these counters. It bills nothing and tells
    /// whoever begins to listen what stands ([`crate::ledger::Ledger::announce`]).
    pub const PRESENT: Self = Self(1 << 9);

    /// `self` if `condition`, else no flag.
    #[must_use]
    pub fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::default() }
    }

    /// True when all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and `other`'s.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These bits without `other`'s.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}
