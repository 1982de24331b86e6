//! Accepting connections: how many, how slow, and how long somebody may stay unknown.
//!
//! The loop is ours because everybody who reaches the port reaches it: garbage, half a handshake
//! and silence must cost others nothing.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::counts::{Counts, TurnedAway};
use super::door::locked;
use super::seldom::Seldom;
use super::tls::Tls;
use super::{WireLimits, stopped};

/// After an error of accepting, most likely too many open files: for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until told to stop.
pub(super) struct Listener {
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) limits: WireLimits,
    pub(super) counts: Arc<Counts>,
    pub(super) connections: mpsc::Sender<io::Result<Connection>>,
}

impl Listener {
    pub(super) async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let crowd = Arc::<Crowd>::default();
        let seldom = Arc::<Seldom>::default();
        let mut handshakes = JoinSet::new();
        loop {
            let (stream, address) = tokio::select! {
                () = stopped(&mut stop) => return,
                Some(_) = handshakes.join_next() => continue,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::debug!(%error, "accepting a connection failed");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let Some(place) = crowd.enter(address.ip(), &self.limits, &self.counts) else {
                continue;
            };
            let handshake = Handshake {
                acceptor: self.tls.as_ref().map(|tls| tls.acceptor()),
                limits: self.limits,
                counts: Arc::clone(&self.counts),
                connections: self.connections.clone(),
                seldom: Arc::clone(&seldom),
            };
            handshakes.spawn(handshake.run(stream, address, place));
        }
    }
}

struct Handshake {
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    limits: WireLimits,
    counts: Arc<Counts>,
    connections: mpsc::Sender<io::Result<Connection>>,
    seldom: Arc<Seldom>,
}

impl Handshake {
    async fn run(self, stream: TcpStream, address: SocketAddr, place: Place) {
        // Answers are short and somebody waits for them.
        drop(stream.set_nodelay(true));
        let io = match &self.acceptor {
            None => Io::Plain(stream),
            Some(acceptor) => {
                match timeout(self.limits.handshake_time, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => Io::Tls(Box::new(stream)),
                    Ok(Err(error)) => {
                        self.counts.count_turned_away(TurnedAway::Handshake);
                        if let Some(hidden) = self.seldom.may_say() {
                            tracing::warn!(peer = %address, %error, hidden, "no TLS handshake");
                        }
                        return;
                    }
                    Err(_late) => return self.counts.count_turned_away(TurnedAway::Slow),
                }
            }
        };
        let connection = Connection::new(io, address, place, self.limits.unknown_time);
        // Where nobody takes it, weir is stopping.
        drop(self.connections.send(Ok(connection)).await);
    }
}

/// Everybody who is connected.
#[derive(Debug, Default)]
struct Crowd(Mutex<Heads>);

#[derive(Debug, Default)]
struct Heads {
    all: usize,
    unknown: usize,
    unknown_of: HashMap<IpAddr, usize>,
}

impl Crowd {
    fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &WireLimits,
        counts: &Arc<Counts>,
    ) -> Option<Place> {
        let from = neighbourhood(address);
        let mut heads = locked(&self.0);
        let of_it = heads.unknown_of.get(&from).copied().unwrap_or(0);
        if heads.all >= limits.connections || heads.unknown >= limits.unknown {
            counts.count_turned_away(TurnedAway::TooMany);
            return None;
        }
        if of_it >= limits.unknown_of_one_address {
            counts.count_turned_away(TurnedAway::TooManyUnknown);
            return None;
        }
        heads.all += 1;
        heads.unknown += 1;
        heads.unknown_of.insert(from, of_it + 1);
        drop(heads);
        counts.connected();
        let unknown = Unknown { crowd: Arc::clone(self), from };
        Some(Place {
            crowd: Arc::clone(self),
            counts: Arc::clone(counts),
            unknown: Arc::new(Mutex::new(Some(unknown))),
        })
    }
}

/// An IPv6 peer can take any address of its network.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// A connection's place among all.
#[derive(Debug)]
struct Place {
    crowd: Arc<Crowd>,
    counts: Arc<Counts>,
    unknown: Arc<Mutex<Option<Unknown>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.crowd.0).all -= 1;
        self.counts.disconnected();
        drop(locked(&self.unknown).take());
    }
}

/// A place among those who have not said who they are.
#[derive(Debug)]
struct Unknown {
    crowd: Arc<Crowd>,
    from: IpAddr,
}

impl Drop for Unknown {
    fn drop(&mut self) {
        let mut heads = locked(&self.crowd.0);
        heads.unknown -= 1;
        if let Some(count) = heads.unknown_of.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                heads.unknown_of.remove(&self.from);
            }
        }
    }
}

/// Who is at the other end, as far as the connection tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    address: Option<SocketAddr>,
    /// Its certificate, verified.
    pub(super) certificate: Option<CertificateDer<'static>>,
    unknown: Arc<Mutex<Option<Unknown>>>,
}

impl Peer {
    /// It has said who it is: it may stay.
    pub(super) fn is_known(&self) {
        drop(locked(&self.unknown).take());
    }

    pub(super) fn address_text(&self) -> String {
        self.address.map_or_else(|| "?".to_owned(), |address| address.to_string())
    }
}

/// A connection after its handshake. One whose peer stays unknown for too long breaks.
#[derive(Debug)]
pub(super) struct Connection {
    io: Io,
    peer: Peer,
    patience: Option<Pin<Box<Sleep>>>,
    place: Place,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn new(io: Io, address: SocketAddr, place: Place, patience: Duration) -> Self {
        let certificate = match &io {
            Io::Plain(_) => None,
            Io::Tls(stream) => stream.get_ref().1.peer_certificates().and_then(<[_]>::first),
        };
        let peer = Peer {
            address: Some(address),
            certificate: certificate.map(|certificate| certificate.clone().into_owned()),
            unknown: Arc::clone(&place.unknown),
        };
        Self { io, peer, patience: Some(Box::pin(sleep(patience))), place }
    }

    /// Ready where the peer has been unknown for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(patience) = &mut self.patience else { return Poll::Pending };
        if locked(&self.place.unknown).is_none() {
            self.patience = None;
            return Poll::Pending;
        }
        if patience.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.place.counts.count_turned_away(TurnedAway::Silent);
        self.patience = None;
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the peer did not say who it is"))
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_patience(cx) {
            return Poll::Ready(Err(error));
        }
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
