//! The ledger: cumulative counters in, flow records out; each byte once.
//!
//! The kernel dumps its table in hash order, so two dumps are almost the same sequence. The
//! ledger keeps the last one as an array and walks both with one cursor; what does not line up is
//! joined through small hash tables. A tick is always the same sequence, and the ledger's phases
//! enforce it:
//!
//! 1. [`Ledger::begin_dump`], then [`Ledger::observe`] for each entry. Before a chunk of the dump
//!    is observed, the events that are already waiting are given to [`Ledger::destroyed`].
//! 2. [`Ledger::end_dump`], then the events once more, up to a barrier read after the dump's end.
//! 3. Only then [`Ledger::judge`]: what was in the table, is in neither dump nor events, is gone.
//!
//! A dump is not a snapshot: it may show a connection whose DESTROY event was read long before.
//! So a key stays a *tombstone* until a dump begun after its event has ended; while it stands, an
//! unknown entry with that key is old news. Counters are absolute, so a new life that is silenced
//! so is billed in full one dump later.

mod announce;
mod billing;
mod index;
mod replay;
mod slots;
#[cfg(test)]
mod tests;
mod tombstones;
mod zones;

use hashbrown::{HashMap, HashSet};

use self::index::{Index, KeyHash};
pub use self::replay::Replay;
pub use self::slots::{Group, Slot, SlotFlags};
use self::slots::{Slots, Spare};
use self::tombstones::Tombstones;
use crate::batch::Epoch;
use crate::connection::{KeyMaker, Listeners, NoListeners, Orientation};
use crate::counters::Totals;
use crate::record::{FlowRecord, RecordFlags};
use crate::sample::Sample;
use crate::time::{BootTime, WallTime};

/// How far the cursor looks ahead for an entry before it calls it a miss.
const LOOK_AHEAD: usize = 24;
/// Entries that did not line up, held until one scan of the table settles them all.
const PENDING_LIMIT: usize = 2_048;
/// Newcomers held until the dump's end where zones are in use: then every live entry was seen.
const DEFERRED_LIMIT: usize = 16_384;
/// DESTROY events held until one scan of the table settles them all.
const FINALS_LIMIT: usize = 8_192;

/// What surrounds the ledger: where records go, and what is known of who listens where.
pub trait Surroundings {
    /// Takes a record.
    fn record(&mut self, record: &FlowRecord);

    /// Who listens where.
    fn listeners(&self) -> &dyn Listeners {
        &NoListeners
    }
}

impl Surroundings for Vec<FlowRecord> {
    fn record(&mut self, record: &FlowRecord) {
        self.push(*record);
    }
}

/// The moment something was read, and how boot time and wall time relate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// `CLOCK_BOOTTIME` now.
    pub now: BootTime,
    /// What to add to boot time to get wall time.
    pub wall_offset_nanos: i64,
}

impl Clock {
    fn boot(&self, wall: WallTime) -> BootTime {
        wall.to_boot(self.wall_offset_nanos).min(self.now)
    }
}

/// What a tick found beside its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Connections that left the table without a DESTROY event: their last bytes are unknown.
    pub forgotten: Vec<u64>,
}

/// Counts of the unexpected since the ledger was made; all only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounts {
    /// Counters that went backwards on the same connection: somebody else zeroes them.
    pub foreign_zeroings: u64,
    /// Entries shown by a dump after their DESTROY event: old news, ignored.
    pub stale_entries: u64,
    /// Entries of a further zone of a connection that is counted already.
    pub shadow_entries: u64,
    /// Entries without counters.
    pub uncounted_entries: u64,
    /// Entries met in mid-stream.
    pub picked_up: u64,
    /// Entries that did not line up with the last dump.
    pub misses: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Dumping,
    Ended { complete: bool },
}

/// One node's connections and how far each has been billed.
#[derive(Debug)]
pub struct Ledger {
    keys: KeyMaker,
    phase: Phase,
    /// The wall time before which everything is old: only while the first dump of an epoch is
    /// being read, whose entries are noted and not billed.
    baseline: Option<WallTime>,
    clock: Clock,
    last_dump: BootTime,
    /// The table as the last dump had it, from the cursor on.
    old: Slots,
    /// The table as this dump has it so far; between dumps, the whole table.
    new: Slots,
    /// Slots the cursor passed over.
    passed: Slots,
    spare: Spare,
    live: usize,
    /// Entries that did not line up, and the places kept for them in `new`.
    pending: Vec<(Sample, usize)>,
    deferred: Vec<Newcomer>,
    finals: HashMap<u64, Final, KeyHash>,
    tombstones: Tombstones,
    zones_in_use: bool,
    /// What the running dump shows and nothing happened to is told, too.
    announcing: bool,
    counts: LedgerCounts,
}

#[derive(Clone, Copy, Debug)]
struct Final {
    sample: Sample,
    read_at: Clock,
}

impl Ledger {
    /// An empty ledger. With `baseline`, the first dump is noted and not billed: that is for an
    /// empty spool directory only. Without, an unknown entry is billed from zero.
    pub fn new(epoch: Epoch, baseline: bool) -> Self {
        Self {
            keys: KeyMaker::new(epoch),
            phase: Phase::Idle,
            // Whatever started before the first dump begins is older than the epoch.
            baseline: baseline.then_some(WallTime(u64::MAX)),
            clock: Clock::default(),
            last_dump: BootTime::default(),
            old: Slots::default(),
            new: Slots::default(),
            passed: Slots::default(),
            spare: Spare::default(),
            live: 0,
            pending: Vec::new(),
            deferred: Vec::new(),
            finals: HashMap::default(),
            tombstones: Tombstones::default(),
            zones_in_use: false,
            announcing: false,
            counts: LedgerCounts::default(),
        }
    }

    /// Connections in the table.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Counts of the unexpected.
    pub fn counts(&self) -> LedgerCounts {
        self.counts
    }

    /// True until the first dump of an epoch has been judged.
    pub fn is_baseline(&self) -> bool {
        self.baseline.is_some()
    }

    /// Every connection in the table, for a checkpoint. Only between ticks.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        debug_assert_eq!(self.phase, Phase::Idle, "a checkpoint is taken between ticks");
        self.new.occupied()
    }

    /// Begins a dump. `clock` is read before the request is sent.
    pub fn begin_dump(&mut self, clock: Clock) {
        debug_assert_eq!(self.phase, Phase::Idle, "one dump at a time");
        self.phase = Phase::Dumping;
        self.last_dump = self.clock.now;
        self.clock = clock;
        if self.baseline.is_some() {
            self.baseline = Some(clock.now.to_wall(clock.wall_offset_nanos));
        }
        std::mem::swap(&mut self.old, &mut self.new);
    }

    /// One entry of the dump.
    #[inline]
    pub fn observe(&mut self, sample: &Sample, out: &mut dyn Surroundings) {
        debug_assert_eq!(self.phase, Phase::Dumping, "entries belong to a dump");
        let key = self.keys.connection(sample);
        match self.find_ahead(key) {
            Some(ahead) => {
                for _ in 0..ahead {
                    self.pass_over();
                }
                let slot = self.old.pop(&mut self.spare).expect("a slot was found there");
                let slot = self.advance(slot, self.last_dump, sample, out);
                self.new.push(slot, &mut self.spare);
            }
            None => self.miss(key, sample, out),
        }
    }

    /// A connection's DESTROY event: its last word. Given as soon as it is read, in any phase.
    pub fn destroyed(&mut self, sample: &Sample, clock: Clock, out: &mut dyn Surroundings) {
        let key = self.keys.connection(sample);
        self.zones_in_use |= sample.zone != 0;
        // Two lives under one key (a kernel without timestamps): the first must be settled first.
        if self.finals.len() >= FINALS_LIMIT || self.finals.contains_key(&key) {
            self.settle(out);
        }
        self.finals.insert(key, Final { sample: *sample, read_at: clock });
    }

    /// The dump is over. If it broke off, nothing is judged gone.
    pub fn end_dump(&mut self, complete: bool, out: &mut dyn Surroundings) {
        debug_assert_eq!(self.phase, Phase::Dumping, "a dump ends once");
        self.resolve(out);
        self.phase = Phase::Ended { complete };
        self.admit_deferred(out);
    }

    /// Judges what is gone, after the events up to the barrier were given.
    pub fn judge(&mut self, out: &mut dyn Surroundings) -> Judgement {
        let Phase::Ended { complete } = self.phase else {
            debug_assert!(false, "judged before the dump ended");
            return Judgement::default();
        };
        self.settle(out);
        let mut judgement = Judgement::default();
        while let Some(slot) = self.old.pop(&mut self.spare) {
            self.passed.push(slot, &mut self.spare);
        }
        while let Some(mut slot) = self.passed.pop(&mut self.spare) {
            if slot.is_vacant() {
                continue;
            }
            // A table that is resized while it is dumped can hide a live entry once, not twice.
            if complete && slot.flags().has(SlotFlags::MISSED) {
                self.live -= 1;
                if !slot.flags().has(SlotFlags::SHADOW) {
                    judgement.forgotten.push(slot.key);
                }
                continue;
            }
            slot.set(SlotFlags::MISSED.when(complete));
            self.new.push(slot, &mut self.spare);
        }
        if complete {
            self.baseline = None;
            self.announcing = false;
        }
        // Also a dump that broke off shows nothing more: the next one begins later.
        self.tombstones.dump_ended();
        self.phase = Phase::Idle;
        judgement
    }

    /// Where the key stands from the cursor on; vacant places at the cursor are dropped.
    #[inline]
    fn find_ahead(&mut self, key: u64) -> Option<usize> {
        loop {
            let slot = self.old.peek(0)?;
            if slot.key == key && !slot.is_vacant() {
                return Some(0);
            }
            if !slot.is_vacant() {
                break;
            }
            self.old.pop(&mut self.spare);
        }
        (1..=LOOK_AHEAD).find(|ahead| {
            self.old.peek(*ahead).is_some_and(|slot| slot.key == key && !slot.is_vacant())
        })
    }

    fn pass_over(&mut self) {
        let slot = self.old.pop(&mut self.spare).expect("the cursor looked beyond this slot");
        if !slot.is_vacant() {
            self.passed.push(slot, &mut self.spare);
        }
    }

    /// Bills a known connection up to `sample`.
    #[inline]
    fn advance(
        &mut self,
        mut slot: Slot,
        billed_at: BootTime,
        sample: &Sample,
        out: &mut dyn Surroundings,
    ) -> Slot {
        slot.clear(SlotFlags::MISSED);
        let totals = sample.totals.unwrap_or(slot.totals);
        if totals == slot.totals {
            if self.announcing {
                self.tell(slot.key, slot.flags(), sample, totals, out);
            }
            return slot;
        }
        // A waiting last word says more than this entry, and may belong to an earlier life.
        if self.finals.contains_key(&slot.key) {
            return slot;
        }
        if !slot.flags().has(SlotFlags::SHADOW) {
            let (from, flags) = self.growth(slot.totals, totals);
            let interval = (billed_at, self.clock.now);
            let record = billing::record(slot.key, sample, slot.flags(), (from, totals), interval);
            out.record(&FlowRecord { flags: record.flags.with(flags), ..record });
        }
        slot.totals = totals;
        slot
    }

    /// From where to bill: from the last word, unless the counters went backwards on the same
    /// connection; then somebody zeroed them, and they are billed from zero.
    fn growth(&mut self, from: Totals, to: Totals) -> (Totals, RecordFlags) {
        if to.since(from).is_some() {
            return (from, RecordFlags::default());
        }
        self.counts.foreign_zeroings += 1;
        (Totals::default(), RecordFlags::ZEROED)
    }

    /// An entry that does not line up: new, or old and out of order, or old news.
    #[cold]
    fn miss(&mut self, key: u64, sample: &Sample, out: &mut dyn Surroundings) {
        self.counts.misses += 1;
        self.zones_in_use |= sample.zone != 0;
        if self.tombstones.contains(key) || self.finals.contains_key(&key) {
            self.counts.stale_entries += 1;
            return;
        }
        if self.pending.len() >= PENDING_LIMIT {
            self.resolve(out);
        }
        // The table keeps the dump's order, or this entry would be a miss in every dump to come.
        let place = self.new.reserve(&mut self.spare);
        self.pending.push((*sample, place));
    }

    /// Finds the pending entries anywhere in the table; what is nowhere is new.
    fn resolve(&mut self, out: &mut dyn Surroundings) {
        if self.pending.is_empty() {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        let mut wanted: Index<usize> = Index::with_capacity(pending.len());
        for (index, (sample, _)) in pending.iter().enumerate() {
            // The kernel may show one entry twice in a dump; the later word stands.
            wanted.insert(self.keys.connection(sample), index);
        }
        let mut found = Vec::new();
        for slot in self.old.occupied_mut().chain(self.passed.occupied_mut()) {
            if let Some(index) = wanted.remove(slot.key) {
                found.push((*slot, self.last_dump, index));
                slot.set(SlotFlags::VACANT);
            }
        }
        for slot in self.new.occupied_mut() {
            if let Some(index) = wanted.remove(slot.key) {
                // Shown twice in this dump, and held back meanwhile: less is older, not zeroed.
                let newer = pending[index].0.totals.and_then(|totals| totals.since(slot.totals));
                if newer.is_none() {
                    continue;
                }
                found.push((*slot, self.clock.now, index));
                slot.set(SlotFlags::VACANT);
            }
        }
        for (slot, billed_at, index) in found {
            let (sample, place) = &pending[index];
            let slot = self.advance(slot, billed_at, sample, out);
            self.new.put(*place, slot);
        }
        let newcomers: Vec<Newcomer> = wanted
            .into_iter()
            .map(|(key, index)| {
                let (sample, place) = pending[index];
                Newcomer { key, sample, standing: Standing::Alive { place } }
            })
            .collect();
        if self.zones_in_use {
            self.deferred.extend(newcomers);
            if self.deferred.len() >= DEFERRED_LIMIT {
                self.admit_deferred(out);
            }
        } else {
            self.admit(newcomers, out);
        }
        pending.clear();
        self.pending = pending;
    }

    /// Joins the DESTROY events with the table; what is nowhere was never seen alive.
    fn settle(&mut self, out: &mut dyn Surroundings) {
        self.resolve(out);
        if self.finals.is_empty() {
            return;
        }
        self.admit_deferred(out);
        let finals = std::mem::take(&mut self.finals);
        let mut wanted: Index<Final> = Index::with_capacity(finals.len());
        for (key, last) in finals {
            wanted.insert(key, last);
        }
        let mut ended = Vec::new();
        let tables = [
            (&mut self.old, self.last_dump),
            (&mut self.passed, self.last_dump),
            (&mut self.new, self.clock.now),
        ];
        for (table, billed_at) in tables {
            for slot in table.occupied_mut() {
                if let Some(last) = wanted.remove(slot.key) {
                    ended.push((*slot, billed_at, last));
                    slot.set(SlotFlags::VACANT);
                }
            }
        }
        self.live -= ended.len();
        for (slot, billed_at, last) in ended {
            self.close(&slot, billed_at, &last, out);
        }
        let newcomers: Vec<Newcomer> = wanted
            .into_iter()
            .map(|(key, last)| Newcomer {
                key,
                sample: last.sample,
                standing: Standing::Ended { read_at: last.read_at },
            })
            .collect();
        self.admit(newcomers, out);
    }

    /// Bills a known connection's last word.
    fn close(&mut self, slot: &Slot, since: BootTime, last: &Final, out: &mut dyn Surroundings) {
        let sample = &last.sample;
        self.bury(slot.key, sample, slot.flags());
        if slot.flags().has(SlotFlags::SHADOW) {
            return;
        }
        let to = sample.totals.unwrap_or(slot.totals);
        let (from, flags) = self.growth(slot.totals, to);
        let end = sample.stop.map_or(last.read_at.now, |stop| last.read_at.boot(stop)).max(since);
        let record = billing::record(slot.key, sample, slot.flags(), (from, to), (since, end));
        out.record(&FlowRecord {
            flags: record.flags.with(flags).with(billing::ending(sample)),
            ..record
        });
    }

    /// Notes an end, so that older news of the connection is recognised.
    fn bury(&mut self, key: u64, sample: &Sample, flags: SlotFlags) {
        let graves = match self.phase {
            Phase::Idle => &mut self.tombstones.before,
            // Between the dump's end and the judgement counts as within it: both precede the
            // next dump.
            Phase::Dumping | Phase::Ended { .. } => &mut self.tombstones.during,
        };
        graves.keys.insert(key);
        if self.zones_in_use && !flags.has(SlotFlags::SHADOW) {
            let group = self.keys.group(&sample.reply);
            graves.groups.entry(group).or_default().push((sample.zone, sample.start));
        }
    }

    fn admit_deferred(&mut self, out: &mut dyn Surroundings) {
        let mut newcomers = std::mem::take(&mut self.deferred);
        // The kernel may show one entry twice in a dump; the later word stands.
        newcomers.reverse();
        let mut seen: HashSet<u64, KeyHash> = HashSet::default();
        newcomers.retain(|new| seen.insert(new.key) && !self.finals.contains_key(&new.key));
        self.admit(newcomers, out);
    }

    /// Enters connections nobody knew: from a dump (alive), or from their own DESTROY event.
    fn admit(&mut self, mut newcomers: Vec<Newcomer>, out: &mut dyn Surroundings) {
        if newcomers.is_empty() {
            return;
        }
        // The order of the tuples makes the outcome independent of the hash table's.
        newcomers.sort_unstable_by_key(|new| (new.sample.zone, new.key));
        let shadows = self.shadows(&newcomers);
        for (index, new) in newcomers.iter().enumerate() {
            let shadow = shadows.contains(&index);
            self.admit_one(new, shadow, out);
        }
    }

    fn admit_one(&mut self, new: &Newcomer, shadow: bool, out: &mut dyn Surroundings) {
        let Newcomer { key, sample, standing } = new;
        let (clock, ended) = match standing {
            Standing::Alive { .. } => (self.clock, false),
            Standing::Ended { read_at } => (*read_at, true),
        };
        let uncounted = sample.totals.is_none();
        let Orientation { picked_up, turned } = Orientation::of(sample, out.listeners());
        let flags = SlotFlags::default()
            .with(SlotFlags::SHADOW.when(shadow))
            .with(SlotFlags::UNCOUNTED.when(uncounted))
            .with(SlotFlags::PICKED_UP.when(picked_up))
            .with(SlotFlags::TURNED.when(turned));
        self.counts.shadow_entries += u64::from(shadow);
        self.counts.uncounted_entries += u64::from(uncounted);
        self.counts.picked_up += u64::from(picked_up);
        let to = sample.totals.unwrap_or_default();
        // During the baseline only what started after it began is new; without a start: nothing.
        let begun = self.baseline;
        let noted = begun.is_some_and(|begun| sample.start.is_none_or(|start| start < begun));
        if !shadow && !noted {
            let from = sample.start.map_or_else(|| self.unseen_since(), |start| clock.boot(start));
            let stop = sample.stop.filter(|_| ended);
            let end = stop.map_or(clock.now, |stop| clock.boot(stop));
            let interval = (from.min(end), end);
            let record = billing::record(*key, sample, flags, (Totals::default(), to), interval);
            let mut events = record.flags.with(RecordFlags::OPENED);
            if ended {
                events = events.with(billing::ending(sample));
            }
            out.record(&FlowRecord { flags: events, ..record });
        }
        if noted && !shadow && !ended && self.announcing {
            self.tell(*key, flags, sample, to, out);
        }
        match standing {
            Standing::Ended { .. } => self.bury(*key, sample, flags),
            Standing::Alive { place } => {
                let group = Group { hash: self.keys.group(&sample.reply), zone: sample.zone };
                self.new.put(*place, Slot::new(*key, to, group, flags));
                self.live += 1;
            }
        }
    }

    /// Since when an entry met now may have been there unseen.
    fn unseen_since(&self) -> BootTime {
        if self.phase == Phase::Idle { self.clock.now } else { self.last_dump }
    }
}

/// A connection nobody knew.
#[derive(Debug)]
struct Newcomer {
    key: u64,
    sample: Sample,
    standing: Standing,
}

/// What brought the first news of a connection.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// A dump, which kept this place in the table for it.
    Alive { place: usize },
    /// Its own DESTROY event.
    Ended { read_at: Clock },
}
