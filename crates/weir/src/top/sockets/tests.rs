use std::net::IpAddr;
use std::sync::Arc;

use weir_flow::attribution::Question;
use weir_flow::{Directory, Endpoint, EndpointKind, WallTime};

use super::*;
use crate::args::Format;
use crate::render::Style;
use crate::top::view::View;

const SPAN: Duration = Duration::from_secs(2);

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
        segments_sent: 3,
        segments_received: 2,
    }
}

fn only(sockets: &[SocketUse]) -> Measured {
    let mut found = connections(&HashMap::from([(1, (1, 100)), (2, (0, 0))]), SPAN, sockets);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

#[test]
fn who_did_not_accept_has_opened() {
    let opened = only(&[socket(1, 40_000, (2, 443), false)]);
    assert_eq!((opened.source.1, opened.destination), (40_000, (address(2), 443)));
    assert_eq!(opened.total, Some(Bytes { sent: 1_001, received: 500 }));
    assert_eq!(opened.per_second, Some(Bytes { sent: 500, received: 200 }));

    let accepted = only(&[socket(1, 443, (2, 40_000), true)]);
    assert_eq!((accepted.source, accepted.destination.1), ((address(2), 40_000), 443));
    assert_eq!(accepted.total, Some(Bytes { sent: 500, received: 1_001 }));
    assert_eq!(accepted.per_second, Some(Bytes { sent: 200, received: 500 }));
}

#[test]
fn a_new_socket_has_moved_all_it_has() {
    let new = only(&[socket(9, 40_000, (2, 443), false)]);
    assert_eq!(new.per_second, Some(Bytes { sent: 501, received: 250 }));
}

#[test]
fn both_ends_here_are_one_connection_by_what_each_received() {
    let opener = SocketUse { bytes_received: 70, ..socket(1, 40_000, (1, 9_999), false) };
    let acceptor = SocketUse { bytes_received: 1_000, ..socket(2, 9_999, (1, 40_000), true) };
    for sockets in [[opener, acceptor], [acceptor, opener]] {
        let connection = only(&sockets);
        assert_eq!((connection.source.1, connection.destination.1), (40_000, 9_999));
        assert_eq!(connection.total, Some(Bytes { sent: 1_000, received: 70 }));
    }
    // The listener is closed: the port decides.
    let acceptor = SocketUse { accepted: false, ..acceptor };
    assert_eq!(only(&[opener, acceptor]).destination.1, 9_999);
    let known = [socket(1, 443, (1, 8_000), false), socket(2, 8_000, (1, 443), false)];
    assert_eq!(only(&known).destination.1, 443);
}

struct Names;

impl Directory for Names {
    fn resolve(&self, question: &Question) -> Arc<Endpoint> {
        if question.address != address(1) {
            return Arc::new(Endpoint::bare(EndpointKind::External, question.address));
        }
        let executable = Some("bad\nname".into());
        let bare = Endpoint::bare(EndpointKind::Host, question.address);
        Arc::new(Endpoint { host: Some("alder".into()), executable, ..bare })
    }
}

fn written(format: Format) -> String {
    let sockets = [socket(1, 40_000, (2, 443), false), socket(2, 22, (3, 50_000), true)];
    let reading = Reading {
        source: Source::Sockets,
        interval: SPAN,
        now: WallTime(0),
        connections: connections(&HashMap::from([(1, (1, 100))]), SPAN, &sockets),
        doubts: vec![Lacking::NetAdmin.advice("/opt/weir")],
    };
    let mut out = Vec::new();
    View::new(reading, None, &Names).write(format, Style::Plain, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn as_a_table() {
    insta::assert_snapshot!(written(Format::Table));
}

#[test]
fn as_csv() {
    insta::assert_snapshot!(written(Format::Csv));
}

#[test]
fn as_json() {
    insta::assert_snapshot!(written(Format::Json));
}
