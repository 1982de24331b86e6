//! Packets and bytes.

use std::ops::{Add, AddAssign};

/// Packets and bytes of one direction, either cumulative or a difference.
///
/// Bytes are layer-3 bytes as netfilter sees the packet: IP header included, no link header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counters {
    /// Packets; a GRO/GSO super-packet counts once.
    pub packets: u64,
    /// Bytes, IP header included.
    pub bytes: u64,
}

impl Counters {
    /// The growth since `earlier`, or `None` when either number went backwards.
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            packets: self.packets.checked_sub(earlier.packets)?,
            bytes: self.bytes.checked_sub(earlier.bytes)?,
        })
    }

    /// True when nothing was counted.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl Add for Counters {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Both directions of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Source to destination (in a [`crate::Sample`]: the kernel's original direction).
    pub sent: Counters,
    /// Destination to source (in a [`crate::Sample`]: the kernel's reply direction).
    pub received: Counters,
}

impl Totals {
    /// The growth since `earlier`, or `None` when any of the four numbers went backwards.
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            sent: self.sent.since(earlier.sent)?,
            received: self.received.since(earlier.received)?,
        })
    }

    /// The same totals with the directions exchanged.
    #[must_use]
    pub fn turned(self) -> Self {
        Self { sent: self.received, received: self.sent }
    }

    /// True when nothing was counted in either direction.
    pub fn is_zero(self) -> bool {
        self.sent.is_zero() && self.received.is_zero()
    }

    /// Bytes of both directions.
    pub fn bytes(self) -> u64 {
        self.sent.bytes.saturating_add(self.received.bytes)
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
    }
}
