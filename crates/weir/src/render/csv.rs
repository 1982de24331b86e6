//! CSV as of RFC 4180: exact numbers, unknown and absent as empty cells.

use std::io::{self, Write};

use serde_json::Value;
use weir_server::moment;

use super::{Cell, Column, Shown};

/// Writes the line of names.
pub(super) fn write_names(columns: &[Column], out: &mut dyn Write) -> io::Result<()> {
    line(out, columns.iter().map(|column| cell(&column.name)))
}

/// Writes rows, a line each.
pub(super) fn write_cells(rows: &[Vec<Cell>], out: &mut dyn Write) -> io::Result<()> {
    rows.iter().try_for_each(|row| line(out, row.iter().map(text)))
}

/// Writes one column.
pub(super) fn write_values(name: &str, values: &[String], out: &mut dyn Write) -> io::Result<()> {
    line(out, [cell(name)].into_iter())?;
    values.iter().try_for_each(|value| line(out, [cell(value)].into_iter()))
}

/// Writes lines of name and value; names of nested values are joined by dots.
pub(super) fn write_object(object: &Value, out: &mut dyn Write) -> io::Result<()> {
    line(out, ["name", "value"].map(str::to_owned).into_iter())?;
    let fields = object.as_object().into_iter().flatten();
    fields.into_iter().try_for_each(|(name, value)| flatten(name, value, out))
}

fn flatten(name: &str, value: &Value, out: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Object(object) => object
            .iter()
            .try_for_each(|(inner, value)| flatten(&format!("{name}.{inner}"), value, out)),
        Value::Array(values) => values
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| flatten(&format!("{name}.{index}"), value, out)),
        Value::Null => line(out, [cell(name), String::new()].into_iter()),
        Value::String(text) => line(out, [cell(name), cell(text)].into_iter()),
        Value::Bool(_) | Value::Number(_) => line(out, [cell(name), value.to_string()].into_iter()),
    }
}

fn text(of: &Cell) -> String {
    match of {
        Cell::Absent | Cell::Unknown => String::new(),
        Cell::Number(number) | Cell::AtLeast(number) => number.to_string(),
        Cell::IcmpType(number) => number.to_string(),
        Cell::Time(seconds) => moment::rfc3339(*seconds),
        Cell::Text(text) => cell(text),
    }
}

/// A text cell. Spreadsheets run what begins like a formula, so a quote goes before it.
fn cell(text: &str) -> String {
    let mut shown = Shown(text).to_string();
    if shown.starts_with(['=', '+', '-', '@']) {
        shown.insert(0, '\'');
    }
    if shown.contains(['"', ',']) || shown.starts_with(' ') || shown.ends_with(' ') {
        shown = format!("\"{}\"", shown.replace('"', "\"\""));
    }
    shown
}

fn line(out: &mut dyn Write, cells: impl Iterator<Item = String>) -> io::Result<()> {
    let cells: Vec<String> = cells.collect();
    writeln!(out, "{}", cells.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        for (text, expected) in [
            ("nginx.service", "nginx.service"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@a", "'@a"),
            ("two\nlines", "two\\nlines"),
            (" a", "\" a\""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
