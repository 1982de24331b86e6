//! JSON: exact numbers, unknown and absent as null.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::shown::is_harmful;
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
    serde_json::to_writer_pretty(Harmless(out), value)?;
    writeln!(out)
}

/// Escapes what a terminal would act on, as JSON may have any character escaped. Those below U+0020
/// are escaped already, where they are not the form itself.
struct Harmless<'a>(&'a mut dyn Write);

impl Write for Harmless<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Strings come in whole characters; anything else is passed on as it is.
        match str::from_utf8(bytes) {
            Ok(text) if !text.is_ascii() || bytes.contains(&0x7f) => {
                for character in text.chars() {
                    if character >= '\u{7f}' && is_harmful(character) {
                        write!(self.0, "\\u{:04x}", u32::from(character))?;
                    } else {
                        write!(self.0, "{character}")?;
                    }
                }
            }
            _ => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_reaches_the_terminal_and_nothing_is_lost() {
        let name = "a\u{9b}2J\u{202e}\u{7f}\x1b\n größe 例 \u{1f600} \"\\";
        let mut out = Vec::new();
        write_value(&[name], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.chars().any(|c| c != '\n' && is_harmful(c)), "{text:?}");
        assert!(text.contains("\\u009b2J\\u202e\\u007f\\u001b\\n größe 例 \u{1f600}"), "{text}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [name]);
    }
}
