//! What is answered, to whom.

use serde_json::{Value, json};
use weir_flow::{Field, Filter};
use weir_server::Answers as _;
use weir_server::answer::{Report, Status, TopQuestion};
use weir_store::Measure;

use crate::http::{self, request};
use crate::support::{HUGE, NOON, served};

#[test]
fn numbers_are_exact_and_the_unknown_is_null() {
    let served = served();
    let path = "/api/v1/top?by=source.unit,service,protocol,destination.port&since=1h";
    let answer = http::get(served.address, path);
    let body = answer.json();
    assert_eq!(body["rows"][0]["bytes"], HUGE);
    assert!(answer.text().contains(&format!("\"bytes\":{HUGE}")), "{}", answer.text());
    let row = |unit: &str| {
        let rows = body["rows"].as_array().unwrap();
        rows.iter().find(|row| row["source.unit"] == unit).unwrap().clone()
    };
    assert_eq!(row("unit103.service")["bytes"], Value::Null);
    assert_eq!(row("unit103.service")["connections_uncounted"], 1);
    assert_eq!(row("unit102.service")["service"], "10.96.0.10:80");
    assert_eq!(row("unit101.service")["destination.port"], 0x800);
    assert_eq!(row("unit1.service")["service"], Value::Null);

    // What is asked here and what is asked there is the same.
    let by = ["source.unit", "service", "protocol", "destination.port"]
        .map(|name| Field::parse(name).unwrap());
    let question = TopQuestion {
        by: by.to_vec(),
        range: NOON - 3_600..NOON + 10,
        filter: Filter::All,
        sort: Measure::Bytes,
        limit: Some(20),
    };
    let here = served.query.top(&question).unwrap();
    let there: Report = serde_json::from_value(body.clone()).unwrap();
    assert_eq!(there.rows, here.rows);
}

#[test]
fn a_series_sums_to_what_a_ranking_sums_to() {
    let served = served();
    let sum = |path: &str| -> u64 {
        let body = http::get(served.address, path).json();
        body["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["packets_sent"].as_u64().unwrap_or(0))
            .sum()
    };
    let query = "since=1h&filter=protocol%20%3D%20tcp";
    let series = sum(&format!("/api/v1/series?{query}&step=1m"));
    assert!(series > 0);
    assert_eq!(series, sum(&format!("/api/v1/top?{query}&by=")));
    assert_eq!(series, sum(&format!("/api/v1/flows?{query}&limit=10000")));
}

#[test]
fn the_status_reads_back() {
    let served = served();
    let answer = http::get(served.address, "/api/v1/status?since=1h");
    let status: Status = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(status.nodes[0].silent_seconds, Some(3));
    assert_eq!(status.data_dir.as_deref(), Some("/var/lib/weir"));
    let store = status.store.unwrap();
    assert_eq!((store.batches, store.levels.len()), (1, 3));
    assert_eq!(status.counters[0].value, 5);
}

#[test]
fn values_begin_with_the_prefix() {
    let served = served();
    let path = "/api/v1/values?dimension=source.unit&prefix=unit10&limit=2";
    let answer = http::get(served.address, path);
    let expected =
        json!({ "dimension": "source.unit", "values": ["unit100.service", "unit101.service"] });
    assert_eq!(answer.json(), expected);
}

#[test]
fn a_wrong_filter_is_shown_where_it_is_wrong() {
    let served = served();
    let path = "/api/v1/top?filter=class%20%3D%20internet%20and%20sorce.name%20%3D%20x";
    let answer = http::get(served.address, path);
    let expected = json!({
        "type": "urn:weir:problem:filter",
        "title": "The filter cannot be read",
        "status": 400,
        "detail": "read filter, at byte 21: there is no field `sorce.name`; did you mean `source.name`?",
        "parameter": "filter",
        "position": 21,
        "length": 10,
        "suggestion": "source.name",
    });
    assert_eq!(answer.problem(), expected);
}

#[test]
fn what_is_not_there_is_said_so() {
    let served = served();
    for path in ["/nothing", "/api/v1/top/", "/api/v2/top", "//api/v1/top", "/api/v1/..%2f"] {
        let answer = http::get(served.address, path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.problem()["type"], "urn:weir:problem:not-found");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let answer = request(served.address, method, "/api/v1/top", &[("host", "localhost")]);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
        answer.problem();
    }
    let head = request(served.address, "HEAD", "/api/v1/top", &[("host", "localhost")]);
    assert_eq!(head.status, 200);
}

#[test]
fn the_first_page_needs_nothing_from_elsewhere() {
    let served = served();
    let answer = http::get(served.address, "/");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let text = answer.text();
    assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("<script"));
    // Every link leads somewhere.
    for link in text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let answer = http::get(served.address, &link.replace("&amp;", "&"));
        assert_eq!(answer.status, 200, "{link}: {answer:?}");
    }
}

#[test]
fn browsers_are_told_to_be_careful_and_strangers_are_turned_away() {
    let served = served();
    for path in ["/", "/api/v1/status", "/nothing"] {
        let answer = http::get(served.address, path);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(
            answer.header("content-security-policy").unwrap().starts_with("default-src 'none'")
        );
        assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control")));
    }
    let own = served.address.to_string();
    assert_eq!(request(served.address, "GET", "/", &[("host", &own)]).status, 200);
    let answer = request(served.address, "GET", "/api/v1/status", &[("host", "evil.example")]);
    assert_eq!(answer.status, 421);
    let detail = answer.problem()["detail"].to_string();
    assert!(detail.contains("--allow-host evil.example"), "{detail}");
    assert_eq!(request(served.address, "GET", "/", &[]).status, 421);
}
