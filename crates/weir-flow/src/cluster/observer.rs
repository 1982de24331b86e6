//! The book as one node's records ask it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::attribution::{Directory, Question};
use crate::class::Class;
use crate::endpoint::{Endpoint, EndpointKind, Name, Resolution, Unresolved};
use crate::field::Side;
use crate::record::FlowRecord;
use crate::time::WallTime;
use crate::tuple::Protocol;
use crate::view::{Home, Homes, View, view};

use super::answers::{Answer, outside};
use super::networks::Key;
use super::nodes::Own;
use super::timeline::{Found, Span, Who};
use super::{Cluster, distance};

/// Loopback addresses whose endpoints are kept for as long as the observer asks.
const LOOPBACKS: usize = 16;

/// The book, asked for the records of one observing node.
#[derive(Debug)]
pub struct Observer<'a> {
    book: &'a Cluster,
    node: &'a str,
    skew_nanos: u64,
    /// The last two answers of the history: a record's ends are looked up to name them, and again
    /// to know where they are at home.
    memos: [Cell<Option<Memo<'a>>>; 2],
    /// Which of them is the older one.
    older: Cell<bool>,
    loopbacks: RefCell<Vec<Arc<Endpoint>>>,
    resolved: [Cell<u64>; Resolution::ALL.len()],
    unresolved: [Cell<u64>; Unresolved::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
struct Memo<'a> {
    key: Key,
    at: WallTime,
    latest: WallTime,
    found: Found<'a>,
}

impl<'a> Observer<'a> {
    pub(super) fn new(book: &'a Cluster, node: &'a str, skew_nanos: u64) -> Self {
        Self {
            book,
            node,
            skew_nanos,
            memos: Default::default(),
            older: Cell::new(false),
            loopbacks: RefCell::default(),
            resolved: Default::default(),
            unresolved: Default::default(),
        }
    }

    fn look(&self, key: Key, at: WallTime, latest: WallTime) -> Found<'a> {
        let same = |memo: &Memo<'_>| memo.key == key && memo.at == at && memo.latest == latest;
        if let Some(memo) = self.memos.iter().find_map(|memo| memo.get().filter(same)) {
            return memo.found;
        }
        let found = self.book.history.look(key, Span::new(at, latest, self.skew_nanos));
        let older = self.older.get();
        self.memos[usize::from(older)].set(Some(Memo { key, at, latest, found }));
        self.older.set(!older);
        found
    }

    fn name(&self, question: &Question) -> Arc<Endpoint> {
        let address = question.address.to_canonical();
        let key = Key::of(address);
        let found = self.look(key, question.at, question.latest);
        match found {
            Found::One(who) if who.is_node => return self.node(key, who.endpoint, question),
            Found::One(who) => return Arc::clone(who.endpoint),
            Found::Several(..) => return Arc::new(ambiguous(address, found)),
            Found::Unheard | Found::Nobody => {}
        }
        if address.is_loopback() {
            return self.loopback(address);
        }
        let (book, at) = (self.book, question.at);
        let port = (question.protocol, question.port);
        if let Some(service) = book.services.endpoint(key, port, at) {
            return Arc::clone(service);
        }
        match book.nodes.own(key, self.node, at) {
            Own::One(node) | Own::Shared(Some(node)) => return self.node(key, node, question),
            Own::Shared(None) => return self.inside(key, Unresolved::Ambiguous),
            Own::Nobody => {}
        }
        let heard = matches!(found, Found::Nobody);
        match self.standing(key, address, heard, at) {
            Standing::Inside(why) => self.inside(key, why),
            Standing::Outside => {
                let make = || outside(address, &book.ranges);
                book.answers.get(key, Answer::Outside, make)
            }
        }
    }

    /// A node as it is, except where it probes a pod of its own.
    fn node(&self, key: Key, who: &Arc<Endpoint>, question: &Question) -> Arc<Endpoint> {
        let probes = question.side == Side::Source
            && who.node.as_deref() == Some(self.node)
            && self.is_probed(question);
        if !probes {
            return Arc::clone(who);
        }
        self.book.answers.get(key, Answer::Probe, || Endpoint {
            resolution: Some(Resolution::KubeletProbe),
            ..Endpoint::clone(who)
        })
    }

    /// True when a pod of this node is dialled at a port where the kubelet probes it.
    fn is_probed(&self, question: &Question) -> bool {
        let key = Key::of(question.peer_address);
        let found = self.look(key, question.at, question.latest);
        let Found::One(Who { endpoint: who, .. }) = found else { return false };
        who.kind == EndpointKind::Pod
            && who.node.as_deref() == Some(self.node)
            && self.book.history.probe_ports(key, who).contains(&question.peer_port)
    }

    /// This node's own endpoint at a loopback address.
    fn loopback(&self, address: IpAddr) -> Arc<Endpoint> {
        let mut made = self.loopbacks.borrow_mut();
        if let Some(known) = made.iter().find(|known| known.address == address) {
            return Arc::clone(known);
        }
        let here = Arc::new(Endpoint {
            node: Some(Name::from(self.node)),
            resolution: Some(Resolution::NodeAddress),
            ..self.book.nodes.place(self.node).on(Endpoint::bare(EndpointKind::Node, address))
        });
        if made.len() < LOOPBACKS {
            made.push(Arc::clone(&here));
        }
        here
    }

    fn inside(&self, key: Key, why: Unresolved) -> Arc<Endpoint> {
        self.book.answers.get(key, Answer::Inside(why), || {
            let bare = Endpoint {
                unresolved: Some(why),
                ..Endpoint::bare(EndpointKind::Unknown, key.address())
            };
            match self.book.nodes.of_network(key) {
                Some(node) if why != Unresolved::Ambiguous => Endpoint {
                    node: Some(Name::clone(node)),
                    resolution: Some(Resolution::PodNetwork),
                    ..self.book.nodes.place(node).on(bare)
                },
                _ => bare,
            }
        })
    }

    /// Counts how an end was named, or why it was not. Done when both ends are compared, because
    /// then they are at hand.
    fn count(&self, end: &Endpoint) {
        let count = match (end.unresolved, end.resolution) {
            (Some(why), _) => self.unresolved.get(usize::from(why.code())),
            (None, Some(how)) => self.resolved.get(usize::from(how.code())),
            (None, None) => None,
        };
        if let Some(count) = count {
            count.set(count.get() + 1);
        }
    }

    /// Whether an address that nobody is known to have had then is the cluster's all the same.
    fn standing(&self, key: Key, address: IpAddr, heard: bool, at: WallTime) -> Standing {
        if is_of_no_node(address) {
            return Standing::Outside;
        }
        // Where nobody says which networks are the cluster's, a stranger may be a pod that the
        // book was not told of yet.
        let blind = self.book.networks.is_empty() && self.book.nodes.lack_networks();
        let unready = match self.book.synced {
            None => true,
            Some(synced) => blind && synced < at,
        };
        let in_network = self.book.nodes.in_network(key) || self.book.networks.get(key).is_some();
        if heard || in_network {
            let why =
                if unready { Unresolved::DirectoryUnavailable } else { Unresolved::NotInDirectory };
            return Standing::Inside(why);
        }
        // Without the directory nobody can tell a pod from another private address.
        if unready && crate::class::is_private(address) {
            return Standing::Inside(Unresolved::DirectoryUnavailable);
        }
        Standing::Outside
    }
}

enum Standing {
    Inside(Unresolved),
    Outside,
}

/// Addresses that never belong to one node among several.
pub(super) fn is_of_no_node(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
        }
    }
}

/// One of several; what they have in common is known of it.
fn ambiguous(address: IpAddr, found: Found<'_>) -> Endpoint {
    let mut possible = found.possible();
    let Some(first) = possible.next() else {
        return Endpoint::bare(EndpointKind::Unknown, address);
    };
    let mut common = first.clone();
    for other in possible {
        let keep = |one: &mut Option<Name>, other: &Option<Name>| {
            if one != other {
                *one = None;
            }
        };
        keep(&mut common.namespace, &other.namespace);
        keep(&mut common.workload_kind, &other.workload_kind);
        keep(&mut common.workload_name, &other.workload_name);
        keep(&mut common.node, &other.node);
        keep(&mut common.zone, &other.zone);
        keep(&mut common.region, &other.region);
        keep(&mut common.cloud, &other.cloud);
        keep(&mut common.app, &other.app);
    }
    // A workload is one by namespace, kind and name.
    let one_workload = common.namespace.is_some() && common.workload_kind.is_some();
    let workload = common.workload_name.filter(|_| one_workload);
    Endpoint {
        workload_kind: common.workload_kind.filter(|_| workload.is_some()),
        workload_name: workload,
        namespace: common.namespace,
        node: common.node,
        zone: common.zone,
        region: common.region,
        app: common.app,
        cloud: common.cloud,
        unresolved: Some(Unresolved::Ambiguous),
        ..Endpoint::bare(EndpointKind::Unknown, address)
    }
}

impl Directory for Observer<'_> {
    fn resolve(&self, question: &Question) -> Arc<Endpoint> {
        self.name(question)
    }

    fn service(
        &self,
        protocol: Protocol,
        (address, port): (IpAddr, u16),
        at: WallTime,
    ) -> Option<Name> {
        let key = Key::of(address);
        if let Some(name) = self.book.services.dialled(key, (protocol, port), at) {
            return Some(Name::clone(name));
        }
        let name = self.book.services.at_node_port((protocol, port), at)?;
        let on_node = match self.look(key, at, at) {
            Found::One(who) => who.is_node,
            Found::Several(..) => false,
            Found::Unheard | Found::Nobody => {
                address.to_canonical().is_loopback()
                    || !matches!(self.book.nodes.own(key, self.node, at), Own::Nobody)
            }
        };
        on_node.then(|| Name::clone(name))
    }

    fn class(&self, record: &FlowRecord, source: &Endpoint, destination: &Endpoint) -> Class {
        self.count(source);
        self.count(destination);
        if self.book.config.tunnels.carries(record, source, destination) {
            return Class::Transport;
        }
        let said = |end: &Endpoint| {
            end.range.as_ref()?;
            self.book.ranges.lookup(end.address)?.class
        };
        said(destination)
            .or_else(|| said(source))
            .unwrap_or_else(|| distance::between(source, destination, &self.book.config.region))
    }

    fn view(&self, record: &FlowRecord, at: WallTime) -> View {
        view(record, at, self.node, self)
    }
}

impl Homes for Observer<'_> {
    fn home(&self, address: IpAddr, at: WallTime) -> Home<'_> {
        let address = address.to_canonical();
        let key = Key::of(address);
        let found = self.look(key, at, at);
        let mut possible = found.possible().map(|who| who.node.as_deref());
        if let Some(first) = possible.next() {
            return match first {
                Some(node) if possible.all(|other| other == first) => Home::Node(node),
                _ => Home::Unknown,
            };
        }
        if is_of_no_node(address) || self.book.services.has(key, at) {
            return Home::Observer;
        }
        match self.book.nodes.own(key, self.node, at) {
            Own::One(own) => return own.node.as_deref().map_or(Home::Unknown, Home::Node),
            Own::Shared(_) => return Home::Observer,
            Own::Nobody => {}
        }
        if let Some(node) = self.book.nodes.of_network(key) {
            return Home::Node(node);
        }
        match self.standing(key, address, matches!(found, Found::Nobody), at) {
            Standing::Inside(_) => Home::Unknown,
            Standing::Outside => Home::Outside,
        }
    }

    fn enrolled(&self, node: &str, at: WallTime) -> bool {
        self.book.nodes.enrolled(node, at)
    }
}

impl Drop for Observer<'_> {
    fn drop(&mut self) {
        let answered = &self.book.answered;
        let resolved = self.resolved.iter().zip(&answered.resolved);
        let unresolved = self.unresolved.iter().zip(&answered.unresolved);
        for (count, sum) in resolved.chain(unresolved) {
            if count.get() > 0 {
                sum.fetch_add(count.get(), Ordering::Relaxed);
            }
        }
    }
}
