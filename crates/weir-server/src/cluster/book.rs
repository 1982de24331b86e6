//! From the API's objects to news for the book: who owns whom, which labels count, what was there
//! before. It keeps little of each object, and no object.

use std::net::IpAddr;

use hashbrown::HashMap;
use weir_flow::cluster::{Bounds, NodeFacts, Pod, ServiceFacts, Uid, Update};
use weir_flow::ranges::Prefix;
use weir_flow::{Name, Protocol, WallTime};

use super::names::Names;
use super::objects::{
    Jobs, Kind, Metadata, Namespaces, Nodes, Object, Pods, ReplicaSets, Services,
};
use super::{Rules, pods};

/// Bytes of a label's value, as Kubernetes bounds it.
const LABEL_BYTES: usize = 63;
/// Bytes of all chosen labels of a pod together; the first by key are kept.
const LABELS_BYTES: usize = 1_000;
/// Bytes of a name, as DNS bounds it.
const NAME_BYTES: usize = 253;
/// Pods that wait for their owner to be told of.
const WAITING: usize = 4_096;
/// Addresses, ports or networks of one object.
const PER_OBJECT: usize = 1_024;

/// What was told of each kind of object.
#[derive(Debug)]
pub(super) struct Book {
    rules: Rules,
    names: Names,
    pods: HashMap<Uid, KnownPod>,
    nodes: HashMap<Name, Listed>,
    services: HashMap<(Name, Name), Listed>,
    /// The chosen labels of each namespace.
    namespaces: HashMap<Name, (Labels, Listed)>,
    replica_sets: Owners,
    jobs: Owners,
    /// Pods by the owner that was not told of yet, with when they were told of.
    waiting: HashMap<Uid, Vec<(WallTime, Pod)>>,
    waits: usize,
    /// Objects without what makes them one.
    pub(super) odd: u64,
}

type Labels = Vec<(Name, Name)>;

/// In which list an object was last.
type Listed = u32;

#[derive(Debug)]
struct KnownPod {
    /// When it was first seen with an address.
    seen: WallTime,
    /// When it was last told of.
    told: WallTime,
    node: Option<Name>,
    ended: Option<Bounds>,
    listed: Listed,
}

/// Owners that have owners themselves.
#[derive(Debug, Default)]
struct Owners {
    by_uid: HashMap<Uid, Owner>,
    /// Whether all of them are told of.
    is_complete: bool,
}

#[derive(Debug)]
struct Owner {
    namespace: Name,
    /// Kind and name of its own controller, else its own.
    top: (Name, Name),
    listed: Listed,
}

/// A kind of object that the book takes.
pub(super) trait Told: Kind + Sized {
    /// The object is there, or has changed.
    fn put(book: &mut Book, object: &Object<Self>, list: Listed, now: WallTime) -> Vec<Update>;
    /// It was deleted.
    fn delete(book: &mut Book, object: &Object<Self>, now: WallTime) -> Vec<Update>;
    /// A list is complete: what was not in it is gone.
    fn sweep(book: &mut Book, list: Listed, now: WallTime) -> Vec<Update>;
    /// How many there are.
    fn count(book: &Book) -> usize;
}

impl Book {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            names: Names::default(),
            pods: HashMap::new(),
            nodes: HashMap::new(),
            services: HashMap::new(),
            namespaces: HashMap::new(),
            replica_sets: Owners::default(),
            jobs: Owners::default(),
            waiting: HashMap::new(),
            waits: 0,
            odd: 0,
        }
    }

    /// The node of a pod that is there.
    pub(super) fn node_of(&self, pod: Uid) -> Option<Name> {
        self.pods.get(&pod)?.node.clone()
    }

    fn name(&mut self, text: Option<&str>) -> Option<Name> {
        text.filter(|text| text.len() <= NAME_BYTES).map(|text| self.names.get(text))
    }

    /// Namespace and name. An object without a name is counted and left out.
    fn identity(&mut self, metadata: &Metadata) -> Option<(Name, Name)> {
        let namespace = self.name(Some(metadata.namespace.text().unwrap_or_default()));
        let name = metadata.name.text().filter(|name| name.len() <= NAME_BYTES).map(Name::from);
        let identity = namespace.zip(name);
        self.odd += u64::from(identity.is_none());
        identity
    }

    /// The top of a pod's owner chain, and the owner that must be told of before it is known.
    fn workload(
        &mut self,
        pod: &Object<Pods>,
        namespace: &Name,
        name: &Name,
    ) -> ((Name, Name), Option<Uid>) {
        let itself = (self.names.get(Pods::KIND), Name::clone(name));
        let Some(owner) = pod.metadata.controller() else { return (itself, None) };
        let claimed = self.name(owner.kind.text()).zip(self.name(owner.name.text()));
        let Some(claimed) = claimed else { return (itself, None) };
        let owners = match &*claimed.0 {
            ReplicaSets::KIND => &self.replica_sets,
            Jobs::KIND => &self.jobs,
            // A static pod belongs to its node's file, and so to itself.
            Nodes::KIND => return (itself, None),
            _ => return (claimed, None),
        };
        match owner.uid().map(|uid| (uid, owners.by_uid.get(&uid))) {
            Some((_, Some(known))) if known.namespace == *namespace => (known.top.clone(), None),
            Some((uid, None)) if owners.is_complete => (itself, Some(uid)),
            // Nobody can say whether the owner exists: then the pod's word stands.
            Some((uid, None)) => (claimed, Some(uid)),
            // Another namespace's owner, or none that could exist.
            _ => (itself, None),
        }
    }

    /// The chosen labels of a pod; its own before its namespace's.
    fn labels(&mut self, metadata: &Metadata, namespace: &Name) -> Option<Name> {
        let mut labels = chosen(&self.rules.pod_labels, metadata, &mut self.names);
        if let Some((inherited, _)) = self.namespaces.get(namespace) {
            for (key, value) in inherited {
                if !labels.iter().any(|(own, _)| own == key) {
                    labels.push((Name::clone(key), Name::clone(value)));
                }
            }
        }
        if labels.is_empty() {
            return None;
        }
        labels.sort();
        // As many as a store takes of one endpoint.
        let mut bytes = 0;
        labels.retain(|(key, value)| {
            bytes += key.len() + value.len() + 2;
            bytes <= LABELS_BYTES
        });
        let pairs: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Some(self.names.get(&pairs.join(",")))
    }

    fn app(&mut self, metadata: &Metadata) -> Option<Name> {
        let labels = ["app.kubernetes.io/name", "k8s-app", "app"];
        let app = labels.iter().find_map(|label| metadata.label(label))?;
        (!app.is_empty() && app.len() <= LABEL_BYTES).then(|| self.names.get(app))
    }

    /// A label alone would do for nobody: anybody may give it to a pod.
    fn runs_agent(&self, pod: &Object<Pods>, namespace: &str) -> bool {
        let account = pod.spec.service_account_name.text();
        let (key, value) = &self.rules.agent_selector;
        pod.metadata.label(key) == Some(value)
            && self
                .rules
                .agent_accounts
                .iter()
                .any(|(allowed_in, allowed)| **allowed_in == *namespace && account == Some(allowed))
    }

    fn wait(&mut self, owner: Uid, pod: &Pod, now: WallTime) {
        if self.waits >= WAITING {
            // Owners that never came. Whoever waits in earnest is told of again at its next change.
            self.waiting.clear();
            self.waits = 0;
        }
        let waiting = self.waiting.entry(owner).or_default();
        let before = waiting.len();
        waiting.retain(|(_, other)| other.uid != pod.uid);
        waiting.push((now, pod.clone()));
        self.waits = self.waits + waiting.len() - before;
    }

    fn own<K: Kind>(
        &mut self,
        owners: fn(&mut Self) -> &mut Owners,
        object: &Object<K>,
        listed: Listed,
    ) -> Vec<Update> {
        let Some((namespace, name)) = self.identity(&object.metadata) else { return Vec::new() };
        let Some(uid) = object.metadata.uid() else {
            self.odd += 1;
            return Vec::new();
        };
        let controller = object.metadata.controller();
        let controller = controller.and_then(|owner| owner.kind.text().zip(owner.name.text()));
        let top = match controller {
            Some((kind, name)) => self.name(Some(kind)).zip(self.name(Some(name))),
            None => None,
        };
        let top = top.unwrap_or_else(|| (self.names.get(K::KIND), name));
        let waited = self.waiting.remove(&uid).unwrap_or_default();
        self.waits -= waited.len();
        // What was told of a pod since then, its end perhaps, is newer.
        let is_news = |told: WallTime, pod: &Pod| {
            pod.namespace == namespace
                && self.pods.get(&pod.uid).is_some_and(|known| known.told == told)
        };
        let updates = waited
            .into_iter()
            .filter(|(told, pod)| is_news(*told, pod))
            .map(|(_, pod)| Update::Pod(Pod { workload: Some(top.clone()), ..pod }))
            .collect();
        owners(self).by_uid.insert(uid, Owner { namespace, top, listed });
        updates
    }

    fn disown<K: Kind>(&mut self, owners: fn(&mut Self) -> &mut Owners, object: &Object<K>) {
        if let Some(uid) = object.metadata.uid() {
            owners(self).by_uid.remove(&uid);
        }
    }
}

impl Owners {
    fn sweep(&mut self, list: Listed) {
        self.by_uid.retain(|_, owner| owner.listed == list);
        self.is_complete = true;
    }
}

fn chosen(wanted: &[Box<str>], metadata: &Metadata, names: &mut Names) -> Labels {
    wanted
        .iter()
        .filter_map(|key| Some((key, metadata.label(key)?)))
        .filter(|(_, value)| value.len() <= LABEL_BYTES)
        .map(|(key, value)| (names.get(key), names.get(value)))
        .collect()
}

impl Told for Pods {
    fn put(book: &mut Book, object: &Object<Self>, listed: Listed, now: WallTime) -> Vec<Update> {
        let Some((namespace, name)) = book.identity(&object.metadata) else { return Vec::new() };
        let Some(uid) = object.metadata.uid() else {
            book.odd += 1;
            return Vec::new();
        };
        let addresses = pods::addresses(object);
        let node = book.name(object.spec.node_name.text());
        let before = book.pods.get(&uid);
        let seen = match before {
            // It had none before.
            Some(known) if known.seen == WallTime(u64::MAX) && !addresses.is_empty() => now,
            Some(known) => known.seen,
            None if addresses.is_empty() => WallTime(u64::MAX),
            None => now,
        };
        let from = pods::began(object, seen.min(now));
        let ended_before = before.and_then(|known| known.ended);
        // Where the object does not say when it ended, it was before it was first seen to have.
        let ended = pods::ended(object, from, now).map(|ended| match ended_before {
            Some(before) if before.latest <= ended.latest => before,
            _ => ended,
        });
        let known = KnownPod { seen, told: now, node: node.clone(), ended, listed };
        book.pods.insert(uid, known);
        if let Some(at) = ended.filter(|_| addresses.is_empty()) {
            let is_news = ended_before.is_none();
            return is_news.then_some(Update::PodGone { uid, at }).into_iter().collect();
        }
        let runs_agent = book.runs_agent(object, &namespace);
        if addresses.is_empty() && !runs_agent {
            return Vec::new();
        }
        let (workload, waits_for) = book.workload(object, &namespace, &name);
        let pod = Pod {
            uid,
            node,
            addresses,
            host_network: object.spec.host_network.get() == Some(&true),
            workload: Some(workload),
            app: book.app(&object.metadata),
            labels: book.labels(&object.metadata, &namespace),
            from,
            ended,
            probe_ports: pods::probe_ports(object),
            runs_agent,
            namespace,
            name,
        };
        if let Some(owner) = waits_for {
            book.wait(owner, &pod, now);
        }
        vec![Update::Pod(pod)]
    }

    fn delete(book: &mut Book, object: &Object<Self>, now: WallTime) -> Vec<Update> {
        let Some(uid) = object.metadata.uid() else { return Vec::new() };
        let Some(known) = book.pods.remove(&uid) else { return Vec::new() };
        let from = pods::began(object, known.seen.min(now));
        let at = pods::ended(object, from, now).unwrap_or_else(|| pods::gone(object, from, now));
        vec![Update::PodGone { uid, at }]
    }

    fn sweep(book: &mut Book, list: Listed, now: WallTime) -> Vec<Update> {
        let gone = book.pods.extract_if(|_, known| known.listed != list);
        gone.map(|(uid, known)| {
            let at = known.ended.unwrap_or_else(|| pods::vanished(known.told, now));
            Update::PodGone { uid, at }
        })
        .collect()
    }

    fn count(book: &Book) -> usize {
        book.pods.len()
    }
}

impl Told for Nodes {
    fn put(book: &mut Book, object: &Object<Self>, listed: Listed, now: WallTime) -> Vec<Update> {
        let Some((_, name)) = book.identity(&object.metadata) else { return Vec::new() };
        let name = book.names.get(&name);
        let (metadata, spec) = (&object.metadata, &object.spec);
        let networks = spec.pod_cidrs.items().iter().map(|network| &**network);
        let networks = networks.chain(spec.pod_cidr.text());
        let mut pod_networks: Vec<Prefix> =
            networks.filter_map(|network| network.parse().ok()).take(PER_OBJECT).collect();
        pod_networks.dedup();
        let addresses = object.status.addresses.items().iter();
        let addresses = addresses.filter_map(|address| address.0.address.text()?.parse().ok());
        let mut label = |labels: [&str; 2]| {
            let value = labels.into_iter().find_map(|label| metadata.label(label));
            value.filter(|value| value.len() <= LABEL_BYTES).map(|value| book.names.get(value))
        };
        let zone = label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]);
        let region =
            label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]);
        let cloud = spec.provider_id.text().and_then(cloud_of);
        let facts = NodeFacts {
            name: Name::clone(&name),
            addresses: addresses.take(PER_OBJECT).collect(),
            pod_networks,
            zone,
            region,
            cloud: cloud.map(|cloud| book.names.get(cloud)),
            since: metadata.created().unwrap_or(WallTime(0)).min(now),
        };
        book.nodes.insert(name, listed);
        vec![Update::Node(facts)]
    }

    fn delete(book: &mut Book, object: &Object<Self>, now: WallTime) -> Vec<Update> {
        let Some(name) = object.metadata.name.text() else { return Vec::new() };
        let removed = book.nodes.remove_entry(name);
        removed.map(|(name, _)| Update::NodeGone { name, at: now }).into_iter().collect()
    }

    fn sweep(book: &mut Book, list: Listed, now: WallTime) -> Vec<Update> {
        let gone = book.nodes.extract_if(|_, listed| *listed != list);
        gone.map(|(name, _)| Update::NodeGone { name, at: now }).collect()
    }

    fn count(book: &Book) -> usize {
        book.nodes.len()
    }
}

/// The cloud of a node, as its addresses' published ranges call it.
fn cloud_of(provider_id: &str) -> Option<&str> {
    let (cloud, _) = provider_id.split_once("://")?;
    match cloud {
        "gce" => Some("gcp"),
        "" => None,
        other => Some(other).filter(|cloud| cloud.len() <= LABEL_BYTES),
    }
}

impl Told for Services {
    fn put(book: &mut Book, object: &Object<Self>, listed: Listed, now: WallTime) -> Vec<Update> {
        let Some((namespace, name)) = book.identity(&object.metadata) else { return Vec::new() };
        let spec = &object.spec;
        let balancer = object.status.load_balancer.fields();
        let balanced = balancer.into_iter().flat_map(|balancer| balancer.ingress.items());
        let listed_addresses = spec.cluster_ips.items().iter().chain(spec.external_ips.items());
        let texts = listed_addresses
            .map(|text| &**text)
            .chain(spec.cluster_ip.text())
            .chain(balanced.filter_map(|ingress| ingress.0.ip.text()));
        // `None` stands for a headless service, and is no address.
        let mut addresses: Vec<IpAddr> =
            texts.filter_map(|text| text.parse().ok()).take(PER_OBJECT).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let (mut ports, mut node_ports) = (Vec::new(), Vec::new());
        for port in spec.ports.items().iter().map(|port| &port.0) {
            let protocol = match port.protocol.text() {
                None | Some("TCP") => Protocol::TCP,
                Some("UDP") => Protocol::UDP,
                Some("SCTP") => Protocol(132),
                Some(_) => continue,
            };
            let number = |number: Option<&u64>| u16::try_from(*number?).ok().filter(|it| *it > 0);
            ports.extend(number(port.port.get()).map(|port| (protocol, port)));
            node_ports.extend(number(port.node_port.get()).map(|port| (protocol, port)));
        }
        let since = object.metadata.created().unwrap_or(WallTime(0)).min(now);
        book.services.insert((Name::clone(&namespace), Name::clone(&name)), listed);
        let facts = ServiceFacts { namespace, name, addresses, ports, node_ports, since };
        vec![Update::Service(facts)]
    }

    fn delete(book: &mut Book, object: &Object<Self>, now: WallTime) -> Vec<Update> {
        let Some((namespace, name)) = book.identity(&object.metadata) else { return Vec::new() };
        let removed = book.services.remove_entry(&(namespace, name));
        removed.map(|(key, _)| service_gone(key, now)).into_iter().collect()
    }

    fn sweep(book: &mut Book, list: Listed, now: WallTime) -> Vec<Update> {
        let gone = book.services.extract_if(|_, listed| *listed != list);
        gone.map(|(key, _)| service_gone(key, now)).collect()
    }

    fn count(book: &Book) -> usize {
        book.services.len()
    }
}

fn service_gone((namespace, name): (Name, Name), at: WallTime) -> Update {
    Update::ServiceGone { namespace, name, at }
}

/// A namespace's labels count for the pods that are told of after it.
impl Told for Namespaces {
    fn put(book: &mut Book, object: &Object<Self>, listed: Listed, _: WallTime) -> Vec<Update> {
        let Some((_, name)) = book.identity(&object.metadata) else { return Vec::new() };
        let labels = chosen(&book.rules.namespace_labels, &object.metadata, &mut book.names);
        let name = book.names.get(&name);
        book.namespaces.insert(name, (labels, listed));
        Vec::new()
    }

    fn delete(book: &mut Book, object: &Object<Self>, _: WallTime) -> Vec<Update> {
        if let Some(name) = object.metadata.name.text() {
            book.namespaces.remove(name);
        }
        Vec::new()
    }

    fn sweep(book: &mut Book, list: Listed, _: WallTime) -> Vec<Update> {
        book.namespaces.retain(|_, (_, listed)| *listed == list);
        Vec::new()
    }

    fn count(book: &Book) -> usize {
        book.namespaces.len()
    }
}

impl Told for ReplicaSets {
    fn put(book: &mut Book, object: &Object<Self>, listed: Listed, _: WallTime) -> Vec<Update> {
        book.own(|book| &mut book.replica_sets, object, listed)
    }

    fn delete(book: &mut Book, object: &Object<Self>, _: WallTime) -> Vec<Update> {
        book.disown(|book| &mut book.replica_sets, object);
        Vec::new()
    }

    fn sweep(book: &mut Book, list: Listed, _: WallTime) -> Vec<Update> {
        book.replica_sets.sweep(list);
        Vec::new()
    }

    fn count(book: &Book) -> usize {
        book.replica_sets.by_uid.len()
    }
}

impl Told for Jobs {
    fn put(book: &mut Book, object: &Object<Self>, listed: Listed, _: WallTime) -> Vec<Update> {
        book.own(|book| &mut book.jobs, object, listed)
    }

    fn delete(book: &mut Book, object: &Object<Self>, _: WallTime) -> Vec<Update> {
        book.disown(|book| &mut book.jobs, object);
        Vec::new()
    }

    fn sweep(book: &mut Book, list: Listed, _: WallTime) -> Vec<Update> {
        book.jobs.sweep(list);
        Vec::new()
    }

    fn count(book: &Book) -> usize {
        book.jobs.by_uid.len()
    }
}
