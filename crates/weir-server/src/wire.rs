//! The door for agents: gRPC over TLS, one stream per agent.
//!
//! A connection passes, in this order: the bounds of all connections and the handshake
//! (`listener`, `tls`), the credentials (`identify`, `door`), the greeting (`session`, `fence`).
//! Its batches are decompressed and held against the stream (`batch`), then wait for the one thread
//! that takes them (`queue`).

mod batch;
mod counts;
mod door;
mod fence;
mod identify;
mod listener;
mod outage;
mod peers;
mod queue;
mod seldom;
mod session;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use weir_flow::frame::FRAME_BYTES_MAX;
use weir_flow::{Epoch, Name, WallTime};
use weir_proto::{Fact, Measured};
use weir_store::{FlowStore, StoreError};

use self::door::{Door, Shared};
use self::fence::Fence;
use self::listener::{Connection, Listener};
use self::peers::Doors;
use self::tls::{Refreshed, Tls};
use crate::answer::{NodeStatus, OtherView};
use crate::ingest::Views;
use crate::moment::rfc3339;
use crate::peers::Local;
use crate::query::{Board, Clock};

pub(crate) use self::counts::Present;
pub use counts::{Counts, Malformation, TurnedAway};
pub use door::Credentials;
pub use identify::{
    CERTIFICATE_SUFFIX, Denial, Denied, Identify, Identifying, IdentifyingServer, Identity,
    SERVER_CERTIFICATE_SUFFIX,
};
pub use queue::{Committed, Queue, QueueLimits, QueueThread, Report};
pub use tls::{TlsError, TlsFiles};
pub(crate) use tls::{certificates as certificates_of, read as read_file};

/// Connections that wait to be served.
const WAITING_CONNECTIONS: usize = 16;
/// How soon a second agent of a node that another server knows is noticed, where there may be others.
const BIRTHS_EVERY: Duration = Duration::from_secs(10);
/// A node's status names this many other nodes at most, those with the largest difference.
const VIEWS_MAX: usize = 32;

/// Bounds of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireLimits {
    /// Connections at once.
    pub connections: usize,
    /// Of those, connections whose peer has not said who it is.
    pub unknown: usize,
    /// Of those, connections from one address (one /64 network).
    pub unknown_of_one_address: usize,
    /// How long a TLS handshake may take.
    pub handshake_time: Duration,
    /// How long a peer may stay unknown after it.
    pub unknown_time: Duration,
    /// How long it may take to tell whose a token is.
    pub identify_time: Duration,
    /// How often a token is shown again while its stream lasts.
    pub identify_every: Duration,
    /// How long the first message may take.
    pub greeting_time: Duration,
    /// How long an agent may say nothing.
    pub silence: Duration,
    /// How long an agent may take no answer.
    pub answer_time: Duration,
    /// How long answers that are on their way may take when a stream ends.
    pub goodbye_time: Duration,
    /// How long a stream lasts, at the least.
    pub life_min: Duration,
    /// How long a stream lasts, at the most.
    pub life_max: Duration,
    /// Streams of one node at once.
    pub streams_per_node: usize,
    /// Compressed bytes of one stream that are not answered.
    pub open_bytes: usize,
    /// Batches of one stream that are not answered.
    pub open_batches: usize,
    /// Bytes of a frame.
    pub frame_bytes: usize,
    /// Records in a batch.
    pub records: usize,
}

impl Default for WireLimits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            unknown: 512,
            unknown_of_one_address: 32,
            handshake_time: Duration::from_secs(5),
            unknown_time: Duration::from_secs(10),
            identify_time: Duration::from_secs(10),
            identify_every: Duration::from_secs(10),
            greeting_time: Duration::from_secs(10),
            silence: Duration::from_mins(2),
            answer_time: Duration::from_secs(30),
            goodbye_time: Duration::from_secs(10),
            life_min: Duration::from_mins(10),
            life_max: Duration::from_mins(30),
            streams_per_node: 4,
            open_bytes: 8 << 20,
            open_batches: 64,
            frame_bytes: FRAME_BYTES_MAX,
            records: 1 << 17,
        }
    }
}

/// What agents announce of their nodes' addresses goes there.
pub trait Announce: Send + Sync {
    /// Addresses of a node.
    fn announce(&self, announcement: Announcement);

    /// An agent speaks for this node; its spool began at `since`.
    fn speaks(&self, node: &str, since: WallTime);
}

/// Addresses of a node, as its agent tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Which node.
    pub node: Name,
    /// These are all there are: what is not among them is gone.
    pub complete: bool,
    /// The addresses.
    pub facts: Vec<Fact>,
    /// When they arrived.
    pub at: WallTime,
}

/// What the wire needs.
pub struct Options {
    /// Where it listens.
    pub address: SocketAddr,
    /// Without, everything is in plain sight.
    pub tls: Option<TlsFiles>,
    /// What agents must show.
    pub credentials: Credentials,
    /// Takes batches.
    pub queue: Queue,
    /// Knows whose epochs are whose.
    pub store: Arc<dyn FlowStore>,
    /// Hears of addresses.
    pub announce: Arc<dyn Announce>,
    /// Shows how agents are.
    pub board: Arc<Board>,
    /// Tells what time it is.
    pub clock: Clock,
    /// Answers other servers; `None`: they are turned away.
    pub peers: Option<Arc<Local>>,
    /// Bounds of everything.
    pub limits: WireLimits,
    /// How often certificates are looked at.
    pub certificates_every: Duration,
}

/// Why the wire could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The address cannot be listened on.
    #[error("listen for agents on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Threads could not be started.
    #[error("start the threads of the wire")]
    Threads(#[source] io::Error),
    /// The certificates are of no use.
    #[error("set up TLS for agents")]
    Tls(#[from] TlsError),
    /// The store does not say whose epochs are whose.
    #[error("read whose epochs are committed")]
    Store(#[from] StoreError),
}

/// An open wire, on threads of its own.
#[derive(Debug)]
pub struct Running {
    /// Where it listens, with the port the system chose where 0 was given.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
    server: Option<JoinHandle<()>>,
    patience: Duration,
}

/// Opens the wire.
pub fn start(options: Options) -> Result<Running, WireError> {
    let tls = options.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
    let epochs = options.store.committed()?.into_iter();
    let epochs = epochs.map(|known| (known.epoch, known.node.into()));
    let fence = Fence::restore(&*options.store, epochs)?;
    let address = options.address;
    let listen = || {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok((listener.local_addr()?, listener))
    };
    let (address, listener) = listen().map_err(|source| WireError::Listen { address, source })?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2)
        .thread_name("weir-wire")
        .enable_all()
        .build()
        .map_err(WireError::Threads)?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener).map_err(WireError::Threads)?
    };

    let (stop, stopped) = watch::channel(false);
    let counts = Arc::<Counts>::default();
    let limits = options.limits;
    let (connections, incoming) = mpsc::channel(WAITING_CONNECTIONS);
    let accepting = Listener { tls: tls.clone(), limits, counts: Arc::clone(&counts), connections };
    runtime.spawn(accepting.run(listener, stopped.clone()));
    if let Some(tls) = tls {
        runtime.spawn(keep_fresh(tls, options.certificates_every));
    }
    let shared = Shared {
        credentials: options.credentials,
        queue: options.queue,
        announce: options.announce,
        board: options.board,
        counts: Arc::clone(&counts),
        clock: options.clock,
        limits,
        stop: stopped.clone(),
        fence: Mutex::new(fence),
        store: options.store,
        streams: Mutex::new(HashMap::new()),
        denials: seldom::Seldom::default(),
        peers: options.peers,
    };
    let shared = Arc::new(shared);
    if shared.store.is_shared() {
        runtime.spawn(learn_births(Arc::clone(&shared)));
    }
    let server = runtime.spawn(serve(Door(shared), incoming, stopped));
    let patience = limits.goodbye_time + Duration::from_secs(5);
    Ok(Running { address, counts, stop, runtime: Some(runtime), server: Some(server), patience })
}

impl Running {
    /// What happened so far.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Ends it: nobody new is let in, streams say goodbye, batches on their way are answered. Not
    /// to be called by an asynchronous task.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        let (Some(runtime), Some(server)) = (self.runtime.take(), self.server.take()) else {
            return;
        };
        if runtime.block_on(async { timeout(self.patience, server).await }).is_err() {
            tracing::warn!("agents' connections did not end in time");
        }
        runtime.shutdown_background();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    door: Door,
    incoming: mpsc::Receiver<io::Result<Connection>>,
    mut stop: watch::Receiver<bool>,
) {
    let limits = door.0.limits;
    let service = Doors::new(door);
    let stopped = async move { stopped(&mut stop).await };
    let served = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 << 10)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(100))
        .max_concurrent_streams(8)
        .initial_stream_window_size(512 << 10)
        .initial_connection_window_size(1 << 20)
        .max_connection_age(limits.life_max + limits.goodbye_time)
        .max_connection_age_grace(limits.goodbye_time)
        .serve_with_incoming_shutdown(service, ReceiverStream::new(incoming), stopped)
        .await;
    if let Err(error) = served {
        tracing::error!(error = &error as &dyn std::error::Error, "the wire broke");
    }
}

/// Ready once weir stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can say it any more, which is a reason to stop.
    drop(stop.wait_for(|stopping| *stopping).await);
}

/// Reads again and again which epochs other servers were told of, until the runtime ends.
#[expect(clippy::infinite_loop, reason = "a task that its runtime ends")]
async fn learn_births(shared: Arc<Shared>) {
    let mut ticks = interval(BIRTHS_EVERY);
    loop {
        ticks.tick().await;
        let store = Arc::clone(&shared.store);
        match tokio::task::spawn_blocking(move || fence::births(&*store)).await {
            Ok(Ok(births)) => shared.learns(births),
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot read which agents other servers know"
            ),
            Err(error) => tracing::error!(%error, "reading which agents there are broke"),
        }
    }
}

/// Looks at the certificates' files again and again, until the runtime ends.
#[expect(clippy::infinite_loop, reason = "a task that its runtime ends")]
async fn keep_fresh(tls: Arc<Tls>, every: Duration) {
    let mut ticks = interval(every);
    loop {
        ticks.tick().await;
        match tls.refresh() {
            Refreshed::Same => {}
            Refreshed::Renewed => tracing::info!("new certificates are in use"),
            Refreshed::Kept(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the new certificates are of no use; the old ones stay"
            ),
        }
    }
}

/// What is known of an agent beside what it says of itself.
#[derive(Clone, Debug)]
struct Spoken {
    version: String,
    /// When its last batch was committed.
    last_batch: Option<WallTime>,
    /// When the newest of its committed batches was sealed, by its own clock.
    sealed_at: Option<WallTime>,
    clock: Option<Measured>,
    epoch: Epoch,
}

impl Spoken {
    /// What an agent said of itself, with what is known here.
    fn complete(&self, node: &str, said: NodeStatus, views: &Views, now: WallTime) -> NodeStatus {
        let ahead = self.clock.map(|clock| i128::from(clock.ahead_nanos));
        let lag = self.sealed_at.map(|sealed| {
            let sealed = i128::from(sealed.0) - ahead.unwrap_or(0);
            in_seconds((i128::from(now.0) - sealed).max(0))
        });
        NodeStatus {
            node: node.to_owned(),
            updated: Some(rfc3339(now.seconds())),
            silent_seconds: None,
            // Its process and its door are those of another machine.
            pid: None,
            api: None,
            agent_version: Some(self.version.clone()),
            epoch: Some(self.epoch.to_string()),
            last_batch: self.last_batch.map(|at| rfc3339(at.seconds())),
            lag_seconds: lag,
            clock_ahead_seconds: ahead.map(in_seconds),
            views: other_views(node, views),
            ..said
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn in_seconds(nanos: i128) -> f64 {
    nanos as f64 / 1e9
}

/// What this node counted of its traffic with others, beside what those saw of it.
fn other_views(node: &str, views: &Views) -> Vec<OtherView> {
    let pairs = views.pairs().filter(|(from, _, _)| ***from == *node);
    let mut others: Vec<OtherView> = pairs
        .map(|(_, to, pair)| OtherView {
            node: to.to_string(),
            counted_packets: pair.counted.sent.packets + pair.counted.received.packets,
            counted_bytes: pair.counted.bytes(),
            seen_packets: pair.second.sent.packets + pair.second.received.packets,
            seen_bytes: pair.second.bytes(),
        })
        .collect();
    others.sort_by_key(|it| std::cmp::Reverse(it.counted_bytes.abs_diff(it.seen_bytes)));
    others.truncate(VIEWS_MAX);
    others
}
