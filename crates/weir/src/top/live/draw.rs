//! From the state to a picture. Only rows in view are written, however many there are.

mod banners;
mod bottom;
mod compact;
mod connections;
mod details;
mod nodes;
mod overlay;
mod talkers;
mod title;

#[cfg(test)]
pub(super) mod tests;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders};

use super::app::App;
use super::layout::Areas;
use super::text;
use super::theme::Theme;

pub(super) use overlay::HELP_LINES;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, theme: Theme) {
    let theme = theme.stale(app.trouble.is_some());
    match app.all_areas().within(frame.area()) {
        Areas::Hint(area) => compact::hint(frame, area),
        Areas::Compact(area) => compact::render(frame, area, app, theme),
        Areas::Full(areas) => {
            title::render(frame, areas.title, app, theme);
            banners::render(frame, areas.banners, app, theme);
            if let Some(area) = areas.nodes {
                nodes::render(frame, area, app, theme);
            }
            if let Some(area) = areas.talkers {
                talkers::render(frame, area, app, theme);
            }
            connections::render(frame, areas.connections, app, theme);
            if let Some(area) = areas.details {
                details::render(frame, area, app, theme);
            }
            bottom::render(frame, areas.bottom, app, theme);
        }
    }
    overlay::render(frame, frame.area(), app, theme);
}

/// The frame of a pane with its title, and the room inside.
fn pane(frame: &mut Frame<'_>, area: Rect, title: &str, has_focus: bool, theme: Theme) -> Rect {
    let room = usize::from(area.width.saturating_sub(4));
    let title = if text::width(title) > room {
        text::fit(title, room, text::Side::Left, theme.ellipsis())
    } else {
        title.to_owned()
    };
    let style = if has_focus { theme.focus() } else { theme.plain() };
    let block = Block::new()
        .borders(Borders::ALL)
        .border_set(theme.border(has_focus))
        .border_style(style)
        .title(Span::styled(format!(" {title} "), style));
    let inside = block.inner(area);
    frame.render_widget(block, area);
    inside
}

/// Writes a line at a row of the area, where there is such a row.
fn put(frame: &mut Frame<'_>, area: Rect, row: usize, line: &Line<'_>) {
    let Ok(row) = u16::try_from(row) else { return };
    if row < area.height && area.width > 0 {
        frame.buffer_mut().set_line(area.x, area.y + row, line, area.width);
    }
}

/// As `put`, for a line in one style over the whole width.
fn put_text(frame: &mut Frame<'_>, area: Rect, row: usize, text: &str, style: Style, theme: Theme) {
    let text = text::fit(text, usize::from(area.width), text::Side::Left, theme.ellipsis());
    put(frame, area, row, &Line::from(Span::styled(text, style)));
}

/// A curve one row high: each value as a bar, scaled to the largest; unknown as `?`.
fn sparkline(values: &[Option<f64>], columns: usize, theme: Theme) -> String {
    let bars = theme.bars();
    let shown = &values[values.len().saturating_sub(columns)..];
    let most = shown.iter().flatten().copied().fold(0.0_f64, f64::max);
    let bar = |value: &Option<f64>| match value {
        None => "?",
        Some(value) if *value <= 0.0 || most <= 0.0 => bars[0],
        // What moved at all is seen.
        Some(value) => {
            let height = usize::try_from(text::whole(value / most * 8.0)).unwrap_or(8);
            bars[height.clamp(1, 8)]
        }
    };
    shown.iter().map(bar).collect()
}
