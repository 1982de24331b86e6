//! Prepared batches into the store, and what becomes of them.

use weir_flow::ingest::Answer;
use weir_store::{CommitBatch, Outcome, StoreError};

use super::{Directories, Ingest, Prepared, chain, refused, retry};
use crate::attended::is_away;

/// A store that is there and takes nothing so often in a row is as good as away. Sooner, it may be
/// one batch that it cannot take.
const REFUSALS: u32 = 3;

impl<D: Directories> Ingest<D> {
    /// Commits batches in one transaction; one answer for each, in order.
    pub fn commit(&mut self, prepared: Vec<Prepared>) -> Vec<Answer> {
        let answers = match self.try_commit(&prepared) {
            Ok(outcomes) => {
                let outcomes = outcomes.into_iter().map(Some).chain(std::iter::repeat(None));
                prepared.into_iter().zip(outcomes).map(|(b, o)| self.settle(b, o)).collect()
            }
            // One of them may be what the store cannot take; it should not hold up the others.
            Err(error) if prepared.len() > 1 && !is_away(&error) => self.commit_each(prepared),
            Err(error) => prepared.iter().map(|_| retry(chain(&error))).collect(),
        };
        for answer in &answers {
            self.count(answer);
        }
        answers
    }

    fn commit_each(&mut self, prepared: Vec<Prepared>) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(prepared.len());
        let (mut failure, mut is_any_taken, mut is_gone) = (None, false, false);
        for batch in prepared {
            if let Some(reason) = failure.as_ref().filter(|_| is_gone) {
                answers.push(retry(String::clone(reason)));
                continue;
            }
            answers.push(match self.try_commit(std::slice::from_ref(&batch)) {
                Ok(outcomes) => {
                    is_any_taken = true;
                    self.settle(batch, outcomes.into_iter().next())
                }
                Err(error) => {
                    // Nobody waits for it as often as there are batches.
                    is_gone = is_away(&error);
                    let reason = chain(&error);
                    failure = Some(reason.clone());
                    retry(reason)
                }
            });
        }
        let nothing_goes = !is_any_taken && self.refusals >= REFUSALS;
        self.failure = failure.filter(|_| is_gone || nothing_goes);
        answers
    }

    fn try_commit(&mut self, prepared: &[Prepared]) -> Result<Vec<Outcome>, StoreError> {
        let counters: Vec<Vec<(&str, i64)>> = prepared.iter().map(Prepared::counters).collect();
        let batches: Vec<CommitBatch<'_>> = prepared
            .iter()
            .zip(&counters)
            .map(|(batch, counters)| CommitBatch {
                node: &batch.node,
                id: batch.id,
                digest: batch.digest,
                end_seconds: batch.end_seconds,
                flows: &batch.folded,
                gaps: &batch.gaps,
                counters,
                records: &batch.records,
                wall_offset: batch.wall_offset,
            })
            .collect();
        let outcomes = self.store.commit(&batches);
        self.failure = match &outcomes {
            Ok(_) => {
                self.refusals = 0;
                None
            }
            Err(error) => {
                self.refusals = self.refusals.saturating_add(1);
                let is_outage = is_away(error) || self.refusals >= REFUSALS;
                is_outage.then(|| chain(error))
            }
        };
        outcomes
    }

    fn settle(&mut self, batch: Prepared, outcome: Option<Outcome>) -> Answer {
        let Prepared { node, id, digest, folded, views, tally, .. } = batch;
        match outcome {
            Some(Outcome::Committed) => {
                self.counts.committed += 1;
                self.counts.folded_keys += folded.folded_keys;
                self.counts.second_views += tally.second;
                self.counts.foreign_views += tally.foreign;
                self.counts.foreign_bytes += tally.foreign_bytes;
                self.counts.undecided += tally.undecided;
                self.counts.undecided_bytes += tally.undecided_bytes;
                self.views.add(&node, views);
                self.nodes.entry(id.epoch).or_insert(node);
                self.remember(id, digest);
                Answer::Committed
            }
            Some(Outcome::AlreadyCommitted) => {
                self.counts.known += 1;
                self.remember(id, digest);
                Answer::Committed
            }
            Some(Outcome::NoRoom) => retry(Outcome::NoRoom.to_string()),
            Some(outcome) => refused(outcome.to_string()),
            None => retry("the store gave no answer".to_owned()),
        }
    }
}

impl Prepared {
    fn counters(&self) -> Vec<(&str, i64)> {
        self.health.iter().map(|(name, value)| (name.as_str(), *value)).collect()
    }
}
