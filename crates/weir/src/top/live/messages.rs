//! What others have to say while the screen is up.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use crate::render::Shown;

/// More than these are not kept; the oldest go.
const MOST: usize = 200;
/// Longer ones are cut.
const LONGEST: usize = 2_000;

/// Lines that would have gone to stderr, shared with whoever writes them. The newest is shown at
/// the bottom of the screen, all that are kept are printed once the terminal is as it was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Messages(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    dropped: u64,
}

impl Messages {
    /// Adds a line.
    pub(crate) fn push(&self, line: impl Into<String>) {
        let line = line.into();
        let line: String = line.trim_end().chars().take(LONGEST).collect();
        self.with(|kept| {
            if kept.lines.len() == MOST {
                kept.lines.pop_front();
                kept.dropped += 1;
            }
            kept.lines.push_back(line);
        });
    }

    /// The newest line.
    pub(super) fn last(&self) -> Option<String> {
        self.with(|kept| kept.lines.back().cloned())
    }

    /// Writes all lines, and forgets them.
    pub(super) fn flush(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Kept { lines, dropped } = self.with(std::mem::take);
        if dropped > 0 {
            writeln!(out, "weir: {dropped} earlier messages were not kept")?;
        }
        for line in lines {
            writeln!(out, "{}", Shown(&line))?;
        }
        Ok(())
    }

    fn with<T>(&self, action: impl FnOnce(&mut Kept) -> T) -> T {
        // Lines are whole at any moment, also after a panic elsewhere.
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_the_rest_is_counted() {
        let messages = Messages::default();
        for number in 0..MOST + 2 {
            messages.push(format!("line {number}\x1b[2J\n"));
        }
        assert_eq!(messages.last().as_deref(), Some("line 201\x1b[2J"));
        let mut out = Vec::new();
        messages.flush(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("weir: 2 earlier messages were not kept\nline 2\\u{1b}[2J\n"));
        assert_eq!(text.lines().count(), MOST + 1);
        assert_eq!(messages.last(), None);
    }
}
