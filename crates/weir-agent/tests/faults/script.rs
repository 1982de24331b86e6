//! A kernel that shows what a test puts into it, and a store that answers as it is told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use weir_agent::coverage::Counted;
use weir_agent::{
    Agent, AgentConfig, AgentError, AgentStatus, Carry, Deliver, Environment, FlowSource, Heard,
    Spool, SpoolLimits, Visitor, clock,
};
use weir_flow::batch::{Gap, GapReason};
use weir_flow::connection::{Listeners, NoListeners};
use weir_flow::frame::{Batch, Note};
use weir_flow::ingest::{Answer, Decision, Ingest};
use weir_flow::sample::Status;
use weir_flow::seal::SealLimits;
use weir_flow::{BatchId, Counters, Digest, Protocol, Sample, Totals, Tuple, WallTime};

/// No disk is too full unless a test says so.
pub(crate) const ROOMY: SpoolLimits =
    SpoolLimits { bytes: 1 << 30, free_bytes: 0, free_percent: 0, age: Duration::from_hours(24) };

/// The table and the events waiting in the socket.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) entries: BTreeMap<u16, Sample>,
    pub(crate) events: VecDeque<Sample>,
    pub(crate) lost: u64,
    pub(crate) dumps_break_off: bool,
}

impl Kernel {
    /// A connection opened now.
    pub(crate) fn open(&mut self, port: u16) {
        let start = Some(clock::wall());
        self.entries.insert(port, Sample { start, ..connection(port) });
    }

    /// Bytes pass: as many back as forth.
    pub(crate) fn carry(&mut self, port: u16, bytes: u64) {
        let totals = self.entries.get_mut(&port).unwrap().totals.as_mut().unwrap();
        let more = Counters { packets: 1, bytes };
        *totals = Totals { sent: totals.sent + more, received: totals.received + more };
    }

    /// A connection ends; the event waits if anybody listens.
    pub(crate) fn end(&mut self, port: u16) {
        let sample = self.entries.remove(&port).unwrap();
        self.events.push_back(Sample { stop: Some(clock::wall()), ..sample });
    }

    pub(crate) fn bytes(&self, port: u16) -> u64 {
        self.entries[&port].totals.unwrap().bytes()
    }
}

fn connection(port: u16) -> Sample {
    let original = Tuple {
        protocol: Protocol::TCP,
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        source_port: port,
        destination_port: 80,
    };
    let reply = Tuple {
        source: original.destination,
        destination: original.source,
        source_port: 80,
        destination_port: port,
        ..original
    };
    let status = Status(0b110);
    let totals = Some(Totals::default());
    Sample { id: u32::from(port), original, reply, status, totals, ..Sample::default() }
}

/// The scripted kernel's door.
pub(crate) struct Door {
    kernel: Arc<Mutex<Kernel>>,
    dump: Vec<Sample>,
}

impl Door {
    pub(crate) fn new(kernel: &Arc<Mutex<Kernel>>) -> Self {
        Self { kernel: Arc::clone(kernel), dump: Vec::new() }
    }
}

impl FlowSource for Door {
    fn name(&self) -> &'static str {
        "script"
    }

    fn wait(&self, timeout: Duration) -> Result<bool, AgentError> {
        let waits = || !self.kernel.lock().unwrap().events.is_empty();
        if !waits() {
            thread::sleep(timeout.min(Duration::from_millis(2)));
        }
        Ok(waits())
    }

    fn drain(&mut self, visitor: &mut dyn Visitor) -> Result<Heard, AgentError> {
        let mut kernel = self.kernel.lock().unwrap();
        let (events, lost) = (std::mem::take(&mut kernel.events), std::mem::take(&mut kernel.lost));
        drop(kernel);
        for sample in &events {
            visitor.last_word(sample);
        }
        Ok(Heard { received: events.len() as u64, malformed: 0, lost })
    }

    fn begin_dump(&mut self) -> Result<(), AgentError> {
        self.dump = self.kernel.lock().unwrap().entries.values().rev().copied().collect();
        Ok(())
    }

    fn next_piece(&mut self, visitor: &mut dyn Visitor) -> Result<Option<Heard>, AgentError> {
        if self.kernel.lock().unwrap().dumps_break_off && self.dump.len() < 3 {
            return Err(AgentError::Thread { thread: "dump" });
        }
        let heard = self.drain(visitor)?;
        let piece: Vec<Sample> = (0..4).map_while(|_| self.dump.pop()).collect();
        for sample in &piece {
            visitor.entry(sample);
        }
        Ok((!piece.is_empty()).then_some(heard))
    }

    fn malformed(&self) -> u64 {
        0
    }
}

/// How the store answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Accepts,
    /// Commits, but the answer is lost on its way.
    LosesAnswers,
    /// Asks for everything again, after this long.
    Retries(Duration),
    /// Refuses what holds records.
    Refuses,
}

/// A store that takes each batch once, by the shipped decision.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) mood: Mood,
    ingest: Ingest,
    digests: HashMap<BatchId, Digest>,
    /// Bytes of both directions, by source port.
    pub(crate) bytes: HashMap<u16, u64>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) known: u64,
    /// Answers given.
    pub(crate) answers: u64,
}

impl Store {
    pub(crate) fn of(&self, port: u16) -> u64 {
        self.bytes.get(&port).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> u64 {
        self.bytes.values().sum()
    }

    pub(crate) fn gaps(&self, reason: GapReason) -> Vec<Gap> {
        self.gaps.iter().copied().filter(|gap| gap.reason == reason).collect()
    }

    fn answer(&mut self, frame: &[u8]) -> Answer {
        self.answers += 1;
        let retry = |after| Answer::Retry { after, reason: "the store rests".to_owned() };
        let refused = |reason: &str| Answer::Refused { reason: reason.to_owned() };
        if let Mood::Retries(after) = self.mood {
            return retry(after);
        }
        let Ok(batch) = Batch::decode(frame) else { return refused("garbage") };
        if self.mood == Mood::Refuses && batch.header.records > 0 {
            return refused("told so");
        }
        let (id, digest) = (batch.header.id, batch.header.digest);
        match self.ingest.decide(id, digest, self.digests.get(&id).copied()) {
            Decision::New => self.commit(&batch),
            Decision::Known => self.known += 1,
            Decision::Conflict => return refused("other content"),
            Decision::TooManyHoles => return retry(Duration::from_secs(1)),
        }
        match self.mood {
            Mood::LosesAnswers => retry(Duration::from_millis(1)),
            _ => Answer::Committed,
        }
    }

    fn commit(&mut self, batch: &Batch<'_>) {
        for record in batch.records() {
            let record = record.unwrap();
            *self.bytes.entry(record.source_port).or_default() += record.delta().bytes();
        }
        for note in batch.notes() {
            if let Note::Gap(gap) = note.unwrap() {
                self.gaps.push(gap);
            }
        }
        self.ingest.committed(batch.header.id);
        self.digests.insert(batch.header.id, batch.header.digest);
    }
}

/// The way to a store that others look into.
pub(crate) struct Way(pub(crate) Arc<Mutex<Store>>);

impl Deliver for Way {
    fn deliver(&mut self, frame: &[u8]) -> Answer {
        self.0.lock().unwrap().answer(frame)
    }
}

/// Notes what the agent says of itself.
struct Watching(Arc<Mutex<AgentStatus>>);

impl Environment for Watching {
    fn listeners(&self) -> &dyn Listeners {
        &NoListeners
    }

    fn tick_begins(&mut self) -> Vec<Gap> {
        Vec::new()
    }

    fn tick_ends(&mut self, _: Counted) -> Vec<(String, i64)> {
        Vec::new()
    }

    fn downtime_bound(&mut self) -> Option<u64> {
        Some(7)
    }

    fn show(&mut self, status: AgentStatus) {
        *self.0.lock().unwrap() = status;
    }
}

/// A machine: kernel, spool directory, store.
pub(crate) struct World {
    pub(crate) kernel: Arc<Mutex<Kernel>>,
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) spool: PathBuf,
    pub(crate) limits: SpoolLimits,
    pub(crate) interval: Duration,
    pub(crate) status: Arc<Mutex<AgentStatus>>,
}

impl World {
    pub(crate) fn new(spool: PathBuf) -> Self {
        Self {
            kernel: Arc::default(),
            store: Arc::default(),
            spool,
            limits: ROOMY,
            interval: Duration::from_millis(20),
            status: Arc::default(),
        }
    }

    pub(crate) fn kernel<T>(&self, change: impl FnOnce(&mut Kernel) -> T) -> T {
        change(&mut self.kernel.lock().unwrap())
    }

    pub(crate) fn store<T>(&self, look: impl FnOnce(&mut Store) -> T) -> T {
        look(&mut self.store.lock().unwrap())
    }

    pub(crate) fn status(&self) -> AgentStatus {
        self.status.lock().unwrap().clone()
    }

    /// Opens the spool and runs an agent until told to stop.
    pub(crate) fn run(&self, stopping: &AtomicBool) -> Result<(), AgentError> {
        self.run_with(|_| Way(Arc::clone(&self.store)), stopping)
    }

    /// The same, with another way to the store.
    pub(crate) fn run_with<C: Carry>(
        &self,
        way: impl FnOnce(&Spool) -> C,
        stopping: &AtomicBool,
    ) -> Result<(), AgentError> {
        let boot = clock::boot_id()?;
        let (spool, recovered) = Spool::open(&self.spool, boot, clock::wall(), self.limits)?;
        let seal = SealLimits { records: 16, bytes: 64 << 10 };
        let config = AgentConfig { interval: self.interval, cpu_budget: 1.0, seal };
        let mut way = way(&spool);
        let agent = Agent::new(config, Door::new(&self.kernel), spool, recovered);
        agent.run(&mut Watching(Arc::clone(&self.status)), &mut way, stopping)
    }

    /// An agent that looks twice and ends: everything a stop does, and nothing else.
    pub(crate) fn session(&self) {
        self.run(&AtomicBool::new(true)).unwrap();
    }

    /// Runs an agent while `act` goes on, then stops it; returns how it ended and how long the
    /// stop took.
    pub(crate) fn while_running(&self, act: impl FnOnce()) -> (Result<(), AgentError>, Duration) {
        self.while_running_with(|_| Way(Arc::clone(&self.store)), act)
    }

    /// The same, with another way to the store.
    pub(crate) fn while_running_with<C: Carry>(
        &self,
        way: impl FnOnce(&Spool) -> C + Send,
        act: impl FnOnce(),
    ) -> (Result<(), AgentError>, Duration) {
        // What an earlier agent said is not this one's word.
        *self.status.lock().unwrap() = AgentStatus::default();
        let stopping = AtomicBool::new(false);
        thread::scope(|scope| {
            let agent = scope.spawn(|| self.run_with(way, &stopping));
            // An agent that goes on would keep a test that failed from ending.
            let stop = StopOnDrop(&stopping);
            act();
            let begun = Instant::now();
            drop(stop);
            (agent.join().unwrap(), begun.elapsed())
        })
    }

    /// The files of a directory in the spool.
    pub(crate) fn files(&self, directory: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.spool.join(directory)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.is_file());
        files.sort();
        files
    }

    /// What stands on the disk at this moment, as a kill would leave it, in a directory of its own
    /// that takes the place of the spool's.
    pub(crate) fn left_by_a_kill(&mut self, copy: PathBuf) {
        copy_all(&self.spool, &copy);
        self.spool = copy;
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

pub(crate) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// An error with all its causes.
pub(crate) fn said(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A moment that is not now.
pub(crate) fn days_later(days: u64) -> WallTime {
    WallTime(clock::wall().0 + days * 24 * weir_flow::time::HOUR)
}
