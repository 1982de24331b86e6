//! Nobody can make weir grow, wait or fall over by asking.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use weir_flow::Endpoint;
use weir_server::api::Limits;

use crate::http::{self, connect, parse};
use crate::support::{NOON, Spelled, commit, sent, served, served_within};

/// Reads until the other side closes; true where it did, within the connection's time limit.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn many_readers_of_one_question_cost_one_query() {
    let served = served();
    *served.store.delay.lock().unwrap() = Duration::from_millis(300);
    let (address, path) = (served.address, "/api/v1/top?since=1h&by=class");
    #[expect(clippy::needless_collect, reason = "all ask before the first is waited for")]
    let readers: Vec<_> =
        (0..50).map(|_| thread::spawn(move || http::get(address, path).body)).collect();
    let bodies: Vec<Vec<u8>> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    let queries = || served.store.queries.load(Ordering::Relaxed);
    // One, or two where a reader came more than a second after the first.
    assert!(queries() <= 2, "{}", queries());

    // What is new in the store is seen at once.
    let before = queries();
    commit(&*served.store, 2, &[sent(NOON - 10, 500, 7)]);
    served.query.store_changed();
    assert_ne!(http::get(address, path).body, bodies[0]);
    assert_eq!(queries(), before + 1);
}

#[test]
fn many_questions_wait_or_are_sent_away() {
    let limits =
        Limits { waiting: 3, waiting_time: Duration::from_millis(300), ..Limits::default() };
    let served = served_within(limits);
    *served.store.delay.lock().unwrap() = Duration::from_secs(1);
    let address = served.address;
    #[expect(clippy::needless_collect, reason = "all ask before the first is waited for")]
    let readers: Vec<_> = (1..20)
        .map(|limit| {
            let path = format!("/api/v1/top?limit={limit}");
            thread::spawn(move || http::get(address, &path))
        })
        .collect();
    let answers: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    let (taken, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert!(taken.len() >= 2, "{}", taken.len());
    assert!(!refused.is_empty());
    for answer in refused {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert_eq!(answer.problem()["type"], "urn:weir:problem:busy");
    }
    assert_eq!(served.store.most_at_once.load(Ordering::Relaxed), 2);
}

#[test]
fn what_takes_too_long_is_given_up() {
    let limits = Limits { answer_time: Duration::from_millis(200), ..Limits::default() };
    let served = served_within(limits);
    *served.store.delay.lock().unwrap() = Duration::from_secs(1);
    let answer = http::get(served.address, "/api/v1/top");
    assert_eq!(
        (answer.status, &answer.problem()["type"]),
        (504, &"urn:weir:problem:too-slow".into())
    );
}

#[test]
fn a_url_without_end_is_refused_and_cut() {
    let served = served();
    for (head, piece) in [("GET /", "a"), ("GET / HTTP/1.1\r\nx: ", "b"), ("GET /?filter=", "%20")]
    {
        let mut stream = connect(served.address);
        let mut bytes = head.as_bytes().to_vec();
        bytes.extend(piece.repeat(10_000_000 / piece.len()).bytes());
        // weir stops reading long before the end.
        drop(stream.write_all(&bytes));
        let mut received = Vec::new();
        drop(stream.read_to_end(&mut received));
        if !received.is_empty() {
            let status = parse(&received, false).status;
            assert!([414, 431].contains(&status), "{status}");
        }
    }
    // A URL that is only long is answered, or refused with a word.
    for length in [1_000, 30_000, 70_000] {
        let answer = http::get(
            served.address,
            &format!("/api/v1/values?dimension=node&prefix={}", "x".repeat(length)),
        );
        assert!([200, 400, 414, 431].contains(&answer.status), "{length}: {}", answer.status);
    }
    assert_eq!(http::get(served.address, "/").status, 200);
}

#[test]
fn whoever_is_slow_to_ask_is_cut() {
    let limits = Limits { head_time: Duration::from_millis(300), ..Limits::default() };
    let served = served_within(limits);
    let began = Instant::now();
    let mut slow = connect(served.address);
    let mut silent = connect(served.address);
    let mut idle = connect(served.address);
    idle.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    for byte in b"GET /api/v1/status HTTP/1.1\r\n" {
        if slow.write_all(&[*byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert!(is_closed(&mut slow) && is_closed(&mut silent) && is_closed(&mut idle));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn whoever_is_slow_to_read_is_cut_and_never_believes_to_have_all() {
    let limits = Limits {
        write_time: Duration::from_millis(500),
        stream_time: Duration::from_secs(5),
        ..Limits::default()
    };
    let served = served_within(limits);
    // More than the buffers of both sides hold.
    let long = |source| Spelled {
        source: Endpoint {
            unit: Some(format!("{source:0>250}").into()),
            container: Some("c".repeat(250).into()),
            executable: Some("e".repeat(250).into()),
            ..sent(NOON, source, 1).source
        },
        ..sent(NOON - 10, source, 1)
    };
    for part in 0..10 {
        let flows: Vec<_> = (0..1_000).map(|source| long(part * 1_000 + source)).collect();
        commit(&*served.store, u64::from(part) + 2, &flows);
    }
    let path = "/api/v1/flows?limit=10000";
    let whole = http::get(served.address, path);
    assert!(whole.is_whole && whole.body.len() > 15_000_000, "{}", whole.body.len());

    let mut stream = connect(served.address);
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    // Once the answer is on its way, nothing of it is taken.
    assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
    thread::sleep(Duration::from_secs(2));
    let mut bytes = Vec::new();
    // Cut off in the middle: an end of the stream, or a reset.
    drop(stream.read_to_end(&mut bytes));
    let answer = parse(&bytes, false);
    assert!(!answer.is_whole, "{} of {}", answer.body.len(), whole.body.len());
    // Its place is free again.
    assert!(http::get(served.address, path).is_whole);
}

#[test]
fn connections_beyond_the_limit_wait_for_others_to_end() {
    let limits =
        Limits { connections: 2, head_time: Duration::from_millis(500), ..Limits::default() };
    let served = served_within(limits);
    let silent = [connect(served.address), connect(served.address)];
    let began = Instant::now();
    assert_eq!(http::get(served.address, "/").status, 200);
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn stopping_finishes_what_is_on_its_way() {
    let served = served();
    *served.store.delay.lock().unwrap() = Duration::from_millis(500);
    let address = served.address;
    let reader = thread::spawn(move || http::get(address, "/api/v1/top"));
    let _idle = connect(address);
    thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    served.running.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(reader.join().unwrap().status, 200);
    assert!(TcpStream::connect(address).is_err());
}
