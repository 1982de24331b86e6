//! The first line: where this is, and how much moves.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use weir_server::answer::RateRow;

use super::put;
use crate::top::live::app::App;
use crate::top::live::text::{clock, count, rate, shown};
use crate::top::live::theme::Theme;

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let gap = || Span::raw("  ");
    let mut spans = vec![Span::styled(format!("weir top {}", shown(&app.place)), theme.heading())];
    if app.paused {
        spans.extend([gap(), Span::styled("PAUSED", theme.selected(true))]);
    }
    let connections = app.connections.as_ref();
    if let Some(found) = connections {
        spans.extend([gap(), Span::raw(format!("{} connections", count(found.known)))]);
    }
    // Before the second reading nothing is measured.
    let total = |of: fn(&RateRow) -> Option<f64>| {
        rate(app.nodes.iter().filter_map(of).reduce(|sum, rate| sum + rate))
    };
    let sent = format!("{} {}/s", theme.up(), total(|row| row.bytes_sent_per_second));
    let received = format!("{} {}/s", theme.down(), total(|row| row.bytes_received_per_second));
    spans.extend([gap(), Span::styled(sent, theme.sent())]);
    spans.extend([gap(), Span::styled(received, theme.received())]);
    if let Some(at) = connections.and_then(|found| found.at.as_deref()) {
        spans.extend([gap(), Span::raw(clock(at))]);
    }
    if let Some(interval) = connections.and_then(|found| found.interval_seconds) {
        spans.extend([gap(), Span::styled(format!("over {interval:.1} s"), theme.aside())]);
    }
    let nodes = app.status.as_ref().map_or(&[][..], |status| &status.nodes);
    if app.is_cluster() {
        let text = format!("{} nodes", count(nodes.len() as u64));
        spans.extend([gap(), Span::styled(text, theme.aside())]);
    } else {
        for node in nodes {
            let text = format!("{} ({})", shown(&node.node), shown(&node.source));
            spans.extend([gap(), Span::styled(text, theme.aside())]);
        }
    }
    let left_out = connections.map_or(0, |found| found.left_out);
    if left_out > 0 {
        let text = format!("{} connections could not be held", count(left_out));
        spans.extend([gap(), Span::styled(text, theme.warning())]);
    }
    put(frame, area, 0, &Line::from(spans));
}
