//! What a node saw of one connection since it looked last.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::Ignored;
use crate::attribution::{Attributed, Directory, Question};
use crate::class::Class;
use crate::counters::Counters;
use crate::endpoint::{Endpoint, Name};
use crate::field::Side;
use crate::record::{FlowRecord, RecordFlags};
use crate::time::{BootTime, SECOND, WallTime};
use crate::tuple::{Protocol, Tuple};
use crate::view::View;

/// What a node saw of one connection since it looked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The direction of the opener.
    pub original: Tuple,
    /// The other one.
    pub reply: Tuple,
    /// What went in the original direction.
    pub sent: Counters,
    /// What came back.
    pub received: Counters,
    /// The observing node.
    pub node: Name,
    /// When it looked, seconds since 1970.
    pub seconds: u64,
}

/// An observation's two ends, named.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// Whose address [`Observation::original`] comes from.
    pub source: &'a Endpoint,
    /// Whose address [`Observation::reply`] comes from.
    pub destination: &'a Endpoint,
    /// The class of the traffic, where the directory told one.
    pub class: Option<Class>,
}

impl Observation {
    /// What a record is as an observation of `node`. Where the kernel had the directions the wrong
    /// way round, they are the right way round here.
    pub fn of_record(
        record: &FlowRecord,
        ends: &Attributed,
        node: &Name,
        wall_offset: i64,
    ) -> Result<Self, Ignored> {
        if record.flags.has(RecordFlags::UNCOUNTED) {
            return Err(Ignored::NotCounted);
        }
        let delta = record.delta();
        if delta.is_zero() || record.flags.has(RecordFlags::PRESENT) {
            return Err(Ignored::NoTraffic);
        }
        if !matches!(record.protocol, Protocol::TCP | Protocol::UDP) {
            return Err(Ignored::Protocol);
        }
        let (original, reply) = tuples(record);
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let is_loopback = |tuple: &Tuple| tuple.source == loopback || tuple.destination == loopback;
        if is_loopback(&original) || is_loopback(&reply) {
            return Err(Ignored::Loopback);
        }
        if ends.view == View::Foreign {
            return Err(Ignored::Foreign);
        }
        // An interval that ends with a minute belongs to it.
        let last = record.interval_to.0.saturating_sub(1).max(record.interval_from.0);
        let seconds = BootTime(last).to_wall(wall_offset).seconds();
        let node = Name::clone(node);
        Ok(Self { original, reply, sent: delta.sent, received: delta.received, node, seconds })
    }

    /// Asks whose the two ends were: source and destination.
    pub fn name_ends(&self, directory: &dyn Directory) -> [Arc<Endpoint>; 2] {
        let Self { original, reply, .. } = self;
        let at = WallTime(self.seconds.saturating_mul(SECOND));
        let question = |side, own: &Tuple| Question {
            side,
            protocol: own.protocol,
            address: own.source,
            port: own.source_port,
            peer_address: own.destination,
            peer_port: own.destination_port,
            at,
            latest: at,
        };
        [
            directory.resolve(&question(Side::Source, original)),
            directory.resolve(&question(Side::Destination, reply)),
        ]
    }
}

impl<'a> Ends<'a> {
    /// As a record's ends are named.
    pub fn of(ends: &'a Attributed) -> Self {
        Self { source: &ends.source, destination: &ends.destination, class: Some(ends.class) }
    }
}

/// Both directions as the kernel would have them.
fn tuples(record: &FlowRecord) -> (Tuple, Tuple) {
    let protocol = record.protocol;
    let opened_by = (record.source, record.source_port);
    let answered_by = (record.destination, record.destination_port);
    let tuple = |from: (IpAddr, u16), to: (IpAddr, u16)| Tuple {
        protocol,
        source: from.0,
        destination: to.0,
        source_port: from.1,
        destination_port: to.1,
    };
    let original = tuple(opened_by, record.service.unwrap_or(answered_by));
    (original, tuple(answered_by, record.translated_source.unwrap_or(opened_by)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Totals;
    use crate::endpoint::EndpointKind;
    use crate::kubenetmon::{Row, Settings};
    use crate::state::ConnectionState;

    /// What a connection of a pod did in this interval, nanoseconds.
    fn seen(from: u64, to: u64, flags: RecordFlags) -> Result<u64, Ignored> {
        let record = FlowRecord {
            connection: 1,
            zone: 0,
            protocol: Protocol::TCP,
            source: "10.0.0.1".parse().unwrap(),
            source_port: 1,
            destination: "1.2.3.4".parse().unwrap(),
            destination_port: 2,
            service: None,
            translated_source: None,
            start: None,
            interval_from: BootTime(from),
            interval_to: BootTime(to),
            from: Totals::default(),
            to: Totals { sent: Counters { packets: 1, bytes: 2 }, ..Totals::default() },
            state: ConnectionState::default(),
            flags,
        };
        let node = Name::from("a");
        let pod = Endpoint {
            node: Some(Name::clone(&node)),
            ..Endpoint::bare(EndpointKind::Pod, record.source)
        };
        let ends = Attributed {
            source: Arc::new(pod),
            destination: Arc::new(Endpoint::bare(EndpointKind::External, record.destination)),
            class: Class::Internet,
            service: None,
            view: View::ONLY,
        };
        let settings = Settings {
            environment: "production".into(),
            cloud: "aws".into(),
            region: "us-west-2".into(),
            cluster: "c".into(),
            ignore_udp: true,
            flags: Vec::new(),
        };
        let observation = Observation::of_record(&record, &ends, &node, 0)?;
        Row::of(&observation, &Ends::of(&ends), &settings).map(|row| row.minute)
    }

    #[test]
    fn a_row_is_of_the_minute_in_which_the_interval_ended() {
        // 2023-07-12T15:45:30Z is in the minute that begins at 15:45:00Z, whatever the zone.
        let at = 1_689_176_730 * SECOND;
        let minute = 1_689_176_700;
        let none = RecordFlags::default();
        assert_eq!(seen(at - 5 * SECOND, at, none), Ok(minute));
        assert_eq!(seen(at - 40 * SECOND, at, none), Ok(minute));
        // An interval that ends with a minute belongs to it; one without a length to its moment.
        let next = (minute + 60) * SECOND;
        assert_eq!(seen(at, next, none), Ok(minute));
        assert_eq!(seen(at, next + 1, none), Ok(minute + 60));
        assert_eq!(seen(next, next, none), Ok(minute + 60));
    }

    #[test]
    fn what_was_not_counted_or_only_announced_makes_no_row() {
        let of = |flags| seen(SECOND, 2 * SECOND, flags);
        assert_eq!(of(RecordFlags::UNCOUNTED), Err(Ignored::NotCounted));
        assert_eq!(of(RecordFlags::PRESENT), Err(Ignored::NoTraffic));
        assert_eq!(of(RecordFlags::CLOSED), Ok(0));
    }
}
