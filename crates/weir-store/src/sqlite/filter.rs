//! A filter as a condition in SQL. What the user wrote goes into parameters only.

use rusqlite::types::Value as Parameter;
use weir_flow::filter::{Operator, Subject, Test, Value};
use weir_flow::{EndpointField, Field, Filter, Side};

use super::facts::address_bytes;
use super::lists::endpoint_column;

/// What the condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Rows of the edge dictionary, named `edge`.
    Edge,
    /// Rows of totals, named `fact`.
    Total,
}

/// A condition, never null, and its parameters.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
}

/// True when totals know everything the filter asks about.
pub(super) fn fits_totals(filter: &Filter) -> bool {
    match filter {
        Filter::All => true,
        Filter::Not(inner) => fits_totals(inner),
        Filter::And(left, right) | Filter::Or(left, right) => {
            fits_totals(left) && fits_totals(right)
        }
        Filter::Test(test) => match test.subject {
            Subject::Field(field) => total_has(field),
            Subject::Either(_) => false,
        },
    }
}

/// True when totals are kept by this field.
pub(super) fn total_has(field: Field) -> bool {
    matches!(field, Field::Class | Field::Node | Field::Protocol | Field::IpVersion)
}

/// The filter as a condition. `parameters` are those that already stand before it.
pub(super) fn condition(filter: &Filter, target: Target, parameters: Vec<Parameter>) -> Condition {
    let mut compiler = Compiler { target, parameters };
    let sql = compiler.filter(filter);
    Condition { sql, parameters: compiler.parameters }
}

/// The condition that holds for nothing: a value that is not of the field's type.
const NEVER: &str = "0";

struct Compiler {
    target: Target,
    parameters: Vec<Parameter>,
}

impl Compiler {
    fn filter(&mut self, filter: &Filter) -> String {
        match filter {
            Filter::All => "1".to_owned(),
            Filter::And(left, right) => {
                format!("({} AND {})", self.filter(left), self.filter(right))
            }
            Filter::Or(left, right) => format!("({} OR {})", self.filter(left), self.filter(right)),
            Filter::Not(inner) => format!("NOT {}", self.filter(inner)),
            Filter::Test(test) => self.test(test),
        }
    }

    fn test(&mut self, test: &Test) -> String {
        match test.subject {
            Subject::Either(field) => {
                let endpoints = self.endpoints(field, test);
                format!("(edge.source IN {endpoints} OR edge.destination IN {endpoints})")
            }
            Subject::Field(Field::Endpoint(Side::Source, field)) => {
                format!("edge.source IN {}", self.endpoints(field, test))
            }
            Subject::Field(Field::Endpoint(Side::Destination, field)) => {
                format!("edge.destination IN {}", self.endpoints(field, test))
            }
            Subject::Field(Field::Service) => self.service(test),
            Subject::Field(Field::ServiceName) => self.service_name(test),
            Subject::Field(Field::Node) => {
                let name = self.any(test, |compiler, value| compiler.text("name", test, value));
                format!("{} IN (SELECT id FROM node WHERE {name})", self.column(Field::Node))
            }
            Subject::Field(field) => {
                let column = self.column(field);
                self.any(test, |compiler, value| compiler.number(column, test, value))
            }
        }
    }

    /// The expression that holds a field of an edge or a total.
    fn column(&self, field: Field) -> &'static str {
        match (self.target, field) {
            (Target::Edge, Field::DestinationPort) => "edge.destination_port",
            (Target::Edge, Field::Protocol) => "edge.protocol",
            (Target::Edge, Field::Class) => "edge.class",
            (Target::Edge, Field::Node) => "edge.node",
            (Target::Edge, Field::IpVersion) => "edge.ip_version",
            (Target::Total, Field::Protocol) => "((fact.key >> 8) & 255)",
            (Target::Total, Field::Class) => "((fact.key >> 16) & 255)",
            (Target::Total, Field::Node) => "(fact.key >> 24)",
            (Target::Total, Field::IpVersion) => "(fact.key & 255)",
            // `fits_totals` keeps these from totals, `test` from edges.
            _ => "NULL",
        }
    }

    /// The ids of the endpoints for which the test holds.
    fn endpoints(&mut self, field: EndpointField, test: &Test) -> String {
        let column = endpoint_column(field);
        let condition = self.any(test, |compiler, value| match field {
            EndpointField::Address => compiler.prefix(test, value),
            EndpointField::Kind | EndpointField::Resolution | EndpointField::Unresolved => {
                compiler.number(column, test, value)
            }
            _ => compiler.text(column, test, value),
        });
        format!("(SELECT id FROM endpoint WHERE {condition})")
    }

    fn service(&mut self, test: &Test) -> String {
        self.any(test, |compiler, value| match (test.operator, value) {
            (Operator::In, Value::Absent) => "edge.service = 0".to_owned(),
            (Operator::In, Value::Service(address, port)) => {
                let address = compiler.bind(Parameter::Blob(address_bytes(*address)));
                let port = compiler.bind(Parameter::Integer((*port).into()));
                format!(
                    "edge.service IN \
                     (SELECT id FROM service WHERE address = {address} AND port = {port})"
                )
            }
            _ => NEVER.to_owned(),
        })
    }

    fn service_name(&mut self, test: &Test) -> String {
        self.any(test, |compiler, value| {
            if test.operator == Operator::In && *value == Value::Absent {
                let unnamed = "(SELECT id FROM service WHERE name = '')";
                return format!("(edge.service = 0 OR edge.service IN {unnamed})");
            }
            let name = compiler.text("name", test, value);
            format!("edge.service IN (SELECT id FROM service WHERE name != '' AND {name})")
        })
    }

    fn text(&mut self, column: &str, test: &Test, value: &Value) -> String {
        match (test.operator, value) {
            (Operator::In, Value::Absent) => format!("{column} IS NULL"),
            (Operator::In, Value::Text(text)) => {
                let text = self.bind(Parameter::Text(text.clone()));
                format!("({column} IS NOT NULL AND {column} = {text})")
            }
            // SQLite's lower() knows ASCII only, which is what the language says.
            (Operator::Contains, Value::Text(text)) => {
                let part = self.bind(Parameter::Text(text.to_ascii_lowercase()));
                format!("({column} IS NOT NULL AND instr(lower({column}), {part}) > 0)")
            }
            _ => NEVER.to_owned(),
        }
    }

    fn number(&mut self, column: &str, test: &Test, value: &Value) -> String {
        let operator = match (test.operator, value) {
            (Operator::In, Value::Absent) => return format!("{column} IS NULL"),
            (Operator::Contains, _) => return NEVER.to_owned(),
            (Operator::In, _) => "=",
            (Operator::Less, _) => "<",
            (Operator::LessOrEqual, _) => "<=",
            (Operator::Greater, _) => ">",
            (Operator::GreaterOrEqual, _) => ">=",
        };
        let Value::Number(number) = value else { return NEVER.to_owned() };
        let number = self.bind(Parameter::Integer((*number).into()));
        format!("({column} IS NOT NULL AND {column} {operator} {number})")
    }

    /// A prefix is a range of addresses of one length.
    fn prefix(&mut self, test: &Test, value: &Value) -> String {
        let (Operator::In, Value::Prefix(address, length)) = (test.operator, value) else {
            return NEVER.to_owned();
        };
        let first = address_bytes(*address);
        let mut last = first.clone();
        for (index, byte) in last.iter_mut().enumerate() {
            let network_bits = usize::from(*length).saturating_sub(index * 8).min(8);
            let host = u8::MAX.checked_shr(network_bits.try_into().unwrap_or(8)).unwrap_or(0);
            if *byte & host != 0 {
                // Not a prefix: it has host bits.
                return NEVER.to_owned();
            }
            *byte |= host;
        }
        let bytes = first.len();
        let first = self.bind(Parameter::Blob(first));
        let last = self.bind(Parameter::Blob(last));
        format!("(address BETWEEN {first} AND {last} AND length(address) = {bytes})")
    }

    fn any(&mut self, test: &Test, mut one: impl FnMut(&mut Self, &Value) -> String) -> String {
        // Long lists would nest too deep as alternatives, so they are halved.
        fn halves(alternatives: &[String]) -> String {
            match alternatives {
                [] => NEVER.to_owned(),
                [one] => one.clone(),
                many => {
                    let (left, right) = many.split_at(many.len() / 2);
                    format!("({} OR {})", halves(left), halves(right))
                }
            }
        }
        let alternatives: Vec<String> = test.values.iter().map(|value| one(self, value)).collect();
        halves(&alternatives)
    }

    fn bind(&mut self, parameter: Parameter) -> String {
        self.parameters.push(parameter);
        format!("?{}", self.parameters.len())
    }
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
        let filter = Filter::parse(&text).unwrap();
        let condition = condition(&filter, Target::Edge, Vec::new());
        for literal in ["DROP", "drop", "--", "'", "31337", "31338", "31339", "253", "203", "198"] {
            assert!(!condition.sql.contains(literal), "{literal} in {}", condition.sql);
        }
        assert_eq!(condition.parameters.len(), 10);
    }

    #[test]
    fn totals_answer_for_what_they_are_kept_by() {
        let fits = |text: &str| fits_totals(&Filter::parse(text).unwrap());
        assert!(fits("class = internet and not (protocol = tcp or node ~ a) and ip_version = 6"));
        assert!(!fits("class = internet and port = 1"));
        assert!(!fits("class = internet or unit = a"));
    }
}
