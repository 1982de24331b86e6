//! From an answer to text: a table for people, JSON and CSV for programs.

mod csv;
mod json;
mod number;
mod shown;
mod style;
mod table;

use std::io::{self, BufWriter, IsTerminal as _, Write};

use crate::args::Format;

pub(crate) use json::{Row, write_value as write_json};
pub(crate) use number::bytes;
pub(crate) use shown::Shown;
pub(crate) use style::Style;

/// Rows and what they are about, ready to print.
#[derive(Debug)]
pub(crate) struct Report {
    /// What each cell of a row is.
    pub(crate) columns: Vec<Column>,
    /// The cells, one per column.
    pub(crate) rows: Vec<Vec<Cell>>,
    /// Seconds since 1970: the range the rows cover.
    pub(crate) since: u64,
    /// Seconds since 1970: its end, not included.
    pub(crate) until: u64,
    /// Length of the windows that were summed.
    pub(crate) level_seconds: u64,
    /// True when a limit left rows out.
    pub(crate) more: bool,
}

/// A column of a report.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name in JSON and CSV.
    pub(crate) name: String,
    /// Its name in a table; `None` where tables leave it out.
    pub(crate) heading: Option<String>,
    /// What its numbers count.
    pub(crate) unit: Unit,
}

/// What a column's numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nothing: names, ports, times.
    None,
    /// Bytes.
    Bytes,
    /// Packets or connections.
    Count,
}

/// A cell of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// There is no such thing (no service was dialled, no unit is known).
    Absent,
    /// There is a number, but nobody counted it.
    Unknown,
    /// A sum.
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

/// Prints a report on stdout.
pub(crate) fn print(report: &Report, format: Format) -> io::Result<()> {
    to_stdout(|out, style| match format {
        Format::Table => table::write(report, style, out),
        Format::Json => json::write(report, out),
        Format::Csv => csv::write(report, out),
    })
}

/// Writes a report as a table for people.
pub(crate) fn write_table(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    table::write(report, style, out)
}

/// Writes headings and rows for people, without a word on what they cover.
pub(crate) fn write_rows(
    columns: &[Column],
    rows: &[Vec<Cell>],
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    table::write_rows(columns, rows, style, out)
}

/// Writes a line of names, then the rows, as CSV.
pub(crate) fn write_csv(
    columns: &[Column],
    rows: &[Vec<Cell>],
    out: &mut dyn Write,
) -> io::Result<()> {
    csv::write_rows(columns, rows, out)
}

/// Prints a list of values on stdout, a line each, or as a JSON array.
pub(crate) fn print_values(name: &str, values: &[String], format: Format) -> io::Result<()> {
    to_stdout(|out, _| match format {
        Format::Table => values.iter().try_for_each(|value| writeln!(out, "{}", Shown(value))),
        Format::Json => json::write_value(&serde_json::json!(values), out),
        Format::Csv => csv::write_values(name, values, out),
    })
}

/// Prints one object on stdout: JSON as it is, CSV as lines of name and value; for people as
/// `for_people` writes it.
pub(crate) fn print_object(
    object: &serde_json::Map<String, serde_json::Value>,
    format: Format,
    for_people: impl FnOnce(&mut dyn Write, Style) -> io::Result<()>,
) -> io::Result<()> {
    to_stdout(|out, style| match format {
        Format::Table => for_people(out, style),
        Format::Json => json::write_value(object, out),
        Format::Csv => csv::write_object(object, out),
    })
}

/// Prints what `write` writes on stdout, coloured where somebody sees it.
pub(crate) fn to_stdout(
    write: impl FnOnce(&mut dyn Write, Style) -> io::Result<()>,
) -> io::Result<()> {
    let stdout = io::stdout();
    let style = Style::choose(stdout.is_terminal(), std::env::var_os("NO_COLOR").as_deref());
    let mut out = BufWriter::new(stdout.lock());
    write(&mut out, style)?;
    out.flush()
}
