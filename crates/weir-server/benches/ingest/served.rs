//! A server with its wire, and one agent that sends all it has.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tower::service_fn;
use weir_flow::cluster::{Bounds, Pod, Uid, Update};
use weir_flow::time::SECOND;
use weir_flow::{Field, WallTime};
use weir_proto::pb::ingest_client::IngestClient;
use weir_proto::pb::{self, answer, from_agent, from_server};
use weir_proto::{Greeting, SPOKEN};
use weir_server::cluster::{Config, Watched};
use weir_server::query::Board;
use weir_server::wire::{
    self, Announce, Credentials, Denial, Denied, Identify, Identifying, IdentifyingServer,
    Identity, Queue, QueueLimits, TlsFiles, WireLimits,
};
use weir_server::{Clock, Ingest};
use weir_store::{
    CommitBatch, CommittedEpoch, CounterSum, FlowQuery, FlowStore, Health, Memory, Options,
    Outcome, Pruned, SqliteStore, StoredGap, Table,
};

use crate::made::{EPOCH, Made, NOON, PODS, address};

/// Where batches end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    /// After the fold.
    Nothing,
    /// In the embedded store.
    Sqlite,
}

/// What sending everything took.
pub(crate) struct Measured {
    pub(crate) took: Duration,
    /// CPU time of the server's threads.
    pub(crate) server_cpu: Duration,
}

/// Commits nothing.
struct Nothing(SqliteStore);

impl FlowStore for Nothing {
    fn commit(&self, batches: &[CommitBatch<'_>]) -> weir_store::Result<Vec<Outcome>> {
        Ok(vec![Outcome::Committed; batches.len()])
    }

    fn committed(&self) -> weir_store::Result<Vec<CommittedEpoch>> {
        self.0.committed()
    }

    fn query(&self, query: &FlowQuery) -> weir_store::Result<Table> {
        self.0.query(query)
    }

    fn values(&self, field: Field, prefix: &str, limit: usize) -> weir_store::Result<Vec<String>> {
        self.0.values(field, prefix, limit)
    }

    fn gaps(&self, range: Range<u64>) -> weir_store::Result<Vec<StoredGap>> {
        self.0.gaps(range)
    }

    fn counters(&self, range: Range<u64>) -> weir_store::Result<Vec<CounterSum>> {
        self.0.counters(range)
    }

    fn remember(&self, memories: &[Memory]) -> weir_store::Result<()> {
        self.0.remember(memories)
    }

    fn remembered(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> weir_store::Result<Vec<Memory>> {
        self.0.remembered(prefix, after, limit)
    }

    fn prune(&self, now_seconds: u64) -> weir_store::Result<Pruned> {
        self.0.prune(now_seconds)
    }

    fn health(&self) -> weir_store::Result<Health> {
        self.0.health()
    }
}

struct Anybody;

impl Identify for Anybody {
    fn identify<'a>(&'a self, _: &'a str) -> Identifying<'a> {
        let identity = Identity { node: "n1".to_owned(), subject: "bench".to_owned() };
        Box::pin(async move { Ok(identity) })
    }

    fn identify_server<'a>(&'a self, _: &'a str) -> IdentifyingServer<'a> {
        Box::pin(async { Err(Denied::new(Denial::NotAServer, "there is one server")) })
    }
}

/// Sends everything through a fresh server.
pub(crate) fn measure(made: &Made, sink: Sink) -> Result<Measured> {
    let dir = TempDir::new()?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["weir-server".to_owned()])?.self_signed(&key)?;
    let file = |name: &str| dir.path().join(name);
    fs::write(file("tls.crt"), certificate.pem())?;
    fs::write(file("tls.key"), key.serialize_pem())?;
    let sqlite = SqliteStore::open(file("data"), Options::default())?;
    let store: Arc<dyn FlowStore> = match sink {
        Sink::Nothing => Arc::new(Nothing(sqlite)),
        Sink::Sqlite => Arc::new(sqlite),
    };
    let clock: Clock = Arc::new(|| WallTime((NOON + 61) * SECOND));
    let watched = Arc::new(cluster(&clock)?);
    let ingest = Ingest::new(Arc::clone(&store), Arc::clone(&watched))?;
    let (queue, thread) =
        Queue::start(ingest, QueueLimits::default(), Arc::clone(&clock), Box::new(|| {}))?;
    let running = wire::start(wire::Options {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: Some(TlsFiles {
            certificate: file("tls.crt"),
            key: file("tls.key"),
            client_authorities: None,
            tokens: true,
        }),
        credentials: Credentials::Asked { tokens: Some(Arc::new(Anybody)) },
        queue: queue.clone(),
        store,
        announce: watched as Arc<dyn Announce>,
        board: Arc::<Board>::default(),
        clock,
        peers: None,
        limits: WireLimits::default(),
        certificates_every: Duration::from_mins(1),
    })?;
    let before = server_cpu()?;
    let begun = Instant::now();
    send(made, running.address, certificate.der().clone())?;
    let took = begun.elapsed();
    let server_cpu = server_cpu()?.saturating_sub(before);
    running.stop();
    queue.close();
    thread.join();
    Ok(Measured { took, server_cpu })
}

fn cluster(clock: &Clock) -> Result<Watched> {
    let watched = Watched::open(Config::default(), None, Arc::clone(clock))?;
    for pod in 0..PODS {
        let node = pod / 100 + 1;
        watched.apply(Update::Pod(Pod {
            uid: Uid(u128::from(pod) + 1),
            namespace: "shop".into(),
            name: format!("web-{pod}").into(),
            node: Some(format!("n{node}").into()),
            addresses: vec![address(pod)],
            host_network: false,
            workload: Some(("Deployment".into(), format!("web-{}", pod % 500).into())),
            app: None,
            labels: None,
            from: Bounds::exactly(WallTime((NOON - 3_600) * SECOND)),
            ended: None,
            probe_ports: Vec::new(),
            runs_agent: false,
        }));
    }
    watched.apply(Update::Synced { at: (clock)() });
    Ok(watched)
}

fn send(made: &Made, address: SocketAddr, root: CertificateDer<'static>) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connect = service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("weir-server").map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let target = Endpoint::from_static("http://weir-server");
        let channel = target.connect_with_connector(connect).await?;
        let (says, said) = mpsc::channel(8);
        let mut request = tonic::Request::new(ReceiverStream::new(said));
        request.metadata_mut().insert("authorization", "Bearer bench".parse()?);
        says.send(message(from_agent::Message::Hello(hello()))).await?;
        let mut client = IngestClient::new(channel);
        let mut answers = client.stream(request).await?.into_inner();
        let batches = made.batches.clone();
        let count = batches.len();
        let sending = tokio::spawn(async move {
            for batch in batches {
                if says.send(message(from_agent::Message::Batch(batch))).await.is_err() {
                    return;
                }
            }
            // The stream stays open until everything is answered.
            says.closed().await;
        });
        let mut committed = 0;
        while committed < count {
            let answer = answers.message().await?.context("the server hung up")?;
            match answer.message {
                Some(from_server::Message::Answer(pb::Answer { outcome, .. })) => {
                    let is_committed = matches!(outcome, Some(answer::Outcome::Committed(_)));
                    ensure!(is_committed, "{outcome:?}");
                    committed += 1;
                }
                Some(from_server::Message::Welcome(_) | from_server::Message::Pong(_)) => {}
                other => bail!("{other:?}"),
            }
        }
        sending.abort();
        Ok(())
    })
}

fn hello() -> pb::Hello {
    pb::Hello::from(&Greeting {
        versions: SPOKEN,
        version: "bench".to_owned(),
        node: "n1".to_owned(),
        epoch: EPOCH,
        epoch_born: WallTime((NOON - 3_600) * SECOND),
        boot: 7,
        now: WallTime((NOON + 61) * SECOND),
    })
}

fn message(message: from_agent::Message) -> pb::FromAgent {
    pb::FromAgent { message: Some(message) }
}

/// CPU time of the threads that are the server's.
fn server_cpu() -> Result<Duration> {
    let mut nanos = 0_u64;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?;
        if !["weir-wire", "weir-ingest"].contains(&name.trim()) {
            continue;
        }
        let text = fs::read_to_string(task.join("schedstat"))?;
        let on_cpu = text.split_whitespace().next().context("schedstat is empty")?;
        nanos += on_cpu.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}
