//! What the API knows: objects, their history, tokens, faults.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use hyper::body::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::objects::timestamp;
use super::{Asked, Fault, TokenIdentity};
use crate::error::LabError;

/// Events kept per resource; who wants to resume from before gets 410.
const EVENTS_MAX: usize = 65_536;

/// A resource that the API serves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) kind: &'static str,
    /// As in its path.
    pub(super) plural: &'static str,
    /// Empty: the core group.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
}

impl Resource {
    /// As in `apiVersion`.
    pub(super) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

const fn core(kind: &'static str, plural: &'static str) -> Resource {
    Resource { kind, plural, group: "", version: "v1" }
}

const fn grouped(kind: &'static str, plural: &'static str, group: &'static str) -> Resource {
    Resource { kind, plural, group, version: "v1" }
}

/// Everything that is served.
pub(super) const RESOURCES: [Resource; 7] = [
    core("Pod", "pods"),
    core("Node", "nodes"),
    core("Service", "services"),
    core("Namespace", "namespaces"),
    grouped("EndpointSlice", "endpointslices", "discovery.k8s.io"),
    grouped("ReplicaSet", "replicasets", "apps"),
    grouped("Job", "jobs", "batch"),
];

/// Namespace and name.
pub(super) type Key = (String, String);

/// The state, and word of its changes.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes something of which no watch need know.
    pub(super) fn note<T>(&self, note: impl FnOnce(&mut State) -> T) -> T {
        note(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = self.note(change);
        self.changed.send_modify(|changes| *changes += 1);
        result
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// What the API knows.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The newest resource version.
    pub(super) revision: u64,
    resources: HashMap<&'static str, Objects>,
    pub(super) tokens: HashMap<String, TokenIdentity>,
    pub(super) faults: Vec<Fault>,
    pub(super) asked: HashMap<String, Asked>,
    pub(super) reviews: u64,
    uids: u64,
    pub(super) ended: bool,
}

/// A resource's objects and their history.
#[derive(Debug, Default)]
struct Objects {
    now: BTreeMap<Key, Stored>,
    events: VecDeque<Event>,
    /// Watches may resume from this resource version on.
    oldest: u64,
}

#[derive(Clone, Debug)]
struct Stored {
    uid: String,
    /// JSON without kind and API version, as it stands in lists.
    json: Bytes,
}

/// Something that watches are told.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) namespace: String,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Added(Bytes),
    Modified(Bytes),
    Deleted(Bytes),
    Garbage,
}

/// A watch asks for history that is forgotten.
#[derive(Debug)]
pub(super) struct Gone;

impl State {
    pub(super) fn put(&mut self, mut object: Value) -> Result<(), LabError> {
        let resource = resource_of(object["kind"].as_str().unwrap_or_default())?;
        let fields = object.as_object_mut().expect("what has a kind is an object");
        fields.remove("kind");
        fields.remove("apiVersion");
        let metadata = fields
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
            .ok_or_else(|| refused(resource.kind, "it has no metadata"))?;
        let key = key_of(metadata).ok_or_else(|| refused(resource.kind, "it has no name"))?;
        self.uids += 1;
        let serial = self.uids;
        let objects = self.resources.entry(resource.plural).or_default();
        let old = objects.now.get(&key).cloned();
        let uid = match (metadata.get("uid").and_then(Value::as_str), &old) {
            (Some(uid), _) => uid.to_owned(),
            (None, Some(old)) => old.uid.clone(),
            (None, None) => format!("7e1e0000-0000-4000-8000-{serial:012x}"),
        };
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.entry("creationTimestamp").or_insert_with(|| json!(timestamp(SystemTime::now())));
        let replaces = old.as_ref().is_some_and(|old| old.uid == uid);
        if let Some(old) = old.filter(|_| !replaces) {
            self.revision += 1;
            let json = with_version(&old.json, self.revision);
            objects.tell(self.revision, &key.0, What::Deleted(json));
        }
        self.revision += 1;
        metadata.insert("resourceVersion".to_owned(), json!(self.revision.to_string()));
        let json = Bytes::from(object.to_string());
        let what = if replaces { What::Modified } else { What::Added };
        objects.tell(self.revision, &key.0, what(json.clone()));
        objects.now.insert(key, Stored { uid, json });
        Ok(())
    }

    pub(super) fn delete(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<bool, LabError> {
        let resource = resource_of(kind)?;
        let objects = self.resources.entry(resource.plural).or_default();
        let Some(old) = objects.now.remove(&(namespace.to_owned(), name.to_owned())) else {
            return Ok(false);
        };
        self.revision += 1;
        let json = with_version(&old.json, self.revision);
        objects.tell(self.revision, namespace, What::Deleted(json));
        Ok(true)
    }

    pub(super) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let resource = resource_of(kind).ok()?;
        let json = self.json(resource, &(namespace.to_owned(), name.to_owned()))?;
        serde_json::from_slice(&json).ok()
    }

    pub(super) fn json(&self, resource: &Resource, key: &Key) -> Option<Bytes> {
        Some(self.resources.get(resource.plural)?.now.get(key)?.json.clone())
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Gone { resource } => {
                self.revision += 1;
                let revision = self.revision;
                if let Some(objects) = self.objects_mut(&resource) {
                    objects.events.clear();
                    objects.oldest = revision;
                }
            }
            Fault::Garbage { resource } => {
                self.revision += 1;
                let revision = self.revision;
                if let Some(objects) = self.objects_mut(&resource) {
                    objects.tell(revision, "", What::Garbage);
                }
            }
            lasting => self.faults.push(lasting),
        }
    }

    /// At most `limit` objects after `after`, and whether there are more.
    pub(super) fn page(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        after: Option<&Key>,
        limit: usize,
    ) -> (Vec<(Key, Bytes)>, bool) {
        let Some(objects) = self.resources.get(resource.plural) else {
            return (Vec::new(), false);
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = objects
            .now
            .range((from, Bound::Unbounded))
            .filter(|(key, _)| namespace.is_none_or(|namespace| namespace == key.0))
            .map(|(key, stored)| (key.clone(), stored.json.clone()));
        let page: Vec<_> = found.by_ref().take(limit).collect();
        (page, found.next().is_some())
    }

    /// At most `limit` events after the resource version `after`.
    pub(super) fn events(
        &self,
        resource: &Resource,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, Gone> {
        let Some(objects) = self.resources.get(resource.plural) else { return Ok(Vec::new()) };
        if after < objects.oldest {
            return Err(Gone);
        }
        let from = objects.events.partition_point(|event| event.revision <= after);
        Ok(objects.events.range(from..).take(limit).cloned().collect())
    }

    pub(super) fn is_forbidden(&self, resource: &str) -> bool {
        self.faults.contains(&Fault::Forbidden { resource: resource.to_owned() })
    }

    pub(super) fn is_stalled(&self, resource: &str) -> bool {
        self.faults.contains(&Fault::Stalled { resource: resource.to_owned() })
    }

    fn objects_mut(&mut self, plural: &str) -> Option<&mut Objects> {
        let resource = RESOURCES.iter().find(|resource| resource.plural == plural)?;
        Some(self.resources.entry(resource.plural).or_default())
    }
}

impl Objects {
    fn tell(&mut self, revision: u64, namespace: &str, what: What) {
        if self.events.len() >= EVENTS_MAX
            && let Some(oldest) = self.events.pop_front()
        {
            self.oldest = oldest.revision;
        }
        self.events.push_back(Event { revision, namespace: namespace.to_owned(), what });
    }
}

fn resource_of(kind: &str) -> Result<&'static Resource, LabError> {
    RESOURCES.iter().find(|resource| resource.kind == kind).ok_or_else(|| {
        let kinds: Vec<_> = RESOURCES.iter().map(|resource| resource.kind).collect();
        LabError::Kubernetes(format!("unknown kind {kind:?}: it serves {}", kinds.join(", ")))
    })
}

fn refused(kind: &str, why: &str) -> LabError {
    LabError::Kubernetes(format!("cannot take the {kind}: {why}"))
}

fn key_of(metadata: &Map<String, Value>) -> Option<Key> {
    let text = |field: &str| metadata.get(field).and_then(Value::as_str);
    Some((text("namespace").unwrap_or_default().to_owned(), text("name")?.to_owned()))
}

fn with_version(json: &Bytes, revision: u64) -> Bytes {
    let mut object: Value = serde_json::from_slice(json).expect("it was written here");
    object["metadata"]["resourceVersion"] = json!(revision.to_string());
    Bytes::from(object.to_string())
}
