//! A table for people: aligned, numbers to the right.

use std::io::{self, Write};

use weir_server::moment;

use super::{Cell, Column, Shown, Style, Unit, bytes};

/// Text longer than this is cut; JSON and CSV have it whole.
const WIDEST: usize = 48;

/// The columns that are shown, as wide as what was shown in them so far.
pub(super) struct Table(Vec<Place>);

struct Place {
    /// Which cell of a row.
    at: usize,
    heading: String,
    unit: Unit,
    width: usize,
}

impl Table {
    /// A table of those columns that have a heading.
    pub(super) fn new(columns: &[Column]) -> Self {
        let places = columns.iter().enumerate().filter_map(|(at, column)| {
            let heading = column.heading.clone()?;
            Some(Place { at, width: heading.chars().count(), heading, unit: column.unit })
        });
        Self(places.collect())
    }

    /// Makes room for these rows.
    pub(super) fn fit(&mut self, rows: &[Vec<Cell>]) {
        for place in &mut self.0 {
            let widths = rows.iter().map(|row| text(&row[place.at], place.unit).chars().count());
            place.width = widths.max().unwrap_or(0).max(place.width);
        }
    }

    /// Writes the line of headings.
    pub(super) fn write_headings(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        let headings = self.0.iter().map(|place| place.heading.clone());
        writeln!(out, "{}", style.bold(self.aligned(headings)))
    }

    /// Writes rows, a line each.
    pub(super) fn write_rows(&self, rows: &[Vec<Cell>], out: &mut dyn Write) -> io::Result<()> {
        rows.iter().try_for_each(|row| {
            let cells = self.0.iter().map(|place| text(&row[place.at], place.unit));
            writeln!(out, "{}", self.aligned(cells))
        })
    }

    fn aligned(&self, cells: impl Iterator<Item = String>) -> String {
        let mut line = String::new();
        for (cell, place) in cells.zip(&self.0) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let padding = " ".repeat(place.width.saturating_sub(cell.chars().count()));
            match place.unit {
                Unit::None => line.extend([cell, padding]),
                Unit::Bytes | Unit::Count => line.extend([padding, cell]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
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
        Cell::Time(seconds) => moment::rfc3339(*seconds),
        Cell::Text(text) => cut(&Shown(text).to_string()),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDEST {
        return text.to_owned();
    }
    text.chars().take(WIDEST - 1).chain(['…']).collect()
}
