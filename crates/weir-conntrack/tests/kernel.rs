//! Against the real kernel, each test in a network namespace of its own. They need root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use weir_conntrack::netlink::{Request, Socket, attributes};
use weir_conntrack::tracking::{Installed, Probe, TABLE, Tracking};
use weir_conntrack::{Drained, Dump, Error, Events, capability, sysctl};
use weir_flow::{Counters, Protocol, Sample, Totals};
use weir_lab::fill;

/// What a packet adds to its payload: IPv4 and UDP headers.
const UDP4_HEADERS: u64 = 28;
/// IPv6 and UDP headers.
const UDP6_HEADERS: u64 = 48;

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

/// A namespace that tracks, counts and stamps.
fn tracking_namespace() -> bool {
    if !namespace() {
        return false;
    }
    assert_eq!(Tracking::open().unwrap().install().unwrap(), Installed::New);
    assert!(sysctl::enable().refused.is_empty());
    assert!(sysctl::Settings::read().is_complete());
    true
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Everything in the table.
fn dump() -> Vec<Sample> {
    let mut dump = Dump::open().unwrap();
    let samples = read_all(&mut dump);
    assert_eq!(dump.malformed(), 0);
    samples
}

fn read_all(dump: &mut Dump) -> Vec<Sample> {
    let mut samples = Vec::new();
    dump.start().unwrap();
    while let Some(chunk) = dump.next_chunk().unwrap() {
        chunk.entries(|sample| samples.push(*sample));
    }
    samples
}

/// Drains until nothing is left.
fn drain(events: &mut Events, samples: &mut Vec<Sample>) -> Drained {
    let mut sum = Drained::default();
    loop {
        let drained = events.drain(|sample| samples.push(*sample)).unwrap();
        sum.received += drained.received;
        sum.malformed += drained.malformed;
        sum.lost += drained.lost;
        sum.overrun |= drained.overrun;
        if !drained.more {
            return sum;
        }
    }
}

/// A UDP exchange on loopback: so many packets of so many payload bytes there and back.
fn udp(address: &str, there: (u64, usize), back: (u64, usize)) -> (SocketAddr, SocketAddr) {
    let destination = UdpSocket::bind(address).unwrap();
    let source = UdpSocket::bind(address).unwrap();
    let (from, to) = (source.local_addr().unwrap(), destination.local_addr().unwrap());
    for _ in 0..there.0 {
        source.send_to(&vec![1; there.1], to).unwrap();
    }
    for _ in 0..back.0 {
        destination.send_to(&vec![2; back.1], from).unwrap();
    }
    (from, to)
}

fn find(samples: &[Sample], ends: (SocketAddr, SocketAddr)) -> Sample {
    let found: Vec<_> = samples
        .iter()
        .filter(|sample| {
            sample.original.source_port == ends.0.port()
                && sample.original.destination_port == ends.1.port()
        })
        .collect();
    assert_eq!(found.len(), 1, "one entry for {ends:?} in {samples:#?}");
    *found[0]
}

#[test]
fn a_dump_counts_to_the_byte() {
    if !tracking_namespace() {
        return;
    }
    let v4 = udp("127.0.0.1:0", (3, 100), (2, 1000));
    let v6 = udp("[::1]:0", (5, 10), (0, 0));
    let samples = dump();

    let entry = find(&samples, v4);
    assert_eq!((entry.original.source, entry.original.destination), (v4.0.ip(), v4.1.ip()));
    assert_eq!(entry.original.protocol, Protocol(17));
    assert!(entry.original.is_mirrored_by(&entry.reply));
    let sent = Counters { packets: 3, bytes: 3 * (100 + UDP4_HEADERS) };
    let received = Counters { packets: 2, bytes: 2 * (1000 + UDP4_HEADERS) };
    assert_eq!(entry.totals, Some(Totals { sent, received }));
    assert!(entry.status.seen_reply());
    assert!(entry.start.is_some() && entry.stop.is_none());
    assert!(entry.tcp.is_none());

    let entry = find(&samples, v6);
    assert_eq!((entry.original.source, entry.original.destination), (v6.0.ip(), v6.1.ip()));
    let sent = Counters { packets: 5, bytes: 5 * (10 + UDP6_HEADERS) };
    assert_eq!(entry.totals, Some(Totals { sent, received: Counters::default() }));
    assert!(!entry.status.seen_reply());
}

#[test]
fn a_destroy_event_has_the_final_counters_of_nft() {
    if !tracking_namespace() {
        return;
    }
    // Counters of nft at the same hooks, for both directions, as a second witness.
    run(
        "nft",
        &[
            "add table ip truth; add chain ip truth pre { type filter hook prerouting priority -150; }; \
           add rule ip truth pre tcp dport 7777 counter; add rule ip truth pre tcp sport 7777 counter",
        ],
    );
    let mut events = Events::open(Events::RECEIVE_BUFFER_BYTES).unwrap();
    assert_eq!(events.receive_buffer_bytes(), Events::RECEIVE_BUFFER_BYTES);

    let listener = TcpListener::bind("127.0.0.1:7777").unwrap();
    let mut source = TcpStream::connect("127.0.0.1:7777").unwrap();
    let (mut destination, _) = listener.accept().unwrap();
    source.write_all(&vec![7; 50_000]).unwrap();
    destination.read_exact(&mut vec![0; 50_000]).unwrap();
    destination.write_all(&[8; 3000]).unwrap();
    source.read_exact(&mut [0; 3000]).unwrap();
    drop((source, destination, listener));
    // The last acknowledgements run in softirq, after close() returns.
    std::thread::sleep(Duration::from_millis(100));

    let ruleset = run("nft", &["list", "table", "ip", "truth"]);
    let truth: Vec<u64> = ruleset
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter(|number| *number != 7777)
        .collect();
    let live = dump();
    fill::flush().unwrap();
    let mut ended = Vec::new();
    let drained = drain(&mut events, &mut ended);
    assert_eq!((drained.received, drained.lost, drained.malformed), (1, 0, 0));
    let entry = ended[0];
    let totals = entry.totals.unwrap();
    let numbers = [totals.sent, totals.received].map(|c| [c.packets, c.bytes]).concat();
    // The rule set prints the priority -150 first, which does not parse as u64.
    assert_eq!(numbers, truth, "{ruleset}");
    assert_eq!(live, [Sample { stop: None, status: live[0].status, tcp: live[0].tcp, ..entry }]);
    assert!(entry.stop.unwrap() > entry.start.unwrap());
    assert_eq!(live[0].tcp.unwrap().name(), "TIME_WAIT");
    assert!(!live[0].tcp.unwrap().both_liberal());
}

#[test]
fn an_overflow_is_counted_to_the_event() {
    if !tracking_namespace() {
        return;
    }
    let mut events = Events::open(64 * 1024).unwrap();
    let mut ended = Vec::new();
    for round in 0..3_u32 {
        let sent = 3000 + 500 * round;
        fill::fill(0, sent).unwrap();
        fill::flush().unwrap();
        let drained = drain(&mut events, &mut ended);
        assert!(drained.lost > 0 && drained.overrun && drained.received > 0, "{drained:?}");
        assert_eq!(drained.received + drained.lost, u64::from(sent), "{drained:?}");
    }
    // Once drained, nothing is lost any more.
    fill::fill(0, 10).unwrap();
    fill::flush().unwrap();
    let drained = drain(&mut events, &mut ended);
    assert_eq!(drained, Drained { received: 10, ..Drained::default() });
}

#[test]
fn a_large_table_is_read_whole_even_after_a_dump_was_given_up() {
    if !tracking_namespace() {
        return;
    }
    fill::fill(0, 5000).unwrap();
    let mut dump = Dump::open().unwrap();
    dump.start().unwrap();
    dump.next_chunk().unwrap().unwrap().entries(|_| {});
    let samples = read_all(&mut dump);
    assert!(dump.next_chunk().unwrap().is_none(), "the end stays the end");
    assert_eq!(read_all(&mut dump).len(), 5000);
    let by_tuple: HashMap<_, _> = samples.iter().map(|sample| (sample.original, sample)).collect();
    assert_eq!(by_tuple.len(), 5000);
    for number in 0..5000 {
        let sample = by_tuple[&fill::tuple(number)];
        assert_eq!(sample.mark, number % 16);
        assert_eq!(sample.totals, Some(Totals::default()));
        assert!(sample.status.assured());
    }
}

#[test]
fn entries_made_without_accounting_have_unknown_counters() {
    if !namespace() {
        return;
    }
    Tracking::open().unwrap().install().unwrap();
    let ends = udp("127.0.0.1:0", (1, 1), (0, 0));
    let before = find(&dump(), ends);
    assert_eq!((before.totals, before.start), (None, None));
    let enabled = sysctl::enable();
    assert_eq!(enabled.changed.len(), 3, "{enabled:?}");
    assert_eq!(find(&dump(), ends).totals, None, "switching on affects new entries only");
}

#[test]
fn translation_and_zones_are_seen() {
    if !tracking_namespace() {
        return;
    }
    run(
        "nft",
        &["add table ip nat; add chain ip nat out { type nat hook output priority -100; }; \
           add rule ip nat out ip daddr 127.0.0.9 udp dport 53 dnat to 127.0.0.1:5353; \
           add table inet zones; add chain inet zones raw { type filter hook output priority -300; }; \
           add chain inet zones pre { type filter hook prerouting priority -300; }; \
           add rule inet zones raw udp dport 777 ct zone set 7; \
           add rule inet zones pre udp dport 777 ct zone set 7"],
    );
    let backend = UdpSocket::bind("127.0.0.1:5353").unwrap();
    let source = UdpSocket::bind("127.0.0.1:0").unwrap();
    source.send_to(b"question", "127.0.0.9:53").unwrap();
    let mut buffer = [0; 16];
    let (_, from) = backend.recv_from(&mut buffer).unwrap();
    backend.send_to(b"answer", from).unwrap();
    source.send_to(b"zone", "127.0.0.1:777").unwrap();

    let samples = dump();
    let port = source.local_addr().unwrap().port();
    let of = |destination_port| {
        let found = samples.iter().find(|sample| {
            sample.original.source_port == port
                && sample.original.destination_port == destination_port
        });
        *found.unwrap()
    };
    let translated = of(53);
    assert!(
        translated.status.destination_nat()
            && !translated.original.is_mirrored_by(&translated.reply)
    );
    assert_eq!(translated.original.destination.to_string(), "127.0.0.9");
    assert_eq!(
        (translated.reply.source.to_string(), translated.reply.source_port),
        ("127.0.0.1".into(), 5353)
    );
    assert_eq!((translated.zone, of(777).zone), (0, 7));

    let others = Tracking::open().unwrap().others().unwrap();
    assert_eq!(others.tables, ["nat", "zones"]);
}

#[test]
fn tracking_is_installed_adopted_probed_and_removed() {
    if !namespace() {
        return;
    }
    let mut tracking = Tracking::open().unwrap();
    assert!(matches!(tracking.probe().unwrap(), Probe::Untracked));
    assert!(!tracking.is_installed().unwrap());
    assert!(!tracking.remove().unwrap());

    assert_eq!(tracking.install().unwrap(), Installed::New);
    assert_eq!(Tracking::open().unwrap().install().unwrap(), Installed::Adopted);
    assert!(matches!(tracking.probe().unwrap(), Probe::Tracked));
    assert_eq!(dump(), [], "the probe leaves nothing behind");
    let listed = run("nft", &["list", "ruleset"]);
    assert!(listed.contains(TABLE) && listed.contains("ct state new"), "{listed}");
    assert!(listed.contains("connection tracking stays on"), "{listed}");
    assert_eq!(tracking.others().unwrap().tables, Vec::<String>::new());

    // Somebody empties the rule set: seen, and mended, also if only the rule is gone.
    run("nft", &["flush", "chain", "inet", TABLE, "track"]);
    assert!(!tracking.is_installed().unwrap());
    assert_eq!(tracking.install().unwrap(), Installed::New);
    run("nft", &["flush", "ruleset"]);
    assert!(!tracking.is_installed().unwrap());
    assert_eq!(tracking.install().unwrap(), Installed::New);

    let v6 = udp("[::1]:0", (1, 1), (1, 1));
    assert!(find(&dump(), v6).status.seen_reply(), "IPv6 is tracked by the same rule");
    assert!(tracking.remove().unwrap());
    assert!(!tracking.is_installed().unwrap());
    // The kernel destroys the rule, and with it ends tracking, a moment later.
    let untracked = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        matches!(tracking.probe().unwrap(), Probe::Untracked)
    });
    assert!(untracked);

    // A namespace whose loopback was never up has no address to send from.
    fill::own_namespace().unwrap();
    let down = Tracking::open().unwrap().probe().unwrap();
    assert!(matches!(down, Probe::Impossible(_)), "{down:?}");
}

#[test]
fn forwarded_traffic_is_tracked_without_a_hook() {
    if !tracking_namespace() {
        return;
    }
    // Two namespaces on either side of this one, which forwards between them.
    let names = ["wct-left", "wct-right"].map(|name| format!("{name}-{}", std::process::id()));
    let _remove = Namespaces(names.clone());
    for (name, device, subnet) in [(&names[0], "left", "1"), (&names[1], "right", "2")] {
        run("ip", &["netns", "add", name]);
        run("ip", &["link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name]);
        run("ip", &["link", "set", device, "up"]);
        run("ip", &["-n", name, "link", "set", "eth0", "up"]);
        for (gateway, pod, default) in [
            (
                format!("10.9.{subnet}.1/24"),
                format!("10.9.{subnet}.2/24"),
                format!("10.9.{subnet}.1"),
            ),
            (
                format!("fd09:{subnet}::1/64"),
                format!("fd09:{subnet}::2/64"),
                format!("fd09:{subnet}::1"),
            ),
        ] {
            run("ip", &["addr", "add", &gateway, "dev", device, "nodad"]);
            run("ip", &["-n", name, "addr", "add", &pod, "dev", "eth0", "nodad"]);
            run("ip", &["-n", name, "route", "add", "default", "via", &default]);
        }
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    let script = "import socket\n\
        for f,a in((socket.AF_INET,'10.9.2.2'),(socket.AF_INET6,'fd09:2::2')):\n\
        \x20 socket.socket(f,socket.SOCK_DGRAM).sendto(b'x',(a,999))";
    run("ip", &["netns", "exec", &names[0], "python3", "-c", script]);
    std::thread::sleep(Duration::from_millis(200));
    let mut seen: Vec<_> = dump()
        .iter()
        .filter(|sample| sample.original.destination_port == 999)
        .map(|sample| sample.original.destination.to_string())
        .collect();
    seen.sort();
    assert_eq!(seen, ["10.9.2.2", "fd09:2::2"]);
}

#[test]
fn the_raised_limit_is_put_back_from_another_namespace() {
    let Ok(former) = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max") else {
        return;
    };
    let max: u64 = former.trim().parse().unwrap();
    if !capability::net_admin().unwrap() {
        namespace();
        return;
    }
    let raised = fill::RaisedMax::at_least(max + 1).unwrap();
    assert!(namespace());
    assert_eq!(sysctl::Settings::read().max, Some(max + 1));
    drop(raised);
    assert_eq!(sysctl::Settings::read().max, Some(max));
}

/// Removes named namespaces when dropped, also after a failed assertion.
struct Namespaces([String; 2]);

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let removed = Command::new("ip").args(["netns", "del", name]).status();
            assert!(removed.is_ok_and(|status| status.success()), "{name} is left behind");
        }
    }
}

#[test]
fn the_socket_serves_other_protocols() {
    if !namespace() {
        return;
    }
    let socket = Socket::open(libc::NETLINK_ROUTE).unwrap();
    let mut buffer = vec![0; 32 * 1024];
    // RTM_GETADDR with struct ifaddrmsg of any family; IFA_ADDRESS is attribute 1.
    let mut request = Request::new(22, Request::DUMP, &[0; 8]);
    request.set_sequence(5);
    let mut found = Vec::new();
    socket
        .ask(&request, "list addresses", &mut buffer, |message| {
            assert!(!message.is_interrupted());
            let list = attributes(&message.payload[8..]).map(Result::unwrap);
            found.extend(list.filter(|part| part.kind == 1).map(|part| part.payload.to_vec()));
        })
        .unwrap();
    let loopback6 = [[0; 15].as_slice(), &[1]].concat();
    assert_eq!(found, [vec![127, 0, 0, 1], loopback6]);

    // RTM_GETLINK of one name (IFLA_IFNAME), which no link has.
    let mut request = Request::new(18, Request::ACK, &[0; 16]);
    request.text(3, "no-such-link");
    let error = socket.ask(&request, "look for a link", &mut buffer, |_| {}).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENODEV));
    assert_eq!(error.to_string(), "the kernel refused to look for a link");
}

#[test]
fn without_the_capability_the_error_says_how_to_grant_it() {
    if !namespace() {
        return;
    }
    // Of this thread only: the C library's setresuid() would change all threads.
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: takes three numbers.
    let code = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
    assert_eq!(code, 0);
    assert!(!capability::net_admin().unwrap());
    let mut dump = Dump::open().unwrap();
    dump.start().unwrap();
    let refused = [
        dump.next_chunk().unwrap_err(),
        Events::open(1 << 20).unwrap_err(),
        Tracking::open().unwrap().install().unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, Error::NotPermitted { .. }), "{error:?}");
        let text = error.to_string();
        for part in ["CAP_NET_ADMIN", "setcap cap_net_admin+ep /", "capabilities.add: [NET_ADMIN]"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
    // The buffer is as large as the system allows everybody, and that is told.
    let socket = Socket::open(libc::NETLINK_ROUTE).unwrap();
    let granted = socket.set_receive_buffer(1 << 30).unwrap();
    assert!(granted < 1 << 30 && granted == socket.receive_buffer().unwrap(), "{granted}");

    let enabled = sysctl::enable();
    assert_eq!(enabled.refused.len(), 3);
    assert!(
        enabled.refused[0].to_string().contains("sysctl -w net.netfilter.nf_conntrack_acct=1"),
        "{}",
        enabled.refused[0]
    );
}
