//! How long batches wait for the directory to catch up.

use std::collections::VecDeque;
use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};
use weir_flow::time::SECOND;
use weir_flow::{BatchId, WallTime};

/// A batch waits this long for the directory to name an end inside the cluster.
const PATIENCE_SECONDS: u64 = 10;
/// Batches that wait at a time, at most; more are taken as they are.
const WAITING_MAX: usize = 4_096;
/// Addresses that were waited for in vain and are not waited for again, at most.
const KNOWN_MAX: usize = 16_384;

/// Who waits, since when, and what was waited for in vain.
#[derive(Debug, Default)]
pub(super) struct Patience {
    waiting: HashMap<BatchId, WallTime>,
    in_vain: HashSet<IpAddr>,
    oldest: VecDeque<IpAddr>,
}

impl Patience {
    /// True when this batch should be sent again a little later, because of `unknown`.
    pub(super) fn waits(&mut self, id: BatchId, unknown: &HashSet<IpAddr>, now: WallTime) -> bool {
        if unknown.is_subset(&self.in_vain) {
            self.waiting.remove(&id);
            return false;
        }
        let is_full = self.waiting.len() >= WAITING_MAX;
        if is_full && !self.waiting.contains_key(&id) {
            return false;
        }
        let since = *self.waiting.entry(id).or_insert(now);
        if now.0.saturating_sub(since.0) < PATIENCE_SECONDS * SECOND {
            return true;
        }
        self.waiting.remove(&id);
        self.give_up(unknown);
        false
    }

    /// The batch waits no more.
    pub(super) fn settled(&mut self, id: BatchId) {
        self.waiting.remove(&id);
    }

    fn give_up(&mut self, unknown: &HashSet<IpAddr>) {
        for address in unknown {
            if self.in_vain.insert(*address) {
                self.oldest.push_back(*address);
            }
        }
        while self.in_vain.len() > KNOWN_MAX {
            let Some(oldest) = self.oldest.pop_front() else { return };
            self.in_vain.remove(&oldest);
        }
    }
}
