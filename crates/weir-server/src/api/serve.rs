//! Listening, within bounds: how many connections, how large a request, how slow a peer.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use super::guard::LocalAddress;
use super::{Limits, Options, router};
use crate::Answers;

/// After an error of accepting, most likely too many open files: for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Threads that questions may block: those at the store, pages on their way, live questions.
const MAX_BLOCKING_THREADS: usize = 16;

/// Why the API could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Threads could not be started.
    #[error("start the threads of the API")]
    Threads(#[source] io::Error),
}

/// An API that answers on threads of its own until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    /// The addresses it listens on, with the ports the system chose where 0 was given.
    pub addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
    servers: JoinSet<()>,
    stop_time: Duration,
}

/// Answers on `addresses` from threads of its own.
pub fn start(
    addresses: &[SocketAddr],
    answers: Arc<dyn Answers>,
    options: &Options,
) -> Result<Running, StartError> {
    let mut listeners = Vec::new();
    for &address in addresses {
        let listen = || {
            let listener = StdListener::bind(address)?;
            Ok((listener.local_addr()?, listener))
        };
        listeners.push(listen().map_err(|source| StartError::Listen { address, source })?);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_name("weir-api")
        .enable_all()
        .build()
        .map_err(StartError::Threads)?;

    let (stop, stopped) = watch::channel(false);
    let places = Arc::new(Semaphore::new(options.limits.connections));
    let router = router(answers, options.clone());
    let mut servers = JoinSet::new();
    let mut addresses = Vec::new();
    for (address, listener) in listeners {
        let server =
            Server { router: router.clone(), limits: options.limits, places: places.clone() };
        let mut stopped = stopped.clone();
        let stop = async move {
            // An error means that nobody can stop it any more, which is a reason to stop.
            drop(stopped.wait_for(|stopped| *stopped).await);
        };
        servers.spawn_on(
            async move {
                if let Err(error) = server.run(listener, stop).await {
                    tracing::error!(%address, %error, "the API cannot listen");
                }
            },
            runtime.handle(),
        );
        addresses.push(address);
    }
    let stop_time = options.limits.stop_time;
    Ok(Running { addresses, stop, runtime: Some(runtime), servers, stop_time })
}

impl Running {
    /// Ends it: nobody new is let in, answers that are on their way have a few seconds. Not to be
    /// called by an asynchronous task.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        let Some(runtime) = self.runtime.take() else { return };
        let patience = self.stop_time + Duration::from_secs(1);
        let servers = std::mem::take(&mut self.servers);
        if runtime.block_on(async { timeout(patience, servers.join_all()).await }).is_err() {
            tracing::warn!("the API's connections did not end in time");
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

/// Answers on `listener` until `stop` is ready and what was on its way then is done.
pub async fn serve(
    listener: StdListener,
    router: Router,
    options: &Options,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let limits = options.limits;
    let places = Arc::new(Semaphore::new(limits.connections));
    Server { router, limits, places }.run(listener, stop).await
}

/// One listener's server.
struct Server {
    router: Router,
    limits: Limits,
    /// Connections that may still be opened.
    places: Arc<Semaphore>,
}

impl Server {
    async fn run(self, listener: StdListener, stop: impl Future<Output = ()>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (ending, ended) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let (stream, place) = tokio::select! {
                () = &mut stop => break,
                // Those that are done make room for new ones.
                Some(_) = connections.join_next() => continue,
                accepted = self.accept(&listener) => accepted,
            };
            let connection = Connection {
                router: self.router.clone(),
                limits: self.limits,
                ended: ended.clone(),
                place,
            };
            connections.spawn(connection.run(stream));
        }
        drop(listener);
        ending.send_replace(true);
        let rest = async { while connections.join_next().await.is_some() {} };
        // What is still there then is cut when the set is dropped.
        drop(timeout(self.limits.stop_time, rest).await);
        Ok(())
    }

    /// The next connection, once there is a place for it.
    async fn accept(&self, listener: &TcpListener) -> (TcpStream, OwnedSemaphorePermit) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, place),
                Err(error) => {
                    tracing::debug!(%error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection.
struct Connection {
    router: Router,
    limits: Limits,
    ended: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let Self { router, limits, mut ended, place } = self;
        let local = stream.local_addr().ok().map(canonical);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            if let Some(local) = local {
                request.extensions_mut().insert(LocalAddress(local));
            }
            router.clone().oneshot(request)
        });
        // An answer goes out in pieces; each should leave at once.
        drop(stream.set_nodelay(true));
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_time));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_time)
            .max_buf_size(limits.head_bytes)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let mut connection = pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = async { drop(ended.wait_for(|ended| *ended).await) } => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(place);
    }
}

/// Where one socket listens for both, IPv4 comes as a part of IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
