//! Text that fits: columns of a terminal, numbers for people.

use std::borrow::Cow;

use ratatui::style::Style;
use ratatui::text::Span;
use weir_server::moment;

use crate::render::{Shown, bytes};

/// On which side a cell's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Columns a terminal needs for this text.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A name from outside, without anything a terminal would act on.
pub(super) fn shown(text: &str) -> String {
    Shown(text).to_string()
}

/// The text in exactly this many columns: padded, or cut with an ellipsis.
pub(super) fn fit(text: &str, columns: usize, side: Side, ellipsis: &str) -> String {
    let needed = width(text);
    let text = if needed > columns { cut(text, columns, ellipsis) } else { Cow::Borrowed(text) };
    let room = " ".repeat(columns.saturating_sub(width(&text)));
    match side {
        Side::Left => format!("{text}{room}"),
        Side::Right => format!("{room}{text}"),
    }
}

/// As much of the text's beginning as fits, never half a wide character.
fn cut<'a>(text: &'a str, columns: usize, ellipsis: &str) -> Cow<'a, str> {
    let Some(room) = columns.checked_sub(width(ellipsis)) else { return Cow::Borrowed("") };
    let mut kept = String::new();
    for grapheme in Span::raw(text).styled_graphemes(Style::new()) {
        // Measured together: joined characters are not as wide as their parts.
        let before = kept.len();
        kept.push_str(grapheme.symbol);
        if width(&kept) > room {
            kept.truncate(before);
            break;
        }
    }
    kept.push_str(ellipsis);
    Cow::Owned(kept)
}

/// A name of at most this many columns where that can be had by shortening its namespace: of
/// `NAMESPACE/NAME` the name says more. Else the name as it is.
pub(super) fn shorten<'a>(name: &'a str, columns: usize, ellipsis: &str) -> Cow<'a, str> {
    /// A namespace shorter than this says nothing.
    const LEAST: usize = 3;
    let Some((namespace, rest)) = name.split_once('/') else { return Cow::Borrowed(name) };
    let least = LEAST + width(ellipsis);
    if width(name) <= columns || width(namespace) <= least {
        return Cow::Borrowed(name);
    }
    let room = columns.saturating_sub(1 + width(rest)).max(least);
    Cow::Owned(format!("{}/{rest}", cut(namespace, room, ellipsis)))
}

/// A measured rate without its "per second": `1.46 KiB`, `0`, or `?` where nobody measured.
pub(super) fn rate(bytes_per_second: Option<f64>) -> String {
    match bytes_per_second.filter(|rate| rate.is_finite() && *rate >= 0.0) {
        None => "?".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 1.0 => "<1 B".to_owned(),
        Some(rate) => bytes(whole(rate)),
    }
}

/// Bytes, or `?` where nobody counted.
pub(super) fn total(count: Option<u64>) -> String {
    count.map_or_else(|| "?".to_owned(), bytes)
}

/// To the nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to integer saturates, and what is negative or not a number becomes 0"
)]
pub(super) fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// A number with its thousands apart: `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A length of time in the two largest units, or `?`.
pub(super) fn length(seconds: Option<f64>) -> String {
    let seconds = seconds.filter(|seconds| seconds.is_finite());
    seconds.map_or_else(|| "?".to_owned(), |seconds| moment::human(whole(seconds.floor())))
}

/// The time of day of an RFC 3339 time in UTC: `08:00:00Z`.
pub(super) fn clock(rfc3339: &str) -> String {
    match rfc3339.get(11..19) {
        Some(time) => format!("{}Z", shown(time)),
        None => shown(rfc3339),
    }
}

/// Text broken into lines of at most this many columns, at spaces where there are any.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        if !line.is_empty() && width(&line) + 1 + width(&word) > columns {
            lines.push(std::mem::take(&mut line));
        }
        while width(&word) > columns {
            let head = cut(&word, columns, "").into_owned();
            if head.is_empty() {
                break;
            }
            word.drain(..head.len());
            lines.push(head);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_exactly_as_wide_as_asked() {
        for text in ["", "nginx", "例え.service", "e\u{301}e\u{301}e\u{301}", "👩‍👩‍👧 family", "größe"]
        {
            for columns in 0..20 {
                for side in [Side::Left, Side::Right] {
                    let cell = fit(text, columns, side, "…");
                    assert_eq!(width(&cell), columns, "{text:?} in {columns}: {cell:?}");
                }
            }
        }
        assert_eq!(fit("nginx.service", 6, Side::Left, "…"), "nginx…");
        assert_eq!(fit("7", 3, Side::Right, "…"), "  7");
    }

    #[test]
    fn a_namespace_is_shortened_before_the_name() {
        for (name, columns, expected) in [
            ("kube-system/coredns-5d78c", 30, "kube-system/coredns-5d78c"),
            ("kube-system/coredns-5d78c", 22, "kube-sy…/coredns-5d78c"),
            ("kube-system/coredns-5d78c", 10, "kub…/coredns-5d78c"),
            ("shop/coredns-5d78c", 10, "shop/coredns-5d78c"),
            ("coredns", 3, "coredns"),
        ] {
            assert_eq!(shorten(name, columns, "…"), expected, "{name} in {columns}");
        }
    }

    #[test]
    fn numbers_for_people() {
        let cases = [
            (None, "?"),
            (Some(0.0), "0"),
            (Some(0.3), "<1 B"),
            (Some(1500.0), "1.46 KiB"),
            (Some(f64::NAN), "?"),
            (Some(-1.0), "?"),
            (Some(f64::INFINITY), "?"),
        ];
        for (number, text) in cases {
            assert_eq!(rate(number), text, "{number:?}");
        }
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(clock("2026-01-31T08:09:10Z"), "08:09:10Z");
    }

    #[test]
    fn text_wraps_at_spaces_and_long_words_are_cut() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("", 3), Vec::<String>::new());
        assert_eq!(wrap("例例", 1).len(), 1);
    }
}
