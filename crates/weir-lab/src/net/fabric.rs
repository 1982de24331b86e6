//! What joins the nodes of a cluster: a router between them and the world outside, optional VXLAN
//! on top of it, and a management network apart from both.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::setup::{batch, nodad, route, whole, write};
use super::{Lab, run_in};
use crate::error::LabError;
use crate::scenario::{Family, Place, Scenario, Setup, Transport};
use crate::text::line;

/// What servers are reached at, from every node.
pub const SERVERS: [Ipv4Addr; Setup::SERVERS_LIMIT] = [
    Ipv4Addr::new(192, 168, 255, 254),
    Ipv4Addr::new(192, 168, 255, 253),
    Ipv4Addr::new(192, 168, 255, 252),
    Ipv4Addr::new(192, 168, 255, 251),
];
/// What fits into a frame beside the headers of VXLAN.
pub(super) const VXLAN_MTU: u16 = 1_450;
/// The next hop of every node and outside machine: the fabric has it at each of its ports.
const GATEWAY_4: &str = "169.254.1.1";
const GATEWAY_6: &str = "fe80::1";
/// What is sent here is neither tracked nor counted.
const MANAGEMENT: &str = "mgmt0";

/// A node's address in the management network.
pub fn management_address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 255, u8::try_from(node + 1).unwrap_or(u8::MAX))
}

/// The name of a node's port in the fabric and in the control namespace.
pub(super) fn port(node: usize) -> String {
    format!("n{node}")
}

/// Everything that is reached under a pod's own address, in a family; empty for a single node.
pub(super) fn inside(scenario: &Scenario, family: Family) -> String {
    if !scenario.is_cluster() {
        return String::new();
    }
    let nodes = scenario.nodes.iter();
    let networks = nodes.flat_map(|node| {
        let networks = node.pod_networks.iter().map(|net| format!("{}/{}", net.base(), net.prefix));
        let uplinks = node.uplinks.iter().map(|uplink| format!("{uplink}/{}", whole(*uplink)));
        networks.chain(uplinks)
    });
    let of_family = |text: &String| text.contains(':') == (family == Family::V6);
    networks.filter(of_family).collect::<Vec<_>>().join(", ")
}

/// A node's wires to the fabric and to the control namespace.
pub(super) fn uplink(lab: &Lab, scenario: &Scenario, index: usize, node: &mut String) {
    let peer = port(index);
    let fabric = lab.fabric.as_deref().unwrap_or_default();
    line(node, &format!("link add up0 type veth peer name {peer} netns {fabric}"));
    line(node, "link set up0 up");
    for uplink in &scenario.nodes[index].uplinks {
        line(node, &format!("addr add {uplink}/{} dev up0{}", whole(*uplink), nodad(*uplink)));
        default_route(node, *uplink, "up0");
    }
    line(
        node,
        &format!("link add {MANAGEMENT} type veth peer name {peer} netns {}", lab.control()),
    );
    line(node, &format!("link set {MANAGEMENT} up"));
    line(node, &format!("addr add {}/32 dev {MANAGEMENT}", management_address(index)));
    for server in SERVERS {
        line(node, &format!("route add {server}/32 dev {MANAGEMENT}"));
    }
}

fn default_route(text: &mut String, source: IpAddr, device: &str) {
    if source.is_ipv4() {
        line(text, &format!("route add {GATEWAY_4}/32 dev {device}"));
        line(text, &format!("route add default via {GATEWAY_4} dev {device} src {source}"));
    } else {
        line(text, &format!("-6 route add default via {GATEWAY_6} dev {device} src {source}"));
    }
}

/// The router itself, the outside machines on it, the control namespace, and VXLAN.
pub(super) fn join(
    lab: &Lab,
    scenario: &Scenario,
    others: &mut Vec<(Place, String)>,
) -> Result<(), LabError> {
    let fabric = lab.fabric.as_deref().unwrap_or_default();
    let settings = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
    let settings: BTreeMap<_, _> =
        settings.map(|name| (name.to_owned(), "1".to_owned())).into_iter().collect();
    write(fabric, &settings)?;
    let mut router = String::from("link set lo up\n");
    for (index, node) in scenario.nodes.iter().enumerate() {
        let device = port(index);
        gateway(&mut router, &device);
        for uplink in &node.uplinks {
            line(
                &mut router,
                &format!("{} {uplink}/{} dev {device}", route(*uplink), whole(*uplink)),
            );
            let behind = node.pod_networks.iter().filter(|net| {
                scenario.transport == Transport::Routed
                    && Family::of(net.address) == Family::of(*uplink)
            });
            for net in behind {
                let (base, prefix) = (net.base(), net.prefix);
                line(
                    &mut router,
                    &format!("{} {base}/{prefix} via {uplink} dev {device} onlink", route(base)),
                );
            }
        }
    }
    for service in scenario.services.iter().filter(|service| !service.load_balancer.is_empty()) {
        let entry = service.entry(scenario);
        for address in &service.load_balancer {
            let uplinks = &scenario.nodes[entry].uplinks;
            let uplink = uplinks.iter().find(|u| Family::of(**u) == Family::of(*address));
            let Some(uplink) = uplink else { continue };
            let (length, device) = (whole(*address), port(entry));
            line(
                &mut router,
                &format!("{} {address}/{length} via {uplink} dev {device} onlink", route(*address)),
            );
        }
    }
    for (index, outside) in scenario.outside.iter().enumerate() {
        let (space, device) = (lab.space(Place::Outside(index)), format!("out{index}"));
        line(&mut router, &format!("link add {device} type veth peer name eth0 netns {space}"));
        gateway(&mut router, &device);
        let mut own = String::from("link set lo up\nlink set eth0 up\n");
        for address in &outside.addresses {
            let length = whole(*address);
            line(&mut router, &format!("{} {address}/{length} dev {device}", route(*address)));
            line(&mut own, &format!("addr add {address}/{length} dev eth0{}", nodad(*address)));
            default_route(&mut own, *address, "eth0");
        }
        others.push((Place::Outside(index), own));
    }
    batch(fabric, &router)?;
    control(lab, scenario)?;
    if scenario.transport == Transport::Vxlan {
        (0..scenario.nodes.len()).try_for_each(|node| vxlan(lab, scenario, node))?;
    }
    Ok(())
}

fn gateway(router: &mut String, device: &str) {
    line(router, &format!("link set {device} up"));
    line(router, &format!("addr add {GATEWAY_4}/32 dev {device}"));
    line(router, &format!("addr add {GATEWAY_6}/64 dev {device} nodad"));
}

fn control(lab: &Lab, scenario: &Scenario) -> Result<(), LabError> {
    let mut control = String::from("link set lo up\n");
    for server in SERVERS {
        line(&mut control, &format!("addr add {server}/32 dev lo"));
    }
    for index in 0..scenario.nodes.len() {
        let device = port(index);
        line(&mut control, &format!("link set {device} up"));
        let address = management_address(index);
        line(&mut control, &format!("route add {address}/32 dev {device} src {}", SERVERS[0]));
        lab.nft(
            index,
            &format!(
                "table inet weirlab_management {{\n  chain prerouting {{\n    \
                 type filter hook prerouting priority -300\n    \
                 iifname \"{MANAGEMENT}\" notrack\n  }}\n  \
                 chain output {{\n    type filter hook output priority -300\n    \
                 oifname \"{MANAGEMENT}\" notrack\n  }}\n}}\n"
            ),
        )?;
    }
    batch(lab.control(), &control)
}

/// A node's VXLAN device, with a fixed entry for every other node: nothing is learnt or flooded.
fn vxlan(lab: &Lab, scenario: &Scenario, index: usize) -> Result<(), LabError> {
    let own = &scenario.nodes[index];
    let Some(local) = own.uplinks.iter().find(|uplink| uplink.is_ipv4()) else {
        return Err(LabError::Truth("VXLAN between nodes needs an IPv4 uplink each".to_owned()));
    };
    let mac = |node: usize| format!("02:77:65:69:72:{:02x}", node + 1);
    let (hop_4, hop_6) = (
        |node: usize| format!("169.254.77.{}", node + 1),
        |node: usize| format!("fe80::77:{}", node + 1),
    );
    let mut text = String::new();
    line(
        &mut text,
        &format!(
            "link add vx0 address {} type vxlan id 77 dev up0 local {local} dstport 4789 nolearning",
            mac(index)
        ),
    );
    line(&mut text, &format!("link set vx0 mtu {VXLAN_MTU}"));
    line(&mut text, "link set vx0 up");
    let mut table = String::new();
    let others = scenario.nodes.iter().enumerate().filter(|(other, _)| *other != index);
    for (other, node) in others {
        let remote = node.uplinks.iter().find(|uplink| uplink.is_ipv4());
        let Some(remote) = remote else { continue };
        line(&mut table, &format!("fdb append {} dev vx0 dst {remote}", mac(other)));
        let (four, six) = (hop_4(other), hop_6(other));
        for hop in [&four, &six] {
            line(
                &mut text,
                &format!("neigh add {hop} lladdr {} dev vx0 nud permanent", mac(other)),
            );
        }
        for net in &node.pod_networks {
            let source = own.pod_networks.iter().map(|net| net.address);
            let source = source.into_iter().find(|a| Family::of(*a) == Family::of(net.address));
            let Some(source) = source else { continue };
            let hop = if net.address.is_ipv4() { &four } else { &six };
            let (base, prefix) = (net.base(), net.prefix);
            line(
                &mut text,
                &format!(
                    "{} {base}/{prefix} via {hop} dev vx0 onlink src {source}",
                    route(net.address)
                ),
            );
        }
    }
    let space = lab.space(Place::Node(index));
    batch(space, &text)?;
    run_in(space, "bridge", &["-batch", "-"], &table).map(drop)
}
