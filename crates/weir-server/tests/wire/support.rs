//! A server with its wire, and agents of all kinds.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint as Target};
use tonic::{Code, Request, Status, Streaming};
use tower::service_fn;
use weir_flow::attribution::Question;
use weir_flow::frame::{FrameBuilder, Header};
use weir_flow::time::SECOND;
use weir_flow::{
    BatchId, BootTime, ConnectionState, Counters, Digest, Directory, Endpoint, EndpointKind, Epoch,
    Field, FlowRecord, Protocol, RecordFlags, Totals, WallTime,
};
use weir_proto::pb::ingest_client::IngestClient;
use weir_proto::pb::{self, from_agent, from_server};
use weir_proto::{Greeting, Packer};
use weir_server::peers::Local;
use weir_server::query::Board;
use weir_server::wire::{
    self, Announce, Announcement, Counts, Credentials, Denial, Denied, Identify, Identifying,
    IdentifyingServer, Identity, Queue, QueueLimits, QueueThread, TlsFiles, WireLimits,
};
use weir_server::{Directories, Ingest, Live};
use weir_store::{Cell, FlowQuery, FlowStore, Measure, Options, Order, SqliteStore};

/// Noon of a day, when every batch is sealed.
pub(crate) const NOON: u64 = 12 * 3_600 + 20_000 * 86_400;
pub(crate) const NOW: WallTime = WallTime((NOON + 61) * SECOND);
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

struct Hosts;

impl Directory for Hosts {
    fn resolve(&self, question: &Question) -> Arc<Endpoint> {
        Arc::new(Endpoint::bare(EndpointKind::Host, question.address))
    }
}

impl Directories for Hosts {
    fn lend(&self, _: &str, _: u64, ask: &mut dyn FnMut(&dyn Directory)) {
        ask(self);
    }
}

/// Remembers what was announced.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<Announcement>>);

impl Announce for Heard {
    fn announce(&self, announcement: Announcement) {
        self.0.lock().unwrap().push(announcement);
    }

    fn speaks(&self, _: &str, _: WallTime) {}
}

/// Knows tokens by their text: `good-NODE` is the agent's of that node, others are denied as they
/// say.
#[derive(Default)]
pub(crate) struct Tokens {
    pub(crate) revoked: AtomicBool,
    pub(crate) away: AtomicBool,
}

impl Identify for Tokens {
    fn identify<'a>(&'a self, token: &'a str) -> Identifying<'a> {
        Box::pin(async move {
            if self.away.load(Ordering::Relaxed) {
                return Err(Denied::undecided("the API is away"));
            }
            if self.revoked.load(Ordering::Relaxed) {
                return Err(Denied::new(Denial::Unauthenticated, "token revoked"));
            }
            let deny = |reason, why: &str| Err(Denied::new(reason, why));
            match token.split_once('-').unwrap_or((token, "")) {
                ("good", node) => {
                    Ok(Identity { node: node.to_owned(), subject: "weir:weir-agent".to_owned() })
                }
                ("expired", _) => deny(Denial::Unauthenticated, "token has expired"),
                ("audience", _) => deny(Denial::WrongAudience, "not made for weir"),
                ("account", _) => deny(Denial::NotAnAgent, "shop:default is no agent"),
                ("nodeless", _) => deny(Denial::NoNode, "its pod is on no node"),
                ("unreviewed", _) => Err(Denied::undecided("the API does not answer")),
                ("hung", _) => std::future::pending().await,
                _ => deny(Denial::Unauthenticated, "nobody knows this token"),
            }
        })
    }

    fn identify_server<'a>(&'a self, token: &'a str) -> IdentifyingServer<'a> {
        Box::pin(async move {
            if token.starts_with("server-") {
                return Ok(token.to_owned());
            }
            self.identify(token).await?;
            Err(Denied::new(Denial::NotAServer, "an agent is no server"))
        })
    }
}

/// Limits short enough for tests of what they limit.
pub(crate) fn limits() -> WireLimits {
    WireLimits {
        handshake_time: Duration::from_millis(500),
        unknown_time: Duration::from_secs(1),
        identify_time: Duration::from_millis(300),
        greeting_time: Duration::from_secs(1),
        ..WireLimits::default()
    }
}

/// Certificates of everybody.
pub(crate) struct Authority {
    key: KeyPair,
    params: CertificateParams,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { key, params, pem }
    }

    /// Certificate and key for these names, in PEM.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, String) {
        self.issue_until(names, 4096)
    }

    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A server, on this test's runtime's side of the loopback.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) queue: Queue,
    pub(crate) counts: Arc<Counts>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) board: Arc<Board>,
    pub(crate) live: Arc<Live>,
    pub(crate) local: Arc<Local>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) address: SocketAddr,
    running: Option<wire::Running>,
    thread: Option<QueueThread>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(limits())
    }

    pub(crate) fn with(limits: WireLimits) -> Self {
        Self::on(TempDir::new().unwrap(), limits)
    }

    pub(crate) fn on(dir: TempDir, limits: WireLimits) -> Self {
        Self::of(Arc::new(Authority::new()), dir, limits)
    }

    /// A server whose certificate this authority signs.
    pub(crate) fn of(authority: Arc<Authority>, dir: TempDir, limits: WireLimits) -> Self {
        log();
        let (certificate, key) = authority.issue(&["weir-server", "a.servers.weir"]);
        std::fs::write(dir.path().join("tls.crt"), certificate).unwrap();
        std::fs::write(dir.path().join("tls.key"), key).unwrap();
        std::fs::write(dir.path().join("agents.crt"), &authority.pem).unwrap();
        let store = SqliteStore::open(dir.path().join("data"), Options::default()).unwrap();
        let store = Arc::new(store);
        let live = Arc::<Live>::default();
        let ingest = Ingest::new(Arc::clone(&store) as Arc<dyn FlowStore>, Hosts).unwrap();
        let ingest = ingest.with_live(Arc::clone(&live));
        let clock: weir_server::Clock = Arc::new(|| NOW);
        let (queue, thread) =
            Queue::start(ingest, QueueLimits::default(), Arc::clone(&clock), Box::new(|| {}))
                .unwrap();
        let (tokens, heard) = (Arc::<Tokens>::default(), Arc::<Heard>::default());
        let board = Arc::<Board>::default();
        let local = Local::new(Arc::clone(&live), Arc::clone(&board), Arc::clone(&clock)).unwrap();
        let local = Arc::new(local);
        let running = wire::start(wire::Options {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: Some(TlsFiles {
                certificate: dir.path().join("tls.crt"),
                key: dir.path().join("tls.key"),
                client_authorities: Some(dir.path().join("agents.crt")),
                tokens: true,
            }),
            credentials: Credentials::Asked {
                tokens: Some(Arc::clone(&tokens) as Arc<dyn Identify>),
            },
            queue: queue.clone(),
            store: Arc::clone(&store) as Arc<dyn FlowStore>,
            announce: Arc::clone(&heard) as Arc<dyn Announce>,
            board: Arc::clone(&board),
            clock,
            peers: Some(Arc::clone(&local)),
            limits,
            certificates_every: Duration::from_millis(50),
        })
        .unwrap();
        Self {
            dir,
            store,
            queue,
            counts: running.counts(),
            tokens,
            heard,
            board,
            live,
            local,
            authority,
            address: running.address,
            running: Some(running),
            thread: Some(thread),
        }
    }

    /// An agent that shows a token.
    pub(crate) fn agent(&self, token: &str) -> Dialler {
        Dialler {
            address: self.address,
            roots: vec![self.authority.pem.clone()],
            certificate: None,
            header: Some(format!("Bearer {token}").into_bytes()),
        }
    }

    /// Bytes of all flows.
    pub(crate) fn bytes(&self) -> u64 {
        let table = self
            .store
            .query(&FlowQuery {
                range: 0..u64::from(u32::MAX),
                filter: weir_flow::Filter::default(),
                group_by: Vec::<Field>::new(),
                bucket_seconds: None,
                measures: vec![Measure::BytesSent],
                order: Order::Keys,
                limit: None,
            })
            .unwrap();
        match table.rows.first().and_then(|row| row.first().cloned()) {
            Some(Cell::Sum(bytes)) => bytes,
            _ => 0,
        }
    }

    /// Nothing at all was stored.
    pub(crate) fn is_untouched(&self) -> bool {
        self.store.committed().unwrap().is_empty() && self.store.health().unwrap().edges == Some(0)
    }

    /// Ends the server; its data stays.
    pub(crate) fn end(mut self) -> TempDir {
        self.stop();
        std::mem::replace(&mut self.dir, TempDir::new().unwrap())
    }

    fn stop(&mut self) {
        let (Some(running), Some(thread)) = (self.running.take(), self.thread.take()) else {
            return;
        };
        let queue = self.queue.clone();
        // Not from an asynchronous task, which a test is.
        let stopping = std::thread::spawn(move || {
            running.stop();
            queue.close();
            thread.join();
        });
        stopping.join().unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How somebody dials.
#[derive(Clone)]
pub(crate) struct Dialler {
    pub(crate) address: SocketAddr,
    pub(crate) roots: Vec<String>,
    pub(crate) certificate: Option<(String, String)>,
    pub(crate) header: Option<Vec<u8>>,
}

impl Dialler {
    pub(crate) fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for pem in &self.roots {
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    pub(crate) async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let (address, tls) = (self.address, TlsConnector::from(Arc::new(self.config())));
        let connect = move |_| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("weir-server").unwrap();
                Ok::<_, io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        };
        Target::from_static("http://weir-server").connect_with_connector(service_fn(connect)).await
    }

    /// Opens a stream and says this first.
    pub(crate) async fn open(&self, first: Vec<pb::FromAgent>) -> Result<Talk, Status> {
        let channel = self
            .channel()
            .await
            .map_err(|error| Status::new(Code::Unavailable, format!("no connection: {error:?}")))?;
        let mut client = IngestClient::new(channel).max_encoding_message_size(64 << 20);
        let (says, said) = mpsc::channel(64);
        for message in first {
            says.send(message).await.unwrap();
        }
        let mut request = Request::new(ReceiverStream::new(said));
        if let Some(header) = &self.header {
            let value = tonic::metadata::MetadataValue::try_from(header.as_slice());
            let value = value.map_err(|_invalid| Status::new(Code::Internal, "no header"))?;
            request.metadata_mut().insert("authorization", value);
        }
        let answers = client.stream(request).await?.into_inner();
        Ok(Talk { says, answers })
    }

    /// Opens a stream as the agent of `node` and hears the welcome.
    pub(crate) async fn greet(&self, node: &str, epoch: u128) -> (Talk, pb::Welcome) {
        let mut talk = self.open(vec![hello(node, epoch)]).await.unwrap();
        match talk.next().await.unwrap() {
            from_server::Message::Welcome(welcome) => (talk, welcome),
            other => panic!("no welcome: {other:?}"),
        }
    }
}

/// An open stream.
pub(crate) struct Talk {
    pub(crate) says: mpsc::Sender<pb::FromAgent>,
    pub(crate) answers: Streaming<pb::FromServer>,
}

impl Talk {
    /// What the server says next.
    pub(crate) async fn next(&mut self) -> Result<from_server::Message, Status> {
        let next = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        let next = next.map_err(|_late| Status::deadline_exceeded("the server says nothing"))?;
        next?.and_then(|it| it.message).ok_or_else(|| Status::new(Code::Ok, "ended"))
    }

    pub(crate) async fn say(&self, message: pb::FromAgent) {
        self.says.send(message).await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> (u64, Said) {
        match self.next().await.unwrap() {
            from_server::Message::Answer(answer) => (answer.sequence, Said::of(answer.outcome)),
            other => panic!("no answer: {other:?}"),
        }
    }

    /// Sends a batch and hears what became of it.
    pub(crate) async fn deliver(&mut self, batch: pb::Batch) -> Said {
        let sequence = batch.sequence;
        self.say(message(from_agent::Message::Batch(batch))).await;
        let (answered, said) = self.answer().await;
        assert_eq!(answered, sequence);
        said
    }

    /// Hears the stream's end.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

/// An outcome, to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Committed,
    Retry(String),
    Refused(String),
}

impl Said {
    fn of(outcome: Option<pb::answer::Outcome>) -> Self {
        match outcome.unwrap() {
            pb::answer::Outcome::Committed(_) => Self::Committed,
            pb::answer::Outcome::Retry(retry) => Self::Retry(retry.reason),
            pb::answer::Outcome::Refused(refused) => Self::Refused(refused.reason),
        }
    }
}

pub(crate) fn message(message: from_agent::Message) -> pb::FromAgent {
    pb::FromAgent { message: Some(message) }
}

pub(crate) fn greeting(node: &str, epoch: u128) -> pb::Hello {
    pb::Hello::from(&Greeting {
        versions: weir_proto::SPOKEN,
        version: "0.1.0".to_owned(),
        node: node.to_owned(),
        epoch: Epoch(epoch),
        epoch_born: WallTime((NOON - 1_000) * SECOND),
        boot: 7,
        now: NOW,
    })
}

pub(crate) fn hello(node: &str, epoch: u128) -> pb::FromAgent {
    message(from_agent::Message::Hello(greeting(node, epoch)))
}

/// A batch with one record of this many bytes.
pub(crate) fn batch(epoch: u128, sequence: u64, bytes: u64) -> pb::Batch {
    Packer::new().unwrap().pack(sequence, &frame(epoch, sequence, bytes, 0)).unwrap()
}

/// Its frame, sealed by a clock that runs so many seconds ahead.
pub(crate) fn frame(epoch: u128, sequence: u64, bytes: u64, ahead_seconds: u64) -> Vec<u8> {
    let mut builder = FrameBuilder::default();
    builder.record(&record(u16::try_from(sequence % 60_000).unwrap(), bytes));
    let offset = i64::try_from((NOON + ahead_seconds) * SECOND).unwrap();
    let header = Header {
        id: BatchId { epoch: Epoch(epoch), sequence },
        hour: (NOON + ahead_seconds) / 3_600,
        wall_offset_nanos: offset,
        sealed_at: BootTime(60 * SECOND),
        boot: 7,
        records: 0,
        digest: Digest(0),
    };
    builder.finish(header).1.to_vec()
}

pub(crate) fn record(port: u16, bytes: u64) -> FlowRecord {
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    FlowRecord {
        connection: u64::from(port),
        zone: 0,
        protocol: Protocol::TCP,
        source: address(1),
        source_port: port,
        destination: address(2),
        destination_port: 80,
        service: None,
        translated_source: None,
        start: None,
        interval_from: BootTime(SECOND),
        interval_to: BootTime(60 * SECOND),
        from: Totals::default(),
        to: Totals { sent: Counters { packets: 1, bytes }, received: Counters::default() },
        state: ConnectionState::from_code(19),
        flags: RecordFlags::OPENED,
    }
}

/// Everything the server has logged in this process.
pub(crate) fn logged() -> String {
    String::from_utf8_lossy(&log().lock().unwrap()).into_owned()
}

fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    static SET: OnceLock<()> = OnceLock::new();
    struct Lines;
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            LOG.get_or_init(Mutex::default).lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    SET.get_or_init(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("weir_server=trace,info")
            .with_ansi(false)
            .with_writer(|| Lines);
        subscriber.try_init().unwrap();
    });
    LOG.get_or_init(Mutex::default)
}

/// Waits until it is so.
pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
