//! The truth: what crossed the node, counted by the kernel's packet filter and by nothing of weir.
//!
//! Rules in the node count every tracked packet once. Elements of nft sets carry the counters;
//! their keys are the connection's original tuple and the address that answers.
//!
//! - Packets of connections that are in the table already are counted as they come: at the hooks
//!   prerouting and output, priority −150, after connection tracking (−200) and before translation
//!   (−100).
//! - A packet that begins a connection is noted at −90, after translation, since the backend is
//!   known only there, and counted when its entry has been put into the table: at the very end of
//!   postrouting or input. One that is dropped on the way leaves no entry, and so is in no
//!   connection's counters ("stillborn").
//!
//! Packets from the loopback device are skipped at prerouting and input: they were counted on their
//! way out. A bridged frame passes prerouting once, because the kernel skips the second pass of a
//! frame that its bridge has already sent through.

mod nft;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use weir_flow::{Counters, Protocol, Totals};

use crate::cluster::churn;
use crate::scenario::{Family, Place, Scenario, TrafficProtocol};

pub(crate) use nft::last_places;
pub use nft::{counted, glance, install, read, reset};

/// A connection as the truth tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// IP protocol.
    pub protocol: Protocol,
    /// Original source.
    pub source: IpAddr,
    /// Original source port; 0 where the protocol has none.
    pub source_port: u16,
    /// What was dialled.
    pub dialled: IpAddr,
    /// The port dialled; for ICMP the request's type and code; else 0.
    pub dialled_port: u16,
    /// Who answers.
    pub backend: IpAddr,
}

/// What the rules have counted.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Both directions, by connection.
    pub connections: BTreeMap<ConnectionKey, Totals>,
    /// Packets that made a TCP entry without being a SYN, by connection.
    pub picked_up: BTreeMap<ConnectionKey, Counters>,
    /// What belongs to no connection's counters.
    pub excluded: Vec<Excluded>,
    /// Packets that would have begun a connection, but were dropped before its entry was in the
    /// table.
    pub stillborn: Counters,
    /// Everything counted, by a counter of its own.
    pub counted: Counters,
}

/// Packets outside of every connection's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// Why.
    pub reason: ExcludedReason,
    /// From where.
    pub source: IpAddr,
    /// To where.
    pub destination: IpAddr,
    /// IP protocol of the packets.
    pub protocol: Protocol,
    /// How many.
    pub counters: Counters,
}

/// Why packets are in no connection's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExcludedReason {
    /// Connection tracking could make nothing of them.
    Invalid,
    /// Not tracked, as neighbour discovery is.
    Untracked,
    /// An ICMP error about a connection.
    IcmpError,
    /// A TCP SYN repeated after an answer to it had passed: the kernel ignores it.
    LateSyn,
    /// Dropped before the entry it would have begun was in the table.
    Stillborn,
}

/// What a connection is summed by: the words of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Who opened the connections.
    pub source: IpAddr,
    /// The backend.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: Protocol,
    /// The backend's port; for ICMP type and code.
    pub destination_port: u16,
    /// The service address dialled, where it differs from the backend.
    pub service: Option<SocketAddr>,
}

/// A group's truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupTruth {
    /// Both directions.
    pub totals: Totals,
    /// Different connections; one tuple used again counts once.
    pub connections: u64,
    /// Packets that made a fresh entry in the middle of a stream, in `totals` as well.
    pub picked_up: Counters,
    /// Connections whose entry began with a packet of the answering side.
    pub turned: u64,
}

/// The truth of a run.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// By group.
    pub groups: BTreeMap<Group, GroupTruth>,
    /// What belongs to no connection's counters.
    pub excluded: Vec<Excluded>,
    /// See [`Reading::stillborn`].
    pub stillborn: Counters,
}

/// What the scenario knows of ports: who listens, and which port is behind a service.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    listening: BTreeSet<(Protocol, SocketAddr)>,
    behind: BTreeMap<(Protocol, SocketAddr, IpAddr), u16>,
}

impl Ports {
    /// The ports of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        let mut ports = Self::default();
        for (_, protocol, address) in scenario.listeners() {
            if protocol != TrafficProtocol::Icmp {
                ports.listening.insert((protocol.number(Family::V4), address));
            }
        }
        for address in churn::listeners(scenario) {
            ports.listening.insert((Protocol::TCP, address));
        }
        for service in &scenario.services {
            let inside = service.addresses.iter().map(|address| (*address, service.port));
            let balancer = service.load_balancer.iter().map(|address| (*address, service.port));
            let uplinks = scenario.nodes.iter().flat_map(|node| &node.uplinks);
            let by_port =
                service.node_port.into_iter().flat_map(|p| uplinks.clone().map(move |u| (*u, p)));
            for (address, port) in inside.chain(balancer).chain(by_port) {
                let dialled = SocketAddr::new(address, port);
                for (pod, port) in &service.backends {
                    let place = Place::Pod(*pod);
                    if let Some(backend) = scenario.address(place, place, Family::of(address)) {
                        ports.behind.insert((service.protocol, dialled, backend), *port);
                        let backend = SocketAddr::new(backend, *port);
                        ports.listening.insert((service.protocol, backend));
                    }
                }
            }
        }
        ports
    }

    /// The group of a connection, and whether its directions had to be turned round: after its
    /// entry is gone, a connection comes back with the direction of its next packet.
    pub fn group(&self, key: &ConnectionKey) -> (Group, bool) {
        let dialled = SocketAddr::new(key.dialled, key.dialled_port);
        if let Some(port) = self.behind.get(&(key.protocol, dialled, key.backend)) {
            let group = Group {
                source: key.source,
                destination: key.backend,
                protocol: key.protocol,
                destination_port: *port,
                service: Some(dialled),
            };
            return (group, false);
        }
        let source = SocketAddr::new(key.source, key.source_port);
        let listens = |address| self.listening.contains(&(key.protocol, address));
        if listens(source) && !listens(dialled) {
            let group = Group {
                source: key.backend,
                destination: key.source,
                protocol: key.protocol,
                destination_port: key.source_port,
                service: None,
            };
            return (group, true);
        }
        let translated = key.dialled != key.backend;
        let group = Group {
            source: key.source,
            destination: key.backend,
            protocol: key.protocol,
            destination_port: key.dialled_port,
            service: translated.then_some(dialled),
        };
        (group, false)
    }
}

impl Truth {
    /// Sums a reading by group.
    pub fn of(reading: &Reading, ports: &Ports) -> Self {
        let mut groups: BTreeMap<Group, GroupTruth> = BTreeMap::new();
        for (key, totals) in &reading.connections {
            let (group, turned) = ports.group(key);
            let truth = groups.entry(group).or_default();
            truth.totals += if turned { totals.turned() } else { *totals };
            truth.connections += 1;
            truth.turned += u64::from(turned);
        }
        for (key, counters) in &reading.picked_up {
            groups.entry(ports.group(key).0).or_default().picked_up += *counters;
        }
        Self { groups, excluded: reading.excluded.clone(), stillborn: reading.stillborn }
    }

    /// The sum over all groups.
    pub fn total(&self) -> Totals {
        let mut total = Totals::default();
        for group in self.groups.values() {
            total += group.totals;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: &str, dialled: &str, backend: &str) -> ConnectionKey {
        let (source, dialled): (SocketAddr, SocketAddr) =
            (source.parse().unwrap(), dialled.parse().unwrap());
        ConnectionKey {
            protocol: Protocol::TCP,
            source: source.ip(),
            source_port: source.port(),
            dialled: dialled.ip(),
            dialled_port: dialled.port(),
            backend: backend.parse().unwrap(),
        }
    }

    fn ports() -> Ports {
        let listening = "10.0.0.3:8080".parse().unwrap();
        let service = "10.96.0.10:80".parse().unwrap();
        Ports {
            listening: BTreeSet::from([(Protocol::TCP, listening)]),
            behind: BTreeMap::from([((Protocol::TCP, service, listening.ip()), 8080)]),
        }
    }

    fn totals(sent: u64, received: u64) -> Totals {
        Totals {
            sent: Counters { packets: 1, bytes: sent },
            received: Counters { packets: 1, bytes: received },
        }
    }

    #[test]
    fn a_service_is_named_with_its_backend() {
        let (group, turned) = ports().group(&key("10.0.0.2:4000", "10.96.0.10:80", "10.0.0.3"));
        assert!(!turned);
        assert_eq!(group.destination, "10.0.0.3".parse::<IpAddr>().unwrap());
        assert_eq!(group.destination_port, 8080);
        assert_eq!(group.service, Some("10.96.0.10:80".parse().unwrap()));
    }

    #[test]
    fn a_connection_picked_up_backwards_is_summed_with_its_kind() {
        let connections = BTreeMap::from([
            (key("10.0.0.2:4000", "10.0.0.3:8080", "10.0.0.3"), totals(10, 1_000)),
            (key("10.0.0.3:8080", "10.0.0.2:4000", "10.0.0.2"), totals(500, 7)),
        ]);
        let reading = Reading { connections, ..Reading::default() };
        let truth = Truth::of(&reading, &ports());
        assert_eq!(truth.groups.len(), 1);
        let (group, truth) = truth.groups.first_key_value().unwrap();
        assert_eq!((group.destination_port, group.service), (8080, None));
        assert_eq!(truth.totals.sent, Counters { packets: 2, bytes: 17 });
        assert_eq!(truth.totals.received, Counters { packets: 2, bytes: 1_500 });
        assert_eq!((truth.connections, truth.turned), (2, 1));
    }
}
