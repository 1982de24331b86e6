//! Sealing: records into numbered batches that never cross a UTC hour.

use crate::batch::{BatchId, Digest, Epoch};
use crate::counters::{Counters, Totals};
use crate::frame::{FrameBuilder, Header, Note};
use crate::ledger::Clock;
use crate::record::{FlowRecord, RecordFlags};
use crate::time::{BootTime, HOUR, WallTime};

/// A record is cut at no more hours than this; what began earlier is told from here on.
const HOURS_MAX: u64 = 48;

/// How much a batch may hold. Below what the receiving side announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealLimits {
    /// Records in a batch.
    pub records: u32,
    /// Bytes of its frame; far below [`crate::frame::FRAME_BYTES_MAX`].
    pub bytes: usize,
}

impl Default for SealLimits {
    fn default() -> Self {
        Self { records: 8_192, bytes: 1 << 20 }
    }
}

/// A sealed batch, to be made durable before anything else happens to it.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    /// Its header.
    pub header: Header,
    /// Its frame.
    pub frame: &'a [u8],
}

/// Takes sealed batches, in the order of their numbers.
pub type Seals<'a> = dyn FnMut(Sealed<'_>) + 'a;

/// Collects records and seals them.
#[derive(Debug)]
pub struct Sealer {
    epoch: Epoch,
    boot: u128,
    next_sequence: u64,
    limits: SealLimits,
    clock: Clock,
    /// Open batches by their UTC hour, ascending. Two while an hour turns, more only for
    /// connections first met long after they began.
    open: Vec<(u64, FrameBuilder)>,
    spare: Vec<FrameBuilder>,
}

impl Sealer {
    /// A sealer that numbers on from `next_sequence` (1 in a new epoch).
    pub fn new(epoch: Epoch, boot: u128, next_sequence: u64, limits: SealLimits) -> Self {
        Self {
            epoch,
            boot,
            next_sequence,
            limits,
            clock: Clock::default(),
            open: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// The number the next batch will bear.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Sets how much the batches may hold that are sealed from now on.
    pub fn set_limits(&mut self, limits: SealLimits) {
        self.limits = limits;
    }

    /// Sets the clock by which the following records are placed in hours. What was placed by the
    /// last one is sealed with that one.
    pub fn set_clock(&mut self, clock: Clock, seals: &mut Seals<'_>) {
        self.seal(seals);
        self.clock = clock;
    }

    /// Adds a record, cut at the UTC hours it crosses.
    pub fn record(&mut self, record: &FlowRecord, seals: &mut Seals<'_>) {
        let offset = self.clock.wall_offset_nanos;
        let last_hour = record.interval_to.to_wall(offset).0.saturating_sub(1) / HOUR;
        let first_hour = record.interval_from.to_wall(offset).hour().min(last_hour);
        if first_hour == last_hour {
            return self.add(last_hour, record, seals);
        }
        let first_hour = first_hour.max(last_hour.saturating_sub(HOURS_MAX - 1));
        let mut rest = *record;
        let begin = WallTime(first_hour * HOUR).to_boot(offset);
        rest.interval_from = rest.interval_from.max(begin);
        for hour in first_hour..last_hour {
            let cut = WallTime((hour + 1) * HOUR).to_boot(offset);
            let (part, remainder) = split(&rest, cut);
            self.add(hour, &part, seals);
            rest = remainder;
        }
        self.add(last_hour, &rest, seals);
    }

    /// Adds a note to the next batch that is sealed.
    pub fn note(&mut self, note: &Note, seals: &mut Seals<'_>) {
        let hour = self.clock.now.to_wall(self.clock.wall_offset_nanos).hour();
        let builder = self.builder(hour);
        builder.note(note);
        self.seal_if_full(hour, seals);
    }

    /// Seals whatever is open.
    pub fn seal(&mut self, seals: &mut Seals<'_>) {
        while let Some((hour, builder)) = (!self.open.is_empty()).then(|| self.open.remove(0)) {
            self.close(hour, builder, seals);
        }
    }

    fn add(&mut self, hour: u64, record: &FlowRecord, seals: &mut Seals<'_>) {
        self.builder(hour).record(record);
        self.seal_if_full(hour, seals);
    }

    fn builder(&mut self, hour: u64) -> &mut FrameBuilder {
        let place = self.open.partition_point(|(open, _)| *open < hour);
        if self.open.get(place).is_none_or(|(open, _)| *open != hour) {
            let builder = self.spare.pop().unwrap_or_default();
            self.open.insert(place, (hour, builder));
        }
        &mut self.open[place].1
    }

    fn seal_if_full(&mut self, hour: u64, seals: &mut Seals<'_>) {
        let full = |builder: &FrameBuilder| {
            builder.records() >= self.limits.records || builder.bytes() >= self.limits.bytes
        };
        if !self.open.iter().any(|(open, builder)| *open == hour && full(builder)) {
            return;
        }
        // Earlier hours first: the parts of a cut record must be replayed in their order.
        while self.open.first().is_some_and(|(open, _)| *open <= hour) {
            let (hour, builder) = self.open.remove(0);
            self.close(hour, builder, seals);
        }
    }

    fn close(&mut self, hour: u64, mut builder: FrameBuilder, seals: &mut Seals<'_>) {
        let header = Header {
            id: BatchId { epoch: self.epoch, sequence: self.next_sequence },
            hour,
            wall_offset_nanos: self.clock.wall_offset_nanos,
            sealed_at: self.clock.now,
            boot: self.boot,
            records: builder.records(),
            digest: Digest(0),
        };
        let (header, frame) = builder.finish(header);
        self.next_sequence += 1;
        seals(Sealed { header, frame });
        builder.clear();
        // Two hours are open at the turn of one; more builders are not worth keeping.
        if self.spare.len() < 2 {
            self.spare.push(builder);
        }
    }
}

/// Cuts a record in two at `cut`, interpolating the absolute counters. The opening belongs to the
/// first part, the end to the second; the parts telescope.
fn split(record: &FlowRecord, cut: BootTime) -> (FlowRecord, FlowRecord) {
    let cut = cut.clamp(record.interval_from, record.interval_to);
    let whole = u128::from(record.interval_to.0 - record.interval_from.0).max(1);
    let share = u128::from(cut.0 - record.interval_from.0);
    let part = |amount: u64| {
        u64::try_from(u128::from(amount) * share / whole).expect("a share is no more than all")
    };
    let portion = |all: Counters| Counters { packets: part(all.packets), bytes: part(all.bytes) };
    let delta = record.delta();
    let mut middle = record.from;
    middle += Totals { sent: portion(delta.sent), received: portion(delta.received) };
    let endings = RecordFlags::CLOSED.with(RecordFlags::FAILED).with(RecordFlags::UNREPLIED);
    let beginnings = RecordFlags::OPENED.with(RecordFlags::ZEROED);
    let first = FlowRecord {
        interval_to: cut,
        to: middle,
        flags: record.flags.without(endings).with(RecordFlags::SPLIT),
        ..*record
    };
    let second = FlowRecord {
        interval_from: cut,
        from: middle,
        flags: record.flags.without(beginnings).with(RecordFlags::SPLIT),
        ..*record
    };
    (first, second)
}
