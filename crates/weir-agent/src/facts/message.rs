//! What the kernel says of addresses, routes and interfaces.
//!
//! Layouts are from `include/uapi/linux/{rtnetlink,if_addr,if_link}.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_conntrack::Malformed;
use weir_conntrack::netlink::{Message, attributes};

use super::book::{Holder, Key};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;

/// `struct ifinfomsg`.
pub(super) const LINK_HEADER: usize = 16;
/// `struct ifaddrmsg`.
pub(super) const ADDRESS_HEADER: usize = 8;
/// `struct rtmsg`.
pub(super) const ROUTE_HEADER: usize = 12;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: leave the statistics out, most of a link's message.
pub(super) const SKIP_STATS: u32 = 1 << 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTN_UNICAST: u8 = 1;
const TABLE_LOCAL: u32 = 255;
/// `RTM_F_CLONED`: a cached route of a conversation, not one that was set.
const CLONED: u32 = 0x200;

/// Where kube-proxy's IPVS mode puts every service's address, on every node: nobody's own.
const SERVICE_ADDRESSES: &str = "kube-ipvs0";

/// An interface as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) up: bool,
    /// A pod, a container or a virtual machine is at its other end.
    pub(super) leads_inside: bool,
    /// Its addresses are not the node's.
    pub(super) holds_services: bool,
}

pub(super) fn link(message: &Message<'_>) -> Result<Link, Malformed> {
    let (header, rest) = split::<LINK_HEADER>(message, "interface")?;
    let [_, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = header;
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    let up = flags & libc::IFF_UP.unsigned_abs() != 0;
    let index = u32::from_ne_bytes([i0, i1, i2, i3]);
    let mut link = Link { index, up, leads_inside: false, holds_services: false };
    for attribute in attributes(rest) {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_IFNAME => link.holds_services = attribute.text() == Some(SERVICE_ADDRESSES),
            IFLA_LINKINFO => {
                for info in attribute.nested()? {
                    let info = info?;
                    if info.kind == IFLA_INFO_KIND {
                        // "tun" is also the kind of tap devices, which lead to virtual machines.
                        let inside = ["veth", "netkit", "tun", "macvtap"];
                        link.leads_inside = info.text().is_some_and(|kind| inside.contains(&kind));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(link)
}

/// An address of the node itself; `None` for one that says nothing: loopback, link-local.
pub(super) fn address(message: &Message<'_>) -> Result<Option<(Key, Holder)>, Malformed> {
    let (header, rest) = split::<ADDRESS_HEADER>(message, "interface address")?;
    let [family, _, _, _, i0, i1, i2, i3] = header;
    let (mut local, mut remote) = (None, None);
    for attribute in attributes(rest) {
        let attribute = attribute?;
        match attribute.kind {
            IFA_LOCAL => local = ip(family, attribute.payload),
            IFA_ADDRESS => remote = ip(family, attribute.payload),
            _ => {}
        }
    }
    let holder = Holder { interface: u32::from_ne_bytes([i0, i1, i2, i3]), table: 0 };
    // On a point-to-point link the other attribute is the other side's.
    let address = local.or(remote).filter(|address| is_telling(*address));
    Ok(address.map(|address| (Key { address, own: true }, holder)))
}

/// An address with a route of its own by an interface of this node; `None` for other routes.
pub(super) fn host_route(message: &Message<'_>) -> Result<Option<(Key, Holder)>, Malformed> {
    let (header, rest) = split::<ROUTE_HEADER>(message, "route")?;
    let [family, bits, _, _, table, _, _, kind, f0, f1, f2, f3] = header;
    let whole = match i32::from(family) {
        libc::AF_INET => 32,
        libc::AF_INET6 => 128,
        _ => return Ok(None),
    };
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    if bits != whole || kind != RTN_UNICAST || flags & CLONED != 0 {
        return Ok(None);
    }
    let (mut destination, mut interface, mut table) = (None, None, u32::from(table));
    for attribute in attributes(rest) {
        let attribute = attribute?;
        match attribute.kind {
            RTA_DST => destination = ip(family, attribute.payload),
            RTA_OIF => interface = Some(attribute.u32()?),
            RTA_TABLE => table = attribute.u32()?,
            // It leads on to another node.
            RTA_GATEWAY | RTA_VIA | RTA_MULTIPATH => return Ok(None),
            _ => {}
        }
    }
    let (Some(address), Some(interface)) = (destination, interface) else { return Ok(None) };
    if table == TABLE_LOCAL || !is_telling(address) {
        return Ok(None);
    }
    Ok(Some((Key { address, own: false }, Holder { interface, table })))
}

fn split<'a, const N: usize>(
    message: &Message<'a>,
    header: &'static str,
) -> Result<([u8; N], &'a [u8]), Malformed> {
    let available = message.payload.len();
    let split = message.payload.split_first_chunk::<N>();
    split.map(|(bytes, rest)| (*bytes, rest)).ok_or(Malformed::HeaderCut { header, available })
}

fn ip(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// False for addresses that mean something else on every node.
fn is_telling(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..160)) {
            let message = Message { kind: 0, flags: 0, sequence: 0, port: 0, payload: &payload };
            prop_assert!(link(&message).is_err() || payload.len() >= LINK_HEADER);
            prop_assert!(address(&message).is_err() || payload.len() >= ADDRESS_HEADER);
            prop_assert!(host_route(&message).is_err() || payload.len() >= ROUTE_HEADER);
        }
    }
}
