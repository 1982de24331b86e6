//! The spool: sealed batches on disk until they are answered, and the ledger's journal.
//!
//! ```text
//! DIR/lock            held while an agent runs
//! DIR/epoch           128 random bits, made with the directory and synced before first use
//! DIR/checkpoint      the ledger after some batch; absent until the first dump was judged
//! DIR/frames/N        sealed batches, by number; N.done once answered
//! DIR/open-G          last words read since the last seal, not synced
//! DIR/quarantine/     what could not be delivered or read, kept for a human
//! ```
//!
//! A frame is deleted when it is answered *and* a checkpoint covers it. A spool without a
//! checkpoint has delivered nothing: it is begun again, with a new epoch.

mod checkpoint;
mod disk;
mod frames;
mod open_frame;
mod writer;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use weir_flow::batch::{Gap, GapReason};
use weir_flow::frame::{Batch, FrameError};
use weir_flow::journal::Recovery;
use weir_flow::ledger::{Clock, Ledger};
use weir_flow::{BatchId, BootTime, Epoch, Sample, WallTime};

pub(crate) use self::checkpoint::write as write_checkpoint;
use self::disk::Room;
pub(crate) use self::frames::gap_for;
pub use self::frames::{Frames, Load, Undelivered};
pub(crate) use self::open_frame::OpenFrame;
pub(crate) use self::writer::{ToDisk, run as run_writer};
use crate::AgentError;

/// How much the spool may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes of undelivered batches; beyond it the oldest are dropped and declared.
    pub bytes: u64,
    /// Bytes of disk that must stay free; below it the oldest are dropped and declared.
    pub free_bytes: u64,
    /// Percent of the disk that must stay free, as far as the spool can help it: what it needs to
    /// keep going, [`SpoolLimits::MODEST_BYTES`], is not given up for it.
    pub free_percent: u8,
    /// A spool whose last batch is older than this is set aside and begun anew.
    pub age: Duration,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            bytes: 1 << 30,
            free_bytes: 64 << 20,
            free_percent: 0,
            age: Duration::from_hours(7 * 24),
        }
    }
}

impl SpoolLimits {
    /// A spool of this size fills no disk: on one that others have filled, too, batches are held
    /// for the moments until they are answered.
    pub const MODEST_BYTES: u64 = 32 << 20;

    /// True when a spool of this size holds too much for a disk with this room.
    fn are_exceeded(&self, bytes: u64, Room { free, total }: Room) -> bool {
        let share = u128::from(total) * u128::from(self.free_percent) / 100;
        bytes > self.bytes
            || free < self.free_bytes
            || (u128::from(free) < share && bytes > Self::MODEST_BYTES)
    }
}

/// An open spool directory.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    epoch: Epoch,
    epoch_born: WallTime,
    boot: u128,
    frames: Arc<Frames>,
    open: OpenFrame,
    /// Held for the lock's sake.
    _lock: File,
}

/// What the spool knew from before.
#[derive(Debug)]
pub struct Recovered {
    /// The ledger as it was, or an empty one that makes a baseline.
    pub ledger: Ledger,
    /// Last words that were read and not sealed.
    pub last_words: Vec<(Sample, Clock)>,
    /// The number of the next batch.
    pub next_sequence: u64,
    /// When the last batch was sealed; `None` in a new spool.
    pub last_sealed: Option<WallTime>,
    /// What was found missing while recovering.
    pub gaps: Vec<Gap>,
}

impl Spool {
    /// Opens the spool in `directory`, making it if need be, and recovers what it knew.
    pub fn open(
        directory: &Path,
        boot: u128,
        now: WallTime,
        limits: SpoolLimits,
    ) -> Result<(Self, Recovered), AgentError> {
        make_directory(directory)?;
        let lock = lock(directory)?;
        remove_half_written(directory)?;
        let mut gaps = Vec::new();
        let opened = match resume(directory, boot)? {
            Some(resumed) if !resumed.is_older_than(limits.age, now) => resumed,
            Some(old) => {
                gaps.push(set_aside(directory, &old, now)?);
                begin(directory)?
            }
            None => begin(directory)?,
        };
        let Opened { epoch, mut recovered, known } = opened;
        recovered.gaps.append(&mut gaps);
        let begun = recovered.last_sealed.is_some();
        let frames = Arc::new(Frames::new(directory, known, limits, begun));
        let open = OpenFrame::new(directory)?;
        let directory = directory.to_owned();
        let epoch_born = born(&directory.join("epoch"))?;
        let spool = Self { directory, epoch, epoch_born, boot, frames, open, _lock: lock };
        Ok((spool, recovered))
    }

    /// The spool's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When the epoch was made.
    pub fn epoch_born(&self) -> WallTime {
        self.epoch_born
    }

    /// The boot it was opened in.
    pub fn boot(&self) -> u128 {
        self.boot
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The batches in it.
    pub fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    pub(crate) fn open_frame(&mut self) -> &mut OpenFrame {
        &mut self.open
    }
}

/// A spool as it was found or made.
struct Opened {
    epoch: Epoch,
    recovered: Recovered,
    known: frames::Known,
}

impl Opened {
    fn is_older_than(&self, age: Duration, now: WallTime) -> bool {
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        self.recovered.last_sealed.is_some_and(|sealed| now.0.saturating_sub(sealed.0) > age)
    }
}

/// Begins a spool: whatever an earlier beginning left was never sent.
fn begin(directory: &Path) -> Result<Opened, AgentError> {
    make_directory(&directory.join("frames"))?;
    make_directory(&directory.join("quarantine"))?;
    for entry in list(&directory.join("frames"))? {
        remove(&entry)?;
    }
    for (_, path) in open_frame::list(directory)? {
        remove(&path)?;
    }
    // A frame of the old epoch that comes back after a power loss would pass for damaged.
    sync_directory(&directory.join("frames"))?;
    let mut bits = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bits))
        .map_err(|source| AgentError::Kernel { path: "/dev/urandom", source })?;
    let epoch = Epoch(u128::from_le_bytes(bits));
    write_durably(&directory.join("epoch"), format!("{epoch}\n").as_bytes())?;
    let recovered = Recovered {
        ledger: Ledger::new(epoch, true),
        last_words: Vec::new(),
        next_sequence: 1,
        last_sealed: None,
        gaps: Vec::new(),
    };
    Ok(Opened { epoch, recovered, known: frames::Known::default() })
}

/// Moves a spool that is too old out of the way; its epoch may be forgotten elsewhere by now.
fn set_aside(directory: &Path, old: &Opened, now: WallTime) -> Result<Gap, AgentError> {
    let aside = directory.join(format!("expired-{}", old.epoch));
    make_directory(&aside)?;
    let mut records = 0;
    for frames::FrameFile { path, .. } in
        frames::list(directory)?.into_iter().filter(|file| !file.answered)
    {
        let bytes = fs::read(&path).map_err(AgentError::spool("read", &path))?;
        records += Batch::decode(&bytes).map_or(0, |batch| u64::from(batch.header.records));
    }
    let open = open_frame::list(directory)?.into_iter().map(|(_, path)| path);
    // The checkpoint first: a spool without one is begun anew, whatever else is still there.
    let names = ["checkpoint", "frames", "epoch"].map(|name| directory.join(name));
    for path in names.into_iter().chain(open) {
        let name = path.file_name().expect("every path here ends in a name");
        let moved = fs::rename(&path, aside.join(name));
        moved.map_err(AgentError::spool("set aside", &path))?;
    }
    Ok(Gap {
        reason: GapReason::SpoolTooOld,
        from_seconds: old.recovered.last_sealed.unwrap_or(now).seconds(),
        to_seconds: now.seconds(),
        connections: u64::try_from(old.recovered.ledger.live()).unwrap_or(0),
        records,
        ..Gap::default()
    })
}

/// When a file was written that is never written again.
fn born(path: &Path) -> Result<WallTime, AgentError> {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified());
    let written = written.map_err(AgentError::spool("look at", path))?;
    let since = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(WallTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}

fn read_epoch(directory: &Path) -> Result<Epoch, AgentError> {
    let path = directory.join("epoch");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = "there is a checkpoint, but no epoch it could belong to".to_owned();
            return Err(AgentError::Damaged { path, what });
        }
        read => read.map_err(AgentError::spool("read", &path))?,
    };
    let bits = u128::from_str_radix(text.trim(), 16).map_err(|_not_hex| AgentError::Damaged {
        path,
        what: "its epoch is not 32 hexadecimal digits".to_owned(),
    })?;
    Ok(Epoch(bits))
}

/// Replays checkpoint, frames and open frame; `None` where no baseline was ever made.
fn resume(directory: &Path, boot: u128) -> Result<Option<Opened>, AgentError> {
    let checkpoint = directory.join("checkpoint");
    if !checkpoint.exists() {
        return Ok(None);
    }
    let epoch = read_epoch(directory)?;
    let mut recovery = Recovery::new(epoch, boot, open_frame::read_all(directory)?);
    let at = checkpoint::read(&checkpoint, epoch, &mut recovery)?;
    let mut known = frames::Known::covered_to(at.sequence);
    let (mut last, mut last_sealed) = (at.sequence, at.wall);
    let mut gaps = Vec::new();
    // Answered and unreadable: what it billed is stored, but nobody knows what that was.
    let mut forgotten = false;
    for frames::FrameFile { sequence, answered, path } in frames::list(directory)? {
        let bytes = fs::read(&path).map_err(AgentError::spool("read", &path))?;
        let id = BatchId { epoch, sequence };
        if (last + 1..sequence).any(|missing| !quarantined(directory, missing).exists()) {
            // Weir does not delete what no checkpoint covers: the files went astray.
            tracing::error!(from = last + 1, to = sequence - 1, "batches are missing in the spool");
            gaps.push(damaged_at(last_sealed));
        }
        match whole(&bytes) {
            Ok(batch) if batch.header.id == id => {
                if sequence > at.sequence {
                    let replayed = recovery.frame(&batch);
                    replayed.map_err(|source| AgentError::Frame { sequence, source })?;
                    let header = batch.header;
                    last_sealed = header.sealed_at.to_wall(header.wall_offset_nanos);
                }
                known.add(sequence, bytes.len(), answered);
            }
            _ if answered => {
                // It stays until a checkpoint covers it: a start before that must see it, too.
                forgotten |= sequence > at.sequence;
                known.add(sequence, bytes.len(), answered);
            }
            Ok(_) => gaps.push(damaged(directory, sequence, "it belongs elsewhere", last_sealed)?),
            Err(error) => {
                gaps.push(damaged(directory, sequence, &error.to_string(), last_sealed)?);
            }
        }
        last = last.max(sequence);
    }
    let (ledger, last_words) = if forgotten {
        tracing::error!(
            "a batch that was delivered is damaged and no checkpoint covers it: rather than \
             counting its bytes twice, the connections of now are noted as they are; what passed \
             since the last reading is declared as a gap"
        );
        (Ledger::new(epoch, true), Vec::new())
    } else {
        recovery.finish()
    };
    let last_sealed = Some(last_sealed);
    let recovered = Recovered { ledger, last_words, next_sequence: last + 1, last_sealed, gaps };
    Ok(Some(Opened { epoch, recovered, known }))
}

/// A batch that can be read to its end.
fn whole(bytes: &[u8]) -> Result<Batch<'_>, FrameError> {
    let batch = Batch::decode(bytes)?;
    batch.records().try_for_each(|record| record.map(drop))?;
    batch.notes().try_for_each(|note| note.map(drop))?;
    Ok(batch)
}

/// A loss that nobody can measure, about when it must have been.
pub(crate) fn damaged_at(wall: WallTime) -> Gap {
    let (from_seconds, to_seconds) = (wall.seconds(), wall.seconds());
    Gap { reason: GapReason::SpoolDamaged, from_seconds, to_seconds, ..Gap::default() }
}

/// A frame that cannot be read: it goes to quarantine, and the loss is declared.
fn damaged(directory: &Path, sequence: u64, why: &str, near: WallTime) -> Result<Gap, AgentError> {
    tracing::error!(sequence, why, "a batch in the spool is damaged; kept in quarantine");
    let from = frames::path(directory, sequence);
    let to = quarantined(directory, sequence);
    fs::rename(&from, &to).map_err(AgentError::spool("move to quarantine", &from))?;
    Ok(damaged_at(near))
}

fn quarantined(directory: &Path, sequence: u64) -> PathBuf {
    directory.join("quarantine").join(format!("{sequence:020}"))
}

fn lock(directory: &Path) -> Result<File, AgentError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(AgentError::spool("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(AgentError::Locked { path: directory.to_owned() }),
        Err(fs::TryLockError::Error(source)) => {
            Err(AgentError::Spool { operation: "lock", path, source })
        }
    }
}

fn make_directory(path: &Path) -> Result<(), AgentError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(AgentError::spool("make the directory", path))
}

/// Removes what a run that was killed had begun to write.
fn remove_half_written(directory: &Path) -> Result<(), AgentError> {
    let frames = directory.join("frames");
    let mut files = list(directory)?;
    if frames.exists() {
        files.append(&mut list(&frames)?);
    }
    let mut half = files.iter().filter(|path| path.extension().is_some_and(|end| end == "tmp"));
    half.try_for_each(|path| remove(path))
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, AgentError> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(AgentError::spool("list", directory))
}

/// Removes a file; that it is gone already is fine.
fn remove(path: &Path) -> Result<(), AgentError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(AgentError::spool("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Writes a file so that it is there whole or not at all, also after a power loss.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    let temporary = path.with_extension("tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    });
    written.map_err(AgentError::spool("write", &temporary))?;
    fs::rename(&temporary, path).map_err(AgentError::spool("write", path))?;
    sync_directory(path.parent().unwrap_or_else(|| Path::new(".")))
}

fn sync_directory(path: &Path) -> Result<(), AgentError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(AgentError::spool("sync", path))
}

/// The tick a checkpoint was taken after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointAt {
    /// The last batch it covers.
    pub(crate) sequence: u64,
    /// The boot and the time in it.
    pub(crate) boot: u128,
    pub(crate) tick: BootTime,
    /// The same as wall time.
    pub(crate) wall: WallTime,
}
