use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use weir_flow::ConnectionState;

use super::*;

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

/// A socket of 10.0.0.1.
fn socket(cookie: u64, local: u16, peer: (u8, u16), accepted: bool) -> SocketUse {
    SocketUse {
        cookie,
        state: 1,
        local: (address(1), local),
        peer: (address(peer.0), peer.1),
        accepted,
        bytes_acked: 1_001,
        bytes_received: 500,
        segments_sent: 9,
        segments_received: 7,
    }
}

#[derive(Default)]
struct Seen(Vec<Sample>);

impl Visitor for Seen {
    fn last_word(&mut self, sample: &Sample) {
        panic!("no socket tells its end: {sample:?}");
    }

    fn entry(&mut self, sample: &Sample) {
        self.0.push(*sample);
    }
}

fn given(source: &mut SocketSource) -> Vec<Sample> {
    let mut seen = Seen::default();
    while source.next_piece(&mut seen).unwrap().is_some() {}
    seen.0
}

fn only(source: &mut SocketSource, sockets: &[SocketUse]) -> Sample {
    source.listed(sockets).unwrap();
    let samples = given(source);
    assert_eq!(samples.len(), 1, "{samples:#?}");
    samples[0]
}

fn counters(sample: &Sample) -> [u64; 4] {
    let Totals { sent, received } = sample.totals.unwrap();
    [sent.packets, sent.bytes, received.packets, received.bytes]
}

#[test]
fn the_accepting_end_is_the_destination() {
    let opened = only(&mut SocketSource::default(), &[socket(1, 40_000, (2, 443), false)]);
    assert_eq!((opened.original.source_port, opened.original.destination_port), (40_000, 443));
    assert_eq!(opened.original.destination, address(2));
    assert!(opened.original.is_mirrored_by(&opened.reply));
    assert_eq!(counters(&opened), [9, 1_001, 7, 500]);
    assert_eq!(ConnectionState::of(&opened).name(), Some("ESTABLISHED"));
    assert!(opened.status.seen_reply() && opened.status.assured());
    assert_eq!((opened.zone, opened.start, opened.stop), (0, None, None));

    let accepted = only(&mut SocketSource::default(), &[socket(1, 443, (2, 40_000), true)]);
    assert_eq!((accepted.original.source_port, accepted.original.destination_port), (40_000, 443));
    assert_eq!(counters(&accepted), [7, 500, 9, 1_001]);
    assert_ne!(accepted.id, 0);
}

#[test]
fn both_ends_here_are_one_connection() {
    let opener = SocketUse { bytes_received: 70, ..socket(1, 40_000, (1, 9_999), false) };
    let acceptor = SocketUse {
        bytes_received: 1_000,
        segments_received: 8,
        ..socket(2, 9_999, (1, 40_000), true)
    };
    for sockets in [[opener, acceptor], [acceptor, opener]] {
        let sample = only(&mut SocketSource::default(), &sockets);
        assert_eq!(
            (sample.original.source_port, sample.original.destination_port),
            (40_000, 9_999)
        );
        assert_eq!(counters(&sample), [8, 1_000, 7, 70]);
    }
}

#[test]
fn one_life_keeps_its_name_its_direction_and_what_it_has_counted() {
    let mut source = SocketSource::default();
    let opener = SocketUse { bytes_received: 0, ..socket(1, 40_000, (1, 9_999), false) };
    let acceptor = SocketUse { bytes_received: 1_000, ..socket(2, 9_999, (1, 40_000), true) };
    // The handshake is seen from one end; the other counts the SYN as nothing.
    let dialling = SocketUse { bytes_acked: 1, state: 2, ..opener };
    let first = only(&mut source, &[dialling]);
    assert_eq!(counters(&first)[1], 1);
    assert_eq!(ConnectionState::of(&first).name(), Some("SYN_SENT"));
    assert!(!first.status.seen_reply());
    let silent = SocketUse { bytes_received: 0, ..acceptor };
    let second = only(&mut source, &[opener, silent]);
    assert_eq!(counters(&second)[1], 1);
    let third = only(&mut source, &[opener, acceptor]);
    assert_eq!(counters(&third)[1], 1_000);
    // The opener's socket goes, then the listener: neither name nor direction changes.
    let last = only(&mut source, &[SocketUse { accepted: false, ..acceptor }]);
    assert_eq!((first.id, first.original), (second.id, second.original));
    assert_eq!((first.id, first.original), (last.id, last.original));
    assert_eq!((third.id, counters(&last)[1]), (last.id, 1_000));

    // Another connection with the same ends is another life.
    let next = only(&mut source, &[SocketUse { cookie: 77, bytes_acked: 5, ..opener }]);
    assert_ne!(next.id, last.id);
    assert_eq!(counters(&next)[1], 5);
}

#[test]
fn segments_are_counted_beyond_32_bits() {
    let mut source = SocketSource::default();
    let at = |segments_sent| SocketUse { segments_sent, ..socket(1, 40_000, (2, 443), false) };
    assert_eq!(counters(&only(&mut source, &[at(u32::MAX - 1)]))[0], u64::from(u32::MAX) - 1);
    assert_eq!(counters(&only(&mut source, &[at(3)]))[0], u64::from(u32::MAX) + 4);
    assert_eq!(counters(&only(&mut source, &[at(4)]))[0], u64::from(u32::MAX) + 5);
}

#[test]
fn every_socket_state_has_its_conntrack_name() {
    let name = |state| {
        let socket = SocketUse { state, ..socket(1, 40_000, (2, 443), false) };
        ConnectionState::of(&only(&mut SocketSource::default(), &[socket])).name().unwrap()
    };
    let names: Vec<_> = (1..=11).map(name).collect();
    insta::assert_snapshot!(
        names.join(" "),
        @"ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT CLOSE_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK NONE LAST_ACK"
    );
}

#[test]
fn a_dump_comes_in_pieces_and_whole() {
    let sockets: Vec<_> =
        (1..=600).map(|port| socket(u64::from(port), port, (2, 443), false)).collect();
    let mut source = SocketSource::default();
    source.listed(&sockets).unwrap();
    let mut seen = Seen::default();
    assert!(source.next_piece(&mut seen).unwrap().is_some());
    assert_eq!(seen.0.len(), PIECE);
    let rest = given(&mut source);
    let ports: Vec<u16> =
        seen.0.iter().chain(&rest).map(|sample| sample.original.source_port).collect();
    assert_eq!(ports, (1..=600).collect::<Vec<_>>());
}

#[test]
fn a_connection_of_this_machine_is_seen_without_privilege() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    stream.write_all(&[7; 5_000]).unwrap();
    accepted.read_exact(&mut [0; 5_000]).unwrap();
    let port = stream.local_addr().unwrap().port();

    let mut source = SocketSource::open().unwrap();
    let mut look = || {
        source.begin_dump().unwrap();
        let mut samples = given(&mut source);
        samples.retain(|sample| sample.original.source_port == port);
        assert_eq!(samples.len(), 1, "{samples:#?}");
        samples[0]
    };
    let first = look();
    assert_eq!(first.original.destination_port, listener.local_addr().unwrap().port());
    let Totals { sent, received } = first.totals.unwrap();
    assert_eq!((sent.bytes, received.bytes), (5_000, 0));
    assert!(sent.packets >= 2 && received.packets >= 1, "{first:?}");
    stream.write_all(&[7; 10]).unwrap();
    accepted.read_exact(&mut [0; 10]).unwrap();
    let second = look();
    assert_eq!((second.id, second.totals.unwrap().sent.bytes), (first.id, 5_010));
}
