//! A table for people: aligned, numbers to the right, with what they cover below.

use std::io::{self, Write};

use super::{Cell, Column, Report, Shown, Style, Unit, bytes};
use crate::since;

/// Text longer than this is cut; JSON and CSV have it whole.
const WIDEST: usize = 48;

/// Writes headings, rows, and a line that says what they cover.
pub(super) fn write(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    if !report.rows.is_empty() {
        write_rows(&report.columns, &report.rows, style, out)?;
    }
    writeln!(out, "{}", style.dim(caption(report)))
}

/// Writes headings and rows.
pub(super) fn write_rows(
    columns: &[Column],
    rows: &[Vec<Cell>],
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let shown: Vec<(usize, &str, Unit)> = columns
        .iter()
        .enumerate()
        .filter_map(|(index, column)| Some((index, column.heading.as_deref()?, column.unit)))
        .collect();
    let texts: Vec<Vec<String>> = rows
        .iter()
        .map(|row| shown.iter().map(|(index, _, unit)| text(&row[*index], *unit)).collect())
        .collect();
    let widths: Vec<usize> = shown
        .iter()
        .enumerate()
        .map(|(at, (_, heading, _))| {
            let cells = texts.iter().map(|row| row[at].chars().count());
            cells.chain([heading.chars().count()]).max().unwrap_or(0)
        })
        .collect();

    let headings = shown.iter().map(|(_, heading, _)| *heading);
    let line = aligned(headings, &shown, &widths);
    writeln!(out, "{}", style.bold(line))?;
    for row in &texts {
        let line = aligned(row.iter(), &shown, &widths);
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn aligned(
    cells: impl Iterator<Item: AsRef<str>>,
    columns: &[(usize, &str, Unit)],
    widths: &[usize],
) -> String {
    let mut line = String::new();
    for ((cell, (_, _, unit)), width) in cells.zip(columns).zip(widths) {
        let cell = cell.as_ref();
        if !line.is_empty() {
            line.push_str("  ");
        }
        let padding = " ".repeat(width - cell.chars().count());
        match unit {
            Unit::None => line.extend([cell, &padding]),
            Unit::Bytes | Unit::Count => line.extend([&padding, cell]),
        }
    }
    line.truncate(line.trim_end().len());
    line
}

fn text(cell: &Cell, unit: Unit) -> String {
    let number = |number: u64| match unit {
        Unit::Bytes => bytes(number),
        Unit::None | Unit::Count => number.to_string(),
    };
    match cell {
        Cell::Absent => "-".to_owned(),
        Cell::Unknown => "?".to_owned(),
        Cell::Number(sum) => number(*sum),
        Cell::AtLeast(sum) => format!("≥{}", number(*sum)),
        Cell::IcmpType(port) => format!("{}/{}", port >> 8, port & 0xff),
        Cell::Time(seconds) => since::rfc3339(*seconds),
        Cell::Text(text) => cut(&Shown(text).to_string()),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDEST {
        return text.to_owned();
    }
    text.chars().take(WIDEST - 1).chain(['…']).collect()
}

fn caption(report: &Report) -> String {
    let rows = match report.rows.len() {
        0 => "no flows".to_owned(),
        1 => "1 row".to_owned(),
        rows => format!("{rows} rows"),
    };
    format!(
        "{rows}{} from {} to {}, from windows of {}",
        if report.more { " (there are more: --limit)" } else { "" },
        since::rfc3339(report.since),
        since::rfc3339(report.until),
        since::human(report.level_seconds)
    )
}
