//! Delivery: every sealed batch, in order, until it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weir_flow::batch::{Gap, GapReason};
use weir_flow::frame::{Batch, Note};
use weir_flow::ingest::Answer;

use crate::spool::{self, Frames, Undelivered};
use crate::{AgentError, clock, error};

/// The longest wait between two tries, whatever the other side asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The wait before an answer is asked for again because the disk could not follow it.
const PAUSE: Duration = Duration::from_secs(1);
/// While waiting, delivery looks for a stop this often.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// The way to the server half: a function call in one process, a stream between two.
pub trait Deliver: Send {
    /// Hands over a frame and waits for its answer.
    fn deliver(&mut self, frame: &[u8]) -> Answer;
}

/// Takes sealed batches to the server half.
pub trait Carry: Send {
    /// Carries batches until told to stop; then still those that are left, within a limit. What
    /// stays undelivered stays in the spool.
    fn carry(&mut self, frames: &Arc<Frames>, stopping: &AtomicBool) -> Result<(), AgentError>;
}

/// One batch at a time, in order.
impl<D: Deliver> Carry for D {
    fn carry(&mut self, frames: &Arc<Frames>, stopping: &AtomicBool) -> Result<(), AgentError> {
        run(frames, self, stopping)
    }
}

/// Delivers until told to stop; then still empties the spool, as long as answers come.
fn run(
    frames: &Arc<Frames>,
    deliver: &mut dyn Deliver,
    stopping: &AtomicBool,
) -> Result<(), AgentError> {
    loop {
        let Some(next) = frames.next(Duration::from_millis(200)) else {
            if stopping.load(Ordering::Acquire) {
                return Ok(());
            }
            continue;
        };
        let settled = match deliver.deliver(&next.frame) {
            Answer::Committed => frames.answered(next.sequence),
            Answer::Refused { reason } => refuse(frames, &next, &reason),
            Answer::Retry { after, reason } => {
                frames.waiting_because(&reason);
                if stopping.load(Ordering::Acquire) {
                    tracing::warn!(%reason, "stopping with undelivered batches; they stay in the spool");
                    return Ok(());
                }
                pause(after.min(LONGEST_PAUSE), stopping);
                continue;
            }
        };
        if let Err(error) = settled {
            // The answer stands; asked again, it is the same.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                sequence = next.sequence,
                "the spool cannot follow an answer"
            );
            frames.waiting_because(&error::chain(&error));
            if stopping.load(Ordering::Acquire) {
                return Err(error);
            }
            pause(PAUSE, stopping);
        }
    }
}

/// Waits, unless it is time to stop: then only for the one more try that is due.
fn pause(time: Duration, stopping: &AtomicBool) {
    let begun = Instant::now();
    while !stopping.load(Ordering::Acquire) {
        let left = time.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(STOP_CHECK));
    }
}

pub(crate) fn refuse(frames: &Frames, next: &Undelivered, reason: &str) -> Result<(), AgentError> {
    tracing::error!(sequence = next.sequence, reason, "batch refused; kept in quarantine");
    // One damaged since it was written: nobody can say how much it held.
    let gaps = Batch::decode(&next.frame)
        .map_or_else(|_damaged| vec![spool::damaged_at(clock::wall())], |batch| left_by(&batch));
    frames.quarantine(next.sequence, gaps)
}

/// What is missing when a batch is not stored: its records, and what it had to declare itself.
fn left_by(batch: &Batch<'_>) -> Vec<Gap> {
    let dropped = (batch.header.records > 0).then(|| spool::gap_for(batch, GapReason::Refused));
    let told = batch.notes().filter_map(|note| match note {
        // The notice in a dropped batch's place is only refused when that batch is stored.
        Ok(Note::Gap(gap)) if gap.reason != GapReason::SpoolFull => Some(gap),
        _ => None,
    });
    dropped.into_iter().chain(told).collect()
}
