//! The sealed batches: written by one thread, delivered by another.
//!
//! A batch that is answered before a checkpoint covers it keeps its file, as the ledger's journal,
//! under a name that says so: after a restart it is neither sent again nor missed if it is damaged.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use weir_flow::batch::{Gap, GapReason};
use weir_flow::frame::{Batch, FrameBuilder, Note};
use weir_flow::ingest::Ranges;
use weir_flow::seal::SealLimits;

use super::disk::{Room, room};
use super::{SpoolLimits, quarantined, remove, write_durably};
use crate::{AgentError, clock};

/// What is known of the frames at the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    held: BTreeMap<u64, Held>,
    checkpointed: u64,
}

impl Known {
    pub(super) fn covered_to(checkpointed: u64) -> Self {
        Self { checkpointed, ..Self::default() }
    }

    pub(super) fn add(&mut self, sequence: u64, bytes: usize, answered: bool) {
        self.held.insert(sequence, Held { answered, ..Held::new(bytes) });
    }
}

#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    answered: bool,
    /// Its records were dropped; only a gap notice is left of it.
    dropped: bool,
}

impl Held {
    fn new(bytes: usize) -> Self {
        Self { bytes: u64::try_from(bytes).unwrap_or(0), answered: false, dropped: false }
    }
}

/// The frames of a spool, shared between its writer and the one who delivers.
#[derive(Debug)]
pub struct Frames {
    directory: PathBuf,
    limits: SpoolLimits,
    state: Mutex<State>,
    changed: Condvar,
    /// Told of changes, too: whoever cannot wait at a condition variable.
    bell: OnceLock<Bell>,
}

/// What is called after something changed.
struct Bell(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

#[derive(Debug)]
struct State {
    held: BTreeMap<u64, Held>,
    checkpointed: u64,
    /// Nothing is delivered before the baseline stands.
    deliverable: bool,
    waiting_because: Option<String>,
    /// Gaps to be declared with the next batch.
    gaps: Vec<Gap>,
    wants_checkpoint: bool,
    disk_fails: bool,
    /// Dropped frames, so far.
    dropped: u64,
    /// The most the other side takes in a batch, where it has said so.
    announced: Option<SealLimits>,
}

/// What a frame's name ends in once it is answered.
const DONE: &str = ".done";
/// Gaps held apart until a batch takes them; beyond that, those of one reason are joined.
const GAPS_MAX: usize = 64;
/// Batches kept in quarantine; beyond it the oldest go.
const QUARANTINE_MAX: usize = 256;

impl State {
    fn declare(&mut self, gap: Gap) {
        let full = self.gaps.len() >= GAPS_MAX;
        match self.gaps.iter_mut().find(|known| full && known.reason == gap.reason) {
            Some(known) => join(known, &gap),
            None => self.gaps.push(gap),
        }
    }
}

/// Makes one gap of two that have the same reason.
fn join(one: &mut Gap, other: &Gap) {
    one.from_seconds = one.from_seconds.min(other.from_seconds);
    one.to_seconds = one.to_seconds.max(other.to_seconds);
    one.connections = one.connections.saturating_add(other.connections);
    one.records = one.records.saturating_add(other.records);
    one.bytes = one.bytes.saturating_add(other.bytes);
    one.bytes_bound = match (one.bytes_bound, other.bytes_bound) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    };
}

/// What is missing when the records of a batch are lost.
pub(crate) fn gap_for(batch: &Batch<'_>, reason: GapReason) -> Gap {
    let hour = batch.header.hour * 3_600;
    let records = batch.records().filter_map(Result::ok);
    Gap {
        reason,
        from_seconds: hour,
        to_seconds: hour + 3_600,
        records: batch.header.records.into(),
        bytes: records.map(|record| record.delta().bytes()).sum(),
        ..Gap::default()
    }
}

fn limit_quarantine(directory: &Path) -> Result<(), AgentError> {
    let mut files = super::list(directory)?;
    files.sort_unstable();
    let surplus = files.len().saturating_sub(QUARANTINE_MAX);
    files[..surplus].iter().try_for_each(|file| remove(file))
}

/// How full the spool is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes of all batches in it.
    pub bytes: u64,
    /// Batches without an answer.
    pub undelivered: u64,
    /// Batches dropped since the start because the spool or the disk was full.
    pub dropped: u64,
    /// Why delivery waits, where it does.
    pub waiting_because: Option<String>,
}

/// A batch on its way.
#[derive(Clone, Debug)]
pub struct Undelivered {
    /// Its number.
    pub sequence: u64,
    /// Its frame.
    pub frame: Vec<u8>,
}

impl Frames {
    pub(super) fn new(
        directory: &Path,
        known: Known,
        limits: SpoolLimits,
        deliverable: bool,
    ) -> Self {
        let state = State {
            held: known.held,
            checkpointed: known.checkpointed,
            deliverable,
            waiting_because: None,
            gaps: Vec::new(),
            wants_checkpoint: false,
            disk_fails: false,
            dropped: 0,
            announced: None,
        };
        Self {
            directory: directory.to_owned(),
            limits,
            state: Mutex::new(state),
            changed: Condvar::new(),
            bell: OnceLock::new(),
        }
    }

    /// Calls `ring` after each batch that comes in. Only the first caller is heard.
    pub(crate) fn on_change(&self, ring: impl Fn() + Send + Sync + 'static) {
        let first = self.bell.set(Bell(Box::new(ring)));
        debug_assert!(first.is_ok(), "one way to the server has one bell");
    }

    fn has_changed(&self) {
        self.changed.notify_all();
        if let Some(Bell(ring)) = self.bell.get() {
            ring();
        }
    }

    /// The first batch without an answer; waits for one up to `timeout`.
    pub fn next(&self, timeout: Duration) -> Option<Undelivered> {
        let first = |state: &State| {
            let mut waiting = state.held.iter().filter(|(_, held)| !held.answered);
            waiting.next().map(|(sequence, _)| *sequence).filter(|_| state.deliverable)
        };
        let state = self.lock();
        let none = |state: &mut State| first(state).is_none();
        let waited = self.changed.wait_timeout_while(state, timeout, none);
        let sequence = first(&waited.unwrap_or_else(PoisonError::into_inner).0)?;
        self.read(sequence)
    }

    /// The first batch behind `after` without an answer that `skip` does not name.
    pub(crate) fn waiting(&self, after: u64, skip: impl Fn(u64) -> bool) -> Option<u64> {
        let state = self.lock();
        let behind = state.held.range(after.saturating_add(1)..);
        let mut waiting = behind.filter(|(sequence, held)| !held.answered && !skip(**sequence));
        waiting.next().map(|(sequence, _)| *sequence).filter(|_| state.deliverable)
    }

    /// Batches behind `after` that have no answer.
    pub(crate) fn unanswered_behind(&self, after: u64) -> usize {
        let state = self.lock();
        let behind = state.held.range(after.saturating_add(1)..);
        behind.filter(|(_, held)| !held.answered).count()
    }

    /// The newest batch there is; 0 where there is none.
    pub(crate) fn newest(&self) -> u64 {
        let state = self.lock();
        state.held.last_key_value().map_or(state.checkpointed, |(sequence, _)| *sequence)
    }

    /// Reads a batch that waits for its answer.
    pub(crate) fn read(&self, sequence: u64) -> Option<Undelivered> {
        match fs::read(path(&self.directory, sequence)) {
            Ok(frame) => Some(Undelivered { sequence, frame }),
            Err(error) => {
                // The file went away or cannot be read: declared, and not tried for ever.
                tracing::error!(sequence, %error, "a batch cannot be read from the spool");
                let mut state = self.lock();
                state.held.remove(&sequence);
                state.declare(super::damaged_at(clock::wall()));
                None
            }
        }
    }

    /// Notes an answer: the frame goes as soon as a checkpoint covers it.
    pub fn answered(&self, sequence: u64) -> Result<(), AgentError> {
        let mut state = self.lock();
        state.waiting_because = None;
        self.mark(&mut state, sequence);
        drop(state);
        self.tidy()
    }

    /// Notes what the other side has already; returns how many batches of ours that are.
    pub(crate) fn settle(&self, committed: &Ranges) -> Result<u64, AgentError> {
        let mut state = self.lock();
        // Whoever tells us this can be reached.
        state.waiting_because = None;
        let known = |sequence: &u64| committed.contains(*sequence);
        let waiting = state.held.iter().filter(|(_, held)| !held.answered);
        let done: Vec<u64> = waiting.map(|(sequence, _)| *sequence).filter(known).collect();
        for sequence in &done {
            self.mark(&mut state, *sequence);
        }
        drop(state);
        self.tidy()?;
        Ok(u64::try_from(done.len()).unwrap_or(0))
    }

    /// Marks a batch as answered, in its file's name, too, where that stays.
    fn mark(&self, state: &mut State, sequence: u64) {
        let covered = sequence <= state.checkpointed;
        let Some(held) = state.held.get_mut(&sequence) else { return };
        if !std::mem::replace(&mut held.answered, true) && !covered {
            let (from, to) = (path(&self.directory, sequence), done(&self.directory, sequence));
            if let Err(error) = fs::rename(&from, &to) {
                // Then it is offered once more after a restart, and known there.
                tracing::debug!(%error, sequence, "an answer was not written down");
            }
        }
    }

    /// The most the other side takes in a batch, from now on.
    pub(crate) fn announce(&self, limits: SealLimits) {
        self.lock().announced = Some(limits);
    }

    /// The most the other side takes in a batch, where it has said so.
    pub(crate) fn announced(&self) -> Option<SealLimits> {
        self.lock().announced
    }

    /// Puts a gap notice in the place of a batch that the other side will never take for its size.
    /// False while it cannot be: until a checkpoint covers it, it is the ledger's journal.
    pub(crate) fn give_up(&self, sequence: u64) -> Result<bool, AgentError> {
        let mut state = self.lock();
        if sequence > state.checkpointed {
            state.wants_checkpoint = true;
            return Ok(false);
        }
        drop(state);
        let (from, to) = (path(&self.directory, sequence), quarantined(&self.directory, sequence));
        remove(&to)?;
        fs::hard_link(&from, &to).map_err(AgentError::spool("move to quarantine", &from))?;
        limit_quarantine(&self.directory.join("quarantine"))?;
        self.drop_records(sequence, GapReason::Refused)?;
        Ok(true)
    }

    /// Moves a refused batch out of the way; `gaps` are declared with the next one.
    pub(crate) fn quarantine(&self, sequence: u64, gaps: Vec<Gap>) -> Result<(), AgentError> {
        let from = path(&self.directory, sequence);
        let to = quarantined(&self.directory, sequence);
        remove(&to)?;
        // A second name, which a full disk can give, too: the frame itself is still the ledger's
        // journal until a checkpoint covers it.
        fs::hard_link(&from, &to).map_err(AgentError::spool("move to quarantine", &from))?;
        limit_quarantine(&self.directory.join("quarantine"))?;
        let mut state = self.lock();
        let dropped = state.held.get(&sequence).is_some_and(|held| held.dropped);
        gaps.into_iter().filter(|_| !dropped).for_each(|gap| state.declare(gap));
        drop(state);
        self.answered(sequence)
    }

    /// The disk does not take what it is given.
    pub(super) fn disk_failed(&self, reason: &str) {
        let mut state = self.lock();
        state.disk_fails = true;
        state.waiting_because = Some(reason.to_owned());
    }

    /// It does again.
    pub(super) fn disk_works(&self) {
        let mut state = self.lock();
        if std::mem::take(&mut state.disk_fails) {
            state.waiting_because = None;
        }
    }

    /// True while the spool's writer tries in vain.
    pub(crate) fn disk_fails(&self) -> bool {
        self.lock().disk_fails
    }

    /// Says why delivery waits.
    pub fn waiting_because(&self, reason: &str) {
        self.lock().waiting_because = Some(reason.to_owned());
    }

    /// How full it is, and why delivery waits.
    pub fn load(&self) -> Load {
        let state = self.lock();
        let undelivered = state.held.values().filter(|held| !held.answered).count();
        Load {
            bytes: state.held.values().map(|held| held.bytes).sum(),
            undelivered: u64::try_from(undelivered).unwrap_or(0),
            dropped: state.dropped,
            waiting_because: state.waiting_because.clone(),
        }
    }

    /// Gaps that delivery or the limits caused, to be declared with the next batch.
    pub(crate) fn take_gaps(&self) -> Vec<Gap> {
        std::mem::take(&mut self.lock().gaps)
    }

    /// True when frames wait for a checkpoint before they can be dropped.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        std::mem::take(&mut self.lock().wants_checkpoint)
    }

    /// Asks for one.
    pub(super) fn want_checkpoint(&self) {
        self.lock().wants_checkpoint = true;
    }

    /// Makes a frame durable.
    pub(super) fn write(&self, sequence: u64, frame: &[u8]) -> Result<(), AgentError> {
        write_durably(&path(&self.directory, sequence), frame)?;
        self.lock().held.insert(sequence, Held::new(frame.len()));
        self.has_changed();
        self.keep_limits()
    }

    /// A checkpoint covers everything up to `sequence` now.
    pub(super) fn checkpointed(&self, sequence: u64) -> Result<(), AgentError> {
        let mut state = self.lock();
        state.checkpointed = sequence;
        state.deliverable = true;
        drop(state);
        self.has_changed();
        self.tidy()
    }

    /// Deletes what is answered and covered.
    fn tidy(&self) -> Result<(), AgentError> {
        let mut state = self.lock();
        let covered = state.checkpointed;
        let over: Vec<u64> = state
            .held
            .range(..=covered)
            .filter(|(_, held)| held.answered)
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in &over {
            state.held.remove(sequence);
        }
        drop(state);
        over.iter().try_for_each(|sequence| {
            remove(&path(&self.directory, *sequence))?;
            remove(&done(&self.directory, *sequence))
        })
    }

    /// Drops the oldest batches while the spool is too large or the disk too full.
    fn keep_limits(&self) -> Result<(), AgentError> {
        let disk = File::open(&self.directory);
        let room = || disk.as_ref().ok().and_then(room).unwrap_or(Room::PLENTY);
        loop {
            let Load { bytes, undelivered, .. } = self.load();
            if !self.limits.are_exceeded(bytes, room()) || undelivered < 2 {
                return Ok(());
            }
            let mut state = self.lock();
            let covered = state.checkpointed;
            let mut candidates = state.held.range(..=covered);
            let oldest = candidates.find(|(_, held)| !held.answered && !held.dropped);
            let Some(oldest) = oldest.map(|(sequence, _)| *sequence) else {
                state.wants_checkpoint = true;
                return Ok(());
            };
            drop(state);
            self.drop_records(oldest, GapReason::SpoolFull)?;
            tracing::warn!(
                sequence = oldest,
                "the spool is full: a batch was dropped and declared as a gap"
            );
        }
    }

    /// Puts a gap notice in a batch's place, under its number.
    fn drop_records(&self, sequence: u64, reason: GapReason) -> Result<(), AgentError> {
        let file = path(&self.directory, sequence);
        let bytes = fs::read(&file).map_err(AgentError::spool("read", &file))?;
        let batch =
            Batch::decode(&bytes).map_err(|source| AgentError::Frame { sequence, source })?;
        let mut builder = FrameBuilder::default();
        if batch.header.records > 0 {
            builder.note(&Note::Gap(gap_for(&batch, reason)));
        }
        // What it had to say of other losses is as small and stays; a checkpoint knows the rest.
        let told = batch.notes().filter_map(Result::ok);
        told.filter(|note| !matches!(note, Note::Forget(_))).for_each(|note| builder.note(&note));
        let (_, frame) = builder.finish(batch.header);
        write_durably(&file, frame)?;
        let held = Held { dropped: true, ..Held::new(frame.len()) };
        let mut state = self.lock();
        state.held.insert(sequence, held);
        state.dropped += 1;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves plain data that is valid at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join("frames").join(format!("{sequence:020}"))
}

/// Where a batch stands that was answered before a checkpoint covered it.
fn done(directory: &Path, sequence: u64) -> PathBuf {
    directory.join("frames").join(format!("{sequence:020}{DONE}"))
}

/// A frame's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrameFile {
    pub(super) sequence: u64,
    pub(super) answered: bool,
    pub(super) path: PathBuf,
}

/// The frames' files, by number. Files that are not ours, or half written, are left alone.
pub(super) fn list(directory: &Path) -> Result<Vec<FrameFile>, AgentError> {
    let file = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let (number, answered) = match name.strip_suffix(DONE) {
            Some(number) => (number, true),
            None => (name, false),
        };
        Some(FrameFile { sequence: number.parse().ok()?, answered, path })
    };
    let paths = super::list(&directory.join("frames"))?.into_iter();
    let mut files: Vec<_> = paths.filter_map(file).collect();
    files.sort_unstable();
    files.dedup_by_key(|file| file.sequence);
    Ok(files)
}
