//! A scenario file: a cluster, and connections as its nodes see them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use weir_flow::attribution::{Attributed, attribute};
use weir_flow::batch::Epoch;
use weir_flow::cluster::{
    Bounds, Cluster, Config, LocalFact, NodeFacts, Pod, Region, ServiceFacts, Uid, Update,
};
use weir_flow::kubenetmon::Settings;
use weir_flow::ledger::{Clock, Ledger};
use weir_flow::ranges::{Prefix, Range, Ranges};
use weir_flow::time::SECOND;
use weir_flow::{
    BootTime, Class, Endpoint, FlowRecord, Name, Protocol, Resolution, Sample, Unresolved, View,
    WallTime,
};

use crate::{entry, rows};

/// When a connection begins, unless its case says otherwise.
const AT: f64 = 100.0;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    cloud: Option<String>,
    region: Option<String>,
    /// Networks that the operator says are the cluster's.
    #[serde(default)]
    networks: Vec<String>,
    /// False while the directory has not been read yet.
    synced: Option<bool>,
    #[serde(default)]
    node: Vec<NodeLine>,
    #[serde(default)]
    pod: Vec<PodLine>,
    #[serde(default)]
    service: Vec<ServiceLine>,
    #[serde(default)]
    local: Vec<LocalLine>,
    #[serde(default)]
    range: Vec<RangeLine>,
    #[serde(default)]
    flag: Vec<FlagLine>,
    pub(crate) case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeLine {
    name: String,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    pods: Vec<String>,
    zone: Option<String>,
    region: Option<String>,
    /// When it got its agent; `false`: it has none.
    agent: Option<Agent>,
    since: Option<f64>,
    gone: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Agent {
    Since(f64),
    Has(bool),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PodLine {
    /// `NAMESPACE/NAME`.
    name: String,
    node: Option<String>,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    host_network: bool,
    /// `KIND/NAME`.
    owner: Option<String>,
    app: Option<String>,
    /// `KEY=VALUE,KEY=VALUE`.
    labels: Option<String>,
    #[serde(default)]
    probes: Vec<u16>,
    from: Option<When>,
    to: Option<When>,
}

/// A moment in seconds, or the two between which it was.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum When {
    At(f64),
    Between(f64, f64),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceLine {
    name: String,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    node_ports: Vec<String>,
    since: Option<f64>,
    gone: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalLine {
    node: String,
    address: IpAddr,
    #[serde(default)]
    own: bool,
    from: f64,
    to: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeLine {
    prefix: String,
    name: Option<String>,
    cloud: Option<String>,
    region: Option<String>,
    service: Option<String>,
    zone: Option<String>,
    class: Option<String>,
}

/// A flag of the connections to a range, for kubenetmon's rows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlagLine {
    prefix: String,
    name: String,
}

/// One connection.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    name: String,
    #[serde(rename = "because")]
    _because: Option<String>,
    at: Option<f64>,
    view: Vec<ViewLine>,
    /// The bytes in all totals; else those of the first view.
    counted: Option<u64>,
    /// kubenetmon's rows leave UDP out.
    #[serde(default)]
    ignore_udp: bool,
}

/// What one node sees of it, and what weir is to make of that.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewLine {
    node: String,
    /// One entry, or one of each zone.
    entry: Entries,
    is: String,
    /// What kubenetmon's table has of it: every column that is not empty, but for those that are
    /// the same in all rows; `out` and `in` are packets/bytes.
    row: Option<String>,
    /// Why that table has nothing of it.
    no_row: Option<String>,
    /// Why it has nothing of weir's own record, though kubenetmon's agent would tell of it.
    not_ours: Option<String>,
    /// An entity's id, and behind it in brackets how it was found, or why it was not.
    source: Option<String>,
    destination: Option<String>,
    class: Option<String>,
    service: Option<String>,
    /// Namespace, kind and name.
    source_workload: Option<String>,
    destination_workload: Option<String>,
    source_zone: Option<String>,
    source_app: Option<String>,
    destination_node: Option<String>,
    destination_cloud: Option<String>,
    port: Option<u16>,
    translated: Option<IpAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Entries {
    One(String),
    Several(Vec<String>),
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn wall(seconds: f64) -> WallTime {
    WallTime((seconds * 1e9) as u64)
}

impl When {
    fn bounds(self) -> Bounds {
        match self {
            Self::At(at) => Bounds::exactly(wall(at)),
            Self::Between(one, other) => Bounds::between(wall(one), wall(other)),
        }
    }
}

fn name(text: &str) -> Name {
    Name::from(text)
}

fn some(text: Option<&String>) -> Option<Name> {
    text.map(|text| name(text))
}

fn slashed(text: &str) -> (Name, Name) {
    let (one, other) = text.split_once('/').expect("two words with a slash between");
    (name(one), name(other))
}

fn ports(texts: &[String]) -> Vec<(Protocol, u16)> {
    let port = |text: &String| {
        let (protocol, port) = slashed(text);
        (Protocol::parse(&protocol).expect("a protocol"), port.parse().expect("a port"))
    };
    texts.iter().map(port).collect()
}

impl Scenario {
    pub(crate) fn book(&self) -> Cluster {
        let mut book = Cluster::new(Config {
            networks: prefixes(&self.networks),
            region: Region { cloud: some(self.cloud.as_ref()), region: some(self.region.as_ref()) },
            ..Config::default()
        });
        book.set_ranges(Arc::new(Ranges::new(
            &[],
            &self.range.iter().map(range).collect::<Vec<_>>(),
        )));
        self.node.iter().for_each(|node| node.tell(&mut book));
        self.pod.iter().for_each(|pod| pod.tell(&mut book));
        self.service.iter().for_each(|service| service.tell(&mut book));
        for local in &self.local {
            let to = local.to.map(wall);
            let fact = LocalFact { address: local.address, from: wall(local.from), to };
            let node = name(&local.node);
            book.apply(Update::Local { node, own: local.own, facts: vec![fact] });
        }
        // What ends, ends after all that.
        for node in &self.node {
            if let Some(at) = node.gone {
                book.apply(Update::NodeGone { name: name(&node.name), at: wall(at) });
            }
        }
        if self.synced != Some(false) {
            book.apply(Update::Synced { at: wall(AT) });
        }
        book
    }

    pub(crate) fn settings(&self) -> Settings {
        let of = |text: &Option<String>| name(text.as_deref().unwrap_or_default());
        let flag = |line: &FlagLine| (line.prefix.parse().expect("a prefix"), name(&line.name));
        Settings {
            environment: name("development"),
            cloud: of(&self.cloud),
            region: of(&self.region),
            cluster: name("cluster"),
            ignore_udp: false,
            flags: self.flag.iter().map(flag).collect(),
        }
    }
}

fn prefixes(texts: &[String]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

fn range(line: &RangeLine) -> (Prefix, Range) {
    let class = line.class.as_deref().map(|class| Class::parse(class).expect("a class"));
    let range = Range {
        cloud: some(line.cloud.as_ref()),
        region: some(line.region.as_ref()),
        service: some(line.service.as_ref()),
        name: some(line.name.as_ref()),
        zone: some(line.zone.as_ref()),
        class,
        ..Range::default()
    };
    (line.prefix.parse().expect("a prefix"), range)
}

impl NodeLine {
    fn tell(&self, book: &mut Cluster) {
        book.apply(Update::Node(NodeFacts {
            name: name(&self.name),
            addresses: self.addresses.clone(),
            pod_networks: prefixes(&self.pods),
            zone: some(self.zone.as_ref()),
            region: some(self.region.as_ref()),
            cloud: None,
            since: wall(self.since.unwrap_or(0.0)),
        }));
        let since = match self.agent.unwrap_or(Agent::Has(true)) {
            Agent::Has(false) => return,
            Agent::Has(true) => 0.0,
            Agent::Since(since) => since,
        };
        book.apply(Update::Enrolled { node: name(&self.name), from: wall(since) });
    }
}

impl PodLine {
    fn tell(&self, book: &mut Cluster) {
        let (namespace, pod) = slashed(&self.name);
        book.apply(Update::Pod(Pod {
            uid: Uid::of(&format!("{} {:?}", self.name, self.from)),
            namespace,
            name: pod,
            node: some(self.node.as_ref()),
            addresses: self.addresses.clone(),
            host_network: self.host_network,
            workload: self.owner.as_deref().map(slashed),
            app: some(self.app.as_ref()),
            labels: some(self.labels.as_ref()),
            from: self.from.unwrap_or(When::At(0.0)).bounds(),
            ended: self.to.map(When::bounds),
            probe_ports: self.probes.clone(),
            runs_agent: false,
        }));
    }
}

impl ServiceLine {
    fn tell(&self, book: &mut Cluster) {
        let (namespace, service) = slashed(&self.name);
        book.apply(Update::Service(ServiceFacts {
            namespace: Name::clone(&namespace),
            name: Name::clone(&service),
            addresses: self.addresses.clone(),
            ports: ports(&self.ports),
            node_ports: ports(&self.node_ports),
            since: wall(self.since.unwrap_or(0.0)),
        }));
        if let Some(at) = self.gone {
            book.apply(Update::ServiceGone { namespace, name: service, at: wall(at) });
        }
    }
}

impl Case {
    /// What is not as the case says.
    pub(crate) fn check(&self, book: &Cluster, settings: &Settings) -> Vec<String> {
        let settings = Settings { ignore_udp: self.ignore_udp, ..settings.clone() };
        let start = wall(self.at.unwrap_or(AT));
        let mut wrong = Vec::new();
        let mut counted = 0;
        let mut seen = HashMap::new();
        for line in &self.view {
            let record = line.record(start);
            let observer = book.as_seen_by(&line.node, 0);
            let attributed = attribute(&record, 0, &observer);
            let bytes = record.delta().bytes();
            seen.entry(&line.node).or_insert(bytes);
            if attributed.view.counts() {
                counted += bytes;
            }
            for (what, is, should) in line.differences(&record, &attributed) {
                let node = &line.node;
                let case = &self.name;
                wrong.push(format!("{case}: on {node} the {what} is {is}, should be {should}"));
            }
            if line.row.is_some() || line.no_row.is_some() {
                let seen = rows::Seen {
                    node: &name(&line.node),
                    sample: &line.samples(start)[0],
                    record: &record,
                    ends: &attributed,
                };
                let said = rows::Said {
                    row: line.row.as_deref(),
                    no_row: line.no_row.as_deref(),
                    not_ours: line.not_ours.as_deref(),
                };
                let differences = seen.differences(&said, &observer, &settings).into_iter();
                let case = &self.name;
                wrong.extend(differences.map(|wrong| format!("{case}: on {}: {wrong}", line.node)));
            }
        }
        let should = self.counted.unwrap_or_else(|| seen[&self.view[0].node]);
        if counted != should {
            wrong.push(format!("{}: {counted} bytes are counted, not {should}", self.name));
        }
        wrong
    }
}

impl ViewLine {
    fn samples(&self, start: WallTime) -> Vec<Sample> {
        let entries = match &self.entry {
            Entries::One(line) => std::slice::from_ref(line),
            Entries::Several(lines) => lines,
        };
        entries.iter().map(|line| entry::parse(line, start)).collect()
    }

    /// The one record that the node's ledger makes of the entries.
    fn record(&self, start: WallTime) -> FlowRecord {
        let mut ledger = Ledger::new(Epoch(1), false);
        let mut records: Vec<FlowRecord> = Vec::new();
        let now = BootTime(start.0 + 5 * SECOND);
        ledger.begin_dump(Clock { now, wall_offset_nanos: 0 });
        for sample in self.samples(start) {
            ledger.observe(&sample, &mut records);
        }
        ledger.end_dump(true, &mut records);
        ledger.judge(&mut records);
        match records.as_slice() {
            [record] => *record,
            other => panic!("{:?} make {} records", self.entry, other.len()),
        }
    }

    fn differences(
        &self,
        record: &FlowRecord,
        attributed: &Attributed,
    ) -> Vec<(&'static str, String, String)> {
        let Attributed { source, destination, class, service, view } = attributed;
        let text = |text: &Option<Name>| text.as_deref().unwrap_or("none").to_owned();
        let workload = |end: &Endpoint| end.workload().unwrap_or_else(|| "none".to_owned());
        let id = |end: &Endpoint, as_asked: &Option<String>| {
            let asked = as_asked.as_deref().is_some_and(|asked| asked.ends_with(')'));
            let why = end.unresolved.map(Unresolved::name);
            let how = why.or_else(|| end.resolution.map(Resolution::name)).unwrap_or("none");
            if asked { format!("{} ({how})", end.id()) } else { end.id() }
        };
        let translated = record.translated_source.map(|(address, _)| address.to_string());
        let asked = [
            ("view", Some(view_name(*view)), Some(self.is.clone())),
            ("source", Some(id(source, &self.source)), self.source.clone()),
            ("destination", Some(id(destination, &self.destination)), self.destination.clone()),
            ("class", Some(class.name().to_owned()), self.class.clone()),
            ("service", Some(text(service)), self.service.clone()),
            ("source's workload", Some(workload(source)), self.source_workload.clone()),
            (
                "destination's workload",
                Some(workload(destination)),
                self.destination_workload.clone(),
            ),
            ("source's zone", Some(text(&source.zone)), self.source_zone.clone()),
            ("source's app", Some(text(&source.app)), self.source_app.clone()),
            ("destination's node", Some(text(&destination.node)), self.destination_node.clone()),
            ("destination's cloud", Some(cloud(destination)), self.destination_cloud.clone()),
            ("port", Some(record.destination_port.to_string()), self.port.map(|p| p.to_string())),
            ("translated source", translated, self.translated.map(|a| a.to_string())),
        ];
        let differs = |(what, is, should): (&'static str, Option<String>, Option<String>)| {
            let (is, should) = (is.unwrap_or_else(|| "none".to_owned()), should?);
            (is != should).then_some((what, is, should))
        };
        asked.into_iter().filter_map(differs).collect()
    }
}

/// `CLOUD REGION SERVICE`, as far as they are known.
fn cloud(end: &Endpoint) -> String {
    let known = [&end.cloud, &end.region, &end.cloud_service];
    let words: Vec<&str> = known.into_iter().filter_map(Option::as_deref).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}

fn view_name(view: View) -> String {
    match view {
        View::Counts { transit: false } => "counts",
        View::Counts { transit: true } => "counts and passes on",
        View::Transit => "transit",
        View::Second => "second",
        View::Foreign => "foreign",
        View::Undecided => "undecided",
    }
    .to_owned()
}
