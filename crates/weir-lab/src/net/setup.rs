//! Wires, settings and rules of a box.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::Lab;
use crate::command;
use crate::error::LabError;
use crate::scenario::{Family, Place, Scenario, Service, SourcePorts};
use crate::text::line;

/// The bridge that the pods are on.
const BRIDGE: &str = "pods0";

/// Makes devices, addresses and routes.
pub(super) fn wire(lab: &Lab, scenario: &Scenario) -> Result<(), LabError> {
    let mut node = String::new();
    line(&mut node, "link set lo up");
    // Without spanning tree a port forwards as soon as it is up; without snooping the bridge sends
    // no IGMP of its own.
    line(
        &mut node,
        &format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
    );
    line(&mut node, &format!("link set {BRIDGE} up"));
    for network in &scenario.node.pod_networks {
        let (address, prefix) = (network.address, network.prefix);
        line(&mut node, &format!("addr add {address}/{prefix} dev {BRIDGE}{}", nodad(address)));
    }
    let mut others: Vec<(Place, String)> = Vec::new();
    for (index, pod) in scenario.pods.iter().enumerate() {
        let device = format!("pod{index}");
        veth(&mut node, &device, lab.space(Place::Pod(index)));
        line(&mut node, &format!("link set {device} master {BRIDGE}"));
        let mut own = String::from("link set lo up\nlink set eth0 up\n");
        for address in &pod.addresses {
            let network = scenario.node.pod_networks.iter().find(|n| n.contains(*address));
            let Some(network) = network else { continue };
            let prefix = network.prefix;
            line(&mut own, &format!("addr add {address}/{prefix} dev eth0{}", nodad(*address)));
            line(&mut own, &format!("{} default via {}", route(*address), network.address));
        }
        others.push((Place::Pod(index), own));
    }
    for (index, outside) in scenario.outside.iter().enumerate() {
        let device = format!("up{index}");
        veth(&mut node, &device, lab.space(Place::Outside(index)));
        let mut own = String::from("link set lo up\nlink set eth0 up\n");
        for address in &outside.addresses {
            let uplinks = &scenario.node.uplinks;
            let Some(uplink) = uplinks.iter().find(|u| Family::of(**u) == Family::of(*address))
            else {
                continue;
            };
            let length = if address.is_ipv4() { 32 } else { 128 };
            line(&mut node, &format!("addr add {uplink}/{length} dev {device}{}", nodad(*uplink)));
            line(
                &mut node,
                &format!("{} {address}/{length} dev {device} src {uplink}", route(*address)),
            );
            line(&mut own, &format!("addr add {address}/{length} dev eth0{}", nodad(*address)));
            line(&mut own, &format!("{} {uplink}/{length} dev eth0", route(*address)));
            line(&mut own, &format!("{} default via {uplink} src {address}", route(*address)));
        }
        others.push((Place::Outside(index), own));
    }
    // The node itself needs a way to a service before its packets can be translated.
    for address in scenario.services.iter().flat_map(|service| &service.addresses) {
        let length = if address.is_ipv4() { 32 } else { 128 };
        line(&mut node, &format!("{} {address}/{length} dev {BRIDGE}", route(*address)));
    }
    batch(lab.space(Place::Node), &node)?;
    others.iter().try_for_each(|(place, lines)| batch(lab.space(*place), lines))
}

/// A pair whose one end is in the node, the other `eth0` of `space`.
fn veth(text: &mut String, device: &str, space: &str) {
    line(text, &format!("link add {device} type veth peer name eth0 netns {space}"));
    line(text, &format!("link set {device} up"));
}

fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

fn route(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "-6 route add" } else { "route add" }
}

/// Runs many lines of `ip` in a namespace at once.
fn batch(space: &str, lines: &str) -> Result<(), LabError> {
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
    write(lab, Place::Node, &node)?;
    for (place, limited) in ports {
        let range = format!("{} {}", limited.ports.low, limited.ports.high);
        let reuse = if limited.reuse { "1" } else { "0" };
        let settings = BTreeMap::from([
            ("net/ipv4/ip_local_port_range".to_owned(), range),
            ("net/ipv4/tcp_tw_reuse".to_owned(), reuse.to_owned()),
        ]);
        write(lab, *place, &settings)?;
    }
    Ok(())
}

fn write(lab: &Lab, place: Place, settings: &BTreeMap<String, String>) -> Result<(), LabError> {
    // Files under /proc/sys/net are those of the namespace of whoever opens them.
    let mut script = String::from("set -e\n");
    for (path, value) in settings {
        // Neither holds a quote: names are checked when the scenario is read, values are numbers.
        line(&mut script, &format!("echo '{value}' > '/proc/sys/{path}'"));
    }
    let mut shell = lab.command(place, "sh".as_ref());
    shell.arg("-s");
    command::run_command(shell, &script).map(drop)
}

/// The node's translation rules.
pub(super) fn rules(scenario: &Scenario) -> String {
    let mut dial = String::new();
    for service in &scenario.services {
        for address in &service.addresses {
            dial.push_str(&translate(scenario, service, *address));
        }
    }
    let mut leave = String::new();
    for network in &scenario.node.pod_networks {
        let family = family_word(network.address);
        let pods = format!("{}/{}", network.address, network.prefix);
        if scenario.node.masquerade {
            line(&mut leave, &format!("    {family} saddr {pods} oifname \"up*\" masquerade"));
        }
        if scenario.node.masquerade_services {
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

/// One rule a backend: each takes its share of the connections that reach it, the last takes all.
fn translate(scenario: &Scenario, service: &Service, address: IpAddr) -> String {
    let mut rules = String::new();
    let word = family_word(address);
    let matches = format!("{word} daddr {address} {} dport {}", service.protocol, service.port);
    let count = service.backends.len();
    for (index, (pod, port)) in service.backends.iter().enumerate() {
        let backend = scenario.address(Place::Pod(*pod), Place::Node, Family::of(address));
        let Some(backend) = backend else { continue };
        let backend = std::net::SocketAddr::new(backend, *port);
        let share = match count - index {
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

/// Waits until every device of the node has its carrier and may use its own addresses, so that the
/// first packets are not lost or late.
pub(super) fn wait_until_ready(lab: &Lab) -> Result<(), LabError> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let links = lab.run_in_node("ip", &["-o", "link", "show", "up"])?;
        let waiting = links.lines().any(|l| l.contains("NO-CARRIER") || l.contains("state DOWN"));
        let tentative = lab.run_in_node("ip", &["-6", "-o", "addr", "show", "tentative"])?;
        if (!waiting && tentative.trim().is_empty()) || Instant::now() > deadline {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
