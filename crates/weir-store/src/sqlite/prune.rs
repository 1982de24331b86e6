//! Deleting what is past its retention, a little at a time.

use rusqlite::{OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::commit::{Sweep, Writer};
use super::facts::stored;
use super::memory;
use super::schema::{flow_table, total_table, window_number};
use crate::Pruned;
use crate::check::KeptLevel;

/// Rows of a table deleted per call.
const ROWS: i64 = 5_000;
/// Rows of a dictionary looked at per call.
const LOOKED_AT: i64 = 20_000;

/// The dictionaries, edges first: they refer to the others.
const DICTIONARIES: [&str; 3] = ["edge", "endpoint", "service"];

impl Writer {
    pub(super) fn prune(&mut self, now_seconds: u64) -> rusqlite::Result<Pruned> {
        let levels = self.levels.map(|kept| advanced(kept, now_seconds));
        let mut sweep = self.sweep;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut pruned = Pruned::default();
        for (kept, rows) in levels.iter().zip(&mut pruned.rows) {
            // First the word that they are gone, then the rows.
            transaction
                .prepare_cached("UPDATE level SET horizon = ?2 WHERE seconds = ?1")?
                .execute([kept.level.seconds(), kept.horizon].map(stored))?;
            let before = window_number(kept.level, kept.horizon);
            for (table, key) in [(flow_table(kept.level), "edge"), (total_table(kept.level), "key")]
            {
                let (deleted, more) = delete_before(&transaction, table, key, before)?;
                pruned.more |= more;
                if key == "edge" {
                    *rows = deleted;
                }
            }
        }
        let horizon = levels.iter().map(|kept| kept.horizon).min().unwrap_or(0);
        // With rows of that age still there, something may refer to old dictionary rows.
        if !pruned.more && (sweep.is_under_way() || sweep.hour < horizon / 3_600) {
            if !sweep.is_under_way() {
                sweep.hour = horizon / 3_600;
            }
            pruned.dictionary = sweep_dictionaries(&transaction, &mut sweep)?;
            pruned.more = sweep.is_under_way();
        }
        let (other, epochs) = delete_others(&transaction, horizon)?;
        let (forgotten, more) = memory::forget(&transaction, now_seconds)?;
        pruned.more |= more;
        pruned.other = other + epochs.len() as u64 + forgotten;
        transaction.commit()?;

        self.levels = levels;
        self.sweep = sweep;
        self.epochs.retain(|_, known| !epochs.contains(&known.id));
        if pruned.dictionary > 0 {
            self.memory.clear();
        }
        Ok(pruned)
    }
}

impl Sweep {
    fn is_under_way(&self) -> bool {
        self.at.iter().any(|at| *at > 0)
    }
}

/// The level with its horizon at its retention's end. A horizon never moves back.
fn advanced(kept: KeptLevel, now_seconds: u64) -> KeptLevel {
    let oldest = now_seconds.saturating_sub(kept.retention);
    let horizon = kept.horizon.max(oldest - oldest % kept.level.seconds());
    KeptLevel { horizon, ..kept }
}

/// Deletes at most [`ROWS`] rows of windows before `before`, oldest first.
fn delete_before(
    transaction: &Transaction<'_>,
    table: &str,
    key: &str,
    before: i64,
) -> rusqlite::Result<(u64, bool)> {
    let last: Option<(i64, i64)> = transaction
        .prepare_cached(&format!(
            "SELECT window, {key} FROM {table} WHERE window < ?1 \
             ORDER BY window, {key} LIMIT 1 OFFSET ?2"
        ))?
        .query_row([before, ROWS - 1], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let deleted = match last {
        Some((window, at)) => transaction
            .prepare_cached(&format!("DELETE FROM {table} WHERE (window, {key}) <= (?1, ?2)"))?
            .execute([window, at])?,
        None => transaction
            .prepare_cached(&format!("DELETE FROM {table} WHERE window < ?1"))?
            .execute([before])?,
    };
    Ok((deleted as u64, last.is_some()))
}

/// Deletes dictionary rows whose last fact lies before every horizon. A dictionary that is done
/// waits for the others, so that the next search begins in all of them.
fn sweep_dictionaries(transaction: &Transaction<'_>, sweep: &mut Sweep) -> rusqlite::Result<u64> {
    let mut deleted = 0;
    let fresh = !sweep.is_under_way();
    let hour = stored(sweep.hour);
    for (table, at) in
        DICTIONARIES.into_iter().zip(&mut sweep.at).filter(|(_, at)| fresh || **at > 0)
    {
        let end: Option<i64> = transaction
            .prepare_cached(&format!(
                "SELECT id FROM {table} WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2"
            ))?
            .query_row([*at, LOOKED_AT - 1], |row| row.get(0))
            .optional()?;
        deleted += transaction
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE id > ?1 AND id <= ?2 AND last < ?3"
            ))?
            .execute([*at, end.unwrap_or(i64::MAX), hour])?;
        *at = end.unwrap_or(0);
    }
    Ok(deleted as u64)
}

/// Deletes gaps, counters and epochs that ended before every horizon. An epoch's batches would all
/// be too old by now, so that forgetting their numbers cannot make one count twice.
fn delete_others(transaction: &Transaction<'_>, horizon: u64) -> rusqlite::Result<(u64, Vec<i64>)> {
    let mut deleted = 0;
    deleted += transaction
        .prepare_cached(
            "DELETE FROM gap WHERE id IN (SELECT id FROM gap WHERE to_seconds < ?1 LIMIT ?2)",
        )?
        .execute([stored(horizon), ROWS])?;
    deleted += transaction
        .prepare_cached("DELETE FROM counter WHERE hour < ?1")?
        .execute([stored(horizon / 3_600)])?;
    let epochs: Vec<i64> = transaction
        .prepare_cached("SELECT id FROM epoch WHERE last < ?1 LIMIT 64")?
        .query_map([stored(horizon)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for epoch in &epochs {
        for table in ["committed", "digest"] {
            transaction
                .prepare_cached(&format!("DELETE FROM {table} WHERE epoch = ?1"))?
                .execute([epoch])?;
        }
        transaction.prepare_cached("DELETE FROM epoch WHERE id = ?1")?.execute(params![epoch])?;
    }
    Ok((deleted as u64, epochs))
}
