//! Lines that somebody else can cause, and so must not fill the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::door::locked;

/// Lines at once.
const BURST: u32 = 20;
/// One more after each of these.
const REFILL: Duration = Duration::from_secs(1);

/// Lets a few lines through, and then few.
#[derive(Debug)]
pub(super) struct Seldom(Mutex<State>);

#[derive(Debug)]
struct State {
    left: u32,
    refilled: Instant,
    hidden: u64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self(Mutex::new(State { left: BURST, refilled: Instant::now(), hidden: 0 }))
    }
}

impl Seldom {
    /// How many lines were hidden since the last one, where this one may be said.
    pub(super) fn may_say(&self) -> Option<u64> {
        let mut state = locked(&self.0);
        let passed = state.refilled.elapsed().as_millis() / REFILL.as_millis();
        if passed > 0 {
            let more = u32::try_from(passed).unwrap_or(u32::MAX);
            state.left = state.left.saturating_add(more).min(BURST);
            state.refilled = Instant::now();
        }
        if state.left == 0 {
            state.hidden += 1;
            return None;
        }
        state.left -= 1;
        Some(std::mem::take(&mut state.hidden))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_said_and_the_rest_counted() {
        let seldom = Seldom::default();
        let said = (0..1_000).filter(|_| seldom.may_say().is_some()).count();
        assert!((20..40).contains(&said), "{said}");
        assert!(locked(&seldom.0).hidden >= 900);
    }
}
