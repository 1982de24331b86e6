//! The observing nodes.

use ratatui::Frame;
use ratatui::layout::Rect;
use weir_server::answer::State;

use super::{pane, put_text};
use crate::top::live::app::{App, Focus, node_name};
use crate::top::live::text::{Side, count, fit, length, rate, shown, width as text_width};
use crate::top::live::theme::Theme;

/// Columns that a name has at least, if it needs them.
const NAME: usize = 8;

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let has_focus = app.focus == Focus::Nodes;
    let inside = pane(frame, area, &title(app), has_focus, theme);
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
        let trouble = trouble(app, node_name(row));
        // From much to little; the name has some room whatever stands behind it.
        let numbers = match &trouble {
            Some((state, since)) => [format!("{state}{since}"), (*state).to_owned()],
            None => [format!("({}) {moves}/s", count(row.connections)), format!("{moves}/s")],
        };
        let room = |numbers: &String| width.saturating_sub(3 + numbers.len());
        let needed = text_width(&name).min(NAME);
        let [much, little] = &numbers;
        let numbers = if room(much) < needed { little } else { much };
        let room = room(numbers);
        let name = fit(&format!("{name}{only}"), room, Side::Left, theme.ellipsis());
        let style = match (is_selected, trouble.is_some()) {
            (true, _) => theme.selected(has_focus),
            (false, true) => theme.warning(),
            (false, false) => theme.plain(),
        };
        put_text(frame, inside, line, &format!("{mark} {name} {numbers}"), style, theme);
    }
}

fn title(app: &App) -> String {
    let nodes = app.nodes.len();
    let said = app.status.as_ref().filter(|_| app.is_cluster()).map_or(&[][..], |said| &said.nodes);
    match said.iter().filter(|node| node.state != State::Reading).count() {
        0 => format!("Nodes ({nodes})"),
        silent => format!("Nodes ({nodes}, {silent} not reading)"),
    }
}

/// What a node's agent does where it does not read, and for how long. On one machine the lines
/// above say it.
fn trouble(app: &App, name: &str) -> Option<(&'static str, String)> {
    let nodes = app.status.as_ref().filter(|_| app.is_cluster()).map(|status| &status.nodes)?;
    // One that has said nothing of itself yet sends batches all the same.
    let said = nodes.iter().find(|said| said.node == name)?;
    match (said.state, said.silent_seconds.and_then(|seconds| u32::try_from(seconds).ok())) {
        (State::Reading, _) => None,
        (State::Stalled, Some(silent)) => {
            Some(("silent", format!(" {}", length(Some(silent.into())))))
        }
        (state, _) => Some((state.name(), String::new())),
    }
}
