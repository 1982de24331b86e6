//! What ClickHouse's refusals mean to who runs weir.

use crate::{Limits, StoreError};

/// Characters of the engine's own words.
const DETAIL: usize = 400;

const TIMED_OUT: u32 = 159;
const TOO_MANY_ROWS: u32 = 158;
const OUT_OF_MEMORY: u32 = 241;
/// Nothing was kept of what a statement with this code tried.
pub(super) const ACCESS_DENIED: u32 = 497;
pub(super) const TABLE_EXISTS: u32 = 57;
pub(super) const REPLICA_EXISTS: u32 = 253;
pub(super) const UNKNOWN_TABLE: u32 = 60;
pub(super) const UNKNOWN_DATABASE: u32 = 81;
/// Another insert's quorum is still being waited for.
pub(super) const QUORUM_PENDING: u32 = 286;

/// The error for what ClickHouse said.
pub(super) fn error(
    operation: &'static str,
    url: String,
    limits: Option<Limits>,
    text: &str,
) -> StoreError {
    let code = code(text);
    match (code, limits) {
        (TIMED_OUT, Some(limits)) => StoreError::TimedOut { seconds: limits.query_seconds },
        (TOO_MANY_ROWS, Some(limits)) => StoreError::TooManyGroups { limit: limits.query_groups },
        (OUT_OF_MEMORY, Some(_)) if is_of_the_query(text) => {
            StoreError::TooLarge { detail: shortened(text) }
        }
        (0, _) => StoreError::ClickHouseAnswer { operation, url, detail: shortened(text) },
        _ => StoreError::ClickHouseRefused {
            operation,
            url,
            code,
            detail: shortened(text),
            advice: advice(code),
        },
    }
}

/// The code of an error that ClickHouse gave; `None` for others.
pub(super) fn code_of(error: &StoreError) -> Option<u32> {
    match error {
        StoreError::ClickHouseRefused { code, .. } => Some(*code),
        _ => None,
    }
}

/// Whether one query's memory ran out, not the user's or the server's.
fn is_of_the_query(text: &str) -> bool {
    text.contains("Query memory limit exceeded") || text.contains("(for query) exceeded")
}

/// The number after the first `Code: `, which begins the exception even in the midst of rows.
fn code(text: &str) -> u32 {
    text.find("Code: ")
        .map(|at| text.split_at(at + "Code: ".len()).1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// The first line, without control characters.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().filter(|c| !c.is_control()).take(DETAIL).collect();
    if line.chars().count() > DETAIL {
        short.push('…');
    }
    short
}

fn advice(code: u32) -> &'static str {
    match code {
        516 | 192..=194 => "check the user and its password",
        ACCESS_DENIED => {
            "give the user the rights that `weir server grants` prints, or let another user make the tables"
        }
        164 => "the user is read-only: use one who may insert",
        242 => {
            "the table is read-only, as when ClickHouse lost its Keeper: it goes on when that is back"
        }
        201 => "the user's quota is used up: raise it, or wait until its interval ends",
        OUT_OF_MEMORY => {
            "ClickHouse has too little memory for it: ask for less at a time, or give it more memory"
        }
        243 => "the disk of ClickHouse is full: free space there, and it goes on",
        202 => "too many queries run at once: it is tried again, or raise max_concurrent_queries",
        252 => {
            "too many parts wait to be merged: ClickHouse needs time, or more disk and processors"
        }
        UNKNOWN_TABLE | UNKNOWN_DATABASE => {
            "the tables are missing: run `weir server migrate`, or check the name of the database"
        }
        10 | 16 | 47 => "a column is missing: run `weir server migrate`",
        TIMED_OUT => "it took too long: it is tried again",
        285 | QUORUM_PENDING | 289 => {
            "not enough replicas are there: it goes on when most of them are back"
        }
        999 | 225 => "ClickHouse cannot reach its Keeper: it goes on when that is back",
        115 => "this ClickHouse lacks a setting that weir needs: use release 24.8 or newer",
        _ => "see ClickHouse's own log for more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_and_words_are_plain() {
        let text = "Code: 159. DB::Exception: Timeout \u{1b}[31mexceeded\nstack";
        assert_eq!((code(text), code("nginx says no"), code("Code: x")), (159, 0, 0));
        assert_eq!(shortened(text), "Code: 159. DB::Exception: Timeout [31mexceeded");
        let limits = Limits { query_seconds: 3, ..Limits::default() };
        let url = || "http://a".to_owned();
        assert!(matches!(
            error("ask", url(), Some(limits), text),
            StoreError::TimedOut { seconds: 3 }
        ));
        let text = "Code: 241. DB::Exception: Query memory limit exceeded";
        let too_large = error("ask", url(), Some(limits), text);
        assert!(matches!(too_large, StoreError::TooLarge { .. }), "{too_large}");
        assert_eq!(code_of(&error("insert a batch", url(), None, text)), Some(241));
        let text = "Code: 241. DB::Exception: Memory limit (for query) exceeded: would use 1 GiB";
        assert_eq!(code_of(&error("ask", url(), Some(limits), text)), None);
        let text = "Code: 241. DB::Exception: (total) memory limit exceeded: would use 9 GiB";
        assert_eq!(code_of(&error("ask", url(), Some(limits), text)), Some(241));
        let error = error("insert a batch", url(), None, "Code: 243. DB::Exception: no space");
        assert_eq!(code_of(&error), Some(243));
        assert!(error.to_string().contains("free space"), "{error}");
    }
}
