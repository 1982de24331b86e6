//! What a scenario says about addresses: where they are at home, whose they are, and so which of
//! several views of a connection counts, and of which class it is. Nothing of weir's is asked.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_flow::Protocol;

use crate::scenario::{Outside, Scenario, Transport};
use crate::truth::Group;

/// The port that VXLAN between nodes is sent to.
const VXLAN: (Protocol, u16) = (Protocol::UDP, 4789);

/// A scenario's addresses.
#[derive(Clone, Debug)]
pub struct Ground {
    spots: BTreeMap<IpAddr, Spot>,
    zones: Vec<Option<String>>,
    wraps: bool,
}

/// What is at an address.
#[derive(Clone, Debug)]
struct Spot {
    node: Option<usize>,
    owner: String,
    /// It lies in its node's pod network, and so is reached through the tunnel where there is one.
    in_network: bool,
    /// Of which class traffic with it is, where it is outside of the cluster.
    far: &'static str,
}

impl Spot {
    fn inside(node: usize, owner: String, in_network: bool) -> Self {
        Self { node: Some(node), owner, in_network, far: "" }
    }

    fn outside(owner: String, far: &'static str) -> Self {
        Self { node: None, owner, in_network: false, far }
    }
}

/// How a totals' pair is told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The id of the source's owner.
    pub source: String,
    /// The id of the destination's owner.
    pub destination: String,
    /// The name of the class.
    pub class: String,
}

impl Ground {
    /// The addresses of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        let mut spots = BTreeMap::new();
        for (index, node) in scenario.nodes.iter().enumerate() {
            let bridges = node.pod_networks.iter().map(|network| (network.address, true));
            let uplinks = node.uplinks.iter().map(|uplink| (*uplink, false));
            for (address, in_network) in bridges.chain(uplinks) {
                let owner = format!("node/{}", node.name);
                spots.insert(address, Spot::inside(index, owner, in_network));
            }
        }
        for pod in scenario.pods.iter().filter(|pod| !pod.host_network) {
            let owner = match &pod.workload {
                Some(of) => format!("workload/{}/{}/{}", pod.namespace, of.kind, of.name),
                // A pod of nobody is its own workload.
                None => format!("workload/{}/Pod/{}", pod.namespace, pod.name),
            };
            for address in &pod.addresses {
                spots.insert(*address, Spot::inside(pod.node, owner.clone(), true));
            }
        }
        for outside in &scenario.outside {
            for address in &outside.addresses {
                let named = outside.range.as_ref().map(|range| format!("external/{}", range.name));
                let owner = named.unwrap_or_else(|| format!("external/{address}"));
                spots.insert(*address, Spot::outside(owner, far(scenario, outside)));
            }
        }
        if let Some(churn) = &scenario.churn {
            let owner = super::churn::OWNER.to_owned();
            spots.insert(churn.address, Spot::inside(churn.node, owner, true));
        }
        Self {
            spots,
            zones: scenario.nodes.iter().map(|node| node.zone.clone()).collect(),
            wraps: scenario.transport == Transport::Vxlan,
        }
    }

    /// The node that an address is at home on; nothing outside of the cluster.
    pub fn home(&self, address: IpAddr) -> Option<usize> {
        self.spots.get(&address)?.node
    }

    /// True for what another node reaches through the tunnel, where there is one.
    pub fn is_far(&self, address: IpAddr, from: usize) -> bool {
        self.wraps
            && self
                .spots
                .get(&address)
                .is_some_and(|spot| spot.in_network && spot.node != Some(from))
    }

    /// True for what carries other packets between nodes.
    pub fn is_transport(&self, group: &Group) -> bool {
        self.wraps && (group.protocol, group.destination_port) == VXLAN
    }

    /// True when what a node saw of a group is what counts: the source is at home there, or outside
    /// of the cluster, and the node is the destination's or has chosen it.
    pub fn counts(&self, group: &Group, observer: usize) -> bool {
        match self.home(group.source) {
            Some(home) => home == observer,
            None => self.home(group.destination) == Some(observer) || group.service.is_some(),
        }
    }

    /// Whose bytes a group's are, and of which class.
    pub fn pair(&self, group: &Group) -> Pair {
        let owner = |address: IpAddr| {
            self.spots
                .get(&address)
                .map_or_else(|| format!("external/{address}"), |spot| spot.owner.clone())
        };
        Pair {
            source: owner(group.source),
            destination: owner(group.destination),
            class: self.class(group).to_owned(),
        }
    }

    fn class(&self, group: &Group) -> &'static str {
        if self.is_transport(group) {
            return "transport";
        }
        let ends = [group.source, group.destination];
        let homes = ends.map(|address| self.home(address));
        let [Some(source), Some(destination)] = homes else {
            let outside = ends.into_iter().filter_map(|address| self.spots.get(&address));
            return outside.map(|spot| spot.far).find(|far| !far.is_empty()).unwrap_or("internet");
        };
        match (&self.zones[source], &self.zones[destination]) {
            _ if source == destination => "same_node",
            (Some(one), Some(other)) if one == other => "same_zone",
            (Some(_), Some(_)) => "cross_zone",
            _ => "unknown",
        }
    }
}

/// Of which class traffic with an outside machine is, by what the operator says of it.
fn far(scenario: &Scenario, outside: &Outside) -> &'static str {
    let Some(range) = &outside.range else { return "internet" };
    if range.cloud.is_none() || range.cloud != scenario.setup.cloud {
        return "internet";
    }
    // Nodes of one scenario are in one region.
    if range.region == scenario.nodes[0].region { "intra_region" } else { "inter_region" }
}
