//! Where a page of flows ended.

use weir_flow::Filter;
use weir_store::Cell;
use xxhash_rust::xxh3::Xxh3;

/// No step is longer than what a duration can say, rounded up to an hour.
const MAX_STEP_SECONDS: u64 = 36_525 * 86_400 + 3_600;

/// The last row of a page. Written as a short text that means nothing to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Start of the row's step, or of the range where that is later; seconds since 1970.
    pub(super) from: u64,
    /// Length of the steps.
    pub(super) step_seconds: u64,
    /// End of the range.
    pub(super) end: u64,
    /// How many rows stood before it in its step.
    pub(super) rank: usize,
    /// The row itself: see [`digest`].
    pub(super) digest: u128,
}

impl Cursor {
    /// As it is handed out.
    pub(super) fn write(self) -> String {
        let Self { from, step_seconds, end, rank, digest } = self;
        format!("{from:x}.{step_seconds:x}.{end:x}.{rank:x}.{digest:x}")
    }

    /// Reads what was handed out; `None` where it is something else.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut number = || parts.next().and_then(hexadecimal);
        let (from, step_seconds, end) = (number()?, number()?, number()?);
        let (rank, digest) = (number()?, number()?);
        let cursor = Self {
            from: u64::try_from(from).ok()?,
            step_seconds: u64::try_from(step_seconds).ok()?,
            end: u64::try_from(end).ok()?,
            rank: usize::try_from(rank).ok()?,
            digest,
        };
        let is_whole = parts.next().is_none() && cursor.from < cursor.end;
        (is_whole && (1..=MAX_STEP_SECONDS).contains(&cursor.step_seconds)).then_some(cursor)
    }
}

/// Reads plain digits only; `from_str_radix` would take a sign too.
fn hexadecimal(text: &str) -> Option<u128> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// What tells a row from all others that a question can be answered with. The question is in it,
/// so that the cursor of another one points nowhere.
pub(super) fn digest(filter: &Filter, step_seconds: u64, key: &[Cell]) -> u128 {
    let mut state = Xxh3::new();
    let mut put = |text: &str| {
        state.update(&text.len().to_le_bytes());
        state.update(text.as_bytes());
    };
    put(&filter.to_string());
    put(&step_seconds.to_string());
    for cell in key {
        // A flow without a service is not one whose service has no name.
        put(if *cell == Cell::None { "-" } else { "+" });
        put(&cell.to_string());
    }
    state.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_is_one() {
        let cursor = Cursor {
            from: 1_769_846_400,
            step_seconds: 10,
            end: u64::MAX,
            rank: 4_711,
            digest: u128::MAX - 5,
        };
        assert_eq!(Cursor::read(&cursor.write()), Some(cursor));
        assert!(cursor.write().len() < 100);
        for text in [
            "",
            "1.2.3.4",
            "1.a.3.4.5.6",
            "1.0.3.4.5",
            "1.ffffffffffff.3.4.5",
            "3.a.3.4.5",
            "+1.a.3.4.5",
            "1.a.ffffffffffffffffff.4.5",
            "1.a.3.4.fffffffffffffffffffffffffffffffff",
            "é.a.3.4.5",
        ] {
            assert_eq!(Cursor::read(text), None, "{text}");
        }
    }

    #[test]
    fn rows_and_questions_have_digests_of_their_own() {
        let text = |text: &str| Cell::Text(text.into());
        let keys = [
            vec![text("ab"), text("c")],
            vec![text("a"), text("bc")],
            vec![text(""), Cell::None],
            vec![Cell::None, text("")],
        ];
        let mut digests: Vec<u128> = keys.iter().map(|key| digest(&Filter::All, 10, key)).collect();
        digests.push(digest(&Filter::All, 60, &keys[0]));
        digests.push(digest(&Filter::parse("class = internet").unwrap(), 10, &keys[0]));
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 6);
    }
}
