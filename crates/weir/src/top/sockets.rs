//! Connections as this machine's TCP sockets have them: what anybody may see.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Context as _;
use weir_agent::clock;
use weir_agent::local::{LocalDirectory, SocketUse};
use weir_flow::{BootTime, Protocol, port};

use super::measured::{Bytes, Measured, Place, Reading, Source};
use super::{Lacking, program};

/// Reads the sockets again and again, and compares each reading with the one before.
#[derive(Debug)]
pub(crate) struct Sockets {
    directory: LocalDirectory,
    read_at: BootTime,
    /// Bytes sent and received by each socket, by cookie.
    previous: HashMap<u64, (u64, u64)>,
}

impl Sockets {
    /// Takes the first reading.
    pub(crate) fn open(directory: LocalDirectory) -> anyhow::Result<Self> {
        let mut sockets = Self { directory, read_at: BootTime(0), previous: HashMap::new() };
        sockets.list()?;
        Ok(sockets)
    }

    /// Who is who.
    pub(crate) fn directory(&self) -> &LocalDirectory {
        &self.directory
    }

    /// Takes another reading.
    pub(crate) fn read(&mut self, lacking: Lacking) -> anyhow::Result<Reading> {
        let (before, previous) = (self.read_at, std::mem::take(&mut self.previous));
        let used = match self.list() {
            Ok(used) => used,
            Err(error) => {
                self.previous = previous;
                return Err(error);
            }
        };
        let interval = Duration::from_nanos(self.read_at.0.saturating_sub(before.0));
        Ok(Reading {
            source: Source::Sockets,
            interval,
            now: clock::wall(),
            connections: connections(&previous, interval, &used),
            doubts: vec![
                "only this machine's own TCP sockets are shown, with their payload: no headers, \
                 no retransmissions, no other protocols, nothing forwarded"
                    .to_owned(),
                lacking.advice(&program()),
            ],
        })
    }

    fn list(&mut self) -> anyhow::Result<Vec<SocketUse>> {
        self.directory.refresh(clock::wall()).context("list this machine's sockets")?;
        let read_at = clock::now().now;
        let used = self.directory.tcp_sockets().context("list this machine's TCP sockets")?;
        self.read_at = read_at;
        self.previous = used
            .iter()
            .map(|socket| (socket.cookie, (socket.bytes_acked, socket.bytes_received)))
            .collect();
        Ok(used)
    }
}

/// Both ends' sockets of one connection, where they are here: the lower end's first.
#[derive(Default)]
struct Pair<'a>([Option<&'a SocketUse>; 2]);

/// Turns sockets into connections. One between two sockets of this machine appears once.
fn connections(
    previous: &HashMap<u64, (u64, u64)>,
    interval: Duration,
    sockets: &[SocketUse],
) -> Vec<Measured> {
    let mut pairs: BTreeMap<[Place; 2], Pair<'_>> = BTreeMap::new();
    for socket in sockets {
        let (ends, own) = if socket.local <= socket.peer {
            ([socket.local, socket.peer], 0)
        } else {
            ([socket.peer, socket.local], 1)
        };
        pairs.entry(ends).or_default().0[own] = Some(socket);
    }
    let growth = |socket: &SocketUse| {
        // A cookie is never given twice: a socket that was not there has begun at 0 since.
        let (acked, received) = previous.get(&socket.cookie).copied().unwrap_or_default();
        let acked = socket.bytes_acked.saturating_sub(acked);
        (acked, socket.bytes_received.saturating_sub(received))
    };
    let measured = pairs.into_iter().map(|(ends, pair)| {
        let destination = pair.destination(ends);
        let source = 1 - destination;
        let total = pair.bytes(source, |socket| (socket.bytes_acked, socket.bytes_received));
        Measured {
            protocol: Protocol::TCP,
            source: ends[source],
            destination: ends[destination],
            service: None,
            translated_source: None,
            start: None,
            state: None,
            total: Some(total),
            per_second: pair.bytes(source, growth).per_second(interval),
        }
    });
    measured.collect()
}

impl Pair<'_> {
    /// Which end was dialled: the one that accepted. Where no listener tells, the only socket here
    /// has opened; of two, the one with the known port, else the lower one, was dialled.
    fn destination(&self, ends: [Place; 2]) -> usize {
        let accepted = self.0.map(|socket| socket.is_some_and(|socket| socket.accepted));
        let known = ends.map(|(_, number)| port::is_well_known(Protocol::TCP, number));
        if accepted[0] != accepted[1] {
            return usize::from(accepted[1]);
        }
        match &self.0 {
            [Some(_), None] => 1,
            [None, Some(_)] => 0,
            _ if known[0] != known[1] => usize::from(known[1]),
            _ => usize::from(ends[1].1 < ends[0].1),
        }
    }

    /// Bytes by direction. What an end has received is exact; what was acknowledged to it counts
    /// SYN and FIN as a byte each, so it serves only where the other end's socket is not here.
    fn bytes(&self, source: usize, of: impl Fn(&SocketUse) -> (u64, u64)) -> Bytes {
        let [source, destination] =
            [self.0[source], self.0[1 - source]].map(|socket| socket.map(&of));
        let received_by = |one: Option<(u64, u64)>, other: Option<(u64, u64)>| {
            one.map(|(_, received)| received)
                .or_else(|| other.map(|(acked, _)| acked))
                .unwrap_or_default()
        };
        Bytes { sent: received_by(destination, source), received: received_by(source, destination) }
    }
}

#[cfg(test)]
mod tests;
