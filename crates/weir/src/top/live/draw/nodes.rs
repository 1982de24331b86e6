//! The observing nodes.

use ratatui::Frame;
use ratatui::layout::Rect;

use super::{pane, put_text};
use crate::top::live::app::{App, Focus, node_name};
use crate::top::live::text::{Side, count, fit, rate, shown};
use crate::top::live::theme::Theme;

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let has_focus = app.focus == Focus::Nodes;
    let inside = pane(frame, area, &format!("Nodes ({})", app.nodes.len()), has_focus, theme);
    let cursor = &app.node_cursor;
    let width = usize::from(inside.width);
    let rows = app.nodes.iter().enumerate().skip(cursor.first()).take(inside.height.into());
    for (line, (index, row)) in rows.enumerate() {
        let is_selected = index == cursor.row();
        let mark = if is_selected { theme.cursor() } else { " " };
        let name = shown(node_name(row));
        let only = if app.node.as_deref() == Some(node_name(row)) { "*" } else { "" };
        let moves =
            rate(row.bytes_sent_per_second.zip(row.bytes_received_per_second).map(|(s, r)| s + r));
        let numbers = format!("({}) {moves}/s", count(row.connections));
        let room = width.saturating_sub(3 + numbers.len());
        let name = fit(&format!("{name}{only}"), room, Side::Left, theme.ellipsis());
        let style = if is_selected { theme.selected(has_focus) } else { theme.plain() };
        put_text(frame, inside, line, &format!("{mark} {name} {numbers}"), style, theme);
    }
}
