//! Opening a stream: TCP, TLS, the call, Hello and Welcome.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use weir_proto::limits::{MESSAGE_BYTES_MAX, REPLY_BYTES_MAX};
use weir_proto::pb::ingest_client::IngestClient;
use weir_proto::pb::{FromAgent, FromServer, Welcome, from_agent, from_server};
use weir_proto::{Greeting, SPOKEN};

use super::tls::{Keeper, TlsError};
use super::{Speaker, WireConfig, plain};
use crate::clock;

/// Messages on their way to the connection: each may be as large as a message can be.
const QUEUE: usize = 1;
/// More than any token.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// More than any server of ours says in headers or trailers.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// A connection that is silent this long is asked whether it still stands, and given as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It took too long.
    #[error("{what} took longer than {} s", limit.as_secs())]
    Slow {
        /// What did.
        what: &'static str,
        /// How long it may.
        limit: Duration,
    },
    /// No TCP connection.
    #[error("cannot connect to {server}")]
    Tcp {
        /// Where to.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS files are of no use.
    #[error("TLS")]
    Files(#[from] TlsError),
    /// The name that the server's certificate is to bear is no name.
    #[error("{name:?} is not a name that a certificate could bear: set --server-name")]
    Name {
        /// It.
        name: String,
    },
    /// The handshake failed.
    #[error("no TLS with {server}; check --ca-file, --server-name and both sides' certificates")]
    Tls {
        /// With whom.
        server: String,
        /// What TLS said.
        source: io::Error,
    },
    /// The token cannot be read.
    #[error("cannot read the token in {}", path.display())]
    Token {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// HTTP/2 did not come about.
    #[error("no HTTP/2 with {server}: is that weir's port for agents (8884)?")]
    Http {
        /// With whom.
        server: String,
        /// What was wrong.
        source: tonic::transport::Error,
    },
    /// The server does not want us.
    #[error("the server refused the stream: {reason}")]
    Refused {
        /// Why, as it may be shown.
        reason: String,
    },
    /// It said something else than Welcome.
    #[error("the server did not say welcome but {what}")]
    NoWelcome {
        /// What it did.
        what: &'static str,
    },
}

/// A stream that stands.
pub(super) struct Opened {
    pub(super) out: mpsc::Sender<FromAgent>,
    pub(super) inbound: Streaming<FromServer>,
    pub(super) welcome: Welcome,
    pub(super) welcomed: Instant,
}

/// Opens a stream, within the time the configuration gives.
pub(super) async fn open(
    config: &WireConfig,
    speaker: Speaker,
    tls: &mut Keeper,
) -> Result<Opened, ConnectError> {
    let limit = config.connect_timeout;
    let slow = |what| move |_elapsed| ConnectError::Slow { what, limit };
    let connection = tokio::time::timeout(limit, connect(config, tls));
    let channel = connection.await.map_err(slow("connecting"))??;
    let greeting = tokio::time::timeout(limit, greet(config, speaker, channel));
    greeting.await.map_err(slow("the server's welcome"))?
}

async fn connect(config: &WireConfig, tls: &mut Keeper) -> Result<Channel, ConnectError> {
    let server = config.server.to_string();
    let failed = |source| ConnectError::Tcp { server: server.clone(), source };
    let address = (config.server.host.as_str(), config.server.port);
    let tcp = TcpStream::connect(address).await.map_err(failed)?;
    // Best effort: it only spares small messages a wait.
    drop(tcp.set_nodelay(true));
    let stream: Box<dyn Duplex> = match tls.config()? {
        None => Box::new(tcp),
        Some(tls) => {
            let files = config.tls.as_ref();
            let named = files.and_then(|files| files.server_name.clone());
            let name = named.unwrap_or_else(|| config.server.host.clone());
            let name = ServerName::try_from(name.clone())
                .map_err(|_invalid| ConnectError::Name { name })?;
            let connected = TlsConnector::from(tls).connect(name, tcp).await;
            let failed = |source| ConnectError::Tls { server: server.clone(), source };
            Box::new(connected.map_err(failed)?)
        }
    };
    let failed = |source| ConnectError::Http { server: server.clone(), source };
    let endpoint = Endpoint::from_shared(format!("http://{server}")).map_err(failed)?;
    let endpoint = endpoint
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .buffer_size(8);
    // One connection and no other: whoever asks again gets none, and the stream is opened anew.
    let once = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(stream.ok_or(io::ErrorKind::NotConnected).map_err(io::Error::from))
    });
    endpoint.connect_with_connector(connector).await.map_err(failed)
}

async fn greet(
    config: &WireConfig,
    speaker: Speaker,
    channel: Channel,
) -> Result<Opened, ConnectError> {
    let (out, queue) = mpsc::channel(QUEUE);
    let greeting = Greeting {
        versions: SPOKEN,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: config.node.clone(),
        epoch: speaker.epoch,
        epoch_born: speaker.epoch_born,
        boot: speaker.boot,
        now: clock::wall(),
    };
    let hello = FromAgent { message: Some(from_agent::Message::Hello((&greeting).into())) };
    // The queue is empty and its other end is here.
    drop(out.send(hello).await);
    let mut request = Request::new(ReceiverStream::new(queue));
    if let Some(path) = &config.token {
        request.metadata_mut().insert("authorization", bearer(path)?);
    }
    let mut client = IngestClient::new(channel)
        .max_decoding_message_size(REPLY_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut inbound = client.stream(request).await.map_err(|status| refused(&status))?.into_inner();
    let first = inbound.message().await.map_err(|status| refused(&status))?;
    let welcomed = Instant::now();
    let no_welcome = |what| Err(ConnectError::NoWelcome { what });
    match first.map(|first| first.message) {
        Some(Some(from_server::Message::Welcome(welcome)))
            if SPOKEN.contains(&welcome.protocol) =>
        {
            Ok(Opened { out, inbound, welcome, welcomed })
        }
        Some(Some(from_server::Message::Welcome(_))) => no_welcome("in a protocol of another age"),
        Some(Some(from_server::Message::Goodbye(goodbye))) => {
            Err(ConnectError::Refused { reason: plain(&goodbye.reason) })
        }
        Some(_) => no_welcome("something else"),
        None => no_welcome("nothing"),
    }
}

/// What the server's refusal means to whoever has to do something about it.
fn refused(status: &Status) -> ConnectError {
    let advice = match status.code() {
        Code::Unauthenticated => "; check --token-file or --cert-file",
        Code::Unimplemented => "; is that a weir server, on its port for agents (8884)?",
        _ => "",
    };
    // The transport's own trouble is told by what caused it.
    let cause = std::error::Error::source(status).map(crate::error::chain);
    let text = cause.unwrap_or_else(|| status.message().to_owned());
    let code = status.code();
    ConnectError::Refused { reason: format!("{} ({code:?}){advice}", plain(&text)) }
}

fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, ConnectError> {
    let failed = |source| ConnectError::Token { path: path.to_owned(), source };
    let mut token = String::new();
    File::open(path)
        .and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut token))
        .map_err(failed)?;
    let invalid = || failed(io::Error::new(io::ErrorKind::InvalidData, "it holds no token"));
    let token = token.trim();
    if token.is_empty() {
        return Err(invalid());
    }
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().map_err(|_not_ascii| invalid())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A connection, secured or not.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
