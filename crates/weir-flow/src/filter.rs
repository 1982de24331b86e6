//! The filter language, one everywhere.

use std::net::IpAddr;

use crate::field::{EndpointField, Field};

/// A parsed filter. `Filter::All` is the empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// Everything.
    #[default]
    All,
    /// Both.
    And(Box<Self>, Box<Self>),
    /// Either.
    Or(Box<Self>, Box<Self>),
    /// Not.
    Not(Box<Self>),
    /// A test of one field.
    Test(Test),
}

/// `field operator values`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// What is tested.
    pub subject: Subject,
    /// How.
    pub operator: Operator,
    /// Against what: one value, or the list of `in (…)`. Never empty.
    pub values: Vec<Value>,
}

/// What a test looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One field.
    Field(Field),
    /// A bare endpoint field (`unit = x`): true when it holds for the source or the destination.
    Either(EndpointField),
}

/// How a test compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=` and `in`: equal to one of the values (for an address: inside one of the prefixes).
    In,
    /// `~`: contains the text, without regard to ASCII case.
    Contains,
    /// `<`, numbers only.
    Less,
    /// `<=`, numbers only.
    LessOrEqual,
    /// `>`, numbers only.
    Greater,
    /// `>=`, numbers only.
    GreaterOrEqual,
}

/// A value, already of the field's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A port, protocol number, IP version, or the code of a kind, class or reason.
    Number(u16),
    /// An address prefix; a single address has the full length.
    Prefix(IpAddr, u8),
    /// A service: address and port.
    Service(IpAddr, u16),
}
