//! Protocol, addresses and ports of one direction of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// An IP protocol number, as assigned by IANA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

/// Names for the protocols a reader of flows expects to meet; all others print as a number.
const NAMES: &[(u8, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipip"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "icmpv6"),
    (89, "ospf"),
    (112, "vrrp"),
    (132, "sctp"),
    (136, "udplite"),
];

impl Protocol {
    /// Internet Control Message Protocol for IPv4.
    pub const ICMP: Self = Self(1);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// Internet Control Message Protocol for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Self = Self(132);

    /// The protocol's lower-case name, where it has one here.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(number, _)| *number == self.0).map(|(_, name)| *name)
    }

    /// Reads a name (`tcp`) or a number (`6`).
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        NAMES
            .iter()
            .find(|(_, name)| *name == lower)
            .map(|(number, _)| Self(*number))
            .or_else(|| lower.parse().ok().map(Self))
    }

    /// All names that [`Protocol::parse`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, name)| *name)
    }

    /// True for protocols whose packets bear ports.
    pub fn has_ports(self) -> bool {
        // TCP, UDP, DCCP, SCTP, UDP-Lite.
        matches!(self.0, 6 | 17 | 33 | 132 | 136)
    }

    /// True for the protocols whose "ports" are an ICMP identifier, type and code.
    pub fn is_icmp(self) -> bool {
        self == Self::ICMP || self == Self::ICMPV6
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// One direction of a connection, as the kernel's `CTA_TUPLE_ORIG` or `CTA_TUPLE_REPLY` has it.
///
/// For ICMP and ICMPv6 `source_port` is the identifier and `destination_port` is
/// `type << 8 | code`. Protocols without ports have 0 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// The IP protocol.
    pub protocol: Protocol,
    /// Address the packets of this direction come from.
    pub source: IpAddr,
    /// Address the packets of this direction go to.
    pub destination: IpAddr,
    /// Port they come from.
    pub source_port: u16,
    /// Port they go to.
    pub destination_port: u16,
}

impl Default for Tuple {
    fn default() -> Self {
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            protocol: Protocol::default(),
            source: unspecified,
            destination: unspecified,
            source_port: 0,
            destination_port: 0,
        }
    }
}

impl Tuple {
    /// True when `reply` is this tuple turned round, that is, when nothing was translated.
    ///
    /// ICMP types differ between request and reply, so only addresses decide there.
    pub fn is_mirrored_by(&self, reply: &Self) -> bool {
        self.source == reply.destination
            && self.destination == reply.source
            && (self.protocol.is_icmp()
                || (self.source_port == reply.destination_port
                    && self.destination_port == reply.source_port))
    }
}
