//! The embedded store: one SQLite database in a directory of its own.
//!
//! The file is normalised by dictionaries. An *endpoint*, *service* or *node* is written once; so is
//! an *edge*: everything of a flow key but its window. A fact is then (window, edge, sums), which
//! keeps the finest rows near 30 bytes. Beside the flows of each level stand its *totals*, summed
//! by node, class, protocol and IP version, which answer the questions of overviews in
//! milliseconds. All of a batch, its number included, goes in with one transaction.
//!
//! One process writes (`lock`), any number reads. Levels are pruned by their retention; the point
//! before which a level holds nothing any more, its *horizon*, is stored and never moves back, so
//! that what is written, what is read and what is deleted agree without a clock.

mod cache;
mod commit;
mod dictionary;
mod facts;
mod filter;
mod health;
mod lists;
mod memory;
mod open;
mod prune;
mod read;
mod resolve;
mod schema;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, ffi};
use weir_flow::Field;

use crate::{
    CommitBatch, CommittedEpoch, CounterSum, FlowQuery, FlowStore, Health, Limits, Memory, Options,
    Outcome, Pruned, Result, StoreError, StoredGap, Table,
};
use commit::Writer;

/// Connections kept open for readers; more are opened when needed and closed afterwards.
const IDLE_READERS: usize = 4;

/// SQLite instructions between two looks at the clock: well below a millisecond.
const INSTRUCTIONS_PER_LOOK: i32 = 4_000;

/// The embedded store.
#[derive(Debug)]
pub struct SqliteStore {
    directory: PathBuf,
    file: PathBuf,
    limits: Limits,
    readers: Mutex<Vec<Connection>>,
    writer: Option<Mutex<Writer>>,
    /// Held for the store's life; declared last so that it outlives the connections.
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the store in `directory` for writing, making both where they are missing. Waits for
    /// nobody: a directory that is being written is [`StoreError::Locked`].
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        open::for_writing(directory.as_ref(), options)
    }

    /// Opens the store in `directory` for reading, whether or not somebody writes it now.
    pub fn open_read_only(directory: impl AsRef<Path>, limits: Limits) -> Result<Self> {
        open::for_reading(directory.as_ref(), limits)
    }

    /// The store's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a process holds the lock of the store in `directory`, and its id as far as the lock
    /// file tells. `None`: nobody writes.
    pub fn writer_of(directory: impl AsRef<Path>) -> Result<Option<WriterProcess>> {
        open::writer_of(directory.as_ref())
    }

    fn writer(&self, operation: &'static str) -> Result<MutexGuard<'_, Writer>> {
        let writer = self.writer.as_ref().ok_or(StoreError::NotAWriter { operation })?;
        Ok(writer.lock().unwrap_or_else(|poisoned| {
            // A panic inside a commit took its transaction back; what the writer remembers of it
            // must go too.
            writer.clear_poison();
            let mut writer = poisoned.into_inner();
            writer.memory.clear();
            writer
        }))
    }

    /// Runs `read` on a reader's connection, in one transaction and within the time limit.
    fn read<T>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Connection, Instant) -> std::result::Result<T, ReadError>,
    ) -> Result<T> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open::reader(&self.directory, &self.file)?,
        };
        let deadline = Instant::now() + Duration::from_secs(self.limits.query_seconds);
        let result = run(&mut connection, deadline, read);
        if result.is_ok() {
            let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            if readers.len() < IDLE_READERS {
                readers.push(connection);
            }
        }
        result.map_err(|error| match error {
            ReadError::Store(error) => error,
            ReadError::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::OperationInterrupted) => {
                    StoreError::TimedOut { seconds: self.limits.query_seconds }
                }
                _ => database_error(operation, &self.file, error),
            },
        })
    }
}

/// The process that writes a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterProcess {
    /// Its id, where the lock file says so.
    pub pid: Option<u32>,
}

impl FlowStore for SqliteStore {
    fn commit(&self, batches: &[CommitBatch<'_>]) -> Result<Vec<Outcome>> {
        self.writer("commit batches")?
            .commit(batches)
            .map_err(|error| database_error("commit batches", &self.file, error))
    }

    fn committed(&self) -> Result<Vec<CommittedEpoch>> {
        self.read("read what is committed", |connection, _| Ok(lists::committed(connection)?))
    }

    fn query(&self, query: &FlowQuery) -> Result<Table> {
        self.read("query flows", |connection, deadline| {
            read::query(connection, query, self.limits, deadline)
        })
    }

    fn values(&self, dimension: Field, prefix: &str, limit: usize) -> Result<Vec<String>> {
        self.read("list values", |connection, _| {
            Ok(lists::values(connection, dimension, prefix, limit)?)
        })
    }

    fn gaps(&self, range: Range<u64>) -> Result<Vec<StoredGap>> {
        self.read("read gaps", |connection, _| Ok(lists::gaps(connection, &range)?))
    }

    fn counters(&self, range: Range<u64>) -> Result<Vec<CounterSum>> {
        self.read("read counters", |connection, _| Ok(lists::counters(connection, &range)?))
    }

    fn remember(&self, memories: &[Memory]) -> Result<()> {
        self.writer("remember")?
            .remember(memories)
            .map_err(|error| database_error("remember", &self.file, error))
    }

    fn remembered(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Memory>> {
        self.read("read what is remembered", |connection, _| {
            Ok(memory::remembered(connection, prefix, after, limit)?)
        })
    }

    fn prune(&self, now_seconds: u64) -> Result<Pruned> {
        self.writer("prune")?
            .prune(now_seconds)
            .map_err(|error| database_error("prune", &self.file, error))
    }

    fn health(&self) -> Result<Health> {
        self.read("read the store's health", |connection, _| {
            Ok(health::health(connection, &self.directory)?)
        })
    }
}

/// Why a read failed.
enum ReadError {
    /// For a reason of the store's own.
    Store(StoreError),
    /// For a reason of the database's.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn run<T>(
    connection: &mut Connection,
    deadline: Instant,
    read: impl FnOnce(&Connection, Instant) -> std::result::Result<T, ReadError>,
) -> std::result::Result<T, ReadError> {
    connection.progress_handler(INSTRUCTIONS_PER_LOOK, Some(move || Instant::now() > deadline))?;
    // One snapshot for all statements of the answer.
    let transaction = connection.transaction()?;
    let answer = read(&transaction, deadline)?;
    transaction.finish()?;
    Ok(answer)
}

/// What a database's error means to who runs weir.
fn database_error(operation: &'static str, path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { operation, path },
        Some(ErrorCode::ReadOnly) => StoreError::ReadOnly { operation, path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { path, detail: error.to_string() }
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            StoreError::CannotOpen { operation, path, detail: error.to_string() }
        }
        Some(ErrorCode::SystemIoFailure) if is_short_read(&error) => {
            StoreError::Damaged { path, detail: error.to_string() }
        }
        _ => StoreError::Database { operation, path, source: error },
    }
}

fn is_short_read(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _)
        if failure.extended_code == ffi::SQLITE_IOERR_SHORT_READ)
}
