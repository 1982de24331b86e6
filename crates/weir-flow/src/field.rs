//! The fields that filters test and queries group by: one list for every surface.

use std::fmt;

/// A side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Who opened the connection.
    Source,
    /// The real backend.
    Destination,
}

/// What can be asked about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointField {
    /// The stable entity id ([`crate::Endpoint::id`]).
    Id,
    /// The most specific name ([`crate::Endpoint::name`]).
    Name,
    /// [`crate::EndpointKind`].
    Kind,
    /// The IP address; filters also take a prefix (`10.0.0.0/8`).
    Address,
    /// The machine's name.
    Host,
    /// The systemd unit.
    Unit,
    /// The container id.
    Container,
    /// The executable's file name.
    Executable,
    /// The Kubernetes namespace.
    Namespace,
    /// The pod's name.
    Pod,
    /// The service's name, where the endpoint is a service's address without a known backend.
    Service,
    /// The top of the owner chain: `NAMESPACE/KIND/NAME`.
    Workload,
    /// The workload's id where there is one, else the endpoint's own
    /// ([`crate::Endpoint::owner_id`]).
    OwnerId,
    /// The node it is on.
    Node,
    /// The availability zone.
    Zone,
    /// The region.
    Region,
    /// The application, as the pod's labels call it.
    App,
    /// Chosen labels: `key=value,key=value`.
    Labels,
    /// The cloud whose address it is.
    Cloud,
    /// The cloud's service whose address it is.
    CloudService,
    /// The operator's name for its range.
    Range,
    /// What told whose it is ([`crate::endpoint::Resolution`]).
    Resolution,
    /// Why it could not be named further.
    Unresolved,
}

impl EndpointField {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 23] = [
        Self::Id,
        Self::Name,
        Self::Kind,
        Self::Address,
        Self::Host,
        Self::Unit,
        Self::Container,
        Self::Executable,
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::Workload,
        Self::OwnerId,
        Self::Node,
        Self::Zone,
        Self::Region,
        Self::App,
        Self::Labels,
        Self::Cloud,
        Self::CloudService,
        Self::Range,
        Self::Resolution,
        Self::Unresolved,
    ];

    /// The word after `source.` or `destination.`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::Kind => "kind",
            Self::Address => "address",
            Self::Host => "host",
            Self::Unit => "unit",
            Self::Container => "container",
            Self::Executable => "executable",
            Self::Namespace => "namespace",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Workload => "workload",
            Self::OwnerId => "owner_id",
            Self::Node => "node",
            Self::Zone => "zone",
            Self::Region => "region",
            Self::App => "app",
            Self::Labels => "labels",
            Self::Cloud => "cloud",
            Self::CloudService => "cloud_service",
            Self::Range => "range",
            Self::Resolution => "resolution",
            Self::Unresolved => "unresolved",
        }
    }
}

/// A field of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// `source.…` or `destination.…`.
    Endpoint(Side, EndpointField),
    /// `destination.port` (ICMP: type and code).
    DestinationPort,
    /// `protocol`.
    Protocol,
    /// `service`: the virtual address dialled, as `ADDRESS:PORT`; empty where there is none.
    Service,
    /// `service.name`: the Kubernetes service dialled, as `NAMESPACE/NAME`; empty where there is
    /// none.
    ServiceName,
    /// `class`: [`crate::Class`].
    Class,
    /// `node`: where it was observed.
    Node,
    /// `ip_version`: 4 or 6.
    IpVersion,
}

impl Field {
    /// All fields, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        let sides = [Side::Source, Side::Destination].into_iter();
        sides
            .flat_map(|side| EndpointField::ALL.into_iter().map(move |f| Self::Endpoint(side, f)))
            .chain([
                Self::DestinationPort,
                Self::Protocol,
                Self::Service,
                Self::ServiceName,
                Self::Class,
                Self::Node,
                Self::IpVersion,
            ])
    }

    /// The field with this full name (`source.unit`, `destination.port`, `class`).
    pub fn parse(text: &str) -> Option<Self> {
        Self::all().find(|field| field.to_string() == text)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(Side::Source, field) => write!(f, "source.{}", field.name()),
            Self::Endpoint(Side::Destination, field) => write!(f, "destination.{}", field.name()),
            Self::DestinationPort => f.write_str("destination.port"),
            Self::Protocol => f.write_str("protocol"),
            Self::Service => f.write_str("service"),
            Self::ServiceName => f.write_str("service.name"),
            Self::Class => f.write_str("class"),
            Self::Node => f.write_str("node"),
            Self::IpVersion => f.write_str("ip_version"),
        }
    }
}
