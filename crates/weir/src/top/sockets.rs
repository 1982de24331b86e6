//! Connections as this machine's TCP sockets have them: what anybody may see.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use weir_agent::clock;
use weir_agent::local::{LocalDirectory, SocketUse, TcpConnection, TcpSockets};
use weir_flow::{BootTime, Protocol};

use super::measured::{Bytes, Measured, Reading, Source};
use super::{Lacking, program};

/// Reads the sockets again and again, and compares each reading with the one before.
#[derive(Debug)]
pub(crate) struct Sockets {
    directory: LocalDirectory,
    list: TcpSockets,
    read_at: BootTime,
    /// Bytes sent and received by each socket, by cookie.
    previous: HashMap<u64, (u64, u64)>,
}

impl Sockets {
    /// Takes the first reading.
    pub(crate) fn open(directory: LocalDirectory) -> anyhow::Result<Self> {
        let mut sockets = Self {
            directory,
            list: TcpSockets::default(),
            read_at: BootTime(0),
            previous: HashMap::new(),
        };
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
        let used = self.list.list().context("list this machine's TCP sockets")?;
        self.read_at = read_at;
        self.previous = used
            .iter()
            .map(|socket| (socket.cookie, (socket.bytes_acked, socket.bytes_received)))
            .collect();
        Ok(used)
    }
}

/// Turns sockets into connections. One between two sockets of this machine appears once.
fn connections(
    previous: &HashMap<u64, (u64, u64)>,
    interval: Duration,
    sockets: &[SocketUse],
) -> Vec<Measured> {
    let growth = |socket: &SocketUse| {
        // A cookie is never given twice: a socket that was not there has begun at 0 since.
        let (acked, received) = previous.get(&socket.cookie).copied().unwrap_or_default();
        let acked = socket.bytes_acked.saturating_sub(acked);
        (acked, socket.bytes_received.saturating_sub(received))
    };
    let bytes = |(sent, received)| Bytes { sent, received };
    let measured = TcpConnection::join(sockets).map(|connection| {
        let total = connection.both_ways(|socket| (socket.bytes_acked, socket.bytes_received));
        Measured {
            protocol: Protocol::TCP,
            source: connection.ends[connection.source()],
            destination: connection.ends[connection.destination],
            service: None,
            translated_source: None,
            start: None,
            state: None,
            total: Some(bytes(total)),
            per_second: bytes(connection.both_ways(growth)).per_second(interval),
        }
    });
    measured.collect()
}

#[cfg(test)]
mod tests;
