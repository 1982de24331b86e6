//! Real namespaces, real rules, real traffic: the truth agrees with the kernel's own counters to
//! the byte, and nothing is left behind.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use weir_flow::{Protocol, Totals};
use weir_lab::compare::Verdict;
use weir_lab::net::Lab;
use weir_lab::scenario::{Place, Scenario};
use weir_lab::traffic::Generators;
use weir_lab::truth::{self, ConnectionKey, ExcludedReason, Ports, Truth};
use weir_lab::verify::{Options, temporary_data, verify};
use weir_lab::{net, table};

const SCENARIO: &str = include_str!("small.toml");

/// Says loudly that nothing is tested, or fails where it must not be skipped.
fn root() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("procfs is there");
    if status.lines().any(|line| line.starts_with("Uid:\t0\t")) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "these tests need root");
    let mut stderr = std::io::stderr();
    let told = writeln!(stderr, "SKIPPED: this test makes network namespaces and needs root");
    told.expect("standard error is open");
    false
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_weir-lab"))
}

fn spaces(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

fn counted_by_the_kernel(lab: &Lab) -> BTreeMap<ConnectionKey, Totals> {
    let entries = table::parse(&lab.conntrack_table(0).expect("it is read as root"));
    let mut kernel: BTreeMap<ConnectionKey, Totals> = BTreeMap::new();
    for entry in entries.expect("the kernel's own lines") {
        *kernel.entry(entry.key).or_default() += entry.totals.expect("accounting is on");
    }
    kernel
}

#[test]
fn the_truth_agrees_with_the_kernels_counters_to_the_byte() {
    if !root() {
        return;
    }
    let (scenario, ports) = Scenario::parse(SCENARIO, "small.toml").unwrap();
    let lab = Lab::build(&scenario, &ports).unwrap();
    let run = lab.run_name();
    truth::install(&lab, 0).unwrap();
    let mut generators = Generators::start(&lab, &scenario, &program()).unwrap();
    generators.go(&lab, &scenario).unwrap();
    let traffic = generators.finish().unwrap();
    for source in &traffic.sources {
        let all = u64::from(scenario.traffic[0].connections);
        assert_eq!((source.attempted, source.failed), (all, 0), "{source:?}");
        assert_eq!(source.established, all, "{source:?}");
    }
    thread::sleep(Duration::from_secs(1));

    let reading = truth::read(&lab, 0).unwrap();
    let kernel = counted_by_the_kernel(&lab);
    let keys = || reading.connections.keys().chain(kernel.keys());
    let differ = keys().filter(|key| reading.connections.get(key) != kernel.get(key));
    let differ: Vec<_> =
        differ.map(|key| (key, reading.connections.get(key), kernel.get(key))).take(4).collect();
    assert!(differ.is_empty(), "truth and kernel differ, among others in {differ:#?}");
    assert!(!kernel.is_empty());

    // Every way was really taken.
    let truth = Truth::of(&reading, &Ports::of(&scenario));
    let has = |source: &str, protocol: Protocol, service: Option<&str>| {
        let source: IpAddr = source.parse().unwrap();
        let service: Option<SocketAddr> = service.map(|service| service.parse().unwrap());
        truth.groups.iter().any(|(group, known)| {
            let alike = group.source == source && group.protocol == protocol;
            alike && group.service == service && known.totals.received.bytes > 0
        })
    };
    let udp = Protocol(17);
    for (source, service) in [("10.244.1.2", "10.96.0.10:80"), ("fd00:244:1::2", "[fd00:96::a]:80")]
    {
        assert!(has(source, Protocol::TCP, Some(service)), "{source}");
        assert!(has(source, udp, None), "{source}");
    }
    assert!(has("10.244.1.2", Protocol::ICMP, None));
    assert!(has("fd00:244:1::2", Protocol::ICMPV6, None));
    assert!(has("10.244.1.1", Protocol::TCP, None), "from the node");

    assert!(!spaces(&run).is_empty());
    drop(lab);
    assert_eq!(spaces(&run), Vec::<String>::new());
}

/// The kernel does not count a SYN that comes again after its answer has passed.
#[test]
fn a_syn_that_is_repeated_though_it_was_answered_is_in_nobody_s_counters() {
    if !root() {
        return;
    }
    let (scenario, ports) = Scenario::parse(SCENARIO, "small.toml").unwrap();
    let lab = Lab::build(&scenario, &ports).unwrap();
    truth::install(&lab, 0).unwrap();
    // Answers are lost between the node and the client, for longer than a client waits.
    let lose = "table inet lose { chain in { type filter hook input priority 0\n \
                tcp flags & (syn | ack) == syn | ack drop\n }\n }";
    let nft = |arguments: &[&str]| {
        let status = lab.command(Place::Pod(0), OsStr::new("nft")).args(arguments).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    };
    nft(&[lose]);
    let mut generators = Generators::start(&lab, &scenario, &program()).unwrap();
    generators.go(&lab, &scenario).unwrap();
    thread::sleep(Duration::from_millis(2_500));
    nft(&["delete", "table", "inet", "lose"]);
    generators.finish().unwrap();
    thread::sleep(Duration::from_secs(1));

    let reading = truth::read(&lab, 0).unwrap();
    let late = reading.excluded.iter().any(|it| it.reason == ExcludedReason::LateSyn);
    assert!(late, "{:?}", reading.excluded);
    for (key, kernel) in counted_by_the_kernel(&lab) {
        let sent = reading.connections.get(&key).map(|truth| truth.sent);
        assert_eq!(sent, Some(kernel.sent), "{key:?}");
    }
}

#[test]
fn a_run_without_weir_holds_the_truth_against_the_generators() {
    if !root() {
        return;
    }
    let (scenario, ports) = Scenario::parse(SCENARIO, "small.toml").unwrap();
    let options = Options {
        program: program(),
        weir: None,
        interval: Duration::from_secs(1),
        data: temporary_data("weirlab-test"),
        keep: false,
    };
    let outcome = verify(&scenario, &ports, &options, &AtomicBool::new(false)).unwrap();
    let total = outcome.comparison.total.truth;
    let payload: u64 = outcome.traffic.sources.iter().map(|source| source.payload_sent).sum();
    assert!(payload > 0 && total.sent.bytes > payload, "{total:?} {payload}");
    assert!(!Path::new(&options.data).exists(), "its data is removed");
}

/// Answers every question as weir does, but has seen nothing. Notes each start in its data.
const BLIND: &str = "#!/bin/sh
case \"$1 $2\" in
\"up --data-dir\")
    mkdir -p \"$3\"; echo started >> \"$3/starts\"
    trap 'exit 0' TERM
    while :; do sleep 0.05; done ;;
\"query top\") echo '{\"columns\": [], \"rows\": []}' ;;
\"query status\") echo '{\"nodes\": [{\"state\": \"reading\"}], \"gaps\": []}' ;;
esac
";

#[test]
fn a_weir_that_sees_nothing_fails_the_run_and_is_killed_and_started_as_told() {
    if !root() {
        return;
    }
    let killed = "\n[[action]]\nat = \"1s\"\ndo = \"kill_agent\"\ndown = \"100ms\"\n";
    let text = format!("{SCENARIO}{killed}");
    let (scenario, ports) = Scenario::parse(&text, "small.toml").unwrap();
    let data = temporary_data("weirlab-blind");
    let weir = data.with_extension("sh");
    fs::write(&weir, BLIND).unwrap();
    fs::set_permissions(&weir, fs::Permissions::from_mode(0o755)).unwrap();
    let options = Options {
        program: program(),
        weir: Some(weir.clone()),
        interval: Duration::from_secs(1),
        data: data.clone(),
        keep: true,
    };
    let outcome = verify(&scenario, &ports, &options, &AtomicBool::new(false));
    let starts = fs::read_to_string(data.join("starts"));
    for file in [weir, data.with_extension("log")] {
        fs::remove_file(file).unwrap();
    }
    fs::remove_dir_all(&data).unwrap();
    let comparison = outcome.unwrap().comparison;
    assert_eq!(starts.unwrap(), "started\nstarted\n");
    assert!(!comparison.lines.is_empty() && !comparison.is_good());
    assert!(comparison.lines.iter().all(|line| line.verdict == Verdict::Missing), "{comparison:?}");
    assert_eq!(
        comparison.total.difference.bytes_sent,
        i128::from(comparison.total.truth.sent.bytes)
    );
}

#[test]
fn a_killed_runs_leftovers_are_removed_by_the_next() {
    if !root() {
        return;
    }
    let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/small.toml");
    let mut child = Command::new(program())
        .args(["up", scenario])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let prefix = format!("weirlab-{}-", child.id());
    let deadline = Instant::now() + Duration::from_secs(20);
    while spaces(&prefix).len() < 4 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(spaces(&prefix).len(), 4);
    net::clean().unwrap();
    assert_eq!(spaces(&prefix).len(), 4, "a living run's namespaces stay");
    child.kill().unwrap();
    child.wait().unwrap();
    net::clean().unwrap();
    assert_eq!(spaces(&prefix), Vec::<String>::new());
}
