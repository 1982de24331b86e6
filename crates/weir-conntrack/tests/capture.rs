//! Captures the messages that `tests/frames.rs` reads and the fuzzer starts from, out of a
//! namespace with real traffic. Run as root, on purpose only:
//! `cargo test -p weir-conntrack --test capture -- --ignored`

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use weir_conntrack::message::{KIND_GET, decode};
use weir_conntrack::netlink::{Received, Request, Socket, messages};
use weir_conntrack::sysctl;
use weir_flow::Sample;
use weir_lab::fill;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Receives until nothing comes any more and returns the messages, headers included.
fn collect(socket: &Socket) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while socket.wait(Duration::from_millis(200)).unwrap() {
        let Received::Data(size) = socket.receive(&mut buffer).unwrap() else { continue };
        let mut rest = &buffer[..size];
        while let Some(length) = rest.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)) {
            let length = usize::try_from(length).unwrap();
            frames.push(rest[..length].to_vec());
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    frames
}

fn dump() -> Vec<Vec<u8>> {
    let socket = Socket::open(libc::NETLINK_NETFILTER).unwrap();
    let mut request = Request::new(KIND_GET, Request::DUMP, &[0; 4]);
    request.set_sequence(1);
    socket.send(request.bytes()).unwrap();
    collect(&socket)
}

fn save(name: &str, frame: &[u8]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in [root.join("tests/frames"), root.join("../../fuzz/corpus/netlink")] {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), frame).unwrap();
    }
}

/// Saves the one entry that `is` recognises.
fn save_entry(frames: &[Vec<u8>], name: &str, is: impl Fn(&Sample) -> bool) {
    let mut sample = Sample::default();
    let found: Vec<_> = frames
        .iter()
        .filter(|frame| {
            let message = messages(frame).next().unwrap().unwrap();
            decode(message.payload, &mut sample).is_ok() && is(&sample)
        })
        .collect();
    assert_eq!(found.len(), 1, "{name}: one entry is meant");
    save(name, found[0]);
}

fn to_port(protocol: u8, port: u16) -> impl Fn(&Sample) -> bool {
    move |sample| sample.original.protocol.0 == protocol && sample.original.destination_port == port
}

/// One TCP exchange, left open.
fn tcp(address: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(address).unwrap();
    let source = TcpStream::connect(address).unwrap();
    (source, listener.accept().unwrap().0)
}

const RULES: &str = "
table inet track { chain c { ct state new; }; }
table ip nat {
  chain out { type nat hook output priority -100; udp dport 53 dnat to 127.0.0.1:5353; }
}
table inet zones {
  chain out { type filter hook output priority -300; udp dport 777 ct zone set 7; udp dport 778 ct original zone set 8; tcp dport 8008 ct zone set 9; }
  chain pre { type filter hook prerouting priority -300; udp dport 777 ct zone set 7; }
  chain marks { type filter hook output priority 0; udp dport 1004 ct mark set 0x42; }
}
";

/// Echo requests of both families with the identifier 0x1234.
const PING: &str = "
import socket, struct
def checksum(b):
    s = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff
body = struct.pack('!HH', 0x1234, 1) + b'weir'
head = struct.pack('!BBH', 8, 0, checksum(struct.pack('!BBH', 8, 0, 0) + body))
socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).sendto(head + body, ('127.0.0.1', 0))
socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58).sendto(struct.pack('!BBH', 128, 0, 0) + body, ('::1', 0))
";

#[test]
#[ignore = "writes tests/frames and fuzz/corpus/netlink anew"]
fn capture() {
    fill::own_namespace().unwrap();
    run("ip", &["link", "set", "lo", "up"]);
    run("nft", &[RULES]);

    let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
    let v6 = UdpSocket::bind("[::1]:0").unwrap();
    v4.send_to(b"1", "127.0.0.1:1001").unwrap();
    save_entry(&dump(), "uncounted", to_port(17, 1001));

    assert!(sysctl::enable().refused.is_empty());
    let destroyed = Socket::open(libc::NETLINK_NETFILTER).unwrap();
    destroyed.join(3).unwrap();
    v4.send_to(b"four", "127.0.0.1:1004").unwrap();
    v6.send_to(b"sixsix", "[::1]:1006").unwrap();
    v4.send_to(b"nat", "127.0.0.1:53").unwrap();
    v4.send_to(b"zone", "127.0.0.1:777").unwrap();
    v4.send_to(b"zone", "127.0.0.1:778").unwrap();
    let _open = (tcp("127.0.0.1:8004"), tcp("[::1]:8006"));
    run("python3", &["-c", PING]);
    let insert = |protocol: &str, more: &[&str]| {
        let mut words = vec!["-I", "-p", protocol, "-s", "10.0.0.1", "-d", "10.0.0.2", "-t", "99"];
        words.extend_from_slice(more);
        run("conntrack", &words);
    };
    let ports = ["--sport", "1000", "--dport", "2000"];
    let sctp = ["--state", "ESTABLISHED", "--orig-vtag", "1", "--reply-vtag", "2"];
    insert("sctp", &[&ports[..], &sctp].concat());
    insert("udplite", &ports);
    insert("dccp", &[&ports[..], &["--state", "OPEN", "--role", "client"]].concat());
    insert("gre", &["--srckey", "5", "--dstkey", "6"]);
    insert("50", &[]);
    std::thread::sleep(Duration::from_millis(100));

    let frames = dump();
    save_entry(&frames, "udp4", to_port(17, 1004));
    save_entry(&frames, "udp6", to_port(17, 1006));
    save_entry(&frames, "translated", to_port(17, 53));
    save_entry(&frames, "zone", to_port(17, 777));
    save_entry(&frames, "zone-of-one-direction", |sample| {
        to_port(17, 778)(sample) && sample.zone == 8
    });
    save_entry(&frames, "tcp4", to_port(6, 8004));
    save_entry(&frames, "tcp6", to_port(6, 8006));
    for (name, protocol) in [
        ("icmp4", 1),
        ("icmp6", 58),
        ("sctp", 132),
        ("udplite", 136),
        ("dccp", 33),
        ("gre", 47),
        ("esp", 50),
    ] {
        save_entry(&frames, name, |sample| {
            // ICMPv6 also has neighbour discovery.
            sample.original.protocol.0 == protocol
                && (protocol != 58 || sample.original.source_port == 0x1234)
        });
    }
    save("done", frames.last().unwrap());
    fill::flush().unwrap();
    let ended = collect(&destroyed);
    save_entry(&ended, "ended-tcp4", to_port(6, 8004));
    save_entry(&ended, "ended-udp6", to_port(17, 1006));
}
