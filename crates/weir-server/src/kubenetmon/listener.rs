//! Accepting connections of whoever comes: a bounded number, in all and of one address.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tonic::transport::server::Connected;

use super::Limits;
use super::counts::{Counts, locked};

/// After an error of accepting, most likely too many open files: for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until told to stop.
pub(super) struct Listener {
    pub(super) limits: Limits,
    pub(super) counts: Arc<Counts>,
    pub(super) connections: mpsc::Sender<io::Result<Connection>>,
}

impl Listener {
    pub(super) async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let crowd = Arc::<Crowd>::default();
        loop {
            let (stream, address) = tokio::select! {
                () = super::stopped(&mut stop) => return,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::debug!(%error, "accepting a connection failed");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let Some(place) = crowd.enter(address.ip(), self.limits, &self.counts) else {
                self.counts.count_turned_away();
                continue;
            };
            let connection = Connection { stream, _place: place };
            if self.connections.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    }
}

/// Everybody who is connected, by address.
#[derive(Debug, Default)]
struct Crowd(Mutex<HashMap<IpAddr, usize>>);

impl Crowd {
    fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        limits: Limits,
        counts: &Arc<Counts>,
    ) -> Option<Place> {
        let mut heads = locked(&self.0);
        let of_it = heads.get(&address).copied().unwrap_or(0);
        if heads.values().sum::<usize>() >= limits.connections
            || of_it >= limits.connections_of_one_address
        {
            return None;
        }
        heads.insert(address, of_it + 1);
        drop(heads);
        counts.connected();
        Some(Place { crowd: Arc::clone(self), counts: Arc::clone(counts), address })
    }
}

/// A connection's place among all.
#[derive(Debug)]
struct Place {
    crowd: Arc<Crowd>,
    counts: Arc<Counts>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut heads = locked(&self.crowd.0);
        if let Some(count) = heads.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                heads.remove(&self.address);
            }
        }
        self.counts.disconnected();
    }
}

/// A connection that has its place for as long as it lasts.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    _place: Place,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
