//! How long to wait before the next attempt: longer each time, and never all agents at once.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles up to a limit; each wait is drawn from its upper half.
#[derive(Debug)]
pub(super) struct Backoff {
    seed: u64,
    draws: u64,
    limit: Duration,
}

impl Backoff {
    /// `seed` differs from node to node.
    pub(super) fn new(seed: u128) -> Self {
        let seed = xxh3_64_with_seed(&seed.to_le_bytes(), 0);
        Self { seed, draws: 0, limit: SHORTEST }
    }

    /// Something went well: begins with the shortest wait again.
    pub(super) fn reset(&mut self) {
        self.limit = SHORTEST;
    }

    /// The wait after a failure.
    pub(super) fn next(&mut self) -> Duration {
        let limit = self.limit;
        self.limit = (limit * 2).min(LONGEST);
        self.spread(limit)
    }

    /// A time between half of this one and all of it.
    pub(super) fn spread(&mut self, time: Duration) -> Duration {
        self.draws += 1;
        let draw = xxh3_64_with_seed(&self.draws.to_le_bytes(), self.seed) % 1_024;
        time / 2 + time / 2 * u32::try_from(draw).unwrap_or(0) / 1_024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_begin_again_after_success() {
        let mut backoff = Backoff::new(7);
        let waits: Vec<Duration> = (0..10).map(|_| backoff.next()).collect();
        let mut limit = SHORTEST;
        for wait in &waits {
            assert!(*wait >= limit / 2 && *wait <= limit, "{wait:?} of {limit:?}");
            limit = (limit * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.next() <= SHORTEST);
        assert_ne!(Backoff::new(1).next(), Backoff::new(2).next(), "not all at once");
    }
}
