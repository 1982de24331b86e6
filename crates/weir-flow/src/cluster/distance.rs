//! How far bytes travel between two ends of a cluster: design's traffic classes.

use crate::class::{Class, is_private};
use crate::endpoint::{Endpoint, EndpointKind, Name};
use crate::record::FlowRecord;
use crate::tuple::Protocol;

/// Where the cluster runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// The cloud, as its published ranges call it (`aws`, `gcp`, `azure`).
    pub cloud: Option<Name>,
    /// The region of nodes that do not say theirs.
    pub region: Option<Name>,
}

/// What carries other packets between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnels {
    /// UDP ports of tunnel devices.
    pub udp_ports: Vec<u16>,
    /// IP protocols that are tunnels.
    pub protocols: Vec<Protocol>,
}

impl Default for Tunnels {
    /// Ports of `vxlan`, `geneve` and `wireguard` devices as network plugins set them up; IP in IP, IPv6 in IP, GRE
    /// and ESP.
    fn default() -> Self {
        Self {
            udp_ports: vec![4789, 6081, 8472, 51_820, 51_871],
            protocols: [4, 41, 47, 50].map(Protocol).to_vec(),
        }
    }
}

const UDP: Protocol = Protocol(17);

impl Tunnels {
    /// True for the outside of a tunnel between two nodes.
    pub(super) fn carries(
        &self,
        record: &FlowRecord,
        source: &Endpoint,
        destination: &Endpoint,
    ) -> bool {
        let nodes = [source, destination].iter().all(|end| end.kind == EndpointKind::Node);
        let tunnel = self.protocols.contains(&record.protocol)
            || (record.protocol == UDP && self.udp_ports.contains(&record.destination_port));
        nodes && tunnel && source.node != destination.node
    }
}

/// How far apart two ends are. Only what is known to be outside is looked at by its address.
pub(super) fn between(source: &Endpoint, destination: &Endpoint, own: &Region) -> Class {
    match (source.kind, destination.kind) {
        (EndpointKind::External, EndpointKind::External) => {
            farther(outside(source, destination, own), outside(destination, source, own))
        }
        (EndpointKind::External, _) => outside(source, destination, own),
        (_, EndpointKind::External) => outside(destination, source, own),
        _ => inside(source, destination, own),
    }
}

fn inside(source: &Endpoint, destination: &Endpoint, own: &Region) -> Class {
    if source.node.is_some() && source.node == destination.node {
        return Class::SameNode;
    }
    let nowhere = |end: &Endpoint| end.kind == EndpointKind::Unknown && end.node.is_none();
    if nowhere(source) || nowhere(destination) {
        return Class::Unknown;
    }
    let regions = [source, destination].map(|end| end.region.as_ref().or(own.region.as_ref()));
    if let [Some(one), Some(other)] = regions
        && one != other
    {
        return Class::InterRegion;
    }
    zones(source, destination).unwrap_or(Class::IntraVpc)
}

/// How far it is to an end outside the cluster.
fn outside(end: &Endpoint, other: &Endpoint, own: &Region) -> Class {
    let address = end.address.to_canonical();
    if address.is_unspecified() {
        return Class::Unknown;
    }
    if let Some(class) = zones(end, other) {
        return class;
    }
    let Some(cloud) = &end.cloud else {
        return if is_private(address) { Class::IntraVpc } else { Class::Internet };
    };
    if other.cloud.as_ref().or(own.cloud.as_ref()) != Some(cloud) {
        return Class::Internet;
    }
    match (&end.region, other.region.as_ref().or(own.region.as_ref())) {
        // Served from everywhere, so from near by.
        (Some(region), _) if &**region == "global" => Class::IntraRegion,
        (Some(region), Some(here)) if region == here => Class::IntraRegion,
        (Some(_), Some(_)) => Class::InterRegion,
        _ => Class::Unknown,
    }
}

/// The class by the zones, where both are known.
fn zones(one: &Endpoint, other: &Endpoint) -> Option<Class> {
    let (one, other) = (one.zone.as_ref()?, other.zone.as_ref()?);
    Some(if one == other { Class::SameZone } else { Class::CrossZone })
}

fn farther(one: Class, other: Class) -> Class {
    let farthest_first = [
        Class::Internet,
        Class::InterRegion,
        Class::IntraRegion,
        Class::CrossZone,
        Class::SameZone,
    ];
    let either = |class: &Class| [one, other].contains(class);
    let farthest = farthest_first.into_iter().find(either);
    farthest.unwrap_or(if one == other { one } else { Class::IntraVpc })
}
