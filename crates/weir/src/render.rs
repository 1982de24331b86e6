//! From an answer to text: a table for people, JSON and CSV for programs.

mod csv;
mod json;
mod number;
mod report;
mod shown;
mod style;
mod table;

use std::io::{self, BufWriter, IsTerminal as _, Write};

use serde::Serialize;
use weir_server::answer::Report;

use self::table::Table;
use crate::args::Format;

pub(crate) use json::{Row, write_value as write_json};
pub(crate) use number::bytes;
pub(crate) use report::Pages;
pub(crate) use shown::Shown;
pub(crate) use style::Style;
pub(crate) use weir_server::answer::{Cell, Unit};

/// What a column looks like.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name in JSON and CSV.
    pub(crate) name: String,
    /// Its name in a table; `None` where tables leave it out.
    pub(crate) heading: Option<String>,
    /// What its numbers count.
    pub(crate) unit: Unit,
}

/// Prints a report on stdout.
pub(crate) fn print(report: &Report, format: Format) -> io::Result<()> {
    to_stdout(|out, style| {
        let mut pages = Pages::new(format, style, &|_| true, out);
        pages.page(report)?;
        pages.finish(report.more)
    })
}

/// Writes a report as a table for people.
pub(crate) fn write_table(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let mut pages = Pages::new(Format::Table, style, &|_| true, out);
    pages.page(report)?;
    pages.finish(report.more)
}

/// Writes headings and rows for people, without a word on what they cover.
pub(crate) fn write_rows(
    columns: &[Column],
    rows: &[Vec<Cell>],
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut table = Table::new(columns);
    table.fit(rows);
    table.write_headings(style, out)?;
    table.write_rows(rows, out)
}

/// Writes a line of names, then the rows, as CSV.
pub(crate) fn write_csv(
    columns: &[Column],
    rows: &[Vec<Cell>],
    out: &mut dyn Write,
) -> io::Result<()> {
    csv::write_names(columns, out)?;
    csv::write_cells(rows, out)
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
    object: &impl Serialize,
    format: Format,
    for_people: impl FnOnce(&mut dyn Write, Style) -> io::Result<()>,
) -> io::Result<()> {
    to_stdout(|out, style| match format {
        Format::Table => for_people(out, style),
        Format::Json => json::write_value(object, out),
        Format::Csv => csv::write_object(&serde_json::to_value(object)?, out),
    })
}

/// Prints what `write` writes on stdout, coloured where somebody sees it.
pub(crate) fn to_stdout<E: From<io::Error>>(
    write: impl FnOnce(&mut dyn Write, Style) -> Result<(), E>,
) -> Result<(), E> {
    let stdout = io::stdout();
    let style = Style::choose(stdout.is_terminal(), std::env::var_os("NO_COLOR").as_deref());
    let mut out = BufWriter::new(stdout.lock());
    write(&mut out, style)?;
    Ok(out.flush()?)
}
