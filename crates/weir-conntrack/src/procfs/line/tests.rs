use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const TCP: &str = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.244.1.2 dst=10.96.0.10 \
    sport=36260 dport=80 packets=7 bytes=1234 src=10.244.1.3 dst=10.244.1.1 sport=8080 dport=36260 \
    packets=5 bytes=54321 [ASSURED] mark=66 secctx=system_u:object_r:unlabeled_t:s0 zone=7 \
    delta-time=12 use=2";

fn parsed(line: &str) -> Sample {
    parse_line(line.as_bytes()).unwrap()
}

fn refused(line: &str) -> LineError {
    parse_line(line.as_bytes()).unwrap_err()
}

fn tuple(protocol: u8, source: &str, from: u16, destination: &str, to: u16) -> Tuple {
    Tuple {
        protocol: Protocol(protocol),
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        source_port: from,
        destination_port: to,
    }
}

#[test]
fn everything_a_line_says_is_read() {
    let expected = Sample {
        id: 0,
        zone: 7,
        original: tuple(6, "10.244.1.2", 36260, "10.96.0.10", 80),
        reply: tuple(6, "10.244.1.3", 8080, "10.244.1.1", 36260),
        totals: Some(Totals {
            sent: Counters { packets: 7, bytes: 1234 },
            received: Counters { packets: 5, bytes: 54321 },
        }),
        status: Status(SEEN_REPLY | ASSURED | CONFIRMED | SOURCE_NAT | DESTINATION_NAT),
        mark: 66,
        tcp: Some(TcpState { state: 3, ..TcpState::default() }),
        start: None,
        stop: None,
    };
    assert_eq!(parsed(TCP), expected);
    // ip_conntrack has no family.
    let (_, old) = TCP.split_once("2 ").unwrap();
    assert_eq!(parsed(old), expected);
}

/// A tuple and its mirror.
fn both(original: Tuple) -> (Tuple, Tuple) {
    let Tuple { protocol, source, destination, source_port, destination_port } = original;
    let reply = Tuple {
        protocol,
        source: destination,
        destination: source,
        source_port: destination_port,
        destination_port: source_port,
    };
    (original, reply)
}

/// A line of each protocol as the kernel writes it, and its tuples.
#[test]
fn every_protocol_has_its_own_keys() {
    for (line, (original, reply)) in [
        (
            "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=5353 dport=53 [UNREPLIED] \
             src=10.0.0.2 dst=10.0.0.1 sport=53 dport=5353 mark=0 zone=0 use=2",
            both(tuple(17, "10.0.0.1", 5353, "10.0.0.2", 53)),
        ),
        (
            "ipv6     10 udp      17 29 src=fd00:0000:0000:0000:0000:0000:0000:0001 \
             dst=fd00:0000:0000:0000:0000:0000:0000:0002 sport=5353 dport=53 \
             src=fd00:0000:0000:0000:0000:0000:0000:0002 \
             dst=fd00:0000:0000:0000:0000:0000:0000:0001 sport=53 dport=5353 mark=0 zone=0 use=2",
            both(tuple(17, "fd00::1", 5353, "fd00::2", 53)),
        ),
        (
            "ipv4     2 icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=77 src=10.0.0.2 \
             dst=10.0.0.1 type=0 code=0 id=77 mark=0 use=2 id=3443735684",
            (tuple(1, "10.0.0.1", 77, "10.0.0.2", 8 << 8), tuple(1, "10.0.0.2", 77, "10.0.0.1", 0)),
        ),
        (
            "ipv6     10 icmpv6   58 29 src=fd00::1 dst=fd00::2 type=128 code=0 id=3 src=fd00::2 \
             dst=fd00::1 type=129 code=0 id=3 mark=0 zone=0 use=2",
            (
                tuple(58, "fd00::1", 3, "fd00::2", 128 << 8),
                tuple(58, "fd00::2", 3, "fd00::1", 129 << 8),
            ),
        ),
        (
            "ipv4     2 sctp     132 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=9 dport=8 \
             src=10.0.0.2 dst=10.0.0.1 sport=8 dport=9 [ASSURED] mark=0 use=1",
            both(tuple(132, "10.0.0.1", 9, "10.0.0.2", 8)),
        ),
        (
            "ipv4     2 dccp     33 9 OPEN src=10.0.0.1 dst=10.0.0.2 sport=9 dport=8 src=10.0.0.2 \
             dst=10.0.0.1 sport=8 dport=9 mark=0 use=1",
            both(tuple(33, "10.0.0.1", 9, "10.0.0.2", 8)),
        ),
        (
            "ipv4     2 udplite  136 9 src=10.0.0.1 dst=10.0.0.2 sport=9 dport=8 src=10.0.0.2 \
             dst=10.0.0.1 sport=8 dport=9 mark=0 use=1",
            both(tuple(136, "10.0.0.1", 9, "10.0.0.2", 8)),
        ),
        (
            "ipv4     2 gre      47 29 timeout=30, stream_timeout=180 src=10.0.0.1 dst=10.0.0.2 \
             srckey=0x0 dstkey=0x1234 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 srckey=0x1234 \
             dstkey=0x0 mark=0 use=1",
            both(tuple(47, "10.0.0.1", 0, "10.0.0.2", 0)),
        ),
        (
            "ipv4     2 unknown  50 597 src=10.0.0.1 dst=10.0.0.2 [UNREPLIED] src=10.0.0.2 \
             dst=10.0.0.1 mark=0 use=1",
            both(tuple(50, "10.0.0.1", 0, "10.0.0.2", 0)),
        ),
        (
            "ipv4     2 ipv6     41 597 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1 use=1",
            both(tuple(41, "10.0.0.1", 0, "10.0.0.2", 0)),
        ),
    ] {
        let sample = parsed(line);
        assert_eq!((sample.original, sample.reply), (original, reply), "{line}");
        assert_eq!((sample.totals, sample.tcp), (None, None), "{line}");
        assert_eq!(sample.status.seen_reply(), !line.contains("[UNREPLIED]"), "{line}");
        assert!(!sample.status.source_nat() && !sample.status.destination_nat(), "{line}");
    }
}

#[test]
fn flags_and_zones_are_read() {
    // An offloaded entry has neither timeout nor state.
    let entry = |flag: &str, zones: [&str; 3]| {
        let [original, reply, both] = zones;
        parsed(&format!(
            "ipv4 2 tcp 6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 {original}packets=1 bytes=60 \
             src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 {reply}packets=1 bytes=60 {flag}mark=0 \
             {both}use=3"
        ))
    };
    let none = [""; 3];
    for (flag, offloaded, assured) in [
        ("", false, false),
        ("[ASSURED] ", false, true),
        ("[OFFLOAD] ", true, false),
        ("[HW_OFFLOAD] ", true, false),
        ("[SOMETHING_NEW] ", false, false),
    ] {
        let sample = entry(flag, none);
        let status = sample.status;
        assert_eq!((status.offloaded(), status.assured()), (offloaded, assured), "{flag}");
        assert!(sample.tcp.is_none() && status.seen_reply());
    }
    assert_eq!(entry("", none).zone, 0);
    assert_eq!(entry("", ["", "", "zone=7 "]).zone, 7);
    assert_eq!(entry("", ["zone-orig=9 ", "", ""]).zone, 9);
    assert_eq!(entry("", ["", "zone-reply=9 ", ""]).zone, 0);
}

#[test]
fn every_tcp_state_is_known_also_by_its_old_name() {
    for (name, state) in [
        ("NONE", Some(0)),
        ("SYN_SENT", Some(1)),
        ("TIME_WAIT", Some(7)),
        ("CLOSE", Some(8)),
        ("SYN_SENT2", Some(9)),
        ("LISTEN", Some(9)),
        ("UNKNOWN", None),
        ("NEW_IN_LINUX_9", None),
    ] {
        let sample = parsed(&TCP.replace("ESTABLISHED", name));
        assert_eq!(sample.tcp.map(|tcp| tcp.state), state, "{name}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let without = |part: &str| refused(&TCP.replacen(part, "", 1));
    assert_texts([
        (refused(""), "it should begin with a protocol's name and number, such as `tcp 6`"),
        (
            refused("root:x:0:0:root:/root:/bin/bash"),
            "it should begin with a protocol's name and number, such as `tcp 6`",
        ),
        (
            refused("ipv4 2 tcp 17 9"),
            "it should begin with a protocol's name and number, such as `tcp 6`",
        ),
        (refused("tcp 6 9"), "it has no original tuple"),
        (refused("tcp 6 9 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2"), "it has no reply tuple"),
        (without("dst=10.96.0.10"), "it has no destination address"),
        (without("sport=36260"), "it has no source port"),
        (without("bytes=1234"), "it has no byte counter"),
        (without("packets=5"), "it has no packet counter"),
        (without("packets=7 bytes=1234 "), "it has no counters of one direction"),
        (refused(&TCP.replace("dport=80 ", "dport=65536 ")), "`dport=` is not followed by a port"),
        (refused(&TCP.replace("10.96.0.10", "10.96.0")), "`dst=` is not followed by an IP address"),
        (refused(&format!("{TCP} src=10.0.0.1")), "it has more than two tuples"),
        (refused(&TCP.replace("10.96.0.10", "fd00::1")), "it mixes IPv4 and IPv6 addresses"),
        (refused(&TCP.replace("ipv4     2", "ipv6     10")), "it mixes IPv4 and IPv6 addresses"),
        (
            refused("icmp 1 29 src=10.0.0.1 dst=10.0.0.2 code=0 id=7 src=10.0.0.2 dst=10.0.0.1"),
            "it has no ICMP type",
        ),
        (parse_line(b"tcp 6 \xff").unwrap_err(), "it is not UTF-8 text"),
    ]);
}

fn assert_texts<const N: usize>(cases: [(LineError, &str); N]) {
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
}

/// What the kernel prints for a sample.
fn print(sample: &Sample, with_family: bool) -> String {
    let Sample { original, reply, status, .. } = sample;
    let number = original.protocol.0;
    let name = match number {
        1 | 6 | 17 | 33 | 47 | 58 | 132 | 136 => original.protocol.name().unwrap(),
        _ => UNNAMED,
    };
    let mut line = String::new();
    if with_family {
        let family = if original.source.is_ipv4() { ("ipv4", 2) } else { ("ipv6", 10) };
        write!(line, "{:-8} {} ", family.0, family.1).unwrap();
    }
    write!(line, "{name:-8} {number} ").unwrap();
    if !status.offloaded() {
        line.push_str("119 ");
    }
    if let Some(tcp) = sample.tcp {
        write!(line, "{} ", tcp.name()).unwrap();
    }
    let counters = sample.totals.map(|totals| [totals.sent, totals.received]);
    for (index, one) in [original, reply].into_iter().enumerate() {
        if index == 1 && !status.seen_reply() {
            line.push_str("[UNREPLIED] ");
        }
        write!(line, "src={} dst={} ", one.source, one.destination).unwrap();
        let (from, to) = (one.source_port, one.destination_port);
        if one.protocol.is_icmp() {
            write!(line, "type={} code={} id={from} ", to >> 8, to & 0xff).unwrap();
        } else if WITH_PORTS.contains(&number) {
            write!(line, "sport={from} dport={to} ").unwrap();
        }
        if let Some(counters) = counters {
            let Counters { packets, bytes } = counters[index];
            write!(line, "packets={packets} bytes={bytes} ").unwrap();
        }
    }
    match status.0 & (OFFLOAD | HARDWARE_OFFLOAD | ASSURED) {
        ASSURED => line.push_str("[ASSURED] "),
        OFFLOAD => line.push_str("[OFFLOAD] "),
        0 => {}
        _ => line.push_str("[HW_OFFLOAD] "),
    }
    write!(line, "mark={} zone={} delta-time=5 use=1", sample.mark, sample.zone).unwrap();
    line
}

fn any_tuples() -> impl Strategy<Value = (Tuple, Tuple)> {
    let protocol =
        prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), Just(47), Just(132), any::<u8>()];
    let addresses = prop_oneof![
        any::<[[u8; 4]; 4]>().prop_map(|four| four.map(|octets| Ipv4Addr::from(octets).into())),
        any::<[[u8; 16]; 4]>().prop_map(|four| four.map(|octets| Ipv6Addr::from(octets).into())),
    ];
    (protocol, addresses, any::<[u16; 4]>()).prop_map(|(number, [a, b, c, d], ports)| {
        let protocol = Protocol(number);
        let has_ports = protocol.is_icmp() || WITH_PORTS.contains(&number);
        let [e, f, g, h] = if has_ports { ports } else { [0; 4] };
        let tuple = |source: IpAddr, destination: IpAddr, source_port, destination_port| Tuple {
            protocol,
            source,
            destination,
            source_port,
            destination_port,
        };
        (tuple(a, b, e, f), tuple(c, d, g, h))
    })
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let totals = any::<Option<[u64; 4]>>().prop_map(|numbers| {
        numbers.map(|[a, b, c, d]| Totals {
            sent: Counters { packets: a, bytes: b },
            received: Counters { packets: c, bytes: d },
        })
    });
    let flags =
        prop_oneof![Just(0), Just(ASSURED), Just(OFFLOAD), Just(OFFLOAD | HARDWARE_OFFLOAD)];
    let rest = (flags, any::<bool>(), any::<u32>(), any::<u16>(), 0_u8..10);
    (any_tuples(), totals, rest).prop_map(
        |((original, reply), totals, (flags, replied, mark, zone, state))| {
            let replied = if replied { SEEN_REPLY } else { 0 };
            let status = Status(CONFIRMED | replied | flags | translation(&original, &reply));
            let has_state = original.protocol == Protocol::TCP && !status.offloaded();
            let tcp = has_state.then_some(TcpState { state, ..TcpState::default() });
            Sample { zone, original, reply, totals, status, mark, tcp, ..Sample::default() }
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(sample in any_sample(), with_family in any::<bool>()) {
        let line = print(&sample, with_family);
        prop_assert_eq!(parse_line(line.as_bytes()), Ok(sample), "{}", line);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(parse_line(&bytes).is_err());
    }

    #[test]
    fn no_damage_panics(sample in any_sample(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut line = print(&sample, true).into_bytes();
        let at = at.index(line.len());
        line[at] = byte;
        if let Ok(read) = parse_line(&line) {
            prop_assert_eq!(read.original.source.is_ipv4(), read.reply.destination.is_ipv4());
        }
        line.truncate(at);
        let _unused = parse_line(&line);
    }
}
