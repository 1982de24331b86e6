//! This machine's TCP sockets: what anybody may see, without any privilege.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use hashbrown::HashMap;
use weir_flow::{Counters, Protocol, Sample, Status, TcpState, Totals, Tuple};

use super::{FlowSource, Heard, Visitor};
use crate::AgentError;
use crate::local::{SocketUse, TcpConnection, TcpSockets};

/// More connections than this are not followed.
const MAX_CONNECTIONS: usize = 262_144;
/// Connections per piece of a dump.
const PIECE: usize = 256;
/// `IPS_SEEN_REPLY` and `IPS_CONFIRMED`, and `IPS_ASSURED` of what was established.
const REPLIED: u32 = 1 << 1 | 1 << 3;
const ESTABLISHED: u32 = REPLIED | 1 << 2;
/// `IPS_CONFIRMED` alone.
const UNREPLIED: u32 = 1 << 3;

/// The TCP sockets of this network namespace, as samples: one per connection, from the end that
/// opened it. Bytes are payload; packets are segments.
#[derive(Debug, Default)]
pub struct SocketSource {
    sockets: TcpSockets,
    /// The connections of the last listing, by their ends, the lower one first.
    lives: HashMap<[(IpAddr, u16); 2], Life>,
    /// What of the running dump is still to be given.
    waiting: Vec<Sample>,
}

/// What must not change from one listing to the next while a connection lives: its identity, its
/// direction, and the sense in which its counters run.
#[derive(Clone, Copy, Debug)]
struct Life {
    id: u32,
    /// Which end was dialled. A listener that closes must not turn its connections round.
    destination: usize,
    /// By end, as far as its socket was ever seen.
    cookies: [Option<u64>; 2],
    /// Segments sent and received by each end's socket; the kernel's own counts wrap.
    segments: [[u64; 2]; 2],
    totals: Totals,
}

impl SocketSource {
    /// Opens the source: lists the sockets once.
    pub fn open() -> Result<Self, AgentError> {
        let mut source = Self::default();
        source.sockets.list()?;
        Ok(source)
    }

    /// Takes in a listing.
    fn listed(&mut self, sockets: &[SocketUse]) -> Result<(), AgentError> {
        let (mut lives, mut samples) = (HashMap::new(), Vec::new());
        for connection in TcpConnection::join(sockets) {
            if samples.len() >= MAX_CONNECTIONS {
                return Err(AgentError::TooManySockets { limit: MAX_CONNECTIONS });
            }
            let before = self.lives.get(&connection.ends);
            let life = Life::of(&connection, before.filter(|life| life.goes_on(&connection)));
            samples.push(life.sample(&connection));
            lives.insert(connection.ends, life);
        }
        self.lives = lives;
        // Given out from the back.
        samples.reverse();
        self.waiting = samples;
        Ok(())
    }
}

impl Life {
    /// True when one of the sockets is still the same.
    fn goes_on(&self, connection: &TcpConnection<'_>) -> bool {
        let cookies = connection.sockets.map(|socket| socket.map(|socket| socket.cookie));
        (0..2).any(|end| cookies[end].is_some() && cookies[end] == self.cookies[end])
    }

    /// The connection as it is now, after what it was before.
    fn of(connection: &TcpConnection<'_>, before: Option<&Self>) -> Self {
        let destination = before.map_or(connection.destination, |before| before.destination);
        let connection = TcpConnection { destination, ..*connection };
        let id = before.map_or_else(|| identity(&connection), |before| before.id);
        let (mut cookies, mut segments) =
            before.map_or_else(Default::default, |before| (before.cookies, before.segments));
        for (end, socket) in connection.sockets.iter().enumerate() {
            let Some(socket) = socket else { continue };
            if cookies[end] != Some(socket.cookie) {
                (cookies[end], segments[end]) = (Some(socket.cookie), [0; 2]);
            }
            let [sent, received] = &mut segments[end];
            *sent = unwrapped(*sent, socket.segments_sent);
            *received = unwrapped(*received, socket.segments_received);
        }
        let bytes = connection.both_ways(|socket| (socket.bytes_acked, socket.bytes_received));
        let packets = connection.both_ways(|socket| {
            let own = usize::from(socket.local != connection.ends[0]);
            let [sent, received] = segments[own];
            (sent, received)
        });
        let floor = before.map(|before| before.totals).unwrap_or_default();
        // Which end's socket is asked changes when one of them goes, and they differ by a byte for
        // SYN and FIN: what has been counted stays counted.
        let counters = |packets: u64, bytes: u64, floor: Counters| Counters {
            packets: packets.max(floor.packets),
            bytes: bytes.max(floor.bytes),
        };
        let totals = Totals {
            sent: counters(packets.0, bytes.0, floor.sent),
            received: counters(packets.1, bytes.1, floor.received),
        };
        Self { id, destination, cookies, segments, totals }
    }

    fn sample(&self, connection: &TcpConnection<'_>) -> Sample {
        let (source, destination) =
            (connection.ends[1 - self.destination], connection.ends[self.destination]);
        let tuple = |from: (IpAddr, u16), to: (IpAddr, u16)| Tuple {
            protocol: Protocol::TCP,
            source: from.0,
            destination: to.0,
            source_port: from.1,
            destination_port: to.1,
        };
        // The end that opened knows best, where its socket is here.
        let socket =
            connection.sockets[1 - self.destination].or(connection.sockets[self.destination]);
        let state = socket.map_or(0, |socket| tracked_state(socket.state));
        let status = match state {
            1 => UNREPLIED,
            2 => REPLIED,
            _ => ESTABLISHED,
        };
        Sample {
            id: self.id,
            original: tuple(source, destination),
            reply: tuple(destination, source),
            totals: Some(self.totals),
            status: Status(status),
            tcp: Some(TcpState { state, ..TcpState::default() }),
            ..Sample::default()
        }
    }
}

/// What tells this connection from an earlier one with the same ends: its opener's cookie, else
/// the other end's.
fn identity(connection: &TcpConnection<'_>) -> u32 {
    let socket = connection.sockets[connection.source()];
    let cookie = socket.or(connection.sockets[connection.destination]).map(|socket| socket.cookie);
    let cookie = cookie.unwrap_or_default();
    let folded = (cookie ^ cookie >> 32) & u64::from(u32::MAX);
    u32::try_from(folded).expect("masked to 32 bits")
}

/// A count that wraps at 32 bits, continued.
fn unwrapped(before: u64, now: u32) -> u64 {
    let low = u32::try_from(before & u64::from(u32::MAX)).expect("masked to 32 bits");
    before + u64::from(now.wrapping_sub(low))
}

/// A socket's state (`include/net/tcp_states.h`) as connection tracking would call it (`enum
/// tcp_conntrack`), which sees the segments of both ends.
fn tracked_state(state: u8) -> u8 {
    match state {
        1 => 3,      // ESTABLISHED
        2 => 1,      // SYN_SENT
        3 => 2,      // SYN_RECV
        4 => 4,      // FIN_WAIT1: a FIN is on its way
        5 | 8 => 5,  // FIN_WAIT2, CLOSE_WAIT: one end's FIN is acknowledged
        9 | 11 => 6, // LAST_ACK, CLOSING: both ends' FINs are on their way
        6 => 7,      // TIME_WAIT
        7 => 8,      // CLOSE
        _ => 0,
    }
}

impl FlowSource for SocketSource {
    fn name(&self) -> &'static str {
        "sockets"
    }

    fn limits(&self) -> Option<&'static str> {
        Some(
            "this machine's own TCP sockets: no other protocols, nothing forwarded, nothing of \
             containers with a network of their own; bytes are payload without headers and \
             retransmissions, packets are TCP segments; what a connection moves between the last \
             reading and its end is not seen",
        )
    }

    fn wait(&self, timeout: Duration) -> Result<bool, AgentError> {
        thread::sleep(timeout);
        Ok(false)
    }

    fn drain(&mut self, _visitor: &mut dyn Visitor) -> Result<Heard, AgentError> {
        Ok(Heard::default())
    }

    fn begin_dump(&mut self) -> Result<(), AgentError> {
        self.waiting.clear();
        let sockets = self.sockets.list()?;
        self.listed(&sockets)
    }

    fn next_piece(&mut self, visitor: &mut dyn Visitor) -> Result<Option<Heard>, AgentError> {
        if self.waiting.is_empty() {
            return Ok(None);
        }
        let rest = self.waiting.len().saturating_sub(PIECE);
        for sample in self.waiting.drain(rest..).rev() {
            visitor.entry(&sample);
        }
        Ok(Some(Heard::default()))
    }

    fn malformed(&self) -> u64 {
        self.sockets.unreadable()
    }
}

#[cfg(test)]
mod tests;
