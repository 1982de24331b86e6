//! Messages captured from the kernel (see `tests/capture.rs`), whole, cut and damaged.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use proptest::prelude::*;
use weir_conntrack::Malformed;
use weir_conntrack::message::{KIND_ENDED, KIND_ENTRY, decode, kind, put_tuple};
use weir_conntrack::netlink::{Attributes, Control, Message, Request, attributes, messages};
use weir_flow::{Counters, Protocol, Sample, TcpState, Totals, Tuple};

fn frame(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frames").join(name);
    fs::read(path).unwrap()
}

fn all_frames() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frames");
    fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

fn message(frame: &[u8]) -> Message<'_> {
    let mut all = messages(frame);
    let message = all.next().unwrap().unwrap();
    assert!(all.next().is_none(), "a frame is one message");
    message
}

fn read(name: &str) -> Sample {
    let frame = frame(name);
    let mut sample = Sample::default();
    decode(message(&frame).payload, &mut sample).unwrap();
    sample
}

/// Protocol, source and destination, as in `conntrack -L`.
fn line(tuple: &Tuple) -> String {
    format!(
        "{} {} {} > {} {}",
        tuple.protocol, tuple.source, tuple.source_port, tuple.destination, tuple.destination_port
    )
}

fn counted(packets: u64, bytes: u64) -> Counters {
    Counters { packets, bytes }
}

/// The ephemeral source port of a captured entry is not known beforehand; the two tuples must
/// agree on it.
fn assert_ends(sample: &Sample, protocol: u8, address: &str, port: u16) {
    let address: IpAddr = address.parse().unwrap();
    assert_eq!(sample.original.protocol, Protocol(protocol));
    assert_eq!((sample.original.source, sample.original.destination), (address, address));
    assert_eq!(sample.original.destination_port, port);
    assert!(sample.original.source_port >= 1024);
    assert!(sample.original.is_mirrored_by(&sample.reply));
    assert_ne!(sample.id, 0);
}

#[test]
fn udp_of_both_families() {
    let sample = read("udp4");
    assert_ends(&sample, 17, "127.0.0.1", 1004);
    assert_eq!(sample.totals, Some(Totals { sent: counted(1, 32), ..Totals::default() }));
    assert_eq!((sample.mark, sample.zone, sample.tcp), (0x42, 0, None));
    assert!(!sample.status.seen_reply() && !sample.status.dying());
    assert!(sample.start.unwrap().seconds() > 1_700_000_000);
    assert_eq!(sample.stop, None);

    let sample = read("udp6");
    assert_ends(&sample, 17, "::1", 1006);
    assert_eq!(sample.totals, Some(Totals { sent: counted(1, 54), ..Totals::default() }));
}

#[test]
fn tcp_of_both_families() {
    // SYN, then ACK, each with 20 bytes of IPv4, 20 of TCP and options; SYN and ACK back.
    let sample = read("tcp4");
    assert_ends(&sample, 6, "127.0.0.1", 8004);
    let totals = Totals { sent: counted(2, 60 + 52), received: counted(1, 60) };
    assert_eq!(sample.totals, Some(totals));
    let tcp = TcpState { state: 3, flags_original: 0x23, flags_reply: 0x23 };
    assert_eq!(sample.tcp, Some(tcp));
    assert_eq!(tcp.name(), "ESTABLISHED");
    assert!(sample.status.seen_reply() && sample.status.assured());

    let sample = read("tcp6");
    assert_ends(&sample, 6, "::1", 8006);
    let totals = Totals { sent: counted(2, 80 + 72), received: counted(1, 80) };
    assert_eq!(sample.totals, Some(totals));
}

#[test]
fn icmp_has_its_identifier_and_type_in_the_ports() {
    let sample = read("icmp4");
    assert_eq!(line(&sample.original), format!("icmp 127.0.0.1 {} > 127.0.0.1 2048", 0x1234));
    assert_eq!(line(&sample.reply), format!("icmp 127.0.0.1 {} > 127.0.0.1 0", 0x1234));
    assert_eq!(sample.totals, Some(Totals { sent: counted(1, 32), received: counted(1, 32) }));
    let sample = read("icmp6");
    assert_eq!(line(&sample.original), format!("icmpv6 ::1 {} > ::1 {}", 0x1234, 128 << 8));
    assert_eq!(line(&sample.reply), format!("icmpv6 ::1 {} > ::1 {}", 0x1234, 129 << 8));
}

#[test]
fn other_protocols_have_ports_or_none() {
    for (name, expected) in [
        ("sctp", "sctp 10.0.0.1 1000 > 10.0.0.2 2000"),
        ("udplite", "udplite 10.0.0.1 1000 > 10.0.0.2 2000"),
        // This kernel no longer tracks DCCP's ports.
        ("dccp", "dccp 10.0.0.1 0 > 10.0.0.2 0"),
        ("gre", "gre 10.0.0.1 0 > 10.0.0.2 0"),
        ("esp", "esp 10.0.0.1 0 > 10.0.0.2 0"),
    ] {
        let sample = read(name);
        assert_eq!(line(&sample.original), expected);
        assert_eq!(sample.tcp, None, "{name}");
    }
}

#[test]
fn translation_shows_between_the_tuples() {
    let sample = read("translated");
    assert_eq!(sample.original.destination_port, 53);
    assert_eq!(sample.reply.source_port, 5353);
    assert!(sample.status.destination_nat() && !sample.status.source_nat());
}

#[test]
fn zones_come_from_the_entry_or_else_from_its_original_tuple() {
    assert_eq!(read("zone").zone, 7);
    let frame = frame("zone-of-one-direction");
    let mut kinds = attributes(&message(&frame).payload[4..]).map(|found| found.unwrap().kind);
    assert!(kinds.all(|found| found != kind::ZONE), "the kernel names the zone in the tuple only");
    assert_eq!(read("zone-of-one-direction").zone, 8);
}

#[test]
fn an_entry_without_counters_is_unknown_and_not_zero() {
    let sample = read("uncounted");
    assert_ends(&sample, 17, "127.0.0.1", 1001);
    assert_eq!((sample.totals, sample.start), (None, None));
}

#[test]
fn ended_connections_carry_finals_and_the_time() {
    let bytes = frame("ended-tcp4");
    assert_eq!(message(&bytes).kind, KIND_ENDED);
    let sample = read("ended-tcp4");
    assert_ends(&sample, 6, "127.0.0.1", 8004);
    let totals = Totals { sent: counted(2, 112), received: counted(1, 60) };
    assert_eq!(sample.totals, Some(totals));
    assert!(sample.stop > sample.start);
    assert_eq!(sample.start, read("tcp4").start);
    assert_eq!(sample.id, read("tcp4").id);

    let sample = read("ended-udp6");
    assert_eq!(sample.totals, Some(Totals { sent: counted(1, 54), ..Totals::default() }));
    assert!(sample.stop > sample.start);
}

#[test]
fn short_counters_are_read() {
    let mut request = Request::new(KIND_ENTRY, 0, &[2, 0, 0, 0]);
    let tuple = Tuple { protocol: Protocol::TCP, ..Tuple::default() };
    put_tuple(&mut request, kind::TUPLE_ORIG, &tuple);
    put_tuple(&mut request, kind::TUPLE_REPLY, &tuple);
    for counters in [kind::COUNTERS_ORIG, kind::COUNTERS_REPLY] {
        let nest = request.open(counters);
        request
            .attribute(kind::COUNTERS32_PACKETS, &7_u32.to_be_bytes())
            .attribute(kind::COUNTERS32_BYTES, &700_u32.to_be_bytes())
            .close(nest);
    }
    let mut sample = Sample::default();
    decode(message(request.bytes()).payload, &mut sample).unwrap();
    let each = counted(7, 700);
    assert_eq!(sample.totals, Some(Totals { sent: each, received: each }));
}

#[test]
fn errors_name_what_is_wrong() {
    let mut sample = Sample::default();
    let mut fails = |request: &Request| {
        decode(message(request.bytes()).payload, &mut sample).unwrap_err().to_string()
    };
    let tuple = Tuple { protocol: Protocol::TCP, ..Tuple::default() };
    let fresh = || Request::new(KIND_ENTRY, 0, &[2, 0, 0, 0]);
    assert_eq!(fails(&fresh()), "the message has no original tuple");
    let mut request = fresh();
    put_tuple(&mut request, kind::TUPLE_ORIG, &tuple);
    assert_eq!(fails(&request), "the message has no reply tuple");
    put_tuple(&mut request, kind::TUPLE_REPLY, &tuple);
    request.attribute(kind::MARK, &[1, 2]);
    assert_eq!(fails(&request), "attribute 8 holds 2 bytes where 4 are expected");
    let mut request = fresh();
    put_tuple(&mut request, kind::TUPLE_REPLY, &Tuple { source: "::1".parse().unwrap(), ..tuple });
    assert_eq!(fails(&request), "a tuple mixes IPv4 and IPv6 addresses");
    assert_eq!(
        decode(&[2, 0], &mut sample).unwrap_err().to_string(),
        "2 bytes are left where a netfilter header should be"
    );
}

#[test]
fn control_messages_are_told_apart() {
    let frame = frame("done");
    assert_eq!(message(&frame).control(), Ok(Control::Done(0)));
    let control =
        |kind: u16, payload: &[u8]| message(Request::new(kind, 0, payload).bytes()).control();
    assert_eq!(control(2, &(-1_i32).to_ne_bytes()), Ok(Control::Answer(1)));
    assert_eq!(control(2, &0_i32.to_ne_bytes()), Ok(Control::Answer(0)));
    assert_eq!(control(2, &i32::MIN.to_ne_bytes()), Ok(Control::Answer(i32::MAX)));
    assert_eq!(control(3, &(-4_i32).to_ne_bytes()), Ok(Control::Done(4)));
    assert_eq!(control(3, &[]), Ok(Control::Done(0)));
    assert_eq!(control(4, &[]), Ok(Control::Overrun));
    assert_eq!(control(1, &[]), Ok(Control::Noop));
    assert!(control(2, &[]).is_err());
}

#[test]
fn nests_end_at_the_limit() {
    let mut request = Request::new(KIND_ENTRY, 0, &[]);
    let nests: Vec<_> = (0..40).map(|_| request.open(1)).collect();
    for nest in nests.into_iter().rev() {
        request.close(nest);
    }
    let walked = walk(attributes(message(request.bytes()).payload));
    assert_eq!(walked, Err(Malformed::Depth { kind: 1 }));
}

/// Reads every attribute as if it were a nest, as far down as it goes.
fn walk(list: Attributes<'_>) -> Result<(), Malformed> {
    for attribute in list {
        walk(attribute?.nested()?)?;
    }
    Ok(())
}

/// Everything this crate does with a datagram.
fn read_datagram(bytes: &[u8]) {
    let mut sample = Sample::default();
    for message in messages(bytes).flatten() {
        // Whether these fail is not the question; they must not panic.
        let _unused = message.control();
        let _unused = decode(message.payload, &mut sample);
        let _unused = walk(attributes(message.payload));
    }
}

#[test]
fn a_cut_message_fails_or_says_less_but_never_otherwise() {
    for frame in all_frames() {
        let whole = message(&frame);
        let mut expected = Sample::default();
        if decode(whole.payload, &mut expected).is_err() {
            continue;
        }
        for end in 0..whole.payload.len() {
            let mut sample = Sample::default();
            if decode(&whole.payload[..end], &mut sample).is_ok() {
                assert_eq!(sample.original, expected.original);
                assert_eq!(sample.reply, expected.reply);
                assert!(sample.totals.is_none() || sample.totals == expected.totals);
                assert!(sample.start.is_none() || sample.start == expected.start);
            }
        }
        for end in 1..frame.len() {
            assert!(messages(&frame[..end]).next().unwrap().is_err());
        }
    }
}

fn tuples() -> impl Strategy<Value = Tuple> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let protocol = prop_oneof![Just(6), Just(17), Just(132), Just(1), Just(58), any::<u8>()];
    (prop_oneof![v4, v6], protocol, any::<u16>(), any::<u16>()).prop_map(
        |((source, destination), protocol, source_port, destination_port)| {
            let ports = [1, 58, 6, 17, 33, 132, 136].contains(&protocol);
            Tuple {
                protocol: Protocol(protocol),
                source,
                destination,
                source_port: if ports { source_port } else { 0 },
                destination_port: if ports { destination_port } else { 0 },
            }
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        read_datagram(&bytes);
        let mut sample = Sample::default();
        let _unused = decode(&bytes, &mut sample);
        let _unused = walk(attributes(&bytes));
    }

    #[test]
    fn no_damage_panics(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let frames = all_frames();
        let mut bytes = which.get(&frames).clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_datagram(&bytes);
    }

    #[test]
    fn tuples_survive_the_wire(original in tuples(), reply in tuples(), id in any::<u32>()) {
        let mut request = Request::new(KIND_ENTRY, 0, &[0; 4]);
        put_tuple(&mut request, kind::TUPLE_ORIG, &original);
        // An attribute of no known type is passed over.
        request.attribute(999, &[1, 2, 3]);
        put_tuple(&mut request, kind::TUPLE_REPLY, &reply);
        request.attribute(kind::ID, &id.to_be_bytes());
        let mut sample = Sample::default();
        decode(message(request.bytes()).payload, &mut sample).unwrap();
        prop_assert_eq!(sample, Sample { id, original, reply, ..Sample::default() });
    }
}
