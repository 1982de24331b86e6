//! What is wrong with a filter, where, and what was probably meant.

use super::{MAX_BYTES, MAX_DEPTH, MAX_TESTS};

/// A filter that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read filter, at byte {position}: {problem}")]
pub struct FilterError {
    /// Where in the text, in bytes from its start.
    pub position: usize,
    /// How many bytes of the text are concerned; 0 at its end.
    pub length: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Longer than [`MAX_BYTES`].
    #[error("the text has {bytes} bytes, at most {MAX_BYTES} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("parentheses and `not` are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// More tests than [`MAX_TESTS`].
    #[error("more than {MAX_TESTS} tests; put alternatives into one `in (…)`")]
    TooManyTests,
    /// A quoted value without its end.
    #[error("the quoted value does not end; expected a closing {quote}")]
    UnclosedQuote {
        /// The quote it began with.
        quote: char,
    },
    /// A backslash in a quoted value, followed by something unknown.
    #[error(r#"unknown escape; expected \\, \", \', \n, \r, \t or \u{{HEX}}"#)]
    UnknownEscape,
    /// A character that has no place in a filter.
    #[error("unexpected character {character:?}; values with such characters are quoted")]
    UnexpectedCharacter {
        /// The character.
        character: char,
    },
    /// Something else stands here.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What would have been right.
        expected: &'static str,
        /// What was there.
        found: String,
    },
    /// No such field.
    #[error("there is no field `{name}`{}", suggestion(nearest.as_deref()))]
    UnknownField {
        /// What was written.
        name: String,
        /// The nearest valid name.
        nearest: Option<String>,
    },
    /// `source.port`: not kept.
    #[error(
        "a source's port is ephemeral and not kept; the port that can be tested is \
         `destination.port`"
    )]
    SourcePort,
    /// A value that is not one of the field's.
    #[error("`{value}` is not {expected}{}", suggestion(nearest.as_deref()))]
    UnknownValue {
        /// What was written.
        value: String,
        /// What the field takes.
        expected: &'static str,
        /// The nearest valid value.
        nearest: Option<String>,
    },
    /// An operator that the field does not have.
    #[error("`{field}` cannot be tested with `{operator}`; it takes {valid}")]
    WrongOperator {
        /// The field.
        field: String,
        /// What was written.
        operator: &'static str,
        /// The operators that it has.
        valid: &'static str,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

/// How much of a line is shown on each side of the error, in characters.
const SHOWN_CHARACTERS: usize = 60;

impl FilterError {
    /// The message, the line of `text` in which the error stands, and a line that points to it.
    ///
    /// `text` is the text that was parsed. Characters that a terminal would act upon are shown as
    /// `?`; of a long line only the part around the error is shown.
    pub fn render(&self, text: &str) -> String {
        let position = floor_char_boundary(text, self.position);
        let end = floor_char_boundary(text, self.position.saturating_add(self.length));
        let (before, rest) = text.split_at(position);
        let line_before = before.rsplit('\n').next().unwrap_or_default();
        let line_rest = rest.split('\n').next().unwrap_or_default();

        let skipped = line_before.chars().count().saturating_sub(SHOWN_CHARACTERS);
        let mut shown = String::new();
        if skipped > 0 {
            shown.push('…');
        }
        shown.extend(line_before.chars().skip(skipped).map(harmless));
        let indent = shown.chars().count();
        shown.extend(line_rest.chars().take(SHOWN_CHARACTERS).map(harmless));
        if line_rest.chars().count() > SHOWN_CHARACTERS {
            shown.push('…');
        }

        let marked = text.get(position..end.max(position)).unwrap_or_default();
        let marked = marked.split('\n').next().unwrap_or_default().chars().count();
        let carets = "^".repeat(marked.clamp(1, SHOWN_CHARACTERS));
        format!("{self}\n  {shown}\n  {:indent$}{carets}", "")
    }
}

fn harmless(character: char) -> char {
    if character.is_control() { '?' } else { character }
}

fn floor_char_boundary(text: &str, position: usize) -> usize {
    let mut position = position.min(text.len());
    while !text.is_char_boundary(position) {
        position -= 1;
    }
    position
}

/// The candidate nearest to what was written, if any is near enough to be what was meant.
pub fn nearest(written: &str, candidates: impl Iterator<Item: AsRef<str>>) -> Option<String> {
    let written: String = written.chars().take(64).flat_map(char::to_lowercase).collect();
    let allowed = (written.chars().count() / 3).clamp(1, 4);
    candidates
        .map(|candidate| (distance(&written, candidate.as_ref()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.as_ref().to_owned())
}

/// Edits (insert, delete, replace, swap of neighbours) between two short texts.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for i in 1..=left.len() {
        let mut row = Vec::with_capacity(last.len());
        row.push(i);
        for j in 1..=right.len() {
            let replace = last[j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}
