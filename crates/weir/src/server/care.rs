//! What a store needs beside questions: it is cleaned up, and asked how it is.
//!
//! On a thread of its own, because a store that is away lets whoever asks wait.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use weir_agent::clock;
use weir_store::{FlowStore, Health};

/// Between two questions how the store is.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Of these, one in this many is followed by a clean-up.
const PRUNE_EVERY: u32 = 3;
/// How long the end waits for what goes on. What is not finished then is left to the next start.
const PATIENCE: Duration = Duration::from_secs(5);

/// The thread.
pub(super) struct Care {
    stop: mpsc::SyncSender<()>,
    ended: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
    health: LastHealth,
}

/// How the store was when it was last asked.
#[derive(Clone, Default)]
pub(super) struct LastHealth(Arc<Mutex<Option<Health>>>);

impl Care {
    pub(super) fn start(store: Arc<dyn FlowStore>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::sync_channel(1);
        let (ends, ended) = mpsc::sync_channel(1);
        let health = LastHealth::default();
        let noted = health.clone();
        let thread =
            thread::Builder::new().name("weir-store-care".to_owned()).spawn(move || {
                // Dropped at the end: that is what is waited for.
                let _ends: mpsc::SyncSender<()> = ends;
                let mut turns = 0_u32;
                loop {
                    noted.note(&*store);
                    if turns.is_multiple_of(PRUNE_EVERY) && !prune(&*store, &stopped) {
                        return;
                    }
                    turns = turns.wrapping_add(1);
                    if stopped.recv_timeout(ASK_EVERY) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })?;
        Ok(Self { stop, ended, thread, health })
    }

    pub(super) fn health(&self) -> LastHealth {
        self.health.clone()
    }

    /// Ends the thread, or leaves it behind where it waits for a store that is away.
    pub(super) fn stop(self) {
        let Self { stop, ended, thread, .. } = self;
        drop(stop);
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            return tracing::warn!("the store is away and is not waited for");
        }
        if thread.join().is_err() {
            tracing::error!("the thread that looks after the store ended in a panic");
        }
    }
}

impl LastHealth {
    /// `None` until the store was asked, and while it does not answer.
    pub(super) fn last(&self) -> Option<Health> {
        self.place().clone()
    }

    fn note(&self, store: &dyn FlowStore) {
        // A failure is known to whoever counts them.
        let health = store.health().ok();
        *self.place() = health;
    }

    fn place(&self) -> MutexGuard<'_, Option<Health>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes what is past its time, some at a time so that batches get in between. False where it is
/// time to stop.
fn prune(store: &dyn FlowStore, stopped: &mpsc::Receiver<()>) -> bool {
    let now = clock::wall().seconds();
    loop {
        match store.prune(now) {
            Ok(pruned) if !pruned.more => return true,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "old flows stay for now");
                return true;
            }
        }
        if stopped.try_recv() != Err(mpsc::TryRecvError::Empty) {
            return false;
        }
    }
}
