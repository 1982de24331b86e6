//! From the file as it is written to a checked scenario.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::file::{self, Families, OneOrTwo, Time, What};
use super::{
    Action, ActionKind, Family, Network, Node, Outside, Place, Pod, Scenario, Service, SourcePorts,
    Span, Target, Traffic, TrafficProtocol,
};
use crate::error::LabError;

/// Connections of one `[[traffic]]` and family, and of the whole scenario's elements.
const CONNECTIONS_LIMIT: u32 = 50_000;
/// Threads of one generator.
const CONCURRENCY_LIMIT: u32 = 1_024;
/// Keys that a device's alias must fit beside the run's id.
const NAME_LIMIT: usize = 20;

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
    let node = node(&file.node)?;
    let mut seen = Seen::default();
    for network in &node.pod_networks {
        seen.addresses.push(network.address);
    }
    seen.addresses.extend(&node.uplinks);
    let mut scenario = Scenario {
        name: file.name,
        duration,
        seed: file.seed,
        sysctl: file.sysctl.into_iter().map(|(name, value)| (name.into_inner(), value)).collect(),
        node,
        pods: Vec::new(),
        services: Vec::new(),
        outside: Vec::new(),
        traffic: Vec::new(),
        actions: Vec::new(),
    };
    for pod in &file.pod {
        scenario.pods.push(self::pod(pod, &scenario.node, &mut seen)?);
    }
    for outside in &file.outside {
        scenario.outside.push(self::outside(outside, &scenario.node, &mut seen)?);
    }
    for service in &file.service {
        let service = self::service(service, &scenario, &mut seen)?;
        scenario.services.push(service);
    }
    let mut ports = BTreeMap::new();
    for traffic in &file.traffic {
        let traffic = self::traffic(traffic, &scenario, &mut ports)?;
        scenario.traffic.push(traffic);
    }
    for action in &file.action {
        scenario.actions.push(self::action(action, duration)?);
    }
    scenario.actions.sort_by_key(|action| action.at);
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

fn node(nodes: &[Spanned<file::Node>]) -> Result<Node, Fault> {
    let [node] = nodes else {
        let at = nodes.get(1).map_or(0..0, Spanned::span);
        let message = format!("one [[node]] is needed, {} are given", nodes.len());
        return Err(Fault { at, message });
    };
    let file::Node { name, pod_networks, uplinks, masquerade, masquerade_services } =
        node.get_ref();
    let mut networks: Vec<Network> = Vec::new();
    for text in pod_networks {
        let parsed = network(text)?;
        let family = Family::of(parsed.address);
        if networks.iter().any(|other| Family::of(other.address) == family) {
            return fault(text, "at most one pod network of a family can be given");
        }
        networks.push(parsed);
    }
    if networks.is_empty() {
        return fault(name, "`pod_networks` needs at least one network");
    }
    let uplinks = uplinks.iter().map(address).collect::<Result<_, _>>()?;
    Ok(Node {
        name: valid_name(name)?,
        pod_networks: networks,
        uplinks,
        masquerade: *masquerade,
        masquerade_services: *masquerade_services,
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

fn pod(pod: &file::Pod, node: &Node, seen: &mut Seen) -> Result<Pod, Fault> {
    let file::Pod { name, node: on, addresses } = pod;
    if let Some(on) = on
        && *on.get_ref() != node.name
    {
        return fault(on, format!("there is no node `{}`, only `{}`", on.get_ref(), node.name));
    }
    let name = seen.name("pod", name)?;
    let parsed = seen.addresses(addresses)?;
    for address in &parsed {
        if !node.pod_networks.iter().any(|network| network.contains(*address)) {
            return fault(addresses, format!("{address} is in none of the node's `pod_networks`"));
        }
    }
    Ok(Pod { name, addresses: parsed })
}

fn outside(outside: &file::Outside, node: &Node, seen: &mut Seen) -> Result<Outside, Fault> {
    let file::Outside { name, addresses } = outside;
    let name = seen.name("outside", name)?;
    let parsed = seen.addresses(addresses)?;
    not_in_pod_networks(&parsed, node, addresses)?;
    for address in &parsed {
        let family = Family::of(*address);
        if !node.uplinks.iter().any(|uplink| Family::of(*uplink) == family) {
            return fault(
                addresses,
                format!("{address} needs an address of its family in the node's `uplinks`"),
            );
        }
    }
    Ok(Outside { name, addresses: parsed })
}

fn not_in_pod_networks<T>(addresses: &[IpAddr], node: &Node, at: &Spanned<T>) -> Result<(), Fault> {
    for address in addresses {
        if node.pod_networks.iter().any(|network| network.contains(*address)) {
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
    let file::Service { name, addresses, port, protocol, backends } = service;
    let number = match protocol.get_ref() {
        TrafficProtocol::Icmp => return fault(protocol, "a service is \"tcp\" or \"udp\""),
        other => other.number(Family::V4),
    };
    let name = seen.name("service", name)?;
    let parsed = seen.addresses(addresses)?;
    not_in_pod_networks(&parsed, &scenario.node, addresses)?;
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
            if scenario.address(Place::Pod(end.0), Place::Node, family).is_none() {
                return fault(text, format!("the pod has no address of the family of {address}"));
            }
        }
        ends.push(end);
    }
    if ends.is_empty() {
        return fault(backends, "at least one backend is needed");
    }
    let port = *port.get_ref();
    Ok(Service { name, addresses: parsed, port, protocol: number, backends: ends })
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
            find(at, kind, name, &[scenario.node.name.as_str()])?;
            Place::Node
        }
        "service" => return Ok(None),
        _ => {
            let known = "pod, node, outside and service";
            return fault(at, format!("`{kind}` is no kind of place ({known} are)"));
        }
    }))
}

fn traffic(
    traffic: &Spanned<file::Traffic>,
    scenario: &Scenario,
    ports: &mut BTreeMap<Place, SourcePorts>,
) -> Result<Traffic, Fault> {
    let written = traffic.get_ref();
    let Some(from) = place(&written.from, scenario)? else {
        return fault(&written.from, "a service opens no connections; `from` needs a place");
    };
    let to = target(written, scenario)?;
    source_ports(written, from, ports)?;
    let request_bytes = span(&written.request_bytes, "request_bytes")?;
    let response_bytes = match &written.response_bytes {
        Some(bytes) => span(bytes, "response_bytes")?,
        None => request_bytes,
    };
    let life = match written.life.get_ref() {
        OneOrTwo::One(Time(life)) => Span { low: *life, high: *life },
        OneOrTwo::Two([Time(low), Time(high)]) => Span { low: *low, high: *high },
    };
    if life.low > life.high {
        return fault(&written.life, "`life` is a range from the least to the most");
    }
    let start = written.start.as_ref().map_or(Duration::ZERO, |start| start.get_ref().0);
    let Some(rest) = scenario.duration.checked_sub(start + life.high) else {
        return fault(&written.life, "the traffic would outlive the scenario's `duration`");
    };
    let within = match &written.within {
        Some(within) if within.get_ref().0 > rest => {
            return fault(within, "`start`, `within` and `life` together exceed `duration`");
        }
        Some(within) => within.get_ref().0,
        None => rest,
    };
    let parsed = Traffic {
        from,
        to,
        protocol: *written.protocol.get_ref(),
        families: families(traffic, from, to, scenario)?,
        connections: limited(&written.connections, "connections", CONNECTIONS_LIMIT)?,
        concurrency: match &written.concurrency {
            Some(concurrency) => limited(concurrency, "concurrency", CONCURRENCY_LIMIT)?,
            None => 128,
        },
        start,
        within,
        request_bytes,
        response_bytes,
        life,
        pattern: written.pattern,
    };
    Ok(parsed)
}

fn target(written: &file::Traffic, scenario: &Scenario) -> Result<Target, Fault> {
    let protocol = *written.protocol.get_ref();
    let Some(place) = place(&written.to, scenario)? else {
        let name = written.to.get_ref().trim_start_matches("service:");
        let names: Vec<&str> =
            scenario.services.iter().map(|service| service.name.as_str()).collect();
        let index = find(&written.to, "service", name, &names)?;
        let service = &scenario.services[index];
        if let Some(port) = &written.port {
            return fault(port, "a service has its own port; leave `port` out");
        }
        if protocol.number(Family::V4) != service.protocol {
            let message = format!("the service `{name}` is {}", service.protocol);
            return fault(&written.protocol, message);
        }
        let own = written.from.get_ref().strip_prefix("pod:");
        if service.backends.iter().any(|(pod, _)| Some(scenario.pods[*pod].name.as_str()) == own) {
            let message = "a pod cannot dial a service that it stands behind itself";
            return fault(&written.to, message);
        }
        return Ok(Target::Service(index));
    };
    if written.from.get_ref() == written.to.get_ref() && place != Place::Node {
        return fault(&written.to, "traffic of a place with itself does not cross the node");
    }
    match (&written.port, protocol) {
        (Some(port), TrafficProtocol::Icmp) => fault(port, "ICMP has no `port`"),
        (None, TrafficProtocol::Icmp) => Ok(Target::Place(place, 0)),
        (Some(port), _) if *port.get_ref() > 0 => Ok(Target::Place(place, *port.get_ref())),
        _ => fault(&written.to, "`port` (1 to 65535) is needed here"),
    }
}

fn source_ports(
    written: &file::Traffic,
    from: Place,
    ports: &mut BTreeMap<Place, SourcePorts>,
) -> Result<(), Fault> {
    let Some(range) = &written.source_ports else {
        if written.reuse_ports {
            return fault(&written.from, "`reuse_ports` needs `source_ports`");
        }
        return Ok(());
    };
    let span = span(range, "source_ports")?;
    if span.low < 1_024 {
        return fault(range, "`source_ports` begin at 1024");
    }
    let wanted = SourcePorts { ports: span, reuse: written.reuse_ports };
    let given = *ports.entry(from).or_insert(wanted);
    if given != wanted {
        let message = "`source_ports` and `reuse_ports` hold for all traffic from a place and \
                       differ here from those given before";
        return fault(range, message);
    }
    Ok(())
}

fn families(
    traffic: &Spanned<file::Traffic>,
    from: Place,
    to: Target,
    scenario: &Scenario,
) -> Result<Vec<Family>, Fault> {
    let wanted: &[Family] = match traffic.get_ref().family {
        Families::Four => &[Family::V4],
        Families::Six => &[Family::V6],
        Families::Both => &[Family::V4, Family::V6],
    };
    for family in wanted {
        let (peer, there) = match to {
            Target::Place(place, _) => (place, scenario.address(place, from, *family).is_some()),
            Target::Service(index) => {
                let service = &scenario.services[index];
                let there = service.addresses.iter().any(|address| Family::of(*address) == *family);
                (Place::Pod(service.backends[0].0), there)
            }
        };
        let number = if *family == Family::V4 { 4 } else { 6 };
        if scenario.address(from, peer, *family).is_none() {
            return fault(&traffic.get_ref().from, format!("this has no IPv{number} address"));
        }
        if !there {
            return fault(&traffic.get_ref().to, format!("this has no IPv{number} address"));
        }
    }
    Ok(wanted.to_vec())
}

fn span<T: Copy + PartialOrd>(
    written: &Spanned<OneOrTwo<T>>,
    name: &str,
) -> Result<Span<T>, Fault> {
    let span = written.get_ref().span();
    if span.low > span.high {
        return fault(written, format!("`{name}` is a range from the least to the most"));
    }
    Ok(span)
}

fn limited(written: &Spanned<u32>, name: &str, most: u32) -> Result<u32, Fault> {
    let value = *written.get_ref();
    if value == 0 || value > most {
        return fault(written, format!("`{name}` is 1 to {most}"));
    }
    Ok(value)
}

fn action(action: &file::Action, duration: Duration) -> Result<Action, Fault> {
    let file::Action { at, what, down } = action;
    if at.get_ref().0 >= duration {
        return fault(at, "`at` lies after the scenario's end");
    }
    let kind = match (what, down) {
        (What::FlushConntrack, Some(down)) => {
            return fault(down, "`down` belongs to \"kill_agent\"");
        }
        (What::FlushConntrack, None) => ActionKind::FlushConntrack,
        (What::KillAgent, down) => ActionKind::KillAgent(
            down.as_ref().map_or(Duration::from_millis(1_500), |down| down.get_ref().0),
        ),
    };
    Ok(Action { at: at.get_ref().0, kind })
}
