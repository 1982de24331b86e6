//! Accepting a batch once, however often it is sent: decide, attribute, fold, commit, answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::live::{Live, TakingBatch};
use weir_flow::attribution::attribute;
use weir_flow::batch::{Gap, GapReason};
use weir_flow::fold::Folder;
use weir_flow::frame::{Batch, Header, Note};
use weir_flow::ingest::{Answer, Decision, Ingest as Decisions};
use weir_flow::time::SECOND;
use weir_flow::{BatchId, Digest, Directory, Epoch, Folded, WallTime};
use weir_store::{CommitBatch, FlowStore, Outcome, StoreError};

/// A batch may lie this far in the future; what lies further is moved back to now, and counted.
const FUTURE_SECONDS: u64 = 120;
/// Wait before the same batch is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Digests kept in memory per ingest; older ones are the store's to compare.
const DIGESTS_MAX: usize = 8_192;

/// What ingest did since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestCounts {
    /// Batches committed.
    pub committed: u64,
    /// Batches that had been committed before.
    pub known: u64,
    /// Batches refused for good.
    pub refused: u64,
    /// Batches asked for again later.
    pub retried: u64,
    /// Batches whose clock ran ahead by more than two minutes.
    pub future: u64,
    /// Flow keys folded into a network or into "other" because a batch held too many.
    pub folded_keys: u64,
}

/// The way of a batch into the store.
pub struct Ingest<D> {
    node: String,
    /// The name each epoch began under: a machine that is renamed keeps it until a new spool.
    nodes: HashMap<Epoch, String>,
    store: Arc<dyn FlowStore>,
    directory: D,
    decisions: Decisions,
    digests: HashMap<BatchId, Digest>,
    folder: Folder,
    live: Option<Arc<Live>>,
    counts: IngestCounts,
}

impl<D: Directory> Ingest<D> {
    /// An ingest that continues where the store stands. Batches are taken to come from `node`.
    pub fn new(node: String, store: Arc<dyn FlowStore>, directory: D) -> Result<Self, StoreError> {
        let mut digests = HashMap::new();
        let (mut epochs, mut nodes) = (Vec::new(), HashMap::new());
        for known in store.committed()? {
            let id = |sequence| BatchId { epoch: known.epoch, sequence };
            digests.extend(known.digests.iter().map(|(number, digest)| (id(*number), *digest)));
            nodes.insert(known.epoch, known.node);
            epochs.push((known.epoch, known.ranges));
        }
        let decisions = Decisions::restore(epochs);
        let (folder, counts) = (Folder::default(), IngestCounts::default());
        Ok(Self { node, nodes, store, directory, decisions, digests, folder, live: None, counts })
    }

    /// Shows every new batch's connections there, too.
    #[must_use]
    pub fn with_live(mut self, live: Arc<Live>) -> Self {
        self.live = Some(live);
        self
    }

    /// What it did so far.
    pub fn counts(&self) -> IngestCounts {
        self.counts
    }

    /// Takes a frame and answers. `now` is only used to recognise the future.
    pub fn accept(&mut self, frame: &[u8], now: WallTime) -> Answer {
        let answer = self.decide(frame, now);
        match &answer {
            Answer::Committed => {}
            Answer::Retry { .. } => self.counts.retried += 1,
            Answer::Refused { .. } => self.counts.refused += 1,
        }
        answer
    }

    fn decide(&mut self, frame: &[u8], now: WallTime) -> Answer {
        let batch = match Batch::decode(frame) {
            Ok(batch) => batch,
            Err(error) => return refused(error.to_string()),
        };
        let Header { id, digest, .. } = batch.header;
        match self.decisions.decide(id, digest, self.digests.get(&id).copied()) {
            Decision::New => self.commit(&batch, now),
            Decision::Known => {
                self.counts.known += 1;
                Answer::Committed
            }
            Decision::Conflict => refused(format!("batch {id} was committed with other content")),
            Decision::TooManyHoles => retry("too many earlier batches are missing".to_owned()),
        }
    }

    fn commit(&mut self, batch: &Batch<'_>, now: WallTime) -> Answer {
        let offset = self.wall_offset(&batch.header, now);
        let folded = match self.fold(batch, offset) {
            Ok(folded) => folded,
            Err(reason) => return refused(reason),
        };
        let (gaps, health) = match notes(batch) {
            Ok(notes) => notes,
            Err(reason) => return refused(reason),
        };
        let counters: Vec<(&str, i64)> =
            health.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let Header { id, digest, sealed_at, hour, .. } = batch.header;
        let commit = CommitBatch {
            node: self.nodes.get(&id.epoch).unwrap_or(&self.node),
            id,
            digest,
            end_seconds: sealed_at.to_wall(offset).seconds().min((hour + 1) * 3_600),
            flows: &folded,
            gaps: &gaps,
            counters: &counters,
        };
        match self.store.commit(&[commit]) {
            Ok(outcomes) => self.answer(outcomes.first(), id, digest, &folded),
            Err(error) => retry(chain(&error)),
        }
    }

    fn answer(
        &mut self,
        outcome: Option<&Outcome>,
        id: BatchId,
        digest: Digest,
        folded: &Folded,
    ) -> Answer {
        match outcome {
            Some(Outcome::Committed) => {
                self.counts.committed += 1;
                self.counts.folded_keys += folded.folded_keys;
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

    fn remember(&mut self, id: BatchId, digest: Digest) {
        self.decisions.committed(id);
        if self.digests.len() >= DIGESTS_MAX {
            let oldest = id.sequence.saturating_sub(u64::try_from(DIGESTS_MAX / 2).unwrap_or(0));
            self.digests.retain(|known, _| known.epoch == id.epoch && known.sequence > oldest);
        }
        self.digests.insert(id, digest);
    }

    /// The batch's wall offset, moved back where its clock runs ahead of ours.
    fn wall_offset(&mut self, header: &Header, now: WallTime) -> i64 {
        let sealed = header.sealed_at.to_wall(header.wall_offset_nanos);
        if sealed.0 <= now.0.saturating_add(FUTURE_SECONDS * SECOND) {
            return header.wall_offset_nanos;
        }
        self.counts.future += 1;
        let ahead = sealed.0.saturating_sub(now.0);
        header.wall_offset_nanos.saturating_sub_unsigned(ahead)
    }

    fn fold(&mut self, batch: &Batch<'_>, offset: i64) -> Result<Folded, String> {
        let node = self.nodes.get(&batch.header.id.epoch).unwrap_or(&self.node);
        let mut live = self.live.as_deref().and_then(|live| live.take(node, &batch.header, offset));
        for record in batch.records() {
            match record {
                Ok(record) => {
                    let ends = attribute(&record, offset, &self.directory);
                    self.folder.add(&record, offset, &ends);
                    if let Some(live) = &mut live {
                        live.record(&record, &ends);
                    }
                }
                Err(error) => {
                    // Nothing of a batch that is refused may slip into the next one.
                    drop(self.folder.finish());
                    return Err(error.to_string());
                }
            }
        }
        if let Some(live) = &mut live {
            batch.notes().flatten().for_each(|note| show(live, &note));
        }
        Ok(self.folder.finish())
    }
}

/// What a note means for the live connections.
fn show(live: &mut TakingBatch<'_>, note: &Note) {
    match note {
        Note::Forget(connection) => live.forget(*connection),
        // Health is counted per tick, and so stands in a tick's last batch.
        Note::Health(..) => live.finish_tick(),
        Note::Gap(gap) => match gap.reason {
            GapReason::SpoolFull | GapReason::SpoolDamaged | GapReason::Refused => live.missing(),
            GapReason::AgentDown
            | GapReason::EventsLost
            | GapReason::EndedUnseen
            | GapReason::TrackingOff
            | GapReason::SpoolTooOld => {}
        },
    }
}

type Notes = (Vec<Gap>, Vec<(String, i64)>);

fn notes(batch: &Batch<'_>) -> Result<Notes, String> {
    let (mut gaps, mut health) = Notes::default();
    for note in batch.notes() {
        match note.map_err(|error| error.to_string())? {
            Note::Gap(gap) => gaps.push(gap),
            Note::Health(name, value) => health.push((name, value)),
            // The agent's own bookkeeping.
            Note::Forget(_) => {}
        }
    }
    Ok((gaps, health))
}

fn refused(reason: String) -> Answer {
    Answer::Refused { reason }
}

fn retry(reason: String) -> Answer {
    Answer::Retry { after: RETRY, reason }
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
