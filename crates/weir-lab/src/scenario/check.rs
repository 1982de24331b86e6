//! From the file as it is written to a checked scenario.

mod deeds;
mod traffic;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::file::{self, Policy};
use super::{
    Family, Network, Node, Outside, Place, Pod, Scenario, Service, SourcePorts, TrafficProtocol,
    Workload,
};
use crate::error::LabError;

/// Keys that a device's alias must fit beside the run's id.
const NAME_LIMIT: usize = 20;
/// Nodes of a cluster: each has an address of its own in the management network.
const NODES_LIMIT: usize = 16;

/// Checks a file's text.
pub(super) fn check(
    text: &str,
    name: &str,
) -> Result<(Scenario, BTreeMap<Place, SourcePorts>), LabError> {
    let place = |range: Range<usize>, message: String| {
        let before = text.get(..range.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        LabError::Scenario {
            file: name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.chars().count() - text[..line_start].chars().count() + 1,
            message,
        }
    };
    let file: file::File = toml::from_str(text).map_err(|error| {
        place(error.span().unwrap_or(0..0), error.message().trim().replace('\n', "; "))
    })?;
    build(file).map_err(|fault| place(fault.at, fault.message))
}

/// A mistake and where it stands.
struct Fault {
    at: Range<usize>,
    message: String,
}

fn fault<T, U>(at: &Spanned<T>, message: impl Into<String>) -> Result<U, Fault> {
    Err(Fault { at: at.span(), message: message.into() })
}

fn build(file: file::File) -> Result<(Scenario, BTreeMap<Place, SourcePorts>), Fault> {
    let duration = file.duration.get_ref().0;
    if duration < Duration::from_secs(1) {
        return fault(&file.duration, "`duration` must be at least \"1s\"");
    }
    for name in file.sysctl.keys() {
        sysctl_name(name)?;
    }
    let mut seen = Seen::default();
    let mut scenario = Scenario {
        name: file.name,
        duration,
        seed: file.seed,
        sysctl: file.sysctl.into_iter().map(|(name, value)| (name.into_inner(), value)).collect(),
        nodes: nodes(&file.node, &mut seen)?,
        transport: file.transport,
        pods: Vec::new(),
        services: Vec::new(),
        outside: Vec::new(),
        traffic: Vec::new(),
        actions: Vec::new(),
        churn: None,
        imposters: Vec::new(),
        setup: deeds::setup(file.weir.as_ref(), file.node.len() > 1)?,
    };
    for pod in &file.pod {
        scenario.pods.push(self::pod(pod, &scenario, &mut seen)?);
    }
    for outside in &file.outside {
        scenario.outside.push(self::outside(outside, &scenario.nodes, &mut seen)?);
    }
    for service in &file.service {
        let service = self::service(service, &scenario, &mut seen)?;
        scenario.services.push(service);
    }
    let mut ports = BTreeMap::new();
    for traffic in &file.traffic {
        let traffic = traffic::traffic(traffic, &scenario, &mut ports)?;
        scenario.traffic.push(traffic);
    }
    for action in &file.action {
        let action = deeds::action(action, &scenario)?;
        scenario.actions.push(action);
    }
    scenario.actions.sort_by_key(|action| action.at);
    scenario.churn =
        file.churn.as_ref().map(|churn| deeds::churn(churn, &scenario, &mut seen)).transpose()?;
    for imposter in &file.imposter {
        let imposter = deeds::imposter(imposter, &scenario)?;
        scenario.imposters.push(imposter);
    }
    Ok((scenario, ports))
}

/// Names and addresses given so far.
#[derive(Default)]
struct Seen {
    names: Vec<(&'static str, String)>,
    addresses: Vec<IpAddr>,
}

impl Seen {
    fn name(&mut self, kind: &'static str, name: &Spanned<String>) -> Result<String, Fault> {
        let text = valid_name(name)?;
        if self.names.iter().any(|(k, n)| *k == kind && *n == text) {
            return fault(name, format!("there are two [[{kind}]] called `{text}`"));
        }
        self.names.push((kind, text.clone()));
        Ok(text)
    }

    fn addresses(&mut self, list: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<IpAddr>, Fault> {
        let mut addresses = Vec::new();
        for text in list.get_ref() {
            let address = address(text)?;
            if self.addresses.contains(&address) {
                return fault(text, format!("the address {address} is given twice"));
            }
            if addresses.iter().any(|other| Family::of(*other) == Family::of(address)) {
                return fault(text, "at most one address of a family can be given");
            }
            self.addresses.push(address);
            addresses.push(address);
        }
        if addresses.is_empty() {
            return fault(list, "at least one address is needed");
        }
        Ok(addresses)
    }
}

fn valid_name(name: &Spanned<String>) -> Result<String, Fault> {
    let text = name.get_ref();
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if text.is_empty() || text.len() > NAME_LIMIT || !text.bytes().all(good) {
        let rule = format!("1 to {NAME_LIMIT} lower-case letters, digits and `-`");
        return fault(name, format!("`{text}` is no name here: {rule}"));
    }
    Ok(text.clone())
}

fn sysctl_name(name: &Spanned<String>) -> Result<(), Fault> {
    let text = name.get_ref();
    if matches!(text.as_str(), "max" | "buckets" | "expect_max") {
        return fault(name, format!("nf_conntrack_{text} belongs to the whole machine"));
    }
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        let example = "tcp_timeout_time_wait";
        return fault(name, format!("`{text}` is no name after nf_conntrack_ (as `{example}` is)"));
    }
    Ok(())
}

fn address(text: &Spanned<String>) -> Result<IpAddr, Fault> {
    text.get_ref().parse().or_else(|_| fault(text, format!("`{}` is no address", text.get_ref())))
}

fn nodes(written: &[Spanned<file::Node>], seen: &mut Seen) -> Result<Vec<Node>, Fault> {
    if written.is_empty() || written.len() > NODES_LIMIT {
        let at = written.get(NODES_LIMIT).map_or(0..0, Spanned::span);
        let message =
            format!("1 to {NODES_LIMIT} [[node]] are needed, {} are given", written.len());
        return Err(Fault { at, message });
    }
    let nodes: Vec<Node> =
        written.iter().map(|node| self::node(node.get_ref(), seen)).collect::<Result<_, _>>()?;
    if let [_, second, ..] = written {
        for (index, node) in nodes.iter().enumerate() {
            let networks = || node.pod_networks.iter();
            let lacks = networks().any(|network| {
                let family = Family::of(network.address);
                !node.uplinks.iter().any(|uplink| Family::of(*uplink) == family)
            });
            if lacks {
                let message = "nodes of a cluster need an uplink of each pod network's family";
                return fault(&written[index], message);
            }
            let others = nodes.iter().take(index).flat_map(|other| &other.pod_networks);
            let overlaps = |other: &Network| {
                networks().any(|own| own.contains(other.address) || other.contains(own.address))
            };
            if { others }.any(overlaps) {
                return fault(second, "the pod networks of two nodes overlap");
            }
        }
    }
    Ok(nodes)
}

fn node(node: &file::Node, seen: &mut Seen) -> Result<Node, Fault> {
    let file::Node {
        name,
        pod_networks,
        uplinks,
        masquerade,
        masquerade_services,
        zone,
        region,
        instance,
    } = node;
    let mut networks: Vec<Network> = Vec::new();
    for text in pod_networks {
        let parsed = network(text)?;
        let family = Family::of(parsed.address);
        if networks.iter().any(|other| Family::of(other.address) == family) {
            return fault(text, "at most one pod network of a family can be given");
        }
        seen.addresses.push(parsed.address);
        networks.push(parsed);
    }
    if networks.is_empty() {
        return fault(name, "`pod_networks` needs at least one network");
    }
    let uplinks: Vec<IpAddr> = uplinks.iter().map(address).collect::<Result<_, _>>()?;
    seen.addresses.extend(&uplinks);
    Ok(Node {
        name: seen.name("node", name)?,
        pod_networks: networks,
        uplinks,
        masquerade: *masquerade,
        masquerade_services: *masquerade_services,
        zone: zone.as_ref().map(valid_name).transpose()?,
        region: region.as_ref().map(valid_name).transpose()?,
        instance: instance.clone(),
    })
}

fn network(text: &Spanned<String>) -> Result<Network, Fault> {
    let parsed = text.get_ref().split_once('/').and_then(|(address, prefix)| {
        let address: IpAddr = address.parse().ok()?;
        let prefix: u8 = prefix.parse().ok()?;
        let longest = if address.is_ipv4() { 30 } else { 126 };
        (8..=longest).contains(&prefix).then_some(Network { address, prefix })
    });
    parsed.map_or_else(
        || {
            let example = "the bridge's address in its network, as \"10.244.1.1/24\" is";
            fault(text, format!("`{}` is not {example}", text.get_ref()))
        },
        Ok,
    )
}

fn pod(pod: &file::Pod, scenario: &Scenario, seen: &mut Seen) -> Result<Pod, Fault> {
    let file::Pod { name, node: on, addresses, namespace, workload, host_network } = pod;
    let index = match on {
        Some(on) => node_named(on, scenario)?,
        None if scenario.is_cluster() => return fault(name, "a pod of a cluster needs its `node`"),
        None => 0,
    };
    let node = &scenario.nodes[index];
    let label = seen.name("pod", name)?;
    let parsed = match addresses {
        Some(addresses) if *host_network => {
            return fault(addresses, "a pod in its node's network has no addresses of its own");
        }
        Some(addresses) => seen.addresses(addresses)?,
        None if *host_network => node.uplinks.clone(),
        None => return fault(name, "`addresses` are needed, or `host_network`"),
    };
    for address in addresses.iter().flat_map(|_| &parsed) {
        if !node.pod_networks.iter().any(|network| network.contains(*address)) {
            let at = addresses.as_ref().map_or_else(|| name.span(), Spanned::span);
            let message = format!("{address} is in none of the node's `pod_networks`");
            return Err(Fault { at, message });
        }
    }
    Ok(Pod {
        name: label,
        node: index,
        addresses: parsed,
        namespace: namespace_of(namespace.as_ref())?,
        workload: workload.as_ref().map(self::workload).transpose()?,
        host_network: *host_network,
    })
}

fn namespace_of(written: Option<&Spanned<String>>) -> Result<String, Fault> {
    written.map_or_else(|| Ok("default".to_owned()), valid_name)
}

fn workload(text: &Spanned<String>) -> Result<Workload, Fault> {
    const KINDS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"];
    let (kind, name) = text.get_ref().split_once('/').unwrap_or_default();
    if !KINDS.contains(&kind) || name.is_empty() {
        let message = format!(
            "`{}` is not a kind ({}) and a name, as \"Deployment/web\" is",
            text.get_ref(),
            KINDS.join(", ")
        );
        return fault(text, message);
    }
    Ok(Workload { kind: kind.to_owned(), name: name.to_owned() })
}

fn node_named(at: &Spanned<String>, scenario: &Scenario) -> Result<usize, Fault> {
    let names: Vec<&str> = scenario.nodes.iter().map(|node| node.name.as_str()).collect();
    find(at, "node", at.get_ref(), &names)
}

fn outside(outside: &file::Outside, nodes: &[Node], seen: &mut Seen) -> Result<Outside, Fault> {
    let file::Outside { name, addresses, range } = outside;
    let name = seen.name("outside", name)?;
    let parsed = seen.addresses(addresses)?;
    not_in_pod_networks(&parsed, nodes, addresses)?;
    for address in &parsed {
        let family = Family::of(*address);
        if !nodes.iter().all(|n| n.uplinks.iter().any(|uplink| Family::of(*uplink) == family)) {
            return fault(
                addresses,
                format!("{address} needs an address of its family in the node's `uplinks`"),
            );
        }
    }
    Ok(Outside { name, addresses: parsed, range: range.clone() })
}

fn not_in_pod_networks<T>(
    addresses: &[IpAddr],
    nodes: &[Node],
    at: &Spanned<T>,
) -> Result<(), Fault> {
    for address in addresses {
        let mut networks = nodes.iter().flat_map(|node| &node.pod_networks);
        if networks.any(|network| network.contains(*address)) {
            return fault(at, format!("{address} lies in a pod network"));
        }
    }
    Ok(())
}

fn service(
    service: &file::Service,
    scenario: &Scenario,
    seen: &mut Seen,
) -> Result<Service, Fault> {
    let file::Service {
        name,
        addresses,
        port,
        protocol,
        backends,
        namespace,
        node_port,
        load_balancer,
        external_traffic_policy,
    } = service;
    let number = match protocol.get_ref() {
        TrafficProtocol::Icmp => return fault(protocol, "a service is \"tcp\" or \"udp\""),
        other => other.number(Family::V4),
    };
    let name = seen.name("service", name)?;
    let parsed = seen.addresses(addresses)?;
    not_in_pod_networks(&parsed, &scenario.nodes, addresses)?;
    if *port.get_ref() == 0 {
        return fault(port, "`port` must be 1 to 65535");
    }
    let mut ends: Vec<(usize, u16)> = Vec::new();
    for text in backends.get_ref() {
        let end = backend(text, scenario)?;
        if ends.iter().any(|(pod, _)| *pod == end.0) {
            // The truth tells backends apart by their address.
            return fault(text, "a pod can stand behind a service once");
        }
        for address in &parsed {
            let family = Family::of(*address);
            if scenario.address(Place::Pod(end.0), Place::Node(0), family).is_none() {
                return fault(text, format!("the pod has no address of the family of {address}"));
            }
        }
        ends.push(end);
    }
    if ends.is_empty() {
        return fault(backends, "at least one backend is needed");
    }
    if let Some(balancer) = load_balancer {
        if !scenario.is_cluster() {
            return fault(balancer, "a load balancer needs a cluster of several nodes");
        }
        if parsed.len() != balancer.get_ref().len() {
            return fault(balancer, "one address of each of the service's families is needed");
        }
    }
    if let Some(port) = node_port.as_ref().filter(|port| *port.get_ref() == 0) {
        return fault(port, "`node_port` must be 1 to 65535");
    }
    let balancer = load_balancer.as_ref().map(|list| seen.addresses(list)).transpose()?;
    let port = *port.get_ref();
    Ok(Service {
        name,
        addresses: parsed,
        port,
        protocol: number,
        backends: ends,
        namespace: namespace_of(namespace.as_ref())?,
        node_port: node_port.as_ref().map(|port| *port.get_ref()),
        load_balancer: balancer.unwrap_or_default(),
        local: *external_traffic_policy == Policy::Local,
    })
}

fn backend(text: &Spanned<String>, scenario: &Scenario) -> Result<(usize, u16), Fault> {
    let split = text.get_ref().split_once(':');
    let Some((name, port)) = split.and_then(|(name, port)| Some((name, port.parse().ok()?))) else {
        let message = format!("`{}` is not a pod and its port, as \"web:8080\" is", text.get_ref());
        return fault(text, message);
    };
    Ok((find(text, "pod", name, &pod_names(scenario))?, port))
}

fn pod_names(scenario: &Scenario) -> Vec<&str> {
    scenario.pods.iter().map(|pod| pod.name.as_str()).collect()
}

fn find(at: &Spanned<String>, kind: &str, name: &str, names: &[&str]) -> Result<usize, Fault> {
    names.iter().position(|other| *other == name).map_or_else(
        || {
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            fault(at, format!("there is no {kind} `{name}` (known: {known})"))
        },
        Ok,
    )
}

/// Reads `pod:NAME`, `node:NAME`, `outside:NAME`; services are left to the caller.
fn place(at: &Spanned<String>, scenario: &Scenario) -> Result<Option<Place>, Fault> {
    let text = at.get_ref();
    let Some((kind, name)) = text.split_once(':') else {
        let form = "`pod:NAME`, `node:NAME`, `outside:NAME` or `service:NAME`";
        return fault(at, format!("`{text}` is not of the form {form}"));
    };
    let outside: Vec<&str> = scenario.outside.iter().map(|outside| outside.name.as_str()).collect();
    Ok(Some(match kind {
        "pod" => Place::Pod(find(at, kind, name, &pod_names(scenario))?),
        "outside" => Place::Outside(find(at, kind, name, &outside)?),
        "node" => {
            let nodes: Vec<&str> = scenario.nodes.iter().map(|node| node.name.as_str()).collect();
            Place::Node(find(at, kind, name, &nodes)?)
        }
        "service" | "nodeport" | "loadbalancer" => return Ok(None),
        _ => {
            let known = "pod, node, outside and service";
            return fault(at, format!("`{kind}` is no kind of place ({known} are)"));
        }
    }))
}
