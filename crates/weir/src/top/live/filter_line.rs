//! The line in which a filter is written.

mod complete;
mod words;

use std::time::Duration;

use weir_flow::Filter;
use weir_flow::filter::FilterError;

use super::wants::ValuesWant;

pub(super) use complete::quoted;

/// What is typed takes effect this long after the last key.
const SETTLES_AFTER: Duration = Duration::from_millis(150);
/// Longer filters are not typed by hand.
const LONGEST: usize = 1_000;

/// The line while it is edited.
#[derive(Clone, Debug, Default)]
pub(super) struct FilterLine {
    text: String,
    /// Where the next character goes, in bytes.
    cursor: usize,
    /// When the last key came, unless it took effect.
    changed_at: Option<Duration>,
    /// Which entry of the history is shown, from the newest.
    recalled: Option<usize>,
    completion: Completion,
}

/// What Tab offers.
#[derive(Clone, Debug, Default)]
enum Completion {
    #[default]
    None,
    /// The store is asked.
    Asked { start: usize, want: ValuesWant },
    /// Tab goes through these.
    Offered { start: usize, choices: Vec<String>, next: usize },
}

/// What a text means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) filter: Filter,
    /// The filter it stands for, where it is a search word.
    pub(super) became: Option<String>,
}

/// Reads a filter, or a search word such as `443`, `10.0.0.0/8` or `nginx`.
pub(super) fn read(text: &str) -> Result<Read, FilterError> {
    let error = match Filter::parse(text) {
        Ok(filter) => return Ok(Read { filter, became: None }),
        Err(error) => error,
    };
    let translated = words::translate(text.trim());
    match translated.and_then(|became| Filter::parse(&became).ok().zip(Some(became))) {
        Some((filter, became)) => Ok(Read { filter, became: Some(became) }),
        None => Err(error),
    }
}

impl FilterLine {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), cursor: text.len(), ..Self::default() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where the next character goes, in bytes.
    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    /// What Tab goes through, and which is next.
    pub(super) fn choices(&self) -> &[String] {
        match &self.completion {
            Completion::Offered { choices, .. } => choices,
            _ => &[],
        }
    }

    /// The values that are asked for.
    pub(super) fn wanted_values(&self) -> Option<&ValuesWant> {
        match &self.completion {
            Completion::Asked { want, .. } => Some(want),
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, character: char, now: Duration) {
        if character.is_control() || self.text.len() + character.len_utf8() > LONGEST {
            return;
        }
        self.text.insert(self.cursor, character);
        self.cursor += character.len_utf8();
        self.changed(now);
    }

    pub(super) fn backspace(&mut self, now: Duration) {
        if let Some(character) = self.text[..self.cursor].chars().next_back() {
            self.cursor -= character.len_utf8();
            self.text.remove(self.cursor);
            self.changed(now);
        }
    }

    pub(super) fn delete(&mut self, now: Duration) {
        if self.cursor < self.text.len() {
            self.text.remove(self.cursor);
            self.changed(now);
        }
    }

    /// Removes everything before the cursor.
    pub(super) fn clear(&mut self, now: Duration) {
        self.text.drain(..self.cursor);
        self.cursor = 0;
        self.changed(now);
    }

    pub(super) fn left(&mut self) {
        let before = self.text[..self.cursor].chars().next_back();
        self.cursor -= before.map_or(0, char::len_utf8);
        self.completion = Completion::None;
    }

    pub(super) fn right(&mut self) {
        let after = self.text[self.cursor..].chars().next();
        self.cursor += after.map_or(0, char::len_utf8);
        self.completion = Completion::None;
    }

    pub(super) fn home(&mut self) {
        self.cursor = 0;
        self.completion = Completion::None;
    }

    pub(super) fn end(&mut self) {
        self.cursor = self.text.len();
        self.completion = Completion::None;
    }

    /// An older (or a newer) filter; `history` has the newest last.
    pub(super) fn recall(&mut self, history: &[String], older: bool, now: Duration) {
        let next = match (self.recalled, older) {
            (None, true) => Some(0),
            (Some(at), true) => Some((at + 1).min(history.len().saturating_sub(1))),
            (Some(at), false) => at.checked_sub(1),
            (None, false) => return,
        };
        let text = next.and_then(|at| history.iter().rev().nth(at)).cloned();
        if text.is_none() && older {
            return;
        }
        self.text = text.unwrap_or_default();
        self.cursor = self.text.len();
        self.changed(now);
        self.recalled = next;
    }

    /// Completes the word before the cursor, or goes on to the next choice.
    pub(super) fn complete(&mut self, now: Duration) {
        if let Completion::Offered { start, choices, next } = &mut self.completion {
            let (start, choice) = (*start, choices[*next].clone());
            *next = (*next + 1) % choices.len();
            self.put(start, &choice, now);
            return;
        }
        let place = complete::place(&self.text[..self.cursor]);
        let start = place.start;
        match place.choices() {
            complete::Choices::Known(choices) => self.offer(start, choices, now),
            complete::Choices::Asked(want) => self.completion = Completion::Asked { start, want },
        }
    }

    /// Values have arrived.
    pub(super) fn values(&mut self, want: &ValuesWant, values: &[String], now: Duration) {
        let Completion::Asked { start, want: asked } = &self.completion else { return };
        if asked == want {
            let choices = values.iter().map(|value| quoted(value)).collect();
            self.offer(*start, choices, now);
        }
    }

    fn offer(&mut self, start: usize, choices: Vec<String>, now: Duration) {
        let Some(first) = choices.first().cloned() else {
            self.completion = Completion::None;
            return;
        };
        let is_only = choices.len() == 1;
        let next = 1 % choices.len();
        self.completion = Completion::Offered { start, choices, next };
        self.put(start, &first, now);
        if is_only {
            // There is nothing to go through: Tab goes on with the next word.
            self.completion = Completion::None;
            if self.cursor == self.text.len() {
                self.text.push(' ');
                self.cursor += 1;
            }
        }
    }

    /// Replaces the text from `start` to the cursor.
    fn put(&mut self, start: usize, choice: &str, now: Duration) {
        if self.text.len() + choice.len() > LONGEST {
            return;
        }
        self.text.replace_range(start..self.cursor, choice);
        self.cursor = start + choice.len();
        self.changed_at = Some(now);
        self.recalled = None;
    }

    fn changed(&mut self, now: Duration) {
        self.changed_at = Some(now);
        self.completion = Completion::None;
        self.recalled = None;
    }

    /// What the text means, once nobody typed for a moment. A word that may become the name of a
    /// field is waited for.
    pub(super) fn settled(&mut self, now: Duration) -> Option<Read> {
        let changed_at = self.changed_at?;
        if now.saturating_sub(changed_at) < SETTLES_AFTER {
            return None;
        }
        self.changed_at = None;
        let read = read(&self.text).ok()?;
        let may_become_a_field = read.became.is_some() && words::begins_a_field(self.text.trim());
        (!may_become_a_field).then_some(read)
    }

    /// What is wrong with it; nothing while the last word may only be unfinished.
    pub(super) fn error(&self) -> Option<FilterError> {
        read(&self.text).err()
    }
}

#[cfg(test)]
mod tests;
