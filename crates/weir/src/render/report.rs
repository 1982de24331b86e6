//! A report, page by page: what has been printed is forgotten, however long the answer is.

use std::io::{self, Write};

use weir_flow::Field;
use weir_server::answer::{self, Report};
use weir_server::moment;
use weir_store::Measure;

use super::table::Table;
use super::{Column, Style, csv, json};
use crate::args::Format;

/// Writes a report of one page or many.
pub(crate) struct Pages<'a> {
    format: Format,
    style: Style,
    /// A table on a terminal shows only the fields that this holds for.
    is_in_table: &'a dyn Fn(Field) -> bool,
    out: &'a mut dyn Write,
    begun: Option<Begun>,
}

/// What is kept of the pages that were written.
struct Begun {
    columns: Vec<Column>,
    table: Table,
    rows: usize,
    /// What the pages cover together, without rows.
    whole: Report,
}

impl<'a> Pages<'a> {
    /// Writes nothing yet.
    pub(crate) fn new(
        format: Format,
        style: Style,
        is_in_table: &'a dyn Fn(Field) -> bool,
        out: &'a mut dyn Write,
    ) -> Self {
        Self { format, style, is_in_table, out, begun: None }
    }

    /// Writes a page's rows, and before the first page what stands above all rows.
    pub(crate) fn page(&mut self, page: &Report) -> io::Result<()> {
        let is_first = self.begun.is_none();
        let begun = self.begun.get_or_insert_with(|| {
            let columns = columns(page, self.is_in_table);
            let whole = Report { rows: Vec::new(), ..page.clone() };
            Begun { table: Table::new(&columns), columns, rows: 0, whole }
        });
        match self.format {
            Format::Table => {
                begun.table.fit(&page.rows);
                if begun.rows == 0 && !page.rows.is_empty() {
                    begun.table.write_headings(self.style, self.out)?;
                }
                begun.table.write_rows(&page.rows, self.out)?;
            }
            Format::Json => {
                if is_first {
                    json::write_beginning(&begun.columns, self.out)?;
                }
                json::write_rows(&begun.columns, &page.rows, begun.rows == 0, self.out)?;
            }
            Format::Csv => {
                if is_first {
                    csv::write_names(&begun.columns, self.out)?;
                }
                csv::write_cells(&page.rows, self.out)?;
            }
        }
        begun.rows += page.rows.len();
        begun.whole.since = begun.whole.since.min(page.since);
        begun.whole.until = begun.whole.until.max(page.until);
        begun.whole.more = page.more;
        self.out.flush()
    }

    /// Writes what stands below all rows. `more`: the last page was not the end of the answer.
    pub(crate) fn finish(self, more: bool) -> io::Result<()> {
        let Some(Begun { rows, mut whole, .. }) = self.begun else {
            return Ok(());
        };
        whole.more = more;
        match self.format {
            Format::Table => writeln!(self.out, "{}", self.style.dim(caption(&whole, rows))),
            Format::Json => json::write_end(&whole, rows == 0, self.out),
            Format::Csv => Ok(()),
        }
    }
}

/// What a report's columns look like.
fn columns(report: &Report, is_in_table: &dyn Fn(Field) -> bool) -> Vec<Column> {
    let uncounted = report.place(answer::Column::Measure(Measure::ConnectionsUncounted));
    let any_uncounted =
        uncounted.is_some_and(|at| report.rows.iter().any(|row| is_above_zero(&row[at])));
    let heading = |column| match column {
        answer::Column::Time => Some("TIME".to_owned()),
        answer::Column::Field(field) => {
            is_in_table(field).then(|| field.to_string().to_uppercase())
        }
        answer::Column::Measure(measure) => heading(measure, any_uncounted).map(str::to_owned),
    };
    let columns = report.columns.iter();
    columns
        .map(|column| Column {
            name: column.name(),
            heading: heading(*column),
            unit: column.unit(),
        })
        .collect()
}

fn is_above_zero(cell: &answer::Cell) -> bool {
    matches!(cell, answer::Cell::Number(1..))
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
        Measure::TransitBytes
        | Measure::PacketsSent
        | Measure::PacketsReceived
        | Measure::ConnectionsClosed
        | Measure::ConnectionsUnreplied => None,
    }
}

fn caption(whole: &Report, rows: usize) -> String {
    let rows = match rows {
        0 => "no flows".to_owned(),
        1 => "1 row".to_owned(),
        rows => format!("{rows} rows"),
    };
    format!(
        "{rows}{} from {} to {}, from windows of {}",
        if whole.more { " (there are more: --limit)" } else { "" },
        moment::rfc3339(whole.since),
        moment::rfc3339(whole.until),
        moment::human(whole.level_seconds)
    )
}

#[cfg(test)]
mod tests {
    use weir_server::answer::Cell;

    use super::*;

    fn report(rows: Vec<Vec<Cell>>) -> Report {
        Report {
            columns: vec![
                answer::Column::Time,
                answer::Column::Field(Field::Protocol),
                answer::Column::Measure(Measure::Bytes),
                answer::Column::Measure(Measure::ConnectionsUncounted),
            ],
            rows,
            since: 1_769_846_400,
            until: 1_769_846_460,
            level_seconds: 10,
            step_seconds: Some(10),
            more: true,
        }
    }

    fn row(time: u64, bytes: u64) -> Vec<Cell> {
        vec![
            Cell::Time(1_769_846_400 + time),
            Cell::Text("tcp \"\u{9b}".to_owned()),
            Cell::Number(bytes),
            Cell::Number(0),
        ]
    }

    fn written(format: Format, pages: &[Report]) -> String {
        let mut out = Vec::new();
        let mut writer = Pages::new(format, Style::Plain, &|_| true, &mut out);
        for page in pages {
            writer.page(page).unwrap();
        }
        writer.finish(false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pages_read_like_one_answer() {
        let rows = [row(0, 700), row(10, u64::MAX), row(20, 0)];
        let whole = report(rows.to_vec());
        let pages = [report(rows[..2].to_vec()), report(rows[2..].to_vec())];
        for format in [Format::Table, Format::Json, Format::Csv] {
            let one = written(format, std::slice::from_ref(&whole));
            assert_eq!(written(format, &pages), one, "{format:?}");
            assert!(!one.contains('\u{9b}'), "{one:?}");
        }
    }

    #[test]
    fn json_is_what_the_api_answers() {
        for rows in [vec![], vec![row(0, 1)], vec![row(0, 1), row(10, u64::MAX)]] {
            let report = Report { more: false, ..report(rows) };
            let text = written(Format::Json, std::slice::from_ref(&report));
            let pretty = serde_json::to_string_pretty(&report).unwrap();
            assert_eq!(text, format!("{pretty}\n").replace('\u{9b}', "\\u009b"));
        }
    }

    #[test]
    fn uncounted_shows_only_where_there_is_some() {
        let mut uncounted = row(0, 1);
        uncounted[2] = Cell::AtLeast(1);
        uncounted[3] = Cell::Number(1);
        insta::assert_snapshot!(written(Format::Table, &[report(vec![uncounted])]), @r#"
        TIME                  PROTOCOL     BYTES  UNCOUNTED
        2026-01-31T08:00:00Z  tcp "\u{9b}   ≥1 B          1
        1 row from 2026-01-31T08:00:00Z to 2026-01-31T08:01:00Z, from windows of 10s
        "#);
        insta::assert_snapshot!(written(Format::Table, &[report(vec![row(0, 1)])]), @r#"
        TIME                  PROTOCOL     BYTES
        2026-01-31T08:00:00Z  tcp "\u{9b}    1 B
        1 row from 2026-01-31T08:00:00Z to 2026-01-31T08:01:00Z, from windows of 10s
        "#);
        insta::assert_snapshot!(written(Format::Table, &[report(vec![])]), @"no flows from 2026-01-31T08:00:00Z to 2026-01-31T08:01:00Z, from windows of 10s");
    }
}
