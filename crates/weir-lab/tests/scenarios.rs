//! Scenario files: the good ones, and what each mistake is told as.

use std::fs;
use std::path::Path;
use std::time::Duration;

use weir_lab::scenario::{ActionKind, Family, Place, Scenario, Target};

const BOX: &str = r#"name = "t"
duration = "10s"
[[node]]
name = "one"
pod_networks = ["10.244.1.1/24"]
uplinks = ["203.0.113.1"]
[[pod]]
name = "a"
addresses = ["10.244.1.2"]
[[pod]]
name = "b"
addresses = ["10.244.1.3"]
[[outside]]
name = "internet"
addresses = ["203.0.113.9"]
[[service]]
name = "web"
addresses = ["10.96.0.10"]
port = 80
backends = ["b:8080"]
"#;

const TRAFFIC: &str = r#"[[traffic]]
from = "pod:a"
to = "service:web"
protocol = "tcp"
family = 4
connections = 3
request_bytes = [1, 2]
life = "1s"
"#;

fn error(text: &str) -> String {
    Scenario::parse(text, "t.toml").expect_err("the text has a mistake").to_string()
}

/// The message for `TRAFFIC` with one line replaced or added.
fn traffic_error(key: &str, line: &str) -> String {
    let mut lines: Vec<&str> = TRAFFIC.lines().filter(|l| !l.starts_with(key)).collect();
    lines.push(line);
    error(&format!("{BOX}{}\n", lines.join("\n")))
}

#[test]
fn every_scenario_that_comes_with_the_lab_is_good() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "toml") {
            continue;
        }
        let (scenario, _) = Scenario::read(&path).unwrap();
        assert_eq!(path.file_stem().unwrap().to_str(), Some(scenario.name.as_str()));
        names.push(scenario.name);
    }
    names.sort();
    assert_eq!(
        names,
        [
            "churn",
            "churn-outage",
            "clickhouse-away",
            "clickhouse-kill",
            "clickhouse-race",
            "clickhouse-unanswered",
            "cluster",
            "cluster-cut",
            "cluster-flush",
            "cluster-kills",
            "cluster-vxlan",
            "demo",
            "flush",
            "forged",
            "kill-agent",
            "kubenetmon",
            "plain",
            "port-reuse",
            "shop",
            "shop-cluster",
            "short-timeouts",
            "stolen"
        ]
    );
}

#[test]
fn plain_has_a_thousand_connections() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/plain.toml");
    let (scenario, _) = Scenario::read(&path).unwrap();
    let each =
        scenario.traffic.iter().map(|t| t.connections * u32::try_from(t.families.len()).unwrap());
    assert_eq!(each.sum::<u32>(), 1_000);
}

#[test]
fn what_is_left_unsaid_has_its_default() {
    let (scenario, ports) = Scenario::parse(&format!("{BOX}{TRAFFIC}"), "t.toml").unwrap();
    let traffic = &scenario.traffic[0];
    assert_eq!((traffic.from, traffic.to), (Place::Pod(0), Target::Service(0)));
    assert_eq!(traffic.families, [Family::V4]);
    assert_eq!((traffic.start, traffic.within), (Duration::ZERO, Duration::from_secs(9)));
    assert_eq!(traffic.response_bytes, traffic.request_bytes);
    assert!(scenario.nodes[0].masquerade && !scenario.nodes[0].masquerade_services);
    assert!(ports.is_empty());
}

#[test]
fn a_stretched_scenario_keeps_its_shape() {
    let action = "[[action]]\nat = \"5s\"\ndo = \"kill_agent\"\n";
    let text = format!("{BOX}{TRAFFIC}{action}");
    let (mut scenario, _) = Scenario::parse(&text, "t.toml").unwrap();
    scenario.stretch(Duration::from_secs(20));
    assert_eq!(scenario.actions[0].at, Duration::from_secs(10));
    assert_eq!(scenario.actions[0].kind, ActionKind::KillAgent(0, Duration::from_millis(1_500)));
    assert_eq!(scenario.traffic[0].within, Duration::from_secs(18));
}

#[test]
fn mistakes_in_the_box_are_told_with_their_place() {
    let cases = [
        ("", "t.toml:1:1: missing field `name`"),
        ("name = \"t\"\n", "t.toml:1:1: 1 to 16 [[node]] are needed, 0 are given"),
        ("name = 3\n", "t.toml:1:8: invalid type: integer `3`, expected a string"),
        (
            "name = \"t\"\nduration = \"soon\"\n",
            "t.toml:2:12: invalid value: string \"soon\", expected a time such as \"10ms\", \"4s\" \
             or \"2m\"",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(error(text), message);
    }
    let replaced = [
        (
            "\"10.244.1.1/24\"",
            "\"10.244.1.1\"",
            "5:17: `10.244.1.1` is not the bridge's address in its network, as \"10.244.1.1/24\" is",
        ),
        ("name = \"b\"", "name = \"a\"", "11:8: there are two [[pod]] called `a`"),
        (
            "name = \"b\"",
            "name = \"B\"",
            "11:8: `B` is no name here: 1 to 20 lower-case letters, digits and `-`",
        ),
        ("\"10.244.1.3\"", "\"10.244.1.2\"", "12:14: the address 10.244.1.2 is given twice"),
        (
            "\"10.244.1.3\"",
            "\"10.245.1.3\"",
            "12:13: 10.245.1.3 is in none of the node's `pod_networks`",
        ),
        ("\"10.244.1.3\"", "\"ten\"", "12:14: `ten` is no address"),
        ("[\"10.244.1.3\"]", "[]", "12:13: at least one address is needed"),
        ("\"203.0.113.9\"", "\"10.244.1.9\"", "15:13: 10.244.1.9 lies in a pod network"),
        (
            "\"203.0.113.9\"",
            "\"2001:db8::9\"",
            "15:13: 2001:db8::9 needs an address of its family in the node's `uplinks`",
        ),
        ("\"b:8080\"", "\"c:8080\"", "20:13: there is no pod `c` (known: a, b)"),
        ("\"b:8080\"", "\"b\"", "20:13: `b` is not a pod and its port, as \"web:8080\" is"),
        ("port = 80\n", "port = 0\n", "19:8: `port` must be 1 to 65535"),
        (
            "port = 80\n",
            "ports = 80\n",
            "19:1: unknown field `ports`, expected one of `name`, `addresses`, `port`, `protocol`, `backends`, `namespace`, `node_port`, `load_balancer`, `external_traffic_policy`",
        ),
        (
            "port = 80\n",
            "port = 80\nprotocol = \"icmp\"\n",
            "20:12: a service is \"tcp\" or \"udp\"",
        ),
    ];
    for (old, new, message) in replaced {
        assert!(BOX.contains(old), "{old}");
        assert_eq!(error(&BOX.replace(old, new)), format!("t.toml:{message}"));
    }
}

/// What is replaced or added, where the mistake is then, and how it is told.
const TRAFFIC_MISTAKES: &[(&str, &str, usize, usize, &str)] = &[
    ("from", "from = \"pod:c\"", 28, 8, "there is no pod `c` (known: a, b)"),
    (
        "from",
        "from = \"service:web\"",
        28,
        8,
        "a service opens no connections; `from` needs a place",
    ),
    ("from", "from = \"pod:b\"", 22, 6, "a pod cannot dial a service that it stands behind itself"),
    (
        "from",
        "from = \"shop\"",
        28,
        8,
        "`shop` is not of the form `pod:NAME`, `node:NAME`, `outside:NAME` or `service:NAME`",
    ),
    (
        "to",
        "to = \"host:x\"",
        28,
        6,
        "`host` is no kind of place (pod, node, outside and service are)",
    ),
    ("to", "to = \"pod:b\"", 28, 6, "`port` (1 to 65535) is needed here"),
    (
        "to",
        "to = \"pod:a\"\nport = 1",
        28,
        6,
        "traffic of a place with itself does not cross the node",
    ),
    ("protocol", "protocol = \"udp\"", 28, 12, "the service `web` is tcp"),
    (
        "protocol",
        "protocol = \"sctp\"",
        28,
        12,
        "unknown variant `sctp`, expected one of `tcp`, `udp`, `icmp`",
    ),
    ("family", "family = 6", 22, 8, "this has no IPv6 address"),
    ("family", "family = 5", 28, 10, "invalid value: integer `5`, expected 4, 6 or \"both\""),
    ("connections", "connections = 0", 28, 15, "`connections` is 1 to 50000"),
    (
        "request_bytes",
        "request_bytes = [2, 1]",
        28,
        17,
        "`request_bytes` is a range from the least to the most",
    ),
    ("request_bytes", "request_bytes = \"many\"", 28, 17, "a value or a range [least, most]"),
    ("life", "life = [\"2s\", \"1s\"]", 28, 8, "`life` is a range from the least to the most"),
    ("life", "life = \"11s\"", 28, 8, "the traffic would outlive the scenario's `duration`"),
    (
        "within",
        "within = \"9500ms\"",
        29,
        10,
        "`start`, `within` and `life` together exceed `duration`",
    ),
    ("port", "port = 80", 29, 8, "a service has its own port; leave `port` out"),
    ("source_ports", "source_ports = [80, 90]", 29, 16, "`source_ports` begin at 1024"),
    ("reuse", "reuse_ports = true", 22, 8, "`reuse_ports` needs `source_ports`"),
];

#[test]
fn mistakes_in_traffic_are_told_with_their_place() {
    for (key, line, at, column, message) in TRAFFIC_MISTAKES {
        assert_eq!(traffic_error(key, line), format!("t.toml:{at}:{column}: {message}"), "{line}");
    }
}

#[test]
fn other_mistakes_are_told_with_their_place() {
    let two = format!(
        "{BOX}{}{}",
        TRAFFIC.to_owned() + "source_ports = [2000, 3000]\n",
        TRAFFIC.to_owned() + "source_ports = [2000, 4000]\n"
    );
    assert_eq!(
        error(&two),
        "t.toml:38:16: `source_ports` and `reuse_ports` hold for all traffic from a place and \
         differ here from those given before"
    );
    let action = |text: &str| error(&format!("{BOX}{TRAFFIC}[[action]]\n{text}\n"));
    assert_eq!(
        action("at = \"10s\"\ndo = \"flush_conntrack\""),
        "t.toml:30:6: `at` lies after the scenario's end"
    );
    assert_eq!(
        action("at = \"1s\"\ndo = \"flush_conntrack\"\ndown = \"1s\""),
        "t.toml:32:8: `down` belongs to actions that last"
    );
    assert_eq!(
        action("at = \"1s\"\ndo = \"sing\""),
        "t.toml:31:6: unknown variant `sing`, expected one of `flush_conntrack`, `kill_agent`, `cut_agent`, \
         `cut_connections`, `kill_server`, `stop_server`, `cut_engine`, `kill_engine`, \
         `kill_server_unanswered`, `race_servers`"
    );
    let sysctl = |line: &str| error(&format!("{BOX}[sysctl]\n{line}\n"));
    assert_eq!(sysctl("max = 1"), "t.toml:22:1: nf_conntrack_max belongs to the whole machine");
    assert_eq!(
        sysctl("\"../x\" = 1"),
        "t.toml:22:1: `../x` is no name after nf_conntrack_ (as `tcp_timeout_time_wait` is)"
    );
    let action = |text: &str| error(&format!("{BOX}{TRAFFIC}[[action]]\n{text}\n"));
    assert_eq!(
        action("at = \"1s\"\ndo = \"kill_server\""),
        "t.toml:30:6: this action needs a cluster of several nodes"
    );
}

/// A second node for `BOX`, whose pods must then say where they are.
const SECOND: &str = r#"[[node]]
name = "two"
pod_networks = ["10.244.2.1/24"]
uplinks = ["203.0.113.2"]
"#;

#[test]
fn mistakes_of_clusters_are_told_with_their_place() {
    let cluster = BOX.replace("name = \"a\"\n", "name = \"a\"\nnode = \"one\"\n");
    let cluster = cluster.replace("name = \"b\"\n", "name = \"b\"\nnode = \"one\"\n") + SECOND;
    let (scenario, _) = Scenario::parse(&format!("{cluster}{TRAFFIC}"), "t.toml").unwrap();
    assert!(scenario.is_cluster());
    assert_eq!(error(&format!("{BOX}{SECOND}")), "t.toml:8:8: a pod of a cluster needs its `node`");
    let cases = [
        (
            "uplinks = [\"203.0.113.2\"]\n",
            "",
            "nodes of a cluster need an uplink of each pod network's family",
        ),
        ("10.244.2.1/24", "10.244.1.65/24", "the pod networks of two nodes overlap"),
        ("name = \"two\"", "name = \"one\"", "there are two [[node]] called `one`"),
        (
            "node = \"one\"\naddresses = [\"10.244.1.2\"]",
            "node = \"three\"\naddresses = [\"10.244.1.2\"]",
            "there is no node `three` (known: one, two)",
        ),
        (
            "addresses = [\"10.244.1.2\"]",
            "addresses = [\"10.244.1.2\"]\nworkload = \"Deploy/a\"",
            "`Deploy/a` is not a kind",
        ),
        (
            "to = \"service:web\"",
            "to = \"loadbalancer:web\"",
            "`nodeport:NAME@NODE` and `loadbalancer:NAME` are dialled from an outside machine",
        ),
    ];
    for (old, new, message) in cases {
        let text = format!("{cluster}{TRAFFIC}");
        assert!(text.contains(old), "{old}");
        let told = error(&text.replace(old, new));
        assert!(told.contains(message), "{old}: {told}");
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let error = Scenario::read(Path::new("/nowhere/s.toml")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nowhere/s.toml: "), "{error}");
}
