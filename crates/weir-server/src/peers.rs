//! Several servers over one store: what the others hold in memory.
//!
//! Flows are in the store, so any server answers for them. Live connections, and what agents say of
//! themselves, are with the server that an agent speaks to: those are asked of the others (`peer`),
//! all at once and within a deadline, and put together (`gather`, `merge`). Each answers from its
//! own memory and asks nobody (`local`), so there are no loops. Who they are is looked up again and
//! again (`book`); who let them in is the wire's door.
//!
//! An agent speaks to one server at a time and moves between them. Of each node the server counts
//! that heard of it last; the others leave it out, and one that learns so forgets it.

mod book;
mod gather;
mod local;
mod merge;
mod peer;
mod question;
mod tls;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use tokio::runtime::{Builder, Runtime};

use self::book::Book;
pub use self::local::Local;
pub(crate) use self::question::Asked;
pub use self::tls::PeerTls;

/// Servers that are asked at most.
pub const PEERS_MAX: usize = 16;
/// Connections of one server that may take part in an answer; a page may not begin behind them.
pub const ROWS_MAX: usize = 20_000;
/// Groups of one server that may take part in an answer.
const GROUPS_MAX: usize = 50_000;

/// Where other servers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name with the addresses of all of them, or one address.
    pub host: String,
    /// Their port for agents.
    pub port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// How other servers are asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where they are. This server may be among them: it finds out.
    pub places: Vec<Place>,
    /// How connections are secured.
    pub tls: PeerTls,
    /// A file with the token that says who asks, read anew each time.
    pub token: Option<PathBuf>,
    /// How long an answer may take, everything included.
    pub deadline: Duration,
    /// How often names are looked up, and what others hold is learned unasked.
    pub refresh: Duration,
}

impl Options {
    /// A deadline of 1 s; names are looked up every 10 s.
    pub fn new(places: Vec<Place>, tls: PeerTls, token: Option<PathBuf>) -> Self {
        let (deadline, refresh) = (Duration::from_secs(1), Duration::from_secs(10));
        Self { places, tls, token, deadline, refresh }
    }
}

/// Why other servers cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// Threads could not be started.
    #[error("start the threads that ask other servers")]
    Threads(#[source] io::Error),
    /// The certificates are of no use.
    #[error("set up TLS with other servers")]
    Tls(#[from] crate::wire::TlsError),
    /// There is no randomness.
    #[error("the system gives no random number, by which servers tell each other apart")]
    Random,
}

/// The other servers, and this one's own memory.
#[derive(Debug)]
pub struct Peers {
    local: Arc<Local>,
    book: Arc<Book>,
    deadline: Duration,
    runtime: Option<Runtime>,
}

impl Peers {
    /// Begins to look for them, on a thread of its own.
    pub fn start(options: Options, local: Arc<Local>) -> Result<Self, PeersError> {
        options.tls.load()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("weir-peers")
            .enable_all()
            .build()
            .map_err(PeersError::Threads)?;
        let deadline = options.deadline;
        let book = Arc::new(Book::new(options, local.instance()));
        runtime.spawn(book::keep(Arc::clone(&book), Arc::clone(&local)));
        Ok(Self { local, book, deadline, runtime: Some(runtime) })
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A process: two servers are told apart by it, wherever they are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Instance([u8; 16]);

impl Instance {
    fn new() -> Result<Self, PeersError> {
        let mut bytes = [0; 16];
        let random = ring::default_provider().secure_random;
        random.fill(&mut bytes).map_err(|_none| PeersError::Random)?;
        Ok(Self(bytes))
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}
