//! The ingest decision: a batch is accepted once, however often it is sent.

mod ranges;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::ranges::{Inserted, MAX_RANGES, Ranges};
use crate::batch::{BatchId, Digest, Epoch};

/// The three answers to a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is durable. It need not be kept for delivery any more.
    Committed,
    /// Not now.
    Retry {
        /// Wait this long.
        after: Duration,
        /// Why.
        reason: String,
    },
    /// Never: it goes to quarantine and is declared as a gap.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Never seen: commit it, then answer "committed".
    New,
    /// Committed before: answer "committed", do nothing.
    Known,
    /// Committed before with other content: an alarm; answer "refused".
    Conflict,
    /// Too many holes before it: answer "retry", the backlog must come first.
    TooManyHoles,
}

/// What has been committed, per epoch.
#[derive(Clone, Debug, Default)]
pub struct Ingest {
    epochs: BTreeMap<Epoch, Ranges>,
}

impl Ingest {
    /// The state as the store has it.
    pub fn restore(epochs: impl IntoIterator<Item = (Epoch, Ranges)>) -> Self {
        Self { epochs: epochs.into_iter().collect() }
    }

    /// Decides about a batch. `kept` is the digest under which that number was committed, where
    /// it is still kept.
    pub fn decide(&self, id: BatchId, digest: Digest, kept: Option<Digest>) -> Decision {
        let Some(ranges) = self.epochs.get(&id.epoch) else { return Decision::New };
        match ranges.would_insert(id.sequence) {
            Inserted::New => Decision::New,
            Inserted::Known if kept.is_none_or(|kept| kept == digest) => Decision::Known,
            Inserted::Known => Decision::Conflict,
            Inserted::NoRoom => Decision::TooManyHoles,
        }
    }

    /// Notes a durable commit.
    pub fn committed(&mut self, id: BatchId) {
        self.epochs.entry(id.epoch).or_default().insert(id.sequence);
    }

    /// Notes what others have committed.
    pub fn learn(&mut self, epoch: Epoch, ranges: &Ranges) {
        let known = self.epochs.entry(epoch).or_default();
        *known = known.union(ranges);
    }

    /// The committed numbers of an epoch.
    pub fn ranges(&self, epoch: Epoch) -> Option<&Ranges> {
        self.epochs.get(&epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(1);

    fn decide(ingest: &Ingest, sequence: u64) -> Decision {
        ingest.decide(BatchId { epoch: EPOCH, sequence }, Digest(0), Some(Digest(0)))
    }

    #[test]
    fn a_number_is_new_once() {
        let mut ingest = Ingest::default();
        for sequence in [1, 2, 5, 4, 3] {
            assert_eq!(decide(&ingest, sequence), Decision::New);
            ingest.committed(BatchId { epoch: EPOCH, sequence });
            assert_eq!(decide(&ingest, sequence), Decision::Known);
        }
        assert_eq!(ingest.ranges(EPOCH).unwrap().spans(), [(1, 5)]);
    }

    #[test]
    fn the_same_number_with_other_content_is_an_alarm() {
        let mut ingest = Ingest::default();
        let id = BatchId { epoch: EPOCH, sequence: 1 };
        ingest.committed(id);
        assert_eq!(ingest.decide(id, Digest(1), Some(Digest(2))), Decision::Conflict);
        assert_eq!(ingest.decide(id, Digest(1), None), Decision::Known);
    }

    #[test]
    fn holes_are_bounded() {
        let mut ingest = Ingest::default();
        let bound = u64::try_from(MAX_RANGES).unwrap();
        for number in 1..=bound {
            ingest.committed(BatchId { epoch: EPOCH, sequence: number * 2 });
        }
        assert_eq!(decide(&ingest, bound * 2 + 2), Decision::TooManyHoles);
        assert_eq!(decide(&ingest, bound * 2 + 1), Decision::New, "it touches the last range");
        assert_eq!(decide(&ingest, 3), Decision::New, "it closes a hole");
    }
}
