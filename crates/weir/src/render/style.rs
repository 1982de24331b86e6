//! Colours, where somebody sees them.

use std::ffi::OsStr;
use std::fmt;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// No escape sequences at all.
    Plain,
    /// ANSI colours.
    Coloured,
}

impl Style {
    /// Colours only on a terminal, and not where `NO_COLOR` is set to anything.
    pub(crate) fn choose(is_terminal: bool, no_color: Option<&OsStr>) -> Self {
        let refused = no_color.is_some_and(|value| !value.is_empty());
        if is_terminal && !refused { Self::Coloured } else { Self::Plain }
    }

    /// Headings.
    pub(crate) fn bold(self, text: impl fmt::Display) -> String {
        self.wrap("1", text)
    }

    /// What is said aside.
    pub(crate) fn dim(self, text: impl fmt::Display) -> String {
        self.wrap("2", text)
    }

    /// What somebody should look at.
    pub(crate) fn warning(self, text: impl fmt::Display) -> String {
        self.wrap("33", text)
    }

    fn wrap(self, code: &str, text: impl fmt::Display) -> String {
        match self {
            Self::Plain => text.to_string(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_and_no_objection() {
        let cases = [
            (true, None, Style::Coloured),
            (true, Some(""), Style::Coloured),
            (true, Some("1"), Style::Plain),
            (false, None, Style::Plain),
        ];
        for (terminal, no_color, expected) in cases {
            assert_eq!(Style::choose(terminal, no_color.map(OsStr::new)), expected);
        }
        assert_eq!(Style::Plain.bold("x"), "x");
        assert_eq!(Style::Coloured.bold("x"), "\x1b[1mx\x1b[0m");
    }
}
