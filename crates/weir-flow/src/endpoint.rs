//! One side of a flow: an address and what it was attributed to.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use crate::field::EndpointField;

/// A name that many endpoints share.
pub type Name = Arc<str>;

/// One side of a flow. Equal endpoints are one row of a table, so nothing ephemeral is kept here:
/// no port, no process id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// What it is.
    pub kind: EndpointKind,
    /// The address its packets bear.
    pub address: IpAddr,
    /// The machine it is on, for [`EndpointKind::Host`].
    pub host: Option<Name>,
    /// The systemd unit whose socket it is (`nginx.service`).
    pub unit: Option<Name>,
    /// The container whose socket it is (the runtime's id, first 12 characters).
    pub container: Option<Name>,
    /// The executable whose socket it is (file name), where neither unit nor container says more.
    pub executable: Option<Name>,
    /// The Kubernetes namespace, for pods and services.
    pub namespace: Option<Name>,
    /// The pod's name.
    pub pod: Option<Name>,
    /// The service's name, for [`EndpointKind::Service`].
    pub service: Option<Name>,
    /// The kind of the top of the owner chain (`Deployment`).
    pub workload_kind: Option<Name>,
    /// Its name.
    pub workload_name: Option<Name>,
    /// The node it is on, for pods; its own name, for nodes.
    pub node: Option<Name>,
    /// The availability zone.
    pub zone: Option<Name>,
    /// The region.
    pub region: Option<Name>,
    /// The application, as the pod's labels call it.
    pub app: Option<Name>,
    /// Chosen labels: `key=value,key=value`, by key.
    pub labels: Option<Name>,
    /// The cloud whose address it is.
    pub cloud: Option<Name>,
    /// The cloud's service whose address it is.
    pub cloud_service: Option<Name>,
    /// The operator's name for the range its address lies in.
    pub range: Option<Name>,
    /// What told whose it is.
    pub resolution: Option<Resolution>,
    /// Why it could not be named further, where it could not.
    pub unresolved: Option<Unresolved>,
}

impl Hash for Endpoint {
    /// By what tells endpoints apart; their texts would cost more than a comparison now and then.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kind, self.address, self.resolution, self.unresolved).hash(state);
        // The sockets of one machine share its address.
        (&self.unit, &self.container, &self.executable).hash(state);
    }
}

impl Endpoint {
    /// An endpoint of which nothing but its kind and address is known.
    pub fn bare(kind: EndpointKind, address: IpAddr) -> Self {
        Self {
            kind,
            address,
            host: None,
            unit: None,
            container: None,
            executable: None,
            namespace: None,
            pod: None,
            service: None,
            workload_kind: None,
            workload_name: None,
            node: None,
            zone: None,
            region: None,
            app: None,
            labels: None,
            cloud: None,
            cloud_service: None,
            range: None,
            resolution: None,
            unresolved: None,
        }
    }

    /// The same, with empty names absent: an empty name is no name.
    #[must_use]
    pub fn without_empty_names(self: &Arc<Self>) -> Arc<Self> {
        let is_empty = |name: &Option<Name>| name.as_deref() == Some("");
        if !self.names().into_iter().any(is_empty) {
            return Arc::clone(self);
        }
        let mut endpoint = Self::clone(self);
        for name in endpoint.names_mut() {
            name.take_if(|name| name.is_empty());
        }
        Arc::new(endpoint)
    }

    fn names(&self) -> [&Option<Name>; 17] {
        [
            &self.host,
            &self.unit,
            &self.container,
            &self.executable,
            &self.namespace,
            &self.pod,
            &self.service,
            &self.workload_kind,
            &self.workload_name,
            &self.node,
            &self.zone,
            &self.region,
            &self.app,
            &self.labels,
            &self.cloud,
            &self.cloud_service,
            &self.range,
        ]
    }

    fn names_mut(&mut self) -> [&mut Option<Name>; 17] {
        [
            &mut self.host,
            &mut self.unit,
            &mut self.container,
            &mut self.executable,
            &mut self.namespace,
            &mut self.pod,
            &mut self.service,
            &mut self.workload_kind,
            &mut self.workload_name,
            &mut self.node,
            &mut self.zone,
            &mut self.region,
            &mut self.app,
            &mut self.labels,
            &mut self.cloud,
            &mut self.cloud_service,
            &mut self.range,
        ]
    }

    /// The most specific name: the pod, service or node; the unit, container or executable, else
    /// the host; the operator's range; else the address.
    pub fn name(&self) -> String {
        let of_kind = match self.kind {
            EndpointKind::Pod => &self.pod,
            EndpointKind::Service => &self.service,
            EndpointKind::Node => &self.node,
            _ => &None,
        };
        [of_kind, &self.unit, &self.container, &self.executable, &self.host, &self.range]
            .into_iter()
            .find_map(|name| name.as_deref().map(str::to_owned))
            .unwrap_or_else(|| self.address.to_string())
    }

    /// The stable entity id shared by every answer: `pod/NAMESPACE/NAME`, `service/NAMESPACE/NAME`,
    /// `node/NAME`, `host/NAME`, `host/NAME/UNIT`, `local/ADDRESS`, `external/ADDRESS`,
    /// `external/RANGE`.
    pub fn id(&self) -> String {
        match self.kind {
            EndpointKind::Pod => namespaced("pod", self.namespace.as_ref(), self.pod.as_ref()),
            EndpointKind::Service => {
                namespaced("service", self.namespace.as_ref(), self.service.as_ref())
            }
            EndpointKind::Node => self.node.as_ref().map(|node| format!("node/{node}")),
            EndpointKind::Host => self.host.as_ref().map(|host| {
                let part = [&self.unit, &self.container, &self.executable];
                match part.into_iter().find_map(Option::as_deref) {
                    Some(part) => format!("host/{host}/{part}"),
                    None => format!("host/{host}"),
                }
            }),
            EndpointKind::External => self.range.as_ref().map(|range| format!("external/{range}")),
            EndpointKind::Unknown | EndpointKind::Local => None,
        }
        .unwrap_or_else(|| format!("{}/{}", self.kind.name(), self.address))
    }

    /// The workload: `NAMESPACE/KIND/NAME`.
    pub fn workload(&self) -> Option<String> {
        let (namespace, kind) = (self.namespace.as_ref()?, self.workload_kind.as_ref()?);
        Some(format!("{namespace}/{kind}/{}", self.workload_name.as_ref()?))
    }

    /// The id of the workload where there is one (`workload/NAMESPACE/KIND/NAME`), else its own.
    pub fn owner_id(&self) -> String {
        self.workload().map_or_else(|| self.id(), |workload| format!("workload/{workload}"))
    }

    /// The text of a field that is text; `None` where it is absent, or no text.
    pub fn text(&self, field: EndpointField) -> Option<Cow<'_, str>> {
        let text = match field {
            EndpointField::Id => return Some(self.id().into()),
            EndpointField::OwnerId => return Some(self.owner_id().into()),
            EndpointField::Name => return Some(self.name().into()),
            EndpointField::Workload => return self.workload().map(Cow::from),
            EndpointField::Kind
            | EndpointField::Address
            | EndpointField::Resolution
            | EndpointField::Unresolved => return None,
            EndpointField::Host => &self.host,
            EndpointField::Unit => &self.unit,
            EndpointField::Container => &self.container,
            EndpointField::Executable => &self.executable,
            EndpointField::Namespace => &self.namespace,
            EndpointField::Pod => &self.pod,
            EndpointField::Service => &self.service,
            EndpointField::Node => &self.node,
            EndpointField::Zone => &self.zone,
            EndpointField::Region => &self.region,
            EndpointField::App => &self.app,
            EndpointField::Labels => &self.labels,
            EndpointField::Cloud => &self.cloud,
            EndpointField::CloudService => &self.cloud_service,
            EndpointField::Range => &self.range,
        };
        text.as_deref().map(Cow::from)
    }
}

fn namespaced(kind: &str, namespace: Option<&Name>, name: Option<&Name>) -> Option<String> {
    Some(format!("{kind}/{}/{}", namespace?, name?))
}

/// What an endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointKind {
    /// Nobody could say.
    #[default]
    Unknown,
    /// A socket or an address of the observing machine itself.
    Host,
    /// A neighbour on one of its directly connected networks: a pod, a container, a machine.
    Local,
    /// Everything beyond.
    External,
    /// A Kubernetes pod with an address of its own.
    Pod,
    /// A Kubernetes node: its own processes and pods on its network.
    Node,
    /// A Kubernetes service address behind which no backend is known.
    Service,
}

impl EndpointKind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Host,
        Self::Local,
        Self::External,
        Self::Pod,
        Self::Node,
        Self::Service,
    ];

    /// The stable code used in stores.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The stable lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Host => "host",
            Self::Local => "local",
            Self::External => "external",
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Service => "service",
        }
    }

    /// The kind with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text)
    }
}

impl fmt::Display for EndpointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why an endpoint could not be named further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unresolved {
    /// The socket was gone before anybody could ask whose it was.
    SocketGone,
    /// The socket belongs to a process this user may not look into.
    NotPermitted,
    /// The kernel itself answers here (ICMP, or a protocol without sockets).
    NoSocket,
    /// An address inside the cluster that nobody is known to have had then.
    NotInDirectory,
    /// More than one may have had the address then.
    Ambiguous,
    /// The directory could not be asked, or was not complete yet.
    DirectoryUnavailable,
}

impl Unresolved {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::SocketGone,
        Self::NotPermitted,
        Self::NoSocket,
        Self::NotInDirectory,
        Self::Ambiguous,
        Self::DirectoryUnavailable,
    ];

    /// The stable code used in stores.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SocketGone => "socket_gone",
            Self::NotPermitted => "not_permitted",
            Self::NoSocket => "no_socket",
            Self::NotInDirectory => "not_in_directory",
            Self::Ambiguous => "ambiguous",
            Self::DirectoryUnavailable => "directory_unavailable",
        }
    }
}

/// What told whose an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resolution {
    /// The directory: the Kubernetes API said who had the address then.
    Directory,
    /// The directory, narrowed by what the node's agent saw of the address.
    LocalFacts,
    /// It is an address of a node.
    NodeAddress,
    /// The network it lies in belongs to a node's pods; which pod is not known.
    PodNetwork,
    /// It is a service's address.
    ServiceAddress,
    /// A cloud's published ranges.
    CloudRange,
    /// A range the operator defined.
    OperatorRange,
    /// A node that asks a pod on itself at one of the pod's probe ports.
    KubeletProbe,
}

impl Resolution {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Directory,
        Self::LocalFacts,
        Self::NodeAddress,
        Self::PodNetwork,
        Self::ServiceAddress,
        Self::CloudRange,
        Self::OperatorRange,
        Self::KubeletProbe,
    ];

    /// The stable code used in stores.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The resolution with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::LocalFacts => "local_facts",
            Self::NodeAddress => "node_address",
            Self::PodNetwork => "pod_network",
            Self::ServiceAddress => "service_address",
            Self::CloudRange => "cloud_range",
            Self::OperatorRange => "operator_range",
            Self::KubeletProbe => "kubelet_probe",
        }
    }
}
