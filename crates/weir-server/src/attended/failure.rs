//! What a store's failure is called, and whom it concerns.

use weir_store::StoreError;

/// The stable name of a failure of the store; `None` where it was the question's fault.
pub(super) fn reason(error: &StoreError) -> Option<&'static str> {
    Some(match error {
        StoreError::TimedOut { .. }
        | StoreError::TooManyGroups { .. }
        | StoreError::TooLarge { .. }
        | StoreError::Query { .. } => return None,
        StoreError::Full { .. } => "full",
        StoreError::ReadOnly { .. } | StoreError::NotAWriter { .. } => "read_only",
        StoreError::Damaged { .. } => "damaged",
        StoreError::ClickHouseUnreachable { .. } => "unreachable",
        StoreError::ClickHouseSlow { .. } => "slow",
        StoreError::ClickHouseRefused { code, .. } => refusal(*code),
        StoreError::ClickHouseAnswer { .. } => "answer",
        StoreError::ClickHouseNewer { .. }
        | StoreError::ClickHouseOlder { .. }
        | StoreError::ClickHouseForeign { .. }
        | StoreError::ClickHouseTable { .. }
        | StoreError::ClickHouseMigrating { .. } => "schema",
        _ => "database",
    })
}

/// True where the store itself cannot be reached or does nothing at all: nothing is wrong with what
/// it was given.
pub(crate) fn is_away(error: &StoreError) -> bool {
    match error {
        StoreError::Full { .. }
        | StoreError::ReadOnly { .. }
        | StoreError::ClickHouseUnreachable { .. }
        | StoreError::ClickHouseSlow { .. }
        | StoreError::ClickHouseAnswer { .. }
        | StoreError::ClickHouseMigrating { .. } => true,
        StoreError::ClickHouseRefused { code, .. } => refusal(*code) != OTHER,
        _ => false,
    }
}

/// True where a store that could not be opened may be there in a while, without anybody changing
/// what it was opened with.
pub fn comes_back(error: &StoreError) -> bool {
    match error {
        StoreError::ClickHouseUnreachable { .. }
        | StoreError::ClickHouseSlow { .. }
        | StoreError::ClickHouseMigrating { .. } => true,
        StoreError::ClickHouseRefused { code, .. } => {
            matches!(refusal(*code), "overloaded" | "replicas" | "quota" | "full" | "slow")
        }
        _ => false,
    }
}

/// What concerns one statement alone.
const OTHER: &str = "refused";

/// What ClickHouse's codes come to.
fn refusal(code: u32) -> &'static str {
    match code {
        192..=194 | 516 => "password",
        497 => "rights",
        201 => "quota",
        243 => "full",
        164 | 242 => "read_only",
        159 => "slow",
        202 | 209 | 210 | 236 | 241 | 252 | 745 => "overloaded",
        225 | 285 | 286 | 289 | 319 | 999 => "replicas",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u32) -> StoreError {
        let (detail, url) = (String::new(), String::new());
        StoreError::ClickHouseRefused { operation: "try", url, code, detail, advice: "" }
    }

    #[test]
    fn failures_have_names_and_questions_none() {
        for (error, expected) in [
            (StoreError::TimedOut { seconds: 1 }, (None, false, false)),
            (StoreError::Query { reason: "x" }, (None, false, false)),
            (StoreError::TooLarge { detail: String::new() }, (None, false, false)),
            (refused(516), (Some("password"), true, false)),
            (refused(497), (Some("rights"), true, false)),
            (refused(201), (Some("quota"), true, true)),
            (refused(252), (Some("overloaded"), true, true)),
            (refused(60), (Some("refused"), false, false)),
        ] {
            let said = (reason(&error), is_away(&error), comes_back(&error));
            assert_eq!(said, expected, "{error:?}");
        }
    }
}
