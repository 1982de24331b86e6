//! What others keep here to find it again after a restart.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::commit::Writer;
use super::facts::stored;
use crate::Memory;

/// Memories deleted per call.
const ROWS: i64 = 5_000;

impl Writer {
    pub(super) fn remember(&mut self, memories: &[Memory]) -> rusqlite::Result<()> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO memory (key, value, until) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until",
            )?;
            for Memory { key, value, until_seconds } in memories {
                put.execute((key, value, stored(*until_seconds)))?;
            }
        }
        transaction.commit()
    }
}

/// Memories whose key begins with `prefix` and comes after `after`, in order.
pub(super) fn remembered(
    connection: &Connection,
    prefix: &[u8],
    after: &[u8],
    limit: usize,
) -> rusqlite::Result<Vec<Memory>> {
    let mut query = connection.prepare_cached(
        "SELECT key, value, until FROM memory WHERE key > ?1 AND key >= ?2 ORDER BY key LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query.query_map((after, prefix, limit), |row| {
        let until: i64 = row.get(2)?;
        let until_seconds = u64::try_from(until).unwrap_or(0);
        Ok(Memory { key: row.get(0)?, value: row.get(1)?, until_seconds })
    })?;
    let is_asked_for =
        |row: &rusqlite::Result<Memory>| row.as_ref().map_or(true, |it| it.key.starts_with(prefix));
    rows.take_while(is_asked_for).collect()
}

/// Deletes memories whose time is over.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    now_seconds: u64,
) -> rusqlite::Result<(u64, bool)> {
    let deleted = transaction
        .prepare_cached(
            "DELETE FROM memory WHERE key IN (SELECT key FROM memory WHERE until < ?1 LIMIT ?2)",
        )?
        .execute([stored(now_seconds), ROWS])?;
    Ok((deleted as u64, i64::try_from(deleted) == Ok(ROWS)))
}
