//! Who talks to whom: what a `[[traffic]]` asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;

use super::super::file::{self, Families, OneOrTwo};
use super::super::{Family, Place, Scenario, SourcePorts, Span, Target, Traffic, TrafficProtocol};
use super::{Fault, fault, find, place};

/// Connections of one `[[traffic]]` and family, and of the whole scenario's elements.
const CONNECTIONS_LIMIT: u32 = 50_000;
/// Threads of one generator.
const CONCURRENCY_LIMIT: u32 = 1_024;

pub(super) fn traffic(
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
    let life = written.life.get_ref().times();
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
        return service_target(written, scenario);
    };
    if written.from.get_ref() == written.to.get_ref() && !matches!(place, Place::Node(_)) {
        return fault(&written.to, "traffic of a place with itself does not cross the node");
    }
    match (&written.port, protocol) {
        (Some(port), TrafficProtocol::Icmp) => fault(port, "ICMP has no `port`"),
        (None, TrafficProtocol::Icmp) => Ok(Target::Place(place, 0)),
        (Some(port), _) if *port.get_ref() > 0 => Ok(Target::Place(place, *port.get_ref())),
        _ => fault(&written.to, "`port` (1 to 65535) is needed here"),
    }
}

/// Reads `service:NAME`, `nodeport:NAME@NODE` or `loadbalancer:NAME`.
fn service_target(written: &file::Traffic, scenario: &Scenario) -> Result<Target, Fault> {
    let protocol = *written.protocol.get_ref();
    let (kind, name) = written.to.get_ref().split_once(':').unwrap_or_default();
    let (name, node) = name.split_once('@').map_or((name, None), |(name, node)| (name, Some(node)));
    let names: Vec<&str> = scenario.services.iter().map(|service| service.name.as_str()).collect();
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
    match (kind, node) {
        ("service", None) => return Ok(Target::Service(index)),
        // From inside, the node that translates is not the one that would be expected to count.
        _ if !written.from.get_ref().starts_with("outside:") => {}
        ("nodeport", Some(node)) if service.node_port.is_some() => {
            let nodes: Vec<&str> = scenario.nodes.iter().map(|node| node.name.as_str()).collect();
            return Ok(Target::NodePort(index, find(&written.to, "node", node, &nodes)?));
        }
        ("loadbalancer", None) if !service.load_balancer.is_empty() => {
            return Ok(Target::LoadBalancer(index));
        }
        _ => {}
    }
    let forms = "`nodeport:NAME@NODE` and `loadbalancer:NAME` are dialled from an outside machine, \
                 at a service that has them";
    fault(&written.to, forms)
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
        let there = match to {
            Target::Place(place, _) => scenario.address(place, from, *family).is_some(),
            Target::Service(_) | Target::NodePort(..) | Target::LoadBalancer(_) => {
                let service = &scenario.services[to.service().unwrap_or_default()];
                service.addresses.iter().any(|address| Family::of(*address) == *family)
            }
        };
        let peer = match to {
            Target::Place(place, _) => place,
            _ => from,
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
