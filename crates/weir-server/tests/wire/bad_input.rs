//! What nobody should send: refused by name, counted, and never stored.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use weir_proto::pb::{self, from_agent};
use weir_proto::{Packer, limits};
use weir_server::wire::{Malformation, TurnedAway};

use crate::support::{Said, World, batch, frame, hello, limits as short, message, until};

const EPOCH: u128 = 1;

fn packed(sequence: u64, frame: &[u8]) -> pb::Batch {
    Packer::new().unwrap().pack(sequence, frame).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_none_is_refused_for_good() {
    let world = World::new();
    let mut talk = world.agent("good-n1").greet("n1", EPOCH).await.0;
    let good = frame(EPOCH, 1, 10, 0);
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        packed(1, &frame)
    };
    let said = |frame_bytes| pb::Batch { frame_bytes, ..packed(1, &good) };
    let noise: Vec<u8> =
        (0..5_000_u32).map(|it| it.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for (what, batch, reason, counted) in [
        (
            "not zstd",
            pb::Batch { frame: noise.clone().into(), ..packed(1, &good) },
            "decompress",
            Malformation::Packed,
        ),
        ("longer than announced", said(40), "announced as 40", Malformation::Packed),
        ("shorter than announced", said(4_000), "4000 were announced", Malformation::Packed),
        ("oversized", said(u32::MAX), "larger than the 4194304 allowed", Malformation::Packed),
        ("a bomb", packed(1, &vec![0; 4 << 20]), "times allowed", Malformation::Packed),
        ("noise", packed(1, &noise), "not a frame", Malformation::Frame),
        ("empty", packed(1, &[]), "cut short", Malformation::Frame),
        ("cut", packed(1, &good[..good.len() - 3]), "cut short", Malformation::Frame),
        (
            "flipped",
            changed(good.len() - 1, 0xee),
            "does not match its digest",
            Malformation::Frame,
        ),
        (
            "a newer format",
            changed(7, 9),
            "not a frame of this version of weir",
            Malformation::Frame,
        ),
        ("another epoch", packed(1, &frame(2, 1, 10, 0)), "the stream's is", Malformation::Frame),
        ("another number", packed(2, &good), "the stream's is", Malformation::Frame),
    ] {
        let before = world.counts.malformed(counted);
        match talk.deliver(batch).await {
            Said::Refused(why) => assert!(why.contains(reason), "{what}: {why}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(world.counts.malformed(counted), before + 1, "{what}");
    }
    assert!(world.is_untouched());
    assert_eq!(talk.deliver(batch(EPOCH, 1, 10)).await, Said::Committed, "and the stream lives on");
    assert_eq!(world.bytes(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replayed_and_reordered_batches_count_once_and_forged_ones_never() {
    let world = World::new();
    let mut talk = world.agent("good-n1").greet("n1", EPOCH).await.0;
    for (sequence, said) in [(3, true), (1, true), (3, true), (2, true), (1, true)] {
        let answer = talk.deliver(batch(EPOCH, sequence, 10 * sequence)).await;
        assert_eq!(answer == Said::Committed, said, "{sequence} {answer:?}");
    }
    assert_eq!(world.bytes(), 10 + 20 + 30);
    assert_eq!(world.queue.report().counts.known, 2);
    match talk.deliver(batch(EPOCH, 2, 999)).await {
        Said::Refused(why) => assert!(why.contains("other content"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.bytes(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_future_is_moved_back_and_counted() {
    let world = World::new();
    let mut talk = world.agent("good-n1").greet("n1", EPOCH).await.0;
    let ahead = packed(1, &frame(EPOCH, 1, 10, 86_400));
    assert_eq!(talk.deliver(ahead).await, Said::Committed);
    assert_eq!(world.queue.report().counts.future, 1);
    assert_eq!(world.bytes(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_ends_the_stream_and_what_is_unknown_does_not() {
    let world = World::new();
    let agent = world.agent("good-n1");
    let fact = pb::Fact { address: vec![1; 3], from_nanos: 1, to_nanos: None, own: true };
    let facts = |facts| pb::Facts { complete: true, facts, more: false };
    for nonsense in [
        hello("n1", EPOCH),
        message(from_agent::Message::Facts(facts(vec![fact]))),
        message(from_agent::Message::Facts(facts(vec![pb::Fact::default(); 5_000]))),
    ] {
        let mut talk = agent.greet("n1", EPOCH).await.0;
        talk.say(nonsense).await;
        assert_eq!(talk.end().await.code(), tonic::Code::InvalidArgument);
    }
    let mut talk = agent.greet("n1", EPOCH).await.0;
    let status = |json: Vec<u8>| message(from_agent::Message::Status(pb::Status { json }));
    talk.say(pb::FromAgent { message: None }).await;
    talk.say(status(b"{".to_vec())).await;
    talk.say(status(vec![b' '; limits::STATUS_BYTES_MAX + 1])).await;
    talk.say(status(
        br#"{"node":"n2","state":"reading","pid":1,"api":"http://x","later":1}"#.to_vec(),
    ))
    .await;
    assert_eq!(talk.deliver(batch(EPOCH, 1, 10)).await, Said::Committed);
    assert_eq!(world.counts.malformed(Malformation::Unknown), 1);
    assert_eq!(world.counts.malformed(Malformation::Status), 2);
    let nodes = world.board.nodes(0);
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0].node.as_str(), nodes[0].pid, nodes[0].api.as_deref()), ("n1", None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_larger_than_allowed_ends_its_stream_alone() {
    let world = World::new();
    let agent = world.agent("good-n1");
    let mut other = agent.greet("n1", EPOCH).await.0;
    let mut talk = agent.greet("n1", EPOCH).await.0;
    let frame = vec![7; limits::MESSAGE_BYTES_MAX + 1].into();
    let large = pb::Batch { sequence: 1, frame, frame_bytes: 9 };
    talk.say(message(from_agent::Message::Batch(large))).await;
    assert_ne!(talk.end().await.code(), tonic::Code::DeadlineExceeded);
    assert_eq!(other.deliver(batch(EPOCH, 1, 10)).await, Said::Committed);
}

/// Reads until the other side hangs up.
fn hangs_up(mut stream: impl std::io::Read) -> bool {
    let mut rest = Vec::new();
    // Reset or closed: gone in either case.
    stream.read_to_end(&mut rest).is_ok_and(|_| true) || rest.len() < 1_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_silence_cost_others_nothing() {
    let mut limits = short();
    limits.unknown_of_one_address = 200;
    let world = World::with(limits);
    let mut talk = world.agent("good-n1").greet("n1", EPOCH).await.0;
    let dial = || {
        let stream = TcpStream::connect(world.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let mut silent: Vec<TcpStream> = (0..50).map(|_| dial()).collect();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\xff\xff\x01",
        b"\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        for _ in 0..10 {
            let mut stream = dial();
            stream.write_all(garbage).unwrap();
            silent.push(stream);
        }
    }
    // Half a handshake, a byte at a time, is a handshake that does not end.
    let mut slow = dial();
    slow.write_all(&[0x16]).unwrap();
    for sequence in 1..=20 {
        assert_eq!(talk.deliver(batch(EPOCH, sequence, 1)).await, Said::Committed);
    }
    for stream in silent.into_iter().chain([slow]) {
        assert!(hangs_up(stream));
    }
    // A connection is closed a moment before it is counted.
    let turned_away = |reason| world.counts.turned_away(reason);
    until("each is counted", || {
        turned_away(TurnedAway::Handshake) >= 20
            && turned_away(TurnedAway::Slow) >= 51
            && world.counts.connections_now() == 1
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_say_who_it_is_is_cut_and_few_of_one_address_wait() {
    let mut limits = short();
    limits.unknown_of_one_address = 3;
    let world = World::with(limits);
    let config = Arc::new(world.agent("unused").config());
    let dial = || {
        let stream = TcpStream::connect(world.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let name = ServerName::try_from("weir-server").unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut stream = stream;
        let shaken = tls.complete_io(&mut stream).is_ok();
        (shaken, StreamOwned::new(tls, stream))
    };
    let waiting: Vec<_> = (0..3).map(|_| dial()).collect();
    assert!(waiting.iter().all(|(shaken, _)| *shaken));
    assert!(!dial().0, "the fourth is not even shaken hands with");
    assert!(world.counts.turned_away(TurnedAway::TooManyUnknown) >= 1);
    for (_, stream) in waiting {
        assert!(hangs_up(stream));
    }
    until("each is counted", || world.counts.turned_away(TurnedAway::Silent) == 3);
    world.agent("good-n1").greet("n1", EPOCH).await;
}
