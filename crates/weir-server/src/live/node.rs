//! An observer and its ticks.

use std::collections::VecDeque;

use weir_flow::frame::Header;
use weir_flow::time::SECOND;
use weir_flow::{BatchId, BootTime, Epoch, WallTime};

use super::hold::Hold;
use super::table::{Key, seconds};

/// Rates say nothing about now when this many ticks more should have come,
const SILENT_TICKS: u64 = 4;
/// and this long has passed.
const SILENT: u64 = 15 * SECOND;
/// Batches that are missing may still come for this long.
const HOLE_PATIENCE: u64 = 30 * SECOND;

/// One reading of a node's kernel. Ticks are told apart and measured by boot time, which nobody
/// sets; wall time is for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    pub(super) boot: BootTime,
    pub(super) wall: WallTime,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: Box<str>,
    epoch: u128,
    boot: u128,
    last: Option<BatchId>,
    /// The numbers this server has of it: since when, and the highest. `None` once another server
    /// has newer ones.
    held: Option<(u64, u64)>,
    hole: Option<Hole>,
    /// The tick before the newest whole one.
    before: Option<Tick>,
    /// The newest tick of which every batch was taken: the one that is shown.
    newest: Option<Tick>,
    /// The tick of which not every batch was taken yet.
    taking: Option<Tick>,
    /// Its connections that ended, in the order of their ends.
    pub(super) ended: VecDeque<(BootTime, Key)>,
    /// Connections of the newest tick that could not be held, and of the one being taken.
    pub(super) left_out: u64,
    pub(super) leaving_out: u64,
}

/// Numbers that were passed over: another server may have them, or they are late.
#[derive(Clone, Copy, Debug)]
struct Hole {
    /// The tick before it.
    after: BootTime,
    missing: u64,
}

/// What a batch means for its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It tells nothing new.
    No,
    /// It is older than what is known: it only tells what has ended since.
    Late,
    /// It is taken.
    Yes,
    /// It is taken, and its epoch is another one: what was held will not be heard of again.
    Anew,
}

impl Node {
    pub(super) fn new(name: &str, header: &Header) -> Self {
        Self {
            name: name.into(),
            epoch: header.id.epoch.0,
            boot: header.boot,
            last: None,
            held: None,
            hole: None,
            before: None,
            newest: None,
            taking: None,
            ended: VecDeque::new(),
            left_out: 0,
            leaving_out: 0,
        }
    }

    pub(super) fn begin(&mut self, header: &Header, offset: i64) -> Begun {
        if self.last == Some(header.id) {
            return Begun::No;
        }
        let anew = self.epoch != header.id.epoch.0;
        if anew || self.boot != header.boot {
            // Another boot's clock does not go on from this one's.
            (self.epoch, self.boot) = (header.id.epoch.0, header.boot);
            (self.before, self.newest, self.taking) = (None, None, None);
            self.hole = None;
        }
        self.hold(header.id.sequence, anew);
        let tick = Tick { boot: header.sealed_at, wall: header.sealed_at.to_wall(offset) };
        let latest = self.latest().map(|latest| latest.boot);
        if latest.is_some_and(|latest| tick.boot < latest) {
            return Begun::Late;
        }
        self.last = Some(header.id);
        if latest.is_none_or(|latest| tick.boot > latest) {
            // Without a word that it was whole: it will not get any more.
            self.finish();
            self.taking = Some(tick);
            self.leaving_out = 0;
        }
        if anew { Begun::Anew } else { Begun::Yes }
    }

    fn hold(&mut self, number: u64, anew: bool) {
        let Some((first, highest)) = self.held.filter(|_| !anew) else {
            self.held = Some((number, number));
            return;
        };
        self.held = Some((first, highest.max(number)));
        if number > highest.saturating_add(1) {
            let after = self.latest().map_or(BootTime(0), |tick| tick.boot);
            let hole = self.hole.get_or_insert(Hole { after, missing: 0 });
            hole.missing = hole.missing.saturating_add(number - highest - 1);
        } else if number < highest {
            let left =
                self.hole.map(|hole| Hole { missing: hole.missing.saturating_sub(1), ..hole });
            self.hole = left.filter(|hole| hole.missing > 0);
        }
    }

    /// The tick before batches that are missing and will not come any more. Said once.
    pub(super) fn given_up(&mut self) -> Option<BootTime> {
        let Hole { after, .. } = self.hole?;
        let latest = self.latest()?.boot;
        if latest.0.saturating_sub(after.0) <= HOLE_PATIENCE {
            return None;
        }
        self.hole = None;
        Some(after)
    }

    /// What this server has of the node, where it still holds it.
    pub(super) fn hold_of(&self) -> Option<Hold> {
        let (first, last) = self.held?;
        Some(Hold {
            node: self.name.to_string(),
            epoch: Epoch(self.epoch).to_string(),
            first,
            last,
            read_at: self.latest().map_or(0, |tick| tick.wall.0),
        })
    }

    /// Another server has newer batches: what is known here is not now.
    pub(super) fn let_go(&mut self) {
        (self.before, self.newest, self.taking, self.hole) = (None, None, None, None);
        self.held = None;
        (self.left_out, self.leaving_out) = (0, 0);
    }

    /// The tick being taken is whole.
    pub(super) fn finish(&mut self) {
        if let Some(whole) = self.taking.take() {
            self.before = self.newest.replace(whole);
            self.left_out = self.leaving_out;
        }
    }

    /// The tick a record belongs to, and how long after the one before it, nanoseconds.
    pub(super) fn of_record(&self) -> (BootTime, u64) {
        let tick = self.latest().map_or(BootTime(0), |tick| tick.boot);
        let before = if self.taking.is_some() { self.newest } else { self.before };
        (tick, before.map_or(0, |before| tick.0.saturating_sub(before.boot.0)))
    }

    /// When the newest whole tick was read, in wall time.
    pub(super) fn read_at(&self) -> Option<WallTime> {
        self.newest.map(|tick| tick.wall)
    }

    /// Time between the two newest whole ticks, seconds; `None` where there are not two, and where
    /// they say nothing about `now`.
    pub(super) fn interval_seconds(&self, now: WallTime) -> Option<f64> {
        self.measured(now)?;
        Some(seconds(self.interval()))
    }

    /// The newest whole tick, where there is one before it and it says something about `now`.
    pub(super) fn measured(&self, now: WallTime) -> Option<BootTime> {
        let newest = self.newest?;
        self.before?;
        let patience = self.interval().saturating_mul(SILENT_TICKS).max(SILENT);
        (now.0.abs_diff(newest.wall.0) <= patience).then_some(newest.boot)
    }

    fn interval(&self) -> u64 {
        let before = self.before.map_or(u64::MAX, |before| before.boot.0);
        self.newest.map_or(0, |newest| newest.boot.0.saturating_sub(before))
    }

    fn latest(&self) -> Option<Tick> {
        self.taking.or(self.newest)
    }
}
