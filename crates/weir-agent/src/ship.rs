//! Delivery: every sealed batch, in order, until it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use weir_flow::batch::{Gap, GapReason};
use weir_flow::frame::Batch;
use weir_flow::ingest::Answer;

use crate::AgentError;
use crate::spool::{Frames, Undelivered};

/// The way to the server half: a function call in one process, a stream between two.
pub trait Deliver: Send {
    /// Hands over a frame and waits for its answer.
    fn deliver(&mut self, frame: &[u8]) -> Answer;
}

/// Delivers until told to stop; then still empties the spool, as long as answers come.
pub(crate) fn run(
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
        match deliver.deliver(&next.frame) {
            Answer::Committed => frames.answered(next.sequence)?,
            Answer::Refused { reason } => refuse(frames, &next, &reason)?,
            Answer::Retry { after, reason } => {
                frames.waiting_because(&reason);
                if stopping.load(Ordering::Acquire) {
                    tracing::warn!(%reason, "stopping with undelivered batches; they stay in the spool");
                    return Ok(());
                }
                thread::sleep(after.min(Duration::from_secs(30)));
            }
        }
    }
}

fn refuse(frames: &Frames, next: &Undelivered, reason: &str) -> Result<(), AgentError> {
    tracing::error!(sequence = next.sequence, reason, "batch refused; kept in quarantine");
    let gap = Batch::decode(&next.frame).ok().map(|batch| {
        let seconds = batch.header.hour * 3_600;
        let records = batch.records().filter_map(Result::ok);
        Gap {
            reason: GapReason::Refused,
            from_seconds: seconds,
            to_seconds: seconds + 3_600,
            records: batch.header.records.into(),
            bytes: records.map(|record| record.delta().bytes()).sum(),
            ..Gap::default()
        }
    });
    frames.quarantine(next.sequence, gap)
}
