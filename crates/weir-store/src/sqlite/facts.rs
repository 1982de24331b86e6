//! What a fact is keyed by, and its sums as numbers of the database.

use std::net::IpAddr;

use weir_flow::Class;
use weir_flow::endpoint::Endpoint;
use weir_flow::fold::FlowKey;
use weir_flow::tuple::Protocol;

/// Everything of a flow key but its window, as ids of dictionary rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct EdgeKey {
    pub(super) source: i64,
    pub(super) destination: i64,
    /// 0: none.
    pub(super) service: i64,
    pub(super) node: i64,
    pub(super) destination_port: u16,
    pub(super) protocol: u8,
    pub(super) class: u8,
}

/// What totals are kept by, packed into one number: node, class, protocol, IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TotalKey(pub(super) i64);

impl TotalKey {
    pub(super) fn new(node: i64, key: &FlowKey, ip_version: u8) -> Self {
        Self(
            node << 24
                | i64::from(key.class.code()) << 16
                | i64::from(key.protocol.0) << 8
                | i64::from(ip_version),
        )
    }

    pub(super) fn node(self) -> i64 {
        self.0 >> 24
    }

    pub(super) fn class(self) -> Class {
        class_of(self.0 >> 16 & 0xff)
    }

    pub(super) fn protocol(self) -> Protocol {
        protocol_of(self.0 >> 8 & 0xff)
    }

    pub(super) fn ip_version(self) -> u8 {
        u8::try_from(self.0 & 0xff).expect("masked to 8 bits")
    }
}

/// A class as it is stored; what a later weir wrote is unknown here.
pub(super) fn class_of(code: i64) -> Class {
    u8::try_from(code).ok().and_then(Class::from_code).unwrap_or_default()
}

/// A protocol as it is stored.
pub(super) fn protocol_of(number: i64) -> Protocol {
    Protocol(u8::try_from(number).unwrap_or_default())
}

/// The IP version of a flow is its source's.
pub(super) fn ip_version(source: &Endpoint) -> u8 {
    if source.address.is_ipv4() { 4 } else { 6 }
}

/// An address as it is stored: 4 or 16 bytes, so that prefixes are ranges of one length.
pub(super) fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An address from what is stored.
pub(super) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// A sum as the database has it: at most `i64::MAX`.
pub(super) fn stored(sum: u64) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}
