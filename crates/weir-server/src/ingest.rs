//! Accepting a batch once, however often it is sent: decide, attribute, fold, commit, answer.

mod commit;
mod patience;
mod refresh;
mod views;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use weir_flow::attribution::{Attributed, attribute};
use weir_flow::batch::{Gap, GapReason};
use weir_flow::fold::Folder;
use weir_flow::frame::{Batch, Header, Note};
use weir_flow::ingest::{Answer, Decision, Ingest as Decisions, Ranges};
use weir_flow::time::{HOUR, SECOND};
use weir_flow::{BatchId, Digest, Directory, Epoch, FlowRecord, Folded, Name, View, WallTime};
use weir_store::{FlowStore, StoreError};

use self::patience::Patience;
use self::views::BatchViews;
use crate::live::{Live, TakingBatch};

pub use self::views::{Pair, Views};

/// A batch may lie this far in the future; what lies further is moved back to now, and counted.
const FUTURE_SECONDS: u64 = 120;
/// Wait before the same batch is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Wait before a batch is tried again that names somebody the directory does not know yet.
const WAIT_FOR_DIRECTORY: Duration = Duration::from_secs(1);
/// Flows of the finest level in one batch. An agent's largest batch makes half as many.
const FLOWS_MAX: usize = 1 << 20;
/// Digests kept in memory per epoch; older ones are the store's to compare.
const DIGESTS_MAX: usize = 256;

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
    /// Records of connections that another node counts.
    pub second_views: u64,
    /// Records that were not their node's to tell; not billed.
    pub foreign_views: u64,
    /// Their bytes.
    pub foreign_bytes: u64,
    /// Records of which an end inside the cluster stayed unknown; not billed, declared as a gap.
    pub undecided: u64,
    /// Their bytes.
    pub undecided_bytes: u64,
    /// Times a batch was sent back until the directory knows more.
    pub waited: u64,
}

/// Gives every batch the directory that names its ends.
pub trait Directories: Send + Sync {
    /// Lends the directory as `observer` sees the world. Its clock may be off by `skew_nanos`.
    fn lend(&self, observer: &str, skew_nanos: u64, ask: &mut dyn FnMut(&dyn Directory));
}

impl<D: Directories + ?Sized> Directories for Arc<D> {
    fn lend(&self, observer: &str, skew_nanos: u64, ask: &mut dyn FnMut(&dyn Directory)) {
        D::lend(self, observer, skew_nanos, ask);
    }
}

/// Whose batch it is.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// The node.
    pub node: Name,
    /// Its clock may be off by this much.
    pub skew_nanos: u64,
    /// Somebody has made sure that it is this node. A machine that speaks for itself may have been
    /// renamed; its spool then keeps the name it began under.
    pub authenticated: bool,
}

impl Speaker {
    /// This machine itself.
    pub fn here(node: &str) -> Self {
        Self { node: node.into(), skew_nanos: 0, authenticated: false }
    }
}

/// The way of a batch into the store.
pub struct Ingest<D> {
    /// The name each epoch began under.
    nodes: HashMap<Epoch, Name>,
    store: Arc<dyn FlowStore>,
    directories: D,
    decisions: Decisions,
    digests: HashMap<Epoch, VecDeque<(u64, Digest)>>,
    folder: Folder,
    /// A batch's records with their ends; kept for its room.
    named: Vec<(FlowRecord, Attributed)>,
    /// The latest batch of each epoch, for its clock.
    clocks: HashMap<Epoch, Header>,
    live: Option<Arc<Live>>,
    patience: Patience,
    views: Views,
    counts: IngestCounts,
    /// When what others have committed of an epoch was read.
    refreshed: HashMap<Epoch, WallTime>,
    /// Why the store took nothing of what it was last given.
    failure: Option<String>,
    /// How often in a row it took nothing.
    refusals: u32,
}

/// A batch that is ready to be committed.
pub struct Prepared {
    node: Name,
    id: BatchId,
    digest: Digest,
    end_seconds: u64,
    folded: Folded,
    gaps: Vec<Gap>,
    health: Vec<(String, i64)>,
    /// Only where the store asks for them.
    records: Vec<(FlowRecord, Attributed)>,
    wall_offset: i64,
    views: BatchViews,
    tally: Tally,
}

/// What a batch's records came to, beside what is folded.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    second: u64,
    foreign: u64,
    foreign_bytes: u64,
    undecided: u64,
    undecided_bytes: u64,
}

impl<D: Directories> Ingest<D> {
    /// An ingest that continues where the store stands.
    pub fn new(store: Arc<dyn FlowStore>, directories: D) -> Result<Self, StoreError> {
        let mut digests = HashMap::new();
        let (mut epochs, mut nodes) = (Vec::new(), HashMap::new());
        for known in store.committed()? {
            let older = known.digests.len().saturating_sub(DIGESTS_MAX);
            digests.insert(known.epoch, known.digests.into_iter().skip(older).collect());
            nodes.insert(known.epoch, known.node.into());
            epochs.push((known.epoch, known.ranges));
        }
        Ok(Self {
            nodes,
            store,
            directories,
            decisions: Decisions::restore(epochs),
            digests,
            folder: Folder::default(),
            named: Vec::new(),
            clocks: HashMap::new(),
            live: None,
            patience: Patience::default(),
            views: Views::default(),
            counts: IngestCounts::default(),
            refreshed: HashMap::new(),
            failure: None,
            refusals: 0,
        })
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

    /// What pairs of nodes saw of each other.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// The numbers of an epoch that are committed.
    pub fn committed(&self, epoch: Epoch) -> Option<&Ranges> {
        self.decisions.ranges(epoch)
    }

    /// Why the store took nothing of what it was last given; `None` where it took it.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Takes a frame and answers. `now` is used to recognise the future, and for how long a batch
    /// has waited.
    pub fn accept(&mut self, speaker: &Speaker, frame: &[u8], now: WallTime) -> Answer {
        match self.prepare(speaker, frame, now) {
            Ok(prepared) => {
                let mut answers = self.commit(vec![prepared]);
                answers.pop().unwrap_or_else(|| retry("the store gave no answer".to_owned()))
            }
            Err(answer) => answer,
        }
    }

    /// Decides about a frame, names its ends and folds it; an answer where there is nothing left
    /// to commit. Whatever is prepared must be handed to [`Ingest::commit`], together or one by
    /// one, before the same batch is prepared again.
    pub fn prepare(
        &mut self,
        speaker: &Speaker,
        frame: &[u8],
        now: WallTime,
    ) -> Result<Prepared, Answer> {
        let prepared = self.decide(speaker, frame, now);
        if let Err(answer) = &prepared {
            self.count(answer);
        }
        prepared
    }

    fn count(&mut self, answer: &Answer) {
        match answer {
            Answer::Committed => {}
            Answer::Retry { .. } => self.counts.retried += 1,
            Answer::Refused { .. } => self.counts.refused += 1,
        }
    }

    fn decide(
        &mut self,
        speaker: &Speaker,
        frame: &[u8],
        now: WallTime,
    ) -> Result<Prepared, Answer> {
        let batch = Batch::decode(frame).map_err(|error| refused(error.to_string()))?;
        let Header { id, digest, .. } = batch.header;
        let known = self.nodes.get(&id.epoch);
        if speaker.authenticated && known.is_some_and(|known| *known != speaker.node) {
            return Err(refused(format!("epoch {} belongs to another node", id.epoch)));
        }
        let node = known.unwrap_or(&speaker.node).clone();
        let mut decision = self.decisions.decide(id, digest, self.digest(id));
        if decision == Decision::TooManyHoles {
            // Another server may have filled them.
            self.refresh(id.epoch, now);
            decision = self.decisions.decide(id, digest, self.digest(id));
        }
        match decision {
            Decision::New => self.fold(node, speaker, &batch, now),
            Decision::Known => {
                self.counts.known += 1;
                Err(Answer::Committed)
            }
            Decision::Conflict => {
                Err(refused(format!("batch {id} was committed with other content")))
            }
            Decision::TooManyHoles => Err(retry("too many earlier batches are missing".to_owned())),
        }
    }

    fn fold(
        &mut self,
        node: Name,
        speaker: &Speaker,
        batch: &Batch<'_>,
        now: WallTime,
    ) -> Result<Prepared, Answer> {
        let Header { id, digest, sealed_at, hour, .. } = batch.header;
        let offset = self.wall_offset(&batch.header, now);
        let (mut gaps, health) = notes(batch).map_err(refused)?;
        let speaker = &Speaker {
            skew_nanos: speaker.skew_nanos.saturating_add(self.clock_was_off_by(&batch.header)),
            ..speaker.clone()
        };
        let mut named = std::mem::take(&mut self.named);
        let read = self.name_ends(&node, speaker, batch, offset, &mut named);
        let waits = read.and_then(|unknown| self.wait_for(id, &unknown, now));
        if let Err(answer) = waits {
            named.clear();
            self.named = named;
            return Err(answer);
        }

        let mut live =
            self.live.as_deref().and_then(|live| live.take(&node, &batch.header, offset));
        let (mut views, mut tally) = (BatchViews::default(), Tally::default());
        let wants_records = self.store.wants_records();
        let mut records = Vec::with_capacity(if wants_records { named.len() } else { 0 });
        for (record, ends) in named.drain(..) {
            if self.folder.flows() > FLOWS_MAX {
                break;
            }
            self.folder.add(&record, offset, &ends);
            views.add(&node, record.delta(), &ends);
            tally.add(&record, ends.view);
            if let Some(live) = &mut live {
                live.record(&record, &ends);
            }
            if wants_records {
                records.push((record, ends));
            }
        }
        if let Some(live) = &mut live {
            batch.notes().flatten().for_each(|note| show(live, &note));
        }
        drop(live);
        self.named = named;
        let end_seconds = sealed_at.to_wall(offset).seconds().min((hour + 1) * 3_600);
        gaps.extend(tally.gap(end_seconds));
        let too_many = self.folder.flows() > FLOWS_MAX;
        let folded = self.folder.finish();
        if too_many {
            return Err(refused(format!("its records make more than {FLOWS_MAX} flows")));
        }
        Ok(Prepared {
            node,
            id,
            digest,
            end_seconds,
            folded,
            gaps,
            health,
            records,
            wall_offset: offset,
            views,
            tally,
        })
    }

    /// Names the ends of every record; gives the addresses inside the cluster that stay unknown.
    fn name_ends(
        &self,
        node: &str,
        speaker: &Speaker,
        batch: &Batch<'_>,
        offset: i64,
        named: &mut Vec<(FlowRecord, Attributed)>,
    ) -> Result<HashSet<IpAddr>, Answer> {
        let mut unknown = HashSet::new();
        let mut read = Ok(());
        self.directories.lend(node, speaker.skew_nanos, &mut |directory| {
            read = batch.records().try_for_each(|record| {
                let record = record.map_err(|error| refused(error.to_string()))?;
                check_interval(&record, &batch.header).map_err(refused)?;
                let ends = attribute(&record, offset, directory);
                if ends.view == View::Undecided {
                    unknown.extend([record.source, record.destination]);
                }
                named.push((record, ends));
                Ok(())
            });
        });
        read.map(|()| unknown)
    }

    /// Sends the batch back where the directory does not know an end inside the cluster yet.
    fn wait_for(
        &mut self,
        id: BatchId,
        unknown: &HashSet<IpAddr>,
        now: WallTime,
    ) -> Result<(), Answer> {
        if !unknown.is_empty() && self.patience.waits(id, unknown, now) {
            self.counts.waited += 1;
            return Err(Answer::Retry {
                after: WAIT_FOR_DIRECTORY,
                reason: "an address inside the cluster is not known yet".to_owned(),
            });
        }
        self.patience.settled(id);
        Ok(())
    }

    /// The digest under which a number was committed, where it is still kept.
    fn digest(&self, id: BatchId) -> Option<Digest> {
        let mut kept = self.digests.get(&id.epoch)?.iter();
        kept.find(|(sequence, _)| *sequence == id.sequence).map(|(_, digest)| *digest)
    }

    fn remember(&mut self, id: BatchId, digest: Digest) {
        self.decisions.committed(id);
        let kept = self.digests.entry(id.epoch).or_default();
        if kept.len() >= DIGESTS_MAX {
            kept.pop_front();
        }
        kept.push_back((id.sequence, digest));
    }

    /// How far a batch's clock was from where the same clock was in a later batch: it was set in
    /// between, and the starts of connections were told by the clock of then.
    fn clock_was_off_by(&mut self, header: &Header) -> u64 {
        let latest = self.clocks.entry(header.id.epoch).or_insert(*header);
        if header.id.sequence >= latest.id.sequence {
            *latest = *header;
        }
        if header.boot != latest.boot {
            return 0;
        }
        latest.wall_offset_nanos.abs_diff(header.wall_offset_nanos)
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
}

impl Tally {
    fn add(&mut self, record: &FlowRecord, view: View) {
        let bytes = record.delta().bytes();
        match view {
            View::Counts { .. } | View::Transit => {}
            View::Second => self.second += 1,
            View::Foreign => {
                self.foreign += 1;
                self.foreign_bytes = self.foreign_bytes.saturating_add(bytes);
            }
            View::Undecided => {
                self.undecided += 1;
                self.undecided_bytes = self.undecided_bytes.saturating_add(bytes);
            }
        }
    }

    /// What could not be billed, declared.
    fn gap(&self, seconds: u64) -> Option<Gap> {
        (self.undecided > 0).then(|| Gap {
            reason: GapReason::Undecided,
            from_seconds: seconds,
            to_seconds: seconds,
            records: self.undecided,
            bytes: self.undecided_bytes,
            ..Gap::default()
        })
    }
}

/// Refuses what no agent seals: an interval that ends after the batch was sealed, or one longer
/// than the hour that a batch never crosses. Either would make windows without limit.
fn check_interval(record: &FlowRecord, header: &Header) -> Result<(), String> {
    let FlowRecord { interval_from, interval_to, .. } = record;
    if interval_to.0 > header.sealed_at.0.saturating_add(FUTURE_SECONDS * SECOND) {
        return Err("a record's interval ends after its batch was sealed".to_owned());
    }
    if interval_to.0.saturating_sub(interval_from.0) > HOUR {
        return Err("a record's interval is longer than the hour its batch belongs to".to_owned());
    }
    Ok(())
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
            | GapReason::SpoolTooOld
            | GapReason::Undecided => {}
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
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
