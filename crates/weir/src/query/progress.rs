//! How far a long answer is, for somebody who waits while it goes into a file or another program.

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::Range;
use std::time::{Duration, Instant};

/// What ends sooner needs no word.
const QUIET: Duration = Duration::from_millis(500);
/// Between two drawings.
const REDRAW: Duration = Duration::from_millis(200);
/// Cells of the bar.
const WIDTH: usize = 24;

/// A line on stderr that is drawn again and again.
pub(super) struct Progress {
    range: Range<u64>,
    begun: Instant,
    drawn: Option<Instant>,
    /// Somebody sees it, and it does not stand among the rows.
    is_shown: bool,
    rows: u64,
}

impl Progress {
    /// For an answer over this range, seconds since 1970.
    pub(super) fn new(range: Range<u64>) -> Self {
        let is_shown = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self { range, begun: Instant::now(), drawn: None, is_shown, rows: 0 }
    }

    /// So many rows came, up to this time.
    pub(super) fn advance(&mut self, rows: usize, at: u64) {
        self.rows += u64::try_from(rows).unwrap_or(0);
        let waited = self.drawn.map_or(QUIET, |_| REDRAW);
        if !self.is_shown || self.drawn.unwrap_or(self.begun).elapsed() < waited {
            return;
        }
        self.drawn = Some(Instant::now());
        // With stderr closed there is nobody to tell.
        drop(write!(io::stderr(), "\r{}\x1b[K", self.line(at, self.begun.elapsed())));
    }

    fn line(&self, at: u64, elapsed: Duration) -> String {
        let Range { start, end } = self.range;
        let whole = end.saturating_sub(start).max(1);
        let done = at.saturating_sub(start).min(whole);
        let share = |of: u64| u128::from(of) * u128::from(done) / u128::from(whole);
        let filled = usize::try_from(share(WIDTH as u64)).unwrap_or(WIDTH);
        let rate = u128::from(self.rows) * 1_000 / elapsed.as_millis().max(1);
        format!(
            "[{}{}] {:>3} %  {} rows  {rate} rows/s",
            "#".repeat(filled),
            ".".repeat(WIDTH - filled),
            share(100),
            self.rows
        )
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_share_rows_and_speed() {
        let mut progress = Progress::new(1_000..2_000);
        progress.rows = 500;
        let line = |at| progress.line(at, Duration::from_secs(2));
        assert_eq!(line(1_000), "[........................]   0 %  500 rows  250 rows/s");
        assert_eq!(line(1_500), "[############............]  50 %  500 rows  250 rows/s");
        for beyond in [2_000, u64::MAX] {
            assert_eq!(line(beyond), "[########################] 100 %  500 rows  250 rows/s");
        }
        assert!(Progress::new(5..5).line(5, Duration::ZERO).contains("  0 %"));
    }
}
