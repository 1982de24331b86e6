//! A kernel's connection table with its faults, and the truth about every life in it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use weir_flow::counters::{Counters, Totals};
use weir_flow::sample::Status;
use weir_flow::{FlowRecord, Protocol, Sample, Tuple, WallTime};

use super::Dice;

/// One connection from its first packet to its last, and what really passed.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// The tuple it uses: several lives share one when ports are reused.
    pub(super) slot: usize,
    /// The kernel's view of it.
    pub(super) sample: Sample,
    /// What passed before somebody zeroed the counters.
    lost_to_zeroing: u64,
    /// Counters when the baseline began and ended, for lives that were there.
    baseline: Option<(u64, u64)>,
    alive: bool,
    /// It ended and no event could say so.
    pub(super) unseen: bool,
    /// The other zone's entry of the same connection.
    pub(super) shadow_of: Option<usize>,
    /// It has such a shadow.
    pub(super) twin: bool,
}

impl Life {
    /// Where its bytes are looked for: by tuple and start, or by tuple where there is no start.
    pub(super) fn place(&self, gives_start: bool) -> (usize, u64) {
        let start = self.sample.start.filter(|_| gives_start);
        (self.slot, start.map_or(0, |start| start.0))
    }

    fn counted(&self) -> u64 {
        self.sample.totals.map_or(0, Totals::bytes)
    }

    /// Bytes that may be committed at most. Another zone's view counts nothing.
    pub(super) fn billable_max(&self) -> u64 {
        if self.shadow_of.is_some() {
            return 0;
        }
        let begun = self.baseline.map_or(0, |(begun, _)| begun);
        self.counted() + self.lost_to_zeroing - begun.min(self.counted() + self.lost_to_zeroing)
    }

    /// Bytes that must be committed at least.
    pub(super) fn billable_min(&self) -> u64 {
        if self.shadow_of.is_some() {
            return 0;
        }
        // What the zeroer took since our last look is unknown.
        if self.lost_to_zeroing > 0 {
            return 0;
        }
        let ended = self.baseline.map_or(0, |(_, ended)| ended);
        self.counted().saturating_sub(ended)
    }
}

#[expect(clippy::struct_excessive_bools, reason = "independent faults and phases of one kernel")]
pub(super) struct Kernel {
    lives: Vec<Life>,
    events: VecDeque<Sample>,
    event_limit: usize,
    listening: bool,
    /// `nf_conntrack_timestamp` is on.
    pub(super) gives_start: bool,
    zones: bool,
    zeroer: bool,
    tuples: u64,
    in_baseline: bool,
    resting: bool,
}

/// A dump in progress: the order of the hash table at its beginning.
pub(super) struct DumpCursor {
    order: VecDeque<usize>,
}

impl Kernel {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let gives_start = !dice.once_in(4);
        Self {
            lives: Vec::new(),
            events: VecDeque::new(),
            event_limit: if dice.once_in(3) { 3 } else { 1_000 },
            listening: false,
            gives_start,
            zones: gives_start && dice.once_in(4),
            zeroer: dice.once_in(6),
            tuples: 3 + dice.below(30),
            in_baseline: false,
            resting: false,
        }
    }

    pub(super) fn lives(&self) -> impl Iterator<Item = &Life> {
        self.lives.iter()
    }

    pub(super) fn rest(&mut self) {
        self.resting = true;
    }

    pub(super) fn start_listening(&mut self) {
        self.listening = true;
    }

    /// The socket is closed: what waited in it is gone.
    pub(super) fn stop_listening(&mut self) {
        self.listening = false;
        for sample in std::mem::take(&mut self.events) {
            self.mark_unseen(&sample);
        }
    }

    pub(super) fn next_event(&mut self) -> Option<Sample> {
        self.events.pop_front()
    }

    /// A ledger without a past is about to make its baseline.
    pub(super) fn baseline_anew(&mut self) {
        self.in_baseline = false;
        for life in &mut self.lives {
            life.baseline = None;
        }
    }

    /// A dump for the baseline begins; the one before it may have broken off half way.
    pub(super) fn baseline_begins(&mut self) {
        let again = std::mem::replace(&mut self.in_baseline, true);
        for life in &mut self.lives {
            // What began since the first try may have been billed in it, or may be noted now.
            let begun = if again { 0 } else { life.counted() + life.lost_to_zeroing };
            life.baseline.get_or_insert((begun, u64::MAX));
        }
    }

    pub(super) fn baseline_ended(&mut self) {
        self.in_baseline = false;
        let gives_start = self.gives_start;
        for life in &mut self.lives {
            let counted = life.counted();
            match &mut life.baseline {
                Some((_, ended)) => *ended = counted,
                // Without a start nobody can tell that it began during the baseline.
                none if !gives_start => *none = Some((0, counted)),
                _ => {}
            }
        }
    }

    /// A while passes: connections open, carry, end.
    pub(super) fn live(&mut self, dice: &mut Dice, wall: WallTime) {
        if self.resting {
            return;
        }
        for step in 0..dice.below(12) {
            match dice.below(10) {
                0..=2 => self.open(dice, WallTime(wall.0 + step)),
                3..=7 => self.carry(dice),
                8 => self.end(dice, WallTime(wall.0 + step)),
                _ if self.zeroer => self.zero(dice),
                _ => {}
            }
        }
    }

    pub(super) fn begin_dump(&self) -> DumpCursor {
        let mut order: Vec<usize> = (0..self.lives.len()).collect();
        // The order of a hash table: by tuple, stable over time.
        order.sort_by_key(|index| self.lives[*index].slot.wrapping_mul(0x9e37_79b9) % 1_009);
        DumpCursor { order: order.into() }
    }

    /// The next entries as they are now. A table being resized shows entries out of order or
    /// twice; a connection opened meanwhile may or may not show.
    pub(super) fn chunk(&self, dice: &mut Dice, dump: &mut DumpCursor) -> Option<Vec<Sample>> {
        let size = usize::try_from(1 + dice.below(6)).ok()?;
        let mut entries = Vec::new();
        while entries.len() < size {
            let Some(index) = dump.order.pop_front() else {
                return (!entries.is_empty()).then_some(entries);
            };
            if self.lives[index].alive {
                entries.push(self.lives[index].sample);
                if dice.once_in(40) {
                    dump.order.push_back(index);
                }
                if dice.once_in(40) && dump.order.len() > 2 {
                    dump.order.rotate_left(2);
                }
            }
        }
        Some(entries)
    }

    /// Which place a record's bytes belong to.
    pub(super) fn place_of(&self, record: &FlowRecord, by_start: bool) -> (usize, u64) {
        let slot = usize::from(record.source_port) - 1_000;
        let start = record.start.filter(|_| by_start);
        let place = (slot, start.map_or(0, |start| start.0));
        // A second zone's entry has a start of its own; its bytes are its connection's.
        let shadow = self
            .lives
            .iter()
            .find(|life| life.shadow_of.is_some() && life.place(by_start) == place);
        let of = shadow.and_then(|shadow| shadow.shadow_of);
        of.map_or(place, |of| self.lives[of].place(by_start))
    }

    fn open(&mut self, dice: &mut Dice, wall: WallTime) {
        let slot = usize::try_from(dice.below(self.tuples)).unwrap_or(0);
        // Two lives of one tuple that begin within moments would pass for two zones' views.
        let recent = |life: &Life| {
            let start = life.sample.start.map_or(0, |start| start.0);
            self.zones && start + 300_000_000 > wall.0
        };
        let mut earlier = self.lives.iter().filter(|life| life.slot == slot);
        if earlier.any(|life| life.alive || recent(life)) {
            return;
        }
        let ip = |last: u8| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let port = 1_000 + u16::try_from(slot).unwrap_or(0);
        let original = Tuple {
            protocol: if slot % 2 == 0 { Protocol::TCP } else { Protocol::UDP },
            source: ip(1),
            destination: ip(2),
            source_port: port,
            destination_port: 80,
        };
        let reply = Tuple {
            source: ip(if self.zones { 3 } else { 2 }),
            destination: ip(1),
            source_port: 80,
            destination_port: port,
            ..original
        };
        let sample = Sample {
            // The kernel's id is a hash that comes back with the tuple.
            id: u32::try_from(slot).unwrap_or(0) * 7,
            original,
            reply,
            totals: Some(Totals::default()),
            status: Status(0b110),
            start: self.gives_start.then_some(wall),
            ..Sample::default()
        };
        let baseline = self.in_baseline.then_some((0, u64::MAX)).filter(|_| !self.gives_start);
        let life = Life {
            slot,
            sample,
            lost_to_zeroing: 0,
            baseline,
            alive: true,
            unseen: false,
            shadow_of: None,
            twin: false,
        };
        self.lives.push(life.clone());
        if self.zones && dice.once_in(2) {
            let of = self.lives.len() - 1;
            self.lives[of].twin = true;
            let mut sample = life.sample;
            sample.zone = 5;
            sample.original.destination = reply.source;
            sample.start = Some(WallTime(wall.0 + 1));
            self.lives.push(Life { sample, shadow_of: Some(of), ..life });
        }
    }

    fn pick(&self, dice: &mut Dice) -> Option<usize> {
        let alive: Vec<usize> = (0..self.lives.len())
            .filter(|index| self.lives[*index].alive && self.lives[*index].shadow_of.is_none())
            .collect();
        let choice = usize::try_from(dice.below(alive.len() as u64)).ok()?;
        alive.get(choice).copied()
    }

    fn with_shadow(&self, index: usize) -> Vec<usize> {
        let shadow = |life: &Life| life.alive && life.shadow_of == Some(index);
        let shadows = self.lives.iter().enumerate().filter(|(_, life)| shadow(life));
        std::iter::once(index).chain(shadows.map(|(index, _)| index)).collect()
    }

    fn carry(&mut self, dice: &mut Dice) {
        let Some(index) = self.pick(dice) else { return };
        let mut amount = || Counters { packets: 1 + dice.below(3), bytes: 1 + dice.below(2_000) };
        let more = Totals { sent: amount(), received: amount() };
        for index in self.with_shadow(index) {
            if let Some(totals) = &mut self.lives[index].sample.totals {
                *totals += more;
            }
        }
    }

    fn zero(&mut self, dice: &mut Dice) {
        let Some(index) = self.pick(dice) else { return };
        let life = &mut self.lives[index];
        if life.twin {
            return;
        }
        life.lost_to_zeroing += life.counted();
        life.sample.totals = Some(Totals::default());
    }

    fn end(&mut self, dice: &mut Dice, wall: WallTime) {
        let Some(index) = self.pick(dice) else { return };
        let mut ended = self.with_shadow(index);
        if dice.once_in(2) {
            ended.reverse();
        }
        for index in ended {
            self.lives[index].alive = false;
            let mut last = self.lives[index].sample;
            last.stop = last.start.map(|start| WallTime(start.0.max(wall.0)));
            if self.listening && self.events.len() < self.event_limit {
                self.events.push_back(last);
            } else {
                self.mark_unseen(&last);
            }
        }
    }

    fn mark_unseen(&mut self, last: &Sample) {
        let same = |life: &Life| {
            let sample = &life.sample;
            !life.alive
                && (sample.original, sample.zone, sample.start)
                    == (last.original, last.zone, last.start)
        };
        if let Some(index) = self.lives.iter().rposition(same) {
            self.lives[index].unseen = true;
            // Half of what is known of a connection in two zones is not enough to be exact.
            let pair = self.lives[index].shadow_of;
            if let Some(of) = pair {
                self.lives[of].unseen = true;
            }
        }
    }
}
