//! What stands over the rest: the keys, and lists to choose from.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::Clear;

use super::{pane, put_text};
use crate::top::live::app::{App, Overlay};
use crate::top::live::layout::popup;
use crate::top::live::picker::{About, Picker};
use crate::top::live::theme::Theme;

const HELP: [&str; 28] = [
    "Up Down j k      move            PageUp PageDown Home End",
    "Tab Right Left   nodes, talkers, connections",
    "Enter  nodes:       only this node's connections (again: all)",
    "       talkers:     only this group's connections",
    "       connections: details on or off",
    "Esc c  connections of all nodes and groups again",
    "",
    "/ p    filter, as everywhere in weir:",
    "         source.unit = nginx.service and not class = internet",
    "       or just a port, an address, a prefix, a name",
    "g      group talkers by the next set of fields",
    "G      choose the fields",
    "[ ]    totals of a shorter or longer time",
    "",
    "t      sort by rate or by state",
    "s S    sort by the next or previous column",
    "f      state: any, ESTABLISHED, TIME_WAIT",
    "F      choose the state",
    "v      IP version: both, 4, 6",
    "n      names or addresses",
    "C      choose the columns",
    "Space  hold the picture, or go on",
    "q      quit (Ctrl-C too); Ctrl-Z suspends",
    "",
    "SENT is source to destination, RECV is back. The source opened the",
    "connection. ? means that nobody counted it, never zero; a number",
    "with an at-least sign misses something uncounted. Rates are measured",
    "between two readings, totals are those of the store.",
];

/// Lines of help, for scrolling.
pub(in crate::top::live) const HELP_LINES: usize = HELP.len() - 1;

pub(super) fn render(frame: &mut Frame<'_>, screen: Rect, app: &App, theme: Theme) {
    match &app.overlay {
        None => {}
        Some(Overlay::Help(first)) => {
            let area = popup(screen, 74, u16::try_from(HELP.len() + 2).unwrap_or(u16::MAX));
            frame.render_widget(Clear, area);
            let inside = pane(frame, area, "Help (Esc closes)", true, theme);
            // The last line stays at the bottom.
            let most = HELP.len().saturating_sub(inside.height.into());
            for (row, line) in HELP.iter().skip((*first).min(most)).enumerate() {
                put_text(frame, inside, row, line, theme.plain(), theme);
            }
        }
        Some(Overlay::Picker(picker)) => list(frame, screen, picker, theme),
    }
}

fn list(frame: &mut Frame<'_>, screen: Rect, picker: &Picker, theme: Theme) {
    let height = u16::try_from(picker.items.len() + 2).unwrap_or(u16::MAX);
    let area = popup(screen, 46, height);
    frame.render_widget(Clear, area);
    let inside = pane(frame, area, picker.title(), true, theme);
    let page = usize::from(inside.height).max(1);
    let first = (picker.at + 1).saturating_sub(page);
    for (row, (index, item)) in picker.items.iter().enumerate().skip(first).take(page).enumerate() {
        let place = picker.chosen.iter().position(|chosen| *chosen == index);
        let mark = match (picker.about, place) {
            (About::Fields, Some(place)) => format!("[{}]", place + 1),
            (_, Some(_)) => "[x]".to_owned(),
            (_, None) => "[ ]".to_owned(),
        };
        let is_selected = index == picker.at;
        let style = if is_selected { theme.selected(true) } else { theme.plain() };
        let cursor = if is_selected { theme.cursor() } else { " " };
        put_text(frame, inside, row, &format!("{cursor} {mark} {}", item.name()), style, theme);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    /// The help and docs/top.md name the same keys.
    #[test]
    fn every_key_is_documented() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/top.md");
        let page = fs::read_to_string(page).expect("the page is there");
        let (_, keys) = page.split_once("\n## Keys\n").expect("it tells of keys");
        let (keys, _) = keys.split_once("\n## ").expect("and then of other things");
        let rows = keys.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        let documented: BTreeSet<&str> = rows.flat_map(|row| row.split('`').step_by(2)).collect();

        let keys = HELP.iter().filter(|line| !line.starts_with(' '));
        let keys = keys.filter_map(|line| Some(line.split_once("  ")?.0));
        let helped: BTreeSet<&str> = keys.flat_map(str::split_whitespace).collect();
        let missing: Vec<_> = helped.difference(&documented).collect();
        assert!(missing.is_empty(), "docs/top.md does not have {missing:?}");

        let words = HELP.iter().flat_map(|line| line.split_whitespace());
        let words: BTreeSet<&str> = words.map(|word| word.trim_matches(['(', ')', ';'])).collect();
        // What opened the help is not in it.
        let unknown: Vec<_> = documented.difference(&words).filter(|key| **key != "h").collect();
        assert!(unknown.is_empty(), "the help does not have {unknown:?}");
        assert!(helped.len() > 20, "only {helped:?}");
    }
}
