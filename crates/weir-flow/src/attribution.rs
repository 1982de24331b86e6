//! Deciding whose an endpoint is.

use std::net::IpAddr;
use std::sync::Arc;

use crate::class::{Class, classify};
use crate::endpoint::{Endpoint, Name};
use crate::field::Side;
use crate::record::{FlowRecord, RecordFlags};
use crate::time::WallTime;
use crate::tuple::Protocol;
use crate::view::View;

/// A question to the directory: who was this, then?
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Which side of the connection is asked about.
    pub side: Side,
    /// IP protocol.
    pub protocol: Protocol,
    /// Its address.
    pub address: IpAddr,
    /// Its port (ICMP: see [`crate::Tuple`]).
    pub port: u16,
    /// The other side's address, as this side's socket sees it.
    pub peer_address: IpAddr,
    /// The other side's port, as this side's socket sees it.
    pub peer_port: u16,
    /// When the connection began, at the earliest.
    pub at: WallTime,
    /// When it began, at the latest: the same where the kernel says when.
    pub latest: WallTime,
}

/// Who had this address at that time. Always answers: an endpoint that cannot be named carries
/// the reason.
pub trait Directory {
    /// Names one side of a connection.
    fn resolve(&self, question: &Question) -> Arc<Endpoint>;

    /// The name of the service that was dialled, as `NAMESPACE/NAME`.
    fn service(&self, _: Protocol, _: (IpAddr, u16), _: WallTime) -> Option<Name> {
        None
    }

    /// How far the bytes travelled.
    fn class(&self, _: &FlowRecord, source: &Endpoint, destination: &Endpoint) -> Class {
        classify(source, destination)
    }

    /// Whether this record is the one that counts. Where there is a single observer, it is.
    fn view(&self, _: &FlowRecord, _: WallTime) -> View {
        View::ONLY
    }
}

/// A record's two ends, named, and how far apart they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributed {
    /// Who opened.
    pub source: Arc<Endpoint>,
    /// Who answered.
    pub destination: Arc<Endpoint>,
    /// How far the bytes travelled.
    pub class: Class,
    /// The service dialled, as `NAMESPACE/NAME`, where it is known.
    pub service: Option<Name>,
    /// Whether this record is the one that counts.
    pub view: View,
}

/// Names both ends of a record, as of the connection's start (else the interval's beginning).
///
/// Each end is looked for by the addresses that its own socket has: the source's socket is
/// connected to the service address it dialled, the destination's to the translated source.
/// `wall_offset` is what to add to boot time to get wall time, in nanoseconds.
pub fn attribute(record: &FlowRecord, wall_offset: i64, directory: &dyn Directory) -> Attributed {
    let (at, latest) = began(record, wall_offset);
    let opened_by = (record.source, record.source_port);
    let answered_by = (record.destination, record.destination_port);
    let question = |side, own: (IpAddr, u16), peer: (IpAddr, u16)| Question {
        side,
        protocol: record.protocol,
        address: own.0,
        port: own.1,
        peer_address: peer.0,
        peer_port: peer.1,
        at,
        latest,
    };
    let dialled = record.service.unwrap_or(answered_by);
    let seen_source = record.translated_source.unwrap_or(opened_by);
    let source = directory.resolve(&question(Side::Source, opened_by, dialled));
    let destination = directory.resolve(&question(Side::Destination, answered_by, seen_source));
    let class = directory.class(record, &source, &destination);
    let name = |address| directory.service(record.protocol, address, at);
    let service = record.service.and_then(name);
    let view = directory.view(record, at);
    Attributed { source, destination, class, service, view }
}

/// The earliest and the latest that a record's connection can have begun.
fn began(record: &FlowRecord, wall_offset: i64) -> (WallTime, WallTime) {
    if let Some(start) = record.start {
        return (start, start);
    }
    let from = record.interval_from.to_wall(wall_offset);
    if record.flags.has(RecordFlags::OPENED) {
        return (from, record.interval_to.to_wall(wall_offset).max(from));
    }
    (from, from)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::counters::Totals;
    use crate::endpoint::EndpointKind;
    use crate::state::ConnectionState;
    use crate::time::BootTime;

    /// Answers with a bare host and remembers what it was asked.
    #[derive(Default)]
    struct Asked(RefCell<Vec<Question>>);

    impl Directory for Asked {
        fn resolve(&self, question: &Question) -> Arc<Endpoint> {
            self.0.borrow_mut().push(*question);
            Arc::new(Endpoint::bare(EndpointKind::Host, question.address))
        }
    }

    fn record() -> FlowRecord {
        FlowRecord {
            connection: 1,
            zone: 0,
            protocol: Protocol::TCP,
            source: "10.244.1.2".parse().unwrap(),
            source_port: 36_260,
            destination: "10.244.1.3".parse().unwrap(),
            destination_port: 8_080,
            service: None,
            translated_source: None,
            start: None,
            interval_from: BootTime(70),
            interval_to: BootTime(90),
            from: Totals::default(),
            to: Totals::default(),
            state: ConnectionState::default(),
            flags: RecordFlags::default(),
        }
    }

    fn asked(record: &FlowRecord) -> [Question; 2] {
        let directory = Asked::default();
        let attributed = attribute(record, 1_000, &directory);
        assert_eq!(attributed.source.address, record.source);
        assert_eq!(attributed.destination.address, record.destination);
        assert_eq!(attributed.class, Class::SameNode);
        directory.0.into_inner().try_into().expect("one question for each side")
    }

    fn peer(question: &Question) -> String {
        format!("{}:{}", question.peer_address, question.peer_port)
    }

    #[test]
    fn each_end_is_asked_for_with_its_own_socket_s_peer() {
        let [source, destination] = asked(&record());
        assert_eq!((source.side, destination.side), (Side::Source, Side::Destination));
        assert_eq!(peer(&source), "10.244.1.3:8080");
        assert_eq!(peer(&destination), "10.244.1.2:36260");

        let translated = FlowRecord {
            service: Some(("10.96.0.10".parse().unwrap(), 80)),
            translated_source: Some(("10.244.1.1".parse().unwrap(), 4_000)),
            ..record()
        };
        let [source, destination] = asked(&translated);
        assert_eq!(peer(&source), "10.96.0.10:80");
        assert_eq!(peer(&destination), "10.244.1.1:4000");
        assert_eq!((source.port, destination.port), (36_260, 8_080));
    }

    #[test]
    fn the_question_is_as_of_the_start() {
        let [source, destination] = asked(&record());
        assert_eq!((source.at, destination.at), (WallTime(1_070), WallTime(1_070)));
        let [source, _] = asked(&FlowRecord { start: Some(WallTime(5)), ..record() });
        assert_eq!(source.at, WallTime(5));
    }
}
