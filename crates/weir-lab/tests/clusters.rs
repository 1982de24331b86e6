//! Several nodes with real programs on them: the truth of all nodes fits together, and weir's
//! server, agents and attribution agree with it to the byte.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use weir_lab::LabError;
use weir_lab::clickhouse::Engine;
use weir_lab::cluster::totals::TotalsLine;
use weir_lab::cluster::{Outcome, table, verify};
use weir_lab::compare::{self, compare};
use weir_lab::net::Lab;
use weir_lab::scenario::{Action, ActionKind, Scenario};
use weir_lab::traffic::Generators;
use weir_lab::truth::{self, Group, Ports, Truth};
use weir_lab::verify::{Options, temporary_data};
use weir_lab::weir::Weir;

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

/// weir, with its agent beside it, as they are now: built here, where nobody says that all of it
/// was built with this test.
fn weir() -> PathBuf {
    if std::env::var_os("WEIR_LAB_IS_BUILT").is_some() {
        let [weir, agent] = ["weir", "weir-agent"].map(|name| program().with_file_name(name));
        assert!(weir.exists() && agent.exists(), "no programs beside {}", program().display());
        return weir;
    }
    let built = Command::new(env!("CARGO"))
        // As all tests together are built: with other features the dependencies would be built anew.
        .args(["build", "--quiet", "--locked", "--workspace", "--bins", "--tests"])
        .args(["--message-format", "json"])
        .output()
        .expect("cargo has started this test");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8_lossy(&built.stdout);
    let mut executables = messages.lines().filter_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split_once('"').map(|(path, _)| PathBuf::from(path))
    });
    executables.find(|path| path.ends_with("weir")).expect("cargo names what it has built")
}

fn run(name: &str, duration: u64, weir: Option<PathBuf>) -> Result<Outcome, LabError> {
    run_changed(name, duration, weir, |_| {})
}

fn run_changed(
    name: &str,
    duration: u64,
    weir: Option<PathBuf>,
    change: impl FnOnce(&mut Scenario),
) -> Result<Outcome, LabError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(name);
    let (mut scenario, ports) = Scenario::read(&path)?;
    scenario.stretch(Duration::from_secs(duration));
    change(&mut scenario);
    let options = Options {
        program: program(),
        data: temporary_data(&format!("weirlab-{name}-{}", weir.is_some())),
        weir,
        interval: Duration::from_secs(2),
        keep: false,
    };
    verify(&scenario, &ports, &options, &AtomicBool::new(false))
}

#[test]
fn the_views_of_all_nodes_fit_together_to_the_byte() {
    if !root() {
        return;
    }
    for name in ["cluster.toml", "cluster-vxlan.toml"] {
        let outcome = run(name, 10, None).unwrap();
        assert!(outcome.views.groups > 0 && outcome.views.is_explained(), "{}", table(&outcome));
        let failed: u64 = outcome.traffic.sources.iter().map(|source| source.failed).sum();
        assert_eq!(failed, 0, "{name}");
        assert_eq!(outcome.views.transport_packets > 0, name == "cluster-vxlan.toml");
    }
}

#[test]
fn a_cluster_is_counted_once_and_named_to_the_byte() {
    if !root() {
        return;
    }
    let outcome = run("cluster.toml", 10, Some(weir())).unwrap();
    assert!(outcome.comparison.is_exact(), "{}", table(&outcome));
    assert!(outcome.totals.iter().all(TotalsLine::is_exact), "{}", table(&outcome));
    assert!(outcome.is_good());
}

/// A run on ClickHouse, without the connections that live for long, and with this done to it;
/// nothing where it is skipped.
fn run_on_clickhouse(name: &str, action: Option<(u64, ActionKind)>) -> Option<Outcome> {
    // Started once to see whether there is one: without it, the test is skipped, or fails in CI.
    if !root() || Engine::own_for_test(name).unwrap().is_none() {
        return None;
    }
    let outcome = run_changed(name, 20, Some(weir()), |scenario| {
        scenario.traffic.retain(|traffic| traffic.life.high < Duration::from_secs(10));
        let action = action.map(|(at, kind)| Action { at: Duration::from_secs(at), kind });
        scenario.actions = action.into_iter().collect();
    });
    Some(outcome.unwrap())
}

fn assert_exact(outcome: &Outcome) {
    assert!(outcome.comparison.is_exact(), "{}", table(outcome));
    assert!(outcome.totals.iter().all(TotalsLine::is_exact), "{}", table(outcome));
    assert!(outcome.is_good(), "{}", table(outcome));
}

#[test]
fn batches_wait_while_clickhouse_is_away() {
    let away = ActionKind::CutEngine(Duration::from_secs(8));
    let Some(outcome) = run_on_clickhouse("clickhouse-away.toml", Some((5, away))) else { return };
    assert_exact(&outcome);
}

#[test]
fn a_clickhouse_killed_in_an_insert_keeps_what_it_has_acknowledged() {
    let kill = ActionKind::KillEngine(Duration::from_secs(2));
    let Some(outcome) = run_on_clickhouse("clickhouse-kill.toml", Some((6, kill))) else { return };
    assert_exact(&outcome);
    assert_eq!(outcome.engine.map(|engine| engine.kills), Some(1));
}

#[test]
fn a_server_killed_between_insert_and_answer_inserts_nothing_twice() {
    let kill = ActionKind::KillServerUnanswered(Duration::from_secs(1));
    let Some(outcome) = run_on_clickhouse("clickhouse-unanswered.toml", Some((6, kill))) else {
        return;
    };
    assert_exact(&outcome);
}

#[test]
fn one_batch_to_two_servers_at_once_counts_once() {
    let race = ActionKind::RaceServers(Duration::from_secs(8));
    let Some(outcome) = run_on_clickhouse("clickhouse-race.toml", Some((6, race))) else { return };
    assert_exact(&outcome);
    assert!(outcome.engine.is_some_and(|engine| engine.raced_batches > 0));
}

#[test]
fn kubenetmon_s_table_holds_what_its_rules_make_of_the_truth() {
    let Some(outcome) = run_on_clickhouse("kubenetmon.toml", None) else { return };
    assert_exact(&outcome);
    assert!(outcome.kubenetmon.is_some_and(|table| table.is_good()));
}

#[test]
fn agents_that_must_not_be_believed_deliver_nothing() {
    if !root() {
        return;
    }
    let outcome = run("forged.toml", 8, Some(weir())).unwrap();
    assert!(outcome.is_good(), "{}", table(&outcome));
}

#[test]
fn two_weirs_and_conntrack_side_by_side_see_undisturbed_counters() {
    if !root() {
        return;
    }
    let program_of_weir = weir();
    let (scenario, ports) = Scenario::parse(include_str!("small.toml"), "small.toml").unwrap();
    let lab = Lab::build(&scenario, &ports).unwrap();
    truth::install(&lab, 0).unwrap();
    let data = ["weirlab-first", "weirlab-second"].map(temporary_data);
    let mut weirs = data
        .each_ref()
        .map(|data| Weir::start(&lab, &program_of_weir, data, Duration::from_secs(1)).unwrap());
    let mut generators = Generators::start(&lab, &scenario, &program()).unwrap();
    generators.go(&lab, &scenario).unwrap();
    while !generators.are_done().unwrap() {
        lab.run_in_node(0, "conntrack", &["-L"]).unwrap();
    }
    generators.finish().unwrap();
    for weir in &mut weirs {
        weir.stop().unwrap();
    }
    // A weir that starts sends itself a packet to see whether it is counted, and the other sees it.
    let of_traffic = |group: &Group| !group.source.is_loopback();
    let mut truth = Truth::of(&truth::read(&lab, 0).unwrap(), &Ports::of(&scenario));
    truth.groups.retain(|group, _| of_traffic(group));
    for weir in &weirs {
        let mut flows = weir.flows().unwrap();
        flows.retain(|row| of_traffic(&row.group));
        let said = compare(&truth, &flows, &weir.gaps().unwrap(), None);
        assert!(said.is_exact(), "{}", compare::table(&said));
    }
    for data in data {
        fs::remove_dir_all(&data).unwrap();
        fs::remove_file(data.with_extension("log")).unwrap();
    }
}
