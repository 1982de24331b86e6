//! UDP: each datagram says how long its answer shall be.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::plan::{Connection, SourcePlan};
use super::sink::Seen;
use super::source::Tally;

/// The answer's length (`u16`), the connection's index and the datagram's number (`u32` each).
const HEADER_BYTES: u64 = 10;
/// Payload of a datagram at most: fits every path without fragments.
const DATAGRAM_BYTES: u64 = 1_200;
/// Room for a datagram.
const ROOM: [u8; 1_200] = [0; 1_200];
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes one connection: a socket of its own, and as many datagrams as its bytes need.
pub(super) fn connect(plan: &SourcePlan, connection: &Connection, tally: &Tally) -> io::Result<()> {
    let any: SocketAddr = match plan.target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(plan.target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let begin = Instant::now();
    let most = connection.request.max(connection.response);
    let needed = u32::try_from(most.div_ceil(DATAGRAM_BYTES)).unwrap_or(u32::MAX);
    let connection = Connection { rounds: connection.rounds.max(needed), ..*connection };
    let mut buffer = ROOM;
    for round in 0..connection.rounds {
        let size = connection.slice(connection.request, round).max(HEADER_BYTES);
        let wanted = connection.slice(connection.response, round).max(HEADER_BYTES);
        let datagram = &mut buffer[..usize::try_from(size).unwrap_or(usize::MAX)];
        datagram[..2].copy_from_slice(&u16::try_from(wanted).unwrap_or(u16::MAX).to_be_bytes());
        datagram[2..6].copy_from_slice(&connection.index.to_be_bytes());
        datagram[6..10].copy_from_slice(&round.to_be_bytes());
        let head: [u8; 8] = [
            datagram[2],
            datagram[3],
            datagram[4],
            datagram[5],
            datagram[6],
            datagram[7],
            datagram[8],
            datagram[9],
        ];
        socket.send(datagram)?;
        Tally::add(&tally.sent, size);
        loop {
            let received = socket.recv(&mut buffer).map_err(unanswered)?;
            Tally::add(&tally.received, received as u64);
            if buffer.get(2..10) == Some(&head[..]) {
                break;
            }
        }
        if round == 0 {
            Tally::add(&tally.established, 1);
        }
        thread::sleep(connection.round_end(round).saturating_sub(begin.elapsed()));
    }
    Ok(())
}

fn unanswered(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "a datagram had no answer"),
        _ => error,
    }
}

/// Answers datagrams, as long as the process lives.
pub(super) fn answer(socket: &UdpSocket, seen: &Arc<Seen>) -> ! {
    let mut buffer = ROOM;
    loop {
        // A socket without a peer reports errors of earlier answers here; none of them ends it.
        let Ok((received, from)) = socket.recv_from(&mut buffer) else { continue };
        seen.received.fetch_add(received as u64, Ordering::Relaxed);
        if (received as u64) < HEADER_BYTES {
            continue;
        }
        let wanted = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
        if let Ok(sent) = socket.send_to(&buffer[..wanted.min(buffer.len())], from) {
            seen.sent.fetch_add(sent as u64, Ordering::Relaxed);
        }
    }
}
