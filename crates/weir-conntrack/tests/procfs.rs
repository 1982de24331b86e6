//! The text form against a netlink dump of the same table, entry by entry. They need root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use weir_conntrack::procfs::{Candidates, Limits, ProcfsError, Table};
use weir_conntrack::tracking::Tracking;
use weir_conntrack::{Dump, capability, sysctl};
use weir_flow::{Protocol, Sample, Status, TcpState, Tuple};
use weir_lab::fill;

/// `/proc/net` shows the namespace of the process; these tests change that of their thread.
const TEXT: &str = "/proc/thread-self/net/nf_conntrack";

/// The status bits that the text shows or lets infer: `IPS_SEEN_REPLY`, `ASSURED`, `CONFIRMED`,
/// `SRC_NAT`, `DST_NAT`, `OFFLOAD` and `HW_OFFLOAD`.
const SHOWN: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 14 | 1 << 15;

/// Enters a fresh namespace with loopback up, unless this process may not; then the test passes
/// without having tested anything, which is refused where `CI=true`.
fn namespace() -> bool {
    if !capability::net_admin().unwrap() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "these tests must run as root in CI");
        // Written past the test harness, which would swallow it.
        let mut loud = std::io::stderr();
        loud.write_all(b"SKIPPED: NOT ROOT, nothing was tested against the kernel\n").unwrap();
        return false;
    }
    fill::own_namespace().unwrap();
    run("ip", &["link", "set", "lo", "up"]);
    true
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}

type Entries = BTreeMap<(Tuple, u16), Sample>;

fn by_tuple(samples: Vec<Sample>) -> Entries {
    let count = samples.len();
    let entries: Entries =
        samples.into_iter().map(|sample| ((sample.original, sample.zone), sample)).collect();
    assert_eq!(entries.len(), count, "every entry once");
    entries
}

/// The table over netlink, less what no text can say.
fn dumped() -> Entries {
    let mut dump = Dump::open().unwrap();
    let mut samples = Vec::new();
    dump.start().unwrap();
    while let Some(chunk) = dump.next_chunk().unwrap() {
        chunk.entries(|sample| samples.push(as_text(*sample)));
    }
    assert_eq!(dump.malformed(), 0);
    by_tuple(samples)
}

fn as_text(sample: Sample) -> Sample {
    let tcp = sample.tcp.map(|tcp| TcpState { state: tcp.state, ..TcpState::default() });
    let status = Status(sample.status.0 & SHOWN);
    Sample { id: 0, start: None, stop: None, status, tcp, ..sample }
}

/// The table as text.
fn read() -> Entries {
    let mut table = Table::open(Path::new(TEXT), Limits::of_this_kernel()).unwrap();
    let mut samples = Vec::new();
    table.start().unwrap();
    while table.next_chunk(|sample| samples.push(*sample)).unwrap() {}
    assert_eq!(table.malformed(), 0, "{}", std::fs::read_to_string(TEXT).unwrap());
    by_tuple(samples)
}

/// Compares both, once the table stands still: closing runs on after `close()` returns.
fn compared() -> Entries {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let (before, text, after) = (dumped(), read(), dumped());
        if text == before {
            return text;
        }
        let moved = before != after;
        assert!(moved && Instant::now() < deadline, "{text:#?}\n{after:#?}");
    }
}

/// An echo over IPv4 and one over IPv6, which the kernel answers.
const ECHO: &str = "
import socket, struct, sys
identifier = int(sys.argv[1])
four = struct.pack('!BBHHH', 8, 0, 0, identifier, 1)
total = sum(struct.unpack('!4H', four))
checksum = ~(total + (total >> 16)) & 0xffff
four = four[:2] + struct.pack('!H', checksum) + four[4:]
socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).sendto(four, ('127.0.0.1', 0))
six = struct.pack('!BBHHH', 128, 0, 0, identifier, 1)
socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58).sendto(six, ('::1', 0))
";

/// TCP, UDP and ICMP, over IPv4 and IPv6, answered and not.
fn traffic(identifier: &str) {
    run("python3", &["-c", ECHO, identifier]);
    for host in ["127.0.0.1", "::1"] {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let mut source = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut destination, _) = listener.accept().unwrap();
        source.write_all(&[7; 5000]).unwrap();
        destination.read_exact(&mut [0; 5000]).unwrap();
        drop((source, destination));
        let answered = UdpSocket::bind((host, 0)).unwrap();
        let asking = UdpSocket::bind((host, 0)).unwrap();
        asking.send_to(b"question", answered.local_addr().unwrap()).unwrap();
        answered.send_to(b"answer", asking.local_addr().unwrap()).unwrap();
        UdpSocket::bind((host, 0)).unwrap().send_to(b"?", (host, 777)).unwrap();
    }
}

fn count(entries: &Entries, protocol: Protocol) -> usize {
    entries.keys().filter(|(tuple, _)| tuple.protocol == protocol).count()
}

#[test]
fn the_text_says_what_netlink_says() {
    if !namespace() {
        return;
    }
    Tracking::open().unwrap().install().unwrap();
    std::fs::write("/proc/sys/net/netfilter/nf_conntrack_acct", "0").unwrap();
    traffic("77");
    let uncounted = compared();
    assert!(uncounted.values().all(|sample| sample.totals.is_none()));

    assert!(sysctl::enable().refused.is_empty());
    run(
        "nft",
        &["add table ip nat; add chain ip nat out { type nat hook output priority -100; }; \
           add rule ip nat out ip daddr 127.0.0.9 udp dport 53 dnat to 127.0.0.1:5353; \
           add chain ip nat post { type nat hook postrouting priority 100; }; \
           add rule ip nat post udp dport 5454 snat to 127.0.0.7; \
           add table inet more; add chain inet more raw { type filter hook output priority -300; }; \
           add rule inet more raw udp dport 777 ct zone set 7; \
           add rule inet more raw udp dport 778 ct original zone set 8; \
           add chain inet more late { type filter hook output priority 0; }; \
           add rule inet more late udp dport 5353 ct mark set 0x42"],
    );
    traffic("78");
    let source = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (backend, other) =
        (UdpSocket::bind("127.0.0.1:5353").unwrap(), UdpSocket::bind("127.0.0.1:5454").unwrap());
    source.send_to(b"translated", "127.0.0.9:53").unwrap();
    let (_, from) = backend.recv_from(&mut [0; 16]).unwrap();
    backend.send_to(b"answer", from).unwrap();
    source.send_to(b"masked", other.local_addr().unwrap()).unwrap();
    source.send_to(b"one way", "127.0.0.1:778").unwrap();
    // It stays open, and so established.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _open = TcpStream::connect(listener.local_addr().unwrap()).unwrap();

    let all = compared();
    let counted: Vec<_> = all.values().filter(|sample| sample.totals.is_some()).collect();
    assert!(counted.len() >= 10, "{counted:#?}");
    for (protocol, least) in
        [(Protocol::TCP, 5), (Protocol::UDP, 8), (Protocol::ICMP, 2), (Protocol::ICMPV6, 2)]
    {
        assert!(count(&all, protocol) >= least, "{protocol}: {all:#?}");
    }
    let has = |which: fn(&Sample) -> bool| assert!(counted.iter().any(|sample| which(sample)));
    has(|sample| sample.status.destination_nat() && sample.mark == 0x42);
    has(|sample| sample.status.source_nat());
    has(|sample| sample.zone == 7);
    has(|sample| sample.zone == 8);
    has(|sample| sample.original.source.is_ipv6() && sample.status.seen_reply());
    has(|sample| !sample.status.seen_reply());
    has(|sample| sample.tcp.is_some_and(|tcp| tcp.name() == "ESTABLISHED"));
    has(|sample| sample.tcp.is_some_and(|tcp| tcp.name() == "TIME_WAIT"));
}

#[test]
fn a_large_table_is_read_whole_or_refused() {
    if !namespace() {
        return;
    }
    Tracking::open().unwrap().install().unwrap();
    assert!(sysctl::enable().refused.is_empty());
    assert!(read().is_empty());
    let candidates = Candidates::new(vec![PathBuf::from(TEXT)]);
    assert!(candidates.find(Limits::of_this_kernel()).unwrap().table.was_empty());

    fill::fill(0, 5000).unwrap();
    assert_eq!(compared().len(), 5000);
    let limits = |entries| Limits::of_this_kernel().with_entries(Some(entries));
    assert!(Table::open(Path::new(TEXT), limits(5000)).is_ok());
    for refused in [
        Table::open(Path::new(TEXT), limits(4999)).unwrap_err(),
        candidates.find(limits(4999)).unwrap_err(),
    ] {
        assert!(matches!(refused, ProcfsError::Large { entries: 5000, .. }), "{refused:?}");
    }
    // It grows while it is read.
    fill::flush().unwrap();
    fill::fill(0, 100).unwrap();
    let mut table = Table::open(Path::new(TEXT), limits(1000)).unwrap();
    table.start().unwrap();
    fill::fill(100, 4900).unwrap();
    let error = loop {
        match table.next_chunk(|_| {}) {
            Ok(more) => assert!(more, "5000 entries were read"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ProcfsError::Large { entries: 1001, .. }), "{error:?}");
}
