//! Which batch to offer next: live ones first, then the oldest of the backlog.
//!
//! Each lane is offered in order. Live data that overtakes a backlog leaves a hole in what the server
//! has committed; it keeps a limited number of those, so a new one is only begun while there are few.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weir_flow::ingest::Ranges;

use crate::spool::Frames;

/// More ranges than this at the server, and no new hole is begun: it keeps at most 64.
const RANGES_MAX: usize = 32;
/// More live batches than this without an answer are a backlog, too.
const LIVE_MAX: usize = 256;

/// The batches that wait.
pub(super) trait Shelf {
    /// The first without an answer behind `after` that `skip` does not name.
    fn waiting(&self, after: u64, skip: impl Fn(u64) -> bool) -> Option<u64>;

    /// How many behind `after` have no answer.
    fn unanswered_behind(&self, after: u64) -> usize;

    /// The newest.
    fn newest(&self) -> u64;
}

impl Shelf for Frames {
    fn waiting(&self, after: u64, skip: impl Fn(u64) -> bool) -> Option<u64> {
        Self::waiting(self, after, skip)
    }

    fn unanswered_behind(&self, after: u64) -> usize {
        Self::unanswered_behind(self, after)
    }

    fn newest(&self) -> u64 {
        Self::newest(self)
    }
}

/// A lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Live,
    Backlog,
}

/// How much may be unanswered at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) batches: usize,
    pub(super) bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    lane: Lane,
    bytes: usize,
    since: Instant,
}

/// The state of both lanes on one stream.
#[derive(Debug)]
pub(super) struct Lanes {
    window: Window,
    committed: Ranges,
    /// Batches behind this one are live.
    live_after: u64,
    in_flight: BTreeMap<u64, Flight>,
    bytes_in_flight: usize,
    live_waits: Option<Instant>,
    backlog_waits: Option<Instant>,
}

impl Lanes {
    /// Begins with what the server has committed.
    pub(super) fn new(window: Window, committed: Ranges, shelf: &impl Shelf) -> Self {
        let mut lanes = Self {
            window,
            live_after: committed.spans().last().map_or(0, |(_, last)| *last),
            committed,
            in_flight: BTreeMap::new(),
            bytes_in_flight: 0,
            live_waits: None,
            backlog_waits: None,
        };
        lanes.begin_live(shelf);
        lanes
    }

    /// What was live and has piled up becomes backlog.
    pub(super) fn keep_up(&mut self, shelf: &impl Shelf) {
        if shelf.unanswered_behind(self.live_after) > LIVE_MAX {
            self.begin_live(shelf);
        }
    }

    fn begin_live(&mut self, shelf: &impl Shelf) {
        if self.committed.spans().len() < RANGES_MAX {
            self.live_after = self.live_after.max(shelf.newest());
        }
    }

    /// The batch to offer now, if any.
    pub(super) fn next(&self, shelf: &impl Shelf, now: Instant) -> Option<(u64, Lane)> {
        let count = self.in_flight.len();
        let full = count >= self.window.batches || self.bytes_in_flight >= self.window.bytes;
        if full && count > 0 {
            return None;
        }
        let waits = |until: Option<Instant>| until.is_some_and(|until| now < until);
        let flying = |sequence| self.in_flight.contains_key(&sequence);
        if !waits(self.live_waits)
            && let Some(sequence) = shelf.waiting(self.live_after, flying)
        {
            return Some((sequence, Lane::Live));
        }
        // One place is kept for what is sealed next.
        let room = count + 1 < self.window.batches || count == 0;
        if waits(self.backlog_waits) || !room {
            return None;
        }
        let oldest = shelf.waiting(0, flying)?;
        (oldest <= self.live_after).then_some((oldest, Lane::Backlog))
    }

    /// A batch goes out, in this many bytes.
    pub(super) fn sent(&mut self, sequence: u64, lane: Lane, bytes: usize, now: Instant) {
        self.in_flight.insert(sequence, Flight { lane, bytes, since: now });
        self.bytes_in_flight += bytes;
    }

    /// An answer came. False when nobody asked: it is not to be believed.
    pub(super) fn landed(&mut self, sequence: u64) -> Option<Lane> {
        let flight = self.in_flight.remove(&sequence)?;
        self.bytes_in_flight -= flight.bytes;
        Some(flight.lane)
    }

    /// The server has this one now.
    pub(super) fn committed(&mut self, sequence: u64) {
        self.committed.insert(sequence);
    }

    /// A lane waits.
    pub(super) fn pause(&mut self, lane: Lane, until: Instant) {
        match lane {
            Lane::Live => self.live_waits = Some(until),
            Lane::Backlog => self.backlog_waits = Some(until),
        }
    }

    /// True when nothing is in flight.
    pub(super) fn are_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// How long the oldest has been waiting for its answer.
    pub(super) fn oldest(&self, now: Instant) -> Option<Duration> {
        self.in_flight.values().map(|flight| now.saturating_duration_since(flight.since)).max()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    const WINDOW: Window = Window { batches: 4, bytes: 1_000 };

    #[derive(Default)]
    struct Waiting(RefCell<BTreeSet<u64>>);

    impl Waiting {
        fn new(numbers: impl IntoIterator<Item = u64>) -> Self {
            Self(RefCell::new(numbers.into_iter().collect()))
        }

        fn seal(&self, number: u64) {
            self.0.borrow_mut().insert(number);
        }
    }

    impl Shelf for Waiting {
        fn waiting(&self, after: u64, skip: impl Fn(u64) -> bool) -> Option<u64> {
            self.0.borrow().range(after + 1..).copied().find(|number| !skip(*number))
        }

        fn unanswered_behind(&self, after: u64) -> usize {
            self.0.borrow().range(after + 1..).count()
        }

        fn newest(&self) -> u64 {
            self.0.borrow().last().copied().unwrap_or(0)
        }
    }

    fn ranges(spans: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        for (first, last) in spans {
            ranges.push(*first, *last);
        }
        ranges
    }

    fn offer(lanes: &mut Lanes, shelf: &Waiting) -> Option<(u64, Lane)> {
        let now = Instant::now();
        let (sequence, lane) = lanes.next(shelf, now)?;
        lanes.sent(sequence, lane, 10, now);
        Some((sequence, lane))
    }

    fn commit(lanes: &mut Lanes, shelf: &Waiting, sequence: u64) {
        assert!(lanes.landed(sequence).is_some());
        lanes.committed(sequence);
        shelf.0.borrow_mut().remove(&sequence);
    }

    #[test]
    fn live_goes_ahead_and_the_backlog_follows_oldest_first() {
        let shelf = Waiting::new(5..=20);
        let mut lanes = Lanes::new(WINDOW, ranges(&[(1, 4)]), &shelf);
        for expected in 5..=7 {
            assert_eq!(offer(&mut lanes, &shelf), Some((expected, Lane::Backlog)));
        }
        assert_eq!(offer(&mut lanes, &shelf), None, "one place is kept for live data");
        shelf.seal(21);
        assert_eq!(offer(&mut lanes, &shelf), Some((21, Lane::Live)));
        shelf.seal(22);
        assert_eq!(offer(&mut lanes, &shelf), None, "the window is full");
        commit(&mut lanes, &shelf, 21);
        assert_eq!(offer(&mut lanes, &shelf), Some((22, Lane::Live)));
        commit(&mut lanes, &shelf, 5);
        commit(&mut lanes, &shelf, 6);
        assert_eq!(offer(&mut lanes, &shelf), Some((8, Lane::Backlog)));
        assert_eq!(lanes.committed.spans(), [(1, 6), (21, 21)]);
    }

    #[test]
    fn a_lane_that_is_told_to_wait_does_not_hold_up_the_other() {
        let shelf = Waiting::new(1..=3);
        let mut lanes = Lanes::new(WINDOW, Ranges::default(), &shelf);
        shelf.seal(4);
        assert_eq!(offer(&mut lanes, &shelf), Some((4, Lane::Live)));
        let later = Instant::now() + Duration::from_mins(1);
        assert_eq!(lanes.landed(4), Some(Lane::Live));
        lanes.pause(Lane::Live, later);
        assert_eq!(offer(&mut lanes, &shelf), Some((1, Lane::Backlog)));
        assert_eq!(lanes.next(&shelf, later).map(|(sequence, _)| sequence), Some(4));
    }

    #[test]
    fn answers_that_nobody_asked_for_are_not_taken() {
        let shelf = Waiting::new(1..=3);
        let mut lanes = Lanes::new(WINDOW, Ranges::default(), &shelf);
        assert_eq!(lanes.landed(1), None);
        offer(&mut lanes, &shelf).unwrap();
        assert_eq!(lanes.landed(1), Some(Lane::Backlog));
        assert_eq!(lanes.landed(1), None, "and each only once");
    }

    #[test]
    fn no_hole_is_begun_where_the_server_has_many() {
        let many: Vec<(u64, u64)> =
            (0..40).map(|number| (number * 10 + 1, number * 10 + 2)).collect();
        let shelf = Waiting::new(3..=500);
        let mut lanes = Lanes::new(WINDOW, ranges(&many), &shelf);
        // What follows the last range makes it longer and is as good as live.
        assert_eq!(lanes.live_after, 392);
        assert_eq!(offer(&mut lanes, &shelf), Some((393, Lane::Live)));
        lanes.keep_up(&shelf);
        assert_eq!(lanes.live_after, 392);
    }

    #[test]
    fn live_data_that_piles_up_becomes_backlog() {
        let shelf = Waiting::default();
        let mut lanes = Lanes::new(WINDOW, Ranges::default(), &shelf);
        (1..=300).for_each(|number| shelf.seal(number));
        assert_eq!(lanes.next(&shelf, Instant::now()), Some((1, Lane::Live)));
        lanes.keep_up(&shelf);
        shelf.seal(301);
        assert_eq!(offer(&mut lanes, &shelf), Some((301, Lane::Live)));
        assert_eq!(offer(&mut lanes, &shelf), Some((1, Lane::Backlog)));
    }

    #[test]
    fn a_batch_larger_than_the_window_goes_alone() {
        let shelf = Waiting::new(1..=2);
        let window = Window { batches: 1, bytes: 5 };
        let mut lanes = Lanes::new(window, Ranges::default(), &shelf);
        assert_eq!(offer(&mut lanes, &shelf), Some((1, Lane::Backlog)));
        assert_eq!(offer(&mut lanes, &shelf), None);
        commit(&mut lanes, &shelf, 1);
        assert_eq!(offer(&mut lanes, &shelf), Some((2, Lane::Backlog)));
    }
}
