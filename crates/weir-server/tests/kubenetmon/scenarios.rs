//! The scenario files of kubenetmon's rows, as its agents would report them: every message over a
//! real connection, every row from the real engine's table.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use weir_flow::cluster::{Bounds, NodeFacts, Pod, Region, ServiceFacts, Uid, Update};
use weir_flow::kubenetmon::{Ignored, Settings};
use weir_flow::ranges::{Prefix, Range, Ranges};
use weir_flow::{Class, Name, Protocol, WallTime};
use weir_lab::clickhouse::{Database, Engine};
use weir_proto::kubenetmon::flow::FlowTuple;
use weir_proto::kubenetmon::{Flow, Observation};
use weir_server::cluster::{Config, Watched};
use weir_server::kubenetmon::Options;
use weir_store::{ClickHouseOptions, ClickHouseStore, KubenetmonSink, KubenetmonTable, Password};

use crate::support::{at, endpoint, now, open, options, settings};

/// When a scenario's connections are looked at, in its own seconds.
const LOOKED: u64 = 104;
/// What an agent keeps to itself.
const UNTOLD: [&str; 4] = ["no_traffic", "not_counted", "protocol", "loopback"];

#[derive(Debug, Deserialize)]
struct Scenario {
    cloud: String,
    region: String,
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default)]
    node: Vec<Node>,
    #[serde(default)]
    pod: Vec<PodLine>,
    #[serde(default)]
    service: Vec<Service>,
    #[serde(default)]
    range: Vec<RangeLine>,
    #[serde(default)]
    flag: Vec<Flag>,
    case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    pods: Vec<String>,
    zone: Option<String>,
    region: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PodLine {
    name: String,
    node: Option<String>,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    host_network: bool,
    app: Option<String>,
    labels: Option<String>,
    from: Option<u64>,
    to: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Service {
    name: String,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    ports: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct RangeLine {
    prefix: String,
    name: Option<String>,
    cloud: Option<String>,
    region: Option<String>,
    service: Option<String>,
    zone: Option<String>,
    class: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Flag {
    prefix: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Case {
    view: Vec<View>,
    #[serde(default)]
    ignore_udp: bool,
}

#[derive(Debug, Deserialize)]
struct View {
    node: String,
    entry: String,
    row: Option<String>,
    no_row: Option<String>,
}

/// Every scenario file that has rows, and all of its cases.
#[test]
fn a_recorded_stream_makes_exactly_the_rows_of_the_scenario_tables() {
    let what = "what kubenetmon's agents report";
    let Some(engine) = Engine::for_test(what).unwrap() else { return };
    let database = engine.database().unwrap();
    let (mut files, mut rows) = (0, 0);
    for path in files_of_rows() {
        let name = path.file_stem().unwrap().to_string_lossy().replace('-', "_");
        let scenario: Scenario = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for ignore_udp in [false, true] {
            let table = format!("{name}_{ignore_udp}");
            rows += scenario.check(&database, &table, ignore_udp);
        }
        files += 1;
    }
    assert!(files >= 5 && rows >= 40, "{files} files, {rows} rows");
}

fn files_of_rows() -> Vec<PathBuf> {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../weir-flow/tests/cluster/scenarios");
    let files = fs::read_dir(Path::new(place)).unwrap().map(|file| file.unwrap().path());
    let is_one = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubenetmon-"))
    };
    let mut files: Vec<PathBuf> = files.filter(is_one).collect();
    files.sort();
    files
}

/// A row without its counters, and packets and bytes out and in.
type Rows = BTreeMap<String, [u64; 4]>;

impl Scenario {
    /// Reports its cases, and compares the table; the number of rows.
    fn check(&self, database: &Database, table: &str, ignore_udp: bool) -> usize {
        let cases = self.case.iter().filter(|case| case.ignore_udp == ignore_udp);
        let told = |view: &&View| !UNTOLD.contains(&view.no_row.as_deref().unwrap_or_default());
        let views: Vec<&View> = cases.flat_map(|case| &case.view).filter(told).collect();
        if views.is_empty() {
            return 0;
        }
        let (mut expected, mut ignored) = (Rows::new(), BTreeMap::<&str, u64>::new());
        for view in &views {
            match (&view.row, view.no_row.as_deref()) {
                (Some(row), None) => add(&mut expected, row),
                (None, Some(why)) => *ignored.entry(why).or_default() += 1,
                other => panic!("there is a row, or there is none: {other:?}"),
            }
        }
        // Early enough that every moment of the scenario is before now.
        let begin = now() - LOOKED;
        let settings = Settings {
            cloud: self.cloud.as_str().into(),
            region: self.region.as_str().into(),
            ignore_udp,
            flags: self.flag.iter().map(Flag::setting).collect(),
            ..settings()
        };
        let store = Arc::new(store(database, table, &settings));
        let door = open(Options {
            settings,
            ..options(Arc::clone(&store) as Arc<dyn KubenetmonSink>, self.book(begin))
        });
        let messages = views.iter().map(|view| view.message(begin + LOOKED)).collect();
        assert_eq!(door.report(messages).unwrap() as usize, views.len());
        let counts = door.counts();
        door.running.stop();
        assert_eq!(counts.error(), None);

        let is = database.run(&SELECT.replace("TABLE", table)).unwrap();
        let is: Rows = is.lines().map(line).collect();
        assert_eq!(is, expected, "{table}");
        let minute = (begin + LOOKED) / 60 * 60;
        let constants = database.run(&CONSTANTS.replace("TABLE", table)).unwrap();
        let should = format!(
            "development\t{}\t{}\tcluster\tUNKNOWN\t\t\t60\t{minute}\t1\n",
            self.cloud, self.region
        );
        assert_eq!(constants, should, "{table}");
        let labelled = counts.labelled();
        for reason in Ignored::ALL {
            let should = ignored.get(reason.name()).copied().unwrap_or(0);
            assert_eq!(labelled.of(reason), should, "{table}: {}", reason.name());
        }
        expected.len()
    }

    fn book(&self, begin: u64) -> Arc<Watched> {
        let mut config = Config::default();
        config.book.networks = prefixes(&self.networks);
        config.book.region = Region {
            cloud: Some(self.cloud.as_str().into()),
            region: Some(self.region.as_str().into()),
        };
        let watched = Watched::open(config, None, Arc::new(|| at(now()))).unwrap();
        let ranges: Vec<_> = self.range.iter().map(RangeLine::range).collect();
        watched.set_ranges(Arc::new(Ranges::new(&[], &ranges)));
        let moment = |seconds: u64| at(begin + seconds);
        for node in &self.node {
            watched.apply(Update::Node(NodeFacts {
                name: name(&node.name),
                addresses: node.addresses.clone(),
                pod_networks: prefixes(&node.pods),
                zone: some(node.zone.as_ref()),
                region: some(node.region.as_ref()),
                cloud: None,
                since: moment(0),
            }));
        }
        self.pod.iter().for_each(|pod| watched.apply(Update::Pod(pod.pod(&moment))));
        for service in &self.service {
            let (namespace, name) = slashed(&service.name);
            watched.apply(Update::Service(ServiceFacts {
                namespace,
                name,
                addresses: service.addresses.clone(),
                ports: service.ports.iter().map(|port| protocol_port(port)).collect(),
                node_ports: Vec::new(),
                since: moment(0),
            }));
        }
        watched.apply(Update::Synced { at: at(now()) });
        Arc::new(watched)
    }
}

pub(crate) fn store(database: &Database, table: &str, settings: &Settings) -> ClickHouseStore {
    let engine = database.engine();
    let options = ClickHouseOptions {
        user: engine.user().map(str::to_owned),
        password: engine.password().map(|password| Password::new(password.to_owned())),
        kubenetmon: Some(KubenetmonTable {
            database: database.name().to_owned(),
            table: table.to_owned(),
            settings: settings.clone(),
        }),
        ..ClickHouseOptions::new(database.url(), database.name())
    };
    ClickHouseStore::open(options).unwrap()
}

impl View {
    /// As an agent says it.
    fn message(&self, timestamp: u64) -> Observation {
        let mut words = self.entry.split_whitespace();
        let protocol = Protocol::parse(words.next().unwrap()).unwrap();
        let mut tuples: Vec<BTreeMap<&str, &str>> = Vec::new();
        for word in words {
            let Some((key, value)) = word.split_once('=') else { continue };
            if key == "src" {
                tuples.push(BTreeMap::new());
            }
            tuples.last_mut().unwrap().insert(key, value);
        }
        let tuple = |of: &BTreeMap<&str, &str>| {
            let number = |key: &str| of.get(key).map_or(0, |text| text.parse::<u32>().unwrap());
            FlowTuple {
                source: Some(endpoint(of["src"], number("sport"))),
                destination: Some(endpoint(of["dst"], number("dport"))),
                packets: number("packets").into(),
                bytes: number("bytes").into(),
            }
        };
        let [original, reply] = &tuples[..] else { panic!("two directions: {}", self.entry) };
        let flow = Flow {
            proto: protocol.0.into(),
            original: Some(tuple(original)),
            reply: Some(tuple(reply)),
        };
        Observation { flow: Some(flow), node_name: self.node.clone(), timestamp }
    }
}

impl PodLine {
    fn pod(&self, moment: &impl Fn(u64) -> WallTime) -> Pod {
        let (namespace, pod) = slashed(&self.name);
        Pod {
            uid: Uid::of(&format!("{} {:?}", self.name, self.from)),
            namespace,
            name: pod,
            node: some(self.node.as_ref()),
            addresses: self.addresses.clone(),
            host_network: self.host_network,
            workload: None,
            app: some(self.app.as_ref()),
            labels: some(self.labels.as_ref()),
            from: Bounds::exactly(moment(self.from.unwrap_or(0))),
            ended: self.to.map(|to| Bounds::exactly(moment(to))),
            probe_ports: Vec::new(),
            runs_agent: false,
        }
    }
}

impl RangeLine {
    fn range(&self) -> (Prefix, Range) {
        let range = Range {
            cloud: some(self.cloud.as_ref()),
            region: some(self.region.as_ref()),
            service: some(self.service.as_ref()),
            name: some(self.name.as_ref()),
            zone: some(self.zone.as_ref()),
            class: self.class.as_deref().map(|class| Class::parse(class).unwrap()),
            ..Range::default()
        };
        (self.prefix.parse().unwrap(), range)
    }
}

impl Flag {
    fn setting(&self) -> (Prefix, Name) {
        (self.prefix.parse().unwrap(), name(&self.name))
    }
}

/// Takes a row as a scenario writes it: words, the last two of which are the counters.
fn add(rows: &mut Rows, text: &str) {
    let (mut words, mut counters) = (Vec::new(), [0; 4]);
    for word in text.split_whitespace() {
        let counted = |text: &str| text.parse::<u64>().unwrap();
        match word.split_once('=').unwrap() {
            (direction @ ("out" | "in"), value) => {
                let (packets, bytes) = value.split_once('/').unwrap();
                let first = if direction == "out" { 0 } else { 2 };
                counters[first] = counted(packets);
                counters[first + 1] = counted(bytes);
            }
            _ => words.push(word),
        }
    }
    let sums = rows.entry(words.join(" ")).or_default();
    sums.iter_mut().zip(counters).for_each(|(sum, more)| *sum += more);
}

/// A line of the table in the same form.
fn line(text: &str) -> (String, [u64; 4]) {
    let columns: Vec<&str> = text.split('\t').collect();
    let (key, counters) = columns.split_at(columns.len() - 4);
    let mut words = vec![format!("proto={}", key[0]), format!("class={}", key[1])];
    let flags = key[2].trim_matches(['{', '}']).split(',').filter(|flag| !flag.is_empty());
    words.extend(flags.map(|flag| format!("flag={}", flag.replace('\'', ""))));
    words.extend(key[3..].iter().filter(|word| !word.ends_with('=')).map(ToString::to_string));
    let counters: Vec<u64> = counters.iter().map(|number| number.parse().unwrap()).collect();
    (words.join(" "), counters.try_into().unwrap())
}

fn name(text: &str) -> Name {
    Name::from(text)
}

fn some(text: Option<&String>) -> Option<Name> {
    text.map(|text| name(text))
}

fn slashed(text: &str) -> (Name, Name) {
    let (one, other) = text.split_once('/').unwrap();
    (name(one), name(other))
}

fn protocol_port(text: &str) -> (Protocol, u16) {
    let (protocol, port) = text.split_once('/').unwrap();
    (Protocol::parse(protocol).unwrap(), port.parse().unwrap())
}

fn prefixes(texts: &[String]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

const SELECT: &str = "\
SELECT proto, connectionClass, toString(connectionFlags),
    'localAvailabilityZone=' || localAvailabilityZone, 'localNode=' || localNode,
    'localInstanceID=' || localInstanceID, 'localNamespace=' || localNamespace,
    'localPod=' || localPod, 'local=' || toString(localIPv4) || ':' || toString(localPort),
    'localApp=' || localApp,
    'remoteCloud=' || remoteCloud, 'remoteRegion=' || remoteRegion,
    'remoteAvailabilityZone=' || remoteAvailabilityZone, 'remoteNode=' || remoteNode,
    'remoteInstanceID=' || remoteInstanceID, 'remoteNamespace=' || remoteNamespace,
    'remotePod=' || remotePod, 'remote=' || toString(remoteIPv4) || ':' || toString(remotePort),
    'remoteApp=' || remoteApp, 'remoteCloudService=' || remoteCloudService,
    sumIf(packets, direction = 'out'), sumIf(bytes, direction = 'out'),
    sumIf(packets, direction = 'in'), sumIf(bytes, direction = 'in')
FROM TABLE GROUP BY ALL FORMAT TabSeparatedRaw";

const CONSTANTS: &str = "\
SELECT environment, localCloud, localRegion, localCluster, remoteCluster, localCell, remoteCell,
    intervalSeconds, toUnixTimestamp(intervalStartTime), date = toDate(intervalStartTime, 'UTC')
FROM TABLE GROUP BY ALL FORMAT TabSeparatedRaw";
