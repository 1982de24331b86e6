//! Records summed by flow key in one window.
//!
//! [`Folder`] takes a batch's attributed records and gives [`Folded`]: the same bytes, packets and
//! connections, once per [`Level`]. Levels agree by construction, since each is rolled up from the
//! one before it.

mod bound;
mod folder;
mod spread;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::ops::AddAssign;
use std::sync::Arc;

use crate::class::Class;
use crate::endpoint::{Endpoint, Name};
use crate::tuple::Protocol;

pub use folder::{DEFAULT_EXTERNAL_LIMIT, Folder};
pub use spread::LONGEST_SPREAD_SECONDS;

/// A roll-up level: the length of its windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// 10-second windows, the finest.
    TenSeconds,
    /// 1-minute windows.
    Minute,
    /// 1-hour windows.
    Hour,
}

impl Level {
    /// All levels, finest first.
    pub const ALL: [Self; 3] = [Self::TenSeconds, Self::Minute, Self::Hour];

    /// Window length in seconds.
    pub fn seconds(self) -> u64 {
        match self {
            Self::TenSeconds => 10,
            Self::Minute => 60,
            Self::Hour => 3_600,
        }
    }
}

/// What makes two records one flow. Endpoints are indices into [`Folded::endpoints`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Start of the window, seconds since 1970.
    pub window: u64,
    /// IP protocol.
    pub protocol: Protocol,
    /// Who opened.
    pub source: u32,
    /// Who answered.
    pub destination: u32,
    /// The destination's port (ICMP: type and code). The source's port is folded away.
    pub destination_port: u16,
    /// The service address dialled, if any.
    pub service: Option<(IpAddr, u16)>,
    /// Its name: an index into [`Folded::service_names`].
    pub service_name: Option<u32>,
    /// Traffic class.
    pub class: Class,
}

/// The sums of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Source to destination.
    pub bytes_sent: u64,
    /// Destination to source.
    pub bytes_received: u64,
    /// Source to destination.
    pub packets_sent: u64,
    /// Destination to source.
    pub packets_received: u64,
    /// Connections opened, in the window of their start.
    pub connections_opened: u64,
    /// Connections closed, in the window of their end.
    pub connections_closed: u64,
    /// Of those, TCP destroyed without a reply or reset before established.
    pub connections_failed: u64,
    /// Of those, datagram connections that never had a reply.
    pub connections_unreplied: u64,
    /// Connections without counters, in the window where they were first seen.
    pub connections_uncounted: u64,
    /// Bytes, both directions, that also travelled a second leg: through the observing node on to
    /// the backend's. They are part of no total.
    pub transit_bytes: u64,
}

impl Measures {
    /// True when there is nothing to store.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Measures {
    fn add_assign(&mut self, other: Self) {
        self.bytes_sent = self.bytes_sent.saturating_add(other.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(other.bytes_received);
        self.packets_sent = self.packets_sent.saturating_add(other.packets_sent);
        self.packets_received = self.packets_received.saturating_add(other.packets_received);
        self.connections_opened += other.connections_opened;
        self.connections_closed += other.connections_closed;
        self.connections_failed += other.connections_failed;
        self.connections_unreplied += other.connections_unreplied;
        self.connections_uncounted += other.connections_uncounted;
        self.transit_bytes = self.transit_bytes.saturating_add(other.transit_bytes);
    }
}

/// A folded flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// What it is.
    pub key: FlowKey,
    /// How much it was.
    pub measures: Measures,
}

/// One batch, folded at every level. Each level holds the whole batch once.
#[derive(Clone, Debug, Default)]
pub struct Folded {
    /// The endpoints the keys point to.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Names of services (`NAMESPACE/NAME`) that the keys point to.
    pub service_names: Vec<Name>,
    /// Flows per level, in the order of [`Level::ALL`], each sorted by key.
    pub levels: [Vec<Flow>; 3],
    /// External endpoints that were folded to a network because there were too many
    /// ([`Folder::with_external_limit`]). Their bytes and connections are in the network's flows.
    pub folded_keys: u64,
}
