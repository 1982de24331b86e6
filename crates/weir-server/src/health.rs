//! Health and metrics of a server, for machines: `/live`, `/ready`, `/metrics`.

mod text;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::api;
use crate::query::Clock;

pub use text::Exposition;

/// The version of the text format that Prometheus reads.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Somebody whose health can be asked for.
pub trait Health: Send + Sync {
    /// Why it should be started anew, where it should.
    fn live(&self) -> Result<(), String>;

    /// Why nothing should be sent to it now, where that is so.
    fn ready(&self) -> Result<(), String>;

    /// All metrics.
    fn metrics(&self, exposition: &mut Exposition);
}

/// Answers on a thread of its own until it is dropped.
pub struct Running {
    /// Where it listens, with the port the system chose where 0 was given.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Answers on `address`.
pub fn start(address: SocketAddr, health: Arc<dyn Health>, clock: Clock) -> io::Result<Running> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let options = api::Options::new(clock, Arc::<AtomicU64>::default());
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new().name("weir-health".to_owned()).spawn(move || {
        // Told to stop, or forgotten: the same here.
        let stopped = async { drop(stopped.await) };
        if let Err(error) = runtime.block_on(api::serve(listener, router, &options, stopped)) {
            tracing::error!(%error, "metrics and health cannot be asked for");
        }
    })?;
    Ok(Running { address, stop: Some(stop), thread: Some(thread) })
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            drop(thread.join());
        }
    }
}

async fn live(State(health): State<Arc<dyn Health>>) -> Response {
    told(health.live())
}

async fn ready(State(health): State<Arc<dyn Health>>) -> Response {
    told(health.ready())
}

async fn metrics(State(health): State<Arc<dyn Health>>) -> Response {
    let mut exposition = Exposition::default();
    health.metrics(&mut exposition);
    ([(header::CONTENT_TYPE, TEXT)], exposition.finish()).into_response()
}

fn told(answer: Result<(), String>) -> Response {
    match answer {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
