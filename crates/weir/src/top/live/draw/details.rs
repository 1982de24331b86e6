//! All that is known of the selected connection, and how the selected group went.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use weir_server::answer::{Cell, Column, ConnectionRow, End, Report};
use weir_store::Measure;

use super::{pane, put_text, sparkline};
use crate::top::live::app::App;
use crate::top::live::columns::name;
use crate::top::live::text::{count, length, rate, shown, total, wrap};
use crate::top::live::theme::Theme;

/// A line and how it looks.
type Styled = (String, Style);

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let inside = pane(frame, area, "Details", false, theme);
    let width = usize::from(inside.width);
    let mut lines = Vec::new();
    if let Some(row) = app.selected_connection() {
        connection(row, app.is_cluster(), width, theme, &mut lines);
        let sent: Vec<_> = app.trace.rates.iter().map(|(sent, _)| *sent).collect();
        let received: Vec<_> = app.trace.rates.iter().map(|(_, received)| *received).collect();
        lines.push((sparkline(&sent, width, theme), theme.sent()));
        lines.push((sparkline(&received, width, theme), theme.received()));
    } else {
        lines.push(("no connection selected".to_owned(), theme.aside()));
    }
    if let Some(talker) = app.talkers.get(app.talker_cursor.row()) {
        let name = talker.name(theme.arrow());
        let since = weir_server::moment::human(app.since_seconds);
        lines.push((format!("{name}, last {since}"), theme.heading()));
        if let Some(series) = &app.series {
            let values = curve(series, width);
            lines.push((sparkline(&values, width, theme), theme.plain()));
        }
    }
    for (row, (text, style)) in lines.iter().enumerate() {
        put_text(frame, inside, row, text, *style, theme);
    }
}

fn connection(
    row: &ConnectionRow,
    is_cluster: bool,
    width: usize,
    theme: Theme,
    lines: &mut Vec<Styled>,
) {
    let mut add = |name: &str, text: String| {
        let text = format!("{name} {text}");
        lines.extend(wrap(&text, width).into_iter().map(|line| (line, theme.plain())));
    };
    add("port", port(row));
    add("from", whole_end(&row.source));
    if let Some(translated) = &row.translated_source {
        add("translated to", shown(translated));
    }
    add("to", whole_end(&row.destination));
    if let Some(service) = &row.service {
        let name = row.service_name.as_deref().map(|name| format!(" ({})", shown(name)));
        add("dialled", format!("{}{}", shown(service), name.unwrap_or_default()));
    }
    let state = row.state.as_deref().map_or_else(|| "?".to_owned(), shown);
    add("state", format!("{} {state}, {}", shown(&row.protocol), shown(&row.class)));
    let start = row.start.as_deref().map_or_else(|| "start unknown".to_owned(), shown);
    let idle = length(row.idle_seconds);
    add("age", format!("{} ({start}), idle {idle}", length(row.age_seconds)));
    let packets = |packets: Option<u64>| packets.map_or_else(|| "?".to_owned(), count);
    add("sent", format!("{} in {} packets", total(row.bytes_sent), packets(row.packets_sent)));
    add(
        "received",
        format!("{} in {} packets", total(row.bytes_received), packets(row.packets_received)),
    );
    add(
        "now",
        format!(
            "{} {}/s {} {}/s",
            theme.up(),
            rate(row.bytes_sent_per_second),
            theme.down(),
            rate(row.bytes_received_per_second)
        ),
    );
    if is_cluster {
        add("counted by", shown(&row.node));
    }
    if row.picked_up {
        add("met in mid-stream:", "who opened it was inferred".to_owned());
    }
}

/// What the destination's port is.
fn port(row: &ConnectionRow) -> String {
    let Some(port) = row.destination.port else { return "none".to_owned() };
    match (&row.port_name, port) {
        (Some(name), _) => format!("{port}, {}", shown(name)),
        (None, ..=1023) => format!("{port}, well-known range"),
        (None, ..=49_151) => format!("{port}, registered range"),
        (None, _) => format!("{port}, dynamic range"),
    }
}

/// Name and address of an end, and what else is known.
fn whole_end(end: &End) -> String {
    let mut parts = vec![name(end)];
    if end.name != end.address {
        parts.push(shown(&end.address));
    }
    if let Some(port) = end.port {
        parts.push(format!("port {port}"));
    }
    parts.push(shown(&end.kind));
    for (name, value) in [
        ("host", &end.host),
        ("unit", &end.unit),
        ("container", &end.container),
        ("executable", &end.executable),
        ("of", &end.workload),
        ("app", &end.app),
        ("on", &end.node),
        ("zone", &end.zone),
        ("cloud", &end.cloud),
        ("region", &end.region),
        ("service", &end.cloud_service),
        ("known by", &end.resolution),
        ("unresolved:", &end.unresolved),
    ] {
        // The name says it already.
        if let Some(value) = value.as_ref().filter(|value| **value != end.name) {
            parts.push(format!("{name} {}", shown(value)));
        }
    }
    parts.join(", ")
}

/// The bytes of each step, the newest last, summed so that they fit.
fn curve(series: &Report, columns: usize) -> Vec<Option<f64>> {
    let step = series.step_seconds.unwrap_or(1).max(1);
    let steps = series.until.saturating_sub(series.since).div_ceil(step);
    let Some(time) = series.place(Column::Time) else { return vec![] };
    let columns = u64::try_from(columns).unwrap_or(1).max(1);
    let per_column = steps.div_ceil(columns).max(1);
    let bars = usize::try_from(steps.div_ceil(per_column)).unwrap_or(0);
    let mut values = vec![Some(0.0); bars];
    let measures = [Measure::Bytes, Measure::BytesSent, Measure::BytesReceived];
    for row in &series.rows {
        let Some(Cell::Time(at)) = row.get(time) else { continue };
        let index = at.saturating_sub(series.since) / step / per_column;
        let Some(value) = usize::try_from(index).ok().and_then(|index| values.get_mut(index))
        else {
            continue;
        };
        // The sum of both directions where it is told, else both.
        let cells: Vec<_> = measures.map(|measure| cell(series, row, measure)).to_vec();
        let bytes = match cells.as_slice() {
            [Some(both), ..] => Some(*both),
            [None, Some(sent), Some(received)] => Some(sent + received),
            _ => None,
        };
        *value = value.zip(bytes).map(|(before, bytes)| before + bytes);
    }
    values
}

#[expect(clippy::cast_precision_loss, reason = "a curve of eight heights")]
fn cell(report: &Report, row: &[Cell], measure: Measure) -> Option<f64> {
    match row.get(report.place(Column::Measure(measure))?)? {
        Cell::Number(sum) | Cell::AtLeast(sum) => Some(*sum as f64),
        _ => None,
    }
}
