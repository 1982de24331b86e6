//! How often to read the kernel: as often as asked, unless that costs more than its budget.

use std::time::Duration;

/// The longest interval a budget can lead to: beyond it, live data is not live.
const LONGEST: Duration = Duration::from_secs(30);

/// Chooses the time between two dumps.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    shortest: Duration,
    budget: f64,
    /// CPU time of a dump, smoothed, seconds.
    cost: f64,
}

impl Pace {
    /// Reads every `shortest`, or less often when a dump takes more than `budget` (a share of one
    /// core, 0.01 = 1 %) of that.
    pub fn new(shortest: Duration, budget: f64) -> Self {
        Self { shortest, budget, cost: 0.0 }
    }

    /// Notes what a tick cost.
    pub fn spent(&mut self, cpu: Duration) {
        let cpu = cpu.as_secs_f64();
        // Follows a growing table at once and a shrinking one slowly.
        self.cost = if cpu > self.cost { cpu } else { self.cost * 0.7 + cpu * 0.3 };
    }

    /// The time from the beginning of one dump to the next.
    pub fn interval(&self) -> Duration {
        let affordable = Duration::try_from_secs_f64(self.cost / self.budget).unwrap_or(LONGEST);
        affordable.min(LONGEST).max(self.shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_stretches_the_interval_up_to_a_limit() {
        let mut pace = Pace::new(Duration::from_secs(5), 0.01);
        assert_eq!(pace.interval(), Duration::from_secs(5));
        pace.spent(Duration::from_millis(20));
        assert_eq!(pace.interval(), Duration::from_secs(5), "2 s would do");
        pace.spent(Duration::from_millis(120));
        assert_eq!(pace.interval(), Duration::from_secs(12));
        pace.spent(Duration::from_secs(9));
        assert_eq!(pace.interval(), LONGEST);
        for _ in 0..30 {
            pace.spent(Duration::from_millis(1));
        }
        assert_eq!(pace.interval(), Duration::from_secs(5));
    }

    #[test]
    fn an_interval_asked_for_is_kept_even_if_long() {
        assert_eq!(Pace::new(Duration::from_mins(5), 0.01).interval(), Duration::from_mins(5));
    }
}
