//! What other servers committed since it was read.

use weir_flow::time::SECOND;
use weir_flow::{Epoch, WallTime};
use weir_store::CommittedEpoch;

use super::{DIGESTS_MAX, Directories, Ingest, chain};

/// What others have committed of an epoch is read again no sooner than this.
const FRESH_SECONDS: u64 = 2;

impl<D: Directories> Ingest<D> {
    /// Reads what other servers have committed of an epoch, where there may be others. Without an
    /// answer nothing is lost: the store itself knows what it has.
    pub fn refresh(&mut self, epoch: Epoch, now: WallTime) {
        if !self.store.is_shared() {
            return;
        }
        let fresh = |at: &WallTime| now.0.abs_diff(at.0) < FRESH_SECONDS * SECOND;
        if self.refreshed.get(&epoch).is_some_and(fresh) {
            return;
        }
        self.refreshed.retain(|_, at| fresh(at));
        match self.store.committed_of(epoch) {
            Ok(known) => {
                self.refreshed.insert(epoch, now);
                if let Some(known) = known {
                    self.learn(known);
                }
            }
            Err(error) => {
                tracing::warn!(%epoch, error = chain(&error), "cannot read what is committed");
            }
        }
    }

    fn learn(&mut self, known: CommittedEpoch) {
        let CommittedEpoch { epoch, node, ranges, digests } = known;
        self.decisions.learn(epoch, &ranges);
        self.nodes.entry(epoch).or_insert_with(|| node.into());
        let kept = self.digests.entry(epoch).or_default();
        for (sequence, digest) in digests {
            if !kept.iter().any(|(known, _)| *known == sequence) {
                kept.push_back((sequence, digest));
            }
        }
        kept.make_contiguous().sort_unstable_by_key(|(sequence, _)| *sequence);
        let older = kept.len().saturating_sub(DIGESTS_MAX);
        kept.drain(..older);
    }
}
