//! What values a field takes, and how they are read.

use std::net::{IpAddr, SocketAddr};

use crate::class::Class;
use crate::endpoint::{EndpointKind, Resolution, Unresolved};
use crate::field::{EndpointField, Field};
use crate::port;
use crate::tuple::Protocol;

use super::error::{Problem, nearest};
use super::{Operator, Subject, Value};

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    /// Text that is always there.
    Text,
    /// Text that may be absent.
    OptionalText,
    Address,
    Service,
    Port,
    Protocol,
    IpVersion,
    Class,
    Kind,
    Resolution,
    Unresolved,
}

impl ValueType {
    pub(super) fn of(subject: Subject) -> Self {
        let field = match subject {
            Subject::Field(Field::Endpoint(_, field)) | Subject::Either(field) => field,
            Subject::Field(Field::DestinationPort) => return Self::Port,
            Subject::Field(Field::Protocol) => return Self::Protocol,
            Subject::Field(Field::Service) => return Self::Service,
            Subject::Field(Field::ServiceName) => return Self::OptionalText,
            Subject::Field(Field::Class) => return Self::Class,
            Subject::Field(Field::Node) => return Self::Text,
            Subject::Field(Field::IpVersion) => return Self::IpVersion,
        };
        match field {
            EndpointField::Id | EndpointField::OwnerId | EndpointField::Name => Self::Text,
            EndpointField::Kind => Self::Kind,
            EndpointField::Address => Self::Address,
            EndpointField::Resolution => Self::Resolution,
            EndpointField::Unresolved => Self::Unresolved,
            EndpointField::Host
            | EndpointField::Unit
            | EndpointField::Container
            | EndpointField::Executable
            | EndpointField::Namespace
            | EndpointField::Pod
            | EndpointField::Service
            | EndpointField::Workload
            | EndpointField::Node
            | EndpointField::Zone
            | EndpointField::Region
            | EndpointField::App
            | EndpointField::Labels
            | EndpointField::Cloud
            | EndpointField::CloudService
            | EndpointField::Range => Self::OptionalText,
        }
    }

    pub(super) fn can_be_absent(self) -> bool {
        matches!(self, Self::OptionalText | Self::Service | Self::Resolution | Self::Unresolved)
    }

    pub(super) fn takes(self, operator: Operator) -> bool {
        match operator {
            Operator::In => true,
            Operator::Contains => matches!(self, Self::Text | Self::OptionalText),
            Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual => matches!(self, Self::Port | Self::IpVersion),
        }
    }

    /// The operators it takes, for an error message.
    pub(super) fn operators(self) -> &'static str {
        match self {
            Self::Text | Self::OptionalText => "=, !=, in (…), not in (…), ~ and !~",
            Self::Port | Self::IpVersion => "=, !=, in (…), not in (…), <, <=, > and >=",
            _ => "=, !=, in (…) and not in (…)",
        }
    }
}

/// Reads a value of this type.
pub(super) fn read(kind: ValueType, text: &str) -> Result<Value, Problem> {
    let (value, expected) = match kind {
        ValueType::Text | ValueType::OptionalText => return Ok(Value::Text(text.to_owned())),
        ValueType::Address => {
            (prefix(text), "an address or prefix (10.0.0.1, 10.0.0.0/8, fd00::/8)")
        }
        ValueType::Service => (service(text), "a service (10.96.0.10:80, [fd00::1]:80 or none)"),
        ValueType::Port => {
            (port_number(text).map(Value::Number), "a port (0 to 65535, or a name such as https)")
        }
        ValueType::Protocol => (
            Protocol::parse(text).map(|protocol| Value::Number(protocol.0.into())),
            "a protocol (a name such as tcp, or 0 to 255)",
        ),
        ValueType::IpVersion => (ip_version(text), "an IP version (4 or 6)"),
        ValueType::Class => (
            Class::parse(&text.to_ascii_lowercase())
                .map(|class| Value::Number(class.code().into())),
            "a class",
        ),
        ValueType::Kind => (
            EndpointKind::parse(&text.to_ascii_lowercase())
                .map(|kind| Value::Number(kind.code().into())),
            "a kind of endpoint",
        ),
        ValueType::Resolution => (
            resolution(&text.to_ascii_lowercase()).map(|how| Value::Number(how.code().into())),
            "what told whose it is (directory, local_facts, node_address, …) or none",
        ),
        ValueType::Unresolved => (
            unresolved(&text.to_ascii_lowercase())
                .map(|reason| Value::Number(reason.code().into())),
            "a reason (socket_gone, not_in_directory, ambiguous, …) or none",
        ),
    };
    value.ok_or_else(|| Problem::UnknownValue {
        value: text.chars().take(64).collect(),
        expected,
        nearest: nearest_value(kind, text),
    })
}

fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().or_else(|| port::by_name(&text.to_ascii_lowercase()))
}

fn ip_version(text: &str) -> Option<Value> {
    match text {
        "4" => Some(Value::Number(4)),
        "6" => Some(Value::Number(6)),
        _ => None,
    }
}

fn unresolved(name: &str) -> Option<Unresolved> {
    Unresolved::ALL.into_iter().find(|reason| reason.name() == name)
}

fn resolution(name: &str) -> Option<Resolution> {
    Resolution::ALL.into_iter().find(|how| how.name() == name)
}

fn service(text: &str) -> Option<Value> {
    text.parse::<SocketAddr>().ok().and_then(|address| match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => None,
        address => Some(Value::Service(address.ip(), address.port())),
    })
}

fn prefix(text: &str) -> Option<Value> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(full), |length| length.parse().ok())?;
    (length <= full).then(|| Value::Prefix(network(address, length), length))
}

/// The address with all bits after the first `length` cleared.
pub(super) fn network(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

fn nearest_value(kind: ValueType, text: &str) -> Option<String> {
    match kind {
        ValueType::Port => nearest(text, port::names()),
        ValueType::Protocol => nearest(text, Protocol::names()),
        ValueType::Class => nearest(text, Class::ALL.into_iter().map(Class::name)),
        ValueType::Kind => nearest(text, EndpointKind::ALL.into_iter().map(EndpointKind::name)),
        ValueType::Resolution => nearest(text, Resolution::ALL.into_iter().map(Resolution::name)),
        ValueType::Unresolved => nearest(text, Unresolved::ALL.into_iter().map(Unresolved::name)),
        _ => None,
    }
}
