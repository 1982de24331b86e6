//! The cluster's book: who had which address when, where addresses are at home, which service was
//! dialled, how far bytes travelled.
//!
//! Watchers of the Kubernetes API and the nodes' agents tell it what they see ([`Update`]); an
//! [`Observer`] asks it on behalf of one node's records. It is pure: it reads no clock and waits
//! for nobody, and news that come late still apply to the time that they are about.
//!
//! An address has one holder at a time. The API tells who, but in whole seconds and late, so the
//! beginning and end of each holding are [`Bounds`]; agents tell when an address came and went on
//! their node, but not whose it was. Where only one holder was possible it is named; where several
//! were the endpoint says so. It is never guessed, and a time before the first known holder is
//! nobody's.

mod answers;
mod distance;
mod history;
mod networks;
mod nodes;
mod observer;
mod services;
mod timeline;
mod told;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_128;

use crate::endpoint::{Endpoint, EndpointKind, Name, Resolution, Unresolved};
use crate::ranges::{Prefix, Ranges};
use crate::time::{SECOND, WallTime};

use self::answers::Answers;
use self::history::{History, Holder, Room};
use self::networks::{Key, Networks};
use self::nodes::{Nodes, Place};
use self::services::Services;
use self::timeline::Trust;

pub use self::distance::{Region, Tunnels};
pub use self::observer::Observer;
pub use self::told::{Bounds, Change, LocalFact, NodeFacts, Pod, ServiceFacts, Uid, Update};

/// Addresses of pods that are remembered for a node that was not told of yet.
const WAITING_LIMIT: usize = 1_024;

/// How the book is kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Networks whose addresses are inside the cluster, beside the nodes' own pod networks.
    pub networks: Vec<Prefix>,
    /// Where the cluster runs.
    pub region: Region,
    /// What carries other packets between nodes.
    pub tunnels: Tunnels,
    /// How late an agent notices a change of its addresses, in nanoseconds.
    pub fact_lag_nanos: u64,
    /// How far the clocks of nodes and of the API may be apart, in nanoseconds.
    pub clock_slack_nanos: u64,
    /// How long after a pod's end its node may keep the address, in nanoseconds.
    pub teardown_nanos: u64,
    /// How much is kept.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            networks: Vec::new(),
            region: Region::default(),
            tunnels: Tunnels::default(),
            fact_lag_nanos: SECOND / 20,
            clock_slack_nanos: SECOND / 10,
            teardown_nanos: 5 * SECOND,
            limits: Limits::default(),
        }
    }
}

/// How much the book keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Holdings of addresses, past ones included. The oldest that ended go first.
    pub holdings: usize,
    /// Holdings of one address, and intervals an agent saw of it.
    pub per_address: usize,
    /// Intervals that agents saw, of all addresses.
    pub facts: usize,
    /// Nodes. More are not taken.
    pub nodes: usize,
    /// Services. More are not taken.
    pub services: usize,
    /// Addresses that nodes announce as their own. More are not taken.
    pub announced: usize,
    /// Endpoints kept of addresses that nobody in the book has.
    pub answers: usize,
    /// Changes that wait for [`Cluster::take_changes`]. More are not kept.
    pub changes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            holdings: 500_000,
            per_address: 64,
            facts: 500_000,
            nodes: 20_000,
            services: 100_000,
            announced: 200_000,
            answers: 65_536,
            changes: 200_000,
        }
    }
}

/// What the book holds, what it answered, and what it let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Addresses with a history.
    pub addresses: usize,
    /// Holdings of them.
    pub holdings: usize,
    /// Intervals that agents saw.
    pub facts: usize,
    /// Nodes.
    pub nodes: usize,
    /// Services.
    pub services: usize,
    /// Addresses that nodes announce as their own.
    pub announced: usize,
    /// Endpoints kept of addresses that nobody in the book has.
    pub answers: usize,
    /// Changes that wait to be taken.
    pub changes: usize,
    /// Holdings and intervals forgotten to make room.
    pub evicted: u64,
    /// News not taken, because there was no room.
    pub refused: u64,
    /// Endpoints of strangers forgotten to make room.
    pub answers_evicted: u64,
    /// Changes that nobody took in time.
    pub changes_lost: u64,
    /// Ends of records by how they were found, in the order of [`Resolution::ALL`].
    pub resolved: [u64; Resolution::ALL.len()],
    /// Ends of records that could not be named, by reason, in the order of [`Unresolved::ALL`].
    pub unresolved: [u64; Unresolved::ALL.len()],
}

/// The book.
#[derive(Debug)]
pub struct Cluster {
    config: Config,
    history: History,
    nodes: Nodes,
    services: Services,
    networks: Networks<()>,
    ranges: Arc<Ranges>,
    answers: Answers,
    answered: Answered,
    changes: Vec<Change>,
    changes_lost: u64,
    refused: u64,
    /// The latest moment that any news were about.
    now: WallTime,
    /// Until when the book was complete before a restart.
    alive: WallTime,
    synced: Option<WallTime>,
}

#[derive(Debug, Default)]
struct Answered {
    resolved: [AtomicU64; Resolution::ALL.len()],
    unresolved: [AtomicU64; Unresolved::ALL.len()],
}

impl Cluster {
    /// An empty book. Until it is told [`Update::Synced`], private addresses that it does not know
    /// are taken for ones it has not been told of yet.
    pub fn new(config: Config) -> Self {
        let limits = config.limits;
        let room = Room {
            holders: limits.holdings,
            per_address: limits.per_address.max(1),
            facts: limits.facts,
        };
        let trust = Trust {
            fact_lag: config.fact_lag_nanos,
            clock_slack: config.clock_slack_nanos,
            teardown: config.teardown_nanos,
        };
        let mut networks = Networks::default();
        for network in &config.networks {
            networks.insert(*network, ());
        }
        Self {
            config,
            history: History::new(room, trust),
            nodes: Nodes::default(),
            services: Services::default(),
            networks,
            ranges: Arc::default(),
            answers: Answers::new(limits.answers),
            answered: Answered::default(),
            changes: Vec::new(),
            changes_lost: 0,
            refused: 0,
            now: WallTime(0),
            alive: WallTime(0),
            synced: None,
        }
    }

    /// Takes in news.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Pod(pod) => self.pod(&pod),
            Update::PodGone { uid, at } => self.gone(uid, at),
            Update::Node(facts) => self.node(facts),
            Update::NodeGone { name, at } => self.node_gone(&name, at),
            Update::Service(facts) => self.service(&facts),
            Update::ServiceGone { namespace, name, at } => {
                self.services.end(&namespace, &name, at);
            }
            Update::Local { node, own, facts } => self.local(&node, own, facts, None),
            Update::LocalAll { node, own, facts, at } => {
                self.vanished(&node, own, &facts, at);
                self.local(&node, own, facts, Some(at));
            }
            Update::Enrolled { node, from } => self.enrol(&node, from),
            Update::Synced { at } => self.synced(at),
        }
    }

    /// Looks addresses outside the cluster up in these from now on.
    pub fn set_ranges(&mut self, ranges: Arc<Ranges>) {
        self.ranges = ranges;
        self.answers.clear();
    }

    /// The book as it answers for the records of the node `observer`, whose clock may be off by
    /// `skew_nanos`.
    pub fn as_seen_by<'a>(&'a self, observer: &'a str, skew_nanos: u64) -> Observer<'a> {
        Observer::new(self, observer, skew_nanos)
    }

    /// What changed since the last call and is to be remembered.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Takes in what was remembered, before any news. Holders that are not told of again by the
    /// first [`Update::Synced`] have ended meanwhile.
    pub fn restore(&mut self, change: Change) {
        match change {
            Change::Held { address, uid, endpoint, from, to } => {
                let endpoint = Arc::new(Endpoint { address, ..Endpoint::clone(&endpoint) });
                let holder = Holder { uid, from, to, probe_ports: [].into(), confirmed: false };
                self.history.hold_also(&holder, &endpoint);
            }
            // Since before nobody remembers when: the agent tells it again.
            Change::Local { fact, .. } if fact.from == timeline::SINCE_BEFORE => {}
            Change::Local { node, own, fact } => {
                self.see(&node, own, fact, None);
            }
            Change::Enrolled { node, from, to } => {
                self.nodes.enrol(&node, from, to);
            }
            Change::Known { until } => self.alive = self.alive.max(until),
        }
    }

    /// Takes in what another server that shares the memory was told. It is not told on, and who is
    /// enrolled is told apart: an address that a node once had does not make it one with an agent.
    pub fn hear(&mut self, change: Change) {
        match change {
            Change::Local { node, own, fact } => {
                self.see(&node, own, fact, None);
            }
            other => self.restore(other),
        }
    }

    /// Forgets what ended before `horizon`.
    pub fn forget_before(&mut self, horizon: WallTime) {
        self.history.forget_before(horizon);
        self.nodes.forget_before(horizon);
        self.services.forget_before(horizon);
        self.answers.clear();
    }

    /// What there is, and what was lost.
    pub fn counts(&self) -> Counts {
        let losses = self.history.losses();
        let load = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Counts {
            addresses: self.history.addresses(),
            holdings: self.history.holders(),
            facts: self.history.facts(),
            nodes: self.nodes.len(),
            services: self.services.len(),
            announced: self.nodes.announced(),
            answers: self.answers.len(),
            changes: self.changes.len(),
            evicted: losses.evicted,
            refused: losses.refused + self.refused,
            answers_evicted: self.answers.evicted(),
            changes_lost: self.changes_lost,
            resolved: std::array::from_fn(|at| load(&self.answered.resolved[at])),
            unresolved: std::array::from_fn(|at| load(&self.answered.unresolved[at])),
        }
    }

    fn pod(&mut self, pod: &Pod) {
        self.heard_of(pod.from);
        if pod.runs_agent && pod.ended.is_none() {
            self.agent(pod);
        }
        if pod.host_network {
            return;
        }
        let addresses: Vec<IpAddr> =
            pod.addresses.iter().map(IpAddr::to_canonical).filter(may_be_held).collect();
        let place = pod.node.as_ref().map(|node| self.nodes.place(node)).unwrap_or_default();
        let endpoint = |address: &IpAddr| {
            let (kind, name) = pod.workload.clone().unzip();
            Arc::new(place.on(Endpoint {
                namespace: Some(Name::clone(&pod.namespace)),
                pod: Some(Name::clone(&pod.name)),
                workload_kind: kind,
                workload_name: name,
                node: pod.node.clone(),
                app: pod.app.clone(),
                labels: pod.labels.clone(),
                resolution: Some(Resolution::Directory),
                ..Endpoint::bare(EndpointKind::Pod, *address)
            }))
        };
        let endpoints: Vec<Arc<Endpoint>> = addresses.iter().map(endpoint).collect();
        if let Some(node) = &pod.node {
            self.wait_for(node, &addresses);
            for key in addresses.iter().map(|address| Key::of(*address)) {
                // What was answered by those networks holds no more.
                if pod.ended.is_none() && self.nodes.contradicts(node, key) {
                    self.answers.clear();
                }
            }
        }
        let holder = Holder {
            uid: pod.uid,
            from: pod.from,
            to: pod.ended,
            probe_ports: pod.probe_ports.as_slice().into(),
            confirmed: true,
        };
        let news = self.history.hold(&holder, &endpoints, self.now);
        self.held(pod.uid, &news);
    }

    /// A pod may be told of before its node: its place is filled in then.
    fn wait_for(&mut self, node: &Name, addresses: &[IpAddr]) {
        if self.nodes.get(node).is_some_and(|node| node.facts.is_some()) {
            return;
        }
        if self.nodes.get(node).is_some() || self.nodes.len() < self.config.limits.nodes {
            let waiting = &mut self.nodes.entry(node).waiting;
            for key in addresses.iter().map(|address| Key::of(*address)) {
                if waiting.len() < WAITING_LIMIT && !waiting.contains(&key) {
                    waiting.push(key);
                }
            }
        }
    }

    fn agent(&mut self, pod: &Pod) {
        let Some(node) = &pod.node else { return };
        if !self.nodes.get(node).is_some_and(nodes::Node::is_gone) {
            self.enrol(node, pod.from.earliest);
        }
    }

    fn gone(&mut self, uid: Uid, at: Bounds) {
        self.heard_of(at);
        let news = self.history.end(uid, at);
        self.held(uid, &news);
    }

    fn node(&mut self, facts: NodeFacts) {
        if self.nodes.get(&facts.name).is_none() && self.nodes.len() >= self.config.limits.nodes {
            self.refused += 1;
            return;
        }
        self.now = self.now.max(facts.since);
        let place = Place::of(&facts);
        let name = Name::clone(&facts.name);
        let moved = self.nodes.get(&name).and_then(|node| node.facts.as_ref());
        let moved = moved.is_some_and(|before| Place::of(before) != place);
        let node_endpoint = |address: IpAddr| {
            Arc::new(place.on(Endpoint {
                node: Some(Name::clone(&name)),
                resolution: Some(Resolution::NodeAddress),
                ..Endpoint::bare(EndpointKind::Node, address)
            }))
        };
        let addresses = facts.addresses.iter().map(IpAddr::to_canonical).filter(may_be_held);
        let endpoints: Vec<Arc<Endpoint>> = addresses.map(node_endpoint).collect();
        let holder = Holder {
            uid: uid_of_node(&name),
            from: Bounds::exactly(facts.since),
            to: None,
            probe_ports: [].into(),
            confirmed: true,
        };
        let news = self.history.hold(&holder, &endpoints, self.now);
        self.held(holder.uid, &news);
        let waiting = self.nodes.put(facts);
        let pods = if moved { self.history.on_node(&name) } else { waiting };
        self.history.rename(&pods, |endpoint| {
            let there = endpoint.kind == EndpointKind::Pod && endpoint.node.as_ref() == Some(&name);
            there.then(|| place.on(endpoint.clone()))
        });
        self.answers.clear();
    }

    fn node_gone(&mut self, name: &Name, at: WallTime) {
        self.now = self.now.max(at);
        let uid = uid_of_node(name);
        let news = self.history.end(uid, Bounds::exactly(at));
        self.held(uid, &news);
        if let Some(from) = self.nodes.end(name, at) {
            self.note(Change::Enrolled { node: Name::clone(name), from, to: Some(at) });
        }
        self.answers.clear();
    }

    fn service(&mut self, facts: &ServiceFacts) {
        if self.services.len() >= self.config.limits.services && !self.services.knows(facts) {
            self.refused += 1;
            return;
        }
        self.services.put(facts);
    }

    fn local(
        &mut self,
        node: &Name,
        own: bool,
        mut facts: Vec<LocalFact>,
        looked: Option<WallTime>,
    ) {
        // In the order in which they were seen: an interval's end comes before the next one.
        facts.sort_by_key(|fact| fact.from);
        let since = facts.iter().map(|fact| fact.from).find(|from| *from > timeline::SINCE_BEFORE);
        if let Some(since) = since
            && !self.nodes.is_enrolled(node)
        {
            self.enrol(node, since);
        }
        for fact in facts {
            if self.see(node, own, fact, looked) {
                self.note(Change::Local { node: Name::clone(node), own, fact });
            }
        }
    }

    /// True when it is news.
    fn see(&mut self, node: &Name, own: bool, fact: LocalFact, looked: Option<WallTime>) -> bool {
        let fact = LocalFact { address: fact.address.to_canonical(), ..fact };
        self.now = self.now.max(fact.to.unwrap_or(fact.from));
        if !own {
            let owner = self.nodes.of_network(Key::of(fact.address));
            if owner.is_some_and(|owner| owner != node) {
                // Another node's pods have these addresses, whatever this one says.
                self.refused += 1;
                return false;
            }
            return may_be_held(&fact.address) && self.history.see(node, fact, looked);
        }
        if self.nodes.announced() >= self.config.limits.announced
            && !self.nodes.announces(Key::of(fact.address))
        {
            self.refused += 1;
            return false;
        }
        self.nodes.announce(node, fact)
    }

    fn vanished(&mut self, node: &Name, own: bool, facts: &[LocalFact], at: WallTime) {
        self.now = self.now.max(at);
        let gone = if own {
            self.nodes.vanished(node, facts, at)
        } else {
            self.history.vanished(node, facts, at)
        };
        for fact in gone {
            self.note(Change::Local { node: Name::clone(node), own, fact });
        }
    }

    fn enrol(&mut self, node: &Name, from: WallTime) {
        if self.nodes.get(node).is_none() && self.nodes.len() >= self.config.limits.nodes {
            self.refused += 1;
            return;
        }
        if self.nodes.enrol(node, from, None) {
            self.note(Change::Enrolled { node: Name::clone(node), from, to: None });
        }
    }

    fn synced(&mut self, at: WallTime) {
        self.now = self.now.max(at);
        if self.synced.is_none() {
            for (key, uid) in self.history.end_unconfirmed(self.alive, at) {
                self.held(uid, &[key.address()]);
            }
            self.answers.clear();
        }
        self.synced = Some(at);
        // Only the last one matters.
        if matches!(self.changes.last(), Some(Change::Known { .. })) {
            self.changes.pop();
        }
        self.note(Change::Known { until: at });
    }

    fn heard_of(&mut self, bounds: Bounds) {
        if bounds.latest < timeline::NEVER {
            self.now = self.now.max(bounds.latest);
        }
    }

    /// Notes what is now told of a holder's part in these addresses.
    fn held(&mut self, uid: Uid, addresses: &[IpAddr]) {
        for address in addresses {
            let claims = self.history.claims(Key::of(*address));
            let Some(claim) = claims.iter().find(|claim| claim.uid == uid) else { continue };
            let change = Change::Held {
                address: *address,
                uid,
                endpoint: Arc::clone(&claim.endpoint),
                from: claim.from,
                to: claim.to,
            };
            self.note(change);
        }
    }

    fn note(&mut self, change: Change) {
        if self.changes.len() < self.config.limits.changes {
            self.changes.push(change);
        } else {
            self.changes_lost += 1;
        }
    }
}

/// Addresses that one pod or node can have for itself.
fn may_be_held(address: &IpAddr) -> bool {
    !observer::is_of_no_node(*address)
}

fn uid_of_node(name: &str) -> Uid {
    Uid(xxh3_128(format!("node/{name}").as_bytes()))
}
