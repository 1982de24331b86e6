//! The filter language, one everywhere.
//!
//! ```text
//! source.unit = nginx.service and destination.port in (80, 443) and not class = internet
//! ```
//!
//! [`Filter::parse`] reads it, `Display` prints its canonical form (which parses to the same
//! filter), [`Filter::matches`] evaluates it against one flow. The store compiles the same tree to
//! its own queries. A filter's tree is never deeper than [`MAX_TESTS`] + [`MAX_DEPTH`], so whoever
//! walks it may recurse.

mod error;
mod evaluate;
mod lex;
mod parse;
mod print;
mod value;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::str::FromStr;

use crate::field::{EndpointField, Field};

pub use error::{FilterError, Problem, nearest};
pub use evaluate::FlowView;

/// The longest filter text, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;
/// The deepest nesting of parentheses and `not`.
pub const MAX_DEPTH: usize = 64;
/// The most tests in one filter; a list in `in (…)` counts once.
pub const MAX_TESTS: usize = 256;

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

/// How a test compares. The negated operators (`!=`, `not in`, `!~`) are a [`Filter::Not`] around
/// the test, so an absent field is never equal to, and always unequal to, a given value.
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
    /// An address prefix, its host bits zero; a single address has the full length.
    Prefix(IpAddr, u8),
    /// A service: address and port.
    Service(IpAddr, u16),
    /// The bare word `none`: the field is absent. Only with [`Operator::In`], and only for fields
    /// that can be absent (host, unit, container, executable, unresolved, service).
    Absent,
}

impl Filter {
    /// Reads the filter language. Empty text is [`Filter::All`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::parse(text)
    }

    /// This filter and `other`, without needless nesting.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, filter) | (filter, Self::All) => filter,
            (left, right) => Self::And(Box::new(left), Box::new(right)),
        }
    }

    /// True when the flow passes.
    pub fn matches(&self, flow: &FlowView<'_>) -> bool {
        match self {
            Self::All => true,
            Self::And(left, right) => left.matches(flow) && right.matches(flow),
            Self::Or(left, right) => left.matches(flow) || right.matches(flow),
            Self::Not(inner) => !inner.matches(flow),
            Self::Test(test) => evaluate::holds(test, flow),
        }
    }
}

impl FromStr for Filter {
    type Err = FilterError;
    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}
