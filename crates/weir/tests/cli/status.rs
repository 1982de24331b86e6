//! `weir query status`: the truth about a weir that runs, that stopped, and that is gone.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use weir_store::{Options, SqliteStore};

use super::stored::fill;
use super::{ask, printed, refused};

const ALL: [&str; 3] = ["status", "--since", "2026-01-31T08:00:00Z"];

fn status(directory: &Path) -> Value {
    let text = printed(&ask(directory, &[&ALL[..], &["-o", "json"]].concat()));
    serde_json::from_str(&text).expect("JSON")
}

fn say(directory: &Path, said: &Value) {
    fs::write(directory.join("status.json"), said.to_string()).expect("the directory is ours");
}

#[test]
fn gaps_losses_and_rows_of_a_store() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let status = status(directory.path());
    assert_eq!(status["nodes"][0]["state"], "stopped");
    assert_eq!(status["nodes"][0]["node"], "gauge");
    assert_eq!(
        status["gaps"],
        json!([{
            "node": "gauge",
            "reason": "agent_down",
            "from": "2026-01-31T08:00:10Z",
            "to": "2026-01-31T08:00:40Z",
            "connections": 3,
            "records": 0,
            "bytes": 0,
            "bytes_bound": 5_000_000,
        }])
    );
    assert_eq!(
        status["counters"],
        json!([
            { "node": "gauge", "name": "lost_events", "value": 12 },
            { "node": "gauge", "name": "records", "value": 8 },
        ])
    );
    assert_eq!(status["store"]["batches"], 2);
    let finest = &status["store"]["levels"][0];
    assert_eq!(finest["window_seconds"], 10);
    assert_eq!(finest["retention_seconds"], 86_400);
    assert_eq!(finest["rows"], 6);
    assert_eq!(finest["oldest"], "2026-01-31T08:00:00Z");
    assert_eq!(finest["newest"], "2026-01-31T08:01:00Z");
}

#[test]
fn what_weir_says_of_itself_is_shown_and_corrected() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let mut said = json!({
        "state": "reading", "source": "conntrack", "accounting": true, "coverage": 0.97,
        "interval_seconds": 5, "connections": 250, "pid": std::process::id(),
        "updated": jiff::Timestamp::now().to_string(),
    });
    say(directory.path(), &said);
    // Nobody holds the lock: whoever wrote that is gone.
    let node = |directory: &Path| status(directory)["nodes"][0].clone();
    assert_eq!(node(directory.path())["state"], "stopped");
    assert_eq!(node(directory.path())["reason"], "weir is gone without saying so");

    let writer = SqliteStore::open(directory.path(), Options::default()).expect("nobody writes");
    let now = node(directory.path());
    assert_eq!(now["state"], "reading");
    assert_eq!(now["source"], "conntrack");
    assert_eq!(now["coverage"], 0.97);
    assert_eq!(now["connections"], 250);

    said["updated"] = json!("2026-01-31T08:00:00Z");
    say(directory.path(), &said);
    assert_eq!(node(directory.path())["state"], "stalled");
    drop(writer);
}

#[test]
fn for_people() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    say(
        directory.path(),
        &json!({
            "state": "stopped",
            "source": "conntrack",
            "delivery_waits": "\u{1b}[2Jgone",
            "causes": [{ "name": "bridge_not_tracked", "text": "modprobe br_netfilter" }],
            "accounting": true,
            "ticks": 3,
            "from_a_later_version": { "max": null },
        }),
    );
    let text = printed(&ask(directory.path(), &ALL));
    let shown: Vec<&str> = text
        .lines()
        // What differs from machine to machine and from day to day.
        .filter(|line| {
            !["data dir", "  file", "  of that", "  free", "  engine"]
                .iter()
                .any(|varies| line.starts_with(varies))
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn as_csv() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let text = printed(&ask(directory.path(), &[&ALL[..], &["-o", "csv"]].concat()));
    assert!(text.starts_with("name,value\n"), "{text}");
    assert!(text.contains("\ngaps.0.reason,agent_down\n"), "{text}");
}

#[test]
fn a_weir_that_has_only_begun_has_a_status() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    say(directory.path(), &json!({ "state": "starting" }));
    let status = status(directory.path());
    assert_eq!(status["gaps"], json!([]));
    assert_eq!(status["store"], Value::Null);
    assert_eq!(status["nodes"][0]["state"], "stopped");
}

#[test]
fn a_damaged_status_is_an_error() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    fs::write(directory.path().join("status.json"), "{").expect("the directory is ours");
    let said = refused(&ask(directory.path(), &ALL));
    assert!(said.contains("is not a status object"), "{said}");
}
