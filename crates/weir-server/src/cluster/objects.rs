//! The API's objects, as far as weir reads them. Everything else is skipped while it is read.

use std::borrow::Cow;
use std::fmt;

use kube::Resource;
use kube::core::{ClusterResourceScope, ObjectMeta};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use weir_flow::WallTime;
use weir_flow::cluster::{Bounds, Uid};
use weir_flow::time::SECOND;

use super::lenient::{Any, Fields, NumberOrName, Texts};

/// A kind of object.
pub(super) trait Kind: fmt::Debug + Clone + Send + Sync + 'static {
    const KIND: &'static str;
    const GROUP: &'static str;
    /// As in paths.
    const PLURAL: &'static str;
    /// Only its metadata is asked for.
    const METADATA_ONLY: bool = false;
    type Spec: fmt::Debug + Clone + Default + Send + Sync + for<'de> Deserialize<'de>;
    type Status: fmt::Debug + Clone + Default + Send + Sync + for<'de> Deserialize<'de>;
}

/// An object of the API.
#[derive(Clone, Debug)]
pub(super) struct Object<K: Kind> {
    /// What the client library wants to know.
    known: ObjectMeta,
    pub(super) metadata: Metadata,
    pub(super) spec: K::Spec,
    pub(super) status: K::Status,
}

impl<'de, K: Kind> Deserialize<'de> for Object<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Any::<Fields<Raw<K::Spec, K::Status>>>::deserialize(deserializer)?;
        let raw = raw.into_inner().unwrap_or_default();
        let metadata = raw.metadata.into_inner().unwrap_or_default();
        let owned = |text: &Any<Box<str>>| text.text().map(str::to_owned);
        let known = ObjectMeta {
            name: owned(&metadata.name),
            namespace: owned(&metadata.namespace),
            uid: owned(&metadata.uid),
            resource_version: owned(&metadata.resource_version),
            ..ObjectMeta::default()
        };
        let (spec, status) = (raw.spec.into_inner(), raw.status.into_inner());
        Ok(Self {
            known,
            metadata,
            spec: spec.unwrap_or_default(),
            status: status.unwrap_or_default(),
        })
    }
}

impl<K: Kind> Resource for Object<K> {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.into()
    }
    fn group((): &()) -> Cow<'_, str> {
        K::GROUP.into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        K::PLURAL.into()
    }
    fn metadata_api() -> bool {
        K::METADATA_ONLY
    }
    fn meta(&self) -> &ObjectMeta {
        &self.known
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.known
    }
}

#[derive(Deserialize)]
#[serde(default, bound = "S: for<'a> Deserialize<'a>, T: for<'a> Deserialize<'a>")]
struct Raw<S, T> {
    metadata: Any<Fields<Metadata>>,
    spec: Any<Fields<S>>,
    status: Any<Fields<T>>,
}

impl<S, T> Default for Raw<S, T> {
    fn default() -> Self {
        Self { metadata: Any::default(), spec: Any::default(), status: Any::default() }
    }
}

type Text = Any<Box<str>>;
type List<T> = Any<Vec<Fields<T>>>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: Text,
    pub(super) namespace: Text,
    uid: Text,
    resource_version: Text,
    creation_timestamp: Text,
    deletion_timestamp: Text,
    deletion_grace_period_seconds: Any<u64>,
    labels: Any<Texts>,
    owner_references: List<OwnerReference>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OwnerReference {
    pub(super) kind: Text,
    pub(super) name: Text,
    uid: Text,
    controller: Any<bool>,
}

impl Metadata {
    /// `None`: an object without identity is nobody.
    pub(super) fn uid(&self) -> Option<Uid> {
        self.uid.text().map(Uid::of)
    }

    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get()?.get(name)
    }

    pub(super) fn created(&self) -> Option<WallTime> {
        time(&self.creation_timestamp)
    }

    /// When its deletion was asked for.
    pub(super) fn deletion_asked(&self) -> Option<WallTime> {
        let grace = self.deletion_grace_period_seconds.get().copied().unwrap_or(0);
        let until = time(&self.deletion_timestamp)?;
        Some(WallTime(until.0.saturating_sub(grace.saturating_mul(SECOND))))
    }

    pub(super) fn controller(&self) -> Option<&OwnerReference> {
        let owners = self.owner_references.items().iter().map(|owner| &owner.0);
        owners.into_iter().find(|owner| owner.controller.get() == Some(&true))
    }
}

impl OwnerReference {
    pub(super) fn uid(&self) -> Option<Uid> {
        self.uid.text().map(Uid::of)
    }
}

/// A time of the API: whole seconds, cut off.
pub(super) fn time(text: &Text) -> Option<WallTime> {
    let time: jiff::Timestamp = text.text()?.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok().map(WallTime)
}

/// The second that such a time stands for.
pub(super) fn second(from: WallTime) -> Bounds {
    Bounds::between(from, WallTime(from.0.saturating_add(SECOND - 1)))
}

#[derive(Clone, Debug)]
pub(super) struct Pods;

impl Kind for Pods {
    const KIND: &'static str = "Pod";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "pods";
    type Spec = PodSpec;
    type Status = PodStatus;
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: Text,
    pub(super) host_network: Any<bool>,
    pub(super) service_account_name: Text,
    pub(super) containers: List<Container>,
    /// Those that restart are sidecars, and are probed.
    pub(super) init_containers: List<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) ports: List<ContainerPort>,
    pub(super) liveness_probe: Any<Fields<Probe>>,
    pub(super) readiness_probe: Any<Fields<Probe>>,
    pub(super) startup_probe: Any<Fields<Probe>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerPort {
    pub(super) name: Text,
    pub(super) container_port: Any<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Probe {
    pub(super) http_get: Any<Fields<Probed>>,
    pub(super) tcp_socket: Any<Fields<Probed>>,
    pub(super) grpc: Any<Fields<Probed>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Probed {
    pub(super) port: Any<NumberOrName>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: Text,
    pub(super) start_time: Text,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Text,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: List<PodIp>,
    pub(super) conditions: List<Condition>,
    pub(super) container_statuses: List<ContainerStatus>,
    pub(super) init_container_statuses: List<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodIp {
    pub(super) ip: Text,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Condition {
    pub(super) r#type: Text,
    pub(super) status: Text,
    pub(super) last_transition_time: Text,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    pub(super) state: Any<Fields<ContainerState>>,
    pub(super) last_state: Any<Fields<ContainerState>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    pub(super) running: Any<Fields<Ran>>,
    pub(super) terminated: Any<Fields<Ran>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Ran {
    pub(super) started_at: Text,
    pub(super) finished_at: Text,
}

#[derive(Clone, Debug)]
pub(super) struct Nodes;

impl Kind for Nodes {
    const KIND: &'static str = "Node";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "nodes";
    type Spec = NodeSpec;
    type Status = NodeStatus;
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Text,
    #[serde(rename = "podCIDRs")]
    pub(super) pod_cidrs: Any<Vec<Box<str>>>,
    #[serde(rename = "providerID")]
    pub(super) provider_id: Text,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeStatus {
    pub(super) addresses: List<NodeAddress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeAddress {
    pub(super) address: Text,
}

#[derive(Clone, Debug)]
pub(super) struct Services;

impl Kind for Services {
    const KIND: &'static str = "Service";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "services";
    type Spec = ServiceSpec;
    type Status = ServiceStatus;
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Text,
    #[serde(rename = "clusterIPs")]
    pub(super) cluster_ips: Any<Vec<Box<str>>>,
    #[serde(rename = "externalIPs")]
    pub(super) external_ips: Any<Vec<Box<str>>>,
    pub(super) ports: List<ServicePort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServicePort {
    pub(super) protocol: Text,
    pub(super) port: Any<u64>,
    pub(super) node_port: Any<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceStatus {
    pub(super) load_balancer: Any<Fields<LoadBalancer>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoadBalancer {
    pub(super) ingress: List<PodIp>,
}

/// Nothing but metadata.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "IgnoredAny")]
pub(super) struct Nothing;

impl From<IgnoredAny> for Nothing {
    fn from(_: IgnoredAny) -> Self {
        Self
    }
}

#[derive(Clone, Debug)]
pub(super) struct Namespaces;

impl Kind for Namespaces {
    const KIND: &'static str = "Namespace";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "namespaces";
    const METADATA_ONLY: bool = true;
    type Spec = Nothing;
    type Status = Nothing;
}

#[derive(Clone, Debug)]
pub(super) struct ReplicaSets;

impl Kind for ReplicaSets {
    const KIND: &'static str = "ReplicaSet";
    const GROUP: &'static str = "apps";
    const PLURAL: &'static str = "replicasets";
    const METADATA_ONLY: bool = true;
    type Spec = Nothing;
    type Status = Nothing;
}

#[derive(Clone, Debug)]
pub(super) struct Jobs;

impl Kind for Jobs {
    const KIND: &'static str = "Job";
    const GROUP: &'static str = "batch";
    const PLURAL: &'static str = "jobs";
    const METADATA_ONLY: bool = true;
    type Spec = Nothing;
    type Status = Nothing;
}
