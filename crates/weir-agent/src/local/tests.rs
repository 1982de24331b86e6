//! Real sockets of this test process, in this machine's own network namespace.

mod child;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use weir_flow::Class;
use weir_flow::class::classify;

use super::*;

fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    WallTime(u64::try_from(since.as_nanos()).unwrap())
}

fn question(side: Side, protocol: Protocol, own: SocketAddr, peer: SocketAddr) -> Question {
    Question {
        side,
        protocol,
        address: own.ip(),
        port: own.port(),
        peer_address: peer.ip(),
        peer_port: peer.port(),
        at: now(),
        latest: now(),
    }
}

/// How this process is expected to be named: by its unit or container where it is in one, which is
/// what `/proc` says, else by its executable.
fn own_name() -> String {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let executable = std::env::current_exe().unwrap();
    let executable = executable.file_name().unwrap().to_str().unwrap().to_owned();
    let owner = cgroup::owner_of_process(&cgroup);
    let name = owner.and_then(|owner| owner.unit.or(owner.container));
    name.map_or(executable, |name| name.to_string())
}

fn refreshed() -> LocalDirectory {
    let mut directory = LocalDirectory::new("box");
    directory.refresh(now()).unwrap();
    directory
}

fn check_both_ends(listen: &str) {
    let listener = TcpListener::bind(listen).unwrap();
    let destination = listener.local_addr().unwrap();
    let stream = TcpStream::connect(destination).unwrap();
    let source = stream.local_addr().unwrap();
    let (accepted, _) = listener.accept().unwrap();

    let mut directory = refreshed();
    let of_source = question(Side::Source, Protocol::TCP, source, destination);
    let of_destination = question(Side::Destination, Protocol::TCP, destination, source);
    for question in [of_source, of_destination] {
        let endpoint = directory.resolve(&question);
        assert_eq!(endpoint.kind, EndpointKind::Host);
        assert_eq!(endpoint.host.as_deref(), Some("box"));
        assert_eq!(endpoint.name(), own_name(), "{question:?}: {endpoint:?}");
        assert_eq!(endpoint.unresolved, None);
        assert!(Arc::ptr_eq(&endpoint, &directory.resolve(&question)), "given out again");
    }
    assert!(directory.listens(Protocol::TCP, destination.ip(), destination.port()));
    assert!(!directory.listens(Protocol::TCP, source.ip(), source.port()));
    assert!(!directory.listens(Protocol::UDP, destination.ip(), destination.port()));

    // Both are still known when they are gone.
    drop((listener, stream, accepted));
    directory.refresh(now()).unwrap();
    for question in [of_source, of_destination] {
        assert_eq!(directory.resolve(&question).name(), own_name());
    }
    assert!(!directory.listens(Protocol::TCP, destination.ip(), destination.port()));
    assert!(directory.counts().sockets_remembered > 0);
}

#[test]
fn both_ends_of_a_connection_are_named() {
    check_both_ends("127.0.0.1:0");
    check_both_ends("[::1]:0");
}

#[test]
fn a_wildcard_listener_answers_for_both_families() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let accepted = listener.accept().unwrap();
    let directory = refreshed();
    let (source, destination) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let question = question(Side::Destination, Protocol::TCP, destination, source);
    assert_eq!(directory.resolve(&question).name(), own_name());
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let address: IpAddr = address.parse().unwrap();
        assert!(directory.listens(Protocol::TCP, address, port), "{address}");
    }
    drop(accepted);
}

#[test]
fn datagram_sockets_are_named_connected_or_not() {
    let (bound, connected) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (destination, source) = (bound.local_addr().unwrap(), connected.local_addr().unwrap());
    connected.connect(destination).unwrap();
    let directory = refreshed();
    for (side, own, peer) in
        [(Side::Source, source, destination), (Side::Destination, destination, source)]
    {
        let endpoint = directory.resolve(&question(side, Protocol::UDP, own, peer));
        assert_eq!(endpoint.name(), own_name());
    }
    assert!(directory.listens(Protocol::UDP, destination.ip(), destination.port()));
}

#[test]
fn what_has_no_socket_says_so() {
    let directory = refreshed();
    let (own, outside): (SocketAddr, SocketAddr) =
        ("127.0.0.1:9".parse().unwrap(), "203.0.113.7:443".parse().unwrap());
    let resolve =
        |side, protocol, own, peer| directory.resolve(&question(side, protocol, own, peer));

    let echo = resolve(Side::Destination, Protocol::ICMP, own, outside);
    assert_eq!((echo.kind, echo.unresolved), (EndpointKind::Host, Some(Unresolved::NoSocket)));
    let gone = resolve(Side::Source, Protocol::TCP, own, outside);
    assert_eq!((gone.kind, gone.unresolved), (EndpointKind::Host, Some(Unresolved::SocketGone)));
    let external = resolve(Side::Destination, Protocol::TCP, outside, own);
    assert_eq!(*external, Endpoint::bare(EndpointKind::External, outside.ip()));
    assert_eq!(classify(&gone, &external), Class::Internet);
}

#[test]
fn tcp_sockets_say_what_they_carried() {
    use std::io::{Read as _, Write as _};

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    stream.write_all(&[7; 5_000]).unwrap();
    accepted.read_exact(&mut [0; 5_000]).unwrap();

    let used = TcpSockets::default().list().unwrap();
    let of = |stream: &TcpStream| {
        let local = stream.local_addr().unwrap();
        let found = used.iter().find(|socket| {
            socket.local == (local.ip(), local.port())
                && socket.peer.1 == stream.peer_addr().unwrap().port()
        });
        found.unwrap_or_else(|| panic!("{local} is not among {} sockets", used.len()))
    };
    let (one, other) = (of(&stream), of(&accepted));
    // The first byte acknowledged is the SYN.
    assert!((5_000..=5_001).contains(&one.bytes_acked), "{one:?}");
    assert_eq!((other.bytes_received, one.bytes_received), (5_000, 0));
    assert!(other.accepted && !one.accepted);
    // The data, at least, and the handshake.
    assert!(one.segments_sent >= 2 && other.segments_received >= 2, "{one:?} {other:?}");
}
