//! What is wrong, a line each.

use ratatui::Frame;
use ratatui::layout::Rect;

use super::put_text;
use crate::top::live::app::App;
use crate::top::live::banners::banners;
use crate::top::live::theme::Theme;

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let lines = banners(app);
    let room = usize::from(area.height);
    for (row, line) in lines.iter().take(room).enumerate() {
        let more = if row + 1 == room && lines.len() > room {
            format!("(+{}) ", lines.len() - room)
        } else {
            String::new()
        };
        put_text(frame, area, row, &format!("! {more}{line}"), theme.warning(), theme);
    }
}
