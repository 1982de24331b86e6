//! Connections with their rates, before anybody asks whose they are.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Duration;

use weir_flow::{Protocol, WallTime};

/// One end: address and port (ICMP: identifier, or type and code).
pub(crate) type Place = (IpAddr, u16);

/// By what door connections were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The conntrack table.
    Conntrack,
    /// This machine's TCP sockets.
    Sockets,
}

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Conntrack => "conntrack",
            Self::Sockets => "sockets",
        }
    }
}

/// Two readings, compared.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) source: Source,
    /// Time between the readings.
    pub(crate) interval: Duration,
    /// When the second was taken.
    pub(crate) now: WallTime,
    pub(crate) connections: Vec<Measured>,
    /// What keeps the answer from being complete, each with its remedy.
    pub(crate) doubts: Vec<String>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) protocol: Protocol,
    /// Who opened.
    pub(crate) source: Place,
    /// The real backend.
    pub(crate) destination: Place,
    /// The service address dialled, where it differs from the backend.
    pub(crate) service: Option<Place>,
    /// What the source was translated to, where it was.
    pub(crate) translated_source: Option<Place>,
    pub(crate) start: Option<WallTime>,
    pub(crate) state: Option<&'static str>,
    /// Since the connection began; `None`: nobody counted.
    pub(crate) total: Option<Bytes>,
    /// `None`: not measured at both readings.
    pub(crate) per_second: Option<Bytes>,
}

/// Bytes of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    /// Source to destination.
    pub(crate) sent: u64,
    /// Destination to source.
    pub(crate) received: u64,
}

impl Bytes {
    fn sum(self) -> u64 {
        self.sent.saturating_add(self.received)
    }

    /// These bytes of `interval` as a rate, rounded to whole bytes per second.
    pub(crate) fn per_second(self, interval: Duration) -> Option<Self> {
        let nanos = interval.as_nanos();
        let rate = |bytes: u64| {
            let rounded = (u128::from(bytes) * 1_000_000_000 + nanos / 2).checked_div(nanos)?;
            u64::try_from(rounded).ok()
        };
        Some(Self { sent: rate(self.sent)?, received: rate(self.received)? })
    }
}

/// Sorts by rate, then by total, the unknown last, then by tuple; keeps the first `limit`.
pub(crate) fn rank(connections: &mut Vec<Measured>, limit: Option<usize>) {
    connections.sort_unstable_by_key(|connection| {
        let Measured { protocol, source, destination, service, .. } = *connection;
        let rate = Reverse(connection.per_second.map(Bytes::sum));
        let total = Reverse(connection.total.map(Bytes::sum));
        (rate, total, protocol, source, destination, service)
    });
    connections.truncate(limit.unwrap_or(usize::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_over_the_measured_time() {
        let bytes = Bytes { sent: 3_000, received: 1 };
        let rate = bytes.per_second(Duration::from_millis(1_500));
        assert_eq!(rate, Some(Bytes { sent: 2_000, received: 1 }));
        assert_eq!(bytes.per_second(Duration::ZERO), None);
        let most = Bytes { sent: u64::MAX, received: 0 };
        assert_eq!(most.per_second(Duration::from_secs(1)), Some(most));
        assert_eq!(most.per_second(Duration::from_nanos(1)), None);
    }

    #[test]
    fn the_busiest_come_first_and_the_unknown_last() {
        let make = |port, rate: Option<u64>, total: Option<u64>| Measured {
            protocol: Protocol::TCP,
            source: ([10, 0, 0, 1].into(), port),
            destination: ([10, 0, 0, 2].into(), 80),
            service: None,
            translated_source: None,
            start: None,
            state: None,
            total: total.map(|sent| Bytes { sent, received: 0 }),
            per_second: rate.map(|sent| Bytes { sent, received: 0 }),
        };
        let mut connections = vec![
            make(6, None, None),
            make(5, None, Some(9)),
            make(4, Some(0), Some(1)),
            make(3, Some(0), Some(2)),
            make(2, Some(0), Some(2)),
            make(1, Some(7), Some(7)),
        ];
        let mut all = connections.clone();
        rank(&mut all, None);
        let ports: Vec<u16> = all.iter().map(|connection| connection.source.1).collect();
        assert_eq!(ports, [1, 2, 3, 4, 5, 6]);
        rank(&mut connections, Some(2));
        assert_eq!(connections, all[..2]);
    }
}
