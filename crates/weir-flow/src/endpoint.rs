//! One side of a flow: an address and what it was attributed to.

use std::fmt;
use std::net::IpAddr;

/// One side of a flow. Equal endpoints are one row of a table, so nothing ephemeral is kept here:
/// no port, no process id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// What it is.
    pub kind: EndpointKind,
    /// The address its packets bear.
    pub address: IpAddr,
    /// The machine it is on, for [`EndpointKind::Host`].
    pub host: Option<Box<str>>,
    /// The systemd unit whose socket it is (`nginx.service`).
    pub unit: Option<Box<str>>,
    /// The container whose socket it is (the runtime's id, first 12 characters).
    pub container: Option<Box<str>>,
    /// The executable whose socket it is (file name), where neither unit nor container says more.
    pub executable: Option<Box<str>>,
    /// Why it could not be named further, where it could not.
    pub unresolved: Option<Unresolved>,
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
            unresolved: None,
        }
    }

    /// The most specific name: the unit, container or executable, else the host, else the address.
    pub fn name(&self) -> String {
        [&self.unit, &self.container, &self.executable, &self.host]
            .into_iter()
            .find_map(|name| name.as_deref().map(str::to_owned))
            .unwrap_or_else(|| self.address.to_string())
    }

    /// The stable entity id shared by every answer: `host/NAME`, `host/NAME/UNIT`,
    /// `local/ADDRESS`, `external/ADDRESS`.
    pub fn id(&self) -> String {
        match (self.kind, &self.host) {
            (EndpointKind::Host, Some(host)) => {
                let part = [&self.unit, &self.container, &self.executable];
                match part.into_iter().find_map(Option::as_deref) {
                    Some(part) => format!("host/{host}/{part}"),
                    None => format!("host/{host}"),
                }
            }
            (kind, _) => format!("{}/{}", kind.name(), self.address),
        }
    }
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
}

impl EndpointKind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Host, Self::Local, Self::External];

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
}

impl Unresolved {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::SocketGone, Self::NotPermitted, Self::NoSocket];

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
        }
    }
}
