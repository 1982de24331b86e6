//! The views of all nodes: which count, and how the others differ from them.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_flow::{Counters, Totals};

use super::ground::{Ground, Pair};
use crate::error::LabError;
use crate::net::Lab;
use crate::scenario::Scenario;
use crate::truth::{self, Group, GroupTruth, Ports, Truth};

/// Bytes that VXLAN over IPv4 puts around a packet: its own Ethernet header, VXLAN, UDP and IP.
const WRAPPING: u64 = 14 + 8 + 8 + 20;

/// What the nodes saw, each by itself.
#[derive(Clone, Debug)]
pub struct Views {
    /// By node.
    pub nodes: Vec<Truth>,
}

/// How the views of a run differ from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Connections' groups that two nodes saw.
    pub groups: u64,
    /// Their bytes where they count.
    pub counted_bytes: u64,
    /// Their bytes where they do not.
    pub second_bytes: u64,
    /// Second minus counted, where that is more.
    pub more_bytes: u64,
    /// Counted minus second, where that is more: dropped between the two.
    pub less_bytes: u64,
    /// Bytes that carried other packets between nodes, packets of those, and bytes in them.
    pub transport_bytes: u64,
    /// See `transport_bytes`.
    pub transport_packets: u64,
    /// Bytes and packets that nodes sent to pods on other nodes.
    pub carried_bytes: u64,
    /// See `carried_bytes`.
    pub carried_packets: u64,
    /// What of `transport_bytes` is neither carried nor the wrapping of a carried packet.
    pub unexplained_bytes: i64,
    /// The first few groups whose views differ.
    pub examples: Vec<String>,
}

/// Groups named as examples.
const EXAMPLES: usize = 8;

impl Difference {
    /// True when every byte of it is explained.
    pub fn is_explained(&self) -> bool {
        self.more_bytes == 0 && self.less_bytes == 0 && self.unexplained_bytes == 0
    }
}

impl Views {
    /// Reads what every node saw.
    pub fn read(lab: &Lab, scenario: &Scenario) -> Result<Self, LabError> {
        let ports = Ports::of(scenario);
        let read = |node| Ok(Truth::of(&truth::read(lab, node)?, &ports));
        Ok(Self { nodes: (0..scenario.nodes.len()).map(read).collect::<Result<_, LabError>>()? })
    }

    /// The truth of the whole cluster: every connection once. Transport stands apart.
    pub fn once(&self, ground: &Ground) -> (Truth, Truth) {
        let (mut all, mut transport) = (Truth::default(), Truth::default());
        for (node, truth) in self.nodes.iter().enumerate() {
            for (group, known) in &truth.groups {
                if !ground.counts(group, node) {
                    continue;
                }
                let target = if ground.is_transport(group) { &mut transport } else { &mut all };
                add(target.groups.entry(*group).or_default(), known);
            }
            all.excluded.extend(truth.excluded.iter().copied());
            all.stillborn += truth.stillborn;
        }
        (all, transport)
    }

    /// How the views differ.
    pub fn difference(&self, ground: &Ground) -> Difference {
        let mut difference = Difference::default();
        let (mut counted, mut second) = (Ends::new(), Ends::new());
        for (node, truth) in self.nodes.iter().enumerate() {
            for (group, known) in &truth.groups {
                let side = if ground.counts(group, node) { &mut counted } else { &mut second };
                if !ground.is_transport(group) {
                    *side.entry(ends(group)).or_default() += known.totals;
                } else if ground.counts(group, node) {
                    difference.transport_bytes += known.totals.bytes();
                    difference.transport_packets +=
                        known.totals.sent.packets + known.totals.received.packets;
                }
                let carried = carried(ground, group, known.totals, node);
                difference.carried_bytes += carried.bytes;
                difference.carried_packets += carried.packets;
            }
            // What belongs to no connection is carried all the same.
            for packets in &truth.excluded {
                let leaves = ground.is_far(packets.destination, node)
                    && !ground.is_far(packets.source, node);
                if leaves {
                    difference.carried_bytes += packets.counters.bytes;
                    difference.carried_packets += packets.counters.packets;
                }
            }
        }
        for (ends, other) in &second {
            // A second leg begins at a node's own address, where nothing was counted as its own.
            let Some(first) = counted.get(ends) else { continue };
            difference.groups += 1;
            difference.counted_bytes += first.bytes();
            difference.second_bytes += other.bytes();
            for (one, two) in [(first.sent, other.sent), (first.received, other.received)] {
                difference.more_bytes += two.bytes.saturating_sub(one.bytes);
                difference.less_bytes += one.bytes.saturating_sub(two.bytes);
            }
            if first != other && difference.examples.len() < EXAMPLES {
                let (source, destination, protocol, port) = ends;
                difference.examples.push(format!(
                    "{} {source} > {destination} port {port}: {} and {} bytes counted, {} and {} \
                     in the second view",
                    weir_flow::Protocol(*protocol),
                    first.sent.bytes,
                    first.received.bytes,
                    other.sent.bytes,
                    other.received.bytes
                ));
            }
        }
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let wrapping = difference.carried_packets * WRAPPING;
        difference.unexplained_bytes =
            signed(difference.transport_bytes) - signed(difference.carried_bytes + wrapping);
        difference
    }
}

/// What a group is on every node alike.
type Ends = BTreeMap<(std::net::IpAddr, std::net::IpAddr, u8, u16), Totals>;

fn ends(group: &Group) -> (std::net::IpAddr, std::net::IpAddr, u8, u16) {
    (group.source, group.destination, group.protocol.0, group.destination_port)
}

fn add(sum: &mut GroupTruth, other: &GroupTruth) {
    sum.totals += other.totals;
    sum.connections += other.connections;
    sum.picked_up += other.picked_up;
    sum.turned += other.turned;
}

/// What a node has sent through the tunnel, as it saw it come.
fn carried(ground: &Ground, group: &Group, totals: Totals, node: usize) -> Counters {
    let mut carried = Counters::default();
    if ground.is_transport(group) {
        return carried;
    }
    if ground.counts(group, node) && ground.is_far(group.destination, node) {
        carried += totals.sent;
    }
    if ground.home(group.destination) == Some(node) && ground.is_far(group.source, node) {
        carried += totals.received;
    }
    carried
}

/// Sums a truth by whose bytes they are.
pub fn by_pair(truth: &Truth, ground: &Ground) -> BTreeMap<Pair, Totals> {
    let mut pairs: BTreeMap<Pair, Totals> = BTreeMap::new();
    for (group, known) in &truth.groups {
        *pairs.entry(ground.pair(group)).or_default() += known.totals;
    }
    pairs
}
