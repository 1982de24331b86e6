//! The agent: ticks. Dump, drain to a barrier, judge, seal, make durable, deliver.

mod books;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use weir_flow::WallTime;
use weir_flow::batch::{Gap, GapReason};
use weir_flow::connection::{Listeners, NoListeners};
use weir_flow::frame::Note;
use weir_flow::ledger::Clock;
use weir_flow::seal::{SealLimits, Sealer};

use self::books::Books;
use crate::coverage::Counted;
use crate::pace::Pace;
use crate::ship::Carry;
use crate::source::{FlowSource, Heard};
use crate::spool::{self, Recovered, Spool, ToDisk};
use crate::status::AgentStatus;
use crate::{AgentError, clock, error};

/// Waiting for the next tick, the agent looks for a stop this often.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// After the first event it waits this long for more, to read them in one go.
const GATHER: Duration = Duration::from_millis(5);
/// Batches between the reader and the disk.
const QUEUE: usize = 4;
/// Time between checkpoints.
const CHECKPOINT_EVERY: Duration = Duration::from_mins(5);
/// Last words heard since the last tick that bring the next one forward.
const WORDS_MAX: u64 = 1_000_000;

/// How an agent works.
#[derive(Clone, Copy, Debug)]
pub struct AgentConfig {
    /// Shortest time between two dumps.
    pub interval: Duration,
    /// Share of one core that reading may take.
    pub cpu_budget: f64,
    /// How much a batch may hold.
    pub seal: SealLimits,
}

impl Default for AgentConfig {
    fn default() -> Self {
        let interval = Duration::from_secs(5);
        Self { interval, cpu_budget: 0.01, seal: SealLimits::default() }
    }
}

/// What surrounds the agent and is asked at each tick.
pub trait Environment: Send {
    /// Who listens where on this machine.
    fn listeners(&self) -> &dyn Listeners;

    /// Called when a tick begins, before the dump. Gaps it returns are declared with this tick.
    fn tick_begins(&mut self) -> Vec<Gap>;

    /// Called when a tick ends, with what was counted in it. Health counts it returns go with the
    /// tick's batch.
    fn tick_ends(&mut self, counted: Counted) -> Vec<(String, i64)>;

    /// An upper bound for the bytes that passed while no agent ran, where there is one.
    fn downtime_bound(&mut self) -> Option<u64>;

    /// Completes and shows a status.
    fn show(&mut self, status: AgentStatus);
}

/// One node's agent.
pub struct Agent<S> {
    source: S,
    spool: Spool,
    books: Books,
    /// How much a batch may hold, unless the other side takes less.
    seal: SealLimits,
    pace: Pace,
    status: Arc<Mutex<AgentStatus>>,
    queue: Option<Sender<ToDisk>>,
    /// While the first ticks after a start run: since when nobody looked.
    resumed: Option<Resumed>,
    heard: Heard,
    pending_gaps: Vec<Gap>,
    checkpointed_at: Option<Instant>,
    /// Checkpoints begun, for their temporary files' names.
    checkpoints: u64,
    /// When the agent was made.
    started: WallTime,
    /// Last words could not be written when last tried.
    journal_fails: bool,
    /// The open frame still holds last words that are sealed.
    journal_lags: bool,
    /// Batches dropped so far.
    dropped: u64,
}

/// An agent that was away.
#[derive(Clone, Copy, Debug)]
struct Resumed {
    from_seconds: u64,
    to_seconds: u64,
    bound: Option<u64>,
    /// Complete looks since.
    ticks: u32,
    declared: bool,
}

/// Says that a thread is done, however it ended.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl<S: FlowSource> Agent<S> {
    /// An agent over an open source and a recovered spool.
    pub fn new(config: AgentConfig, source: S, spool: Spool, recovered: Recovered) -> Self {
        let Recovered { ledger, last_words, next_sequence, last_sealed, gaps } = recovered;
        let sealer = Sealer::new(spool.epoch(), spool.boot(), next_sequence, config.seal);
        let now = clock::now();
        let wall = now.now.to_wall(now.wall_offset_nanos);
        let resumed = last_sealed.map(|sealed| Resumed {
            from_seconds: sealed.seconds(),
            to_seconds: wall.seconds(),
            bound: None,
            ticks: 0,
            declared: false,
        });
        Self {
            pace: Pace::new(config.interval, config.cpu_budget),
            source,
            spool,
            books: Books::new(ledger, sealer, last_words),
            seal: config.seal,
            status: Arc::default(),
            queue: None,
            resumed,
            heard: Heard::default(),
            pending_gaps: gaps,
            checkpointed_at: None,
            checkpoints: 0,
            started: wall,
            journal_fails: false,
            journal_lags: false,
            dropped: 0,
        }
    }

    /// Runs until `stopping` is set; then takes a last look, seals, and delivers what it can.
    pub fn run(
        mut self,
        environment: &mut dyn Environment,
        carrier: &mut dyn Carry,
        stopping: &AtomicBool,
    ) -> Result<(), AgentError> {
        let (to_disk, queue) = crossbeam_channel::bounded(QUEUE);
        self.queue = Some(to_disk);
        let directory = self.spool.directory().to_owned();
        let frames = Arc::clone(self.spool.frames());
        // The writer ends after the reader, the shipper after the writer.
        let (reader_done, writer_done) = (AtomicBool::new(false), AtomicBool::new(false));
        let shipper_done = AtomicBool::new(false);
        let ending = || stopping.load(Ordering::Acquire) || reader_done.load(Ordering::Acquire);
        let ended = thread::scope(|scope| {
            let writer = scope.spawn({
                let (directory, frames) = (&directory, &frames);
                let (ending, reader_done) = (&ending, &reader_done);
                let done = SetOnDrop(&writer_done);
                // The queue's end moves in: when the writer gives up, the reader gets to know.
                move || {
                    let _done = done;
                    spool::run_writer(directory, frames, &queue, ending, reader_done)
                }
            });
            let shipper = scope.spawn(|| {
                let _done = SetOnDrop(&shipper_done);
                carrier.carry(&frames, &writer_done)
            });
            let read = {
                // However reading ends, the writer finishes its queue, and the shipper after it.
                let _done = SetOnDrop(&reader_done);
                self.read(environment, stopping, &shipper_done)
            };
            let wrote = writer.join().unwrap_or(Err(AgentError::Thread { thread: "spool" }));
            let shipped = shipper.join().unwrap_or(Err(AgentError::Thread { thread: "delivery" }));
            // The disk's own word says more than that the reader lost its writer.
            wrote.and(shipped).and(read)
        });
        let kept = self.keep_gaps();
        let ended = ended.and(kept);
        // What was delivered at the very end shows, too.
        self.show(environment);
        ended
    }

    /// Keeps for the next start what delivery found missing after the last tick.
    fn keep_gaps(&mut self) -> Result<(), AgentError> {
        let gaps = self.spool.frames().take_gaps();
        if gaps.is_empty() {
            return Ok(());
        }
        let (to_disk, queue) = crossbeam_channel::bounded(QUEUE);
        let open = self.spool.open_frame();
        self.books.desk(&NoListeners, Some(&to_disk), open).seal(gaps.into_iter().map(Note::Gap));
        drop(to_disk);
        let done = AtomicBool::new(true);
        spool::run_writer(self.spool.directory(), self.spool.frames(), &queue, &|| true, &done)
    }

    fn read(
        &mut self,
        environment: &mut dyn Environment,
        stopping: &AtomicBool,
        shipper_done: &AtomicBool,
    ) -> Result<(), AgentError> {
        if let Some(resumed) = &mut self.resumed {
            resumed.bound = environment.downtime_bound();
        }
        self.settle_recovered(environment);
        while !stopping.load(Ordering::Acquire) {
            if shipper_done.load(Ordering::Acquire) {
                // Its own error is reported when it is joined.
                return Err(AgentError::Thread { thread: "delivery" });
            }
            let begun = Instant::now();
            if self.spool.frames().disk_fails() {
                // The kernel counts on, and its notices are read; a dump would only pile up.
                self.show(environment);
            } else {
                self.tick(environment)?;
            }
            // Right after a start one more look tells what is gone from what was only hidden.
            let interval =
                if self.resumed.is_some() { Duration::from_secs(1) } else { self.pace.interval() };
            self.wait_until(begun + interval, environment, stopping)?;
        }
        // What is missing from two dumps is gone: two last looks declare it now, not next time.
        self.tick(environment)?;
        self.tick(environment)?;
        self.checkpoint()
    }

    /// Gives the ledger the last words that a crash left between reading and sealing.
    fn settle_recovered(&mut self, environment: &mut dyn Environment) {
        let mut desk =
            self.books.desk(environment.listeners(), self.queue.as_ref(), self.spool.open_frame());
        desk.settle_recovered();
    }

    /// Listens for last words until it is time for the next tick.
    fn wait_until(
        &mut self,
        deadline: Instant,
        environment: &mut dyn Environment,
        stopping: &AtomicBool,
    ) -> Result<(), AgentError> {
        let mut words = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || stopping.load(Ordering::Acquire) || words > WORDS_MAX {
                return Ok(());
            }
            if self.source.wait(left.min(STOP_CHECK))? {
                thread::sleep(GATHER.min(left));
                let heard = self.drain(environment)?;
                words += heard.received;
                if heard.lost > 0 {
                    // A dump at once repairs what lives.
                    return Ok(());
                }
            }
        }
    }

    fn drain(&mut self, environment: &mut dyn Environment) -> Result<Heard, AgentError> {
        let mut desk =
            self.books.desk(environment.listeners(), self.queue.as_ref(), self.spool.open_frame());
        let heard = self.source.drain(&mut desk)?;
        let written = desk.write_last_words();
        self.note_journal(written);
        self.note_heard(heard);
        Ok(heard)
    }

    /// A journal that cannot be written costs nothing unless weir is killed meanwhile.
    fn note_journal(&mut self, written: Result<(), AgentError>) {
        match written {
            Ok(()) => self.journal_fails = false,
            Err(error) => {
                if !self.journal_fails {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "last words cannot be written down; they are held in memory"
                    );
                }
                self.journal_fails = true;
                self.spool.frames().waiting_because(&error::chain(&error));
            }
        }
    }

    fn note_heard(&mut self, heard: Heard) {
        self.heard.add(heard);
        if heard.lost == 0 {
            return;
        }
        let now = clock::wall().seconds();
        tracing::warn!(lost = heard.lost, "the kernel dropped DESTROY events; declared as a gap");
        // The dump of the next tick repairs what lives; the finals of what is gone are lost.
        let lost = Gap {
            reason: GapReason::EventsLost,
            from_seconds: self.last_look().seconds().min(now),
            to_seconds: now,
            connections: heard.lost,
            ..Gap::default()
        };
        match self.pending_gaps.iter_mut().find(|gap| gap.reason == GapReason::EventsLost) {
            Some(gap) => {
                gap.connections += lost.connections;
                gap.to_seconds = now;
            }
            None => self.pending_gaps.push(lost),
        }
    }

    /// One tick.
    fn tick(&mut self, environment: &mut dyn Environment) -> Result<(), AgentError> {
        let cpu = clock::thread_cpu_nanos();
        let gaps = environment.tick_begins();
        self.pending_gaps.extend(gaps);
        self.pending_gaps.append(&mut self.spool.frames().take_gaps());
        if let Some(announced) = self.spool.frames().announced() {
            self.books.set_limits(SealLimits {
                records: self.seal.records.min(announced.records),
                bytes: self.seal.bytes.min(announced.bytes),
            });
        }
        let dropped = self.spool.frames().load().dropped;
        if std::mem::replace(&mut self.dropped, dropped) < dropped {
            // Whoever shows live connections has missed some.
            self.books.announce();
        }
        let clock = clock::now();
        let was_baseline = self.books.is_baseline();
        let complete = self.dump(clock, environment);
        let forgotten = {
            let mut desk = self.books.desk(
                environment.listeners(),
                self.queue.as_ref(),
                self.spool.open_frame(),
            );
            desk.end_dump(complete);
            let heard = self.source.drain(&mut desk)?;
            let written = desk.write_last_words();
            let forgotten = desk.judge();
            self.note_journal(written);
            self.note_heard(heard);
            forgotten
        };
        self.declare_gone(u64::try_from(forgotten.len()).unwrap_or(u64::MAX), complete, clock);
        self.seal(&forgotten, environment)?;
        let initial = was_baseline && !self.books.is_baseline();
        let due = self.checkpointed_at.is_none_or(|at| at.elapsed() >= CHECKPOINT_EVERY);
        let ready = !self.books.is_baseline();
        if ready && (initial || due || self.spool.frames().wants_checkpoint()) {
            self.checkpoint()?;
        }
        let spent = Duration::from_nanos(clock::thread_cpu_nanos() - cpu);
        // The first tick pays for pages and caches that later ones find warm.
        if self.lock_status().ticks > 0 {
            self.pace.spent(spent);
        }
        self.update_status(spent, environment);
        Ok(())
    }

    /// Reads the dump to its end; false when it broke off.
    fn dump(&mut self, clock: Clock, environment: &mut dyn Environment) -> bool {
        let mut desk =
            self.books.desk(environment.listeners(), self.queue.as_ref(), self.spool.open_frame());
        desk.begin_dump(clock);
        if let Err(error) = self.source.begin_dump() {
            tracing::warn!(error = &error as &dyn std::error::Error, "the dump did not begin");
            return false;
        }
        let mut all = Heard::default();
        let mut written = Ok(());
        let complete = loop {
            match self.source.next_piece(&mut desk) {
                Ok(Some(heard)) => {
                    all.add(heard);
                    let piece = desk.write_last_words();
                    written = written.and(piece);
                }
                Ok(None) => break true,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the dump broke off; nothing is judged gone"
                    );
                    break false;
                }
            }
        };
        self.note_journal(written);
        self.note_heard(all);
        complete
    }

    /// Declares connections that left without a last word.
    fn declare_gone(&mut self, gone: u64, complete: bool, clock: Clock) {
        let now = clock.now.to_wall(clock.wall_offset_nanos).seconds();
        if let Some(resumed) = &mut self.resumed {
            // Declared with the first batch: a kill before the second look must not hide it.
            let first = !std::mem::replace(&mut resumed.declared, true);
            if first || gone > 0 {
                self.pending_gaps.push(Gap {
                    reason: GapReason::AgentDown,
                    from_seconds: resumed.from_seconds,
                    to_seconds: resumed.to_seconds,
                    connections: gone,
                    bytes_bound: resumed.bound.filter(|_| first),
                    ..Gap::default()
                });
            }
            resumed.ticks += u32::from(complete);
            if resumed.ticks >= 2 {
                self.resumed = None;
            }
        } else if gone > 0 {
            self.pending_gaps.push(Gap {
                reason: GapReason::EndedUnseen,
                from_seconds: self.last_look().seconds().min(now),
                to_seconds: now,
                connections: gone,
                ..Gap::default()
            });
            self.lock_status().ended_unseen += gone;
        }
    }

    /// Seals everything the tick brought and hands it to the disk.
    fn seal(
        &mut self,
        forgotten: &[u64],
        environment: &mut dyn Environment,
    ) -> Result<(), AgentError> {
        let tick = self.books.take_tick();
        let counted = Counted {
            bytes: tick.bytes,
            from_here: tick.from_here,
            entries_without_counters: tick.uncounted,
            offloaded_entries: tick.offloaded,
        };
        let mut health = environment.tick_ends(counted);
        let heard = std::mem::take(&mut self.heard);
        let count = |name: &str, number: u64| {
            (number > 0).then(|| (name.to_owned(), i64::try_from(number).unwrap_or(i64::MAX)))
        };
        health.extend(count("records", tick.records));
        health.extend(count("bytes", tick.bytes));
        health.extend(count("events", heard.received));
        health.extend(count("lost_events", heard.lost));
        health.extend(count("malformed", heard.malformed));
        let notes = std::mem::take(&mut self.pending_gaps)
            .into_iter()
            .map(Note::Gap)
            .chain(forgotten.iter().map(|connection| Note::Forget(*connection)))
            .chain(health.into_iter().map(|(name, value)| Note::Health(name, value)));
        let mut desk =
            self.books.desk(environment.listeners(), self.queue.as_ref(), self.spool.open_frame());
        desk.seal(notes);
        if self.books.take_unsent() + tick.unsent > 0 {
            // What was not handed over is billed again from the kernel after a restart.
            return Err(AgentError::Thread { thread: "spool" });
        }
        self.books.words_are_sealed();
        match self.spool.open_frame().rotate() {
            Ok(generation) => {
                self.journal_lags = false;
                if let Some(generation) = generation {
                    self.send(ToDisk::Supersede { generation })?;
                }
            }
            Err(error) => {
                self.journal_lags = true;
                self.note_journal(Err(error));
            }
        }
        let mut status = self.lock_status();
        status.records += tick.records;
        status.billed_bytes += tick.bytes;
        status.events += heard.received;
        status.lost_events += heard.lost;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), AgentError> {
        // Last words that a checkpoint covers must be gone before it counts: they would be billed
        // again.
        if self.books.is_baseline() || self.journal_lags {
            return Ok(());
        }
        let sequence = self.books.last_sequence();
        let written = self.spool.directory().join(format!("checkpoint-{}.tmp", self.checkpoints));
        self.checkpoints += 1;
        let at = self.books.checkpoint_at(sequence, self.spool.boot());
        let slots = self.books.slots();
        let count = u64::try_from(slots.count()).unwrap_or(0);
        let mut slots = self.books.slots();
        let epoch = self.spool.epoch();
        if let Err(error) = spool::write_checkpoint(&written, epoch, at, count, &mut slots) {
            // Without a checkpoint frames pile up until the spool's limit: said, not fatal.
            tracing::error!(error = &error as &dyn std::error::Error, "no checkpoint was written");
            self.spool.frames().waiting_because(&error::chain(&error));
            return Ok(());
        }
        self.checkpointed_at = Some(Instant::now());
        self.send(ToDisk::Checkpoint { written, sequence })
    }

    fn send(&self, request: ToDisk) -> Result<(), AgentError> {
        let gone = AgentError::Thread { thread: "spool" };
        let queue = self.queue.as_ref().ok_or(AgentError::Thread { thread: "spool" })?;
        queue.send(request).map_err(|_disconnected| gone)
    }

    fn update_status(&mut self, spent: Duration, environment: &mut dyn Environment) {
        {
            let mut status = self.lock_status();
            status.source = self.source.name();
            status.source_limits = self.source.limits();
            status.ticks += 1;
            status.last_tick = clock::wall();
            status.interval = self.pace.interval();
            status.tick_cpu = spent;
            status.connections = self.books.live();
            status.malformed = self.source.malformed();
            status.ledger = self.books.counts();
        }
        self.show(environment);
    }

    fn show(&self, environment: &mut dyn Environment) {
        let load = self.spool.frames().load();
        let snapshot = {
            let mut status = self.lock_status();
            status.spool_bytes = load.bytes;
            status.undelivered = load.undelivered;
            status.dropped = load.dropped;
            status.waiting_because = load.waiting_because;
            status.clone()
        };
        environment.show(snapshot);
    }

    /// When the last tick ended, or the agent began.
    fn last_look(&self) -> WallTime {
        self.lock_status().last_tick.max(self.started)
    }

    fn lock_status(&self) -> std::sync::MutexGuard<'_, AgentStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
