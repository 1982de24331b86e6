//! ICMP and ICMPv6 echo over a raw socket; the target's kernel answers.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use super::plan::{Connection, SourcePlan};
use super::source::Tally;

/// Type, code, checksum, identifier, sequence (RFC 792, RFC 4443).
const HEADER_BYTES: usize = 8;
/// Payload of an echo at most: fits every path without fragments.
const ECHO_BYTES: u64 = 1_200;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// One connection: an identifier of its own, and as many echoes as its bytes need. The response
/// bytes of the plan do not matter: an echo answers what it was sent.
pub(super) fn connect(plan: &SourcePlan, connection: &Connection, tally: &Tally) -> io::Result<()> {
    let socket = raw_socket(&plan.target)?;
    socket.connect(plan.target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let begin = Instant::now();
    let needed = u32::try_from(connection.request.div_ceil(ECHO_BYTES)).unwrap_or(u32::MAX);
    let connection = Connection { rounds: connection.rounds.max(needed), ..*connection };
    let offset = u16::try_from(connection.index % 65_536).unwrap_or(0);
    let identifier = plan.first_identifier.wrapping_add(offset);
    for round in 0..connection.rounds {
        let payload = connection.slice(connection.request, round);
        let sequence = u16::try_from(round % 65_536).unwrap_or(0);
        let echo = echo(plan.target.is_ipv4(), identifier, sequence, payload);
        socket.send(&echo)?;
        Tally::add(&tally.sent, payload);
        let received = receive(&socket, plan.target.is_ipv4(), identifier, sequence)?;
        Tally::add(&tally.received, received);
        if round == 0 {
            Tally::add(&tally.established, 1);
        }
        thread::sleep(connection.round_end(round).saturating_sub(begin.elapsed()));
    }
    Ok(())
}

/// A raw ICMP socket as a `UdpSocket`, which connects, sends and receives without knowing better.
fn raw_socket(target: &SocketAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match target {
        SocketAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
        SocketAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    #[expect(unsafe_code, reason = "the standard library has no raw sockets")]
    // SAFETY: socket(2) takes three integers and touches no memory of ours.
    let descriptor = unsafe { libc::socket(domain, kind, protocol) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "the descriptor comes from the call above")]
    // SAFETY: the descriptor was just made, is valid, and nobody else owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(UdpSocket::from(owned))
}

fn echo(four: bool, identifier: u16, sequence: u16, payload: u64) -> Vec<u8> {
    let length = HEADER_BYTES + usize::try_from(payload).unwrap_or(0);
    let mut message = vec![b'w'; length];
    message[..4].copy_from_slice(&[if four { 8 } else { 128 }, 0, 0, 0]);
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    if four {
        // For ICMPv6 the kernel fills the checksum in, since it covers the addresses.
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// The Internet checksum (RFC 1071).
fn checksum(message: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in message.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Waits for the answer to one echo and returns its payload's length. A raw socket sees every
/// ICMP message of its peer; the others' are passed over.
fn receive(socket: &UdpSocket, four: bool, identifier: u16, sequence: u16) -> io::Result<u64> {
    let mut buffer = [0; 2_048];
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        let mut message = &buffer[..length];
        if four {
            // The IPv4 header comes along; its length is in the low half of the first byte.
            let header = message.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
            message = message.get(header..).unwrap_or(&[]);
        }
        let answer = if four { 0 } else { 129 };
        let [id0, id1] = identifier.to_be_bytes();
        let [seq0, seq1] = sequence.to_be_bytes();
        if message.len() >= HEADER_BYTES
            && message[0] == answer
            && message[4..8] == [id0, id1, seq0, seq1]
        {
            return Ok((message.len() - HEADER_BYTES) as u64);
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, "an echo had no answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_message_with_its_checksum_is_zero() {
        for payload in [0, 1, 7, 56, 1_199] {
            assert_eq!(checksum(&echo(true, 0xabcd, 7, payload)), 0, "{payload}");
        }
    }
}
