//! One try at a time while the store does not take what it is given.
//!
//! Every agent brings its batches again and again. While the store fails they are told to wait
//! without a try, longer each time and each for another time; one batch at a time is let through to
//! see whether the store is back.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weir_flow::ingest::Answer;

/// The wait after the first failure; doubled after each further one.
const SHORTEST: Duration = Duration::from_secs(2);
/// The longest wait. No agent waits longer, whatever it is told.
const LONGEST: Duration = Duration::from_secs(30);
/// Whoever meets a try that is on its way waits at least this long.
const SOON: Duration = Duration::from_secs(1);

/// Whether batches are tried now.
#[derive(Clone, Debug, Default)]
pub(super) struct Outage(Arc<Mutex<State>>);

/// Held by a batch that was let through until it is answered.
#[derive(Debug)]
pub(super) struct Pass {
    outage: Outage,
    /// Failures before it was let through.
    failures: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Failures so far, over all outages.
    failures: u64,
    /// Batches told to come again without a try.
    told: u64,
    /// `None` while the store takes what it is given.
    now: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    reason: String,
    wait: Duration,
    /// When the next try is due.
    due: Instant,
    /// A try is on its way.
    is_trying: bool,
}

impl Outage {
    /// Lets a batch through, or tells it to come again.
    pub(super) fn pass(&self, now: Instant) -> Result<Pass, Answer> {
        let mut state = self.state();
        if let Some(waiting) = &mut state.now {
            if waiting.is_trying || now < waiting.due {
                let answer = waiting.answer(now);
                state.told += 1;
                return Err(answer);
            }
            waiting.is_trying = true;
        }
        Ok(Pass { outage: self.clone(), failures: state.failures })
    }

    /// The store did not take what it was given; when to bring it again.
    pub(super) fn failed(&self, reason: &str, now: Instant) {
        let mut state = self.state();
        state.failures += 1;
        let wait = match &state.now {
            Some(waiting) => (waiting.wait * 2).min(LONGEST),
            None => SHORTEST,
        };
        let reason = reason.to_owned();
        state.now = Some(Waiting { reason, wait, due: now + wait, is_trying: false });
    }

    /// It did.
    pub(super) fn ended(&self) {
        self.state().now = None;
    }

    /// True while the store fails.
    pub(super) fn lasts(&self) -> bool {
        self.state().now.is_some()
    }

    /// What to say while it fails; `None` where it does not.
    pub(super) fn answer(&self, now: Instant) -> Option<Answer> {
        self.state().now.as_ref().map(|waiting| waiting.answer(now))
    }

    /// Batches told to come again without a try.
    pub(super) fn told(&self) -> u64 {
        self.state().told
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// What to say to a batch that was let through before the store failed.
    pub(super) fn overtaken(&self, now: Instant) -> Option<Answer> {
        let mut state = self.outage.state();
        let waiting = state.now.as_ref().filter(|_| self.failures < state.failures)?;
        let answer = waiting.answer(now);
        state.told += 1;
        Some(answer)
    }
}

impl Drop for Pass {
    /// Where it was the one to try and neither failed nor not, the next one tries.
    fn drop(&mut self) {
        let mut state = self.outage.state();
        if state.failures == self.failures
            && let Some(waiting) = &mut state.now
        {
            waiting.is_trying = false;
        }
    }
}

impl Waiting {
    /// Each is told another time, between the one that is due and half as long again.
    fn answer(&self, now: Instant) -> Answer {
        let left = self.due.saturating_duration_since(now).max(SOON);
        // The seeds of hash maps are random, which is random enough for this.
        let random = u32::try_from(RandomState::new().hash_one(0_u8) % 1_024).unwrap_or_default();
        let after = (left + left.max(SHORTEST) / 2 / 1_024 * random).min(LONGEST);
        Answer::Retry { after, reason: self.reason.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(answer: Answer) -> Duration {
        let Answer::Retry { after, reason } = answer else { panic!("{answer:?}") };
        assert_eq!(reason, "away");
        after
    }

    #[test]
    fn everybody_passes_while_all_is_well() {
        let (outage, now) = (Outage::default(), Instant::now());
        let passes: Vec<Pass> = (0..3).map(|_| outage.pass(now).unwrap()).collect();
        outage.ended();
        drop(passes);
        assert!(outage.pass(now).is_ok() && !outage.lasts());
    }

    #[test]
    fn one_at_a_time_is_let_through_while_it_lasts() {
        let (outage, now) = (Outage::default(), Instant::now());
        outage.failed("away", now);
        assert!(after(outage.pass(now).unwrap_err()) >= SHORTEST);
        let due = now + SHORTEST;
        let first = outage.pass(due).unwrap();
        assert!(outage.pass(due).is_err(), "the next waits for it");
        drop(first);
        let second = outage.pass(due).expect("the first one told nothing");
        outage.failed("away", due);
        drop(second);
        assert!(outage.pass(due + SHORTEST).is_err());
        let third = outage.pass(due + SHORTEST * 2).unwrap();
        outage.ended();
        drop(third);
        assert!(outage.pass(due).is_ok() && outage.pass(due).is_ok());
    }

    #[test]
    fn waits_grow_to_a_limit_and_begin_anew() {
        let (outage, mut now) = (Outage::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..6 {
            outage.failed("away", now);
            let wait = outage.state().now.as_ref().unwrap().due - now;
            let told = after(outage.pass(now).unwrap_err());
            assert!(told >= wait && told <= LONGEST, "{told:?} for {wait:?}");
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
        outage.ended();
        outage.failed("away", now);
        assert!(outage.pass(now + SHORTEST).is_ok());
    }

    #[test]
    fn who_was_let_through_before_it_began_is_not_tried() {
        let (outage, now) = (Outage::default(), Instant::now());
        let before = outage.pass(now).unwrap();
        assert_eq!(before.overtaken(now), None);
        outage.failed("away", now);
        assert!(before.overtaken(now).is_some());
        let one = outage.pass(now + SHORTEST).unwrap();
        assert_eq!(one.overtaken(now + SHORTEST), None, "this one is the try");
        outage.ended();
        assert_eq!(before.overtaken(now), None, "it is over");
    }
}
