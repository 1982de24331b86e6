//! Scenario files: what a box contains and what happens in it.
//!
//! [`Scenario::parse`] turns a file into a checked scenario: every name is resolved, every range is
//! in order, and what is left unsaid has its default. The format is described in `docs/lab.md`.

mod action;
mod check;
mod cluster;
mod file;

pub use action::{Action, ActionKind};
pub use cluster::{Churn, Imposter, Range, Setup, Store, Token, Transport, Workload};
pub use file::parse_time;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_flow::Protocol;

use crate::error::{LabError, io_error};

/// A checked scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, for people.
    pub name: String,
    /// How long its traffic lasts.
    pub duration: Duration,
    /// What all random choices follow from.
    pub seed: u64,
    /// `net.netfilter.nf_conntrack_*` of the nodes, by the part of the name after that.
    pub sysctl: BTreeMap<String, i64>,
    /// The nodes; more than one makes a cluster.
    pub nodes: Vec<Node>,
    /// How packets between the nodes of a cluster travel.
    pub transport: Transport,
    /// The pods.
    pub pods: Vec<Pod>,
    /// Virtual addresses and what stands behind them.
    pub services: Vec<Service>,
    /// Machines beyond the nodes.
    pub outside: Vec<Outside>,
    /// Who talks to whom.
    pub traffic: Vec<Traffic>,
    /// What is done to the box while traffic flows, in the order of time.
    pub actions: Vec<Action>,
    /// Pods that own one address in turn.
    pub churn: Option<Churn>,
    /// Agents that must not be believed; where there are any, there are no others.
    pub imposters: Vec<Imposter>,
    /// How weir itself is set up.
    pub setup: Setup,
}

/// A node: a router with a bridge for its pods.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The bridge's addresses with their prefix lengths: the pod networks.
    pub pod_networks: Vec<Network>,
    /// Its addresses towards the outside and the other nodes.
    pub uplinks: Vec<IpAddr>,
    /// The zone it is in.
    pub zone: Option<String>,
    /// The region that is in.
    pub region: Option<String>,
    /// What kind of machine it is (`m5.large`).
    pub instance: Option<String>,
    /// Pods speak to the outside under the node's address.
    pub masquerade: bool,
    /// Pods speak to services under the node's address too.
    pub masquerade_services: bool,
}

/// An address in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address.
    pub address: IpAddr,
    /// The length of the network's prefix.
    pub prefix: u8,
}

impl Network {
    /// The network's own address: all bits after the prefix are 0.
    pub fn base(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let kept = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4((address.to_bits() & kept).into())
            }
            IpAddr::V6(address) => {
                let kept = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6((address.to_bits() & kept).into())
            }
        }
    }

    /// True when `address` lies in this network.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix);
                (u64::from(own.to_bits()) >> shift) == (u64::from(other.to_bits()) >> shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                self.prefix == 0 || differs >> (128 - u32::from(self.prefix)) == 0
            }
            _ => false,
        }
    }
}

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its node, by index.
    pub node: usize,
    /// Its addresses, at most one of a family; those of its node where it has none of its own.
    pub addresses: Vec<IpAddr>,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// What it belongs to.
    pub workload: Option<Workload>,
    /// It shares its node's network.
    pub host_network: bool,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its virtual addresses, at most one of a family.
    pub addresses: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The pods (by index) and ports behind it.
    pub backends: Vec<(usize, u16)>,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its port on every node.
    pub node_port: Option<u16>,
    /// Addresses that the world outside dials.
    pub load_balancer: Vec<IpAddr>,
    /// What comes from outside stays on the node it reaches (`externalTrafficPolicy: Local`).
    pub local: bool,
}

impl Service {
    /// The node that a load balancer sends to.
    pub fn entry(&self, scenario: &Scenario) -> usize {
        if self.local { scenario.pods[self.backends[0].0].node } else { 0 }
    }
}

/// A machine beyond the node.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Its name.
    pub name: String,
    /// Its addresses, at most one of a family.
    pub addresses: Vec<IpAddr>,
    /// What the operator says its addresses belong to.
    pub range: Option<Range>,
}

/// A place where sockets are: each has a network namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A node itself, by index.
    Node(usize),
    /// A pod, by index.
    Pod(usize),
    /// An outside machine, by index.
    Outside(usize),
}

/// What traffic is directed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A place and, for TCP and UDP, a port.
    Place(Place, u16),
    /// A service, by index.
    Service(usize),
    /// A service's port on a node: both by index.
    NodePort(usize, usize),
    /// A service's load balancer, by index.
    LoadBalancer(usize),
}

impl Target {
    /// The service dialled, where it is one.
    pub fn service(self) -> Option<usize> {
        match self {
            Self::Place(..) => None,
            Self::Service(index) | Self::NodePort(index, _) | Self::LoadBalancer(index) => {
                Some(index)
            }
        }
    }
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// How a connection spends its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Request and answer in slices, ten a second, over the whole life.
    #[default]
    Rounds,
    /// One request and one answer at once, then silence until the end of its life.
    Once,
}

/// Connections of one kind.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Who opens them.
    pub from: Place,
    /// What they are directed at.
    pub to: Target,
    /// TCP, UDP, or ICMP (whose number depends on the family).
    pub protocol: TrafficProtocol,
    /// The families it is made in, each with all of the connections.
    pub families: Vec<Family>,
    /// How many connections, per family.
    pub connections: u32,
    /// How many at a time at most, per family.
    pub concurrency: u32,
    /// When the first begins.
    pub start: Duration,
    /// In what time they all begin, evenly spread.
    pub within: Duration,
    /// Payload bytes source to destination.
    pub request_bytes: Span<u64>,
    /// Payload bytes destination to source.
    pub response_bytes: Span<u64>,
    /// How long a connection is kept.
    pub life: Span<Duration>,
    /// How it spends its bytes.
    pub pattern: Pattern,
}

/// What a generator can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrafficProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo, or ICMPv6 echo.
    Icmp,
}

impl TrafficProtocol {
    /// Its IP protocol in a family.
    pub fn number(self, family: Family) -> Protocol {
        match (self, family) {
            (Self::Tcp, _) => Protocol::TCP,
            (Self::Udp, _) => Protocol(17),
            (Self::Icmp, Family::V4) => Protocol::ICMP,
            (Self::Icmp, Family::V6) => Protocol::ICMPV6,
        }
    }
}

/// From `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span<T> {
    /// The least.
    pub low: T,
    /// The most.
    pub high: T,
}

/// Ports that the sockets of a place are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePorts {
    /// The first and the last.
    pub ports: Span<u16>,
    /// A port in `TIME_WAIT` is taken again (`net.ipv4.tcp_tw_reuse`).
    pub reuse: bool,
}

/// A pair that traffic flows between in one family.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    /// The traffic it belongs to.
    pub traffic: &'a Traffic,
    /// Where its connections come from.
    pub source: IpAddr,
    /// What they dial (port 0 for ICMP).
    pub target: SocketAddr,
}

impl Scenario {
    /// Reads and checks a scenario file.
    pub fn read(path: &Path) -> Result<(Self, BTreeMap<Place, SourcePorts>), LabError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(io_error("read", &name))?;
        Self::parse(&text, &name)
    }

    /// Checks the text of a scenario file; `name` is used in errors. Also gives the source ports
    /// that places are limited to.
    pub fn parse(text: &str, name: &str) -> Result<(Self, BTreeMap<Place, SourcePorts>), LabError> {
        check::check(text, name)
    }

    /// The same scenario in another time: starts and actions keep their place in it.
    pub fn stretch(&mut self, duration: Duration) {
        let factor = duration.as_secs_f64() / self.duration.as_secs_f64();
        for traffic in &mut self.traffic {
            traffic.start = traffic.start.mul_f64(factor);
            traffic.within = traffic.within.mul_f64(factor);
        }
        for action in &mut self.actions {
            action.at = action.at.mul_f64(factor);
        }
        self.duration = duration;
    }

    /// True when it has several nodes.
    pub fn is_cluster(&self) -> bool {
        self.nodes.len() > 1
    }

    /// All places, in a fixed order.
    pub fn places(&self) -> Vec<Place> {
        let nodes = (0..self.nodes.len()).map(Place::Node);
        let pods = (0..self.pods.len()).map(Place::Pod);
        let outside = (0..self.outside.len()).map(Place::Outside);
        nodes.chain(pods).chain(outside).collect()
    }

    /// A place's name, unique in the scenario.
    pub fn place_name(&self, place: Place) -> String {
        match place {
            Place::Node(index) => format!("node-{}", self.nodes[index].name),
            Place::Pod(index) => format!("pod-{}", self.pods[index].name),
            Place::Outside(index) => format!("outside-{}", self.outside[index].name),
        }
    }

    /// The node that a place is on.
    pub fn node_of(&self, place: Place) -> Option<usize> {
        match place {
            Place::Node(index) => Some(index),
            Place::Pod(index) => Some(self.pods[index].node),
            Place::Outside(_) => None,
        }
    }

    /// The address of a place that `peer` meets it under.
    pub fn address(&self, place: Place, peer: Place, family: Family) -> Option<IpAddr> {
        let of_family = |addresses: &[IpAddr]| {
            addresses.iter().copied().find(|address| Family::of(*address) == family)
        };
        match place {
            Place::Pod(index) => of_family(&self.pods[index].addresses),
            Place::Outside(index) => of_family(&self.outside[index].addresses),
            Place::Node(index) if self.node_of(peer) != Some(index) => {
                of_family(&self.nodes[index].uplinks)
            }
            Place::Node(index) => self.bridge(index, family),
        }
    }

    /// The address of a node's bridge.
    fn bridge(&self, node: usize, family: Family) -> Option<IpAddr> {
        let mut addresses = self.nodes[node].pod_networks.iter().map(|network| network.address);
        addresses.find(|address| Family::of(*address) == family)
    }

    /// What traffic dials, in a family.
    pub fn dialled(&self, traffic: &Traffic, family: Family) -> Option<SocketAddr> {
        let of_family = |addresses: &[IpAddr]| {
            addresses.iter().copied().find(|address| Family::of(*address) == family)
        };
        let (address, port) = match traffic.to {
            Target::Place(place, port) => (self.address(place, traffic.from, family)?, port),
            Target::Service(index) => {
                let service = &self.services[index];
                (of_family(&service.addresses)?, service.port)
            }
            Target::NodePort(index, node) => {
                (of_family(&self.nodes[node].uplinks)?, self.services[index].node_port?)
            }
            Target::LoadBalancer(index) => {
                let service = &self.services[index];
                (of_family(&service.load_balancer)?, service.port)
            }
        };
        Some(SocketAddr::new(address, port))
    }

    /// The address that traffic comes from, in a family.
    pub fn source(&self, traffic: &Traffic, family: Family) -> Option<IpAddr> {
        match (traffic.from, traffic.to) {
            (from, Target::Place(place, _)) => self.address(from, place, family),
            // Before it is translated, the way to a service leads to the bridge.
            (Place::Node(node), _) => self.bridge(node, family),
            (from, _) => self.address(from, from, family),
        }
    }

    /// Every pair that traffic flows between.
    pub fn streams(&self) -> Vec<Stream<'_>> {
        let mut streams = Vec::new();
        for traffic in &self.traffic {
            for family in &traffic.families {
                let target = self.dialled(traffic, *family);
                let source = self.source(traffic, *family);
                // The check has made sure that both ends have the family.
                if let (Some(source), Some(target)) = (source, target) {
                    streams.push(Stream { traffic, source, target });
                }
            }
        }
        streams
    }

    /// Where somebody has to listen for the traffic to work: place, protocol, address and port.
    pub fn listeners(&self) -> Vec<(Place, TrafficProtocol, SocketAddr)> {
        let mut listeners = Vec::new();
        for traffic in &self.traffic {
            if traffic.protocol == TrafficProtocol::Icmp {
                continue;
            }
            let ends = match (traffic.to, traffic.to.service()) {
                (Target::Place(place, port), _) => vec![(place, port)],
                (_, service) => {
                    let backends = service.map(|index| self.services[index].backends.iter());
                    let backends = backends.into_iter().flatten();
                    backends.map(|(pod, port)| (Place::Pod(*pod), *port)).collect()
                }
            };
            for (place, port) in ends {
                for family in &traffic.families {
                    if let Some(address) = self.address(place, traffic.from, *family) {
                        let address = SocketAddr::new(address, port);
                        listeners.push((place, traffic.protocol, address));
                    }
                }
            }
        }
        listeners.sort_unstable();
        listeners.dedup();
        listeners
    }
}
