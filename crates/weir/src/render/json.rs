//! JSON: exact numbers, unknown and absent as null.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::{Cell, Column, Report};
use crate::since;

/// Writes the report as one object.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    write_value(report, out)
}

/// Writes anything as indented JSON and ends the line.
pub(crate) fn write_value(
    value: &(impl Serialize + ?Sized),
    out: &mut dyn Write,
) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let rows: Vec<Row<'_>> =
            self.rows.iter().map(|cells| Row { columns: &self.columns, cells }).collect();
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("columns", &names)?;
        map.serialize_entry("rows", &rows)?;
        map.serialize_entry("since", &since::rfc3339(self.since))?;
        map.serialize_entry("until", &since::rfc3339(self.until))?;
        map.serialize_entry("level_seconds", &self.level_seconds)?;
        map.serialize_entry("more", &self.more)?;
        map.end()
    }
}

/// A row as an object, its columns in their order.
pub(crate) struct Row<'a> {
    pub(crate) columns: &'a [Column],
    pub(crate) cells: &'a [Cell],
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.columns.iter().map(|column| &column.name).zip(self.cells))
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent | Self::Unknown => serializer.serialize_unit(),
            Self::Number(number) | Self::AtLeast(number) => serializer.serialize_u64(*number),
            Self::IcmpType(number) => serializer.serialize_u16(*number),
            Self::Time(seconds) => serializer.serialize_str(&since::rfc3339(*seconds)),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}
