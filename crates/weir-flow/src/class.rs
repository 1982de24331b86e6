//! The traffic class of a flow.

use std::fmt;
use std::net::IpAddr;

use crate::endpoint::{Endpoint, EndpointKind};

/// How far the bytes travelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Not known.
    #[default]
    Unknown,
    /// Both ends on the observing machine.
    SameNode,
    /// A private address that is not attributable further.
    IntraVpc,
    /// A public address.
    Internet,
    /// Between nodes of one availability zone.
    SameZone,
    /// Between nodes of two availability zones.
    CrossZone,
    /// An address of the own cloud in the own region.
    IntraRegion,
    /// An address of the own cloud in another region.
    InterRegion,
    /// The inside of a tunnel between nodes, whose bytes are counted once more inside it.
    Transport,
}

impl Class {
    /// All classes, in the order of their codes.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::SameNode,
        Self::IntraVpc,
        Self::Internet,
        Self::SameZone,
        Self::CrossZone,
        Self::IntraRegion,
        Self::InterRegion,
        Self::Transport,
    ];

    /// The stable code used in stores.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The class with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::SameNode => "same_node",
            Self::IntraVpc => "intra_vpc",
            Self::Internet => "internet",
            Self::SameZone => "same_zone",
            Self::CrossZone => "cross_zone",
            Self::IntraRegion => "intra_region",
            Self::InterRegion => "inter_region",
            Self::Transport => "transport",
        }
    }

    /// The class with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == text)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How far the bytes between these two travelled, as far as one machine can tell.
///
/// An end on the observing machine ([`EndpointKind::Host`], [`EndpointKind::Local`], or a loopback
/// address) is internal whatever its address looks like. A public address at either end makes it
/// `internet`; else a private one makes it `intra_vpc`; else both ends are known to be here, or
/// nothing is known.
pub fn classify(source: &Endpoint, destination: &Endpoint) -> Class {
    let ends = [reach(source), reach(destination)];
    if ends.contains(&Reach::Public) {
        Class::Internet
    } else if ends.contains(&Reach::Private) {
        Class::IntraVpc
    } else if ends == [Reach::Here, Reach::Here] {
        Class::SameNode
    } else {
        Class::Unknown
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Here,
    Private,
    Public,
    Unknown,
}

fn reach(endpoint: &Endpoint) -> Reach {
    let address = endpoint.address.to_canonical();
    match endpoint.kind {
        EndpointKind::Host
        | EndpointKind::Local
        | EndpointKind::Pod
        | EndpointKind::Node
        | EndpointKind::Service => Reach::Here,
        _ if address.is_loopback() => Reach::Here,
        _ if address.is_unspecified() => Reach::Unknown,
        EndpointKind::Unknown => Reach::Unknown,
        EndpointKind::External if is_private(address) => Reach::Private,
        EndpointKind::External => Reach::Public,
    }
}

/// Addresses that do not cross the public internet: RFC 1918, RFC 6598 (carrier-grade NAT, used
/// inside clouds), link-local, unique local, and multicast and broadcast, which no provider routes.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> Endpoint {
        let (kind, address) = text.split_once(' ').unwrap();
        Endpoint::bare(EndpointKind::parse(kind).unwrap(), address.parse().unwrap())
    }

    #[test]
    fn the_farther_end_decides() {
        for (one, other, class) in [
            ("host 10.0.0.1", "host 127.0.0.1", Class::SameNode),
            ("host 10.0.0.1", "local 172.17.0.2", Class::SameNode),
            // A public address of this machine is still this machine.
            ("host 1.1.1.1", "local 172.17.0.2", Class::SameNode),
            ("unknown 127.0.0.1", "external ::1", Class::SameNode),
            ("external ::ffff:127.0.0.1", "host 10.0.0.1", Class::SameNode),
            ("host 10.0.0.1", "external 10.0.0.2", Class::IntraVpc),
            ("host 10.0.0.1", "external 172.31.0.2", Class::IntraVpc),
            ("host 10.0.0.1", "external 172.32.0.2", Class::Internet),
            ("host 10.0.0.1", "external 192.168.1.1", Class::IntraVpc),
            ("host 10.0.0.1", "external 169.254.169.254", Class::IntraVpc),
            ("host 10.0.0.1", "external 100.64.0.1", Class::IntraVpc),
            ("host 10.0.0.1", "external 100.127.255.255", Class::IntraVpc),
            ("host 10.0.0.1", "external 100.128.0.0", Class::Internet),
            ("host 10.0.0.1", "external 100.63.255.255", Class::Internet),
            ("host 10.0.0.1", "external 224.0.0.251", Class::IntraVpc),
            ("host 10.0.0.1", "external 255.255.255.255", Class::IntraVpc),
            ("host 10.0.0.1", "external 203.0.113.9", Class::Internet),
            ("host 10.0.0.1", "external 8.8.8.8", Class::Internet),
            ("host fd00::1", "external fd12::1", Class::IntraVpc),
            ("host fd00::1", "external fe80::1", Class::IntraVpc),
            ("host fd00::1", "external ff02::fb", Class::IntraVpc),
            ("host fd00::1", "external 2606:4700::1111", Class::Internet),
            ("host fd00::1", "external ::ffff:10.0.0.1", Class::IntraVpc),
            ("host fd00::1", "external ::ffff:8.8.8.8", Class::Internet),
            ("external 10.0.0.1", "external 10.0.0.2", Class::IntraVpc),
            ("external 10.0.0.1", "external 8.8.8.8", Class::Internet),
            ("unknown 10.0.0.1", "external 8.8.8.8", Class::Internet),
            ("unknown 8.8.8.8", "host 10.0.0.1", Class::Unknown),
            ("unknown 10.0.0.1", "unknown 10.0.0.2", Class::Unknown),
            ("external 0.0.0.0", "host 10.0.0.1", Class::Unknown),
        ] {
            assert_eq!(classify(&end(one), &end(other)), class, "{one} to {other}");
            assert_eq!(classify(&end(other), &end(one)), class, "{other} to {one}");
        }
    }
}
