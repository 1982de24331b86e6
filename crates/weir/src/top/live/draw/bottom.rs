//! The last lines: what is shown, what is typed, what the keys do, what others have to say.

use ratatui::Frame;
use ratatui::layout::Rect;
use weir_server::moment;

use super::put_text;
use crate::top::live::app::{App, Focus, IpVersions};
use crate::top::live::filter_line::{self, FilterLine};
use crate::top::live::text::{shown, width};
use crate::top::live::theme::Theme;

const HINTS: &str = "q quit  h help  / filter  Enter open  c clear  g group  s sort  f state  \
                     n names  v IP  [ ] since  Space pause";
const PROMPT: &str = "filter: ";

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let mut row = 0;
    if let Some(line) = &app.line {
        row = filter(frame, area, line, theme);
    } else {
        put_text(frame, area, row, &status(app, theme), theme.plain(), theme);
        put_text(frame, area, row + 1, HINTS, theme.aside(), theme);
        row += 2;
    }
    if let Some(message) = &app.message {
        put_text(frame, area, row, &shown(message), theme.warning(), theme);
    }
}

fn status(app: &App, theme: Theme) -> String {
    let focus = match app.focus {
        Focus::Nodes => "nodes",
        Focus::Talkers => "talkers",
        Focus::Connections => "connections",
    };
    let mut parts = vec![format!("[{focus}]")];
    if app.filter_text.is_empty() {
        parts.push("no filter".to_owned());
    } else {
        parts.push(format!("filter {}", shown(&app.filter_text)));
        if let Some(became) = &app.filter.became {
            parts.push(format!("{} {}", theme.arrow(), shown(became)));
        }
    }
    if let Some(node) = &app.node {
        parts.push(format!("node {}", shown(node)));
    }
    parts.push(format!("state {}", app.state.as_deref().map_or_else(|| "any".to_owned(), shown)));
    parts.push(match app.ip {
        IpVersions::Both => "IPv4+6".to_owned(),
        IpVersions::Four => "IPv4".to_owned(),
        IpVersions::Six => "IPv6".to_owned(),
    });
    parts.push(if app.names { "names".to_owned() } else { "addresses".to_owned() });
    parts.push(format!("sort {}", app.sort.name()));
    parts.push(format!("since {}", moment::human(app.since_seconds)));
    parts.join(&format!(" {} ", theme.dot()))
}

/// The line that is typed, and below it what is wrong with it or what it became. Returns the
/// lines it took.
fn filter(frame: &mut Frame<'_>, area: Rect, line: &FilterLine, theme: Theme) -> usize {
    let room = usize::from(area.width).saturating_sub(PROMPT.len() + 1);
    let before = &line.text()[..line.cursor()];
    // A long text is shown from where its cursor is in view.
    let skipped = skip(before, room);
    let visible = &line.text()[skipped..];
    let typed = format!("{PROMPT}{}", shown(visible));
    put_text(frame, area, 0, &typed, theme.heading(), theme);
    let column = PROMPT.len() + width(&shown(&before[skipped..]));
    if let (Ok(column), true) = (u16::try_from(column), area.height > 0)
        && column < area.width
    {
        frame.set_cursor_position((area.x + column, area.y));
    }
    let (error, below) = match (line.error(), filter_line::read(line.text())) {
        (Some(error), _) => (Some(error), String::new()),
        (None, Ok(read)) => {
            (None, read.became.map(|it| format!("searches {it}")).unwrap_or_default())
        }
        (None, Err(_)) => (None, String::new()),
    };
    let choices = line.choices();
    if choices.is_empty() {
        let text = match &error {
            None => below,
            Some(error) => {
                let before = line.text().get(skipped..error.position).unwrap_or_default();
                let indent = PROMPT.len() + width(&shown(before));
                let marked = line.text().get(error.position..error.position + error.length);
                let carets = "^".repeat(width(&shown(marked.unwrap_or_default())).max(1));
                format!("{}{carets}", " ".repeat(indent))
            }
        };
        let style = if error.is_some() { theme.warning() } else { theme.aside() };
        put_text(frame, area, 1, &text, style, theme);
        let text = match &error {
            Some(error) => format!("! {}", shown(&error.problem.to_string())),
            None => String::new(),
        };
        put_text(frame, area, 2, &text, theme.warning(), theme);
    } else {
        let text = choices.iter().map(|choice| shown(choice)).collect::<Vec<_>>().join("  ");
        put_text(frame, area, 1, &text, theme.plain(), theme);
    }
    let keys = "Enter use  Esc back  Tab complete  Up/Down earlier filters  443, 10.0.0.0/8 and nginx work too";
    put_text(frame, area, 3, keys, theme.aside(), theme);
    4
}

/// Bytes of the text to leave out so that its end is in view.
fn skip(text: &str, room: usize) -> usize {
    let ends = text.char_indices().map(|(index, _)| index).chain([text.len()]);
    ends.into_iter().find(|start| width(&shown(&text[*start..])) <= room).unwrap_or(text.len())
}
