//! The reader's books: ledger and sealer, and what a tick adds up to.

use crossbeam_channel::Sender;
use weir_flow::connection::Listeners;
use weir_flow::frame::Note;
use weir_flow::journal::encode_last_word;
use weir_flow::ledger::{Clock, Ledger, LedgerCounts, Slot, Surroundings};
use weir_flow::seal::{SealLimits, Sealed, Sealer};
use weir_flow::{FlowRecord, Sample};

use crate::AgentError;
use crate::clock;
use crate::source::Visitor;
use crate::spool::{CheckpointAt, OpenFrame, ToDisk};

/// Last words held in memory before they are written to the open frame.
const WORDS_BYTES: usize = 16 << 10;

/// What was billed since the last seal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tick {
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Of these, sent by this machine itself; `None` where nobody knows its addresses.
    pub(super) from_here: Option<u64>,
    /// Entries seen whose packets go past their counters.
    pub(super) offloaded: u64,
    /// Entries seen that carry no counters.
    pub(super) uncounted: u64,
    /// Batches that could not be handed over because the spool's writer is gone.
    pub(super) unsent: u64,
}

pub(super) struct Books {
    ledger: Ledger,
    sealer: Sealer,
    clock: Clock,
    tick: Tick,
    /// Last words of an earlier run, until they are settled.
    recovered: Vec<(Sample, Clock)>,
    /// Last words on their way into the open frame.
    words: Vec<u8>,
}

impl Books {
    pub(super) fn new(mut ledger: Ledger, sealer: Sealer, recovered: Vec<(Sample, Clock)>) -> Self {
        // Whoever shows live connections knows none yet.
        ledger.announce();
        let (clock, tick) = (Clock::default(), Tick::default());
        Self { ledger, sealer, clock, tick, recovered, words: Vec::new() }
    }

    /// Sets how much the batches may hold that are sealed from now on.
    pub(super) fn set_limits(&mut self, limits: SealLimits) {
        self.sealer.set_limits(limits);
    }

    /// With the next whole dump, tells of every connection.
    pub(super) fn announce(&mut self) {
        self.ledger.announce();
    }

    pub(super) fn is_baseline(&self) -> bool {
        self.ledger.is_baseline()
    }

    pub(super) fn live(&self) -> usize {
        self.ledger.live()
    }

    pub(super) fn counts(&self) -> LedgerCounts {
        self.ledger.counts()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.ledger.slots()
    }

    pub(super) fn last_sequence(&self) -> u64 {
        self.sealer.next_sequence() - 1
    }

    pub(super) fn checkpoint_at(&self, sequence: u64, boot: u128) -> CheckpointAt {
        let wall = self.clock.now.to_wall(self.clock.wall_offset_nanos);
        CheckpointAt { sequence, boot, tick: self.clock.now, wall }
    }

    pub(super) fn take_tick(&mut self) -> Tick {
        std::mem::take(&mut self.tick)
    }

    /// What could not be written to the open frame stands in batches now.
    pub(super) fn words_are_sealed(&mut self) {
        self.words.clear();
    }

    pub(super) fn take_unsent(&mut self) -> u64 {
        std::mem::take(&mut self.tick.unsent)
    }

    /// The books, open for work.
    pub(super) fn desk<'a>(
        &'a mut self,
        listeners: &'a dyn Listeners,
        queue: Option<&'a Sender<ToDisk>>,
        open: &'a mut OpenFrame,
    ) -> Desk<'a> {
        let Self { ledger, sealer, clock, tick, recovered, words } = self;
        let pen = Pen { sealer, tick, queue, listeners };
        let written = Ok(());
        Desk { ledger, pen, tick_clock: clock, read_at: None, recovered, words, open, written }
    }
}

/// Everything a reader needs at hand while samples come in.
pub(super) struct Desk<'a> {
    ledger: &'a mut Ledger,
    pen: Pen<'a>,
    tick_clock: &'a mut Clock,
    /// When the last words being read are read; looked up once for those read together.
    read_at: Option<Clock>,
    recovered: &'a mut Vec<(Sample, Clock)>,
    words: &'a mut Vec<u8>,
    open: &'a mut OpenFrame,
    /// What writing last words came to.
    written: Result<(), AgentError>,
}

impl Desk<'_> {
    pub(super) fn settle_recovered(&mut self) {
        let now = clock::now();
        self.pen.set_clock(now);
        for (sample, read_at) in std::mem::take(self.recovered) {
            let read_at = in_this_boot(read_at, now);
            self.ledger.destroyed(&sample, read_at, &mut self.pen);
        }
    }

    pub(super) fn begin_dump(&mut self, clock: Clock) {
        *self.tick_clock = clock;
        self.pen.set_clock(clock);
        self.ledger.begin_dump(clock);
    }

    pub(super) fn end_dump(&mut self, complete: bool) {
        self.ledger.end_dump(complete, &mut self.pen);
    }

    pub(super) fn judge(&mut self) -> Vec<u64> {
        self.ledger.judge(&mut self.pen).forgotten
    }

    /// Puts what was heard into the open frame. What is read next is read later.
    pub(super) fn write_last_words(&mut self) -> Result<(), AgentError> {
        self.read_at = None;
        let written = self.open.append(self.words);
        std::mem::replace(&mut self.written, Ok(())).and(written)
    }

    pub(super) fn seal(&mut self, notes: impl Iterator<Item = Note>) {
        let Pen { sealer, tick, queue, .. } = &mut self.pen;
        let mut keep = |sealed: Sealed<'_>| tick.unsent += u64::from(!send(*queue, sealed));
        for note in notes {
            sealer.note(&note, &mut keep);
        }
        sealer.seal(&mut keep);
    }
}

impl Visitor for Desk<'_> {
    fn last_word(&mut self, sample: &Sample) {
        let read_at = *self.read_at.get_or_insert_with(clock::now);
        encode_last_word(self.words, sample, read_at);
        // The ledger may seal, and wait for the disk: what was read must be written by then.
        if self.words.len() >= WORDS_BYTES {
            let written = self.open.append(self.words);
            self.written = std::mem::replace(&mut self.written, Ok(())).and(written);
        }
        self.ledger.destroyed(sample, read_at, &mut self.pen);
    }

    #[inline]
    fn entry(&mut self, sample: &Sample) {
        self.pen.tick.offloaded += u64::from(sample.status.offloaded());
        self.pen.tick.uncounted += u64::from(sample.totals.is_none());
        self.ledger.observe(sample, &mut self.pen);
    }
}

/// When a last word of an earlier run was read. What lies ahead was read in an earlier boot, whose
/// clock says nothing here: only its wall time does.
fn in_this_boot(read_at: Clock, now: Clock) -> Clock {
    if read_at.now <= now.now {
        return read_at;
    }
    let wall = read_at.now.to_wall(read_at.wall_offset_nanos);
    Clock { now: wall.to_boot(now.wall_offset_nanos).min(now.now), ..now }
}

/// Where the ledger's records go.
struct Pen<'a> {
    sealer: &'a mut Sealer,
    tick: &'a mut Tick,
    queue: Option<&'a Sender<ToDisk>>,
    listeners: &'a dyn Listeners,
}

impl Pen<'_> {
    /// From here on records are placed by this clock; those placed by the last one are sealed.
    fn set_clock(&mut self, clock: Clock) {
        let Self { sealer, tick, queue, .. } = self;
        sealer.set_clock(clock, &mut |sealed: Sealed<'_>| {
            tick.unsent += u64::from(!send(*queue, sealed));
        });
    }
}

impl Surroundings for Pen<'_> {
    #[inline]
    fn record(&mut self, record: &FlowRecord) {
        self.tick.records += 1;
        let delta = record.delta();
        self.tick.bytes += delta.bytes();
        let ends = [(record.source, delta.sent), (record.destination, delta.received)];
        for (sender, counters) in ends {
            if let Some(own) = self.listeners.is_own(sender) {
                let sent = if own { counters.bytes } else { 0 };
                *self.tick.from_here.get_or_insert(0) += sent;
            }
        }
        let Self { sealer, tick, queue, .. } = self;
        sealer.record(record, &mut |sealed: Sealed<'_>| {
            tick.unsent += u64::from(!send(*queue, sealed));
        });
    }

    fn listeners(&self) -> &dyn Listeners {
        self.listeners
    }
}

/// Hands a batch to the disk; waits while its queue is full. The kernel counts on meanwhile. False
/// when nobody takes it any more.
fn send(queue: Option<&Sender<ToDisk>>, sealed: Sealed<'_>) -> bool {
    let sequence = sealed.header.id.sequence;
    let request = ToDisk::Frame { sequence, frame: sealed.frame.to_vec() };
    queue.is_some_and(|queue| queue.send(request).is_ok())
}
