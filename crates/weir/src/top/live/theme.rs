//! Colours and symbols. Colour never says anything alone.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;

/// Okabe and Ito's palette: told apart by people of every colour vision.
const ORANGE: Color = Color::Rgb(230, 159, 0);
const SKY: Color = Color::Rgb(86, 180, 233);
const GREEN: Color = Color::Rgb(0, 158, 115);
const VERMILION: Color = Color::Rgb(213, 94, 0);

/// How things look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    is_coloured: bool,
    is_unicode: bool,
    /// True while the picture is an old one.
    is_stale: bool,
}

/// ASCII, for terminals without Unicode.
const ASCII_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

impl Theme {
    pub(super) fn new(is_coloured: bool, is_unicode: bool) -> Self {
        Self { is_coloured, is_unicode, is_stale: false }
    }

    /// For a picture that is not renewed any more.
    #[must_use]
    pub(super) fn stale(self, is_stale: bool) -> Self {
        Self { is_stale, ..self }
    }

    pub(super) fn plain(self) -> Style {
        if self.is_stale { Style::new().add_modifier(Modifier::DIM) } else { Style::new() }
    }

    /// What is said aside.
    pub(super) fn aside(self) -> Style {
        self.plain().add_modifier(Modifier::DIM)
    }

    pub(super) fn heading(self) -> Style {
        self.plain().add_modifier(Modifier::BOLD)
    }

    /// Source to destination.
    pub(super) fn sent(self) -> Style {
        self.coloured(self.plain(), ORANGE)
    }

    /// Destination to source.
    pub(super) fn received(self) -> Style {
        self.coloured(self.plain(), SKY)
    }

    /// What somebody should look at; a `!` stands before it.
    pub(super) fn warning(self) -> Style {
        self.coloured(Style::new().add_modifier(Modifier::BOLD), VERMILION)
    }

    /// The pane that has the keys.
    pub(super) fn focus(self) -> Style {
        self.coloured(Style::new().add_modifier(Modifier::BOLD), GREEN)
    }

    /// The selected row.
    pub(super) fn selected(self, has_focus: bool) -> Style {
        let style = self.plain().add_modifier(Modifier::BOLD);
        if has_focus { style.add_modifier(Modifier::REVERSED) } else { style }
    }

    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.is_coloured { style.fg(colour) } else { style }
    }

    /// The frame of a pane; that of the focused one is heavier.
    pub(super) fn border(self, has_focus: bool) -> border::Set<'static> {
        match (self.is_unicode, has_focus) {
            (false, _) => ASCII_BORDER,
            (true, false) => border::PLAIN,
            (true, true) => border::THICK,
        }
    }

    pub(super) fn ellipsis(self) -> &'static str {
        self.either("…", "~")
    }

    /// Before the selected row.
    pub(super) fn cursor(self) -> &'static str {
        self.either("»", ">")
    }

    pub(super) fn up(self) -> &'static str {
        self.either("↑", "sent")
    }

    pub(super) fn down(self) -> &'static str {
        self.either("↓", "received")
    }

    pub(super) fn arrow(self) -> &'static str {
        self.either("→", "->")
    }

    pub(super) fn dot(self) -> &'static str {
        self.either("·", "|")
    }

    /// At least this much.
    pub(super) fn at_least(self) -> &'static str {
        self.either("≥", ">=")
    }

    /// Heights of a sparkline's columns, from nothing to the most.
    pub(super) fn bars(self) -> [&'static str; 9] {
        if self.is_unicode {
            [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]
        } else {
            [" ", ".", ".", ":", ":", "+", "+", "#", "#"]
        }
    }

    fn either(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.is_unicode { unicode } else { ascii }
    }
}

/// True where the locale says that the terminal shows Unicode.
pub(super) fn is_unicode(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_is_set_decides() {
        for (variables, expected) in [
            (&[][..], false),
            (&[("LANG", "C.UTF-8")], true),
            (&[("LANG", "de_DE.utf8")], true),
            (&[("LC_ALL", "C"), ("LANG", "C.UTF-8")], false),
            (&[("LC_ALL", ""), ("LANG", "C.UTF-8")], true),
            (&[("LC_CTYPE", "POSIX"), ("LANG", "C.UTF-8")], false),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(is_unicode(variable), expected, "{variables:?}");
        }
    }

    #[test]
    fn without_colour_and_unicode_nothing_of_either_is_used() {
        let theme = Theme::new(false, false);
        for style in [theme.sent(), theme.warning(), theme.focus(), theme.selected(true)] {
            assert_eq!(style.fg, None);
        }
        let symbols = [theme.ellipsis(), theme.cursor(), theme.up(), theme.arrow(), theme.dot()];
        assert!(symbols.iter().chain(&theme.bars()).all(|symbol| symbol.is_ascii()));
    }
}
