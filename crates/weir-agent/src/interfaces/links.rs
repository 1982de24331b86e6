//! Interfaces and their 64-bit counters, over rtnetlink: `/proc/net/dev` has neither link type,
//! kind nor master. Layouts are from `include/uapi/linux/{rtnetlink,if_link}.h`.

use weir_conntrack::netlink::{Attribute, Message, Request, Socket, attributes};
use weir_conntrack::{Error, Malformed};

use super::MAX_INTERFACES;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_INFO_KIND: u16 = 1;

/// `ARPHRD_ETHER` of `include/uapi/linux/if_arp.h`.
const ETHERNET: u16 = 1;
/// `ARPHRD_LOOPBACK`.
const LOOPBACK: u16 = 772;
/// Bytes of an Ethernet header, without VLAN tag and check sequence.
const ETHERNET_HEADER: u64 = 14;
/// Kinds that stand on other interfaces of the same namespace, whose counters have the same
/// packets. Tunnels are not among them: there the IP stack receives both, outer and inner packet.
const STACKED: [&str; 12] = [
    "bridge", "bond", "team", "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "vrf", "macsec",
    "ifb", "dummy",
];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// `ifi_type`, an `ARPHRD_` number.
    pub(super) hardware: u16,
    /// The bridge, bond or other that it is a port of.
    pub(super) master: Option<u32>,
    /// What `ip -details link` names it; empty for physical ones.
    pub(super) kind: String,
    pub(super) counters: LinkCounters,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkCounters {
    pub(super) received_packets: u64,
    pub(super) sent_packets: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
}

impl LinkCounters {
    pub(super) fn since(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            received_packets: self.received_packets.checked_sub(earlier.received_packets)?,
            sent_packets: self.sent_packets.checked_sub(earlier.sent_packets)?,
            received_bytes: self.received_bytes.checked_sub(earlier.received_bytes)?,
            sent_bytes: self.sent_bytes.checked_sub(earlier.sent_bytes)?,
        })
    }
}

impl Link {
    pub(super) fn is_loopback(&self) -> bool {
        self.hardware == LOOPBACK
    }

    pub(super) fn is_bridge(&self) -> bool {
        self.kind == "bridge"
    }

    /// True when another interface's counters have the same packets.
    pub(super) fn is_stacked(&self) -> bool {
        STACKED.contains(&self.kind.as_str())
    }

    /// Bytes received without link headers. A bridge counts what it passes up without them.
    pub(super) fn received_l3(&self) -> u64 {
        let header =
            if self.hardware == ETHERNET && !self.is_bridge() { ETHERNET_HEADER } else { 0 };
        let headers = self.counters.received_packets.saturating_mul(header);
        self.counters.received_bytes.saturating_sub(headers)
    }

    /// Everything in and out, link headers included.
    pub(super) fn moved(&self) -> u64 {
        self.counters.received_bytes.saturating_add(self.counters.sent_bytes)
    }
}

/// All interfaces sorted by index, and how many could not be read.
pub(super) fn read(socket: &Socket, buffer: &mut [u8]) -> Result<(Vec<Link>, u64), Error> {
    let mut links: Vec<Link> = Vec::new();
    let mut unread = 0;
    let request = Request::new(RTM_GETLINK, Request::DUMP, &[0; LINK_HEADER]);
    socket.ask(&request, "read the interfaces' counters", buffer, |message| {
        match parse(message) {
            Ok(Some(link)) if links.len() < MAX_INTERFACES => links.push(link),
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => unread += 1,
        }
    })?;
    links.sort_by_key(|link| link.index);
    // A dump that was disturbed may show one twice.
    links.dedup_by_key(|link| link.index);
    Ok((links, unread))
}

fn parse(message: &Message<'_>) -> Result<Option<Link>, Malformed> {
    if message.kind != RTM_NEWLINK {
        return Ok(None);
    }
    let Some((header, rest)) = message.payload.split_first_chunk::<LINK_HEADER>() else {
        return Err(Malformed::Missing("interface header"));
    };
    let [_, _, t0, t1, i0, i1, i2, i3, ..] = *header;
    let mut link = Link {
        index: u32::from_ne_bytes([i0, i1, i2, i3]),
        hardware: u16::from_ne_bytes([t0, t1]),
        ..Link::default()
    };
    let mut counters = None;
    for attribute in attributes(rest) {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_IFNAME => attribute.text().unwrap_or("?").clone_into(&mut link.name),
            IFLA_MASTER => link.master = Some(attribute.u32()?),
            IFLA_STATS64 => counters = Some(statistics(&attribute)?),
            IFLA_LINKINFO => {
                for part in attribute.nested()? {
                    let part = part?;
                    if part.kind == IFLA_INFO_KIND {
                        part.text().unwrap_or_default().clone_into(&mut link.kind);
                    }
                }
            }
            _ => {}
        }
    }
    link.counters = counters.ok_or(Malformed::Missing("statistics"))?;
    Ok(Some(link))
}

/// The first four numbers of `struct rtnl_link_stats64`.
fn statistics(attribute: &Attribute<'_>) -> Result<LinkCounters, Malformed> {
    let (kind, found) = (attribute.kind, attribute.payload.len());
    let first = attribute.payload.first_chunk::<32>();
    let first = first.ok_or(Malformed::Size { kind, expected: 32, found })?;
    let mut numbers = [0; 4];
    for (number, bytes) in numbers.iter_mut().zip(first.chunks_exact(8)) {
        *number = u64::from_ne_bytes(bytes.try_into().expect("chunks of eight bytes"));
    }
    let [received_packets, sent_packets, received_bytes, sent_bytes] = numbers;
    Ok(LinkCounters { received_packets, sent_packets, received_bytes, sent_bytes })
}
