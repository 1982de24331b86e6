//! Conntrack messages: `struct nfgenmsg` and the `CTA_*` attributes, as
//! `include/uapi/linux/netfilter/nfnetlink_conntrack.h` has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_flow::{Counters, Protocol, Sample, Status, TcpState, Totals, Tuple, WallTime};

use crate::netlink::{Attribute, Malformed, Request, attributes};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`: an entry of a dump.
pub const KIND_ENTRY: u16 = 0x100;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`: asks for entries.
pub const KIND_GET: u16 = 0x101;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`: an entry that ended.
pub const KIND_ENDED: u16 = 0x102;

/// The types of attributes, under their kernel names without the prefix `CTA_`.
pub mod kind {
    #![expect(missing_docs, reason = "the kernel header documents them")]
    pub const TUPLE_ORIG: u16 = 1;
    pub const TUPLE_REPLY: u16 = 2;
    pub const STATUS: u16 = 3;
    pub const PROTOINFO: u16 = 4;
    pub const TIMEOUT: u16 = 7;
    pub const MARK: u16 = 8;
    pub const COUNTERS_ORIG: u16 = 9;
    pub const COUNTERS_REPLY: u16 = 10;
    pub const ID: u16 = 12;
    pub const ZONE: u16 = 18;
    pub const TIMESTAMP: u16 = 20;

    // Within a tuple.
    pub const TUPLE_IP: u16 = 1;
    pub const TUPLE_PROTO: u16 = 2;
    pub const TUPLE_ZONE: u16 = 3;

    // Within CTA_TUPLE_IP.
    pub const IP_V4_SRC: u16 = 1;
    pub const IP_V4_DST: u16 = 2;
    pub const IP_V6_SRC: u16 = 3;
    pub const IP_V6_DST: u16 = 4;

    // Within CTA_TUPLE_PROTO.
    pub const PROTO_NUM: u16 = 1;
    pub const PROTO_SRC_PORT: u16 = 2;
    pub const PROTO_DST_PORT: u16 = 3;
    pub const PROTO_ICMP_ID: u16 = 4;
    pub const PROTO_ICMP_TYPE: u16 = 5;
    pub const PROTO_ICMP_CODE: u16 = 6;
    pub const PROTO_ICMPV6_ID: u16 = 7;
    pub const PROTO_ICMPV6_TYPE: u16 = 8;
    pub const PROTO_ICMPV6_CODE: u16 = 9;

    // Within CTA_PROTOINFO, and within CTA_PROTOINFO_TCP.
    pub const PROTOINFO_TCP: u16 = 1;
    pub const TCP_STATE: u16 = 1;
    pub const TCP_FLAGS_ORIGINAL: u16 = 4;
    pub const TCP_FLAGS_REPLY: u16 = 5;

    // Within CTA_COUNTERS_ORIG and CTA_COUNTERS_REPLY.
    pub const COUNTERS_PACKETS: u16 = 1;
    pub const COUNTERS_BYTES: u16 = 2;
    pub const COUNTERS32_PACKETS: u16 = 3;
    pub const COUNTERS32_BYTES: u16 = 4;

    // Within CTA_TIMESTAMP.
    pub const TIMESTAMP_START: u16 = 1;
    pub const TIMESTAMP_STOP: u16 = 2;
}

/// Bytes of `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// The protocols whose tuples have ports. GRE is not among them: what ctnetlink reports in the
/// port attributes of a GRE tuple is half of a call's key.
pub(crate) const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// Reads a conntrack message (what follows the netlink header) into `sample`.
///
/// Attributes and protocols that are not known here are passed over, so that newer kernels can be
/// read. After an error `sample` holds nothing of use.
pub fn decode(payload: &[u8], sample: &mut Sample) -> Result<(), Malformed> {
    *sample = Sample::default();
    let Some(body) = payload.get(NFGENMSG..) else {
        let available = payload.len();
        return Err(Malformed::HeaderCut { header: "netfilter", available });
    };
    let mut zone = None;
    let mut tuple_zone = 0;
    let (mut original, mut reply) = (false, false);
    let (mut sent, mut received) = (None, None);
    for attribute in attributes(body) {
        let attribute = attribute?;
        match attribute.kind {
            kind::TUPLE_ORIG => {
                tuple_zone = tuple(&attribute, &mut sample.original)?;
                original = true;
            }
            kind::TUPLE_REPLY => {
                tuple(&attribute, &mut sample.reply)?;
                reply = true;
            }
            kind::STATUS => sample.status = Status(attribute.be_u32()?),
            kind::PROTOINFO => sample.tcp = protoinfo(&attribute)?,
            kind::MARK => sample.mark = attribute.be_u32()?,
            kind::COUNTERS_ORIG => sent = counters(&attribute)?,
            kind::COUNTERS_REPLY => received = counters(&attribute)?,
            kind::ID => sample.id = attribute.be_u32()?,
            kind::ZONE => zone = Some(attribute.be_u16()?),
            kind::TIMESTAMP => timestamps(&attribute, sample)?,
            _ => {}
        }
    }
    if !original {
        return Err(Malformed::Missing("original tuple"));
    }
    if !reply {
        return Err(Malformed::Missing("reply tuple"));
    }
    sample.zone = zone.unwrap_or(tuple_zone);
    sample.totals = match (sent, received) {
        (Some(sent), Some(received)) => Some(Totals { sent, received }),
        (None, None) => None,
        // The kernel counts both directions or none; half would be taken for zero.
        (Some(_), None) => return Err(Malformed::Missing("reply counters")),
        (None, Some(_)) => return Err(Malformed::Missing("original counters")),
    };
    Ok(())
}

/// Appends a tuple to a request, as `kind` ([`kind::TUPLE_ORIG`] or [`kind::TUPLE_REPLY`]).
pub fn put_tuple(request: &mut Request, kind: u16, tuple: &Tuple) {
    let nest = request.open(kind);
    let addresses = request.open(kind::TUPLE_IP);
    for (address, v4, v6) in [
        (tuple.source, kind::IP_V4_SRC, kind::IP_V6_SRC),
        (tuple.destination, kind::IP_V4_DST, kind::IP_V6_DST),
    ] {
        match address {
            IpAddr::V4(address) => request.attribute(v4, &address.octets()),
            IpAddr::V6(address) => request.attribute(v6, &address.octets()),
        };
    }
    request.close(addresses);
    let protocol = request.open(kind::TUPLE_PROTO);
    request.attribute(kind::PROTO_NUM, &[tuple.protocol.0]);
    let [message_type, code] = tuple.destination_port.to_be_bytes();
    match tuple.protocol {
        Protocol::ICMP => request
            .attribute(kind::PROTO_ICMP_ID, &tuple.source_port.to_be_bytes())
            .attribute(kind::PROTO_ICMP_TYPE, &[message_type])
            .attribute(kind::PROTO_ICMP_CODE, &[code]),
        Protocol::ICMPV6 => request
            .attribute(kind::PROTO_ICMPV6_ID, &tuple.source_port.to_be_bytes())
            .attribute(kind::PROTO_ICMPV6_TYPE, &[message_type])
            .attribute(kind::PROTO_ICMPV6_CODE, &[code]),
        _ => request
            .attribute(kind::PROTO_SRC_PORT, &tuple.source_port.to_be_bytes())
            .attribute(kind::PROTO_DST_PORT, &tuple.destination_port.to_be_bytes()),
    };
    request.close(protocol).close(nest);
}

/// Reads a tuple and returns its zone, 0 where it names none.
#[inline]
fn tuple(attribute: &Attribute<'_>, into: &mut Tuple) -> Result<u16, Malformed> {
    let laid_out = match attribute.payload.len() {
        48 => attribute.payload.first_chunk().and_then(tuple_v4),
        72 => attribute.payload.first_chunk().and_then(tuple_v6),
        _ => None,
    };
    if let Some(tuple) = laid_out {
        *into = tuple;
        return Ok(0);
    }
    walk_tuple(attribute, into)
}

/// The header of an attribute with this many bytes of value.
const fn header(value_bytes: u16, kind: u16) -> [u8; 4] {
    let [l0, l1] = (value_bytes + 4).to_ne_bytes();
    let [k0, k1] = kind.to_ne_bytes();
    [l0, l1, k0, k1]
}

/// The layout that almost every tuple has: addresses, protocol and two ports, in this order.
/// Comparing its headers costs less than walking them, and what differs is walked.
macro_rules! laid_out_tuple {
    ($name:ident, $bytes:literal, $address:literal, $ip:ident, $source:path, $destination:path) => {
        #[inline]
        fn $name(payload: &[u8; $bytes]) -> Option<Tuple> {
            const NEST: u16 = 0x8000;
            const IP: usize = 4;
            const PROTO: usize = IP + 2 * (4 + $address);
            let at = |offset: usize| -> [u8; 4] {
                let mut word = [0; 4];
                word.copy_from_slice(&payload[offset..offset + 4]);
                word
            };
            let known = at(0) == header(2 * (4 + $address), kind::TUPLE_IP | NEST)
                && at(IP) == header($address, $source)
                && at(IP + 4 + $address) == header($address, $destination)
                && at(PROTO) == header(24, kind::TUPLE_PROTO | NEST)
                && at(PROTO + 4) == header(1, kind::PROTO_NUM)
                && at(PROTO + 12) == header(2, kind::PROTO_SRC_PORT)
                && at(PROTO + 20) == header(2, kind::PROTO_DST_PORT);
            let protocol = payload[PROTO + 8];
            if !known || !WITH_PORTS.contains(&protocol) {
                return None;
            }
            let address = |offset: usize| -> IpAddr {
                let mut octets = [0; $address];
                octets.copy_from_slice(&payload[offset..offset + $address]);
                IpAddr::from($ip::from(octets))
            };
            Some(Tuple {
                protocol: Protocol(protocol),
                source: address(IP + 4),
                destination: address(IP + 8 + $address),
                source_port: u16::from_be_bytes([payload[PROTO + 16], payload[PROTO + 17]]),
                destination_port: u16::from_be_bytes([payload[PROTO + 24], payload[PROTO + 25]]),
            })
        }
    };
}

laid_out_tuple!(tuple_v4, 48, 4, Ipv4Addr, kind::IP_V4_SRC, kind::IP_V4_DST);
laid_out_tuple!(tuple_v6, 72, 16, Ipv6Addr, kind::IP_V6_SRC, kind::IP_V6_DST);

/// Reads a tuple attribute by attribute.
fn walk_tuple(attribute: &Attribute<'_>, into: &mut Tuple) -> Result<u16, Malformed> {
    let (mut source, mut destination) = (None, None);
    let mut protocol = None;
    let mut zone = 0;
    for part in attribute.nested()? {
        let part = part?;
        match part.kind {
            kind::TUPLE_IP => {
                for address in part.nested()? {
                    let address = address?;
                    match address.kind {
                        kind::IP_V4_SRC => source = Some(v4(&address)?),
                        kind::IP_V4_DST => destination = Some(v4(&address)?),
                        kind::IP_V6_SRC => source = Some(v6(&address)?),
                        kind::IP_V6_DST => destination = Some(v6(&address)?),
                        _ => {}
                    }
                }
            }
            kind::TUPLE_PROTO => protocol = Some(walk_protocol(&part)?),
            kind::TUPLE_ZONE => zone = part.be_u16()?,
            _ => {}
        }
    }
    let source = source.ok_or(Malformed::Missing("source address"))?;
    let destination = destination.ok_or(Malformed::Missing("destination address"))?;
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(Malformed::MixedFamilies);
    }
    let (protocol, source_port, destination_port) =
        protocol.ok_or(Malformed::Missing("protocol"))?;
    *into = Tuple { protocol, source, destination, source_port, destination_port };
    Ok(zone)
}

/// Reads protocol, source port and destination port (ICMP: identifier, and type and code).
fn walk_protocol(attribute: &Attribute<'_>) -> Result<(Protocol, u16, u16), Malformed> {
    let mut number = None;
    let mut ports = (0, 0);
    let (mut identifier, mut message_type, mut code) = (0, 0, 0);
    for part in attribute.nested()? {
        let part = part?;
        match part.kind {
            kind::PROTO_NUM => number = Some(part.u8()?),
            kind::PROTO_SRC_PORT => ports.0 = part.be_u16()?,
            kind::PROTO_DST_PORT => ports.1 = part.be_u16()?,
            kind::PROTO_ICMP_ID | kind::PROTO_ICMPV6_ID => identifier = part.be_u16()?,
            kind::PROTO_ICMP_TYPE | kind::PROTO_ICMPV6_TYPE => message_type = part.u8()?,
            kind::PROTO_ICMP_CODE | kind::PROTO_ICMPV6_CODE => code = part.u8()?,
            _ => {}
        }
    }
    let number = number.ok_or(Malformed::Missing("protocol number"))?;
    let protocol = Protocol(number);
    Ok(if protocol.is_icmp() {
        (protocol, identifier, u16::from_be_bytes([message_type, code]))
    } else if WITH_PORTS.contains(&number) {
        (protocol, ports.0, ports.1)
    } else {
        (protocol, 0, 0)
    })
}

fn v4(attribute: &Attribute<'_>) -> Result<IpAddr, Malformed> {
    attribute.array::<4>().map(|octets| IpAddr::from(Ipv4Addr::from(octets)))
}

fn v6(attribute: &Attribute<'_>) -> Result<IpAddr, Malformed> {
    attribute.array::<16>().map(|octets| IpAddr::from(Ipv6Addr::from(octets)))
}

/// Reads one direction's counters; `None` where the nest holds neither number.
#[inline]
fn counters(attribute: &Attribute<'_>) -> Result<Option<Counters>, Malformed> {
    let (mut packets, mut bytes) = (None, None);
    for number in attribute.nested()? {
        let number = number?;
        match number.kind {
            kind::COUNTERS_PACKETS => packets = Some(number.be_u64()?),
            kind::COUNTERS_BYTES => bytes = Some(number.be_u64()?),
            kind::COUNTERS32_PACKETS => packets = Some(number.be_u32()?.into()),
            kind::COUNTERS32_BYTES => bytes = Some(number.be_u32()?.into()),
            _ => {}
        }
    }
    match (packets, bytes) {
        (Some(packets), Some(bytes)) => Ok(Some(Counters { packets, bytes })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Malformed::Missing("byte counter")),
        (None, Some(_)) => Err(Malformed::Missing("packet counter")),
    }
}

/// Reads the TCP part; `None` for other protocols' parts.
fn protoinfo(attribute: &Attribute<'_>) -> Result<Option<TcpState>, Malformed> {
    let mut found = None;
    for part in attribute.nested()? {
        let part = part?;
        if part.kind != kind::PROTOINFO_TCP {
            continue;
        }
        let mut tcp = TcpState::default();
        for field in part.nested()? {
            let field = field?;
            match field.kind {
                kind::TCP_STATE => tcp.state = field.u8()?,
                // struct nf_ct_tcp_flags: the flags, then a mask that only requests use.
                kind::TCP_FLAGS_ORIGINAL => [tcp.flags_original, _] = field.array()?,
                kind::TCP_FLAGS_REPLY => [tcp.flags_reply, _] = field.array()?,
                _ => {}
            }
        }
        found = Some(tcp);
    }
    Ok(found)
}

fn timestamps(attribute: &Attribute<'_>, sample: &mut Sample) -> Result<(), Malformed> {
    for time in attribute.nested()? {
        let time = time?;
        match time.kind {
            kind::TIMESTAMP_START => sample.start = Some(WallTime(time.be_u64()?)),
            kind::TIMESTAMP_STOP => sample.stop = Some(WallTime(time.be_u64()?)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::messages;

    proptest! {
        /// Whatever the laid-out reader accepts, also after damage, the walk reads the same.
        #[test]
        fn layout_and_walk_agree(
            v6 in any::<bool>(),
            octets in any::<[u8; 16]>(),
            protocol in prop_oneof![Just(6_u8), Just(17), Just(47), any::<u8>()],
            ports in any::<(u16, u16)>(),
            damage in prop::option::of((0_usize..76, any::<u8>())),
        ) {
            let [a, b, c, d, ..] = octets;
            let address = if v6 { IpAddr::from(octets) } else { IpAddr::from([a, b, c, d]) };
            let tuple = Tuple {
                protocol: Protocol(protocol),
                source: address,
                destination: address,
                source_port: ports.0,
                destination_port: ports.1,
            };
            let mut request = Request::new(KIND_ENTRY, 0, &[]);
            put_tuple(&mut request, kind::TUPLE_ORIG, &tuple);
            let mut bytes = request.bytes().to_vec();
            if let Some((at, byte)) = damage && let Some(old) = bytes.get_mut(20 + at) {
                *old = byte;
            }
            let message = messages(&bytes).next().unwrap().unwrap();
            let attribute = attributes(message.payload).next().unwrap().unwrap();
            let laid_out = match attribute.payload.len() {
                48 => tuple_v4(attribute.payload.first_chunk().unwrap()),
                72 => tuple_v6(attribute.payload.first_chunk().unwrap()),
                _ => None,
            };
            if let Some(laid_out) = laid_out {
                let mut walked = Tuple::default();
                prop_assert_eq!(walk_tuple(&attribute, &mut walked), Ok(0));
                prop_assert_eq!(laid_out, walked);
            } else {
                let undamaged = damage.is_none();
                prop_assert!(!undamaged || !WITH_PORTS.contains(&protocol) || attribute.payload.len() < 48);
            }
        }
    }
}
