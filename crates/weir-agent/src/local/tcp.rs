//! This machine's TCP connections as its sockets have them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use hashbrown::HashSet;
use weir_conntrack::Error;
use weir_conntrack::netlink::Socket;
use weir_flow::{Protocol, port};

use super::memory::wildcard;
use super::sockets::{self, DiagSocket};
use super::{BUFFER_BYTES, FAMILIES};

/// An address and a port.
type Place = (IpAddr, u16);

/// A TCP socket and what it has carried so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketUse {
    /// Unique while the machine is up.
    pub cookie: u64,
    /// Its state, one of `include/net/tcp_states.h`.
    pub state: u8,
    /// This end's address and port.
    pub local: (IpAddr, u16),
    /// The other end's address and port, as this socket sees it.
    pub peer: (IpAddr, u16),
    /// A socket of this machine listens on the local port: the other end opened the connection.
    pub accepted: bool,
    /// Payload bytes that the peer has acknowledged (`tcpi_bytes_acked`): no headers, no
    /// retransmissions.
    pub bytes_acked: u64,
    /// Payload bytes received (`tcpi_bytes_received`).
    pub bytes_received: u64,
    /// Segments sent (`tcpi_segs_out`), the empty and the repeated included; wraps at 32 bits.
    pub segments_sent: u32,
    /// Segments received (`tcpi_segs_in`); wraps at 32 bits.
    pub segments_received: u32,
}

/// Lists the TCP sockets of the network namespace of the calling thread. Nothing here needs
/// privilege.
#[derive(Debug)]
pub struct TcpSockets {
    buffer: Vec<u8>,
    found: Vec<DiagSocket>,
    unreadable: u64,
}

impl Default for TcpSockets {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES], found: Vec::new(), unreadable: 0 }
    }
}

impl TcpSockets {
    /// Lists the connected sockets with what they carried. Sockets whose kernel does not count
    /// (before Linux 4.2) are left out.
    pub fn list(&mut self) -> Result<Vec<SocketUse>, Error> {
        let socket = Socket::open(libc::NETLINK_SOCK_DIAG)?;
        let Self { buffer, found, unreadable } = self;
        found.clear();
        for family in FAMILIES {
            let each = |socket| found.push(socket);
            match sockets::list(&socket, buffer, Protocol::TCP, family, true, each) {
                Ok(passed_over) => *unreadable += passed_over,
                // The kernel has no such sockets.
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        let mut listened: HashSet<Place> = HashSet::new();
        for socket in found.iter().filter(|socket| socket.listens()) {
            listened.insert(socket.local);
            if socket.takes_both_families {
                listened.insert((Ipv4Addr::UNSPECIFIED.into(), socket.local.1));
            }
        }
        let used = found.iter().filter_map(|socket| {
            let (peer, carried) = socket.peer.zip(socket.carried)?;
            let (address, port) = socket.local;
            Some(SocketUse {
                cookie: socket.cookie,
                state: socket.state,
                local: socket.local,
                peer,
                accepted: [address, wildcard(address)]
                    .iter()
                    .any(|address| listened.contains(&(*address, port))),
                bytes_acked: carried.bytes_acked,
                bytes_received: carried.bytes_received,
                segments_sent: carried.segments_sent,
                segments_received: carried.segments_received,
            })
        });
        Ok(used.collect())
    }

    /// Netlink messages that could not be read since this was made.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// A connection by the sockets of its ends, as far as they are here. One between two sockets of
/// this machine is one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConnection<'a> {
    /// Both ends, the lower one first.
    pub ends: [(IpAddr, u16); 2],
    /// The ends' sockets, in the same order.
    pub sockets: [Option<&'a SocketUse>; 2],
    /// Which end was dialled.
    pub destination: usize,
}

impl<'a> TcpConnection<'a> {
    /// Joins sockets to connections, in the order of their ends.
    pub fn join(sockets: &'a [SocketUse]) -> impl Iterator<Item = Self> {
        let mut pairs: BTreeMap<[Place; 2], [Option<&SocketUse>; 2]> = BTreeMap::new();
        for socket in sockets {
            let (ends, own) = if socket.local <= socket.peer {
                ([socket.local, socket.peer], 0)
            } else {
                ([socket.peer, socket.local], 1)
            };
            pairs.entry(ends).or_default()[own] = Some(socket);
        }
        pairs.into_iter().map(|(ends, sockets)| {
            let destination = dialled(ends, sockets);
            Self { ends, sockets, destination }
        })
    }

    /// Which end opened the connection.
    pub fn source(&self) -> usize {
        1 - self.destination
    }

    /// What went to the destination, and what came back, where `of` says what a socket has sent
    /// and received. What an end has received is exact; what was acknowledged to it counts SYN and
    /// FIN as a byte each, so it serves only where the other end's socket is not here.
    pub fn both_ways(&self, of: impl Fn(&SocketUse) -> (u64, u64)) -> (u64, u64) {
        let [source, destination] =
            [self.source(), self.destination].map(|end| self.sockets[end].map(&of));
        let to = |one: Option<(u64, u64)>, other: Option<(u64, u64)>| {
            one.map(|(_, received)| received)
                .or_else(|| other.map(|(sent, _)| sent))
                .unwrap_or_default()
        };
        (to(destination, source), to(source, destination))
    }
}

/// Which end was dialled: the one that accepted. Where no listener tells, the only socket here has
/// opened; of two, the one with the known port, else the lower one, was dialled.
fn dialled(ends: [Place; 2], sockets: [Option<&SocketUse>; 2]) -> usize {
    let accepted = sockets.map(|socket| socket.is_some_and(|socket| socket.accepted));
    let known = ends.map(|(_, number)| port::is_well_known(Protocol::TCP, number));
    if accepted[0] != accepted[1] {
        return usize::from(accepted[1]);
    }
    match sockets {
        [Some(_), None] => 1,
        [None, Some(_)] => 0,
        _ if known[0] != known[1] => usize::from(known[1]),
        _ => usize::from(ends[1].1 < ends[0].1),
    }
}
