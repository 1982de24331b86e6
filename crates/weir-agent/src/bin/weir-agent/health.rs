//! How the agent is, and the door where it says so: `/metrics`, `/live`, `/ready`.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use weir_agent::AgentStatus;
use weir_agent::facts::Facts;
use weir_agent::wire::WireWatch;

use crate::metrics;

/// Whoever is silent longer than this is let go.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;
/// A reader that has not ticked for this long, and for several intervals, is stuck.
const STUCK: Duration = Duration::from_mins(1);

/// What the agent is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Opening what it needs.
    #[default]
    Starting,
    /// Another agent holds the spool.
    Waiting,
    /// Reading the kernel.
    Reading,
    /// Told to stop: delivering what is left.
    Stopping,
}

/// Whether the kernel counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Accounting {
    /// Nobody knows yet, or nobody looks.
    #[default]
    Unknown,
    /// Bytes were counted.
    Works,
    /// It does not; why, and what helps.
    Off(String),
}

/// What is known of the agent.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) ticked: Option<Instant>,
    pub(crate) status: AgentStatus,
    pub(crate) accounting: Accounting,
    pub(crate) wire: Option<WireWatch>,
    pub(crate) facts: Option<Facts>,
    pub(crate) spool_limit: u64,
    /// Batches dropped when somebody last asked whether it is ready, and when that grew last.
    pub(crate) dropped: (u64, Option<Instant>),
}

/// How the agent is, shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<Mutex<State>>);

impl Health {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    /// Answers on `address` from now on, for as long as the process lives.
    pub(crate) fn serve(&self, address: SocketAddr) -> anyhow::Result<()> {
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address} for metrics (--metrics)"))?;
        listener.set_nonblocking(true).context("listen for metrics")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("answer for metrics")?;
        let health = self.clone();
        let serve = move || runtime.block_on(accept(listener, health));
        thread::Builder::new().name("health".to_owned()).spawn(serve).context("start a thread")?;
        Ok(())
    }
}

async fn accept(listener: TcpListener, health: Health) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics cannot be answered"),
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: they come back.
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let health = health.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let response = respond(&request, &health);
                std::future::ready(Ok::<_, std::convert::Infallible>(response))
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(SILENCE_MAX)
                .keep_alive(true)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a metrics connection ended");
            }
            drop(place);
        });
    }
}

fn respond(request: &Request<Incoming>, health: &Health) -> Response<Full> {
    let known = ["/metrics", "/live", "/ready"].contains(&request.uri().path());
    if known && ![Method::GET, Method::HEAD].contains(request.method()) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET, please\n".to_owned());
    }
    let mut state = health.lock();
    match request.uri().path() {
        "/metrics" => {
            let mut response = text(StatusCode::OK, metrics::render(&state));
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/live" => verdict(live(&state)),
        "/ready" => verdict(ready(&mut state)),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /live and /ready\n".to_owned()),
    }
}

fn verdict(verdict: Result<String, String>) -> Response<Full> {
    match verdict {
        Ok(said) => text(StatusCode::OK, format!("{said}\n")),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full> {
    let mut response = Response::new(Full(Some(Bytes::from(text))));
    *response.status_mut() = status;
    response
}

/// Whether the process does its work. A restart helps against nothing else.
pub(crate) fn live(state: &State) -> Result<String, String> {
    match state.phase {
        Phase::Starting => Ok("starting".to_owned()),
        Phase::Waiting => Ok("waiting for another agent to let go of the spool".to_owned()),
        Phase::Stopping => Ok("stopping".to_owned()),
        Phase::Reading => match silence(state) {
            Some(silence) => Err(format!("the reader has not ticked for {} s", silence.as_secs())),
            None => Ok("reading".to_owned()),
        },
    }
}

/// Whether this node is metered: the kernel is read, and what is read is delivered or kept.
pub(crate) fn ready(state: &mut State) -> Result<String, String> {
    live(state)?;
    match state.phase {
        Phase::Starting => return Err("starting: the kernel is not read yet".to_owned()),
        Phase::Waiting => return Err("another agent on this node holds the spool".to_owned()),
        Phase::Stopping => return Err("stopping".to_owned()),
        Phase::Reading => {}
    }
    let AgentStatus { ticks, spool_bytes, undelivered, dropped, .. } = state.status;
    if ticks == 0 {
        return Err("the kernel was not read yet".to_owned());
    }
    if dropped > state.dropped.0 {
        state.dropped = (dropped, Some(Instant::now()));
    }
    if state.dropped.1.is_some_and(|at| at.elapsed() < STUCK) {
        return Err(format!("the spool is full: {dropped} batches were dropped and declared"));
    }
    let wire = state.wire.as_ref().map(WireWatch::get).unwrap_or_default();
    let nearly_full = spool_bytes / 10 * 10 >= state.spool_limit / 10 * 9;
    if !wire.connected && nearly_full {
        return Err(format!("the spool is nearly full, with {undelivered} batches undelivered"));
    }
    let mut said = if wire.connected {
        "reading and delivering".to_owned()
    } else {
        let why = wire.last_error.unwrap_or_else(|| "not connected yet".to_owned());
        format!("reading; {undelivered} batches wait in the spool: {why}")
    };
    if let Accounting::Off(why) = &state.accounting {
        said = format!("{said}; but no bytes are counted: {why}");
    }
    Ok(said)
}

/// How long the reader has been silent, where that is too long.
fn silence(state: &State) -> Option<Duration> {
    let silence = state.ticked?.elapsed();
    (silence > STUCK.max(state.status.interval * 5)).then_some(silence)
}

/// A whole body.
struct Full(Option<Bytes>);

impl hyper::body::Body for Full {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(hyper::body::Frame::data(bytes))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        let bytes = self.0.as_ref().map_or(0, Bytes::len);
        hyper::body::SizeHint::with_exact(u64::try_from(bytes).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> State {
        let status = AgentStatus { ticks: 1, ..AgentStatus::default() };
        State {
            phase: Phase::Reading,
            ticked: Some(Instant::now()),
            status,
            spool_limit: 1_000,
            ..State::default()
        }
    }

    #[test]
    fn an_agent_that_reads_is_ready_even_while_the_server_is_away() {
        let mut state = reading();
        assert!(live(&state).is_ok());
        assert!(ready(&mut state).unwrap().contains("not connected yet"));
        state.accounting = Accounting::Off("nf_conntrack_acct is 0".to_owned());
        assert!(ready(&mut state).unwrap().contains("no bytes are counted: nf_conntrack_acct"));
    }

    #[test]
    fn what_keeps_it_from_being_ready_is_said() {
        let mut state = State::default();
        assert!(live(&state).is_ok());
        assert!(ready(&mut state).unwrap_err().contains("starting"));
        state.phase = Phase::Waiting;
        assert!(live(&state).is_ok(), "waiting is no reason to be restarted");
        assert!(ready(&mut state).unwrap_err().contains("another agent"));
        let mut state = reading();
        state.status.spool_bytes = 950;
        assert!(ready(&mut state).unwrap_err().contains("nearly full"));
        let mut state = reading();
        state.status.dropped = 3;
        assert!(ready(&mut state).unwrap_err().contains("3 batches were dropped"));
        let mut state = reading();
        state.ticked = Instant::now().checked_sub(STUCK * 2);
        if state.ticked.is_some() {
            assert!(live(&state).unwrap_err().contains("not ticked"));
        }
    }
}
