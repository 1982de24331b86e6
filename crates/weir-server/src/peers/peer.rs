//! One other server: its connection, how it does, and asking it.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use weir_proto::limits::{MESSAGE_BYTES_MAX, VERSION_BYTES_MAX};
use weir_proto::peers::pb::peers_client::PeersClient;
use weir_proto::peers::{self as wire, ANSWER_BYTES_MAX, QUESTION_BYTES_MAX, SPOKEN, pb};
use weir_proto::shortened;

use super::Instance;
use super::question::{Asked, Told};
use super::tls::PeerTls;
use crate::answer::PeerState;
use crate::ingest::chain;
use crate::live::Hold;

/// The first and the longest time for which a server that failed is not asked.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// More than any token.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// More than any server of ours says in headers or trailers.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// A connection that is silent this long is asked whether it still stands, and given as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// What is shown of a text from another server.
const SHOWN_BYTES: usize = 300;

/// What all connections to other servers share.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    pub(super) tls: PeerTls,
    pub(super) token: Option<PathBuf>,
    pub(super) deadline: Duration,
    pub(super) instance: Instance,
}

/// Another server, or this one under one of its addresses.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    manners: Arc<Manners>,
    channel: Channel,
    /// How the last attempt to connect ended.
    dialled: Arc<Mutex<Dialled>>,
    known: Mutex<Known>,
}

#[derive(Clone, Debug, Default)]
enum Dialled {
    /// It goes on, or was not begun.
    #[default]
    No,
    Yes,
    Failed(PeerState, String),
}

#[derive(Debug, Default)]
struct Known {
    instance: Option<Instance>,
    trouble: Option<Trouble>,
    /// What it held when it last answered.
    holds: Arc<Vec<Hold>>,
}

/// Why it is not asked for a while.
#[derive(Clone, Debug)]
struct Trouble {
    failure: Failure,
    until: Instant,
    pause: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Failure {
    pub(super) state: PeerState,
    pub(super) reason: String,
}

impl Failure {
    pub(super) fn new(state: PeerState, reason: impl Into<String>) -> Self {
        Self { state, reason: reason.into() }
    }
}

impl Peer {
    /// Connects when it is first asked. `host` is what it was looked up by.
    pub(super) fn new(address: SocketAddr, host: &str, manners: &Arc<Manners>) -> Arc<Self> {
        let dialled = Arc::<Mutex<Dialled>>::default();
        let endpoint = Endpoint::from_static("http://weir-peer")
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .buffer_size(8);
        let name = manners.tls.name.clone().unwrap_or_else(|| host.to_owned());
        let dial = Dial { address, name, tls: manners.tls.clone(), limit: manners.deadline };
        let noted = Arc::clone(&dialled);
        let connector = tower::service_fn(move |_: Uri| {
            let (dial, noted) = (dial.clone(), Arc::clone(&noted));
            async move {
                *locked(&noted) = Dialled::No;
                let connected = dial.connect().await;
                *locked(&noted) = match &connected {
                    Ok(_) => Dialled::Yes,
                    Err(failure) => Dialled::Failed(failure.state, failure.reason.clone()),
                };
                connected.map(TokioIo::new)
            }
        });
        let channel = endpoint.connect_with_connector_lazy(connector);
        let known = Mutex::default();
        Arc::new(Self { address, manners: Arc::clone(manners), channel, dialled, known })
    }

    /// Which process it is, where it has said so.
    pub(super) fn instance(&self) -> Option<Instance> {
        locked(&self.known).instance
    }

    /// Why it is not to be asked now, where it failed a moment ago.
    pub(super) fn trouble(&self) -> Option<Failure> {
        let known = locked(&self.known);
        let trouble = known.trouble.as_ref().filter(|trouble| trouble.until > Instant::now());
        trouble.map(|trouble| trouble.failure.clone())
    }

    /// What it held when it last answered.
    pub(super) fn holds(&self) -> Arc<Vec<Hold>> {
        Arc::clone(&locked(&self.known).holds)
    }

    /// Asks, until `deadline`. `None` where it is this server itself.
    pub(super) async fn ask(
        &self,
        asked: &Asked,
        deadline: Instant,
    ) -> Result<Option<Told>, Failure> {
        let told = tokio::time::timeout_at(deadline, self.told(asked)).await;
        let told = told.unwrap_or_else(|_late| Err(self.late()));
        let mut known = locked(&self.known);
        match &told {
            Ok(told) => {
                known.trouble = None;
                if let Some(told) = told {
                    known.holds = Arc::new(told.holds.clone());
                }
            }
            Err(failure) => {
                let before = known.trouble.as_ref().map(|trouble| trouble.pause * 2);
                let pause = before.unwrap_or(PAUSES.0).min(PAUSES.1);
                let until = Instant::now() + pause;
                if before.is_none() {
                    let Failure { state, reason } = failure;
                    let (address, state) = (self.address, state.name());
                    tracing::warn!(%address, state, reason, "another server does not answer");
                }
                known.trouble = Some(Trouble { failure: failure.clone(), until, pause });
            }
        }
        told
    }

    fn late(&self) -> Failure {
        let limit = self.manners.deadline.as_millis();
        match &*locked(&self.dialled) {
            Dialled::Yes => {
                Failure::new(PeerState::Late, format!("it did not answer within {limit} ms"))
            }
            Dialled::No => Failure::new(
                PeerState::Unreachable,
                format!(
                    "no connection within {limit} ms: does it run, and may this server reach \
                         it?"
                ),
            ),
            Dialled::Failed(state, reason) => Failure::new(*state, reason.clone()),
        }
    }

    async fn told(&self, asked: &Asked) -> Result<Option<Told>, Failure> {
        let broken = |text: String| Failure::new(PeerState::Failed, text);
        let json = serde_json::to_vec(asked).expect("a question is plain data");
        let json = wire::pack(&json, QUESTION_BYTES_MAX);
        let json = json.map_err(|error| broken(format!("the question is too large: {error}")))?;
        let mut request = Request::new(pb::Question {
            protocol_min: *SPOKEN.start(),
            protocol_max: *SPOKEN.end(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.manners.instance.bytes(),
            json,
        });
        if let Some(path) = &self.manners.token {
            let token = bearer(path).map_err(|error| {
                let path = path.display();
                Failure::new(PeerState::Refused, format!("read the token in {path}: {error}"))
            })?;
            request.metadata_mut().insert("authorization", token);
        }
        let mut client = PeersClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let answer = client.ask(request).await.map_err(|status| failed(&status))?;
        self.read(asked, answer.into_inner()).await
    }

    async fn read(&self, asked: &Asked, answer: pb::Answer) -> Result<Option<Told>, Failure> {
        let broken = |text: String| Failure::new(PeerState::Failed, text);
        let pb::Answer { protocol, version, instance, json } = answer;
        let version = plain(shortened(&version, VERSION_BYTES_MAX));
        let Some(instance) = Instance::read(&instance) else {
            return Err(broken("it does not say which server it is".to_owned()));
        };
        locked(&self.known).instance = Some(instance);
        if instance == self.manners.instance {
            return Ok(None);
        }
        if !SPOKEN.contains(&protocol) {
            let ours = env!("CARGO_PKG_VERSION");
            let reason = format!("weir {version} and {ours} share no protocol between servers");
            return Err(Failure::new(PeerState::OtherVersion, reason));
        }
        // A large one takes its time, in which others' answers arrive.
        let reading = tokio::task::spawn_blocking(move || decoded(&json));
        let read = reading.await.unwrap_or_else(|error| Err(error.to_string()));
        let told = read.map_err(|error| {
            let is_other = version != env!("CARGO_PKG_VERSION");
            let state = if is_other { PeerState::OtherVersion } else { PeerState::Failed };
            let reason =
                format!("its answer cannot be read: {} (it is weir {version})", plain(&error));
            Failure::new(state, reason)
        })?;
        match asked.misses(&told) {
            Some(what) => Err(broken(format!("its answer is none to the question: {what}"))),
            None => Ok(Some(told)),
        }
    }
}

/// What an error means.
fn failed(status: &Status) -> Failure {
    let said = plain(status.message());
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Failure::new(
            PeerState::Refused,
            format!("{said}; check --peer-token-file here and --server-account there"),
        ),
        Code::Unimplemented => {
            let reason = "it does not answer other servers: it is older, or no weir server";
            Failure::new(PeerState::OtherVersion, reason)
        }
        Code::Cancelled | Code::Unknown | Code::Unavailable
            if std::error::Error::source(status).is_some() =>
        {
            // Another attempt may have begun: what this one says of itself counts.
            let first: Option<&(dyn std::error::Error + 'static)> = Some(status);
            let mut causes = std::iter::successors(first, |error| error.source());
            if let Some(failure) = causes.find_map(|error| error.downcast_ref::<Failure>()) {
                return failure.clone();
            }
            let cause = std::error::Error::source(status).map(chain).unwrap_or_default();
            Failure::new(PeerState::Unreachable, format!("it broke off: {}", plain(&cause)))
        }
        code => Failure::new(PeerState::Failed, format!("{said} ({code:?})")),
    }
}

/// How a connection comes about.
#[derive(Clone)]
struct Dial {
    address: SocketAddr,
    name: String,
    tls: PeerTls,
    limit: Duration,
}

impl Dial {
    async fn connect(&self) -> Result<TlsStream<TcpStream>, Failure> {
        let limit = self.limit.as_millis();
        let slow = |_elapsed| {
            Failure::new(PeerState::Unreachable, format!("no connection within {limit} ms"))
        };
        timeout(self.limit, self.secured()).await.map_err(slow)?
    }

    async fn secured(&self) -> Result<TlsStream<TcpStream>, Failure> {
        let refused = |reason: String| Failure::new(PeerState::Refused, reason);
        let config = self.tls.load().map_err(|error| refused(chain(&error)))?;
        let name = ServerName::try_from(self.name.clone()).map_err(|_invalid| {
            refused(format!("{:?} is not a name that a certificate could bear", self.name))
        })?;
        let tcp = TcpStream::connect(self.address).await.map_err(|error| {
            Failure::new(PeerState::Unreachable, format!("cannot connect: {error}"))
        })?;
        // Best effort: it only spares small messages a wait.
        drop(tcp.set_nodelay(true));
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, tcp).await.map_err(|error| {
            let name = &self.name;
            refused(format!(
                "no TLS with it as {name:?}: {}; check --peer-ca, --peer-name and its certificate",
                plain(&error.to_string())
            ))
        })
    }
}

fn decoded(json: &[u8]) -> Result<Told, String> {
    let json = wire::unpack(json, ANSWER_BYTES_MAX).map_err(|error| chain(&error))?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

fn bearer(path: &Path) -> io::Result<MetadataValue<Ascii>> {
    let mut token = String::new();
    File::open(path)?.take(TOKEN_BYTES_MAX).read_to_string(&mut token)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it holds no token");
    let token = token.trim();
    if token.is_empty() {
        return Err(invalid());
    }
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().map_err(|_not_ascii| invalid())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The beginning of what somebody else wrote, in one line.
fn plain(text: &str) -> String {
    shortened(text, SHOWN_BYTES).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole in itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
