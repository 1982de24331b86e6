//! The way of batches from all streams to the one thread that takes them.
//!
//! Bounded by batches and by bytes: who brings more waits, in order. Batches that wait are
//! committed together, because what a commit costs is its wait for the disk.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use weir_flow::Epoch;
use weir_flow::ingest::{Answer, Ranges};

use super::outage::{Outage, Pass};
use crate::ingest::{Directories, Ingest, IngestCounts, Prepared, Speaker, Views};
use crate::query::Clock;

/// Bounds of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Batches that wait.
    pub batches: usize,
    /// Bytes of their frames, decompressed.
    pub bytes: usize,
    /// Batches committed together.
    pub together: usize,
    /// Bytes of frames committed together, one batch more at most.
    pub together_bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { batches: 1_024, bytes: 64 << 20, together: 64, together_bytes: 16 << 20 }
    }
}

/// The unit in which room is counted: a semaphore has 32 bits.
const ROOM_BYTES: usize = 1 << 10;

/// What pairs of nodes saw of each other is copied no more often.
const VIEWS_EVERY: Duration = Duration::from_secs(1);

/// Called after batches were committed.
pub type Committed = Box<dyn FnMut() + Send>;

/// The way in. Clones lead to the same thread.
#[derive(Clone)]
pub struct Queue {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    room_units: u32,
    report: Arc<Mutex<Report>>,
    outage: Outage,
}

/// What the thread did so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What ingest counted.
    pub counts: IngestCounts,
    /// What pairs of nodes saw of each other, as it was a moment ago.
    pub views: Arc<Views>,
    /// Groups of batches that were committed.
    pub commits: u64,
    /// Batches in the largest of them.
    pub largest_commit: u64,
    /// Since when it is at the group it is at; `None` while it waits for batches.
    pub busy_since: Option<Instant>,
}

/// The thread behind a [`Queue`].
#[derive(Debug)]
pub struct QueueThread(JoinHandle<()>);

impl QueueThread {
    /// Waits for the end.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the thread that takes batches ended in a panic");
        }
    }
}

/// Room for a frame, held from before it is decompressed until its batch is answered.
#[derive(Debug)]
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
}

enum Job {
    Batch(Waiting),
    Ranges { epoch: Epoch, answer: oneshot::Sender<Ranges> },
    Stop,
}

struct Waiting {
    speaker: Speaker,
    frame: Vec<u8>,
    answer: oneshot::Sender<Answer>,
    room: Room,
    pass: Pass,
}

impl Queue {
    /// Starts the thread that owns `ingest`.
    pub fn start<D: Directories + 'static>(
        ingest: Ingest<D>,
        limits: QueueLimits,
        clock: Clock,
        committed: Committed,
    ) -> io::Result<(Self, QueueThread)> {
        let (jobs, waiting) = mpsc::channel(limits.batches);
        let room_units = u32::try_from(limits.bytes / ROOM_BYTES).unwrap_or(u32::MAX).max(1);
        let room_units = room_units.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let room = Arc::new(Semaphore::new(usize::try_from(room_units).unwrap_or(usize::MAX)));
        let report = Arc::<Mutex<Report>>::default();
        let outage = Outage::default();
        let queue =
            Self { jobs, room, room_units, report: Arc::clone(&report), outage: outage.clone() };
        let worker = Worker { ingest, limits, clock, committed, report, outage, views_at: None };
        let thread = thread::Builder::new().name("weir-ingest".to_owned());
        let thread = thread.spawn(move || worker.run(waiting))?;
        Ok((queue, QueueThread(thread)))
    }

    /// What the thread did so far.
    pub fn report(&self) -> Report {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        report.counts.retried += self.outage.told();
        report
    }

    /// Bytes of frames that may still wait.
    pub fn free_bytes(&self) -> u64 {
        u64::try_from(self.room.available_permits() * ROOM_BYTES).unwrap_or(u64::MAX)
    }

    /// Ends the thread once all that waits now is done. Whoever comes later is told to come again.
    /// Not to be called by an asynchronous task.
    pub fn close(&self) {
        // Where nobody listens any more, it has ended.
        drop(self.jobs.blocking_send(Job::Stop));
    }

    /// True when the thread is gone.
    pub fn is_closed(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Takes a frame and answers once that is durable, or will never be.
    pub async fn take(&self, speaker: Speaker, frame: Vec<u8>) -> Answer {
        let room = self.room(frame.len()).await;
        self.submit(speaker, frame, room).await
    }

    /// Waits for room for a frame of this size.
    pub(super) async fn room(&self, bytes: usize) -> Room {
        // Whatever is larger than the whole queue waits until it has the queue for itself.
        let units = u32::try_from(bytes.div_ceil(ROOM_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(units.clamp(1, self.room_units)).await;
        Room { _permit: room.expect("the semaphore is never closed") }
    }

    pub(super) async fn submit(&self, speaker: Speaker, frame: Vec<u8>, room: Room) -> Answer {
        let pass = match self.outage.pass(Instant::now()) {
            Ok(pass) => pass,
            Err(wait) => return wait,
        };
        let (answer, answered) = oneshot::channel();
        let job = Job::Batch(Waiting { speaker, frame, answer, room, pass });
        if self.jobs.send(job).await.is_err() {
            return stopping();
        }
        answered.await.unwrap_or_else(|_gone| stopping())
    }

    /// The committed numbers of an epoch; `None` while weir stops.
    pub(super) async fn committed(&self, epoch: Epoch) -> Option<Ranges> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Ranges { epoch, answer }).await.ok()?;
        answered.await.ok()
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("room_units", &self.room_units).finish_non_exhaustive()
    }
}

fn stopping() -> Answer {
    let reason = "the server is stopping".to_owned();
    Answer::Retry { after: Duration::from_secs(1), reason }
}

struct Worker<D> {
    ingest: Ingest<D>,
    limits: QueueLimits,
    clock: Clock,
    committed: Committed,
    report: Arc<Mutex<Report>>,
    outage: Outage,
    views_at: Option<Instant>,
}

impl<D: Directories> Worker<D> {
    fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        while let Some(first) = waiting.blocking_recv() {
            self.report().busy_since = Some(Instant::now());
            let mut group = Group::default();
            self.prepare(first, &mut group);
            while group.has_room(&self.limits)
                && let Ok(next) = waiting.try_recv()
            {
                self.prepare(next, &mut group);
            }
            let is_last = group.is_last;
            self.commit(group);
            if is_last {
                return;
            }
        }
    }

    fn prepare(&mut self, job: Job, group: &mut Group) {
        let Waiting { speaker, frame, answer, room, pass } = match job {
            Job::Batch(batch) => batch,
            Job::Ranges { epoch, answer } => {
                if !self.outage.lasts() {
                    self.ingest.refresh(epoch, (self.clock)());
                }
                // Who asked may be gone.
                drop(answer.send(self.ingest.committed(epoch).cloned().unwrap_or_default()));
                return;
            }
            Job::Stop => {
                group.is_last = true;
                return;
            }
        };
        if let Some(wait) = pass.overtaken(Instant::now()) {
            group.settled.push((answer, wait));
            return;
        }
        match self.ingest.prepare(&speaker, &frame, (self.clock)()) {
            Ok(prepared) => {
                group.bytes += frame.len();
                group.prepared.push(prepared);
                group.answers.push((answer, room));
                group.passes.push(pass);
            }
            Err(settled) => group.settled.push((answer, settled)),
        }
    }

    fn commit(&mut self, group: Group) {
        let Group { prepared, answers, settled, passes, .. } = group;
        let together = u64::try_from(prepared.len()).unwrap_or(u64::MAX);
        let outcomes = self.try_commit(prepared);
        // Only now may the next one try.
        drop(passes);
        if together > 0 {
            (self.committed)();
        }
        // Told before it is answered: who was answered and looks finds it counted.
        self.tell(together);
        for (answer, outcome) in settled {
            drop(answer.send(outcome));
        }
        for ((answer, room), outcome) in answers.into_iter().zip(outcomes) {
            // Whose stream ended meanwhile will ask again, and be told that it is known.
            drop(answer.send(outcome));
            drop(room);
        }
    }

    fn try_commit(&mut self, prepared: Vec<Prepared>) -> Vec<Answer> {
        if prepared.is_empty() {
            return Vec::new();
        }
        let mut outcomes = self.ingest.commit(prepared);
        let Some(failure) = self.ingest.failure() else {
            self.outage.ended();
            return outcomes;
        };
        self.outage.failed(failure, Instant::now());
        for outcome in &mut outcomes {
            // Each is told another time.
            if let Some(wait) = self.outage.answer(Instant::now()) {
                *outcome = wait;
            }
        }
        outcomes
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&mut self, together: u64) {
        let stale = self.views_at.is_none_or(|at| at.elapsed() >= VIEWS_EVERY);
        let views = stale.then(|| Arc::new(self.ingest.views().clone()));
        if stale {
            self.views_at = Some(Instant::now());
        }
        let counts = self.ingest.counts();
        let mut report = self.report();
        report.busy_since = None;
        report.counts = counts;
        report.views = views.unwrap_or_else(|| Arc::clone(&report.views));
        report.commits += u64::from(together > 0);
        report.largest_commit = report.largest_commit.max(together);
    }
}

/// Batches on their way into one transaction.
#[derive(Default)]
struct Group {
    prepared: Vec<Prepared>,
    answers: Vec<(oneshot::Sender<Answer>, Room)>,
    passes: Vec<Pass>,
    /// What needs no commit.
    settled: Vec<(oneshot::Sender<Answer>, Answer)>,
    bytes: usize,
    is_last: bool,
}

impl Group {
    fn has_room(&self, limits: &QueueLimits) -> bool {
        !self.is_last
            && self.prepared.len() + self.settled.len() < limits.together
            && self.bytes < limits.together_bytes
    }
}
