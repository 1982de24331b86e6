//! The protocol's simulator: the shipped ledger, sealing and ingest decision, driven by a seed
//! through random kernels, kills and re-deliveries, and checked for one thing: each byte is
//! committed once or declared.
//!
//! One rule can be broken on purpose ([`Break`]); a simulator that does not notice is decoration.

mod kernel;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_flow::connection::KeyMaker;
use weir_flow::counters::Totals;
use weir_flow::frame::{Batch, Note};
use weir_flow::ingest::{Decision, Ingest, Ranges};
use weir_flow::journal::{Recovery, decode_last_words, encode_last_word};
use weir_flow::ledger::{Clock, Ledger, Slot, Surroundings};
use weir_flow::seal::{SealLimits, Sealed, Sealer};
use weir_flow::time::{BootTime, HOUR, SECOND};
use weir_flow::{Digest, Epoch, FlowRecord, RecordFlags, Sample};

use self::kernel::{Kernel, Life};

/// A rule broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Judging what is gone without draining the events up to a barrier first.
    TickOrder,
    /// Keeping the ledger's state apart from the log of frames.
    OneLog,
    /// Taking the kernel's id, zone and tuple for the identity, without the start.
    Identity,
}

/// A seeded random sequence (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x6a09_e667_f3bc_c908)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What a clean run did, so that a test can see that faults happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Connections that lived.
    pub lives: u64,
    /// Times the agent was killed.
    pub kills: u64,
    /// Batches that arrived more than once.
    pub redeliveries: u64,
    /// Connections that ended unseen.
    pub unseen: u64,
    /// Bytes committed.
    pub bytes: u64,
}

impl Deeds {
    /// Adds what another run did.
    pub fn add(&mut self, other: Self) {
        self.lives += other.lives;
        self.kills += other.kills;
        self.redeliveries += other.redeliveries;
        self.unseen += other.unseen;
        self.bytes += other.bytes;
    }
}

/// Runs one seed. The error says what was violated.
pub fn run(seed: u64, broken: Option<Break>) -> Result<Deeds, String> {
    let mut world = World::new(seed, broken);
    for _ in 0..40 + world.dice.below(40) {
        world.step()?;
    }
    world.quiesce()?;
    world.check()
}

/// What outlives the agent's process: the spool directory.
#[derive(Default)]
struct Disk {
    initialised: bool,
    checkpoint: (u64, Vec<Slot>),
    frames: BTreeMap<u64, Vec<u8>>,
    open_frame: Vec<u8>,
    last_tick: BootTime,
    /// Only under [`Break::OneLog`]: the ledger's state, written beside the log.
    apart: Option<Vec<Slot>>,
}

struct Agent {
    ledger: Ledger,
    sealer: Sealer,
}

struct World {
    dice: Dice,
    broken: Option<Break>,
    kernel: Kernel,
    clock: Clock,
    disk: Disk,
    agent: Option<Agent>,
    /// Batches sealed and not yet written: they die with the agent.
    sealed: Vec<(u64, Vec<u8>)>,
    ingest: Ingest,
    digests: HashMap<u64, Digest>,
    committed: HashMap<(usize, u64), Totals>,
    last_word: HashMap<u64, Totals>,
    forgotten: BTreeSet<u64>,
    key_of: HashMap<u64, usize>,
    ticks: u64,
    deeds: Deeds,
}

/// Records on their way into the sealer.
struct Pen<'a> {
    sealer: &'a mut Sealer,
    sealed: &'a mut Vec<(u64, Vec<u8>)>,
}

impl Pen<'_> {
    fn set_clock(&mut self, clock: Clock) {
        let Self { sealer, sealed } = self;
        sealer.set_clock(clock, &mut |seal: Sealed<'_>| {
            sealed.push((seal.header.id.sequence, seal.frame.to_vec()));
        });
    }
}

impl Surroundings for Pen<'_> {
    fn record(&mut self, record: &FlowRecord) {
        let Self { sealer, sealed } = self;
        sealer.record(record, &mut |seal: Sealed<'_>| {
            sealed.push((seal.header.id.sequence, seal.frame.to_vec()));
        });
    }
}

const EPOCH: Epoch = Epoch(0x5eed);
const LIMITS: SealLimits = SealLimits { records: 7, bytes: 1 << 20 };

impl World {
    fn new(seed: u64, broken: Option<Break>) -> Self {
        let mut dice = Dice::new(seed);
        let kernel = Kernel::new(&mut dice);
        // Near the end of an hour, so that many seeds cross one.
        let offset = HOUR * 400_000 - 60 * SECOND;
        Self {
            kernel,
            broken,
            clock: Clock { now: BootTime(10 * SECOND), wall_offset_nanos: offset.cast_signed() },
            disk: Disk::default(),
            agent: None,
            sealed: Vec::new(),
            ingest: Ingest::default(),
            digests: HashMap::new(),
            committed: HashMap::new(),
            last_word: HashMap::new(),
            forgotten: BTreeSet::new(),
            key_of: HashMap::new(),
            ticks: 0,
            deeds: Deeds::default(),
            dice,
        }
    }

    /// Time passes, traffic flows, and one thing happens.
    fn step(&mut self) -> Result<(), String> {
        self.pass_time();
        match self.dice.below(12) {
            0 if self.kernel.gives_start => self.kill(),
            1 => self.ingest = self.restarted_ingest(),
            2..=3 => self.drain(),
            _ if self.agent.is_none() => self.start()?,
            _ => self.tick(),
        }
        if self.dice.once_in(3) { self.deliver() } else { Ok(()) }
    }

    fn pass_time(&mut self) {
        self.clock.now.0 += SECOND / 10 + self.dice.below(4 * SECOND);
        let wall = self.clock.now.to_wall(self.clock.wall_offset_nanos);
        self.kernel.live(&mut self.dice, wall);
        self.clock.now.0 += 1_000 + self.dice.below(SECOND / 10);
    }

    /// A kill, once in so many times. Without a start two lives can share a key, and a crash
    /// between them cannot be told apart: no promise is made for it.
    fn strikes(&mut self, times: u64) -> bool {
        self.kernel.gives_start && self.dice.once_in(times)
    }

    /// kill -9: memory and sockets go, the disk stays; the open frame may end in a torn item.
    fn kill(&mut self) {
        if self.agent.take().is_none() {
            return;
        }
        self.deeds.kills += 1;
        self.sealed.clear();
        self.kernel.stop_listening();
        if self.dice.once_in(4) {
            self.disk.open_frame.extend_from_slice(&[90, 0, 1, 2, 3]);
        }
    }

    fn start(&mut self) -> Result<(), String> {
        self.kernel.start_listening();
        if !self.disk.initialised {
            // A spool without its baseline has sent nothing: it is begun again.
            self.disk = Disk::default();
            self.kernel.baseline_anew();
            let sealer = Sealer::new(EPOCH, 0, 1, LIMITS);
            let mut ledger = Ledger::new(EPOCH, true);
            ledger.announce();
            self.agent = Some(Agent { ledger, sealer });
            self.tick();
            return Ok(());
        }
        let (words, good) = decode_last_words(&self.disk.open_frame);
        self.disk.open_frame.truncate(good);
        let mut recovery = Recovery::new(EPOCH, 0, words.clone());
        recovery.tick(0, self.disk.last_tick);
        let (mut last, slots) = self.disk.checkpoint.clone();
        for slot in slots {
            recovery.slot(slot);
        }
        for (sequence, frame) in self.disk.frames.range(last + 1..) {
            let batch = Batch::decode(frame).map_err(|error| error.to_string())?;
            recovery.frame(&batch).map_err(|error| error.to_string())?;
            last = *sequence;
        }
        if let Some(slots) = self.disk.apart.clone() {
            recovery = Recovery::new(EPOCH, 0, words);
            for slot in slots {
                recovery.slot(slot);
            }
        }
        let (mut ledger, words) = recovery.finish();
        ledger.announce();
        let mut sealer = Sealer::new(EPOCH, 0, last + 1, LIMITS);
        sealer.set_clock(self.clock, &mut |_| {});
        self.agent = Some(Agent { ledger, sealer });
        for (sample, read_at) in words {
            self.with_ledger(|ledger, pen| ledger.destroyed(&sample, read_at, pen));
        }
        Ok(())
    }

    /// Lets the ledger do something; what gets sealed meanwhile queues up behind the rest.
    fn with_ledger<T>(&mut self, act: impl FnOnce(&mut Ledger, &mut Pen<'_>) -> T) -> T {
        let agent = self.agent.as_mut().expect("only called while the agent runs");
        act(&mut agent.ledger, &mut Pen { sealer: &mut agent.sealer, sealed: &mut self.sealed })
    }

    /// One tick: dump to the end, drain to a barrier, judge, seal. It may be killed anywhere.
    fn tick(&mut self) {
        self.ticks += 1;
        let clock = self.clock;
        self.with_ledger(|_, pen| pen.set_clock(clock));
        let was_baseline = self.with_ledger(|ledger, _| ledger.is_baseline());
        if was_baseline {
            self.kernel.baseline_begins();
        }
        self.with_ledger(|ledger, _| ledger.begin_dump(clock));
        let mut dump = self.kernel.begin_dump();
        // A chunk is filled by the kernel while the one before it is being read.
        let mut chunk = self.kernel.chunk(&mut self.dice, &mut dump);
        while let Some(entries) = chunk {
            chunk = self.kernel.chunk(&mut self.dice, &mut dump);
            self.pass_time();
            self.drain();
            if self.strikes(60) {
                self.kill();
                return;
            }
            for sample in entries {
                let sample = self.as_identified(&sample);
                self.with_ledger(|ledger, pen| ledger.observe(&sample, pen));
            }
        }
        let complete = !self.dice.once_in(25);
        self.with_ledger(|ledger, pen| ledger.end_dump(complete, pen));
        self.drain();
        let judgement = self.with_ledger(|ledger, pen| ledger.judge(pen));
        if was_baseline && complete {
            self.kernel.baseline_ended();
        }
        self.seal(&judgement.forgotten);
        self.finish_tick(complete, clock);
    }

    fn seal(&mut self, forgotten: &[u64]) {
        self.with_ledger(|_, pen| {
            let Pen { sealer, sealed } = pen;
            let mut keep = |seal: Sealed<'_>| {
                sealed.push((seal.header.id.sequence, seal.frame.to_vec()));
            };
            for connection in forgotten {
                sealer.note(&Note::Forget(*connection), &mut keep);
            }
            sealer.seal(&mut keep);
        });
    }

    /// Writes the tick's batches one by one; the open frame is superseded only by all of them.
    fn finish_tick(&mut self, complete: bool, clock: Clock) {
        let slots: Vec<Slot> = self.with_ledger(|ledger, _| ledger.slots().copied().collect());
        if self.broken == Some(Break::OneLog) {
            self.disk.apart = Some(slots.clone());
        }
        let next = self.with_ledger(|_, pen| pen.sealer.next_sequence());
        if !self.write_out() || self.strikes(60) {
            self.kill();
            return;
        }
        self.disk.open_frame.clear();
        self.disk.last_tick = clock.now;
        let first = !self.disk.initialised;
        if (first && complete) || (!first && self.dice.once_in(5)) {
            self.disk.checkpoint = (next - 1, slots);
            self.disk.initialised = true;
        }
    }

    /// Writes sealed batches in their order; may be cut off between two of them.
    fn write_out(&mut self) -> bool {
        for (sequence, frame) in std::mem::take(&mut self.sealed) {
            if self.strikes(60) {
                return false;
            }
            self.disk.frames.insert(sequence, frame);
        }
        true
    }

    /// Reads waiting events: each is written to the open frame, then given to the ledger.
    fn drain(&mut self) {
        // The broken driver leaves the events where they are for most ticks.
        let lazy = self.broken == Some(Break::TickOrder) && !self.ticks.is_multiple_of(4);
        if self.agent.is_none() || lazy {
            return;
        }
        let clock = self.clock;
        while let Some(sample) = self.kernel.next_event() {
            let sample = self.as_identified(&sample);
            encode_last_word(&mut self.disk.open_frame, &sample, clock);
            self.with_ledger(|ledger, pen| ledger.destroyed(&sample, clock, pen));
        }
    }

    fn as_identified(&self, sample: &Sample) -> Sample {
        let mut sample = *sample;
        if self.broken == Some(Break::Identity) {
            sample.start = None;
        }
        sample
    }

    /// Sends everything not yet answered; some batches arrive twice, some answers are lost.
    fn deliver(&mut self) -> Result<(), String> {
        if !self.disk.initialised {
            return Ok(());
        }
        let sequences: Vec<u64> = self.disk.frames.keys().copied().collect();
        for sequence in sequences {
            if self.dice.once_in(8) {
                return Ok(());
            }
            let frame = self.disk.frames[&sequence].clone();
            self.arrive(sequence, &frame)?;
            let twice = self.dice.once_in(6);
            if twice {
                self.arrive(sequence, &frame)?;
            }
            // An answered frame is deleted once a checkpoint covers it; a lost answer keeps it.
            if sequence <= self.disk.checkpoint.0 && !self.dice.once_in(6) {
                self.disk.frames.remove(&sequence);
            }
        }
        Ok(())
    }

    fn arrive(&mut self, sequence: u64, frame: &[u8]) -> Result<(), String> {
        let batch = Batch::decode(frame).map_err(|error| error.to_string())?;
        let Batch { header, .. } = batch;
        let kept = self.digests.get(&sequence).copied();
        match self.ingest.decide(header.id, header.digest, kept) {
            Decision::New => {}
            Decision::Known => {
                self.deeds.redeliveries += 1;
                return Ok(());
            }
            other => return Err(format!("batch {sequence} was met with {other:?}")),
        }
        for record in batch.records() {
            let record = record.map_err(|error| error.to_string())?;
            self.commit(&record, header.hour)?;
        }
        for note in batch.notes() {
            if let Note::Forget(connection) = note.map_err(|error| error.to_string())? {
                self.forgotten.insert(connection);
            }
        }
        self.ingest.committed(header.id);
        self.digests.insert(sequence, header.digest);
        Ok(())
    }

    fn commit(&mut self, record: &FlowRecord, hour: u64) -> Result<(), String> {
        let offset = self.clock.wall_offset_nanos;
        let begins = record.interval_from.to_wall(offset).0 / HOUR;
        let ends = record.interval_to.to_wall(offset).0.saturating_sub(1) / HOUR;
        if begins.min(ends) != hour && ends != hour {
            return Err(format!("a record of hours {begins}..{ends} in a batch of hour {hour}"));
        }
        let flags = record.flags;
        let before = self.last_word.insert(record.connection, record.to);
        let restarts = flags.has(RecordFlags::OPENED) || flags.has(RecordFlags::ZEROED);
        let telescopes = before.is_none_or(|before| before == record.from) || restarts;
        // Without a start two lives share a key, and their parts may interleave.
        if !telescopes && record.start.is_some() && self.broken.is_none() {
            return Err(format!("record does not begin where the last one ended: {record:?}"));
        }
        let place = self.kernel.place_of(record, self.by_start());
        self.key_of.insert(record.connection, place.0);
        let total = self.committed.entry(place).or_default();
        *total += record.delta();
        self.deeds.bytes += record.delta().bytes();
        Ok(())
    }

    fn restarted_ingest(&self) -> Ingest {
        let mut kept = Ranges::default();
        for (first, last) in self.ingest.ranges(EPOCH).into_iter().flat_map(Ranges::spans) {
            kept.push(*first, *last);
        }
        Ingest::restore([(EPOCH, kept)])
    }

    /// Faults stop; everything that can be known becomes known.
    fn quiesce(&mut self) -> Result<(), String> {
        self.kernel.rest();
        for round in 0..200 {
            self.clock.now.0 += SECOND;
            if self.agent.is_none() {
                self.start()?;
            }
            self.tick();
            self.deliver()?;
            let top = self.disk.frames.keys().next_back().copied().unwrap_or(0);
            let done = top <= self.disk.checkpoint.0
                && self.disk.frames.is_empty()
                && self.agent.is_some();
            if round > 12 && done {
                return Ok(());
            }
        }
        Err("the spool does not drain".to_owned())
    }

    fn check(mut self) -> Result<Deeds, String> {
        let by_start = self.by_start();
        let mut by_place: BTreeMap<(usize, u64), Vec<&Life>> = BTreeMap::new();
        for life in self.kernel.lives() {
            by_place.entry(life.place(by_start)).or_default().push(life);
        }
        for place in self.committed.keys() {
            if !by_place.contains_key(place) {
                return Err(format!("bytes committed for a connection that never was: {place:?}"));
            }
        }
        for (place, lives) in &by_place {
            let got = self.committed.get(place).copied().unwrap_or_default().bytes();
            let most: u64 = lives.iter().map(|life| life.billable_max()).sum();
            if got > most {
                return Err(format!("{place:?}: {got} bytes committed, {most} passed"));
            }
            // Without a start, a life that ended unseen blurs the next one under the same tuple.
            let blurred = !self.kernel.gives_start && lives.iter().any(|life| life.unseen);
            let seen = lives.iter().filter(|life| !life.unseen && !blurred);
            let least: u64 = seen.map(|life| life.billable_min()).sum();
            if got < least {
                return Err(format!("{place:?}: {got} bytes committed of {least}"));
            }
            self.deeds.lives += lives.len() as u64;
            self.deeds.unseen += lives.iter().filter(|life| life.unseen).count() as u64;
        }
        if self.broken.is_none() && self.kernel.gives_start {
            self.check_declared()?;
        }
        Ok(self.deeds)
    }

    /// What was billed and then ended unseen is declared, and nothing else is. (Without a start,
    /// two lives share a key, and one's end may be taken for the other's.)
    fn check_declared(&self) -> Result<(), String> {
        for key in &self.forgotten {
            let slot = self.key_of.get(key);
            let unseen =
                |slot: &usize| self.kernel.lives().any(|life| life.slot == *slot && life.unseen);
            if slot.is_some_and(|slot| !unseen(slot)) {
                return Err(format!("connection {key:016x} was declared gone, but was seen off"));
            }
        }
        let keys = KeyMaker::new(EPOCH);
        for life in self.kernel.lives().filter(|life| life.unseen && life.shadow_of.is_none()) {
            let known = self.committed.contains_key(&life.place(true));
            let key = keys.connection(&life.sample);
            if known && !self.forgotten.contains(&key) && !life.twin {
                return Err(format!("a known connection ended unseen and undeclared: {life:?}"));
            }
        }
        Ok(())
    }

    /// True when each life can be told apart by its start.
    fn by_start(&self) -> bool {
        self.kernel.gives_start && self.broken != Some(Break::Identity)
    }
}
