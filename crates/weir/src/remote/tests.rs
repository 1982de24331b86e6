use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use weir_flow::{EndpointField, Side};
use weir_store::Measure;

use super::*;
use crate::location::Location;

const EMPTY: &str = r#"{"columns":["bytes"],"rows":[],"since":"2026-01-31T08:00:00Z","until":"2026-01-31T08:10:00Z","level_seconds":10,"step_seconds":null,"more":false}"#;

/// Answers one request with these bytes, hangs up, and tells what was asked.
fn answering(bytes: impl Into<Vec<u8>>) -> (Remote, JoinHandle<String>) {
    let bytes = bytes.into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = remote(&format!("http://{}", listener.local_addr().unwrap()));
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap() == 0 {
                break;
            }
            request.extend(byte);
        }
        stream.write_all(&bytes).unwrap();
        String::from_utf8(request).unwrap()
    });
    (remote, asked)
}

fn remote(url: &str) -> Remote {
    let Ok(Location::Url(base)) = Location::parse(url, &[]) else {
        panic!("{url} is a URL");
    };
    Remote::new(base)
}

fn response(status: &str, media_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn question() -> TopQuestion {
    TopQuestion {
        by: vec![Field::Endpoint(Side::Source, EndpointField::Name), Field::Class],
        range: 1_769_846_400..1_769_847_000,
        filter: Filter::parse("unit = \"a b&c\" and port = 443").unwrap(),
        sort: Measure::Bytes,
        limit: Some(5),
    }
}

/// What asking for `top` ends with; the server's port is another one each time.
fn failed(bytes: impl Into<Vec<u8>>) -> (AnswerError, String) {
    let (remote, asked) = answering(bytes);
    let error = remote.top(&question()).unwrap_err();
    asked.join().unwrap();
    let text = error.to_string().replace(remote.base.as_str(), "URL");
    let text = text.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    (error, text)
}

#[test]
fn a_question_is_sent_as_the_api_reads_it() {
    let (remote, asked) = answering(response("200 OK", "application/json", EMPTY));
    let report = remote.top(&question()).unwrap();
    assert_eq!(serde_json::to_string(&report).unwrap(), EMPTY);
    let asked = asked.join().unwrap();
    insta::assert_snapshot!(asked.lines().next().unwrap(), @"GET /api/v1/top?since=2026-01-31T08%3A00%3A00Z&until=2026-01-31T08%3A10%3A00Z&by=source.name%2Cclass&filter=unit%20%3D%20%22a%20b%26c%22%20and%20destination.port%20%3D%20443&sort=bytes&limit=5 HTTP/1.1");
    assert!(asked.contains("accept: application/json"), "{asked}");
}

#[test]
fn a_page_of_flows_has_a_cursor() {
    let body = EMPTY.replace("\"more\":false", "\"more\":true,\"next_cursor\":\"x/y\"");
    let (remote, asked) = answering(response("200 OK", "application/json", &body));
    let mut question = FlowsQuestion {
        range: 1_769_846_400..1_769_847_000,
        filter: Filter::All,
        step_seconds: 10,
        sort: None,
        limit: Some(1000),
        cursor: Some("a+b".to_owned()),
    };
    let page = remote.flows(&question).unwrap();
    assert_eq!(page.next_cursor.as_deref(), Some("x/y"));
    assert!(page.report.more);
    insta::assert_snapshot!(asked.join().unwrap().lines().next().unwrap(), @"GET /api/v1/flows?since=2026-01-31T08%3A00%3A00Z&until=2026-01-31T08%3A10%3A00Z&limit=1000&step=10s&cursor=a%2Bb HTTP/1.1");

    let (remote, _asked) = answering(response("410 Gone", "application/problem+json", "{}"));
    question.cursor = None;
    assert!(matches!(remote.flows(&question), Err(AnswerError::CursorGone)));
}

#[test]
fn numbers_beyond_what_javascript_counts_stay_exact() {
    let rows = "\"rows\":[{\"bytes\":18446744073709551615}]";
    let body = EMPTY.replace("\"rows\":[]", rows);
    let (remote, _asked) = answering(response("200 OK", "application/json", &body));
    let report = remote.top(&question()).unwrap();
    assert_eq!(serde_json::to_string(&report).unwrap(), body);
}

#[test]
fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = remote(&format!("http://{address}")).top(&question()).unwrap_err();
    assert!(matches!(error, AnswerError::Unreachable(_)), "{error:?}");
    assert!(error.to_string().contains("nobody listens there; does `weir up` run"), "{error}");
}

#[test]
fn a_host_that_does_not_exist_is_unreachable() {
    let error = remote("http://weir.invalid").top(&question()).unwrap_err();
    assert!(matches!(error, AnswerError::Unreachable(_)), "{error:?}");
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    let whole = response("200 OK", "application/json", EMPTY);
    for kept in [1, 20, whole.len() - EMPTY.len() + 1, whole.len() - 1] {
        let (error, text) = failed(&whole.as_bytes()[..kept]);
        assert!(matches!(error, AnswerError::Unreachable(_)), "{kept}: {error:?}");
        assert!(text.contains("URL"), "{text}");
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"col\r\n";
    let (error, text) = failed(chunked);
    assert!(matches!(error, AnswerError::Unreachable(_)), "{text}");
    assert!(text.starts_with("weir at URL went away in the middle of its answer"), "{text}");
}

#[test]
fn an_answer_too_large_is_not_read() {
    let (mut remote, _asked) = answering(response("200 OK", "application/json", EMPTY));
    remote.max_bytes = 16;
    let error = remote.top(&question()).unwrap_err();
    assert!(matches!(&error, AnswerError::Failed(text) if text.contains("--limit")), "{error:?}");
}

#[test]
fn what_is_not_weir_is_said_to_be_something_else() {
    let page = "<html><body>\u{1b}[2JPlease log in</body></html>";
    insta::assert_snapshot!(failed(response("200 OK", "text/html", page)).1, @"what URL answers is not JSON (text/html): is it weir's address, or did a proxy answer?");
    insta::assert_snapshot!(failed(response("502 Bad Gateway", "text/html", page)).1, @"URL answers 502 Bad Gateway, and not as weir does: is it weir's address, or did a proxy answer?");
    insta::assert_snapshot!(failed(response("200 OK", "application/json", "{\"a\":1}")).1, @"the answer of URL cannot be read (missing field `columns` at line 1 column 7): is it a weir of another version than VERSION?");
    insta::assert_snapshot!(failed(response("200 OK", "application/json", "{\"a\":")).1, @"what URL answers is not JSON (application/json): is it weir's address, or did a proxy answer?");
    insta::assert_snapshot!(failed("SSH-2.0-OpenSSH_9.9\r\n").1, @"what answers at URL is not weir: protocol: http parse fail: invalid HTTP version");
    let redirect =
        "HTTP/1.1 302 Found\r\nlocation: http://other/\u{1}\r\ncontent-length: 0\r\n\r\n";
    failed(redirect);
    let redirect = "HTTP/1.1 302 Found\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n";
    insta::assert_snapshot!(failed(redirect).1, @"URL answers for no weir: it points to http://other/");
}

#[test]
fn a_problem_says_what_and_where() {
    let problem = r#"{"type":"urn:weir:problem:filter","title":"The filter cannot be read","status":400,
        "detail":"there is no\u001b field `unit`","parameter":"filter","position":0,"length":4}"#;
    let (error, text) = failed(response("400 Bad Request", "application/problem+json", problem));
    assert!(matches!(error, AnswerError::Question(_)), "{error:?}");
    insta::assert_snapshot!(text, @r#"
    there is no\u{1b} field `unit`
      unit = "a b&c" and destination.port = 443
      ^^^^
    "#);

    let busy = r#"{"title":"Too much","status":503,"detail":"64 wait already"}"#;
    let busy = response("503 Service Unavailable", "application/problem+json", busy);
    let (error, text) = failed(busy);
    assert!(matches!(error, AnswerError::Busy(_)), "{error:?}");
    insta::assert_snapshot!(text, @"URL: 64 wait already");

    let host = r#"{"title":"Wrong host","detail":"start weir with --allow-host gauge"}"#;
    let host = response("421 Misdirected Request", "application/problem+json", host);
    insta::assert_snapshot!(failed(host).1, @"URL refuses (421 Misdirected Request): start weir with --allow-host gauge");
}

#[test]
fn endless_headers_are_not_read() {
    let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
    for number in 0..4_000 {
        endless.extend(format!("x-{number}: {}\r\n", "y".repeat(100)).bytes());
    }
    let (remote, asked) = answering(endless);
    assert!(remote.top(&question()).is_err());
    // Whoever sends so much is hung up on.
    drop(asked.join());
}

#[test]
fn carets_stand_under_what_is_meant() {
    for (filter, position, length, lines) in [
        ("unti = x", 0, 4, "\n  unti = x\n  ^^^^"),
        ("größe = x", 10, 1, "\n  größe = x\n          ^"),
        ("unit = ", 7, 0, "\n  unit = \n         ^"),
        ("a = \u{9b}b", 6, 1, "\n  a = \\u{9b}b\n            ^"),
        ("x", 99, usize::MAX, "\n  x\n   ^"),
    ] {
        assert_eq!(point(filter, position, length), lines, "{filter}");
    }
}
