//! One stream at work.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tonic::Streaming;
use weir_flow::frame::Batch;
use weir_flow::ingest::Ranges;
use weir_flow::seal::SealLimits;
use weir_proto::pb::{self, FromAgent, FromServer, Welcome, answer, from_agent, from_server};
use weir_proto::{Fact, Packer};

use super::lanes::{Lane, Lanes, Window};
use super::{Wire, WireStatus, lock, plain};
use crate::facts::News;
use crate::ship;
use crate::spool::{Frames, Undelivered};
use crate::{AgentError, clock, error};

/// Deadlines, news and a stop are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time between two pings.
const PING_EVERY: Duration = Duration::from_secs(5);
/// What may be unanswered at a time where the server does not say.
const WINDOW: Window = Window { batches: 8, bytes: 8 << 20 };
/// The longest wait before a batch is offered again, whatever the server asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The wait before something is tried again that failed on this side.
const PAUSE: Duration = Duration::from_secs(1);
/// After Goodbye, answers that are still out have this long to come.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Frames are sealed this far below what the server takes: one more record may be added.
const SEAL_MARGIN_BYTES: usize = 64 << 10;

/// How a stream ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// A stop was asked for, and everything was delivered or the time for it is over.
    Stopped,
    /// The server said so.
    Goodbye {
        /// When to come back.
        after: Duration,
        /// Why.
        reason: String,
    },
    /// By itself.
    Broken {
        /// Why.
        reason: String,
    },
}

/// A stream, and what is on its way on it.
pub(super) struct Session<'a> {
    wire: &'a mut Wire,
    frames: Arc<Frames>,
    out: mpsc::Sender<FromAgent>,
    lanes: Lanes,
    packer: Option<Packer>,
    /// Small messages that go ahead of batches.
    outbox: VecDeque<from_agent::Message>,
    limits: SealLimits,
    /// The server's clock as it said it last, and when.
    heard: (u64, Instant),
    pinged: Option<Instant>,
    /// Facts up to here were told; `None`: nothing was.
    told: Option<u64>,
    status_sent: u64,
    goodbye: Option<(Instant, Duration, String)>,
    drain_until: Option<Instant>,
}

impl<'a> Session<'a> {
    /// Settles what the server has already, and is ready to go on with the rest.
    pub(super) fn new(
        wire: &'a mut Wire,
        frames: &Arc<Frames>,
        out: mpsc::Sender<FromAgent>,
        welcome: &Welcome,
        welcomed: Instant,
    ) -> Self {
        let committed = ranges(&welcome.committed);
        match frames.settle(&committed) {
            Ok(settled) => lock(&wire.status).settled += settled,
            Err(error) => log_settling(&error),
        }
        let limits = limits(welcome);
        frames.announce(below(limits));
        let lanes = Lanes::new(window(welcome), committed, frames.as_ref());
        Self {
            wire,
            frames: Arc::clone(frames),
            out,
            lanes,
            packer: None,
            outbox: VecDeque::new(),
            limits,
            heard: (welcome.now_nanos, welcomed),
            pinged: None,
            told: None,
            status_sent: 0,
            goodbye: None,
            drain_until: None,
        }
    }

    /// Sends and listens until the stream ends.
    pub(super) async fn run(
        mut self,
        mut inbound: Streaming<FromServer>,
        stopping: &AtomicBool,
    ) -> Ended {
        let mut ticker = tokio::time::interval(LOOK_EVERY);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let changed: Arc<Notify> = Arc::clone(&self.wire.changed);
        let out = self.out.clone();
        let mut pending = None;
        loop {
            if pending.is_none() {
                pending = self.prepare();
            }
            tokio::select! {
                biased;
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.hear(message),
                    Ok(None) => return self.closed("the server ended the stream"),
                    Err(status) => return self.closed(&told_by(&status)),
                },
                permit = out.reserve(), if pending.is_some() => match permit {
                    Ok(permit) => {
                        let message = pending.take();
                        permit.send(FromAgent { message });
                    }
                    // The reason is on its way on the other side.
                    Err(_closed) => pending = None,
                },
                () = changed.notified() => {}
                _ = ticker.tick() => {
                    if let Some(ended) = self.look(stopping) {
                        return ended;
                    }
                }
            }
        }
    }

    /// The next message to send: facts before the batches that may need them.
    fn prepare(&mut self) -> Option<from_agent::Message> {
        if self.out.is_closed() {
            return None;
        }
        if self.outbox.is_empty() {
            self.announce();
        }
        if let Some(message) = self.outbox.pop_front() {
            return Some(message);
        }
        if self.goodbye.is_some() {
            return None;
        }
        self.next_batch().map(from_agent::Message::Batch)
    }

    fn announce(&mut self) {
        let news = match self.told {
            None => Some(self.wire.facts.all()),
            Some(cursor) => self.wire.facts.since(cursor),
        };
        let Some(News { complete, facts, cursor }) = news else { return };
        self.told = Some(cursor);
        self.count(|status| status.facts_sent += number(facts.len()));
        self.outbox.extend(Fact::messages(&facts, complete).map(from_agent::Message::Facts));
    }

    fn next_batch(&mut self) -> Option<pb::Batch> {
        loop {
            let now = Instant::now();
            let (sequence, lane) = self.lanes.next(self.frames.as_ref(), now)?;
            // Gone or unreadable: declared by now, and the next one is looked for.
            let Some(next) = self.frames.read(sequence) else { continue };
            if !self.is_fit(&next, lane) {
                continue;
            }
            match self.pack(&next) {
                Ok(batch) => {
                    self.lanes.sent(sequence, lane, batch.frame.len(), now);
                    let wire_bytes = number(batch.frame.len());
                    self.count(|status| {
                        status.sent_batches += 1;
                        status.frame_bytes += number(next.frame.len());
                        status.wire_bytes += wire_bytes;
                    });
                    return Some(batch);
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        sequence,
                        "a batch cannot be packed"
                    );
                    self.lanes.pause(lane, now + LONGEST_PAUSE);
                }
            }
        }
    }

    /// False for a batch that the server will never take: it was put aside, or its lane waits.
    fn is_fit(&mut self, next: &Undelivered, lane: Lane) -> bool {
        let sequence = next.sequence;
        let settled = match Batch::decode(&next.frame) {
            // One without records is as small as it can be made.
            Ok(batch)
                if batch.header.records == 0
                    || (next.frame.len() <= self.limits.bytes
                        && batch.header.records <= self.limits.records) =>
            {
                return true;
            }
            Ok(batch) => {
                tracing::error!(
                    sequence,
                    bytes = next.frame.len(),
                    records = batch.header.records,
                    "the server takes no batch that large; it is declared as a gap"
                );
                self.frames.give_up(sequence)
            }
            Err(error) => ship::refuse(&self.frames, next, &error.to_string()).map(|()| true),
        };
        self.count(|status| status.refused += u64::from(matches!(settled, Ok(true))));
        if !matches!(settled, Ok(true)) {
            if let Err(error) = settled {
                log_settling(&error);
            }
            self.lanes.pause(lane, Instant::now() + PAUSE);
        }
        false
    }

    fn pack(&mut self, next: &Undelivered) -> Result<pb::Batch, weir_proto::PackError> {
        let packer = match &mut self.packer {
            Some(packer) => packer,
            empty => empty.insert(Packer::new()?),
        };
        packer.pack(next.sequence, &next.frame)
    }

    fn hear(&mut self, message: FromServer) {
        match message.message {
            Some(from_server::Message::Answer(answer)) => self.answered(answer),
            Some(from_server::Message::Pong(pong)) => {
                self.heard = (pong.now_nanos, Instant::now());
            }
            Some(from_server::Message::Goodbye(goodbye)) => {
                let after = Duration::from_millis(goodbye.after_millis.into());
                self.goodbye = Some((Instant::now(), after, plain(&goodbye.reason)));
            }
            Some(from_server::Message::Welcome(_)) | None => {
                self.count(|status| status.unknown_messages += 1);
            }
        }
    }

    fn answered(&mut self, answer: pb::Answer) {
        let sequence = answer.sequence;
        let Some(lane) = self.lanes.landed(sequence) else {
            tracing::warn!(sequence, "the server answered what was not asked; not believed");
            return self.count(|status| status.unknown_answers += 1);
        };
        let settled = match answer.outcome {
            Some(answer::Outcome::Committed(_)) => {
                self.lanes.committed(sequence);
                self.count(|status| status.committed += 1);
                self.frames.answered(sequence)
            }
            Some(answer::Outcome::Refused(refused)) => {
                self.count(|status| status.refused += 1);
                let reason = plain(&refused.reason);
                self.frames
                    .read(sequence)
                    .map_or(Ok(()), |next| ship::refuse(&self.frames, &next, &reason))
            }
            Some(answer::Outcome::Retry(retry)) => {
                self.count(|status| status.retried += 1);
                self.frames.waiting_because(&plain(&retry.reason));
                let after = Duration::from_millis(u64::from(retry.after_millis).max(10));
                self.lanes.pause(lane, Instant::now() + after.min(LONGEST_PAUSE));
                Ok(())
            }
            None => {
                self.count(|status| status.unknown_messages += 1);
                self.lanes.pause(lane, Instant::now() + PAUSE);
                Ok(())
            }
        };
        if let Err(error) = settled {
            // The answer stands; asked again, it is the same.
            log_settling(&error);
            self.frames.waiting_because(&error::chain(&error));
            self.lanes.pause(lane, Instant::now() + PAUSE);
        }
    }

    /// Deadlines, news and a stop.
    fn look(&mut self, stopping: &AtomicBool) -> Option<Ended> {
        let now = Instant::now();
        let limit = self.wire.config.answer_timeout;
        if self.lanes.oldest(now).is_some_and(|waited| waited > limit) {
            let reason = format!("no answer for {} s", limit.as_secs());
            return Some(Ended::Broken { reason });
        }
        if let Some((said, after, reason)) = &self.goodbye
            && (self.lanes.are_quiet() || said.elapsed() > LAST_ANSWERS)
        {
            return Some(Ended::Goodbye { after: *after, reason: reason.clone() });
        }
        if stopping.load(Ordering::Acquire) && self.is_drained(now) {
            return Some(Ended::Stopped);
        }
        self.lanes.keep_up(self.frames.as_ref());
        self.speak(now);
        None
    }

    /// Puts a ping and a status into the outbox, where they are due.
    fn speak(&mut self, now: Instant) {
        // A stream that takes nothing now is not given more.
        if !self.outbox.is_empty() {
            return;
        }
        if self.pinged.is_none_or(|at| now.saturating_duration_since(at) >= PING_EVERY) {
            self.pinged = Some(now);
            let (heard_nanos, at) = self.heard;
            let held = u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.outbox.push_back(from_agent::Message::Ping(pb::Ping {
                now_nanos: clock::wall().0,
                heard_nanos,
                held_nanos: held,
            }));
        }
        if let Some((version, json)) = self.wire.board.newer_than(self.status_sent) {
            self.status_sent = version;
            self.outbox.push_back(from_agent::Message::Status(pb::Status { json }));
        }
    }

    /// True when everything is delivered, or the time for it is over.
    fn is_drained(&mut self, now: Instant) -> bool {
        let until = *self.drain_until.get_or_insert(now + self.wire.config.drain);
        let left = self.frames.unanswered_behind(0);
        if left > 0 && now >= until {
            tracing::warn!(undelivered = left, "stopping; these batches stay in the spool");
        }
        left == 0 || now >= until
    }

    fn closed(self, why: &str) -> Ended {
        match self.goodbye {
            Some((_, after, reason)) => Ended::Goodbye { after, reason },
            None => Ended::Broken { reason: why.to_owned() },
        }
    }

    fn count(&self, change: impl FnOnce(&mut WireStatus)) {
        change(&mut lock(&self.wire.status));
    }
}

fn log_settling(error: &AgentError) {
    tracing::error!(error = error as &dyn std::error::Error, "the spool cannot follow an answer");
}

/// What ended a stream, as it may be shown.
fn told_by(status: &tonic::Status) -> String {
    let cause = std::error::Error::source(status).map(error::chain);
    let text = cause.unwrap_or_else(|| status.message().to_owned());
    format!("the stream broke: {} ({:?})", plain(&text), status.code())
}

/// What the server says it has, as far as it makes sense.
fn ranges(said: &[pb::Range]) -> Ranges {
    let mut ranges = Ranges::default();
    let mut last = 0;
    for range in said {
        // Disjoint and ascending, with a hole between; what is not is passed over.
        let follows = last == 0 || range.first > last + 1;
        if range.first > 0 && range.first <= range.last && range.last < u64::MAX && follows {
            ranges.push(range.first, range.last);
            last = range.last;
        }
    }
    ranges
}

fn window(welcome: &Welcome) -> Window {
    let or = |said: u32, default: usize| match usize::try_from(said) {
        Ok(said) if said > 0 => said.min(default),
        _ => default,
    };
    Window {
        batches: or(welcome.max_unanswered_batches, WINDOW.batches),
        bytes: or(welcome.max_unanswered_bytes, WINDOW.bytes),
    }
}

fn limits(welcome: &Welcome) -> SealLimits {
    let bytes = match usize::try_from(welcome.max_frame_bytes) {
        Ok(said) if said > 0 => said,
        _ => usize::MAX,
    };
    let records = if welcome.max_records > 0 { welcome.max_records } else { u32::MAX };
    SealLimits { records, bytes }
}

/// Where to seal so that what is sealed is taken.
fn below(limits: SealLimits) -> SealLimits {
    let bytes = limits.bytes.saturating_sub(SEAL_MARGIN_BYTES).max(limits.bytes / 2);
    SealLimits { bytes, ..limits }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_make_no_sense_are_passed_over() {
        let range = |first, last| pb::Range { first, last };
        let said =
            [range(0, 3), range(1, 4), range(3, 9), range(7, 6), range(8, 9), range(9, u64::MAX)];
        assert_eq!(ranges(&said).spans(), [(1, 4), (8, 9)]);
    }

    #[test]
    fn what_the_server_takes_holds_and_silence_means_our_own_limits() {
        let silent = Welcome::default();
        assert_eq!(window(&silent), WINDOW);
        assert_eq!(limits(&silent), SealLimits { records: u32::MAX, bytes: usize::MAX });
        let narrow = Welcome {
            max_frame_bytes: 100_000,
            max_records: 50,
            max_unanswered_bytes: 7,
            max_unanswered_batches: 2,
            ..silent
        };
        assert_eq!(window(&narrow), Window { batches: 2, bytes: 7 });
        assert_eq!(limits(&narrow), SealLimits { records: 50, bytes: 100_000 });
    }
}
