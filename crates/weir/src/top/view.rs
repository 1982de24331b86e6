//! From a reading to what is shown: a table for people, JSON and CSV for programs.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use weir_flow::attribution::Question;
use weir_flow::{Directory, Endpoint, Name, Side, WallTime, port};

use super::measured::{Bytes, Measured, Place, Reading, Source, rank};
use crate::args::Format;
use crate::render::{self, Cell, Column, Row, Style, Unit};
use weir_server::moment;

/// The busiest connections, named.
#[derive(Debug)]
pub(crate) struct View {
    source: Source,
    interval: Duration,
    now: WallTime,
    connections: Vec<Named>,
    /// Connections there were before the limit.
    found: usize,
    doubts: Vec<String>,
}

#[derive(Debug)]
struct Named {
    measured: Measured,
    source: Arc<Endpoint>,
    destination: Arc<Endpoint>,
}

/// The answer in JSON.
#[derive(Serialize)]
struct Answer<'a> {
    source: &'a str,
    complete: bool,
    reason: Option<String>,
    interval_seconds: f64,
    more: bool,
    connections: Vec<Row<'a>>,
}

impl View {
    /// Ranks a reading, and names those of its ends that are shown.
    pub(crate) fn new(reading: Reading, limit: Option<usize>, directory: &dyn Directory) -> Self {
        let Reading { source, interval, now, mut connections, doubts } = reading;
        let found = connections.len();
        rank(&mut connections, limit);
        let connections =
            connections.into_iter().map(|measured| name(measured, now, directory)).collect();
        Self { source, interval, now, connections, found, doubts }
    }

    /// What keeps the answer from being complete.
    pub(crate) fn doubts(&self) -> &[String] {
        &self.doubts
    }

    /// Writes it in any form.
    pub(crate) fn write(
        &self,
        format: Format,
        style: Style,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match format {
            Format::Table => self.write_table(style, out),
            Format::Json => self.write_json(out),
            Format::Csv => self.write_csv(out),
        }
    }

    /// Writes a table, and below it what the numbers are.
    pub(crate) fn write_table(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<Vec<Cell>> = self.connections.iter().map(|named| self.line(named)).collect();
        if !rows.is_empty() {
            render::write_rows(&self.table_columns(), &rows, style, out)?;
        }
        writeln!(out, "{}", style.dim(self.caption()))
    }

    fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = columns();
        let rows: Vec<Vec<Cell>> = self.connections.iter().map(|named| self.row(named)).collect();
        let answer = Answer {
            source: self.source.name(),
            complete: self.doubts.is_empty(),
            reason: (!self.doubts.is_empty()).then(|| self.doubts.join("; ")),
            interval_seconds: self.interval.as_secs_f64(),
            more: self.found > rows.len(),
            connections: rows.iter().map(|cells| Row { columns: &columns, cells }).collect(),
        };
        render::write_json(&answer, out)
    }

    /// The source is a column: a spreadsheet has no other place for it.
    fn write_csv(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut columns = columns();
        columns.insert(0, column("source", None, Unit::None));
        let source = Cell::Text(self.source.name().to_owned());
        let rows: Vec<Vec<Cell>> = self
            .connections
            .iter()
            .map(|named| [vec![source.clone()], self.row(named)].concat())
            .collect();
        render::write_csv(&columns, &rows, out)
    }

    fn caption(&self) -> String {
        let shown = self.connections.len();
        let more = if self.found > shown { " (--limit 0 shows all)" } else { "" };
        let bytes = match self.source {
            Source::Conntrack => "bytes with IP headers",
            Source::Sockets => "payload bytes",
        };
        format!(
            "{shown} of {} connections{more}, from {}, {bytes}, rates over {:.2} s",
            self.found,
            self.source.name(),
            self.interval.as_secs_f64()
        )
    }

    /// What sockets do not tell is not shown.
    fn table_columns(&self) -> Vec<Column> {
        let tracked = self.source == Source::Conntrack;
        let if_tracked = |heading| tracked.then_some(heading);
        vec![
            column("protocol", Some("PROTO"), Unit::None),
            column("source", Some("SOURCE"), Unit::None),
            column("destination", Some("DESTINATION"), Unit::None),
            column("service", if_tracked("SERVICE"), Unit::None),
            column("state", if_tracked("STATE"), Unit::None),
            column("port_name", Some("PORT"), Unit::None),
            column("bytes_sent_per_second", Some("SENT/S"), Unit::Bytes),
            column("bytes_received_per_second", Some("RECEIVED/S"), Unit::Bytes),
            column("bytes_sent", Some("SENT"), Unit::Bytes),
            column("bytes_received", Some("RECEIVED"), Unit::Bytes),
            column("age", if_tracked("AGE"), Unit::Count),
        ]
    }

    /// A line for people.
    fn line(&self, named: &Named) -> Vec<Cell> {
        let Named { measured, source, destination } = named;
        let is_icmp = measured.protocol.is_icmp();
        let port = |(_, number): Place| (number != 0 && !is_icmp).then_some(number);
        let port_name = if is_icmp {
            Cell::IcmpType(measured.destination.1)
        } else {
            text_or_absent(port_name(measured))
        };
        let mut cells = vec![
            Cell::Text(measured.protocol.to_string()),
            Cell::Text(with_port(source, port(measured.source))),
            Cell::Text(with_port(destination, port(measured.destination))),
            text_or_absent(measured.service.map(|service| place(service, is_icmp))),
            measured.state.map_or(Cell::Unknown, |state| Cell::Text(state.to_owned())),
            port_name,
        ];
        cells.extend(numbers(measured));
        cells.push(match self.age_seconds(measured) {
            Some(age) => Cell::Text(moment::human(age)),
            None => Cell::Unknown,
        });
        cells
    }

    /// A row for programs; see [`columns`].
    fn row(&self, named: &Named) -> Vec<Cell> {
        let Named { measured, source, destination } = named;
        let is_icmp = measured.protocol.is_icmp();
        let mut cells = vec![Cell::Text(measured.protocol.to_string())];
        cells.extend(end(source, Cell::Number(measured.source.1.into())));
        let port = if is_icmp {
            Cell::IcmpType(measured.destination.1)
        } else {
            Cell::Number(measured.destination.1.into())
        };
        cells.extend(end(destination, port));
        let translated = measured.translated_source;
        cells.extend([
            text_or_absent(measured.service.map(|service| place(service, is_icmp))),
            text_or_absent(translated.map(|translated| place(translated, is_icmp))),
            text_or_absent(measured.state.map(str::to_owned)),
            text_or_absent(port_name(measured)),
        ]);
        cells.extend(numbers(measured));
        cells.push(self.age_seconds(measured).map_or(Cell::Unknown, Cell::Number));
        cells
    }

    fn age_seconds(&self, measured: &Measured) -> Option<u64> {
        let age_nanos = self.now.0.saturating_sub(measured.start?.0);
        Some(WallTime(age_nanos).seconds())
    }
}

/// The columns for programs, named as those of `weir query`.
fn columns() -> Vec<Column> {
    const END: [&str; 10] = [
        "id",
        "name",
        "kind",
        "address",
        "port",
        "host",
        "unit",
        "container",
        "executable",
        "unresolved",
    ];
    let end =
        |side: &'static str| END.map(|field| column(&format!("{side}.{field}"), None, Unit::None));
    let mut columns = vec![column("protocol", None, Unit::None)];
    columns.extend(end("source"));
    columns.extend(end("destination"));
    let rest = ["service", "translated_source", "state", "port_name"];
    columns.extend(rest.map(|name| column(name, None, Unit::None)));
    let numbers = [
        "bytes_sent_per_second",
        "bytes_received_per_second",
        "bytes_sent",
        "bytes_received",
        "age_seconds",
    ];
    columns.extend(numbers.map(|name| column(name, None, Unit::Bytes)));
    columns
}

fn column(name: &str, heading: Option<&str>, unit: Unit) -> Column {
    Column { name: name.to_owned(), heading: heading.map(str::to_owned), unit }
}

/// Cells of one end, in the order of [`columns`].
fn end(endpoint: &Endpoint, port: Cell) -> [Cell; 10] {
    let Endpoint { kind, address, host, unit, container, executable, unresolved, .. } = endpoint;
    let name = |name: &Option<Name>| text_or_absent(name.as_deref().map(str::to_owned));
    [
        Cell::Text(endpoint.id()),
        Cell::Text(name_of(endpoint)),
        Cell::Text(kind.name().to_owned()),
        Cell::Text(address.to_string()),
        port,
        name(host),
        name(unit),
        name(container),
        name(executable),
        text_or_absent(unresolved.map(|reason| reason.name().to_owned())),
    ]
}

fn numbers(measured: &Measured) -> [Cell; 4] {
    let pair = |bytes: Option<Bytes>| match bytes {
        Some(Bytes { sent, received }) => [Cell::Number(sent), Cell::Number(received)],
        None => [Cell::Unknown, Cell::Unknown],
    };
    let ([a, b], [c, d]) = (pair(measured.per_second), pair(measured.total));
    [a, b, c, d]
}

/// Each end is looked for by the addresses that its own socket has, as in
/// [`weir_flow::attribution::attribute`].
fn name(measured: Measured, now: WallTime, directory: &dyn Directory) -> Named {
    let ask = |side, own: Place, peer: Place| {
        directory.resolve(&Question {
            side,
            protocol: measured.protocol,
            address: own.0,
            port: own.1,
            peer_address: peer.0,
            peer_port: peer.1,
            at: measured.start.unwrap_or(now),
            latest: measured.start.unwrap_or(now),
        })
    };
    let dialled = measured.service.unwrap_or(measured.destination);
    let seen_source = measured.translated_source.unwrap_or(measured.source);
    let source = ask(Side::Source, measured.source, dialled);
    let destination = ask(Side::Destination, measured.destination, seen_source);
    Named { measured, source, destination }
}

/// The unit, container or executable, else the address: the host is this machine all the time.
fn name_of(endpoint: &Endpoint) -> String {
    let Endpoint { unit, container, executable, .. } = endpoint;
    let name = [unit, container, executable].into_iter().find_map(Option::as_deref);
    name.map_or_else(|| endpoint.address.to_string(), str::to_owned)
}

fn with_port(endpoint: &Endpoint, port: Option<u16>) -> String {
    let name = name_of(endpoint);
    match (port, endpoint.address) {
        (None, _) => name,
        (Some(port), IpAddr::V6(address)) if name == address.to_string() => {
            format!("[{name}]:{port}")
        }
        (Some(port), _) => format!("{name}:{port}"),
    }
}

fn place((address, number): Place, is_icmp: bool) -> String {
    if is_icmp { address.to_string() } else { SocketAddr::new(address, number).to_string() }
}

fn port_name(measured: &Measured) -> Option<String> {
    let dialled = measured.service.unwrap_or(measured.destination).1;
    let name = |number| port::service_name(measured.protocol, number);
    name(measured.destination.1).or_else(|| name(dialled)).map(str::to_owned)
}

fn text_or_absent(text: Option<String>) -> Cell {
    text.map_or(Cell::Absent, Cell::Text)
}
