//! A filter as canonical text: `parse(print(filter)) == filter`.

use std::fmt;
use std::net::SocketAddr;

use crate::class::Class;
use crate::endpoint::{EndpointKind, Resolution, Unresolved};
use crate::tuple::Protocol;

use super::lex::{KEYWORDS, is_bare};
use super::value::ValueType;
use super::{Filter, Operator, Subject, Test, Value};

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            filter => print(filter, Place::Alone, f),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_test(self, false, f)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => write!(f, "{field}"),
            Self::Either(field) => f.write_str(field.name()),
        }
    }
}

/// Where a filter stands inside another, from loose to tight: `and` and `or` group to the left, so
/// a right operand that is itself a chain needs parentheses to come back as it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Alone,
    RightOfOr,
    LeftOfAnd,
    Tight,
}

fn print(filter: &Filter, place: Place, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match filter {
        Filter::All => f.write_str("all"),
        Filter::Or(left, right) => grouped(place > Place::Alone, f, |f| {
            print(left, Place::Alone, f)?;
            f.write_str(" or ")?;
            print(right, Place::RightOfOr, f)
        }),
        Filter::And(left, right) => grouped(place > Place::LeftOfAnd, f, |f| {
            print(left, Place::LeftOfAnd, f)?;
            f.write_str(" and ")?;
            print(right, Place::Tight, f)
        }),
        Filter::Not(inner) => match &**inner {
            Filter::Test(test) if matches!(test.operator, Operator::In | Operator::Contains) => {
                print_test(test, true, f)
            }
            inner => {
                f.write_str("not ")?;
                print(inner, Place::Tight, f)
            }
        },
        Filter::Test(test) => print_test(test, false, f),
    }
}

fn grouped(
    parentheses: bool,
    f: &mut fmt::Formatter<'_>,
    inner: impl FnOnce(&mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    if !parentheses {
        return inner(f);
    }
    f.write_str("(")?;
    inner(f)?;
    f.write_str(")")
}

fn print_test(test: &Test, negated: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind = ValueType::of(test.subject);
    if test.operator == Operator::In && test.values.len() != 1 {
        write!(f, "{} {}in (", test.subject, if negated { "not " } else { "" })?;
        for (index, value) in test.values.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            print_value(kind, value, f)?;
        }
        return f.write_str(")");
    }
    let operator = match (test.operator, negated) {
        (Operator::In, false) => "=",
        (Operator::In, true) => "!=",
        (Operator::Contains, false) => "~",
        (Operator::Contains, true) => "!~",
        (Operator::Less, _) => "<",
        (Operator::LessOrEqual, _) => "<=",
        (Operator::Greater, _) => ">",
        (Operator::GreaterOrEqual, _) => ">=",
    };
    write!(f, "{} {operator} ", test.subject)?;
    test.values.iter().try_for_each(|value| print_value(kind, value, f))
}

fn print_value(kind: ValueType, value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Absent => f.write_str("none"),
        Value::Text(text) => print_text(text, f),
        Value::Prefix(address, length) => {
            write!(f, "{address}")?;
            let full = if address.is_ipv4() { 32 } else { 128 };
            if *length == full { Ok(()) } else { write!(f, "/{length}") }
        }
        Value::Service(address, port) => write!(f, "{}", SocketAddr::new(*address, *port)),
        Value::Number(number) => match named(kind, *number) {
            Some(name) => f.write_str(name),
            None => write!(f, "{number}"),
        },
    }
}

fn named(kind: ValueType, number: u16) -> Option<&'static str> {
    let code = u8::try_from(number).ok()?;
    match kind {
        ValueType::Protocol => Protocol(code).name(),
        ValueType::Class => Class::from_code(code).map(Class::name),
        ValueType::Kind => EndpointKind::from_code(code).map(EndpointKind::name),
        ValueType::Resolution => Resolution::from_code(code).map(Resolution::name),
        ValueType::Unresolved => Unresolved::from_code(code).map(Unresolved::name),
        _ => None,
    }
}

fn print_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let keyword = KEYWORDS.iter().any(|keyword| text.eq_ignore_ascii_case(keyword));
    if !text.is_empty() && !keyword && text.chars().all(is_bare) {
        return f.write_str(text);
    }
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            control if control.is_control() => write!(f, "\\u{{{:x}}}", u32::from(control))?,
            plain => write!(f, "{plain}")?,
        }
    }
    f.write_str("\"")
}
