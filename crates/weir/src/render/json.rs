//! JSON: exact numbers, unknown and absent as null.

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use weir_server::answer::Report;
use weir_server::moment;

use super::shown::is_harmful;
use super::{Cell, Column};

/// Writes what comes before a report's rows: laid out as [`write_value`] lays out the whole.
pub(super) fn write_beginning(columns: &[Column], out: &mut dyn Write) -> io::Result<()> {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    write!(out, "{{\n  \"columns\": {},\n  \"rows\": [", indented(&names, "  ")?)
}

/// Writes some rows.
pub(super) fn write_rows(
    columns: &[Column],
    rows: &[Vec<Cell>],
    are_first: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut out = Harmless(out);
    for (index, cells) in rows.iter().enumerate() {
        let comma = if are_first && index == 0 { "" } else { "," };
        write!(out, "{comma}\n    {}", indented(&Row { columns, cells }, "    ")?)?;
    }
    Ok(())
}

/// Writes what comes after a report's rows.
pub(super) fn write_end(whole: &Report, is_empty: bool, out: &mut dyn Write) -> io::Result<()> {
    let Report { since, until, level_seconds, step_seconds, more, .. } = whole;
    write!(out, "{}]", if is_empty { "" } else { "\n  " })?;
    let step = step_seconds.map_or_else(|| "null".to_owned(), |seconds| seconds.to_string());
    let (since, until) = (moment::rfc3339(*since), moment::rfc3339(*until));
    write!(out, ",\n  \"since\": \"{since}\",\n  \"until\": \"{until}\"")?;
    write!(out, ",\n  \"level_seconds\": {level_seconds},\n  \"step_seconds\": {step}")?;
    writeln!(out, ",\n  \"more\": {more}\n}}")
}

/// Indented JSON inside an object that is itself indented: strings hold no line breaks.
fn indented(value: &impl Serialize, by: &str) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)?.replace('\n', &format!("\n{by}")))
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
