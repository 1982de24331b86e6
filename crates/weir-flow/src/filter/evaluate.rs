//! A filter against one flow.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::class::Class;
use crate::endpoint::{Endpoint, Resolution, Unresolved};
use crate::field::{EndpointField, Field, Side};
use crate::tuple::Protocol;

use super::value::network;
use super::{Operator, Subject, Test, Value};

/// One flow, as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub struct FlowView<'a> {
    /// Who opened.
    pub source: &'a Endpoint,
    /// Who answered.
    pub destination: &'a Endpoint,
    /// IP protocol.
    pub protocol: Protocol,
    /// The destination's port (ICMP: type and code).
    pub destination_port: u16,
    /// The service address dialled, if any.
    pub service: Option<(IpAddr, u16)>,
    /// The name of the Kubernetes service dialled, if any: `NAMESPACE/NAME`.
    pub service_name: Option<&'a str>,
    /// Traffic class.
    pub class: Class,
    /// The observing node.
    pub node: &'a str,
}

/// What a field says about a flow.
enum Fact<'a> {
    Absent,
    Text(Cow<'a, str>),
    Number(u16),
    Address(IpAddr),
    Service(IpAddr, u16),
}

pub(super) fn holds(test: &Test, flow: &FlowView<'_>) -> bool {
    match test.subject {
        Subject::Field(field) => compare(test, &fact(field, flow)),
        Subject::Either(field) => {
            compare(test, &endpoint_fact(field, flow.source))
                || compare(test, &endpoint_fact(field, flow.destination))
        }
    }
}

fn compare(test: &Test, fact: &Fact<'_>) -> bool {
    test.values.iter().any(|value| match (test.operator, fact, value) {
        (Operator::In, Fact::Absent, Value::Absent) => true,
        (Operator::In, Fact::Text(text), Value::Text(wanted)) => *text == **wanted,
        (Operator::In, Fact::Address(address), Value::Prefix(prefix, length)) => {
            address.is_ipv4() == prefix.is_ipv4() && network(*address, *length) == *prefix
        }
        (Operator::In, Fact::Service(address, port), Value::Service(wanted, wanted_port)) => {
            address == wanted && port == wanted_port
        }
        (Operator::In, Fact::Number(number), Value::Number(wanted)) => number == wanted,
        (Operator::Contains, Fact::Text(text), Value::Text(part)) => contains(text, part),
        (Operator::Less, Fact::Number(number), Value::Number(bound)) => number < bound,
        (Operator::LessOrEqual, Fact::Number(number), Value::Number(bound)) => number <= bound,
        (Operator::Greater, Fact::Number(number), Value::Number(bound)) => number > bound,
        (Operator::GreaterOrEqual, Fact::Number(number), Value::Number(bound)) => number >= bound,
        _ => false,
    })
}

fn contains(text: &str, part: &str) -> bool {
    part.is_empty()
        || text
            .as_bytes()
            .windows(part.len())
            .any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}

fn fact<'a>(field: Field, flow: &FlowView<'a>) -> Fact<'a> {
    match field {
        Field::Endpoint(Side::Source, field) => endpoint_fact(field, flow.source),
        Field::Endpoint(Side::Destination, field) => endpoint_fact(field, flow.destination),
        Field::DestinationPort => Fact::Number(flow.destination_port),
        Field::Protocol => Fact::Number(flow.protocol.0.into()),
        Field::Service => match flow.service {
            Some((address, port)) => Fact::Service(address, port),
            None => Fact::Absent,
        },
        Field::ServiceName => {
            flow.service_name.map_or(Fact::Absent, |name| Fact::Text(name.into()))
        }
        Field::Class => Fact::Number(flow.class.code().into()),
        Field::Node => Fact::Text(flow.node.into()),
        Field::IpVersion => Fact::Number(if flow.source.address.is_ipv4() { 4 } else { 6 }),
    }
}

fn endpoint_fact(field: EndpointField, endpoint: &Endpoint) -> Fact<'_> {
    let number = |code: Option<u8>| code.map_or(Fact::Absent, |code| Fact::Number(code.into()));
    match field {
        EndpointField::Kind => Fact::Number(endpoint.kind.code().into()),
        EndpointField::Address => Fact::Address(endpoint.address),
        EndpointField::Resolution => number(endpoint.resolution.map(Resolution::code)),
        EndpointField::Unresolved => number(endpoint.unresolved.map(Unresolved::code)),
        field => endpoint.text(field).map_or(Fact::Absent, Fact::Text),
    }
}
