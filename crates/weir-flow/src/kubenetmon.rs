//! Rows as kubenetmon writes them: the same traffic in the words and by the rules of another
//! meter, for whoever has dashboards and queries made for it.
//!
//! An [`Observation`] is what a node saw of one connection since it looked last. With the names of
//! its two ends it becomes a [`Row`], or there is a reason why that table has no place for it
//! ([`Ignored`]). The table holds each row twice, once for each [`Direction`].

mod end;
mod observation;
mod remote;
mod row;

use std::ops::AddAssign;

use crate::endpoint::Name;
use crate::ranges::Prefix;

pub use self::end::{End, INSTANCE_LABEL};
pub use self::observation::{Ends, Observation};
pub use self::remote::ConnectionClass;
pub use self::row::{Direction, INTERVAL_SECONDS, Row};

/// What rows say of the cluster they are from, and what is left out of them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `development`, `staging`, `production`, or whatever the operator calls it.
    pub environment: Name,
    /// `aws`, `gcp` or `azure`.
    pub cloud: Name,
    /// The cluster's region, as the cloud's published ranges write it.
    pub region: Name,
    /// The cluster's name.
    pub cluster: Name,
    /// UDP has no rows.
    pub ignore_udp: bool,
    /// Flags of connections whose remote end lies in one of these (`connectionFlags`).
    pub flags: Vec<(Prefix, Name)>,
}

/// Why there is no row of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ignored {
    /// Nothing went over the connection.
    NoTraffic,
    /// The kernel did not count: bytes are unknown.
    NotCounted,
    /// Neither TCP nor UDP.
    Protocol,
    /// An end is 127.0.0.1.
    Loopback,
    /// Not this node's to tell.
    Foreign,
    /// UDP, and the settings leave it out.
    Udp,
    /// The table has IPv4 addresses only.
    Ipv6,
    /// An end is a node, or a pod on a node's network.
    Node,
    /// Several may have had an end's address then.
    Ambiguous,
    /// Neither end is known to be on the node.
    UnknownDirection,
    /// The remote end is in the own cloud, and nobody says in which region.
    EmptyCloudRegion,
}

impl Ignored {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::NoTraffic,
        Self::NotCounted,
        Self::Protocol,
        Self::Loopback,
        Self::Foreign,
        Self::Udp,
        Self::Ipv6,
        Self::Node,
        Self::Ambiguous,
        Self::UnknownDirection,
        Self::EmptyCloudRegion,
    ];

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoTraffic => "no_traffic",
            Self::NotCounted => "not_counted",
            Self::Protocol => "protocol",
            Self::Loopback => "loopback",
            Self::Foreign => "foreign",
            Self::Udp => "udp",
            Self::Ipv6 => "ipv6",
            Self::Node => "node",
            Self::Ambiguous => "ambiguous",
            Self::UnknownDirection => "unknown_direction",
            Self::EmptyCloudRegion => "empty_cloud_region",
        }
    }
}

/// What became of observations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that became rows, two each.
    pub labelled: u64,
    /// Those that did not, in the order of [`Ignored::ALL`].
    pub ignored: [u64; Ignored::ALL.len()],
}

impl Counts {
    /// Counts one.
    pub fn add<T>(&mut self, outcome: &Result<T, Ignored>) {
        match outcome {
            Ok(_) => self.labelled += 1,
            Err(reason) => self.ignored[*reason as usize] += 1,
        }
    }

    /// Those that were left out for this reason.
    pub fn of(&self, reason: Ignored) -> u64 {
        self.ignored[reason as usize]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.labelled += other.labelled;
        for (sum, more) in self.ignored.iter_mut().zip(other.ignored) {
            *sum += more;
        }
    }
}
