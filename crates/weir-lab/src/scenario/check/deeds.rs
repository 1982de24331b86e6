//! What is done to a box: actions, churn and imposters.

use std::time::Duration;

use toml::Spanned;

use super::super::file::{self, What};
use super::super::{Action, ActionKind, Churn, Family, Imposter, Scenario, Setup, Store};
use super::{Fault, Seen, address, fault, node_named, place};

/// Pods that own an address in turn: each has ports of its own.
const CHURN_LIMIT: u32 = 500;

pub(super) fn action(action: &file::Action, scenario: &Scenario) -> Result<Action, Fault> {
    let file::Action { at, what, node, down } = action;
    if at.get_ref().0 >= scenario.duration {
        return fault(at, "`at` lies after the scenario's end");
    }
    let of_a_node = matches!(what, What::FlushConntrack | What::KillAgent | What::CutAgent);
    let index = match node {
        Some(node) if !of_a_node => return fault(node, "this is not done to a node"),
        Some(node) => node_named(node, scenario)?,
        None if of_a_node && scenario.is_cluster() => {
            return fault(at, "this action needs a `node`");
        }
        None => 0,
    };
    let needs_cluster = !matches!(what, What::FlushConntrack | What::KillAgent);
    if needs_cluster && !scenario.is_cluster() {
        return fault(at, "this action needs a cluster of several nodes");
    }
    let time = |usual: u64| {
        down.as_ref().map_or_else(|| Duration::from_millis(usual), |down| down.get_ref().0)
    };
    let kind = match (what, down) {
        (What::FlushConntrack, Some(down)) => {
            return fault(down, "`down` belongs to actions that last");
        }
        (What::FlushConntrack, None) => ActionKind::FlushConntrack(index),
        (What::KillAgent, _) => ActionKind::KillAgent(index, time(1_500)),
        (What::CutAgent, _) => ActionKind::CutAgent(index, time(10_000)),
        (What::CutConnections, _) => ActionKind::CutConnections(time(1_000)),
        (What::KillServer, _) => ActionKind::KillServer(time(1_500)),
        (What::StopServer, _) => ActionKind::StopServer(time(10_000)),
        (What::CutEngine, _) => ActionKind::CutEngine(time(10_000)),
        (What::KillEngine, _) => ActionKind::KillEngine(time(1_500)),
        (What::KillServerUnanswered, _) => ActionKind::KillServerUnanswered(time(1_500)),
        (What::RaceServers, _) => ActionKind::RaceServers(time(8_000)),
    };
    if kind.needs_engine() && scenario.setup.store != Store::Clickhouse {
        return fault(at, "this action needs ClickHouse: write `store = \"clickhouse\"` in [weir]");
    }
    if matches!(kind, ActionKind::RaceServers(_)) && scenario.setup.servers < 2 {
        return fault(at, "this action needs two servers: write `servers = 2` in [weir]");
    }
    Ok(Action { at: at.get_ref().0, kind })
}

pub(super) fn setup(weir: Option<&Spanned<file::Weir>>, is_cluster: bool) -> Result<Setup, Fault> {
    let Some(weir) = weir else { return Ok(Setup::default()) };
    let setup = weir.get_ref().setup();
    match setup.problem(is_cluster) {
        Some(problem) => fault(weir, problem),
        None => Ok(setup),
    }
}

pub(super) fn churn(
    churn: &Spanned<file::Churn>,
    scenario: &Scenario,
    seen: &mut Seen,
) -> Result<Churn, Fault> {
    let file::Churn { node, address: written, pods, life, peer, deletes, unnamed_percent } =
        churn.get_ref();
    if !scenario.is_cluster() {
        return fault(churn, "churn needs a cluster of several nodes");
    }
    let node = node_named(node, scenario)?;
    let address = address(written)?;
    let inside = scenario.nodes[node].pod_networks.iter().any(|net| net.contains(address));
    if !inside || seen.addresses.contains(&address) {
        return fault(written, "a free address of the node's `pod_networks` is needed");
    }
    seen.addresses.push(address);
    let count = *pods.get_ref();
    if count == 0 || count > CHURN_LIMIT {
        return fault(pods, format!("`pods` is 1 to {CHURN_LIMIT}"));
    }
    let times = life.get_ref().times();
    if times.low > times.high || times.low < Duration::from_millis(500) {
        return fault(life, "`life` is a range of at least \"500ms\"");
    }
    let Some(there) = place(peer, scenario)? else {
        return fault(peer, "a place is needed: `pod:NAME`, `node:NAME` or `outside:NAME`");
    };
    if scenario.node_of(there) == Some(node) {
        return fault(peer, "the peer of a churn is on another node");
    }
    if scenario.address(there, there, Family::of(address)).is_none() {
        return fault(peer, "the peer has no address of the family of `address`");
    }
    let pods = u16::try_from(count).unwrap_or(u16::MAX);
    let (deletes, unnamed_percent) = (*deletes, *unnamed_percent);
    Ok(Churn { node, address, pods, life: times, peer: there, deletes, unnamed_percent })
}

pub(super) fn imposter(imposter: &file::Imposter, scenario: &Scenario) -> Result<Imposter, Fault> {
    let file::Imposter { node, token } = imposter;
    let index = node_named(node, scenario)?;
    if !scenario.is_cluster() {
        return fault(node, "imposters need a cluster of several nodes");
    }
    Ok(Imposter { node: index, token: *token })
}
