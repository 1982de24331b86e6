//! Messages that would end kubenetmon's server, and other nonsense.

use std::sync::Arc;

use tonic::Code;
use tonic::codegen::tokio_stream;
use weir_flow::kubenetmon::Ignored;
use weir_proto::kubenetmon::{Flow, Observation};
use weir_server::kubenetmon::{Limits, Malformed};

use crate::support::{Sink, book, endpoint, observation, open, options};

/// Every part that can be missing is missing once, and the whole ones among them are taken.
#[test]
fn what_is_missing_is_counted_and_the_rest_taken() {
    let sink = Arc::<Sink>::default();
    let door = open(options(sink, book()));
    let without = |spoil: fn(&mut Flow)| {
        let mut observation = observation(1);
        spoil(observation.flow.as_mut().unwrap());
        observation
    };
    let reported = vec![
        Observation::default(),
        Observation { flow: Some(Flow::default()), ..observation(1) },
        without(|flow| flow.original = None),
        without(|flow| flow.reply = None),
        without(|flow| flow.original.as_mut().unwrap().source = None),
        without(|flow| flow.reply.as_mut().unwrap().destination = None),
        without(|flow| flow.reply.as_mut().unwrap().source = Some(endpoint("1.1.1.1", 70_000))),
        Observation { node_name: String::new(), ..observation(1) },
        Observation { timestamp: u64::MAX, ..observation(1) },
        observation(1),
        observation(2),
    ];
    assert_eq!(door.report(reported).unwrap(), 11);
    door.until("two are kept", |counts| counts.rows() == 4);
    let counts = door.counts();
    let malformed: u64 = Malformed::ALL.into_iter().map(|what| counts.malformed(what)).sum();
    assert_eq!((malformed, counts.malformed(Malformed::Tuple)), (9, 3));
    assert_eq!((counts.received(), counts.labelled().labelled), (11, 2));
    let status = counts.status();
    assert_eq!(
        (status.promise.as_str(), status.observations, status.malformed),
        ("best_effort", 11, 9)
    );
    assert_eq!((status.rows, status.dropped, status.error), (4, 0, None));
}

#[test]
fn a_message_that_is_too_large_ends_its_call_and_no_other() {
    let sink = Arc::<Sink>::default();
    let door = open(options(sink, book()));
    let huge = Observation { node_name: "n".repeat(1 << 20), ..observation(1) };
    let status = door.report(vec![observation(1), huge]).unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    assert_eq!(door.report(vec![observation(2)]).unwrap(), 1);
    door.until("what came before it is kept, too", |counts| counts.rows() == 4);
    assert_eq!(door.counts().malformed(Malformed::Message), 1);
}

#[test]
fn what_the_table_has_no_place_for_is_counted_by_reason() {
    let sink = Arc::<Sink>::default();
    let door = open(options(sink, book()));
    let with = |change: fn(&mut Flow)| {
        let mut observation = observation(1);
        change(observation.flow.as_mut().unwrap());
        observation
    };
    let reported = vec![
        with(|flow| flow.proto = 17),
        with(|flow| flow.original.as_mut().unwrap().source = Some(endpoint("fe80::1", 1))),
        with(|flow| flow.original.as_mut().unwrap().source = Some(endpoint("1.2.3.4", 1))),
        Observation {
            node_name: "n2".to_owned(),
            ..with(|flow| flow.reply = flow.original.clone())
        },
        observation(1),
    ];
    door.report(reported).unwrap();
    door.until("all are judged", |counts| counts.rows() == 2);
    let ignored = door.counts().labelled();
    for reason in [Ignored::Udp, Ignored::Ipv6, Ignored::Node, Ignored::UnknownDirection] {
        assert_eq!(ignored.of(reason), 1, "{}: {ignored:?}", reason.name());
    }
}

#[test]
fn calls_are_bounded() {
    let limits = Limits { calls: 1, ..Limits::default() };
    let door = open(weir_server::kubenetmon::Options {
        limits,
        ..options(Arc::<Sink>::default(), book())
    });
    let mut client = door.client();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let first = door.runtime.spawn(async move { client.submit(stream).await });
    door.runtime.block_on(sender.send(observation(1))).unwrap();
    door.until("the first is in", |counts| counts.received() == 1);
    let second = door.report(vec![observation(2)]).unwrap_err();
    assert_eq!(second.code(), Code::ResourceExhausted);
    drop(sender);
    let first = door.runtime.block_on(first).unwrap().unwrap();
    assert_eq!(first.into_inner().observation_count, 1);
    // Its place is free again.
    let mut client = door.client();
    let third = client.submit(tokio_stream::iter([observation(3)]));
    assert_eq!(door.runtime.block_on(third).unwrap().into_inner().observation_count, 1);
}

#[test]
fn what_was_read_of_a_call_that_is_reset_is_kept() {
    let door = open(options(Arc::<Sink>::default(), book()));
    let mut client = door.client();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let call = door.runtime.spawn(async move { client.submit(stream).await });
    door.runtime.block_on(sender.send(observation(1))).unwrap();
    door.until("it is in", |counts| counts.received() == 1 && counts.streams_now() == 1);
    call.abort();
    door.until("it is over", |counts| counts.streams_now() == 0);
    door.until("it is kept", |counts| counts.labelled().labelled == 1);
}

#[test]
fn connections_of_one_address_are_bounded() {
    let limits = Limits { connections_of_one_address: 1, ..Limits::default() };
    let door = open(weir_server::kubenetmon::Options {
        limits,
        ..options(Arc::<Sink>::default(), book())
    });
    let first = std::net::TcpStream::connect(door.running.address).unwrap();
    door.until("the first is in", |counts| counts.connections() == 1);
    let mut second = std::net::TcpStream::connect(door.running.address).unwrap();
    let read = std::io::Read::read(&mut second, &mut [0; 1]);
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert_eq!(door.counts().turned_away(), 1);
    drop(first);
    door.until("it has gone", |counts| counts.connections() == 0);
}
