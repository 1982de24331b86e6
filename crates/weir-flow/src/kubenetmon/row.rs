//! From an observation to the table's columns.

use std::net::{IpAddr, Ipv4Addr};

use super::end::End;
use super::observation::{Ends, Observation};
use super::remote::{ConnectionClass, Place, place};
use super::{Ignored, Settings};
use crate::counters::Counters;
use crate::endpoint::{Endpoint, EndpointKind, Name, Resolution, Unresolved};
use crate::tuple::Protocol;

/// The length of the interval that a row stands for, however long the measured one was.
pub const INTERVAL_SECONDS: u16 = 60;
/// What every row says of the remote end's cluster.
const REMOTE_CLUSTER: &str = "UNKNOWN";

/// Which way the bytes of a row went, as the local end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the local end.
    Out,
    /// To the local end.
    In,
}

impl Direction {
    /// Both, in the order of the table's enumeration.
    pub const ALL: [Self; 2] = [Self::Out, Self::In];

    /// As the table has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// An observation in the table's columns: one row for each [`Direction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `intervalStartTime`: a whole minute, seconds since 1970. `date` is its UTC day.
    pub minute: u64,
    /// `environment`.
    pub environment: Name,
    /// `proto`: TCP or UDP.
    pub protocol: Protocol,
    /// `connectionClass`.
    pub class: ConnectionClass,
    /// `connectionFlags`, by name.
    pub flags: Vec<(Name, bool)>,
    /// `local…`.
    pub local: End,
    /// `remote…`.
    pub remote: End,
    /// `remoteCloudService`.
    pub remote_service: Option<Name>,
    /// `bytes` and `packets` of the row [`Direction::Out`].
    pub sent: Counters,
    /// `bytes` and `packets` of the row [`Direction::In`].
    pub received: Counters,
}

impl Row {
    /// The row of an observation whose ends have these names.
    pub fn of(
        observation: &Observation,
        ends: &Ends<'_>,
        settings: &Settings,
    ) -> Result<Self, Ignored> {
        let Observation { original, reply, .. } = observation;
        let protocol = original.protocol;
        if settings.ignore_udp && protocol == Protocol::UDP {
            return Err(Ignored::Udp);
        }
        let [source, _, destination, _] =
            v4([original.source, original.destination, reply.source, reply.destination])?;
        if !matches!(protocol, Protocol::TCP | Protocol::UDP) {
            return Err(Ignored::Protocol);
        }
        if [ends.source, ends.destination].into_iter().any(is_node) {
            return Err(Ignored::Node);
        }
        let is_ambiguous = |end: &&Endpoint| end.unresolved == Some(Unresolved::Ambiguous);
        if [ends.source, ends.destination].iter().any(is_ambiguous) {
            return Err(Ignored::Ambiguous);
        }
        let opened_by = End::of(ends.source, source, original.source_port);
        let answered_by = End::of(ends.destination, destination, reply.source_port);
        let (original, reply) = (observation.sent, observation.received);
        let (local, remote, named, sent, received) =
            if source_is_local(ends, &observation.node).ok_or(Ignored::UnknownDirection)? {
                (opened_by, answered_by, ends.destination, original, reply)
            } else {
                (answered_by, opened_by, ends.source, reply, original)
            };
        let Place { class, cloud, region, service } =
            place(named, remote.address, ends.class, settings)?;
        let place_of = |name: &Name| Some(Name::clone(name));
        Ok(Self {
            minute: observation.seconds - observation.seconds % u64::from(INTERVAL_SECONDS),
            environment: Name::clone(&settings.environment),
            protocol,
            class,
            flags: flags(remote.address, settings),
            local: End {
                cloud: place_of(&settings.cloud),
                region: place_of(&settings.region),
                cluster: place_of(&settings.cluster),
                ..local
            },
            remote: End {
                cloud,
                region,
                cluster: Some(Name::from(REMOTE_CLUSTER)),
                // A zone that the operator gave to a range, where no pod has one.
                zone: remote.zone.or_else(|| named.range.as_ref().and_then(|_| named.zone.clone())),
                ..remote
            },
            remote_service: service,
            sent,
            received,
        })
    }

    /// What the row of this direction counts.
    pub fn counters(&self, direction: Direction) -> Counters {
        match direction {
            Direction::Out => self.sent,
            Direction::In => self.received,
        }
    }
}

/// IPv4 addresses; one that is mapped into IPv6 is an IPv6 address here.
fn v4(addresses: [IpAddr; 4]) -> Result<[Ipv4Addr; 4], Ignored> {
    let mut found = [Ipv4Addr::UNSPECIFIED; 4];
    for (found, address) in found.iter_mut().zip(addresses) {
        let IpAddr::V4(address) = address else { return Err(Ignored::Ipv6) };
        *found = address;
    }
    Ok(found)
}

/// True for the addresses that the API lists of a node. Those that only its agent tells of, as a
/// bridge's, are nobody's in this table.
fn is_node(end: &Endpoint) -> bool {
    end.kind == EndpointKind::Node && end.resolution != Some(Resolution::LocalFacts)
}

/// Where a pod is, as the observing node sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    Here,
    Elsewhere,
    NoNode,
    NoPod,
}

/// Whether the local end is the one that opened; `None` where nobody can say which end is local.
fn source_is_local(ends: &Ends<'_>, node: &str) -> Option<bool> {
    use Whereabouts::{Elsewhere, Here, NoNode, NoPod};
    let of = |end: &Endpoint| match &end.node {
        _ if end.kind != EndpointKind::Pod => NoPod,
        Some(on) if **on == *node => Here,
        Some(on) if !on.is_empty() => Elsewhere,
        _ => NoNode,
    };
    // Where one end is on another node and nobody knows the other end, that one is taken for local.
    match (of(ends.source), of(ends.destination)) {
        (Here, _) | (NoPod, Elsewhere) => Some(true),
        (_, Here) | (Elsewhere, NoPod) => Some(false),
        _ => None,
    }
}

fn flags(remote: Ipv4Addr, settings: &Settings) -> Vec<(Name, bool)> {
    let there = settings.flags.iter().filter(|(prefix, _)| prefix.contains(remote.into()));
    let mut flags: Vec<(Name, bool)> = there.map(|(_, name)| (Name::clone(name), true)).collect();
    flags.sort();
    flags.dedup();
    flags
}
