//! A very small terminal.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::put_text;
use crate::top::live::app::App;
use crate::top::live::banners::banners;
use crate::top::live::columns::end;
use crate::top::live::text::{Side, fit, rate};
use crate::top::live::theme::Theme;

/// The busiest connections, a line each; what is wrong comes before them.
pub(super) fn render(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let mut line = 0;
    if let Some(banner) = banners(app).first() {
        put_text(frame, area, line, &format!("! {banner}"), theme.warning(), theme);
        line += 1;
    }
    if app.matching() == 0 {
        put_text(frame, area, line, "no connections", theme.aside(), theme);
        return;
    }
    let room = usize::from(area.width).saturating_sub(9);
    let mut index = app.connection_cursor.first();
    while line < usize::from(area.height) {
        let Some(row) = app.connection(index) else { return };
        let both = row.bytes_sent_per_second.zip(row.bytes_received_per_second);
        let moves = rate(both.map(|(sent, received)| sent + received));
        let name = fit(&end(&row.destination, app.names), room, Side::Left, theme.ellipsis());
        let text = format!("{name} {}", fit(&moves, 8, Side::Right, theme.ellipsis()));
        let is_selected = index == app.connection_cursor.row();
        let style = if is_selected { theme.selected(true) } else { theme.plain() };
        put_text(frame, area, line, &text, style, theme);
        (line, index) = (line + 1, index + 1);
    }
}

/// There is no room for anything.
pub(super) fn hint(frame: &mut Frame<'_>, area: Rect) {
    let theme = Theme::new(false, false);
    put_text(frame, area, 0, "too small", Style::new(), theme);
}
