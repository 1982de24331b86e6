//! Wires, settings and rules of a box.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::{Lab, command_in, fabric, run_in};
use crate::command;
use crate::error::LabError;
use crate::scenario::{Family, Place, Scenario, Service, SourcePorts, Transport};
use crate::text::line;

/// The bridge that the pods are on.
const BRIDGE: &str = "pods0";

/// Makes devices, addresses and routes.
pub(super) fn wire(lab: &Lab, scenario: &Scenario) -> Result<(), LabError> {
    let mut others: Vec<(Place, String)> = Vec::new();
    let mut nodes: Vec<String> = Vec::new();
    for index in 0..scenario.nodes.len() {
        nodes.push(node(lab, scenario, index, &mut others));
    }
    if let [alone] = nodes.as_mut_slice() {
        outside(lab, scenario, alone, &mut others);
    } else {
        for (index, lines) in nodes.iter_mut().enumerate() {
            fabric::uplink(lab, scenario, index, lines);
        }
    }
    for (index, lines) in nodes.iter().enumerate() {
        batch(lab.space(Place::Node(index)), lines)?;
    }
    if scenario.is_cluster() {
        fabric::join(lab, scenario, &mut others)?;
    }
    others.iter().try_for_each(|(place, lines)| batch(lab.space(*place), lines))
}

/// A node's bridge with its pods.
fn node(lab: &Lab, scenario: &Scenario, index: usize, others: &mut Vec<(Place, String)>) -> String {
    let of_node = &scenario.nodes[index];
    let mut node = String::new();
    line(&mut node, "link set lo up");
    // Without spanning tree a port forwards as soon as it is up; without snooping the bridge sends
    // no IGMP of its own.
    line(
        &mut node,
        &format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
    );
    line(&mut node, &format!("link set {BRIDGE} up"));
    for network in &of_node.pod_networks {
        let (address, prefix) = (network.address, network.prefix);
        line(&mut node, &format!("addr add {address}/{prefix} dev {BRIDGE}{}", nodad(address)));
    }
    let pods = scenario.pods.iter().enumerate();
    for (pod_index, pod) in pods.filter(|(_, pod)| pod.node == index && !pod.host_network) {
        let device = format!("pod{pod_index}");
        veth(&mut node, &device, lab.space(Place::Pod(pod_index)));
        line(&mut node, &format!("link set {device} master {BRIDGE}"));
        let mut own = String::from("link set lo up\nlink set eth0 up\n");
        if scenario.transport == Transport::Vxlan {
            line(&mut own, &format!("link set eth0 mtu {}", fabric::VXLAN_MTU));
        }
        for address in &pod.addresses {
            let network = of_node.pod_networks.iter().find(|n| n.contains(*address));
            let Some(network) = network else { continue };
            let prefix = network.prefix;
            line(&mut own, &format!("addr add {address}/{prefix} dev eth0{}", nodad(*address)));
            line(&mut own, &format!("{} default via {}", route(*address), network.address));
        }
        others.push((Place::Pod(pod_index), own));
    }
    // The node itself needs a way to a service before its packets can be translated.
    for address in scenario.services.iter().flat_map(|service| &service.addresses) {
        line(&mut node, &format!("{} {address}/{} dev {BRIDGE}", route(*address), whole(*address)));
    }
    node
}

/// The outside machines of a single node, each on a wire of its own.
fn outside(lab: &Lab, scenario: &Scenario, node: &mut String, others: &mut Vec<(Place, String)>) {
    for (index, outside) in scenario.outside.iter().enumerate() {
        let device = format!("up{index}");
        veth(node, &device, lab.space(Place::Outside(index)));
        let mut own = String::from("link set lo up\nlink set eth0 up\n");
        for address in &outside.addresses {
            let uplinks = &scenario.nodes[0].uplinks;
            let Some(uplink) = uplinks.iter().find(|u| Family::of(**u) == Family::of(*address))
            else {
                continue;
            };
            let length = whole(*address);
            line(node, &format!("addr add {uplink}/{length} dev {device}{}", nodad(*uplink)));
            line(
                node,
                &format!("{} {address}/{length} dev {device} src {uplink}", route(*address)),
            );
            line(&mut own, &format!("addr add {address}/{length} dev eth0{}", nodad(*address)));
            line(&mut own, &format!("{} {uplink}/{length} dev eth0", route(*address)));
            line(&mut own, &format!("{} default via {uplink} src {address}", route(*address)));
        }
        others.push((Place::Outside(index), own));
    }
}

/// The prefix length of a single address.
pub(crate) fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// A pair whose one end is in the node, the other `eth0` of `space`.
pub(super) fn veth(text: &mut String, device: &str, space: &str) {
    line(text, &format!("link add {device} type veth peer name eth0 netns {space}"));
    line(text, &format!("link set {device} up"));
}

pub(super) fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

pub(super) fn route(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "-6 route add" } else { "route add" }
}

/// Runs many lines of `ip` in a namespace at once.
pub(super) fn batch(space: &str, lines: &str) -> Result<(), LabError> {
    // `-6` is an option of the program, not of a batch's line: each family is a batch of its own.
    let (six, four): (Vec<&str>, Vec<&str>) = lines.lines().partition(|l| l.starts_with("-6 "));
    command::run("ip", &["-n", space, "-batch", "-"], &(four.join("\n") + "\n"))?;
    if six.is_empty() {
        return Ok(());
    }
    let six: Vec<&str> = six.iter().map(|line| line.trim_start_matches("-6 ")).collect();
    command::run("ip", &["-6", "-n", space, "-batch", "-"], &(six.join("\n") + "\n")).map(drop)
}

/// Writes the sysctls: accounting and events on unless the scenario says otherwise.
pub(super) fn settings(
    lab: &Lab,
    scenario: &Scenario,
    ports: &BTreeMap<Place, SourcePorts>,
) -> Result<(), LabError> {
    let mut node = BTreeMap::from([
        ("net/ipv4/ip_forward".to_owned(), "1".to_owned()),
        ("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned()),
        // Bridged packets take the way of routed ones, as kube-proxy has it.
        ("net/bridge/bridge-nf-call-iptables".to_owned(), "1".to_owned()),
        ("net/bridge/bridge-nf-call-ip6tables".to_owned(), "1".to_owned()),
    ]);
    for name in ["acct", "timestamp", "events"] {
        node.insert(format!("net/netfilter/nf_conntrack_{name}"), "1".to_owned());
    }
    for (name, value) in &scenario.sysctl {
        node.insert(format!("net/netfilter/nf_conntrack_{name}"), value.to_string());
    }
    for index in 0..scenario.nodes.len() {
        write(lab.space(Place::Node(index)), &node)?;
    }
    for (place, limited) in ports {
        let range = format!("{} {}", limited.ports.low, limited.ports.high);
        let reuse = if limited.reuse { "1" } else { "0" };
        let settings = BTreeMap::from([
            ("net/ipv4/ip_local_port_range".to_owned(), range),
            ("net/ipv4/tcp_tw_reuse".to_owned(), reuse.to_owned()),
        ]);
        write(lab.space(*place), &settings)?;
    }
    Ok(())
}

pub(super) fn write(space: &str, settings: &BTreeMap<String, String>) -> Result<(), LabError> {
    // Files under /proc/sys/net are those of the namespace of whoever opens them.
    let mut script = String::from("set -e\n");
    for (path, value) in settings {
        // Neither holds a quote: names are checked when the scenario is read, values are numbers.
        line(&mut script, &format!("echo '{value}' > '/proc/sys/{path}'"));
    }
    let mut shell = command_in(space, "sh".as_ref());
    shell.arg("-s");
    command::run_command(shell, &script).map(drop)
}

/// A node's translation rules.
pub(super) fn rules(scenario: &Scenario, node: usize) -> String {
    let mut dial = String::new();
    let mut leave = String::new();
    for service in &scenario.services {
        for address in &service.addresses {
            dial.push_str(&translate(scenario, service, *address, service.port, None));
        }
        external(scenario, service, node, &mut dial, &mut leave);
    }
    let own = &scenario.nodes[node];
    for network in &own.pod_networks {
        let family = family_word(network.address);
        let pods = format!("{}/{}", network.address, network.prefix);
        if own.masquerade {
            let inside = fabric::inside(scenario, Family::of(network.address));
            let beyond = if inside.is_empty() {
                String::new()
            } else {
                format!("{family} daddr != {{ {inside} }} ")
            };
            line(
                &mut leave,
                &format!("    {family} saddr {pods} {beyond}oifname \"up*\" masquerade"),
            );
        }
        if own.masquerade_services {
            let rule =
                format!("{family} saddr {pods} oifname \"{BRIDGE}\" ct status dnat masquerade");
            line(&mut leave, &format!("    {rule}"));
        }
    }
    format!(
        "table inet weirlab {{\n  chain dial {{\n{dial}  }}\n  \
         chain prerouting {{\n    type nat hook prerouting priority -100\n    jump dial\n  }}\n  \
         chain output {{\n    type nat hook output priority -100\n    jump dial\n  }}\n  \
         chain postrouting {{\n    type nat hook postrouting priority 100\n{leave}  }}\n}}\n"
    )
}

/// What a service answers to besides its own address: node ports and load balancers. Under the
/// policy `Cluster` the backend may be on any node, and so has to answer to this one.
fn external(
    scenario: &Scenario,
    service: &Service,
    node: usize,
    dial: &mut String,
    leave: &mut String,
) {
    let only = service.local.then_some(node);
    let uplinks = scenario.nodes[node].uplinks.iter();
    let ports = service.node_port.into_iter();
    let by_port = ports.flat_map(|port| uplinks.clone().map(move |uplink| (*uplink, port)));
    let by_address = service.load_balancer.iter().map(|address| (*address, service.port));
    for (address, port) in by_port.chain(by_address) {
        dial.push_str(&translate(scenario, service, address, port, only));
        if !service.local {
            let word = family_word(address);
            let dialled = format!("ct original {word} daddr {address}");
            let protocol = service.protocol;
            line(
                leave,
                &format!(
                    "    meta l4proto {protocol} {dialled} ct original proto-dst {port} masquerade"
                ),
            );
        }
    }
}

/// One rule a backend: each takes its share of the connections that reach it, the last takes all.
fn translate(
    scenario: &Scenario,
    service: &Service,
    address: IpAddr,
    port: u16,
    only_on: Option<usize>,
) -> String {
    let mut rules = String::new();
    let word = family_word(address);
    let matches = format!("{word} daddr {address} {} dport {port}", service.protocol);
    let here = |pod: usize| only_on.is_none_or(|node| scenario.pods[pod].node == node);
    let backends: Vec<_> = service.backends.iter().filter(|(pod, _)| here(*pod)).collect();
    for (index, (pod, port)) in backends.iter().enumerate() {
        let place = Place::Pod(*pod);
        let Some(backend) = scenario.address(place, place, Family::of(address)) else { continue };
        let backend = std::net::SocketAddr::new(backend, *port);
        let share = match backends.len() - index {
            1 => String::new(),
            rest => format!(" numgen inc mod {rest} 0"),
        };
        line(&mut rules, &format!("    {matches}{share} dnat {word} to {backend}"));
    }
    rules
}

fn family_word(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

/// Waits until every device of a router has its carrier and may use its own addresses, so that the
/// first packets are not lost or late.
pub(super) fn wait_until_ready(space: &str) -> Result<(), LabError> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let links = run_in(space, "ip", &["-o", "link", "show", "up"], "")?;
        let waiting = links.lines().any(|l| l.contains("NO-CARRIER") || l.contains("state DOWN"));
        let tentative = run_in(space, "ip", &["-6", "-o", "addr", "show", "tentative"], "")?;
        if (!waiting && tentative.trim().is_empty()) || Instant::now() > deadline {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
