//! Groups: what moves now and what was moved, side by side.

use std::collections::HashMap;

use weir_flow::{EndpointField, Field, Filter, Side};
use weir_server::answer::{Cell, Column, RateRow, Rates, Report};
use weir_store::Measure;

use super::filter_line::quoted;
use super::text;

/// Groups asked for.
pub(super) const LIMIT: usize = 100;
/// Fields that a group may have.
pub(super) const MOST_FIELDS: usize = 6;

/// A group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Talker {
    /// The value of each field; absent where there is no such thing.
    pub(super) values: Vec<Option<String>>,
    pub(super) sent_rate: Rate,
    pub(super) received_rate: Rate,
    pub(super) sent: Sum,
    pub(super) received: Sum,
    /// Connections that live; `None`: not said.
    pub(super) connections: Option<u64>,
}

/// A rate, and whether all of it was counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rate {
    Unknown,
    Exactly(f64),
    AtLeast(f64),
}

/// A sum, and whether all of it was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    Unknown,
    Exactly(u64),
    AtLeast(u64),
}

impl Rate {
    pub(super) fn text(self, at_least: &str) -> String {
        match self {
            Self::Unknown => text::rate(None),
            Self::Exactly(rate) => text::rate(Some(rate)),
            Self::AtLeast(rate) => format!("{at_least}{}", text::rate(Some(rate))),
        }
    }

    fn known(self) -> f64 {
        match self {
            Self::Unknown => 0.0,
            Self::Exactly(rate) | Self::AtLeast(rate) => rate,
        }
    }
}

impl Sum {
    pub(super) fn text(self, at_least: &str) -> String {
        match self {
            Self::Unknown => text::total(None),
            Self::Exactly(sum) => text::total(Some(sum)),
            Self::AtLeast(sum) => format!("{at_least}{}", text::total(Some(sum))),
        }
    }

    fn known(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Exactly(sum) | Self::AtLeast(sum) => sum,
        }
    }
}

impl Talker {
    /// Tells it from the other groups by the same fields.
    pub(super) fn id(&self) -> String {
        let values: Vec<String> = self.values.iter().map(|value| format!("{value:?}")).collect();
        values.join(" ")
    }

    /// The connections of this group.
    pub(super) fn filter(&self, by: &[Field]) -> Filter {
        by.iter().zip(&self.values).fold(Filter::All, |filter, (field, value)| {
            let value = value.as_deref().map_or_else(|| "none".to_owned(), quoted);
            // A field that is never absent has no `none`: it takes no part.
            match Filter::parse(&format!("{field} = {value}")) {
                Ok(test) => filter.and(test),
                Err(_) => filter,
            }
        })
    }

    /// Its values, for people.
    pub(super) fn name(&self, arrow: &str) -> String {
        let values: Vec<String> = self
            .values
            .iter()
            .map(|value| value.as_deref().map_or_else(|| "-".to_owned(), text::shown))
            .collect();
        values.join(&format!(" {arrow} "))
    }
}

/// Both answers by group, the busiest first.
pub(super) fn merge(by: &[Field], rates: Option<&Rates>, top: Option<&Report>) -> Vec<Talker> {
    let names: Vec<String> = by.iter().map(Field::to_string).collect();
    let mut sums: HashMap<Vec<Option<String>>, (Sum, Sum)> = HashMap::new();
    // In the order of the answer, so that ties stay where they are.
    let mut keys = Vec::new();
    if let Some(report) = top {
        for row in &report.rows {
            let Some(key) = key_of(report, row, by) else { continue };
            let sum = |measure| sum_of(report, row, measure);
            let both = (sum(Measure::BytesSent), sum(Measure::BytesReceived));
            if sums.insert(key.clone(), both).is_none() {
                keys.push(key);
            }
        }
    }
    let mut talkers = Vec::new();
    for row in rates.map_or(&[][..], |rates| &rates.rates) {
        let values: Vec<Option<String>> =
            names.iter().map(|name| row.fields.get(name).cloned().flatten()).collect();
        let (sent, received) = sums.remove(&values).unwrap_or((Sum::Unknown, Sum::Unknown));
        talkers.push(Talker {
            values,
            sent_rate: rate_of(row, row.bytes_sent_per_second),
            received_rate: rate_of(row, row.bytes_received_per_second),
            sent,
            received,
            connections: Some(row.connections),
        });
    }
    // What is not among all that move does not move; among only the busiest it may.
    let is_complete = rates.is_some_and(|rates| !rates.more && rates.interval_seconds.is_some());
    let still = if is_complete { Rate::Exactly(0.0) } else { Rate::Unknown };
    for key in keys {
        let Some((sent, received)) = sums.remove(&key) else { continue };
        talkers.push(Talker {
            values: key,
            sent_rate: still,
            received_rate: still,
            sent,
            received,
            connections: is_complete.then_some(0),
        });
    }
    let rate = |talker: &Talker| talker.sent_rate.known() + talker.received_rate.known();
    let sum = |talker: &Talker| talker.sent.known().saturating_add(talker.received.known());
    talkers.sort_by(|left, right| {
        rate(right).total_cmp(&rate(left)).then_with(|| sum(right).cmp(&sum(left)))
    });
    talkers
}

fn rate_of(row: &RateRow, rate: Option<f64>) -> Rate {
    let Some(rate) = rate else { return Rate::Unknown };
    match (row.connections_uncounted, row.connections) {
        (0, _) => Rate::Exactly(rate),
        (uncounted, all) if uncounted >= all && rate == 0.0 => Rate::Unknown,
        _ => Rate::AtLeast(rate),
    }
}

fn sum_of(report: &Report, row: &[Cell], measure: Measure) -> Sum {
    let place = report.place(Column::Measure(measure));
    match place.and_then(|place| row.get(place)) {
        Some(Cell::Number(sum)) => Sum::Exactly(*sum),
        Some(Cell::AtLeast(sum)) => Sum::AtLeast(*sum),
        _ => Sum::Unknown,
    }
}

/// The group of a row, as filters write it.
fn key_of(report: &Report, row: &[Cell], by: &[Field]) -> Option<Vec<Option<String>>> {
    by.iter()
        .map(|field| {
            let cell = row.get(report.place(Column::Field(*field))?)?;
            Some(match cell {
                Cell::Absent | Cell::Unknown => None,
                Cell::Number(number) | Cell::AtLeast(number) | Cell::Time(number) => {
                    Some(number.to_string())
                }
                Cell::IcmpType(number) => Some(number.to_string()),
                Cell::Text(text) => Some(text.clone()),
            })
        })
        .collect()
}

/// What key `g` goes through.
pub(super) fn presets() -> Vec<Vec<Field>> {
    let end = |side, field| Field::Endpoint(side, field);
    let source = end(Side::Source, EndpointField::Name);
    let destination = end(Side::Destination, EndpointField::Name);
    vec![
        vec![source, destination],
        vec![source, destination, Field::DestinationPort],
        vec![source],
        vec![destination],
        vec![end(Side::Source, EndpointField::Unit), end(Side::Destination, EndpointField::Unit)],
        vec![Field::Class],
        vec![Field::Protocol],
        vec![Field::Service],
        vec![Field::DestinationPort],
    ]
}

/// What key `g` goes through where there are workloads, nodes and zones.
pub(super) fn cluster_presets() -> Vec<Vec<Field>> {
    let end = |side, field| Field::Endpoint(side, field);
    let both = |field| vec![end(Side::Source, field), end(Side::Destination, field)];
    let owners = both(EndpointField::OwnerId);
    let mut with_port = owners.clone();
    with_port.push(Field::DestinationPort);
    vec![
        owners.clone(),
        with_port,
        vec![owners[0]],
        vec![owners[1]],
        both(EndpointField::Namespace),
        both(EndpointField::Node),
        both(EndpointField::Zone),
        vec![Field::Class],
        vec![Field::ServiceName],
        both(EndpointField::Name),
        vec![Field::Protocol],
        vec![Field::DestinationPort],
    ]
}

/// The same fields, with addresses in the place of names.
pub(super) fn by_address(by: &[Field]) -> Vec<Field> {
    by.iter()
        .map(|field| match field {
            Field::Endpoint(side, EndpointField::Name | EndpointField::OwnerId) => {
                Field::Endpoint(*side, EndpointField::Address)
            }
            other => *other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate_row(source: Option<&str>, sent: f64, uncounted: u64) -> RateRow {
        RateRow {
            fields: [("source.unit".to_owned(), source.map(str::to_owned))].into(),
            connections: 2,
            connections_uncounted: uncounted,
            bytes_sent_per_second: Some(sent),
            bytes_received_per_second: Some(0.0),
        }
    }

    fn report(rows: &[(Option<&str>, Cell)]) -> Report {
        let unit = Field::Endpoint(Side::Source, EndpointField::Unit);
        let row = |(unit, sent): &(Option<&str>, Cell)| {
            let unit = unit.map_or(Cell::Absent, |unit| Cell::Text(unit.to_owned()));
            vec![unit, sent.clone(), Cell::Unknown]
        };
        Report {
            columns: vec![
                Column::Field(unit),
                Column::Measure(Measure::BytesSent),
                Column::Measure(Measure::BytesReceived),
            ],
            rows: rows.iter().map(row).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn what_moves_and_what_was_moved_meet_by_group() {
        let by = [Field::Endpoint(Side::Source, EndpointField::Unit)];
        let mut rates = Rates {
            interval_seconds: Some(1.0),
            rates: vec![rate_row(None, 0.0, 2), rate_row(Some("a"), 5.0, 1)],
            ..Rates::default()
        };
        let report = report(&[(Some("b"), Cell::AtLeast(9)), (Some("a"), Cell::Number(7))]);
        let talkers = merge(&by, Some(&rates), Some(&report));
        let seen: Vec<_> = talkers
            .iter()
            .map(|t| (t.name("-"), t.sent_rate.text(">="), t.sent.text(">=")))
            .collect();
        let row = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(seen, [row("a", ">=5 B", "7 B"), row("b", "0", ">=9 B"), row("-", "?", "?")]);
        rates.more = true;
        let talkers = merge(&by, Some(&rates), Some(&report));
        assert_eq!(talkers[1].sent_rate, Rate::Unknown, "it may be among those left out");
        assert_eq!(merge(&by, None, None), []);
    }

    #[test]
    fn a_group_is_a_filter() {
        let by = [
            Field::Endpoint(Side::Source, EndpointField::Unit),
            Field::Endpoint(Side::Destination, EndpointField::Name),
            Field::DestinationPort,
        ];
        let talker = Talker {
            values: vec![None, Some("odd \"name\"\n".to_owned()), Some("443".to_owned())],
            sent_rate: Rate::Unknown,
            received_rate: Rate::Unknown,
            sent: Sum::Unknown,
            received: Sum::Unknown,
            connections: None,
        };
        insta::assert_snapshot!(talker.filter(&by), @r#"source.unit = none and destination.name = "odd \"name\"\n" and destination.port = 443"#);
    }
}
