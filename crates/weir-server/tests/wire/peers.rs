//! Servers that ask each other: real TLS, real gRPC, and others that are not what they should be.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};
use weir_proto::pb::{self, from_agent};
use weir_proto::peers::pb as peers_pb;
use weir_proto::peers::pb::peers_server::{Peers as PeersService, PeersServer};
use weir_proto::peers::{ANSWER_BYTES_MAX, pack};
use weir_server::answer::{
    Connections, ConnectionsQuestion, PeerState, PeerStatus, RatesQuestion, Status as Told,
};
use weir_server::peers::{Options, PeerTls, Place, ROWS_MAX};
use weir_server::wire::Denial;
use weir_server::{AnswerError, Answers as _, Peers, Query};
use weir_store::FlowStore;

use crate::support::{Authority, NOW, Said, World, batch, limits, logged, message, until};

/// Short, so that whoever does not answer is not waited for.
const DEADLINE: Duration = Duration::from_millis(800);

/// A server that asks others, and what it knows them by.
struct Asking {
    query: Arc<Query>,
    _files: TempDir,
}

/// How somebody asks.
struct Manner<'a> {
    authority: &'a str,
    token: Option<&'a str>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Asking {
    /// `world` asks those at these addresses, as a server.
    fn of(world: &World, others: &[SocketAddr]) -> Self {
        let manner =
            Manner { authority: &world.authority.pem, token: Some("server-a"), identity: None };
        Self::with(world, others, manner)
    }

    fn with(world: &World, others: &[SocketAddr], manner: Manner<'_>) -> Self {
        let files = TempDir::new().unwrap();
        let authorities = files.path().join("ca.crt");
        fs::write(&authorities, manner.authority).unwrap();
        let token = manner.token.map(|token| {
            let path = files.path().join("token");
            fs::write(&path, token).unwrap();
            path
        });
        let tls = PeerTls {
            authorities: Some(authorities),
            identity: manner.identity,
            name: Some("weir-server".to_owned()),
        };
        let places =
            others.iter().map(|other| Place { host: other.ip().to_string(), port: other.port() });
        // Nothing is learned unasked once all are found, so that a test says what is asked when.
        let options = Options {
            deadline: DEADLINE,
            refresh: Duration::from_hours(1),
            ..Options::new(places.collect(), tls, token)
        };
        let peers = Arc::new(Peers::start(options, Arc::clone(&world.local)).unwrap());
        let query = Query::new(
            Arc::clone(&world.store) as Arc<dyn FlowStore>,
            Arc::clone(&world.live),
            Arc::clone(&world.board),
            Arc::new(|| NOW),
        );
        let asking = Self { query: Arc::new(query.with_peers(peers)), _files: files };
        until("names are looked up", || {
            let looked_up =
                |peer: &PeerStatus| peer.reason.as_deref() != Some("it was not looked up yet");
            asking.connections().peers.iter().all(looked_up)
        });
        asking
    }

    fn connections(&self) -> Connections {
        let question = ConnectionsQuestion { limit: 100, ..ConnectionsQuestion::default() };
        tokio::task::block_in_place(|| self.query.connections(&question)).unwrap()
    }

    fn status(&self) -> Told {
        tokio::task::block_in_place(|| self.query.status(0..1)).unwrap()
    }

    /// Rows, as `NODE:SOURCE-PORT`.
    fn rows(&self) -> Vec<String> {
        let rows = self.connections().connections.into_iter();
        let mut rows: Vec<String> =
            rows.map(|row| format!("{}:{}", row.node, row.source.port.unwrap())).collect();
        rows.sort_unstable();
        rows
    }
}

fn three() -> [World; 3] {
    let authority = Arc::new(Authority::new());
    [(); 3].map(|()| World::of(Arc::clone(&authority), TempDir::new().unwrap(), limits()))
}

/// The agent of `node` delivers batches to a server.
async fn deliver(world: &World, node: &str, epoch: u128, sequences: &[u64]) {
    let (mut talk, _) = world.agent(&format!("good-{node}")).greet(node, epoch).await;
    for sequence in sequences {
        assert_eq!(talk.deliver(batch(epoch, *sequence, 100)).await, Said::Committed);
    }
}

/// The agent of `node` says something of itself.
async fn say(world: &World, node: &str, epoch: u128, ticks: u64) {
    let (talk, _) = world.agent(&format!("good-{node}")).greet(node, epoch).await;
    let json = format!(r#"{{"state":"reading","interval_seconds":5,"ticks":{ticks}}}"#);
    let status = pb::Status { json: json.into_bytes() };
    talk.say(message(from_agent::Message::Status(status))).await;
    until("the status is on the board", || {
        world.board.nodes(NOW.seconds()).iter().any(|said| said.ticks == ticks)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_server_tells_of_all_and_a_node_that_moved_is_told_once() {
    let [a, b, c] = three();
    deliver(&a, "n1", 1, &[1, 2]).await;
    deliver(&b, "n2", 2, &[11]).await;
    deliver(&c, "n3", 3, &[21, 22]).await;
    let addresses = [a.address, b.address, c.address];
    let all = ["n1:1", "n1:2", "n2:11", "n3:21", "n3:22"];
    for world in [&a, &b, &c] {
        let asking = Asking::of(world, &addresses);
        assert_eq!(asking.rows(), all);
        let answer = asking.connections();
        assert_eq!((answer.known, answer.matching), (5, 5));
        assert_eq!(answer.peers.len(), 2, "itself is not among them: {:?}", answer.peers);
        for peer in &answer.peers {
            assert_eq!((peer.state, peer.nodes), (PeerState::Ok, Some(1)), "{peer:?}");
            assert!(peer.milliseconds.is_some() && peer.reason.is_none(), "{peer:?}");
        }
    }
    // Its agent speaks to another one now: what the first one knew is not counted beside it.
    deliver(&b, "n1", 1, &[3]).await;
    for world in [&a, &b, &c] {
        let asking = Asking::of(world, &addresses);
        let moved = ["n1:3", "n2:11", "n3:21", "n3:22"];
        assert_eq!(asking.rows(), moved);
        let answer = asking.connections();
        assert_eq!((answer.known, answer.matching), (4, 4));
        let by = vec![weir_flow::Field::Node];
        let question = RatesQuestion { by, limit: 9, ..RatesQuestion::default() };
        let rates = tokio::task::block_in_place(|| asking.query.rates(&question)).unwrap();
        let sums: Vec<u64> = rates.rates.iter().map(|row| row.connections).collect();
        assert_eq!((rates.rates.len(), sums.iter().sum::<u64>()), (3, 4), "{rates:?}");
    }
    // And back again.
    deliver(&a, "n1", 1, &[4]).await;
    assert_eq!(Asking::of(&c, &addresses).rows()[0], "n1:4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_go_through_all_servers_in_one_order() {
    let [a, b, c] = three();
    deliver(&a, "n1", 1, &[1, 4, 7]).await;
    deliver(&b, "n2", 2, &[2, 5]).await;
    deliver(&c, "n3", 3, &[3, 6]).await;
    let asking = Asking::of(&a, &[b.address, c.address]);
    let mut ports = Vec::new();
    for offset in 0..8 {
        let sort = weir_server::answer::ConnectionSort::Source;
        let question = ConnectionsQuestion { sort, offset, limit: 1, ..Default::default() };
        let answer = tokio::task::block_in_place(|| asking.query.connections(&question)).unwrap();
        assert_eq!(answer.matching, 7);
        ports.extend(answer.connections.iter().filter_map(|row| row.source.port));
    }
    assert_eq!(ports, [1, 2, 3, 4, 5, 6, 7]);
    let question = ConnectionsQuestion { offset: ROWS_MAX, limit: 1, ..Default::default() };
    let asked = tokio::task::block_in_place(|| asking.query.connections(&question));
    assert!(matches!(asked, Err(AnswerError::Question(text)) if text.contains("filter")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agents_say_of_themselves_is_told_once_by_whoever_heard_it_last() {
    let [a, b, _] = three();
    say(&a, "n1", 1, 7).await;
    say(&b, "n1", 1, 9).await;
    say(&b, "n2", 2, 3).await;
    for asking in [Asking::of(&a, &[b.address]), Asking::of(&b, &[a.address])] {
        let status = asking.status();
        let said: Vec<(&str, u64)> =
            status.nodes.iter().map(|said| (said.node.as_str(), said.ticks)).collect();
        assert_eq!(said, [("n1", 9), ("n2", 3)]);
        assert_eq!(status.peers[0].state, PeerState::Ok);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_servers_are_answered() {
    let [a, b, _] = three();
    deliver(&b, "n2", 2, &[1]).await;
    let pem = &a.authority.pem;
    let files = TempDir::new().unwrap();
    let issued = |names: &[&str]| {
        let (certificate, key) = a.authority.issue(names);
        let paths = (files.path().join(names[0]), files.path().join(format!("{}.key", names[0])));
        fs::write(&paths.0, certificate).unwrap();
        fs::write(&paths.1, key).unwrap();
        paths
    };
    for (token, identity, denial) in [
        (Some("forged"), None, Denial::Unauthenticated),
        (Some("good-n1"), None, Denial::NotAServer),
        (Some("audience-a"), None, Denial::WrongAudience),
        (Some("hung-a"), None, Denial::Undecided),
        (None, None, Denial::Missing),
        (None, Some(issued(&["n1.agents.weir"])), Denial::NotAServer),
    ] {
        let before = b.counts.denied(denial);
        let manner = Manner { authority: pem, token, identity };
        let asking = Asking::with(&a, &[b.address], manner);
        let answer = asking.connections();
        assert!(b.counts.denied(denial) > before, "{denial}");
        let expected =
            if denial == Denial::Undecided { PeerState::Failed } else { PeerState::Refused };
        assert_eq!(answer.peers[0].state, expected, "{denial}: {:?}", answer.peers);
        assert_eq!((answer.known, answer.peers[0].nodes), (0, None));
        if let Some(token) = token {
            assert!(!logged().contains(token) || token.len() < 8, "the log has {token:?}");
        }
    }
    let certificate =
        Manner { authority: pem, token: None, identity: Some(issued(&["weir-1.servers.weir"])) };
    assert_eq!(Asking::with(&a, &[b.address], certificate).rows(), ["n2:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_certificate_is_not_asked() {
    let [a, _, _] = three();
    let other = World::new();
    deliver(&other, "n2", 2, &[1]).await;
    let asking = Asking::of(&a, &[other.address]);
    let peers = asking.connections().peers;
    assert_eq!(peers[0].state, PeerState::Refused, "{peers:?}");
    assert!(peers[0].reason.as_deref().unwrap().contains("--peer-ca"), "{peers:?}");
    assert_eq!(other.counts.denied(Denial::Missing), 0, "no call was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_or_silent_costs_no_more_than_the_deadline() {
    let [a, b, _] = three();
    deliver(&a, "n1", 1, &[1]).await;
    deliver(&b, "n2", 2, &[2]).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung = Fake::start(&a.authority, Fake::Hangs).await;
    let others = [gone, silent.local_addr().unwrap(), b.address, hung];
    let asking = Asking::of(&a, &others);
    let begun = Instant::now();
    assert_eq!(asking.rows(), ["n1:1", "n2:2"], "the others' answers count");
    assert!(begun.elapsed() < DEADLINE + Duration::from_secs(1), "{:?}", begun.elapsed());
    let answer = asking.connections();
    let state = |address: SocketAddr| {
        let found = answer.peers.iter().find(|peer| peer.address == address.to_string());
        found.map(|peer| peer.state)
    };
    assert_eq!(state(gone), Some(PeerState::Unreachable), "{:?}", answer.peers);
    assert_eq!(state(others[1]), Some(PeerState::Unreachable), "{:?}", answer.peers);
    assert_eq!(state(hung), Some(PeerState::Late), "{:?}", answer.peers);
    assert_eq!(state(b.address), Some(PeerState::Ok), "{:?}", answer.peers);

    // Nobody who failed a moment ago is asked at once again, and that is said.
    let begun = Instant::now();
    let known = (0..5).map(|_| asking.connections().known).collect::<Vec<_>>();
    assert_eq!(known, [2; 5]);
    assert!(begun.elapsed() < 3 * DEADLINE, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_no_use_are_said_to_be() {
    let [a, _, _] = three();
    deliver(&a, "n1", 1, &[1]).await;
    for (fake, state, says) in [
        (Fake::Json(b"{}".to_vec()), PeerState::Failed, "cannot be read"),
        (Fake::Json(b"[[[[".to_vec()), PeerState::Failed, "cannot be read"),
        (Fake::Json(br#"{"holds":[]}"#.to_vec()), PeerState::Failed, "none to the question"),
        (Fake::Json(vec![b' '; ANSWER_BYTES_MAX + 1]), PeerState::Failed, "cannot be read"),
        (Fake::Packed(vec![0xff; 100]), PeerState::Failed, "cannot be read"),
        (Fake::Packed(vec![0; 5 << 20]), PeerState::Failed, "too large"),
        (Fake::Nobody, PeerState::Failed, "which server it is"),
        (Fake::Protocol(0), PeerState::OtherVersion, "share no protocol"),
        (Fake::Protocol(7), PeerState::OtherVersion, "share no protocol"),
        (Fake::Older, PeerState::OtherVersion, "older"),
        (Fake::TooMany, PeerState::Failed, "more connections than were asked for"),
    ] {
        let what = format!("{says} {state:?}");
        let address = Fake::start(&a.authority, fake).await;
        let asking = Asking::of(&a, &[address]);
        let answer = asking.connections();
        let peer = &answer.peers[0];
        assert_eq!(peer.state, state, "{what}: {peer:?}");
        assert!(peer.reason.as_deref().unwrap().contains(says), "{what}: {peer:?}");
        assert_eq!((answer.known, answer.connections.len()), (1, 1), "its own is there");
    }
}

/// Somebody at a server's address who is no proper server.
#[derive(Clone)]
enum Fake {
    /// Says nothing at all.
    Hangs,
    /// Answers with this JSON.
    Json(Vec<u8>),
    /// Answers with these bytes instead of compressed JSON.
    Packed(Vec<u8>),
    /// Does not say who it is.
    Nobody,
    /// Speaks another protocol.
    Protocol(u32),
    /// Has no such service.
    Older,
    /// Gives more than was asked for.
    TooMany,
}

#[tonic::async_trait]
impl PeersService for Fake {
    async fn ask(
        &self,
        _: Request<peers_pb::Question>,
    ) -> Result<Response<peers_pb::Answer>, Status> {
        let good = peers_pb::Answer {
            protocol: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: vec![7; 16],
            json: Vec::new(),
        };
        let packed = |json: &[u8]| pack(json, usize::MAX).unwrap();
        Ok(Response::new(match self {
            Self::Hangs => std::future::pending().await,
            Self::Json(json) => peers_pb::Answer { json: packed(json), ..good },
            Self::Packed(json) => peers_pb::Answer { json: json.clone(), ..good },
            Self::Nobody => peers_pb::Answer { instance: vec![7], ..good },
            Self::Protocol(protocol) => peers_pb::Answer { protocol: *protocol, ..good },
            Self::Older => return Err(Status::unimplemented("what?")),
            Self::TooMany => {
                let row = serde_json::to_value(weir_server::answer::ConnectionRow::default());
                let connections = Connections::default();
                let mut connections = serde_json::to_value(connections).unwrap();
                connections["connections"] = vec![row.unwrap(); 101].into();
                let told = serde_json::json!({ "holds": [], "connections": connections });
                peers_pb::Answer { json: packed(told.to_string().as_bytes()), ..good }
            }
        }))
    }
}

impl Fake {
    /// Answers at this address, with a certificate of this authority.
    async fn start(authority: &Authority, fake: Self) -> SocketAddr {
        let (certificate, key) = authority.issue(&["weir-server"]);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, incoming) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    drop(connections.send(Ok::<_, io::Error>(Met(stream))).await);
                }
            }
        });
        let service = PeersServer::new(fake);
        tokio::spawn(Server::builder().serve_with_incoming(service, ReceiverStream::new(incoming)));
        address
    }
}

/// A connection with somebody.
struct Met(TlsStream<TcpStream>);

impl Connected for Met {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Met {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Met {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
