//! The wire to the server: one stream, opened again whenever it ends, and two lanes on it.
//!
//! What is sealed now goes ahead of what has piled up, so that an outage's backlog never delays live
//! data. Everything the other side says is bounded and believed only about batches that are in
//! flight on this stream.

mod backoff;
mod connect;
mod lanes;
mod session;
mod tls;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use weir_flow::{Epoch, WallTime};

use self::backoff::Backoff;
use self::connect::Opened;
pub use self::connect::{ConnectError, Server};
use self::session::{Ended, Session};
pub use self::tls::{TlsError, TlsFiles};
use crate::facts::Facts;
use crate::ship::Carry;
use crate::spool::Frames;
use crate::{AgentError, error};

/// The longest a server may make its agents stay away.
const LONGEST_ABSENCE: Duration = Duration::from_mins(5);
/// While waiting, a stop is looked for this often.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// What is shown of a text from the other side.
const SHOWN_CHARS: usize = 300;

/// How to reach the server.
#[derive(Clone, Debug)]
pub struct WireConfig {
    /// Where it is.
    pub server: Server,
    /// The node's name, as a hint: who speaks is decided by the credentials.
    pub node: String,
    /// How the connection is secured; `None`: not at all.
    pub tls: Option<TlsFiles>,
    /// A file with the token that says who speaks, read anew for every connection.
    pub token: Option<PathBuf>,
    /// How long a connection may take to stand, up to the server's first word.
    pub connect_timeout: Duration,
    /// How long a batch may wait for its answer before the stream is given up.
    pub answer_timeout: Duration,
    /// How long batches are still delivered after a stop.
    pub drain: Duration,
}

/// Who speaks: the spool's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Its epoch.
    pub epoch: Epoch,
    /// When that was made.
    pub epoch_born: WallTime,
    /// The boot the agent runs in.
    pub boot: u128,
}

/// How delivery goes. Counts are since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireStatus {
    /// A stream stands, and the server has said welcome.
    pub connected: bool,
    /// The node as the server knows it.
    pub node: Option<String>,
    /// Why the last stream ended or none could be opened.
    pub last_error: Option<String>,
    /// Streams that stood.
    pub connections: u64,
    /// Attempts that came to nothing, and streams that broke.
    pub failures: u64,
    /// Batches sent.
    pub sent_batches: u64,
    /// Bytes of their frames.
    pub frame_bytes: u64,
    /// The same as they crossed the wire.
    pub wire_bytes: u64,
    /// Batches answered with committed.
    pub committed: u64,
    /// Batches the server had already when a stream began.
    pub settled: u64,
    /// Batches answered with retry.
    pub retried: u64,
    /// Batches answered with refused, or given up because the server takes no batch that large.
    pub refused: u64,
    /// Answers about batches that were not in flight: not believed.
    pub unknown_answers: u64,
    /// Messages of a kind this build does not know.
    pub unknown_messages: u64,
    /// Facts announced.
    pub facts_sent: u64,
}

/// What the agent says of itself, for the server to show.
#[derive(Clone, Debug, Default)]
pub struct StatusBoard(Arc<Mutex<(u64, Vec<u8>)>>);

impl StatusBoard {
    /// Puts up a status, in JSON.
    pub fn put(&self, json: Vec<u8>) {
        let mut board = self.lock();
        board.0 += 1;
        board.1 = json;
    }

    /// The status, if there is another one than `seen`, and its number.
    fn newer_than(&self, seen: u64) -> Option<(u64, Vec<u8>)> {
        let board = self.lock();
        (board.0 > seen).then(|| board.clone())
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Vec<u8>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries batches over the wire.
#[derive(Debug)]
pub struct Wire {
    config: WireConfig,
    speaker: Speaker,
    facts: Facts,
    board: StatusBoard,
    status: Arc<Mutex<WireStatus>>,
    tls: tls::Keeper,
    changed: Arc<Notify>,
    /// What was logged last, so that an outage is one line and not thousands.
    said: Option<String>,
}

impl Wire {
    /// A way to the server, not yet used.
    pub fn new(config: WireConfig, speaker: Speaker, facts: Facts, board: StatusBoard) -> Self {
        let tls = tls::Keeper::new(config.tls.clone());
        let (status, changed, said) = (Arc::default(), Arc::default(), None);
        Self { config, speaker, facts, board, status, tls, changed, said }
    }

    /// How delivery goes, now and later.
    pub fn status(&self) -> WireWatch {
        WireWatch(Arc::clone(&self.status))
    }

    async fn run(&mut self, frames: &Arc<Frames>, stopping: &AtomicBool) -> Result<(), AgentError> {
        let mut backoff = Backoff::new(self.speaker.boot);
        loop {
            // The stop that ends the last attempt is one that was asked for before it.
            let stop_was_due = stopping.load(Ordering::Acquire);
            let begun = Instant::now();
            let ended = self.stream(frames, stopping).await;
            lock(&self.status).connected = false;
            let pause = match ended {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::Goodbye { after, reason }) => {
                    tracing::debug!(reason, "the server ended the stream");
                    backoff.reset();
                    backoff.spread(after.min(LONGEST_ABSENCE))
                }
                Ok(Ended::Broken { reason }) => {
                    // A stream that stood for a while says nothing against the next one.
                    if begun.elapsed() > Duration::from_secs(10) {
                        backoff.reset();
                    }
                    self.failed(frames, &reason);
                    backoff.next()
                }
                Err(error) => {
                    self.failed(frames, &plain(&error::chain(&error)));
                    backoff.next()
                }
            };
            if stop_was_due {
                let undelivered = frames.load().undelivered;
                if undelivered > 0 {
                    tracing::warn!(undelivered, "stopping; these batches stay in the spool");
                }
                return Ok(());
            }
            wait(pause, stopping).await;
        }
    }

    /// One stream, from its first word to its last.
    async fn stream(
        &mut self,
        frames: &Arc<Frames>,
        stopping: &AtomicBool,
    ) -> Result<Ended, ConnectError> {
        let limit = self.config.drain;
        let opened = tokio::select! {
            opened = connect::open(&self.config, self.speaker, &mut self.tls) => opened?,
            // A server that does not answer must not hold up a stop.
            () = stopped_for(limit, stopping) => return Ok(Ended::Stopped),
        };
        let Opened { out, inbound, welcome, welcomed } = opened;
        tracing::info!(
            server = %self.config.server,
            node = plain(&welcome.node),
            protocol = welcome.protocol,
            "connected"
        );
        self.said = None;
        {
            let mut status = lock(&self.status);
            status.connected = true;
            status.connections += 1;
            status.last_error = None;
            status.node = Some(plain(&welcome.node));
        }
        let session = Session::new(self, frames, out, &welcome, welcomed);
        Ok(session.run(inbound, stopping).await)
    }

    fn failed(&mut self, frames: &Frames, reason: &str) {
        {
            let mut status = lock(&self.status);
            status.failures += 1;
            status.last_error = Some(reason.to_owned());
        }
        frames.waiting_because(reason);
        if self.said.as_deref() == Some(reason) {
            tracing::debug!(reason, "still no way to the server");
        } else {
            tracing::warn!(
                server = %self.config.server,
                reason,
                "no way to the server; batches wait in the spool"
            );
            self.said = Some(reason.to_owned());
        }
    }
}

impl Carry for Wire {
    fn carry(&mut self, frames: &Arc<Frames>, stopping: &AtomicBool) -> Result<(), AgentError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|_refused| AgentError::Thread { thread: "wire" })?;
        let bell = Arc::clone(&self.changed);
        frames.on_change(move || bell.notify_one());
        let bell = Arc::clone(&self.changed);
        self.facts.on_change(move || bell.notify_one());
        runtime.block_on(self.run(frames, stopping))
    }
}

/// Looks at how delivery goes.
#[derive(Clone, Debug)]
pub struct WireWatch(Arc<Mutex<WireStatus>>);

impl WireWatch {
    /// As it is now.
    pub fn get(&self) -> WireStatus {
        lock(&self.0).clone()
    }
}

fn lock(status: &Mutex<WireStatus>) -> MutexGuard<'_, WireStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn wait(time: Duration, stopping: &AtomicBool) {
    let begun = Instant::now();
    while !stopping.load(Ordering::Acquire) {
        let left = time.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(STOP_CHECK)).await;
    }
}

/// Ends when a stop was asked for this long ago.
async fn stopped_for(time: Duration, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Acquire) {
        tokio::time::sleep(STOP_CHECK).await;
    }
    tokio::time::sleep(time).await;
}

/// A text from the other side as it may be shown: short, and without anything that steers a
/// terminal or hides in a line.
fn plain(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown: String =
        text.chars().take(SHOWN_CHARS).map(|c| if steers(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_steers_no_terminal() {
        assert_eq!(plain("no\u{1b}[2J\r\n\u{202e}"), "no\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(plain(&"a".repeat(400)).chars().count(), SHOWN_CHARS + 1);
    }
}
