//! This machine's own addresses and the networks behind its virtual interfaces.
//!
//! Layouts are from `include/uapi/linux/{rtnetlink,if_addr,if_link}.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::{HashMap, HashSet};
use weir_conntrack::netlink::{Message, Request, Socket, attributes};
use weir_conntrack::{Error, Malformed};
use weir_flow::WallTime;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: leave the statistics out, most of a link's message.
const SKIP_STATS: u32 = 1 << 3;

/// One address of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    interface: u32,
    own: IpAddr,
    /// The connected network: on a point-to-point link the other side.
    network: IpAddr,
    prefix: u8,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    index: u32,
    /// The bridge or bond that it is a port of.
    master: Option<u32>,
    kind: Option<String>,
}

/// Which addresses are this machine's, and which are its neighbours inside it.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    current: Vec<Address>,
    /// When each own address was last seen.
    own: HashMap<IpAddr, WallTime>,
    /// Networks whose neighbours run on this machine.
    inside: Vec<(IpAddr, u8)>,
    links_read: Option<WallTime>,
}

/// Interfaces are read again after this even when no address changed, for their ports may have.
const LINKS_AGE_NANOS: u64 = 60 * weir_flow::time::SECOND;

impl Addresses {
    /// Reads the addresses; and the interfaces, when that might change anything. An own address
    /// that is gone stays own for `memory_nanos`. Returns the number of unreadable answers.
    pub(super) fn refresh(
        &mut self,
        socket: &Socket,
        buffer: &mut [u8],
        now: WallTime,
        memory_nanos: u64,
    ) -> Result<u64, Error> {
        let mut current = Vec::with_capacity(self.current.len());
        let mut unreadable = 0;
        let request = Request::new(RTM_GETADDR, Request::DUMP, &[0; ADDRESS_HEADER]);
        socket.ask(
            &request,
            "list this machine's addresses",
            buffer,
            |message| match parse_address(message) {
                Ok(address) => current.extend(address),
                Err(_) => unreadable += 1,
            },
        )?;
        for address in &current {
            self.own.insert(address.own, now);
        }
        self.own.retain(|_, seen| seen.0.saturating_add(memory_nanos) >= now.0);
        let recent = self.links_read.is_some_and(|at| now.0.saturating_sub(at.0) < LINKS_AGE_NANOS);
        if current == self.current && recent {
            return Ok(unreadable);
        }
        let mut links = Vec::new();
        let mut request = Request::new(RTM_GETLINK, Request::DUMP, &[0; LINK_HEADER]);
        request.attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        socket.ask(
            &request,
            "list this machine's interfaces",
            buffer,
            |message| match parse_link(message) {
                Ok(link) => links.extend(link),
                Err(_) => unreadable += 1,
            },
        )?;
        self.inside = networks_inside(&current, &links);
        self.current = current;
        self.links_read = Some(now);
        Ok(unreadable)
    }

    /// True for an address of this machine itself.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.own.contains_key(&address)
    }

    /// The addresses of this machine itself, loopback networks aside.
    pub(super) fn own(&self) -> impl Iterator<Item = IpAddr> {
        self.own.keys().copied()
    }

    /// True for an address in a network that lies within this machine.
    pub(super) fn is_inside(&self, address: IpAddr) -> bool {
        self.inside.iter().any(|(network, prefix)| contains(*network, *prefix, address))
    }
}

/// The networks on whose other end are pods, containers and virtual machines of this machine:
/// those of veth pairs, and of bridges that have no port to the outside.
fn networks_inside(addresses: &[Address], links: &[Link]) -> Vec<(IpAddr, u8)> {
    let kind = |link: &Link| link.kind.clone().unwrap_or_default();
    // "tun" is also the kind of tap devices, which connect virtual machines to a bridge.
    let to_outside = |link: &&Link| !matches!(kind(link).as_str(), "veth" | "tun" | "dummy");
    let open: HashSet<u32> =
        links.iter().filter(to_outside).filter_map(|link| link.master).collect();
    let inside: HashSet<u32> = links
        .iter()
        .filter(|link| match kind(link).as_str() {
            "veth" => link.master.is_none(),
            "bridge" => !open.contains(&link.index),
            _ => false,
        })
        .map(|link| link.index)
        .collect();
    addresses
        .iter()
        .filter(|address| inside.contains(&address.interface))
        // Every interface has the same link-local network.
        .filter(|address| !is_link_local(address.network))
        .map(|address| (address.network, address.prefix))
        .collect()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let prefix = u32::from(prefix);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.checked_shr(32 - prefix.min(32)).is_none_or(|bits| bits == 0)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.checked_shr(128 - prefix.min(128)).is_none_or(|bits| bits == 0)
        }
        _ => false,
    }
}

fn parse_address(message: &Message<'_>) -> Result<Option<Address>, Malformed> {
    if message.kind != RTM_NEWADDR {
        return Ok(None);
    }
    let Some((header, rest)) = message.payload.split_first_chunk::<ADDRESS_HEADER>() else {
        let available = message.payload.len();
        return Err(Malformed::HeaderCut { header: "interface address", available });
    };
    let [family, prefix, _, _, interface @ ..] = *header;
    let read = |payload: &[u8]| match i32::from(family) {
        libc::AF_INET => payload.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        libc::AF_INET6 => payload.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    };
    let (mut network, mut own) = (None, None);
    for attribute in attributes(rest) {
        let attribute = attribute?;
        match attribute.kind {
            IFA_ADDRESS => network = read(attribute.payload),
            IFA_LOCAL => own = read(attribute.payload),
            _ => {}
        }
    }
    let interface = u32::from_ne_bytes(interface);
    // IPv6 has no IFA_LOCAL unless the link is point-to-point.
    Ok(own.or(network).zip(network.or(own)).map(|(own, network)| Address {
        interface,
        own,
        network,
        prefix,
    }))
}

fn parse_link(message: &Message<'_>) -> Result<Option<Link>, Malformed> {
    if message.kind != RTM_NEWLINK {
        return Ok(None);
    }
    let Some((header, rest)) = message.payload.split_first_chunk::<LINK_HEADER>() else {
        let available = message.payload.len();
        return Err(Malformed::HeaderCut { header: "interface", available });
    };
    let [_, _, _, _, i0, i1, i2, i3, ..] = *header;
    let mut link = Link { index: u32::from_ne_bytes([i0, i1, i2, i3]), master: None, kind: None };
    for attribute in attributes(rest) {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_MASTER => link.master = Some(attribute.u32()?),
            IFLA_LINKINFO => {
                for info in attribute.nested()? {
                    let info = info?;
                    if info.kind == IFLA_INFO_KIND {
                        link.kind = info.text().map(str::to_owned);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Some(link))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn address(interface: u32, own: &str, prefix: u8) -> Address {
        Address { interface, own: ip(own), network: ip(own), prefix }
    }

    fn link(index: u32, kind: &str, master: Option<u32>) -> Link {
        Link { index, master, kind: (!kind.is_empty()).then(|| kind.to_owned()) }
    }

    #[test]
    fn networks_of_veths_and_closed_bridges_are_inside() {
        let links = [
            link(1, "", None),
            link(2, "", Some(7)),
            link(3, "bridge", None),
            link(4, "veth", Some(3)),
            link(5, "veth", None),
            link(6, "wireguard", None),
            link(7, "bridge", None),
            link(8, "vxlan", Some(9)),
            link(9, "bridge", None),
            link(10, "bridge", None),
        ];
        let addresses = [
            address(1, "192.168.1.5", 24),
            address(3, "172.17.0.1", 16),
            address(3, "fe80::1", 64),
            address(3, "fd00:1::1", 64),
            address(5, "10.0.5.1", 30),
            address(6, "10.8.0.1", 24),
            address(7, "192.168.2.5", 24),
            address(9, "10.9.0.1", 24),
            address(10, "192.168.122.1", 24),
        ];
        let inside: Vec<String> = networks_inside(&addresses, &links)
            .iter()
            .map(|(network, prefix)| format!("{network}/{prefix}"))
            .collect();
        assert_eq!(inside, ["172.17.0.1/16", "fd00:1::1/64", "10.0.5.1/30", "192.168.122.1/24"]);
    }

    #[test]
    fn prefixes_contain() {
        assert!(contains(ip("172.17.0.1"), 16, ip("172.17.255.3")));
        assert!(!contains(ip("172.17.0.1"), 16, ip("172.18.0.1")));
        assert!(contains(ip("172.17.0.1"), 0, ip("8.8.8.8")));
        assert!(contains(ip("172.17.0.1"), 32, ip("172.17.0.1")));
        assert!(!contains(ip("172.17.0.1"), 32, ip("172.17.0.0")));
        assert!(contains(ip("fd00::1"), 64, ip("fd00::ffff")));
        assert!(!contains(ip("fd00::1"), 128, ip("fd00::2")));
        assert!(contains(ip("::"), 0, ip("fd00::2")));
        assert!(!contains(ip("::"), 0, ip("10.0.0.1")));
    }

    #[test]
    fn this_machine_s_addresses_are_its_own() {
        let socket = Socket::open(libc::NETLINK_ROUTE).unwrap();
        let mut addresses = Addresses::default();
        let mut buffer = vec![0; 32 * 1024];
        let now = WallTime(1_000);
        assert_eq!(addresses.refresh(&socket, &mut buffer, now, 10).unwrap(), 0);
        assert!(addresses.is_own(ip("127.0.0.1")) && addresses.is_own(ip("127.9.9.9")));
        // TEST-NET-1's broadcast address is nobody's.
        assert!(!addresses.is_own(ip("192.0.2.255")));
        // An address that went away is still own for a while.
        addresses.own.insert(ip("198.51.100.1"), WallTime(995));
        addresses.refresh(&socket, &mut buffer, WallTime(1_005), 10).unwrap();
        assert!(addresses.is_own(ip("198.51.100.1")));
        addresses.refresh(&socket, &mut buffer, WallTime(1_006), 10).unwrap();
        assert!(!addresses.is_own(ip("198.51.100.1")));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..120)) {
            let message = |kind| Message { kind, flags: 0, sequence: 0, port: 0, payload: &payload };
            let (address, link) =
                (parse_address(&message(RTM_NEWADDR)), parse_link(&message(RTM_NEWLINK)));
            prop_assert!(address.is_err() || payload.len() >= ADDRESS_HEADER);
            prop_assert!(link.is_err() || payload.len() >= LINK_HEADER);
        }
    }
}
