//! kubenetmon's table against the truth: what its documented rules make of what every node saw.
//!
//! Nothing of weir's own is asked: addresses, nodes and ranges are the scenario's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::Serialize;
use weir_flow::{Counters, Protocol};

use super::servers::INGEST_PORT;
use super::views::Views;
use crate::clickhouse::Engine;
use crate::error::LabError;
use crate::scenario::Scenario;
use crate::text::line;
use crate::truth::Group;

/// Its configuration file, as its own chart writes it.
pub(super) const SERVER_FILE: &str = include_str!("../../scenarios/kubenetmon-server.yaml");
/// Its table, by that file.
pub(super) const TABLE: &str = "default.network_flows_0";

/// The question its own documentation ends with. `TABLE` stands for the table.
const FINAL_QUESTION: &str = "\
SELECT localPod, remotePod, connectionClass, formatReadableSize(sum(bytes))
FROM TABLE
WHERE direction = 'out' AND intervalStartTime > now() - INTERVAL 10 MINUTE
GROUP BY localPod, remotePod, connectionClass
ORDER BY sum(bytes) DESC, localPod, remotePod";

/// The same, exactly and for both directions.
const EXACT_QUESTION: &str = "\
SELECT localPod, remotePod, connectionClass, toString(direction), sum(bytes), sum(packets)
FROM TABLE WHERE intervalStartTime > now() - INTERVAL 10 MINUTE
GROUP BY localPod, remotePod, connectionClass, direction
FORMAT TabSeparated";

/// What its rows are summed by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Sum {
    /// The pod whose row it is; empty where it is none.
    pub local: String,
    /// The pod it spoke with; empty where it is none.
    pub remote: String,
    /// kubenetmon's class.
    pub class: String,
    /// `out` or `in`.
    pub direction: String,
}

/// A sum of its table beside the truth.
#[derive(Clone, Debug, Serialize)]
pub struct TableLine {
    /// What is summed.
    #[serde(flatten)]
    pub sum: Sum,
    /// Bytes and packets that it should be.
    pub truth: [u64; 2],
    /// Those of the table; nothing where it has no such row.
    pub table: Option<[u64; 2]>,
}

/// What came of its table.
#[derive(Clone, Debug, Serialize)]
pub struct TableOutcome {
    /// Every sum.
    pub lines: Vec<TableLine>,
    /// The answer to the question that its documentation ends with.
    pub answer: String,
}

impl TableOutcome {
    /// True when there is traffic, and the table has exactly what it should.
    pub fn is_good(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(TableLine::is_exact)
    }
}

impl TableLine {
    /// True when there is no difference.
    pub fn is_exact(&self) -> bool {
        self.table.unwrap_or_default() == self.truth
    }
}

/// The variables that its agent is started with.
pub(super) fn agent_environment(
    node: &str,
    server: Ipv4Addr,
    metrics_port: u16,
    interval: Duration,
) -> Vec<(String, String)> {
    [
        ("NODE_NAME", node.to_owned()),
        ("COLLECTION_INTERVAL", format!("{}s", interval.as_secs())),
        ("SKIP_CONNTRACK_SANITY_CHECK", "false".to_owned()),
        ("UPTIME_WAIT_DURATION", "300s".to_owned()),
        ("KUBENETMON_SERVER_SERVICE_HOST", server.to_string()),
        ("KUBENETMON_SERVER_SERVICE_PORT", INGEST_PORT.to_string()),
        ("METRICS_PORT", metrics_port.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// What is summed, with bytes and packets.
type Sums = BTreeMap<Sum, [u64; 2]>;

/// Holds the table against what every node saw.
pub(super) fn judge(
    scenario: &Scenario,
    views: &Views,
    engine: &Engine,
    table: &str,
) -> Result<TableOutcome, LabError> {
    let truth = Rules { scenario }.sums(views);
    let said = parse(&engine.run(&EXACT_QUESTION.replace("TABLE", table))?)?;
    let question = FINAL_QUESTION.replace("TABLE", table);
    let answer = engine.run(&format!("{question}\nFORMAT PrettyCompactMonoBlock"))?;
    let mut sums: Vec<&Sum> = truth.keys().chain(said.keys()).collect();
    sums.sort_unstable();
    sums.dedup();
    let line = |sum: &Sum| TableLine {
        sum: sum.clone(),
        truth: truth.get(sum).copied().unwrap_or_default(),
        table: said.get(sum).copied(),
    };
    Ok(TableOutcome {
        lines: sums.into_iter().map(line).collect(),
        answer: question + "\n\n" + &answer,
    })
}

/// kubenetmon's rules, on a scenario's addresses.
struct Rules<'a> {
    scenario: &'a Scenario,
}

/// Who is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who<'a> {
    Nobody,
    Pod(&'a str, usize),
}

impl Rules<'_> {
    /// What the table's rows should sum up to.
    fn sums(&self, views: &Views) -> Sums {
        let mut sums = Sums::new();
        for (node, truth) in views.nodes.iter().enumerate() {
            for (group, known) in &truth.groups {
                let (sent, received) = (known.totals.sent, known.totals.received);
                let Some(local_opened) = self.local_opened(group, node) else { continue };
                let (local, remote, out, back) = if local_opened {
                    (group.source, group.destination, sent, received)
                } else {
                    (group.destination, group.source, received, sent)
                };
                for (direction, counters) in [("out", out), ("in", back)] {
                    let Counters { packets, bytes } = counters;
                    if (packets, bytes) == (0, 0) {
                        continue;
                    }
                    let sum = Sum {
                        local: self.pod_name(local),
                        remote: self.pod_name(remote),
                        class: self.class(remote).to_owned(),
                        direction: direction.to_owned(),
                    };
                    let [all_bytes, all_packets] = sums.entry(sum).or_default();
                    *all_bytes += bytes;
                    *all_packets += packets;
                }
            }
        }
        sums
    }

    /// True when the local end is the one that opened; nothing where there is no row.
    fn local_opened(&self, group: &Group, observer: usize) -> Option<bool> {
        let ends = [group.source, group.destination];
        // UDP is left out by the lab's file, as it is by theirs.
        if group.protocol != Protocol::TCP || ends.iter().any(IpAddr::is_ipv6) {
            return None;
        }
        // A bridge's address is no node's InternalIP, and so it is nobody's.
        let is_node = |address: &IpAddr| {
            self.scenario.nodes.iter().any(|node| node.uplinks.contains(address))
        };
        if ends.iter().any(is_node) || ends.iter().any(IpAddr::is_loopback) {
            return None;
        }
        let here = |who: Who<'_>| matches!(who, Who::Pod(_, node) if node == observer);
        match ends.map(|end| self.who(end)) {
            [source, _] if here(source) => Some(true),
            [_, destination] if here(destination) => Some(false),
            // A pod elsewhere with somebody unknown: the unknown one is taken for the local end.
            [Who::Nobody, Who::Pod(..)] => Some(true),
            [Who::Pod(..), Who::Nobody] => Some(false),
            _ => None,
        }
    }

    fn who(&self, address: IpAddr) -> Who<'_> {
        let mut pods = self.scenario.pods.iter().filter(|pod| !pod.host_network);
        pods.find(|pod| pod.addresses.contains(&address))
            .map_or(Who::Nobody, |pod| Who::Pod(&pod.name, pod.node))
    }

    fn pod_name(&self, address: IpAddr) -> String {
        match self.who(address) {
            Who::Pod(name, _) => name.to_owned(),
            Who::Nobody => String::new(),
        }
    }

    /// The class follows from the remote address alone.
    fn class(&self, remote: IpAddr) -> &'static str {
        let is_private = match remote {
            IpAddr::V4(address) => address.is_private() || address.is_link_local(),
            IpAddr::V6(_) => false,
        };
        if is_private {
            return "INTRA_VPC";
        }
        let mut outside = self.scenario.outside.iter();
        let range = outside.find(|outside| outside.addresses.contains(&remote));
        let range = range.and_then(|outside| outside.range.as_ref());
        match range {
            Some(range) if range.cloud.is_some() && range.cloud == self.scenario.setup.cloud => {
                let is_own = range.region == self.scenario.nodes[0].region;
                if is_own { "INTRA_REGION" } else { "INTER_REGION" }
            }
            _ => "PUBLIC_INTERNET",
        }
    }
}

fn parse(text: &str) -> Result<Sums, LabError> {
    let trouble = |row: &str| LabError::Answer {
        program: "ClickHouse".to_owned(),
        message: format!("no row of kubenetmon's table: {row}"),
    };
    let mut sums = Sums::new();
    for row in text.lines() {
        let fields: Vec<&str> = row.split('\t').collect();
        let [local, remote, class, direction, bytes, packets] = fields[..] else {
            return Err(trouble(row));
        };
        let [bytes, packets] = [bytes, packets].map(str::parse);
        let (Ok(bytes), Ok(packets)) = (bytes, packets) else { return Err(trouble(row)) };
        let sum = Sum {
            local: local.to_owned(),
            remote: remote.to_owned(),
            class: class.to_owned(),
            direction: direction.to_owned(),
        };
        sums.insert(sum, [bytes, packets]);
    }
    Ok(sums)
}

/// The outcome as text.
pub(super) fn tell(text: &mut String, outcome: &TableOutcome) {
    let differing = outcome.lines.iter().filter(|line| !line.is_exact()).count();
    line(
        text,
        &format!(
            "kubenetmon's table: {} sums by pods, class and direction, {differing} differ from the \
             truth",
            outcome.lines.len()
        ),
    );
    for different in outcome.lines.iter().filter(|line| !line.is_exact()) {
        let Sum { local, remote, class, direction } = &different.sum;
        let table = different.table.map_or_else(|| "-".to_owned(), |table| table[0].to_string());
        line(
            text,
            &format!(
                "kubenetmon's table: {local:?} {remote:?} {class} {direction}: {} bytes, not {table}",
                different.truth[0]
            ),
        );
    }
    line(text, "");
    line(text, outcome.answer.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(source: &str, destination: &str) -> Group {
        Group {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: Protocol::TCP,
            destination_port: 80,
            service: None,
        }
    }

    #[test]
    fn the_local_end_and_the_class_follow_its_documented_rules() {
        let text = include_str!("../../scenarios/shop-cluster.toml");
        let (scenario, _) = Scenario::parse(text, "shop-cluster.toml").unwrap();
        let rules = Rules { scenario: &scenario };
        let (frontend_1, cart_1, redis) = ("10.244.1.10", "10.244.1.20", "10.244.3.30");
        for (source, destination, node, expected) in [
            (frontend_1, cart_1, 0, Some(true)),
            (cart_1, redis, 0, Some(true)),
            (cart_1, redis, 2, Some(false)),
            // A third node sees two pods that are elsewhere.
            (cart_1, redis, 1, None),
            (cart_1, "203.0.113.9", 0, Some(true)),
            ("203.0.113.7", frontend_1, 0, Some(false)),
            // Through the port of a node that the pod is not on.
            ("203.0.113.7", frontend_1, 2, Some(true)),
            // A node's addresses; its bridge's is nobody's.
            ("172.18.0.13", frontend_1, 0, None),
            (cart_1, "172.18.0.13", 0, None),
            ("10.244.1.1", frontend_1, 0, Some(false)),
            ("fd00:244:1::20", "fd00:244:3::30", 0, None),
        ] {
            let opened = rules.local_opened(&group(source, destination), node);
            assert_eq!(opened, expected, "{source} > {destination} on {node}");
        }
        let udp = Group { protocol: Protocol(17), ..group(cart_1, redis) };
        assert_eq!(rules.local_opened(&udp, 0), None);
        for (remote, expected) in [
            (redis, "INTRA_VPC"),
            ("203.0.113.9", "PUBLIC_INTERNET"),
            ("198.51.100.80", "INTRA_REGION"),
        ] {
            assert_eq!(rules.class(remote.parse().unwrap()), expected, "{remote}");
        }
    }
}
