//! Ends that were read lately, so that older news of a connection is recognised.

use hashbrown::{HashMap, HashSet};

use super::index::KeyHash;
use crate::connection::KeyMaker;
use crate::sample::Sample;
use crate::time::WallTime;

/// Ends that were read, by when they may be forgotten.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    /// Read before the running dump began (or since the last one ended).
    pub(super) before: Graves,
    /// Read while it runs.
    pub(super) during: Graves,
}

#[derive(Debug, Default)]
pub(super) struct Graves {
    pub(super) keys: HashSet<u64, KeyHash>,
    /// Zone groups, in which zone they ended and when they had begun: only where zones are in use.
    pub(super) groups: HashMap<u64, Vec<(u16, Option<WallTime>)>, KeyHash>,
}

impl Tombstones {
    pub(super) fn contains(&self, key: u64) -> bool {
        self.before.keys.contains(&key) || self.during.keys.contains(&key)
    }

    /// True when the same connection ended in another zone.
    pub(super) fn ended_elsewhere(&self, keys: &KeyMaker, sample: &Sample) -> bool {
        let group = keys.group(&sample.reply);
        let ended = [&self.before, &self.during].into_iter();
        let mut ended = ended.filter_map(|graves| graves.groups.get(&group)).flatten();
        ended.any(|(zone, start)| *zone != sample.zone && began_together(*start, sample.start))
    }

    /// Those read before the dump began have served; those read since serve for one more.
    pub(super) fn dump_ended(&mut self) {
        self.before.keys.clear();
        self.before.groups.clear();
        std::mem::swap(&mut self.before, &mut self.during);
    }
}

/// True when two entries can have been made by one packet: every zone it crosses makes its own,
/// moments apart. A reused port comes later. Where the kernel gives no start, it is assumed.
pub(super) fn began_together(one: Option<WallTime>, other: Option<WallTime>) -> bool {
    const APART_NANOS: u64 = 250_000_000;
    one.zip(other).is_none_or(|(one, other)| one.0.abs_diff(other.0) <= APART_NANOS)
}
