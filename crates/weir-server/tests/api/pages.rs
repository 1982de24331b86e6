//! Pages of flows, put together, are the whole answer.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::http::{self, request};
use crate::support::{NOON, Served, commit, sent, served};

fn page(served: &Served, query: &str, cursor: Option<&str>) -> Value {
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    let answer = http::get(served.address, &format!("/api/v1/flows?{query}{cursor}"));
    assert_eq!((answer.status, answer.is_whole), (200, true), "{answer:?}");
    answer.json()
}

fn rows(page: &Value) -> Vec<Value> {
    page["rows"].as_array().unwrap().clone()
}

/// All pages of `limit` rows; `between` is called after each with its number.
fn paged(served: &Served, query: &str, limit: usize, mut between: impl FnMut(usize)) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    for number in 0.. {
        let page = page(served, &format!("{query}&limit={limit}"), cursor.as_deref());
        let rows = rows(&page);
        assert!(rows.len() <= limit);
        assert_eq!(page["more"], json!(!page["next_cursor"].is_null()));
        all.extend(rows.iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        assert_eq!(rows.len(), limit, "only the last page is short");
        cursor = Some(next.to_owned());
        between(number);
    }
    all
}

#[test]
fn pages_are_the_whole_answer() {
    let served = served();
    for query in [
        "since=1h",
        "since=1h&step=60s",
        "since=15m&step=70s&filter=source.unit%20~%20unit3",
        "since=2026-11-20T11:53:25Z&until=2026-11-20T11:58:17Z&step=60s",
        "since=10d&step=1h",
        "since=2d&filter=class%20%3D%20same_node",
    ] {
        let whole = page(&served, &format!("{query}&limit=10000"), None);
        assert!(whole["next_cursor"].is_null());
        let whole = rows(&whole);
        assert_eq!(whole.is_empty(), query.contains("same_node"), "{query}");
        for limit in [1, 3, 50, whole.len().max(1)] {
            assert_eq!(paged(&served, query, limit, |_| {}), whole, "{query} {limit}");
        }
    }
}

#[test]
fn a_small_page_does_not_walk_through_an_empty_past() {
    let served = served();
    let queries = || served.store.queries.load(Ordering::Relaxed);
    let before = queries();
    let answer = page(&served, "since=2000-01-01T00:00:00Z&limit=1", None);
    assert_eq!(rows(&answer).len(), 1);
    assert!(queries() - before < 40, "{}", queries() - before);
}

#[test]
fn what_arrives_between_pages_neither_doubles_nor_hides_a_row() {
    let served = served();
    let query = "since=1h&step=60s";
    let before = rows(&page(&served, &format!("{query}&limit=10000"), None));
    let pages = paged(&served, query, 4, |number| {
        // New sources before and after where the page ended, in windows old and new.
        let number = u64::try_from(number).unwrap();
        let source = 1_000 + u32::try_from(number).unwrap();
        let flows = [sent(NOON - 600 + number * 20 % 600, source, 1), sent(NOON - 300, source, 1)];
        commit(&*served.store, number + 2, &flows);
    });
    let key = |row: &Value| {
        (row["time"].to_string(), row["source.id"].to_string(), row["protocol"].to_string())
    };
    let mut keys: Vec<_> = pages.iter().map(key).collect();
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "a row came twice");
    for row in &before {
        assert!(keys.binary_search(&key(row)).is_ok(), "{row} did not come");
    }
}

#[test]
fn a_cursor_goes_with_its_question_only() {
    let served = served();
    let first = page(&served, "since=1h&limit=5", None);
    let cursor = first["next_cursor"].as_str().unwrap();
    for (query, status) in [
        ("since=1h&limit=7", 200),
        // The range is the first page's.
        ("since=2d&limit=7", 200),
        ("since=1h&limit=7&step=20s", 410),
        ("since=1h&limit=7&filter=class%20%3D%20internet", 410),
        ("since=1h&limit=7&sort=bytes", 400),
    ] {
        let path = format!("/api/v1/flows?{query}&cursor={cursor}");
        let answer = http::get(served.address, &path);
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        if status != 200 {
            answer.problem();
        }
    }
    // Forged ones are refused, whatever they say.
    for cursor in [
        "0.1.ffffffffffffffff.0.0",
        "0.a.ffffffffffffffff.ffffffffffffffff.0",
        "ffffffffffffff00.ffffffffffffffff.ffffffffffffffff.0.0",
        "1.2",
        "a.0.b.0.0",
    ] {
        let answer = http::get(served.address, &format!("/api/v1/flows?cursor={cursor}"));
        assert!([400, 410].contains(&answer.status), "{cursor}: {answer:?}");
        answer.problem();
    }
}

#[test]
fn lines_are_the_rows_and_the_way_on() {
    let served = served();
    let query = "since=1h&limit=5";
    let whole = page(&served, query, None);
    let headers = [("host", "localhost"), ("accept", "application/x-ndjson")];
    let answer = request(served.address, "GET", &format!("/api/v1/flows?{query}"), &headers);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[..5], rows(&whole));
    assert_eq!(lines[5..], [json!({ "next_cursor": whole["next_cursor"] })]);
}

#[test]
fn an_export_is_all_pages_and_goes_on_from_any_of_its_cursors() {
    let served = served();
    let lines = |query: &str| -> Vec<Value> {
        let answer = http::get(served.address, &format!("/api/v1/flows/export?{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines("since=1h");
    let is_cursor = |line: &&Value| line.get("next_cursor").is_some();
    assert_eq!(all.last(), Some(&json!({ "next_cursor": null })));
    let listed: Vec<&Value> = all.iter().filter(|line| !is_cursor(line)).collect();
    let paged = page(&served, "since=1h&limit=10000", None);
    assert_eq!(listed, rows(&paged).iter().collect::<Vec<_>>());

    let first = page(&served, "since=1h&limit=7", None);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = lines(&format!("since=1h&cursor={cursor}"));
    assert_eq!(rest[..rest.len() - 1].iter().collect::<Vec<_>>(), listed[7..]);
}

#[test]
fn the_largest_come_first_without_pages() {
    let served = served();
    let answer = page(&served, "since=1h&sort=bytes&limit=2", None);
    assert_eq!(answer["rows"][0]["source.unit"], "unit100.service");
    assert_eq!((&answer["more"], &answer["next_cursor"]), (&json!(true), &Value::Null));
}
