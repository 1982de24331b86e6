//! How long batches wait for the directory to catch up.

use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};
use weir_flow::time::SECOND;
use weir_flow::{BatchId, WallTime};

/// A batch waits this long for the directory to name an end inside the cluster.
const PATIENCE_SECONDS: u64 = 10;
/// Batches that wait at a time, at most; more are taken as they are.
const WAITING_MAX: usize = 4_096;
/// Addresses that were waited for in vain and are not waited for again for a while, at most.
const KNOWN_MAX: usize = 16_384;
/// For how long they are not.
const IN_VAIN_SECONDS: u64 = 60;

/// Who waits, since when, and what was waited for in vain.
#[derive(Debug, Default)]
pub(super) struct Patience {
    waiting: HashMap<BatchId, WallTime>,
    in_vain: HashMap<IpAddr, WallTime>,
}

impl Patience {
    /// True when this batch should be sent again a little later, because of `unknown`.
    pub(super) fn waits(&mut self, id: BatchId, unknown: &HashSet<IpAddr>, now: WallTime) -> bool {
        let recent = |since: &WallTime| is_within(*since, IN_VAIN_SECONDS, now);
        if unknown.iter().all(|address| self.in_vain.get(address).is_some_and(recent)) {
            self.waiting.remove(&id);
            return false;
        }
        if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&id) {
            // Who never came back waits no more.
            self.waiting.retain(|_, since| is_within(*since, 2 * PATIENCE_SECONDS, now));
            if self.waiting.len() >= WAITING_MAX {
                return false;
            }
        }
        let since = *self.waiting.entry(id).or_insert(now);
        if is_within(since, PATIENCE_SECONDS, now) {
            return true;
        }
        self.waiting.remove(&id);
        self.give_up(unknown, now);
        false
    }

    /// The batch waits no more.
    pub(super) fn settled(&mut self, id: BatchId) {
        self.waiting.remove(&id);
    }

    fn give_up(&mut self, unknown: &HashSet<IpAddr>, now: WallTime) {
        if self.in_vain.len() + unknown.len() > KNOWN_MAX {
            self.in_vain.retain(|_, since| is_within(*since, IN_VAIN_SECONDS, now));
        }
        let room = KNOWN_MAX.saturating_sub(self.in_vain.len());
        self.in_vain.extend(unknown.iter().take(room).map(|address| (*address, now)));
    }
}

fn is_within(since: WallTime, seconds: u64, now: WallTime) -> bool {
    now.0.saturating_sub(since.0) < seconds * SECOND
}

#[cfg(test)]
mod tests {
    use weir_flow::Epoch;

    use super::*;

    fn id(sequence: u64) -> BatchId {
        BatchId { epoch: Epoch(1), sequence }
    }

    fn at(seconds: u64) -> WallTime {
        WallTime(seconds * SECOND)
    }

    fn unknown(last: u8) -> HashSet<IpAddr> {
        [IpAddr::from([10, 0, 0, last])].into()
    }

    #[test]
    fn a_batch_waits_for_ten_seconds_and_its_address_is_not_waited_for_again_for_a_minute() {
        let mut patience = Patience::default();
        assert!(patience.waits(id(1), &unknown(1), at(100)));
        assert!(patience.waits(id(1), &unknown(1), at(109)));
        assert!(!patience.waits(id(1), &unknown(1), at(110)));
        assert!(!patience.waits(id(2), &unknown(1), at(111)), "in vain a moment ago");
        assert!(patience.waits(id(2), &unknown(2), at(111)), "another address");
        assert!(patience.waits(id(3), &unknown(1), at(171)), "it may be somebody else's by now");
    }

    #[test]
    fn who_never_comes_back_makes_room() {
        let mut patience = Patience::default();
        for sequence in 0..u64::try_from(WAITING_MAX).unwrap() {
            assert!(patience.waits(id(sequence), &unknown(1), at(100)));
        }
        assert!(!patience.waits(id(1 << 40), &unknown(1), at(100)), "full");
        assert!(patience.waits(id(1 << 40), &unknown(1), at(121)));
    }
}
