//! What became of what kubenetmon's agents reported.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use weir_flow::kubenetmon::Counts as Labelled;

use super::message::Malformed;
use crate::answer::KubenetmonStatus;
use crate::wire::Present;

/// Counters since the server began.
#[derive(Debug, Default)]
pub struct Counts {
    connections_now: AtomicU64,
    turned_away: AtomicU64,
    streams: AtomicU64,
    streams_now: AtomicU64,
    received: AtomicU64,
    malformed: [AtomicU64; Malformed::ALL.len()],
    labelled: Mutex<Labelled>,
    dropped: [AtomicU64; Dropped::ALL.len()],
    rows: AtomicU64,
    inserts: AtomicU64,
    retries: AtomicU64,
    error: Mutex<Option<String>>,
}

/// Why an observation that could have been kept was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Too many waited already.
    QueueFull,
    /// The table did not take them, however often they were offered.
    InsertFailed,
    /// The server ended before they were kept.
    Stopped,
}

impl Dropped {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::QueueFull, Self::InsertFailed, Self::Stopped];

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::InsertFailed => "insert_failed",
            Self::Stopped => "stopped",
        }
    }
}

impl Counts {
    /// Connections now.
    pub fn connections(&self) -> u64 {
        self.connections_now.load(Ordering::Relaxed)
    }

    /// Connections that were not taken because there were too many.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Calls so far.
    pub fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Calls now.
    pub fn streams_now(&self) -> u64 {
        self.streams_now.load(Ordering::Relaxed)
    }

    /// Messages.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Messages with this fault.
    pub fn malformed(&self, what: Malformed) -> u64 {
        self.malformed[what as usize].load(Ordering::Relaxed)
    }

    /// Observations that became rows, and those for which the table has no place.
    pub fn labelled(&self) -> Labelled {
        *locked(&self.labelled)
    }

    /// Observations that were dropped for this reason.
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.dropped[why as usize].load(Ordering::Relaxed)
    }

    /// Rows that the table took: two for an observation.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Inserts that the table took.
    pub fn inserts(&self) -> u64 {
        self.inserts.load(Ordering::Relaxed)
    }

    /// Inserts that were tried again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Why the last insert failed, where it did.
    pub fn error(&self) -> Option<String> {
        locked(&self.error).clone()
    }

    /// How it is, as it is answered.
    pub fn status(&self) -> KubenetmonStatus {
        KubenetmonStatus {
            promise: "best_effort".to_owned(),
            connections: self.connections(),
            observations: self.received(),
            malformed: Malformed::ALL.into_iter().map(|what| self.malformed(what)).sum(),
            ignored: self.labelled().ignored.iter().sum(),
            dropped: Dropped::ALL.into_iter().map(|why| self.dropped(why)).sum(),
            rows: self.rows(),
            error: self.error(),
        }
    }

    pub(super) fn connected(&self) {
        self.connections_now.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn disconnected(&self) {
        self.connections_now.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count_turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call until what is returned is dropped, however it ends.
    pub(super) fn stream(&self) -> Present<'_> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Present::new(&self.streams_now)
    }

    pub(super) fn count_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_malformed(&self, what: Malformed) {
        self.malformed[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_labelled(&self, count: impl FnOnce(&mut Labelled)) {
        count(&mut locked(&self.labelled));
    }

    pub(super) fn count_dropped(&self, why: Dropped, observations: usize) {
        self.dropped[why as usize].fetch_add(observations as u64, Ordering::Relaxed);
    }

    pub(super) fn inserted(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.inserts.fetch_add(1, Ordering::Relaxed);
        *locked(&self.error) = None;
    }

    pub(super) fn failed(&self, error: String) {
        *locked(&self.error) = Some(error);
    }

    pub(super) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole in itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
