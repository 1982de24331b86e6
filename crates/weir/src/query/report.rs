//! From a store's answer to a report.

use weir_flow::Field;
use weir_flow::tuple::Protocol;
use weir_store::{Cell as Stored, Column as StoredColumn, Measure, Table};

use crate::render::{Cell, Column, Report, Unit};

/// Turns a table of sums into rows ready to print. A table on a terminal shows only the fields
/// that `is_in_table` holds for.
pub(crate) fn from_table(table: &Table, is_in_table: &dyn Fn(Field) -> bool) -> Report {
    let place = |wanted: StoredColumn| table.columns.iter().position(|column| *column == wanted);
    let uncounted = place(StoredColumn::Measure(Measure::ConnectionsUncounted));
    let protocol = place(StoredColumn::Field(Field::Protocol));
    let sum = |row: &[Stored], at: Option<usize>| at.and_then(|at| row[at].sum()).unwrap_or(0);

    let any_uncounted = table.rows.iter().any(|row| sum(row, uncounted) > 0);
    let columns = table.columns.iter().map(|column| to_column(*column, is_in_table, any_uncounted));
    let rows = table.rows.iter().map(|row| {
        let doubt = Doubt {
            has_uncounted: sum(row, uncounted) > 0,
            is_icmp: protocol.is_some_and(|at| is_icmp(&row[at])),
        };
        row.iter().zip(&table.columns).map(|(cell, column)| to_cell(cell, *column, doubt)).collect()
    });
    Report {
        columns: columns.collect(),
        rows: rows.collect(),
        since: table.covers.start,
        until: table.covers.end,
        level_seconds: table.window_seconds,
        more: table.more,
    }
}

fn to_column(
    column: StoredColumn,
    is_in_table: &dyn Fn(Field) -> bool,
    any_uncounted: bool,
) -> Column {
    match column {
        StoredColumn::Bucket => {
            Column { name: "time".into(), heading: Some("TIME".into()), unit: Unit::None }
        }
        StoredColumn::Field(field) => Column {
            name: field.to_string(),
            heading: is_in_table(field).then(|| field.to_string().to_uppercase()),
            unit: Unit::None,
        },
        StoredColumn::Measure(measure) => Column {
            name: measure.to_string(),
            heading: heading(measure, any_uncounted).map(str::to_owned),
            unit: if is_bytes(measure) { Unit::Bytes } else { Unit::Count },
        },
    }
}

/// What a table has room for. Uncounted connections show only where there are any.
fn heading(measure: Measure, any_uncounted: bool) -> Option<&'static str> {
    match measure {
        Measure::Bytes => Some("BYTES"),
        Measure::BytesSent => Some("SENT"),
        Measure::BytesReceived => Some("RECEIVED"),
        Measure::Packets => Some("PACKETS"),
        Measure::ConnectionsOpened => Some("OPENED"),
        Measure::ConnectionsFailed => Some("FAILED"),
        Measure::ConnectionsUncounted => any_uncounted.then_some("UNCOUNTED"),
        Measure::PacketsSent
        | Measure::PacketsReceived
        | Measure::ConnectionsClosed
        | Measure::ConnectionsUnreplied => None,
    }
}

/// What the rest of its row says about a cell.
#[derive(Clone, Copy)]
struct Doubt {
    has_uncounted: bool,
    is_icmp: bool,
}

fn to_cell(cell: &Stored, column: StoredColumn, doubt: Doubt) -> Cell {
    match cell {
        Stored::None => Cell::Absent,
        Stored::Time(seconds) => Cell::Time(*seconds),
        Stored::Sum(sum) => match column {
            // The connections are counted even where what they carried is not.
            StoredColumn::Measure(measure) if doubt.has_uncounted && is_traffic(measure) => {
                if *sum == 0 { Cell::Unknown } else { Cell::AtLeast(*sum) }
            }
            _ => Cell::Number(*sum),
        },
        Stored::Port(port) if doubt.is_icmp => Cell::IcmpType(*port),
        Stored::Port(port) => Cell::Number(u64::from(*port)),
        Stored::IpVersion(version) => Cell::Number(u64::from(*version)),
        Stored::Text(_)
        | Stored::Address(_)
        | Stored::Service(..)
        | Stored::Protocol(_)
        | Stored::Class(_)
        | Stored::Kind(_)
        | Stored::Unresolved(_) => Cell::Text(cell.to_string()),
    }
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

#[cfg(test)]
mod tests {
    use weir_flow::Level;

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

        let report = from_table(&table(columns.clone(), row(1)), &|_| true);
        let expected = [Cell::Unknown, Cell::AtLeast(7), Cell::Number(0), Cell::Number(1)];
        assert_eq!(report.rows, [expected]);
        assert_eq!(report.columns[3].heading.as_deref(), Some("UNCOUNTED"));

        let report = from_table(&table(columns, row(0)), &|_| true);
        assert_eq!(report.rows, [[0, 7, 0, 0].map(Cell::Number)]);
        assert_eq!(report.columns[3].heading, None);
    }

    #[test]
    fn an_icmp_port_is_a_type_and_a_code() {
        let columns =
            vec![StoredColumn::Field(Field::Protocol), StoredColumn::Field(Field::DestinationPort)];
        for (protocol, port) in
            [(Protocol::ICMPV6, Cell::IcmpType(0x8000)), (Protocol::TCP, Cell::Number(0x8000))]
        {
            let row = vec![Stored::Protocol(protocol), Stored::Port(0x8000)];
            let report = from_table(&table(columns.clone(), row), &|_| true);
            assert_eq!(report.rows[0][1], port);
        }
    }
}
