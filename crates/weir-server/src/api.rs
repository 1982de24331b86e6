//! The HTTP API: questions as URLs, answers as JSON.
//!
//! A request passes, in this order: the limits of its connection (`serve`), the names weir
//! answers for (`guard`), its query parameters (`parameters`, `questions`), the cache of answers
//! (`cache`), the gate that lets few questions at the store at once (`gate`), and [`Answers`].

mod cache;
mod gate;
mod guard;
mod handlers;
mod openapi;
mod parameters;
mod problem;
mod questions;
mod serve;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::routing::get;

use crate::Answers;
use crate::query::Clock;
use cache::Cache;
use gate::Gate;

pub use openapi::document as openapi_document;
pub use problem::Problem;
pub use serve::{Running, StartError, serve, start};

/// How the API is served.
#[derive(Clone)]
pub struct Options {
    /// Host names, beside the loopback's and the address itself, under which weir answers. A page
    /// of a stranger's that a browser shows cannot ask weir under another name.
    pub allowed_hosts: Vec<String>,
    /// Tells what time it is.
    pub clock: Clock,
    /// Goes up when the store has taken something new ([`crate::Query::changes`]): answers given
    /// before are not repeated then.
    pub changes: Arc<AtomicU64>,
    /// Bounds of everything.
    pub limits: Limits,
}

impl Options {
    /// The usual limits, no further host names.
    pub fn new(clock: Clock, changes: Arc<AtomicU64>) -> Self {
        Self { allowed_hosts: Vec::new(), clock, changes, limits: Limits::default() }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("allowed_hosts", &self.allowed_hosts)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Bounds of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; more wait in the listener's backlog.
    pub connections: usize,
    /// Bytes of a request's head, its URL included.
    pub head_bytes: usize,
    /// How long a request's head may take, and how long a connection may be idle between two.
    pub head_time: Duration,
    /// How long a reader may take nothing at all.
    pub write_time: Duration,
    /// How long finding an answer may take, waiting included.
    pub answer_time: Duration,
    /// How long sending a page of flows may take.
    pub stream_time: Duration,
    /// Questions at the store at once.
    pub questions: usize,
    /// Pages of flows that are being sent at once.
    pub streams: usize,
    /// Questions that wait for others.
    pub waiting: usize,
    /// How long they wait.
    pub waiting_time: Duration,
    /// How long answers that are on their way may take when weir stops.
    pub stop_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            head_bytes: 64 << 10,
            head_time: Duration::from_secs(10),
            write_time: Duration::from_secs(15),
            answer_time: Duration::from_secs(15),
            stream_time: Duration::from_mins(1),
            questions: 2,
            streams: 4,
            waiting: 64,
            waiting_time: Duration::from_secs(5),
            stop_time: Duration::from_secs(5),
        }
    }
}

/// The API over whoever can be asked.
pub fn router(answers: Arc<dyn Answers>, options: Options) -> Router {
    let Limits { questions, streams, waiting, waiting_time, answer_time, .. } = options.limits;
    let gate = |places| Gate::new(places, waiting, waiting_time);
    let guard = guard::Guard::new(&options.allowed_hosts, answer_time);
    let shared = Shared {
        answers,
        cache: Cache::default(),
        store_gate: gate(questions),
        stream_gate: gate(streams),
        live_gate: gate(questions),
        options: Arc::new(options),
    };
    Router::new()
        .route("/", get(handlers::landing))
        .route("/api/v1/openapi.json", get(handlers::openapi))
        .route(parameters::STATUS.path, get(handlers::status))
        .route(parameters::TOP.path, get(handlers::top))
        .route(parameters::SERIES.path, get(handlers::series))
        .route(parameters::FLOWS.path, get(handlers::flows))
        .route(parameters::EXPORT.path, get(handlers::export))
        .route(parameters::VALUES.path, get(handlers::values))
        .route(parameters::CONNECTIONS.path, get(handlers::connections))
        .route(parameters::RATES.path, get(handlers::rates))
        .fallback(handlers::not_found)
        .method_not_allowed_fallback(handlers::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(Arc::new(guard), guard::guard))
        .with_state(shared)
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    answers: Arc<dyn Answers>,
    cache: Cache,
    store_gate: Gate,
    stream_gate: Gate,
    live_gate: Gate,
    options: Arc<Options>,
}
