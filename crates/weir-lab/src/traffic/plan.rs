//! What generators are told, and what they tell.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::scenario::{Pattern, Scenario, Span, Stream, TrafficProtocol};

/// A sink's orders.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SinkPlan {
    /// Where to listen.
    pub listen: Vec<(TrafficProtocol, SocketAddr)>,
}

/// A source's orders.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourcePlan {
    /// What to speak.
    pub protocol: TrafficProtocol,
    /// The address to speak from, for the report.
    pub source: IpAddr,
    /// What to dial.
    pub target: SocketAddr,
    /// How many connections.
    pub connections: u32,
    /// How many at a time at most.
    pub concurrency: u32,
    /// When the first begins, from the source's own start.
    pub start: Duration,
    /// In what time they all begin.
    pub within: Duration,
    /// Payload bytes source to destination.
    pub request_bytes: Span<u64>,
    /// Payload bytes destination to source.
    pub response_bytes: Span<u64>,
    /// How long a connection is kept.
    pub life: Span<Duration>,
    /// How it spends its bytes.
    pub pattern: Pattern,
    /// What all choices follow from.
    pub seed: u64,
    /// The identifier of the first ICMP connection.
    pub first_identifier: u16,
}

/// What a source did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceReport {
    /// The protocol it spoke.
    pub protocol: TrafficProtocol,
    /// The address it spoke from.
    pub source: IpAddr,
    /// What it dialled.
    pub target: SocketAddr,
    /// Connections begun.
    pub attempted: u64,
    /// Connections that were answered.
    pub established: u64,
    /// Connections that did not come to their planned end.
    pub failed: u64,
    /// Payload bytes sent.
    pub payload_sent: u64,
    /// Payload bytes received.
    pub payload_received: u64,
    /// The first few reasons of failures.
    pub errors: Vec<String>,
}

/// What sinks saw.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct SinkReport {
    /// TCP connections accepted.
    pub accepted: u64,
    /// Payload bytes received.
    pub payload_received: u64,
    /// Payload bytes sent.
    pub payload_sent: u64,
}

impl SinkReport {
    /// Adds another sink's report.
    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.payload_received += other.payload_received;
        self.payload_sent += other.payload_sent;
    }
}

/// One connection's choices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    /// Which of the plan's connections it is.
    pub(super) index: u32,
    /// When it begins, from the source's own start.
    pub(super) start: Duration,
    /// How long it is kept.
    pub(super) life: Duration,
    /// Payload bytes source to destination.
    pub(super) request: u64,
    /// Payload bytes destination to source.
    pub(super) response: u64,
    /// In how many slices.
    pub(super) rounds: u32,
}

impl SourcePlan {
    /// The plan of a scenario's stream; `index` keeps the streams apart.
    pub(super) fn of(scenario: &Scenario, stream: &Stream<'_>, index: usize) -> Self {
        let Stream { traffic, source, target } = *stream;
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        let seed = Random(scenario.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next();
        Self {
            protocol: traffic.protocol,
            source,
            target,
            connections: traffic.connections,
            concurrency: traffic.concurrency,
            start: traffic.start,
            within: traffic.within,
            request_bytes: traffic.request_bytes,
            response_bytes: traffic.response_bytes,
            life: traffic.life,
            pattern: traffic.pattern,
            seed,
            // Streams of the same pair keep clear of each other's identifiers.
            first_identifier: u16::try_from((index * 4_099) % 65_536).unwrap_or(0),
        }
    }

    /// The choices of a connection.
    pub(super) fn connection(&self, index: u32) -> Connection {
        let mut random = Random(self.seed ^ (u64::from(index) << 20));
        let share = (f64::from(index) + random.fraction()) / f64::from(self.connections);
        let width = self.life.high.saturating_sub(self.life.low);
        let life = self.life.low + width.mul_f64(random.fraction());
        let rounds = match self.pattern {
            Pattern::Once => 1,
            Pattern::Rounds => u32::try_from(life.as_millis() / 100).unwrap_or(u32::MAX).max(1),
        };
        Connection {
            index,
            start: self.start + self.within.mul_f64(share),
            life,
            request: random.within(self.request_bytes),
            response: random.within(self.response_bytes),
            rounds,
        }
    }

    /// When every connection must be over, from the source's own start.
    pub(super) fn deadline(&self) -> Duration {
        self.start + self.within + self.life.high + Duration::from_secs(30)
    }
}

impl Connection {
    /// The bytes of a round's slice; the slices add up to `total`.
    pub(super) fn slice(&self, total: u64, round: u32) -> u64 {
        let rounds = u128::from(self.rounds);
        let up_to = |round: u32| u128::from(total) * u128::from(round) / rounds;
        u64::try_from(up_to(round + 1) - up_to(round)).unwrap_or(u64::MAX)
    }

    /// When a round ends, from the connection's start.
    pub(super) fn round_end(&self, round: u32) -> Duration {
        self.life * (round + 1) / self.rounds
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and good enough to spread traffic.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, 1.
    fn fraction(&mut self) -> f64 {
        let bits = u32::try_from(self.next() >> 32).unwrap_or(0);
        f64::from(bits) / 4_294_967_296.0
    }

    fn within(&mut self, span: Span<u64>) -> u64 {
        let width = u128::from(span.high - span.low) + 1;
        span.low + u64::try_from(u128::from(self.next()) % width).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> SourcePlan {
        SourcePlan {
            protocol: TrafficProtocol::Tcp,
            source: "10.0.0.1".parse().unwrap(),
            target: "10.0.0.2:80".parse().unwrap(),
            connections: 50,
            concurrency: 4,
            start: Duration::from_secs(1),
            within: Duration::from_secs(10),
            request_bytes: Span { low: 100, high: 2_000 },
            response_bytes: Span { low: 7, high: 7 },
            life: Span { low: Duration::from_millis(10), high: Duration::from_secs(4) },
            pattern: Pattern::Rounds,
            seed: 7,
            first_identifier: 0,
        }
    }

    #[test]
    fn choices_stay_in_their_ranges_and_repeat() {
        let plan = plan();
        for index in 0..plan.connections {
            let connection = plan.connection(index);
            assert!((100..=2_000).contains(&connection.request));
            assert_eq!(connection.response, 7);
            assert!(connection.life >= plan.life.low && connection.life <= plan.life.high);
            assert!(connection.start >= plan.start);
            assert!(connection.start <= plan.start + plan.within);
            assert_eq!(connection.request, plan.connection(index).request);
        }
        assert_ne!(plan.connection(0).request, plan.connection(1).request);
    }

    #[test]
    fn slices_add_up() {
        let connection = Connection {
            index: 0,
            start: Duration::ZERO,
            life: Duration::from_secs(1),
            request: 1_000_003,
            response: 2,
            rounds: 7,
        };
        let sum = |total| (0..7).map(|round| connection.slice(total, round)).sum::<u64>();
        assert_eq!(sum(connection.request), connection.request);
        assert_eq!(sum(connection.response), connection.response);
        assert_eq!(connection.round_end(6), connection.life);
    }
}
