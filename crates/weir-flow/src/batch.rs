//! The identity of a batch, the unit in which records travel.

use std::fmt;

/// 128 random bits made with the spool directory. A numbering never restarts inside an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u128);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Which batch: sent until answered, committed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    /// The spool's epoch.
    pub epoch: Epoch,
    /// Counts from 1 within the epoch, without holes.
    pub sequence: u64,
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.epoch, self.sequence)
    }
}

/// 128-bit XXH3 of a batch's content: the same number with another digest is an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

/// What is known to be missing: declared, stored and shown; never guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// Wall-clock seconds since 1970 where the gap begins.
    pub from_seconds: u64,
    /// Where it ends.
    pub to_seconds: u64,
    /// Connections concerned, as far as they are known.
    pub connections: u64,
    /// Records dropped, where records were dropped.
    pub records: u64,
    /// Bytes known to be lost, exactly.
    pub bytes: u64,
    /// An upper bound for bytes that could not be counted, where there is one. Never a count.
    pub bytes_bound: Option<u64>,
}

/// Why something is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapReason {
    /// weir did not run; connections it knew are gone, others may have come and gone.
    #[default]
    AgentDown,
    /// The kernel dropped DESTROY events because the socket was full.
    EventsLost,
    /// Connections left the table without a DESTROY event (see `nf_conntrack_events=2`).
    EndedUnseen,
    /// Nothing was tracked: no rule used conntrack.
    TrackingOff,
    /// A damaged frame was found in the spool.
    SpoolDamaged,
    /// The spool was full and dropped its oldest batches.
    SpoolFull,
    /// The store refused a batch for good; it stands in quarantine.
    Refused,
    /// The spool was older than its age limit and was started anew.
    SpoolTooOld,
    /// An end inside the cluster stayed unknown, so nobody can say whose view counts.
    Undecided,
}

impl GapReason {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 9] = [
        Self::AgentDown,
        Self::EventsLost,
        Self::EndedUnseen,
        Self::TrackingOff,
        Self::SpoolDamaged,
        Self::SpoolFull,
        Self::Refused,
        Self::SpoolTooOld,
        Self::Undecided,
    ];

    /// The stable code used on disk and on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentDown => "agent_down",
            Self::EventsLost => "events_lost",
            Self::EndedUnseen => "ended_unseen",
            Self::TrackingOff => "tracking_off",
            Self::SpoolDamaged => "spool_damaged",
            Self::SpoolFull => "spool_full",
            Self::Refused => "refused",
            Self::SpoolTooOld => "spool_too_old",
            Self::Undecided => "undecided",
        }
    }
}
