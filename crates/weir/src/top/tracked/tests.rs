use std::sync::Arc;

use weir_flow::attribution::Question;
use weir_flow::connection::NoListeners;
use weir_flow::time::SECOND;
use weir_flow::{BootTime, Counters, Directory, Endpoint, EndpointKind, Status, TcpState, Tuple};

use super::*;
use crate::args::Format;
use crate::render::Style;
use crate::top::view::View;

/// Boot time of the first reading; the second is 2 s later.
const FIRST: u64 = 1_000 * SECOND;
const INTERVAL: Duration = Duration::from_secs(2);
/// From boot time to wall time.
const OFFSET: u64 = 1_000_000 * SECOND;
const SEEN_REPLY: Status = Status(1 << 1);
const ASSURED: Status = Status(1 << 1 | 1 << 2);

fn clock(seconds_later: u64) -> Clock {
    let now = BootTime(FIRST + seconds_later * SECOND);
    Clock { now, wall_offset_nanos: OFFSET.cast_signed() }
}

/// So many seconds before (or after) the first reading.
#[expect(clippy::unnecessary_wraps, reason = "as the fields have it")]
fn start(seconds: i64) -> Option<WallTime> {
    let moved = seconds * SECOND.cast_signed();
    Some(WallTime((FIRST + OFFSET).saturating_add_signed(moved)))
}

#[expect(clippy::unnecessary_wraps, reason = "as the fields have it")]
fn counted(sent: u64, received: u64) -> Option<Totals> {
    let counters = |bytes: u64| Counters { packets: bytes.div_ceil(1_000), bytes };
    Some(Totals { sent: counters(sent), received: counters(received) })
}

/// TCP, established, from 10.0.0.1 to 10.0.0.2:443; `port` tells them apart.
fn tcp(port: u16, totals: Option<Totals>) -> Sample {
    let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let original = Tuple {
        protocol: Protocol::TCP,
        source: one,
        destination: other,
        source_port: port,
        destination_port: 443,
    };
    let reply = Tuple {
        source: other,
        destination: one,
        source_port: 443,
        destination_port: port,
        ..original
    };
    let tcp = Some(TcpState { state: 3, ..TcpState::default() });
    let status = ASSURED;
    Sample { id: port.into(), original, reply, totals, status, tcp, ..Sample::default() }
}

fn measure(first: &[Sample], ends: &[Sample], second: &[Sample]) -> Vec<Measured> {
    let mut meter = Meter::new(Epoch(7));
    let dump = |meter: &mut Meter, at, samples: &[Sample]| {
        let mut desk = meter.desk(clock(at), &NoListeners);
        desk.begin_dump();
        for sample in samples {
            desk.entry(sample);
        }
        desk.end_dump();
        desk.judge();
    };
    dump(&mut meter, 0, first);
    let mut desk = meter.desk(clock(1), &NoListeners);
    for sample in ends {
        desk.last_word(sample);
    }
    dump(&mut meter, 2, second);
    meter.connections(INTERVAL)
}

fn only(connections: &[Measured]) -> &Measured {
    assert_eq!(connections.len(), 1, "{connections:#?}");
    &connections[0]
}

#[expect(clippy::unnecessary_wraps, reason = "as the fields have it")]
fn both(sent: u64, received: u64) -> Option<Bytes> {
    Some(Bytes { sent, received })
}

#[test]
fn a_rate_is_the_growth_over_the_measured_time() {
    let connections = measure(&[tcp(1, counted(100, 50))], &[], &[tcp(1, counted(4_100, 150))]);
    let connection = only(&connections);
    assert_eq!(connection.total, both(4_100, 150));
    assert_eq!(connection.per_second, both(2_000, 50));
    assert_eq!(connection.state, Some("ESTABLISHED"));
    assert_eq!((connection.source.1, connection.destination.1), (1, 443));

    let idle = measure(&[tcp(1, counted(100, 50))], &[], &[tcp(1, counted(100, 50))]);
    assert_eq!(only(&idle).per_second, both(0, 0));
    assert_eq!(only(&idle).total, both(100, 50));
}

#[test]
fn what_is_new_has_moved_all_it_has() {
    for begun in [None, start(1)] {
        let new = Sample { start: begun, ..tcp(1, counted(400, 200)) };
        let connections = measure(&[], &[], &[new]);
        assert_eq!(only(&connections).per_second, both(200, 100), "{begun:?}");
    }
    // Made while the first dump ran, and seen by it.
    let young = |totals| Sample { start: start(0), ..tcp(1, totals) };
    let connections = measure(&[young(counted(300, 0))], &[], &[young(counted(400, 200))]);
    assert_eq!(only(&connections).per_second, both(200, 100));
}

#[test]
fn what_was_not_measured_twice_has_no_rate() {
    // Older than the first dump, which did not show it.
    let hidden = Sample { start: start(-60), ..tcp(1, counted(400, 200)) };
    let connections = measure(&[], &[], &[hidden]);
    assert_eq!((only(&connections).per_second, only(&connections).total), (None, both(400, 200)));
    // Gone without a word.
    let connections = measure(&[tcp(1, counted(400, 200))], &[], &[]);
    assert_eq!((only(&connections).per_second, only(&connections).total), (None, both(400, 200)));
}

#[test]
fn without_counters_nothing_is_known_and_nothing_is_zero() {
    let connections = measure(&[tcp(1, None)], &[], &[tcp(1, None)]);
    assert_eq!((only(&connections).per_second, only(&connections).total), (None, None));
}

#[test]
fn an_end_in_between_counts_to_its_last_byte() {
    let last = tcp(1, counted(300, 100));
    let connections = measure(&[tcp(1, counted(100, 100))], &[last], &[]);
    assert_eq!(only(&connections).per_second, both(100, 0));
    assert_eq!(only(&connections).state, Some("ended"));
    // A dump may still show what has ended.
    let connections = measure(&[tcp(1, counted(100, 100))], &[last], &[last]);
    assert_eq!(only(&connections).per_second, both(100, 0));
    // A whole life between the dumps.
    let brief = Sample { start: start(1), ..last };
    assert_eq!(only(&measure(&[], &[brief], &[])).per_second, both(150, 50));
}

#[test]
fn what_was_picked_up_is_turned_with_its_bytes() {
    let sample = |totals| {
        let Sample { original, reply, .. } = tcp(40_000, None);
        let liberal = TcpState { state: 3, flags_original: 8, flags_reply: 8 };
        let (original, reply) = (reply, original);
        Sample { original, reply, tcp: Some(liberal), ..tcp(40_000, totals) }
    };
    let connections = measure(&[sample(counted(10, 0))], &[], &[sample(counted(410, 1_000))]);
    let connection = only(&connections);
    assert_eq!((connection.source.1, connection.destination.1), (40_000, 443));
    assert_eq!(connection.total, both(1_000, 410));
    assert_eq!(connection.per_second, both(500, 200));
}

#[test]
fn entries_of_several_zones_are_one_connection() {
    let zone = |zone, totals| Sample { zone, ..tcp(1, totals) };
    let first = [zone(1, counted(100, 0)), zone(2, counted(100, 0))];
    let second = [zone(1, counted(300, 0)), zone(2, counted(300, 0))];
    assert_eq!(only(&measure(&first, &[], &second)).per_second, both(100, 0));
}

/// Calls this machine 10.0.0.1, whose names are as nasty as its users make them.
struct Names;

impl Directory for Names {
    fn resolve(&self, question: &Question) -> Arc<Endpoint> {
        let address = question.address;
        if address != IpAddr::from([10, 0, 0, 1]) {
            return Arc::new(Endpoint::bare(EndpointKind::External, address));
        }
        let executable = (question.port == 40_002).then(|| "\x1b[2Jevil\u{202e}".into());
        let unit = executable.is_none().then(|| "=nginx.service".into());
        let host = Some("alder".into());
        Arc::new(Endpoint { host, unit, executable, ..Endpoint::bare(EndpointKind::Host, address) })
    }
}

fn view(limit: Option<usize>) -> View {
    let v6 = |mut tuple: Tuple| {
        (tuple.source, tuple.destination) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        tuple
    };
    let dialled = |totals| {
        let mut sample = Sample { start: start(-7_260), ..tcp(40_001, totals) };
        sample.original.destination = [10, 96, 0, 10].into();
        sample.original.destination_port = 80;
        sample.reply.source_port = 8_080;
        sample
    };
    let udp = |totals| {
        let mut sample = Sample { tcp: None, status: SEEN_REPLY, ..tcp(5_353, totals) };
        sample.original.protocol = Protocol::UDP;
        sample.reply.protocol = Protocol::UDP;
        (sample.original, sample.reply) = (v6(sample.original), v6(sample.reply));
        (sample.reply.source, sample.reply.destination) =
            (sample.original.destination, sample.original.source);
        sample
    };
    let ping = |totals| {
        let mut sample = Sample { tcp: None, status: Status(0), ..tcp(99, totals) };
        sample.original.protocol = Protocol::ICMP;
        sample.original.destination_port = 0x0800;
        sample.reply = Tuple { source_port: 99, destination_port: 0, ..sample.reply };
        sample.reply.protocol = Protocol::ICMP;
        sample
    };
    let first = [
        dialled(counted(1_000, 2_000)),
        udp(counted(120, 0)),
        ping(counted(84, 0)),
        tcp(40_002, None),
    ];
    let second = [
        dialled(counted(3_001_000, 52_000)),
        udp(counted(240, 260)),
        ping(counted(168, 0)),
        tcp(40_002, None),
    ];
    let reading = Reading {
        source: Source::Conntrack,
        interval: INTERVAL,
        now: WallTime(FIRST + OFFSET + 2 * SECOND),
        connections: measure(&first, &[], &second),
        doubts: vec!["1 connection has no counters".to_owned()],
    };
    View::new(reading, limit, &Names)
}

fn written(view: &View, format: Format) -> String {
    let mut out = Vec::new();
    view.write(format, Style::Plain, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn as_a_table() {
    insta::assert_snapshot!(written(&view(None), Format::Table));
}

#[test]
fn as_csv() {
    insta::assert_snapshot!(written(&view(None), Format::Csv));
}

#[test]
fn as_json() {
    insta::assert_snapshot!(written(&view(None), Format::Json));
}

#[test]
fn a_limit_keeps_the_busiest_and_says_so() {
    let table = written(&view(Some(1)), Format::Table);
    assert!(table.contains("10.96.0.10:80"), "{table}");
    assert!(table.contains("1 of 4 connections (--limit 0 shows all)"), "{table}");
    assert!(written(&view(Some(1)), Format::Json).contains("\"more\": true"));
}
