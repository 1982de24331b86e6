//! A further door, for kubenetmon's agents: they can go on reporting while a cluster moves to
//! weir's. What they say becomes rows of kubenetmon's table and nothing else.
//!
//! It is as good as that protocol is: in plain sight, from whoever comes, without numbers. An
//! observation that was answered may be lost, and one that was lost nobody can ask for again. So
//! none of it is among weir's own figures, and everything that is dropped is counted with a reason.
//!
//! A message is read (`message`), waits among a bounded number of others (`door`), and one thread
//! names its ends and inserts its rows (`writer`).

mod counts;
mod door;
mod listener;
mod message;
mod writer;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use weir_flow::kubenetmon::Settings;
use weir_proto::kubenetmon::flow_handler_server::FlowHandlerServer;
use weir_store::KubenetmonSink;

use self::door::Door;
use self::listener::{Connection, Listener};
use self::writer::Writer;
use crate::ingest::Directories;
use crate::query::Clock;

pub use counts::{Counts, Dropped};
pub use message::Malformed;

/// Connections that wait to be served.
const WAITING_CONNECTIONS: usize = 16;
/// How long calls may go on when a connection is told to end.
const GRACE: Duration = Duration::from_mins(1);
/// How long they may go on when the server ends.
const GOODBYE: Duration = Duration::from_secs(5);

/// Bounds of the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Of those, connections of one address.
    pub connections_of_one_address: usize,
    /// Calls at once.
    pub calls: usize,
    /// Calls of one connection at once.
    pub calls_of_one_connection: u32,
    /// Bytes of a message.
    pub message_bytes: usize,
    /// Observations that may wait to be written.
    pub waiting: usize,
    /// Wait before an insert is tried a second time; before each later one it is twice as long.
    pub retry_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_of_one_address: 64,
            calls: 4_096,
            calls_of_one_connection: 8,
            message_bytes: 4 << 10,
            waiting: 1 << 16,
            retry_wait: Duration::from_secs(1),
        }
    }
}

/// What the door needs.
pub struct Options {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where rows go.
    pub sink: Arc<dyn KubenetmonSink>,
    /// Names the ends.
    pub directories: Arc<dyn Directories>,
    /// Tells what time it is.
    pub clock: Clock,
    /// What rows say of the cluster.
    pub settings: Settings,
    /// Rows of the table in one insert.
    pub batch_rows: usize,
    /// How long the first row of an insert waits for more.
    pub batch_time: Duration,
    /// How long a connection lasts: agents then choose a server anew.
    pub connection_age: Duration,
    /// Bounds of everything.
    pub limits: Limits,
}

/// Why the door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum KubenetmonError {
    /// The address cannot be listened on.
    #[error("listen for kubenetmon's agents on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Threads could not be started.
    #[error("start the threads for kubenetmon's agents")]
    Threads(#[source] io::Error),
}

/// An open door, on threads of its own.
#[derive(Debug)]
pub struct Running {
    /// Where it listens, with the port the system chose where 0 was given.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
    server: Option<JoinHandle<()>>,
    writer: Option<thread::JoinHandle<()>>,
    impatience: Option<std_mpsc::SyncSender<()>>,
}

/// Opens the door.
pub fn start(options: Options) -> Result<Running, KubenetmonError> {
    let Options { address, clock, limits, .. } = options;
    let listen = || {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok((listener.local_addr()?, listener))
    };
    let (address, listener) =
        listen().map_err(|source| KubenetmonError::Listen { address, source })?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("weir-kubenetmon")
        .enable_all()
        .build()
        .map_err(KubenetmonError::Threads)?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener).map_err(KubenetmonError::Threads)?
    };
    let counts = Arc::<Counts>::default();
    let (impatience, stopping) = std_mpsc::sync_channel(1);
    // A chunk holds a place for an observation at least, so nobody ever waits here.
    let (chunks, waiting) = std_mpsc::sync_channel(options.limits.waiting);
    let writer = Writer {
        sink: options.sink,
        directories: options.directories,
        settings: options.settings,
        counts: Arc::clone(&counts),
        batch_rows: options.batch_rows,
        batch_time: options.batch_time,
        retry_wait: limits.retry_wait,
        token: format!("kubenetmon-{}-{}", clock().0, std::process::id()),
        stopping,
    };
    let writer = thread::Builder::new()
        .name("kubenetmon-rows".to_owned())
        .spawn(move || writer.run(&waiting))
        .map_err(KubenetmonError::Threads)?;
    let (stop, stopped) = watch::channel(false);
    let (connections, incoming) = mpsc::channel(WAITING_CONNECTIONS);
    let accepting = Listener { limits, counts: Arc::clone(&counts), connections };
    runtime.spawn(accepting.run(listener, stopped.clone()));
    let door = Door {
        counts: Arc::clone(&counts),
        clock,
        limits,
        room: Arc::new(Semaphore::new(limits.waiting)),
        calls: Arc::new(Semaphore::new(limits.calls)),
        chunks,
        stop: stopped.clone(),
    };
    let server = runtime.spawn(serve(door, options.connection_age, incoming, stopped));
    Ok(Running {
        address,
        counts,
        stop,
        runtime: Some(runtime),
        server: Some(server),
        writer: Some(writer),
        impatience: Some(impatience),
    })
}

impl Running {
    /// What happened so far.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Ends it: nobody new is let in, calls are cut short, and what was taken is written. Not to
    /// be called by an asynchronous task.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        let (Some(runtime), Some(server)) = (self.runtime.take(), self.server.take()) else {
            return;
        };
        if runtime.block_on(async { timeout(GOODBYE, server).await }).is_err() {
            tracing::warn!("connections of kubenetmon's agents did not end in time");
        }
        // The writer ends when the last call has let go of its queue.
        runtime.shutdown_timeout(GOODBYE);
        drop(self.impatience.take());
        if let Some(writer) = self.writer.take() {
            // A panic there was reported when it happened.
            drop(writer.join());
        }
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
    connection_age: Duration,
    incoming: mpsc::Receiver<io::Result<Connection>>,
    mut stop: watch::Receiver<bool>,
) {
    let limits = door.limits;
    let service = FlowHandlerServer::new(door).max_decoding_message_size(limits.message_bytes);
    let stopped = async move { stopped(&mut stop).await };
    let served = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 << 10)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(100))
        .max_concurrent_streams(limits.calls_of_one_connection)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10)
        .max_connection_age(connection_age)
        .max_connection_age_grace(GRACE)
        .serve_with_incoming_shutdown(service, ReceiverStream::new(incoming), stopped)
        .await;
    if let Err(error) = served {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the door for kubenetmon's agents broke"
        );
    }
}

/// Ready once weir stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can say it any more, which is a reason to stop.
    drop(stop.wait_for(|stopping| *stopping).await);
}
