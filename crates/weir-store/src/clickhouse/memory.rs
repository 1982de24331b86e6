//! What others keep here to find it again after a restart.

use std::time::{SystemTime, UNIX_EPOCH};

use super::connection::{Connection, Format, Statement};
use super::ddl::MEMORY;
use super::encode::put_bytes;
use super::rows::{Malformed, Rows};
use crate::{Memory, Result};

/// The next version of a memory: later ones replace earlier ones.
#[derive(Debug, Default)]
pub(super) struct Versions {
    last: u64,
}

impl Versions {
    /// By the clock, so that servers agree about as well as their clocks; never the same twice.
    fn next(&mut self) -> u64 {
        self.last = nanoseconds().max(self.last + 1);
        self.last
    }
}

fn nanoseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn remember(
    connection: &Connection,
    versions: &mut Versions,
    memories: &[Memory],
) -> Result<()> {
    if memories.is_empty() {
        return Ok(());
    }
    let mut rows = Vec::new();
    for memory in memories {
        put_bytes(&mut rows, &memory.key);
        put_bytes(&mut rows, &memory.value);
        rows.extend(memory.until_seconds.to_le_bytes());
        rows.extend(versions.next().to_le_bytes());
    }
    let sql = format!("INSERT INTO {MEMORY} (key, value, until, version) FORMAT RowBinary");
    let statement =
        Statement::new("remember", sql).setting("async_insert", 0).setting("wait_end_of_query", 1);
    let inner = connection.clone();
    connection.wait(async move { inner.insert(statement, rows.into()).await })
}

/// Memories whose key begins with `prefix` and comes after `after`, in order.
pub(super) fn remembered(
    connection: &Connection,
    prefix: &[u8],
    after: &[u8],
    limit: usize,
) -> Result<Vec<Memory>> {
    let operation = "read what is remembered";
    let sql = format!(
        "SELECT key, value, until FROM {MEMORY} FINAL \
         WHERE key > unhex({{after:String}}) AND key >= unhex({{prefix:String}}) \
         AND startsWith(key, unhex({{prefix:String}})) ORDER BY key LIMIT {{most:UInt64}}"
    );
    let statement = Statement::new(operation, sql)
        .text("after", hex(after))
        .text("prefix", hex(prefix))
        .number("most", u64::try_from(limit).unwrap_or(u64::MAX))
        .setting("select_sequential_consistency", 1);
    let answer = connection.rows(statement, Format::RowBinary)?;
    let mut rows = Rows::new(&answer);
    let mut memories = Vec::new();
    let mut read = || -> std::result::Result<(), Malformed> {
        while !rows.is_empty() {
            let (key, value) = (rows.bytes()?.to_vec(), rows.bytes()?.to_vec());
            memories.push(Memory { key, value, until_seconds: rows.u64()? });
        }
        Ok(())
    };
    read().map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    Ok(memories)
}

/// Deletes memories whose time is over; returns how many.
pub(super) fn forget(connection: &Connection, now_seconds: u64) -> Result<u64> {
    let operation = "forget memories";
    // What is replaced from now on stays.
    let before = nanoseconds();
    let over = format!("SELECT key FROM {MEMORY} FINAL WHERE until < {now_seconds}");
    let count = format!("SELECT count() FROM ({over})");
    let answer = connection.rows(Statement::new(operation, count), Format::RowBinary)?;
    let count = Rows::new(&answer)
        .u64()
        .map_err(|Malformed| connection.unreadable(operation, "rows of another shape"))?;
    if count > 0 {
        let sql = format!("DELETE FROM {MEMORY} WHERE key IN ({over}) AND version <= {before}");
        connection.run(Statement::new(operation, sql).setting("lightweight_deletes_sync", 2))?;
    }
    Ok(count)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}
