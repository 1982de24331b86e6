//! Names that others chose, made harmless for a terminal.

use std::fmt::{self, Write as _};

/// Text from outside (unit and file names, error details), printed so that no terminal acts on it:
/// control characters and those that reorder text become escapes.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if is_harmful(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// True for what a terminal may act on.
pub(super) fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}'      // zero width, direction marks
            | '\u{2028}'..='\u{202e}'    // line and paragraph separators, direction overrides
            | '\u{2060}'..='\u{206f}'    // word joiner, direction isolates
            | '\u{061c}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_act_on() {
        for (text, shown) in [
            ("nginx.service", "nginx.service"),
            ("größe 例", "größe 例"),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("evil\u{202e}gpj.exe", "evil\\u{202e}gpj.exe"),
        ] {
            assert_eq!(Shown(text).to_string(), shown);
        }
    }
}
