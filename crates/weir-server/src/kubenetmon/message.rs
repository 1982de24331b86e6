//! From a message to an observation. Whatever is missing or makes no sense is refused by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_flow::kubenetmon::Observation;
use weir_flow::{Counters, Name, Protocol, Tuple, WallTime};
use weir_proto::kubenetmon as pb;
use weir_proto::kubenetmon::flow::FlowTuple;
use weir_proto::kubenetmon::flow::flow_tuple::L4Endpoint;
use weir_proto::kubenetmon::flow::flow_tuple::l4_endpoint::IpAddr as Address;

/// The longest name of a node that Kubernetes takes.
const NODE_BYTES: usize = 253;
/// An observation is at most this much older than now. The table has a partition for each day, and
/// one insert reaches few of them.
const PAST_SECONDS: u64 = 86_400;
/// And at most this much ahead: the nodes' clocks differ.
const FUTURE_SECONDS: u64 = 3_600;
/// More was never counted between two readings.
const COUNTER_MAX: u64 = i64::MAX.cast_unsigned();

/// What was wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is not in the protocol's form, or too large.
    Message,
    /// It names no connection.
    Flow,
    /// A direction is missing.
    Tuple,
    /// An end of a direction is missing.
    Endpoint,
    /// An end has no address, or one of a length that no address has.
    Address,
    /// A port that does not fit 16 bits.
    Port,
    /// A protocol that does not fit 8 bits.
    Protocol,
    /// A counter that no connection reaches.
    Counters,
    /// No name of a node.
    Node,
    /// A time far from now.
    Time,
}

impl Malformed {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Message,
        Self::Flow,
        Self::Tuple,
        Self::Endpoint,
        Self::Address,
        Self::Port,
        Self::Protocol,
        Self::Counters,
        Self::Node,
        Self::Time,
    ];

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Flow => "flow",
            Self::Tuple => "tuple",
            Self::Endpoint => "endpoint",
            Self::Address => "address",
            Self::Port => "port",
            Self::Protocol => "protocol",
            Self::Counters => "counters",
            Self::Node => "node",
            Self::Time => "time",
        }
    }
}

/// Reads a message that arrived at `now`. `last_node` saves making the same name again.
pub(super) fn read(
    message: pb::Observation,
    last_node: Option<&Name>,
    now: WallTime,
) -> Result<Observation, Malformed> {
    let pb::Observation { flow, node_name, timestamp } = message;
    let pb::Flow { proto, original, reply } = flow.ok_or(Malformed::Flow)?;
    let protocol = Protocol(proto.try_into().map_err(|_too_large| Malformed::Protocol)?);
    let (original, sent) = direction(protocol, original)?;
    let (reply, received) = direction(protocol, reply)?;
    let now = now.seconds();
    if timestamp < now.saturating_sub(PAST_SECONDS) || timestamp > now + FUTURE_SECONDS {
        return Err(Malformed::Time);
    }
    let node = match last_node {
        Some(known) if **known == *node_name => Name::clone(known),
        _ => node(&node_name)?,
    };
    Ok(Observation { original, reply, sent, received, node, seconds: timestamp })
}

fn direction(protocol: Protocol, tuple: Option<FlowTuple>) -> Result<(Tuple, Counters), Malformed> {
    let FlowTuple { source, destination, packets, bytes } = tuple.ok_or(Malformed::Tuple)?;
    if packets > COUNTER_MAX || bytes > COUNTER_MAX {
        return Err(Malformed::Counters);
    }
    let (source, source_port) = end(source)?;
    let (destination, destination_port) = end(destination)?;
    let tuple = Tuple { protocol, source, destination, source_port, destination_port };
    Ok((tuple, Counters { packets, bytes }))
}

fn end(endpoint: Option<L4Endpoint>) -> Result<(IpAddr, u16), Malformed> {
    let L4Endpoint { port, ip_addr } = endpoint.ok_or(Malformed::Endpoint)?;
    let address = match ip_addr.ok_or(Malformed::Address)? {
        Address::V4(bits) => Ipv4Addr::from_bits(bits).into(),
        Address::V6(bytes) => {
            let bytes: [u8; 16] =
                bytes.as_slice().try_into().map_err(|_other_length| Malformed::Address)?;
            Ipv6Addr::from(bytes).into()
        }
    };
    Ok((address, port.try_into().map_err(|_too_large| Malformed::Port)?))
}

fn node(name: &str) -> Result<Name, Malformed> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || name.len() > NODE_BYTES || !name.chars().all(fits) {
        return Err(Malformed::Node);
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use weir_flow::time::SECOND;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn endpoint(last: u8, port: u32) -> L4Endpoint {
        let address = Address::V4(Ipv4Addr::new(10, 0, 0, last).to_bits());
        L4Endpoint { port, ip_addr: Some(address) }
    }

    fn whole() -> pb::Observation {
        let tuple = |from, to, packets| FlowTuple {
            source: Some(endpoint(from, u32::from(from))),
            destination: Some(endpoint(to, u32::from(to))),
            packets,
            bytes: packets + 1,
        };
        let flow =
            pb::Flow { proto: 6, original: Some(tuple(1, 2, 10)), reply: Some(tuple(2, 1, 12)) };
        pb::Observation { flow: Some(flow), node_name: "n1".to_owned(), timestamp: NOW }
    }

    fn read_now(message: pb::Observation) -> Result<Observation, Malformed> {
        read(message, None, WallTime(NOW * SECOND))
    }

    #[test]
    fn a_whole_message_is_an_observation() {
        let observation = read_now(whole()).unwrap();
        assert_eq!(observation.original.source.to_string(), "10.0.0.1");
        assert_eq!((observation.reply.source_port, observation.reply.destination_port), (2, 1));
        assert_eq!(observation.sent, Counters { packets: 10, bytes: 11 });
        assert_eq!(observation.received, Counters { packets: 12, bytes: 13 });
        assert_eq!((&*observation.node, observation.seconds), ("n1", NOW));

        let six: Ipv6Addr = "fe80::dead:beef:70:1".parse().unwrap();
        let mut message = whole();
        let source = message.flow.as_mut().unwrap().original.as_mut().unwrap().source.as_mut();
        source.unwrap().ip_addr = Some(Address::V6(six.octets().to_vec()));
        assert_eq!(read_now(message).unwrap().original.source, IpAddr::V6(six));
    }

    /// Everything that can be missing, and everything that can be out of bounds.
    #[test]
    fn whatever_is_wrong_is_refused_by_name() {
        type Spoil = fn(&mut pb::Observation);
        fn flow(message: &mut pb::Observation) -> &mut pb::Flow {
            message.flow.as_mut().unwrap()
        }
        fn original(message: &mut pb::Observation) -> &mut FlowTuple {
            flow(message).original.as_mut().unwrap()
        }
        fn reply(message: &mut pb::Observation) -> &mut FlowTuple {
            flow(message).reply.as_mut().unwrap()
        }
        let spoilt: [(Malformed, Spoil); 22] = [
            (Malformed::Flow, |it| *it = pb::Observation::default()),
            (Malformed::Flow, |it| it.flow = None),
            (Malformed::Tuple, |it| it.flow = Some(pb::Flow { proto: 6, ..Default::default() })),
            (Malformed::Tuple, |it| flow(it).original = None),
            (Malformed::Tuple, |it| flow(it).reply = None),
            (Malformed::Endpoint, |it| original(it).source = None),
            (Malformed::Endpoint, |it| original(it).destination = None),
            (Malformed::Endpoint, |it| reply(it).source = None),
            (Malformed::Endpoint, |it| reply(it).destination = None),
            (Malformed::Address, |it| original(it).source.as_mut().unwrap().ip_addr = None),
            (Malformed::Address, |it| original(it).destination.as_mut().unwrap().ip_addr = None),
            (Malformed::Address, |it| reply(it).source.as_mut().unwrap().ip_addr = None),
            (Malformed::Address, |it| {
                reply(it).destination.as_mut().unwrap().ip_addr = Some(Address::V6(vec![1; 15]));
            }),
            (Malformed::Port, |it| reply(it).source = Some(endpoint(1, 65_536))),
            (Malformed::Protocol, |it| flow(it).proto = 256),
            (Malformed::Counters, |it| original(it).bytes = u64::MAX),
            (Malformed::Counters, |it| reply(it).packets = u64::MAX),
            (Malformed::Node, |it| it.node_name = String::new()),
            (Malformed::Node, |it| it.node_name = "\u{1b}[2J".to_owned()),
            (Malformed::Node, |it| it.node_name = "n".repeat(254)),
            (Malformed::Time, |it| it.timestamp = 0),
            (Malformed::Time, |it| it.timestamp = u64::MAX),
        ];
        for (expected, spoil) in spoilt {
            let mut message = whole();
            spoil(&mut message);
            assert_eq!(read_now(message.clone()), Err(expected), "{message:?}");
        }
    }
}
