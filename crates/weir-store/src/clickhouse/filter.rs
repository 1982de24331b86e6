//! A filter as a condition in ClickHouse's SQL. What the user wrote goes into parameters only.

use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashMap;
use weir_flow::filter::{Operator, Subject, Test, Value};
use weir_flow::{EndpointField, Field, Filter, Side};

use super::connection::{Parameter, Statement};
use super::schema;

/// The values of a statement's `{name:Type}`, by name.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    values: Vec<(String, String)>,
    known: HashMap<(&'static str, String), String>,
}

impl Parameters {
    /// Where the value is to stand in the statement. The same value is sent once.
    pub(super) fn bind(&mut self, kind: &'static str, value: impl Into<String>) -> String {
        let value = value.into();
        let number = self.values.len();
        let placeholder = self.known.entry((kind, value)).or_insert_with_key(|(kind, value)| {
            self.values.push((format!("p{number}"), value.clone()));
            format!("{{p{number}:{kind}}}")
        });
        placeholder.clone()
    }

    /// A statement with these values. `operation` completes "cannot …" in errors.
    pub(super) fn statement(&self, operation: &'static str, sql: &str) -> Statement {
        // A filter's longest text makes more of a statement than the engine takes from people.
        let statement = Statement::new(operation, sql)
            .setting("max_query_size", 16 << 20)
            .setting("max_ast_elements", 1_000_000)
            .setting("max_expanded_ast_elements", 2_000_000)
            .setting("max_ast_depth", 5_000);
        self.values.iter().fold(statement, |statement, (name, value)| {
            statement.parameter(name, Parameter::Text(value.clone()))
        })
    }
}

/// The filter as a condition that is never null.
pub(super) fn condition(filter: &Filter, parameters: &mut Parameters) -> String {
    match filter {
        Filter::All => "1".to_owned(),
        Filter::And(left, right) => {
            format!("({} AND {})", condition(left, parameters), condition(right, parameters))
        }
        Filter::Or(left, right) => {
            format!("({} OR {})", condition(left, parameters), condition(right, parameters))
        }
        Filter::Not(inner) => format!("(NOT {})", condition(inner, parameters)),
        Filter::Test(test) => Compiler { test, parameters }.subject(),
    }
}

/// The condition that holds for nothing: a value that is not of the field's type.
const NEVER: &str = "0";
const ALWAYS: &str = "1";

struct Compiler<'a> {
    test: &'a Test,
    parameters: &'a mut Parameters,
}

impl Compiler<'_> {
    fn subject(&mut self) -> String {
        match self.test.subject {
            Subject::Either(field) => {
                let source = self.endpoint(Side::Source, field);
                format!("({source} OR {})", self.endpoint(Side::Destination, field))
            }
            Subject::Field(Field::Endpoint(side, field)) => self.endpoint(side, field),
            Subject::Field(Field::Service) => self.service(),
            Subject::Field(Field::Node) => self.text("node", false),
            Subject::Field(Field::ServiceName) => self.text("service_name", true),
            Subject::Field(Field::DestinationPort) => self.number("destination_port", 0),
            Subject::Field(Field::Protocol) => self.number("protocol", 0),
            Subject::Field(Field::Class) => self.number("toUInt8(class)", 0),
            Subject::Field(Field::IpVersion) => self.number("src_ip_version", 0),
        }
    }

    fn endpoint(&mut self, side: Side, field: EndpointField) -> String {
        let column = format!("{}{}", schema::prefix(side), field.name());
        match field {
            EndpointField::Address => self.prefix(side),
            EndpointField::Kind => self.number(&format!("toUInt8({column})"), 0),
            EndpointField::Resolution | EndpointField::Unresolved => {
                self.number(&format!("toUInt8({column})"), 1)
            }
            EndpointField::Id | EndpointField::Name | EndpointField::OwnerId => {
                self.text(&column, false)
            }
            _ => self.text(&column, true),
        }
    }

    /// `is_optional`: empty text is absent.
    fn text(&mut self, column: &str, is_optional: bool) -> String {
        let mut equal = Vec::new();
        let mut alternatives = Vec::new();
        for value in &self.test.values {
            match (self.test.operator, value) {
                (Operator::In, Value::Absent) if is_optional => {
                    alternatives.push(format!("{column} = ''"));
                }
                // What is absent equals no text, the empty one neither.
                (Operator::In, Value::Text(text)) if text.is_empty() && is_optional => {}
                (Operator::In, Value::Text(text)) => {
                    equal.push(self.parameters.bind("String", text));
                }
                (Operator::Contains, Value::Text(text)) if text.is_empty() => {
                    let always =
                        if is_optional { format!("{column} != ''") } else { ALWAYS.to_owned() };
                    alternatives.push(always);
                }
                // lower() knows ASCII only, which is what the language says.
                (Operator::Contains, Value::Text(text)) => {
                    let part = self.parameters.bind("String", text.to_ascii_lowercase());
                    alternatives.push(format!("position(lower({column}), {part}) > 0"));
                }
                _ => {}
            }
        }
        alternatives.extend(is_in(column, &equal));
        any(&alternatives)
    }

    /// A column of numbers or codes. `shift`: what was added to codes so that 0 is absent.
    fn number(&mut self, column: &str, shift: u32) -> String {
        let mut equal = Vec::new();
        let mut alternatives = Vec::new();
        for value in &self.test.values {
            let number = match (self.test.operator, value) {
                (Operator::In, Value::Absent) if shift > 0 => 0,
                (Operator::Contains, _) => continue,
                (_, Value::Number(number)) => u32::from(*number) + shift,
                _ => continue,
            };
            let number = self.parameters.bind("UInt32", number.to_string());
            let operator = match self.test.operator {
                Operator::In | Operator::Contains => {
                    equal.push(number);
                    continue;
                }
                Operator::Less => "<",
                Operator::LessOrEqual => "<=",
                Operator::Greater => ">",
                Operator::GreaterOrEqual => ">=",
            };
            let present = if shift > 0 { format!("{column} > 0 AND ") } else { String::new() };
            alternatives.push(format!("({present}{column} {operator} {number})"));
        }
        alternatives.extend(is_in(column, &equal));
        any(&alternatives)
    }

    /// A prefix is a range of addresses of one family.
    fn prefix(&mut self, side: Side) -> String {
        let column = schema::prefix(side);
        let mut alternatives = Vec::new();
        for value in &self.test.values {
            let (Operator::In, Value::Prefix(address, length)) = (self.test.operator, value) else {
                continue;
            };
            let Some((first, last)) = bounds(*address, *length) else { continue };
            let version = if address.is_ipv4() { 4 } else { 6 };
            let version = self.parameters.bind("UInt8", version.to_string());
            let first = self.parameters.bind("IPv6", first.to_string());
            let last = self.parameters.bind("IPv6", last.to_string());
            alternatives.push(format!(
                "({column}ip_version = {version} AND {column}address >= {first} \
                 AND {column}address <= {last})"
            ));
        }
        any(&alternatives)
    }

    fn service(&mut self) -> String {
        let mut alternatives = Vec::new();
        for value in &self.test.values {
            match (self.test.operator, value) {
                (Operator::In, Value::Absent) => {
                    alternatives.push("service_version = 0".to_owned());
                }
                (Operator::In, Value::Service(address, port)) => {
                    let version = if address.is_ipv4() { 4 } else { 6 };
                    let version = self.parameters.bind("UInt8", version.to_string());
                    let address = self.parameters.bind("IPv6", mapped(*address).to_string());
                    let port = self.parameters.bind("UInt16", port.to_string());
                    alternatives.push(format!(
                        "(service_version = {version} AND service_address = {address} \
                         AND service_port = {port})"
                    ));
                }
                _ => {}
            }
        }
        any(&alternatives)
    }
}

fn is_in(column: &str, values: &[String]) -> Option<String> {
    match values {
        [] => None,
        [one] => Some(format!("{column} = {one}")),
        many => Some(format!("{column} IN ({})", many.join(", "))),
    }
}

fn any(alternatives: &[String]) -> String {
    match alternatives {
        [] => NEVER.to_owned(),
        [one] => one.clone(),
        many => format!("({})", many.join(" OR ")),
    }
}

/// The address as the table has it.
pub(super) fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// First and last address of a prefix, as the table has them; `None` where it has host bits and so
/// is no prefix.
fn bounds(address: IpAddr, length: u8) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let host_bits = bits - u32::from(length).min(bits);
    let host = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
    let first = mapped(address).to_bits();
    (first & host == 0).then(|| (first.into(), (first | host).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_the_user_wrote_is_in_the_sql() {
        let secret = "x'; DROP TABLE flow_10s; --";
        let text = format!(
            "(name = \"{secret}\" or source.unit ~ \"{secret}\" or node = \"{secret}\") \
             and destination.port in (31337, 31338) and address = 203.0.113.64/26 \
             and not service = 198.51.100.77:31339 and protocol != 253"
        );
        let mut parameters = Parameters::default();
        let condition = condition(&Filter::parse(&text).unwrap(), &mut parameters);
        for literal in ["DROP", "drop", "--", "'", "31337", "31338", "31339", "253", "203", "198"] {
            assert!(!condition.contains(literal), "{literal} in {condition}");
        }
        // The same text is sent once.
        let secrets = parameters.values.iter().filter(|(_, value)| value == secret);
        assert_eq!(secrets.count(), 1);
    }

    #[test]
    fn prefixes_are_ranges_of_mapped_addresses() {
        let bounds = |text: &str| {
            let (address, length) = text.split_once('/').unwrap();
            bounds(address.parse().unwrap(), length.parse().unwrap())
                .map(|(first, last)| format!("{first} {last}"))
        };
        for (prefix, expected) in [
            ("10.1.2.0/23", "::ffff:10.1.2.0 ::ffff:10.1.3.255"),
            ("10.1.2.3/32", "::ffff:10.1.2.3 ::ffff:10.1.2.3"),
            ("0.0.0.0/0", "::ffff:0.0.0.0 ::ffff:255.255.255.255"),
            ("::/0", ":: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fd00::1/128", "fd00::1 fd00::1"),
        ] {
            assert_eq!(bounds(prefix).as_deref(), Some(expected), "{prefix}");
        }
        assert_eq!(bounds("10.1.2.3/24"), None);
    }
}
