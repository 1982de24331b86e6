//! Rows of sums, with what is unknown told apart from what is zero.

use serde::de::Error as _;
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use weir_flow::{Field, Protocol};
use weir_store::{Cell as Stored, Column as StoredColumn, Measure, Table};

use crate::moment;

/// Rows and what they are about.
///
/// As JSON it is an object: `columns` (names), `rows` (an object each, absent and unknown as
/// null), `since`, `until`, `level_seconds`, `step_seconds`, `more`. It reads back what it wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What each cell of a row is.
    pub columns: Vec<Column>,
    /// The cells, one per column.
    pub rows: Vec<Vec<Cell>>,
    /// Seconds since 1970: the range the rows cover.
    pub since: u64,
    /// Seconds since 1970: its end, not included.
    pub until: u64,
    /// Length of the windows that were summed, seconds.
    pub level_seconds: u64,
    /// Length of the steps, where there are any, seconds.
    pub step_seconds: Option<u64>,
    /// True when a limit left rows out.
    pub more: bool,
}

/// A column of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// `time`: the start of a step.
    Time,
    /// A field the rows are summed by.
    Field(Field),
    /// A sum.
    Measure(Measure),
}

/// What a column's numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nothing: names, ports, times.
    None,
    /// Bytes.
    Bytes,
    /// Packets or connections.
    Count,
}

/// A cell of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// There is no such thing (no service was dialled, no unit is known).
    Absent,
    /// There is a number, but nobody counted it.
    Unknown,
    /// A sum, or a port.
    Number(u64),
    /// A sum in which something uncounted took part.
    AtLeast(u64),
    /// An ICMP type and code, in the place of a port.
    IcmpType(u16),
    /// Seconds since 1970.
    Time(u64),
    /// A name.
    Text(String),
}

impl Column {
    /// `time`, or the field's or measure's own name.
    pub fn name(self) -> String {
        match self {
            Self::Time => "time".to_owned(),
            Self::Field(field) => field.to_string(),
            Self::Measure(measure) => measure.to_string(),
        }
    }

    /// The column with this name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "time" => Some(Self::Time),
            _ => Measure::parse(text)
                .map(Self::Measure)
                .or_else(|| Field::parse(text).map(Self::Field)),
        }
    }

    /// What its numbers count.
    pub fn unit(self) -> Unit {
        match self {
            Self::Time | Self::Field(_) => Unit::None,
            Self::Measure(measure) if is_bytes(measure) => Unit::Bytes,
            Self::Measure(_) => Unit::Count,
        }
    }
}

impl Report {
    /// From a store's answer.
    pub fn from_table(table: &Table) -> Self {
        let columns: Vec<Column> = table.columns.iter().map(|column| to_column(*column)).collect();
        let place = |wanted: Column| columns.iter().position(|column| *column == wanted);
        let uncounted = place(Column::Measure(Measure::ConnectionsUncounted));
        let protocol = place(Column::Field(Field::Protocol));
        let rows = table.rows.iter().map(|row| {
            let sum = uncounted.and_then(|at| row[at].sum()).unwrap_or(0);
            let doubt = Doubt {
                has_uncounted: sum > 0,
                is_icmp: protocol.is_some_and(|at| is_icmp(&row[at])),
            };
            row.iter().zip(&columns).map(|(cell, column)| to_cell(cell, *column, doubt)).collect()
        });
        Self {
            rows: rows.collect(),
            since: table.covers.start,
            until: table.covers.end,
            level_seconds: table.window_seconds,
            step_seconds: table.bucket_seconds,
            more: table.more,
            columns,
        }
    }

    /// The place of a column.
    pub fn place(&self, wanted: Column) -> Option<usize> {
        self.columns.iter().position(|column| *column == wanted)
    }

    fn from_parts(parts: &Parts) -> Result<Self, String> {
        let columns = parts
            .columns
            .iter()
            .map(|name| Column::parse(name).ok_or_else(|| format!("unknown column {name:?}")))
            .collect::<Result<Vec<_>, _>>()?;
        let rows =
            parts.rows.iter().map(|row| from_row(&columns, row)).collect::<Result<Vec<_>, _>>()?;
        let time = |text: &str| {
            moment::parse_rfc3339(text).ok_or_else(|| format!("{text:?} is not an RFC 3339 time"))
        };
        Ok(Self {
            rows,
            since: time(&parts.since)?,
            until: time(&parts.until)?,
            level_seconds: parts.level_seconds,
            step_seconds: parts.step_seconds,
            more: parts.more,
            columns,
        })
    }
}

fn to_column(column: StoredColumn) -> Column {
    match column {
        StoredColumn::Bucket => Column::Time,
        StoredColumn::Field(field) => Column::Field(field),
        StoredColumn::Measure(measure) => Column::Measure(measure),
    }
}

/// What the rest of its row says about a cell.
#[derive(Clone, Copy)]
struct Doubt {
    has_uncounted: bool,
    is_icmp: bool,
}

impl Doubt {
    /// The connections are counted even where what they carried is not.
    fn sum(self, column: Column, sum: u64) -> Cell {
        match column {
            Column::Measure(measure) if self.has_uncounted && is_traffic(measure) => {
                if sum == 0 {
                    Cell::Unknown
                } else {
                    Cell::AtLeast(sum)
                }
            }
            _ => Cell::Number(sum),
        }
    }

    fn port(self, port: u16) -> Cell {
        if self.is_icmp { Cell::IcmpType(port) } else { Cell::Number(u64::from(port)) }
    }
}

fn to_cell(cell: &Stored, column: Column, doubt: Doubt) -> Cell {
    match cell {
        Stored::None => Cell::Absent,
        Stored::Time(seconds) => Cell::Time(*seconds),
        Stored::Sum(sum) => doubt.sum(column, *sum),
        Stored::Port(port) => doubt.port(*port),
        Stored::IpVersion(version) => Cell::Number(u64::from(*version)),
        Stored::Text(_)
        | Stored::Address(_)
        | Stored::Service(..)
        | Stored::Protocol(_)
        | Stored::Class(_)
        | Stored::Kind(_)
        | Stored::Resolution(_)
        | Stored::Unresolved(_) => Cell::Text(cell.to_string()),
    }
}

/// Reads a row back, telling the unknown from the absent as [`Report::from_table`] did.
fn from_row(columns: &[Column], row: &Map<String, Value>) -> Result<Vec<Cell>, String> {
    let text = |column: Column| row.get(&column.name()).and_then(Value::as_str);
    let uncounted = Column::Measure(Measure::ConnectionsUncounted);
    let sum = row.get(&uncounted.name()).and_then(Value::as_u64).unwrap_or(0);
    let is_icmp = text(Column::Field(Field::Protocol)).is_some_and(|name| {
        [Protocol::ICMP, Protocol::ICMPV6].iter().any(|p| p.to_string() == name)
    });
    let doubt = Doubt { has_uncounted: sum > 0, is_icmp };
    columns
        .iter()
        .map(|column| {
            let value = row.get(&column.name()).unwrap_or(&Value::Null);
            let cell = match (column, value) {
                (Column::Measure(_), Value::Null) => Some(Cell::Unknown),
                (_, Value::Null) => Some(Cell::Absent),
                (Column::Time, Value::String(text)) => moment::parse_rfc3339(text).map(Cell::Time),
                (Column::Field(Field::DestinationPort), Value::Number(_)) => {
                    value.as_u64().and_then(|port| u16::try_from(port).ok()).map(|p| doubt.port(p))
                }
                (Column::Field(_), Value::String(text)) => Some(Cell::Text(text.clone())),
                (_, Value::Number(_)) => value.as_u64().map(|sum| doubt.sum(*column, sum)),
                _ => None,
            };
            cell.ok_or_else(|| format!("{} is {value}, which it cannot be", column.name()))
        })
        .collect()
}

fn is_icmp(cell: &Stored) -> bool {
    matches!(cell, Stored::Protocol(Protocol::ICMP | Protocol::ICMPV6))
}

fn is_bytes(measure: Measure) -> bool {
    matches!(measure, Measure::Bytes | Measure::BytesSent | Measure::BytesReceived)
}

fn is_traffic(measure: Measure) -> bool {
    is_bytes(measure)
        || matches!(measure, Measure::Packets | Measure::PacketsSent | Measure::PacketsReceived)
}

/// The JSON form, unread.
#[derive(Deserialize)]
struct Parts {
    columns: Vec<String>,
    rows: Vec<Map<String, Value>>,
    since: String,
    until: String,
    level_seconds: u64,
    step_seconds: Option<u64>,
    more: bool,
}

impl<'de> Deserialize<'de> for Report {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_parts(&Parts::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names: Vec<String> = self.columns.iter().map(|column| column.name()).collect();
        let rows: Vec<Row<'_>> =
            self.rows.iter().map(|cells| Row { names: &names, cells }).collect();
        let mut map = serializer.serialize_map(Some(7))?;
        map.serialize_entry("columns", &names)?;
        map.serialize_entry("rows", &rows)?;
        map.serialize_entry("since", &moment::rfc3339(self.since))?;
        map.serialize_entry("until", &moment::rfc3339(self.until))?;
        map.serialize_entry("level_seconds", &self.level_seconds)?;
        map.serialize_entry("step_seconds", &self.step_seconds)?;
        map.serialize_entry("more", &self.more)?;
        map.end()
    }
}

/// A row as an object, its columns in their order.
struct Row<'a> {
    names: &'a [String],
    cells: &'a [Cell],
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.names.iter().zip(self.cells))
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent | Self::Unknown => serializer.serialize_unit(),
            Self::Number(number) | Self::AtLeast(number) => serializer.serialize_u64(*number),
            Self::IcmpType(number) => serializer.serialize_u16(*number),
            Self::Time(seconds) => serializer.serialize_str(&moment::rfc3339(*seconds)),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_flow::{EndpointField, Level, Side};

    use super::*;

    fn table(columns: Vec<StoredColumn>, row: Vec<Stored>) -> Table {
        Table {
            columns,
            rows: vec![row],
            level: Level::TenSeconds,
            window_seconds: 10,
            bucket_seconds: None,
            covers: 0..10,
            more: false,
        }
    }

    #[test]
    fn what_nobody_counted_is_unknown_and_never_zero() {
        let columns = [
            Measure::BytesSent,
            Measure::BytesReceived,
            Measure::ConnectionsOpened,
            Measure::ConnectionsUncounted,
        ];
        let columns: Vec<_> = columns.into_iter().map(StoredColumn::Measure).collect();
        let row = |uncounted| [0, 7, 0, uncounted].into_iter().map(Stored::Sum).collect();

        let report = Report::from_table(&table(columns.clone(), row(1)));
        let expected = [Cell::Unknown, Cell::AtLeast(7), Cell::Number(0), Cell::Number(1)];
        assert_eq!(report.rows, [expected]);

        let report = Report::from_table(&table(columns, row(0)));
        assert_eq!(report.rows, [[0, 7, 0, 0].map(Cell::Number)]);
    }

    #[test]
    fn an_icmp_port_is_a_type_and_a_code() {
        let columns =
            vec![StoredColumn::Field(Field::Protocol), StoredColumn::Field(Field::DestinationPort)];
        for (protocol, port) in
            [(Protocol::ICMPV6, Cell::IcmpType(0x8000)), (Protocol::TCP, Cell::Number(0x8000))]
        {
            let row = vec![Stored::Protocol(protocol), Stored::Port(0x8000)];
            let report = Report::from_table(&table(columns.clone(), row));
            assert_eq!(report.rows[0][1], port);
        }
    }

    #[test]
    fn json_reads_back_as_what_was_written() {
        let name = StoredColumn::Field(Field::Endpoint(Side::Source, EndpointField::Name));
        let columns = vec![
            StoredColumn::Bucket,
            name,
            StoredColumn::Field(Field::Service),
            StoredColumn::Field(Field::Protocol),
            StoredColumn::Field(Field::DestinationPort),
            StoredColumn::Measure(Measure::BytesSent),
            StoredColumn::Measure(Measure::BytesReceived),
            StoredColumn::Measure(Measure::ConnectionsUncounted),
        ];
        let row = vec![
            Stored::Time(1_769_846_400),
            Stored::Text("nginx".into()),
            Stored::None,
            Stored::Protocol(Protocol::ICMP),
            Stored::Port(0x800),
            Stored::Sum(0),
            Stored::Sum(u64::MAX),
            Stored::Sum(1),
        ];
        let report = Report::from_table(&table(columns, row));
        let json = serde_json::to_string(&report).unwrap();
        let back: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(back, report, "{json}");
    }

    #[test]
    fn what_is_not_a_report_is_refused() {
        for json in [
            "{}",
            r#"{"columns":["x"],"rows":[],"since":"1970-01-01T00:00:00Z","until":"1970-01-01T00:00:00Z","level_seconds":1,"more":false}"#,
            r#"{"columns":["bytes"],"rows":[{"bytes":"7"}],"since":"1970-01-01T00:00:00Z","until":"1970-01-01T00:00:00Z","level_seconds":1,"more":false}"#,
            r#"{"columns":[],"rows":[],"since":"now","until":"1970-01-01T00:00:00Z","level_seconds":1,"more":false}"#,
        ] {
            assert!(serde_json::from_str::<Report>(json).is_err(), "{json}");
        }
    }
}
