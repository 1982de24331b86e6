//! The nodes: their facts, the networks of their pods, the addresses they announce as their own,
//! and since when each has an agent.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::endpoint::{Endpoint, EndpointKind, Name, Resolution};
use crate::time::WallTime;

use super::networks::{Key, Networks};
use super::told::{LocalFact, NodeFacts};

/// Announcements kept of one address: it may be on every node (a bridge's, a service's).
const ANNOUNCERS_LIMIT: usize = 16;
/// Times kept at which a node of one name got and lost its agent.
const ENROLMENTS_LIMIT: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Nodes {
    known: HashMap<Name, Node>,
    networks: Networks<Name>,
    /// Nodes in whose pod networks another node's pod was seen: addresses are given out without
    /// regard to them, and they tell the cluster's addresses but no node.
    contradicted: HashSet<Name>,
    announced: HashMap<Key, Announced>,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) facts: Option<NodeFacts>,
    /// Addresses of pods that were told of before the node was.
    pub(super) waiting: Vec<Key>,
    enrolled: Vec<(WallTime, Option<WallTime>)>,
    gone: Option<WallTime>,
}

/// Who announced an address as its own.
#[derive(Debug, Default)]
struct Announced {
    by: Vec<Announcement>,
    /// More nodes did than are kept.
    many: bool,
}

#[derive(Debug)]
struct Announcement {
    endpoint: Arc<Endpoint>,
    told: LocalFact,
}

impl Announcement {
    fn node(&self) -> Option<&str> {
        self.endpoint.node.as_deref()
    }

    fn at(&self, at: WallTime) -> bool {
        self.told.from <= at && self.told.to.is_none_or(|to| at <= to)
    }
}

/// Whose own an address is.
#[derive(Debug)]
pub(super) enum Own<'a> {
    /// Nobody announced it.
    Nobody,
    /// One node did.
    One(&'a Arc<Endpoint>),
    /// Several nodes did; the observer too, where it is given.
    Shared(Option<&'a Arc<Endpoint>>),
}

impl Node {
    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_some()
    }
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn announced(&self) -> usize {
        self.announced.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.known.get(name)
    }

    pub(super) fn entry(&mut self, name: &Name) -> &mut Node {
        self.known.entry(Name::clone(name)).or_default()
    }

    /// Takes in a node as it is now. Gives the pods' addresses that waited for it.
    pub(super) fn put(&mut self, facts: NodeFacts) -> Vec<Key> {
        let name = Name::clone(&facts.name);
        let before = self.known.get(&name).and_then(|node| node.facts.as_ref());
        if before.is_some_and(|before| before.pod_networks != facts.pod_networks) {
            self.networks.retain(|node| *node != name);
        }
        for network in &facts.pod_networks {
            self.networks.insert(*network, Name::clone(&name));
        }
        let place = Place::of(&facts);
        for known in self.announced.values_mut().flat_map(|announced| &mut announced.by) {
            if known.node() == Some(&*name) {
                known.endpoint = Arc::new(place.on(Endpoint::clone(&known.endpoint)));
            }
        }
        let node = self.known.entry(name).or_default();
        node.facts = Some(facts);
        node.gone = None;
        std::mem::take(&mut node.waiting)
    }

    /// A node was deleted, and its enrolment ends; gives when that had begun.
    pub(super) fn end(&mut self, name: &str, at: WallTime) -> Option<WallTime> {
        let node = self.known.get_mut(name)?;
        node.gone = Some(at);
        let open = node.enrolled.iter_mut().find(|(_, to)| to.is_none())?;
        open.1 = Some(at.max(open.0));
        Some(open.0)
    }

    /// The node has had an agent since `from`. True when that is news.
    pub(super) fn enrol(&mut self, name: &Name, from: WallTime, to: Option<WallTime>) -> bool {
        let node = self.entry(name);
        let known = node.enrolled.iter_mut().find(|known| known.1.is_none() || known.0 == from);
        if let Some(known) = known {
            let news = from < known.0 || (known.1.is_none() && to.is_some());
            known.0 = known.0.min(from);
            known.1 = known.1.or(to);
            return news;
        }
        if node.enrolled.len() >= ENROLMENTS_LIMIT {
            node.enrolled.remove(0);
        }
        node.enrolled.push((from, to));
        true
    }

    pub(super) fn is_enrolled(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|node| node.enrolled.iter().any(|(_, to)| to.is_none()))
    }

    pub(super) fn enrolled(&self, name: &str, at: WallTime) -> bool {
        let within =
            |(from, to): &(WallTime, Option<WallTime>)| *from <= at && to.is_none_or(|to| at <= to);
        self.known.get(name).is_some_and(|node| node.enrolled.iter().any(within))
    }

    /// The node whose pods' network the address lies in, as long as pods keep to them.
    pub(super) fn of_network(&self, key: Key) -> Option<&Name> {
        self.networks.get(key).filter(|owner| !self.contradicted.contains(*owner))
    }

    /// True in any node's pod network.
    pub(super) fn in_network(&self, key: Key) -> bool {
        self.networks.get(key).is_some()
    }

    /// A living pod of `node` has this address. True when that says of its network that it does
    /// not tell the node, for the first time.
    pub(super) fn contradicts(&mut self, node: &str, key: Key) -> bool {
        let other = self.of_network(key).filter(|owner| ***owner != *node).cloned();
        other.is_some_and(|owner| self.contradicted.insert(owner))
    }

    /// True when some node has no pod network: then its pods' addresses may be any.
    pub(super) fn lack_networks(&self) -> bool {
        let facts = self.known.values().filter_map(|node| node.facts.as_ref());
        facts.into_iter().any(|facts| facts.pod_networks.is_empty())
    }

    /// Takes in an address that a node announces as its own. True when it is news.
    pub(super) fn announce(&mut self, name: &Name, told: LocalFact) -> bool {
        let place = place(self.known.get(name));
        let announced = self.announced.entry(Key::of(told.address)).or_default();
        let mut known = announced.by.iter_mut();
        let known = known.find(|known| known.node() == Some(name) && known.told.to.is_none());
        if let Some(known) = known {
            if told.from < known.told.from {
                return false;
            }
            // Beginning anew without an end, it was there all the while for all anybody saw.
            let news = told.to.is_some();
            known.told.to = told.to;
            return news;
        }
        // The same, or within one that is over by now: told late.
        let past = |known: &Announcement| {
            let over = known.told.to.is_some_and(|to| told.to.is_none() && told.from < to);
            known.node() == Some(name)
                && (known.told.from == told.from || (over && known.told.from <= told.from))
        };
        if announced.by.iter().any(past) {
            return false;
        }
        if announced.by.len() >= ANNOUNCERS_LIMIT {
            let ended = announced.by.iter().position(|known| known.told.to.is_some());
            announced.many |= ended.is_none();
            let Some(ended) = ended else { return false };
            announced.by.remove(ended);
        }
        let endpoint = Endpoint {
            node: Some(Name::clone(name)),
            resolution: Some(Resolution::LocalFacts),
            ..place.on(Endpoint::bare(EndpointKind::Node, told.address.to_canonical()))
        };
        announced.by.reserve_exact(1);
        announced.by.push(Announcement { endpoint: Arc::new(endpoint), told });
        true
    }

    pub(super) fn announces(&self, key: Key) -> bool {
        self.announced.contains_key(&key)
    }

    /// A node looked at `at` and has only these: the others disappeared unseen. Gives those.
    pub(super) fn vanished(
        &mut self,
        name: &str,
        own: &[LocalFact],
        at: WallTime,
    ) -> Vec<LocalFact> {
        let seen: HashSet<Key> = own.iter().map(|fact| Key::of(fact.address)).collect();
        let mut gone = Vec::new();
        for (key, announced) in &mut self.announced {
            let open = announced.by.iter_mut();
            for known in open.filter(|k| k.node() == Some(name) && k.told.to.is_none()) {
                if !seen.contains(key) {
                    known.told.to = Some(at);
                    gone.push(known.told);
                }
            }
        }
        gone
    }

    /// Whose own address this was. An address inside a node's pod network is nobody else's to
    /// announce.
    pub(super) fn own(&self, key: Key, observer: &str, at: WallTime) -> Own<'_> {
        let Some(announced) = self.announced.get(&key) else { return Own::Nobody };
        let owner = self.of_network(key).map(|owner| &**owner);
        let may_announce = |known: &&Announcement| owner.is_none() || known.node() == owner;
        let mut then = announced.by.iter().filter(may_announce).filter(|known| known.at(at));
        let Some(first) = then.next() else { return Own::Nobody };
        let mut rest = then.peekable();
        if rest.peek().is_none() && !announced.many {
            return Own::One(&first.endpoint);
        }
        let mut all = [first].into_iter().chain(rest);
        Own::Shared(all.find(|known| known.node() == Some(observer)).map(|known| &known.endpoint))
    }

    /// Forgets what ended before `horizon`, and nodes that are long gone.
    pub(super) fn forget_before(&mut self, horizon: WallTime) {
        let past = |to: Option<WallTime>| to.is_some_and(|to| to < horizon);
        self.announced.retain(|_, announced| {
            announced.by.retain(|known| !past(known.told.to));
            announced.many &= announced.by.len() >= ANNOUNCERS_LIMIT;
            !announced.by.is_empty()
        });
        self.known.retain(|_, node| !past(node.gone));
        let known = &self.known;
        self.networks.retain(|name| known.contains_key(name));
        self.contradicted.retain(|name| known.contains_key(name));
    }

    /// Where a node is.
    pub(super) fn place(&self, name: &str) -> Place {
        place(self.known.get(name))
    }
}

/// Where something is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) zone: Option<Name>,
    pub(super) region: Option<Name>,
    pub(super) cloud: Option<Name>,
}

impl Place {
    pub(super) fn on(&self, endpoint: Endpoint) -> Endpoint {
        Endpoint {
            zone: self.zone.clone(),
            region: self.region.clone(),
            cloud: self.cloud.clone(),
            ..endpoint
        }
    }
}

fn place(node: Option<&Node>) -> Place {
    node.and_then(|node| node.facts.as_ref()).map(Place::of).unwrap_or_default()
}

impl Place {
    pub(super) fn of(facts: &NodeFacts) -> Self {
        let (zone, region, cloud) = (facts.zone.clone(), facts.region.clone(), facts.cloud.clone());
        Self { zone, region, cloud }
    }
}
