//! Which batches are there already, and what is known of their epochs.

use hashbrown::HashMap;
use weir_flow::ingest::Ranges;
use weir_flow::{BatchId, Digest, Epoch};

use super::connection::{Connection, Format, Statement};
use super::ddl::{BATCH, RAW};
use super::rows::{Malformed, Rows};
use crate::{CommittedEpoch, Result};

/// Days whose numbers are read back at once. What is older is found by its own number.
const DAYS: u64 = 3;
/// Digests read back per epoch.
const DIGESTS: u64 = 256;
/// Epochs read back.
const EPOCHS: u64 = 65_536;

/// A batch that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) node: String,
    /// `None` where it is no longer known.
    pub(super) digest: Option<Digest>,
    /// When it was written, by the writer's clock.
    pub(super) written: u64,
    /// It reached every table; else it may be in the raw table alone.
    pub(super) is_complete: bool,
}

/// An epoch that is there.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownEpoch {
    pub(super) node: String,
    pub(super) ranges: Ranges,
}

/// Looks batches up by their numbers: in the table of batches, and in the raw table, which has them
/// earlier. `wanted`: number, and the hour of the batch's own row. What ended before `horizon` is
/// forgotten.
pub(super) fn batches(
    connection: &Connection,
    wanted: &[(BatchId, u32)],
    horizon: u64,
) -> Result<HashMap<BatchId, Found>> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let numbers = joined(
        wanted.iter().map(|(id, _)| format!("(toUInt128('{}'), {})", id.epoch.0, id.sequence)),
    );
    let mut hours: Vec<u32> = wanted.iter().map(|(_, hour)| *hour).collect();
    hours.sort_unstable();
    hours.dedup();
    let hours = joined(hours.iter().map(|hour| format!("toDateTime({hour}, 'UTC')")));
    let columns = "epoch, sequence, toString(node), digest, toUInt32(written)";
    let sql = format!(
        "SELECT {columns}, 1 FROM {BATCH} \
         WHERE (epoch, sequence) IN ({numbers}) AND end_seconds >= {horizon} \
         UNION ALL SELECT {columns}, 0 FROM {RAW} WHERE is_batch = 1 AND window IN ({hours}) \
         AND (epoch, sequence) IN ({numbers}) AND end_seconds >= {horizon}"
    );
    let operation = "look batches up";
    let statement = Statement::new(operation, sql).setting("select_sequential_consistency", 1);
    let answer = connection.rows(statement, Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut found = HashMap::new();
    let mut read = || -> std::result::Result<(), Malformed> {
        while !rows.is_empty() {
            let id = BatchId { epoch: Epoch(rows.u128()?), sequence: rows.u64()? };
            let node = rows.text()?.to_owned();
            let digest = Some(Digest(rows.u128()?)).filter(|digest| digest.0 != 0);
            let written = u64::from(rows.u32()?);
            let known = found.get(&id).is_some_and(|it: &Found| it.is_complete);
            let is_complete = rows.u8()? == 1 || known;
            found.insert(id, Found { node, digest, written, is_complete });
        }
        Ok(())
    };
    read().map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    Ok(found)
}

/// Batches that were written since.
pub(super) fn written_since(connection: &Connection, seconds: u64) -> Result<u64> {
    let operation = "count the batches written lately";
    let sql = format!(
        "SELECT count() FROM {BATCH} WHERE written >= toDateTime({}, 'UTC')",
        seconds.min(u64::from(u32::MAX))
    );
    let answer = connection.rows(Statement::new(operation, sql), Format::RowBinary)?;
    Rows::new(&answer)
        .u64()
        .map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))
}

/// What is known of these epochs, of all where none is named.
pub(super) fn epochs(
    connection: &Connection,
    only: &[Epoch],
    horizon: u64,
) -> Result<HashMap<Epoch, KnownEpoch>> {
    let (operation, condition) = asked(only, horizon);
    // Numbers that follow each other without a hole have the same distance from their rank.
    let sql = format!(
        "SELECT epoch, toString(any(name)), min(sequence) AS first, max(sequence) \
         FROM (SELECT epoch, name, sequence, \
         sequence - row_number() OVER (PARTITION BY epoch ORDER BY sequence) AS span \
         FROM (SELECT epoch, any(node) AS name, sequence FROM {BATCH} WHERE {condition} \
         GROUP BY epoch, sequence)) GROUP BY epoch, span ORDER BY epoch, first"
    );
    let statement = Statement::new(operation, sql).setting("select_sequential_consistency", 1);
    let answer = connection.rows(statement, Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut epochs: HashMap<Epoch, KnownEpoch> = HashMap::new();
    let mut read = || -> std::result::Result<(), Malformed> {
        while !rows.is_empty() {
            let epoch = Epoch(rows.u128()?);
            let node = rows.text()?;
            let (first, last) = (rows.u64()?, rows.u64()?);
            let known = epochs.entry(epoch).or_default();
            node.clone_into(&mut known.node);
            known.ranges.push(first, last);
        }
        Ok(())
    };
    read().map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    Ok(epochs)
}

/// The same, with the newest digests.
pub(super) fn committed(
    connection: &Connection,
    only: &[Epoch],
    horizon: u64,
) -> Result<Vec<CommittedEpoch>> {
    let mut committed: Vec<CommittedEpoch> = epochs(connection, only, horizon)?
        .into_iter()
        .map(|(epoch, known)| CommittedEpoch {
            epoch,
            node: known.node,
            ranges: known.ranges,
            digests: Vec::new(),
        })
        .collect();
    committed.sort_unstable_by_key(|known| known.epoch);
    let (operation, condition) = asked(only, horizon);
    let sql = format!(
        "SELECT epoch, sequence, any(digest) AS kept FROM {BATCH} WHERE {condition} \
         AND digest != 0 GROUP BY epoch, sequence \
         ORDER BY epoch, sequence DESC LIMIT {DIGESTS} BY epoch"
    );
    let answer = connection.rows(Statement::new(operation, sql), Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut read = || -> std::result::Result<(), Malformed> {
        while !rows.is_empty() {
            let epoch = Epoch(rows.u128()?);
            let (sequence, digest) = (rows.u64()?, Digest(rows.u128()?));
            if let Ok(at) = committed.binary_search_by_key(&epoch, |known| known.epoch) {
                committed[at].digests.push((sequence, digest));
            }
        }
        Ok(())
    };
    read().map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    for known in &mut committed {
        known.digests.reverse();
    }
    Ok(committed)
}

/// What an operation over epochs is called, and which batches it looks at.
fn asked(only: &[Epoch], horizon: u64) -> (&'static str, String) {
    let lately = format!("end_seconds >= {horizon} AND written >= now() - toIntervalDay({DAYS})");
    if only.is_empty() {
        let newest = format!(
            "epoch IN (SELECT epoch FROM {BATCH} WHERE {lately} GROUP BY epoch \
             ORDER BY max(written) DESC LIMIT {EPOCHS})"
        );
        return ("read what is committed", format!("{lately} AND {newest}"));
    }
    let epochs = joined(only.iter().map(|epoch| format!("toUInt128('{}')", epoch.0)));
    ("read what is committed", format!("epoch IN ({epochs}) AND {lately}"))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
