//! The opening side.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::plan::{SourcePlan, SourceReport};
use super::{icmp, tcp, udp};
use crate::error::{LabError, io_error};
use crate::scenario::TrafficProtocol;

/// Reasons kept of failures.
const ERRORS_LIMIT: usize = 5;
/// A generator's threads only hold buffers of their own.
const STACK_BYTES: usize = 128 * 1_024;

/// What the connections of a source did together.
#[derive(Default)]
pub(super) struct Tally {
    attempted: AtomicU64,
    failed: AtomicU64,
    pub(super) established: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    errors: Mutex<Vec<String>>,
}

impl Tally {
    pub(super) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    fn fail(&self, error: &io::Error) {
        Self::add(&self.failed, 1);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let text = error.to_string();
        if errors.len() < ERRORS_LIMIT && !errors.contains(&text) {
            errors.push(text);
        }
    }
}

/// Opens the connections of a plan and reports.
pub fn run(plan: &SourcePlan) -> Result<SourceReport, LabError> {
    let tally = Tally::default();
    let next = AtomicU32::new(0);
    let begin = Instant::now();
    let workers = plan.concurrency.min(plan.connections);
    thread::scope(|scope| {
        for _ in 0..workers {
            thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || work(plan, &tally, &next, begin))
                .map_err(io_error("start", "a generator's thread"))?;
        }
        Ok(())
    })?;
    Ok(SourceReport {
        protocol: plan.protocol,
        source: plan.source,
        target: plan.target,
        attempted: tally.attempted.into_inner(),
        established: tally.established.into_inner(),
        failed: tally.failed.into_inner(),
        payload_sent: tally.sent.into_inner(),
        payload_received: tally.received.into_inner(),
        errors: tally.errors.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
}

/// Takes connections in their order until none is left or the time is over.
fn work(plan: &SourcePlan, tally: &Tally, next: &AtomicU32, begin: Instant) {
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= plan.connections {
            return;
        }
        let connection = plan.connection(index);
        thread::sleep(connection.start.saturating_sub(begin.elapsed()));
        if begin.elapsed() > plan.deadline() {
            return;
        }
        Tally::add(&tally.attempted, 1);
        let done = match plan.protocol {
            TrafficProtocol::Tcp => tcp::connect(plan, &connection, tally),
            TrafficProtocol::Udp => udp::connect(plan, &connection, tally),
            TrafficProtocol::Icmp => icmp::connect(plan, &connection, tally),
        };
        if let Err(error) = done {
            tally.fail(&error);
        }
    }
}
