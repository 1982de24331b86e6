//! A server over a store with a day of flows, in which time goes on.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use weir_flow::time::SECOND;
use weir_flow::{BatchId, Digest, Epoch, WallTime};
use weir_lab::day::{Day, Part, SECONDS, START};
use weir_server::api::{self, Running};
use weir_server::{Board, Clock, Live, Query};
use weir_store::{CommitBatch, FlowStore, Options, SqliteStore};

const ROWS_PER_COMMIT: usize = 10_000;
/// What comes while readers ask: a tenth of the rows that a window of a large day has.
const LATER_ROWS: u64 = 1_000_000;
const BETWEEN_COMMITS: Duration = Duration::from_secs(1);

pub(crate) struct Served {
    store: Arc<SqliteStore>,
    query: Arc<Query>,
    running: Running,
    /// What has not come yet.
    later: Mutex<Later>,
    now: Arc<AtomicU64>,
}

struct Later {
    parts: Box<dyn Iterator<Item = Part> + Send>,
    epoch: Epoch,
    sequence: u64,
}

impl Served {
    /// Serves a store with this many rows of the finest level.
    pub(crate) fn start(rows: u64) -> Result<Self> {
        let directory = filled(rows)?;
        let store = Arc::new(SqliteStore::open(&directory, Options::default())?);
        let now = Arc::new(AtomicU64::new(START + SECONDS));
        let clock: Clock = {
            let now = Arc::clone(&now);
            Arc::new(move || WallTime(now.load(Ordering::Relaxed) * SECOND))
        };
        let for_query = Arc::clone(&store) as Arc<dyn FlowStore>;
        let board = Arc::new(Board::default());
        let query =
            Arc::new(Query::new(for_query, Arc::new(Live::default()), board, clock.clone()));
        let options = api::Options::new(clock, query.changes());
        let running = api::start(&["127.0.0.1:0".parse()?], Arc::clone(&query) as _, &options)?;
        // Of an epoch of this run: the store remembers the batches of earlier ones.
        let epoch = Epoch(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
        let parts = Box::new(Day::new(START + SECONDS, LATER_ROWS).in_parts(1));
        let later = Mutex::new(Later { parts, epoch, sequence: 0 });
        Ok(Self { store, query, running, later, now })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.addresses[0]
    }

    /// Commits the next window's flows, as ingest does.
    pub(crate) fn commit(&self) {
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        let part = later.parts.next().expect("a day has more windows than a run has commits");
        later.sequence += 1;
        let id = BatchId { epoch: later.epoch, sequence: later.sequence };
        commit(&self.store, id, &part);
        self.now.store(part.end_seconds, Ordering::Relaxed);
        self.query.store_changed();
    }

    /// Does `work` while something is committed every second.
    pub(crate) fn while_committing<T>(
        &self,
        work: impl FnOnce(SocketAddr) -> Result<T>,
    ) -> Result<T> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    self.commit();
                    thread::sleep(BETWEEN_COMMITS);
                }
            });
            let result = work(self.address());
            done.store(true, Ordering::Release);
            result
        })
    }
}

/// A store with a day of flows, of an earlier run where there is one.
fn filled(rows: u64) -> Result<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-store-{rows}"));
    // It is whole once this stands in it.
    let whole = directory.join("whole");
    if whole.exists() {
        return Ok(directory);
    }
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let store = SqliteStore::open(&directory, Options::default())?;
    for (sequence, part) in (1..).zip(Day::new(START, rows).in_parts(ROWS_PER_COMMIT)) {
        commit(&store, BatchId { epoch: Epoch(1), sequence }, &part);
    }
    drop(store);
    fs::write(whole, "")?;
    Ok(directory)
}

fn commit(store: &SqliteStore, id: BatchId, part: &Part) {
    let batch = CommitBatch {
        node: "bench",
        id,
        digest: Digest(id.sequence.into()),
        end_seconds: part.end_seconds,
        flows: &part.flows,
        gaps: &[],
        counters: &[],
        records: &[],
        wall_offset: 0,
    };
    let outcomes = store.commit(&[batch]).expect("the disk has room");
    assert_eq!(outcomes, [weir_store::Outcome::Committed], "each batch is new");
}
