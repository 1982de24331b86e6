//! What happened at the door, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::identify::Denial;

/// Counters of the wire since the server began.
#[derive(Debug, Default)]
pub struct Counts {
    denied: [AtomicU64; Denial::ALL.len()],
    turned_away: [AtomicU64; TurnedAway::ALL.len()],
    malformed: [AtomicU64; Malformation::ALL.len()],
    streams: AtomicU64,
    streams_now: AtomicU64,
    connections_now: AtomicU64,
    batches: AtomicU64,
    frame_bytes: AtomicU64,
    packed_bytes: AtomicU64,
    facts: AtomicU64,
    fenced: AtomicU64,
}

/// Why a connection did not get as far as a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// Too many connections.
    TooMany,
    /// Too many of one address that have not said who they are.
    TooManyUnknown,
    /// No handshake in time.
    Slow,
    /// No TLS, or a certificate that does not hold.
    Handshake,
    /// It did not say who it is in time.
    Silent,
}

impl TurnedAway {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::TooMany, Self::TooManyUnknown, Self::Slow, Self::Handshake, Self::Silent];

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::TooManyUnknown => "too_many_unknown",
            Self::Slow => "slow_handshake",
            Self::Handshake => "failed_handshake",
            Self::Silent => "silent",
        }
    }
}

/// What was wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformation {
    /// A frame that does not decompress within its limits.
    Packed,
    /// A frame that is none, or is not what it was announced as.
    Frame,
    /// Facts that cannot be.
    Facts,
    /// A status that cannot be read.
    Status,
    /// A message of a kind that is not known here.
    Unknown,
}

impl Malformation {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Packed, Self::Frame, Self::Facts, Self::Status, Self::Unknown];

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::Frame => "frame",
            Self::Facts => "facts",
            Self::Status => "status",
            Self::Unknown => "unknown_kind",
        }
    }
}

impl Counts {
    /// Times that somebody was not let in, by reason.
    pub fn denied(&self, reason: Denial) -> u64 {
        load(&self.denied[at(&Denial::ALL, reason)])
    }

    /// Connections that did not get as far as a call, by reason.
    pub fn turned_away(&self, reason: TurnedAway) -> u64 {
        load(&self.turned_away[at(&TurnedAway::ALL, reason)])
    }

    /// Messages in which something was wrong, by what.
    pub fn malformed(&self, what: Malformation) -> u64 {
        load(&self.malformed[at(&Malformation::ALL, what)])
    }

    /// Streams that were let in.
    pub fn streams(&self) -> u64 {
        load(&self.streams)
    }

    /// Streams that last.
    pub fn streams_now(&self) -> u64 {
        load(&self.streams_now)
    }

    /// Connections that last, known or not.
    pub fn connections_now(&self) -> u64 {
        load(&self.connections_now)
    }

    /// Batches received.
    pub fn batches(&self) -> u64 {
        load(&self.batches)
    }

    /// Bytes of their frames.
    pub fn frame_bytes(&self) -> u64 {
        load(&self.frame_bytes)
    }

    /// Bytes of their frames as they crossed the wire.
    pub fn packed_bytes(&self) -> u64 {
        load(&self.packed_bytes)
    }

    /// Facts received.
    pub fn facts(&self) -> u64 {
        load(&self.facts)
    }

    /// Batches of an epoch that a younger one had taken the place of.
    pub fn fenced(&self) -> u64 {
        load(&self.fenced)
    }

    pub(super) fn count_denied(&self, reason: Denial) {
        add(&self.denied[at(&Denial::ALL, reason)], 1);
    }

    pub(super) fn count_turned_away(&self, reason: TurnedAway) {
        add(&self.turned_away[at(&TurnedAway::ALL, reason)], 1);
    }

    pub(super) fn count_malformed(&self, what: Malformation) {
        add(&self.malformed[at(&Malformation::ALL, what)], 1);
    }

    pub(super) fn count_fenced(&self) {
        add(&self.fenced, 1);
    }

    pub(super) fn count_facts(&self, facts: usize) {
        add(&self.facts, u64::try_from(facts).unwrap_or(u64::MAX));
    }

    pub(super) fn count_batch(&self, packed: usize, frame: u32) {
        add(&self.batches, 1);
        add(&self.packed_bytes, u64::try_from(packed).unwrap_or(u64::MAX));
        add(&self.frame_bytes, frame.into());
    }

    /// Counts a stream until what is returned is dropped.
    pub(super) fn stream(&self) -> Present<'_> {
        add(&self.streams, 1);
        Present::new(&self.streams_now)
    }

    /// Counts a connection; see [`Counts::disconnected`].
    pub(super) fn connected(&self) {
        add(&self.connections_now, 1);
    }

    pub(super) fn disconnected(&self) {
        self.connections_now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One more, while it lives.
#[derive(Debug)]
pub(crate) struct Present<'a>(&'a AtomicU64);

impl<'a> Present<'a> {
    pub(crate) fn new(count: &'a AtomicU64) -> Self {
        add(count, 1);
        Self(count)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn at<T: Copy + PartialEq>(all: &[T], one: T) -> usize {
    all.iter().position(|it| *it == one).expect("all of them are listed")
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
