//! A server of gRPC over TLS that hands batches to the scripted store, and can be made to misbehave.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server as Tonic;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use weir_agent::Deliver as _;
use weir_flow::ingest::Answer;
use weir_proto::pb::ingest_server::{Ingest, IngestServer};
use weir_proto::pb::{self, FromAgent, FromServer, answer, from_agent, from_server};
use weir_proto::{Fact, Greeting, UnpackLimits, Unpacker};

use crate::script::{Store, Way};

/// An authority, and what it has signed, in a directory.
pub(crate) struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
        Self { directory: directory.to_owned(), issuer }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A certificate for `name`, valid until the end of that year: the files of it and its key.
    pub(crate) fn sign(&self, file: &str, name: &str, year: i32) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let at = |end: &str| self.directory.join(format!("{file}.{end}"));
        fs::write(at("pem"), certificate.pem()).unwrap();
        fs::write(at("key"), key.serialize_pem()).unwrap();
        (at("pem"), at("key"))
    }
}

/// How the server behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    #[default]
    Honest,
    /// Answers nothing.
    Silent,
    /// Answers about batches it was not given, as committed.
    Presumes,
    /// Says more than any server of ours would.
    Rambles,
    /// Says goodbye after each batch.
    Leaves,
    /// Knows nobody.
    Denies,
}

/// What it does and has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) manner: Manner,
    pub(crate) max_records: u32,
    pub(crate) max_frame_bytes: u32,
    /// What Welcome says is committed.
    pub(crate) committed: Vec<(u64, u64)>,
    pub(crate) tokens: Vec<String>,
    pub(crate) clients: u64,
    pub(crate) greetings: Vec<Greeting>,
    /// Numbers of batches, in the order in which they came.
    pub(crate) order: Vec<u64>,
    pub(crate) facts: Vec<(bool, Vec<Fact>)>,
    pub(crate) statuses: Vec<Vec<u8>>,
    pub(crate) pings: u64,
}

/// A server at work until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Seen>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How its connections are secured.
pub(crate) struct Secured {
    pub(crate) certificate: (PathBuf, PathBuf),
    /// Clients must have a certificate of this authority.
    pub(crate) clients: Option<PathBuf>,
}

impl Server {
    /// Listens on `address` and puts what it gets into `store`.
    pub(crate) fn start(
        address: SocketAddr,
        store: &Arc<Mutex<Store>>,
        seen: &Arc<Mutex<Seen>>,
        secured: Option<&Secured>,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = secured.map(Secured::acceptor);
        let service = Service { store: Arc::clone(store), seen: Arc::clone(seen) };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            let served = serve(listener, acceptor, service);
            runtime.block_on(async {
                tokio::select! { () = served => {}, _ = stopped => {} }
            });
            // Open connections end with the runtime, as if the process had died.
            runtime.shutdown_timeout(Duration::from_millis(100));
        });
        Self { address, seen: Arc::clone(seen), stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            stop.send(()).unwrap_or_default();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Secured {
    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let (certificate, key) = &self.certificate;
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, service: Service) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (connections, incoming) = mpsc::channel::<io::Result<Connection>>(8);
    let accept = async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = match &acceptor {
                None => Ok(Connection::Plain(stream)),
                Some(acceptor) => {
                    acceptor.accept(stream).await.map(|tls| Connection::Tls(Box::new(tls)))
                }
            };
            // A handshake that failed is the client's to tell.
            if let Ok(connection) = connection {
                connections.send(Ok(connection)).await.unwrap();
            }
        }
    };
    let service =
        IngestServer::new(service).max_decoding_message_size(weir_proto::limits::MESSAGE_BYTES_MAX);
    let served = Tonic::builder().serve_with_incoming(service, ReceiverStream::new(incoming));
    tokio::select! { () = accept => {}, served = served => served.unwrap() }
}

struct Service {
    store: Arc<Mutex<Store>>,
    seen: Arc<Mutex<Seen>>,
}

#[tonic::async_trait]
impl Ingest for Service {
    type StreamStream = ReceiverStream<Result<FromServer, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let authorization = request.metadata().get("authorization");
        let token = authorization.map(|value| value.to_str().unwrap().to_owned());
        {
            let mut seen = self.seen.lock().unwrap();
            seen.clients += 1;
            seen.tokens.extend(token);
            if seen.manner == Manner::Denies {
                return Err(Status::unauthenticated("unknown token\u{1b}[2J"));
            }
        }
        let (out, replies) = mpsc::channel(8);
        let talk = Talk {
            store: Arc::clone(&self.store),
            seen: Arc::clone(&self.seen),
            unpacker: Unpacker::new(UnpackLimits::default()),
            out,
        };
        tokio::spawn(talk.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

struct Talk {
    store: Arc<Mutex<Store>>,
    seen: Arc<Mutex<Seen>>,
    unpacker: Unpacker,
    out: mpsc::Sender<Result<FromServer, Status>>,
}

impl Talk {
    async fn run(mut self, mut inbound: Streaming<FromAgent>) {
        while let Ok(Some(FromAgent { message: Some(message) })) = inbound.message().await {
            for reply in self.replies(message) {
                let left = matches!(reply, from_server::Message::Goodbye(_));
                let reply = FromServer { message: Some(reply) };
                if self.out.send(Ok(reply)).await.is_err() || left {
                    return;
                }
            }
        }
    }

    fn replies(&mut self, message: from_agent::Message) -> Vec<from_server::Message> {
        match message {
            from_agent::Message::Hello(hello) => vec![self.welcome(&hello)],
            from_agent::Message::Batch(batch) => self.batch(&batch),
            from_agent::Message::Facts(facts) => {
                let told = (facts.complete, Fact::all(&facts).unwrap());
                self.seen().facts.push(told);
                vec![]
            }
            from_agent::Message::Status(status) => {
                self.seen().statuses.push(status.json);
                vec![]
            }
            from_agent::Message::Ping(_) => {
                self.seen().pings += 1;
                vec![from_server::Message::Pong(pb::Pong { now_nanos: 1 })]
            }
        }
    }

    fn welcome(&self, hello: &pb::Hello) -> from_server::Message {
        let mut seen = self.seen();
        seen.greetings.push(Greeting::try_from(hello).unwrap());
        let range = |(first, last): &(u64, u64)| pb::Range { first: *first, last: *last };
        from_server::Message::Welcome(pb::Welcome {
            protocol: 1,
            node: "n1".to_owned(),
            max_frame_bytes: seen.max_frame_bytes,
            max_records: seen.max_records,
            committed: seen.committed.iter().map(range).collect(),
            ends_after_seconds: 600,
            max_unanswered_bytes: 8 << 20,
            max_unanswered_batches: 4,
            now_nanos: 1,
        })
    }

    fn batch(&mut self, batch: &pb::Batch) -> Vec<from_server::Message> {
        let frame = self.unpacker.unpack(batch).unwrap();
        let sequence = batch.sequence;
        let manner = {
            let mut seen = self.seen();
            seen.order.push(sequence);
            seen.manner
        };
        let commit = |sequence| {
            let outcome = Some(answer::Outcome::Committed(pb::Committed {}));
            from_server::Message::Answer(pb::Answer { sequence, outcome })
        };
        match manner {
            Manner::Silent => return vec![],
            Manner::Presumes => return vec![commit(sequence + 1_000), commit(0)],
            Manner::Rambles => {
                let reason = "x".repeat(100_000);
                return vec![from_server::Message::Goodbye(pb::Goodbye {
                    reason,
                    after_millis: 0,
                })];
            }
            _ => {}
        }
        let answer = Way(Arc::clone(&self.store)).deliver(&frame);
        let outcome = Some(match answer {
            Answer::Committed => answer::Outcome::Committed(pb::Committed {}),
            Answer::Refused { reason } => answer::Outcome::Refused(pb::Refused { reason }),
            Answer::Retry { after, reason } => {
                let after_millis = u32::try_from(after.as_millis()).unwrap();
                answer::Outcome::Retry(pb::Retry { after_millis, reason })
            }
        });
        let mut said = vec![from_server::Message::Answer(pb::Answer { sequence, outcome })];
        if manner == Manner::Leaves {
            let reason = "others wait".to_owned();
            said.push(from_server::Message::Goodbye(pb::Goodbye { reason, after_millis: 1 }));
        }
        said
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

enum Connection {
    Plain(tokio::net::TcpStream),
    Tls(Box<TlsStream<tokio::net::TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
