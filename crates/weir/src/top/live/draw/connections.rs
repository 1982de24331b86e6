//! The connections.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{pane, put, put_text};
use crate::top::live::app::{App, Focus};
use crate::top::live::columns::{Column, fit as fit_columns};
use crate::top::live::text::{count, fit, shown};
use crate::top::live::theme::Theme;

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let has_focus = app.focus == Focus::Connections;
    let inside = pane(frame, area, &title(app, theme), has_focus, theme);
    let columns =
        fit_columns(&app.columns, app.is_cluster(), usize::from(inside.width.saturating_sub(2)));

    let cell = |(column, width): &(Column, usize)| {
        fit(column.heading(), *width, column.side(), theme.ellipsis())
    };
    let heading = columns.iter().map(cell).collect::<Vec<_>>().join(" ");
    put_text(frame, inside, 0, &format!("  {heading}"), theme.heading(), theme);

    let total = app.matching();
    if total == 0 {
        let text = match (&app.connections, app.trouble.is_some()) {
            (Some(_), _) => "  no connection matches",
            (None, false) => "  reading",
            (None, true) => "  nothing is known yet",
        };
        put_text(frame, inside, 1, text, theme.aside(), theme);
        return;
    }
    let first = app.connection_cursor.first();
    let page = usize::from(inside.height.saturating_sub(1));
    for (line, row) in (first..total).take(page).enumerate() {
        put(frame, inside, line + 1, &row_line(app, row, &columns, has_focus, theme));
    }
}

fn title(app: &App, theme: Theme) -> String {
    let known = app.connections.as_ref().map_or(0, |found| found.known + found.ended);
    let matching = app.connections.as_ref().map_or(0, |found| found.matching);
    let of = if matching == known { String::new() } else { format!(" of {}", count(known)) };
    let mut title = format!("Connections ({}{of}) by {}", count(matching), app.sort.name());
    if let Some(drill) = &app.drill {
        let values: Vec<_> =
            drill.values.iter().map(|value| value.as_deref().unwrap_or("-")).collect();
        let arrow = format!(" {} ", theme.arrow());
        title = format!("{title}, only {}", shown(&values.join(&arrow)));
    }
    if app.is_waiting() && app.connections.is_some() {
        title.push(' ');
        title.push_str(theme.ellipsis());
    }
    title
}

fn row_line(
    app: &App,
    index: usize,
    columns: &[(Column, usize)],
    has_focus: bool,
    theme: Theme,
) -> Line<'static> {
    let is_selected = index == app.connection_cursor.row();
    let mark = if is_selected { theme.cursor() } else { " " };
    let base = if is_selected { theme.selected(has_focus) } else { theme.plain() };
    let mut spans = vec![Span::styled(mark.to_owned(), base)];
    let Some(row) = app.connection(index) else {
        spans.push(Span::styled(format!(" {}", theme.ellipsis()), theme.aside()));
        return Line::from(spans);
    };
    for (column, width) in columns {
        let text = column.cell(row, app.names, *width, theme.ellipsis());
        let style = match column {
            Column::SentRate if !is_selected => theme.sent(),
            Column::ReceivedRate if !is_selected => theme.received(),
            _ => base,
        };
        spans.push(Span::styled(format!(" {text}"), style));
    }
    Line::from(spans)
}
