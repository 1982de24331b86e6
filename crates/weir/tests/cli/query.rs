//! Answers from a real store.

use std::io::Read as _;
use std::process::Stdio;

use serde_json::Value;

use super::stored::{ALL, fill};
use super::{ask, printed, weir};

fn answer(arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    printed(&ask(directory.path(), &[arguments, &ALL].concat()))
}

#[test]
fn top_as_a_table() {
    insta::assert_snapshot!(answer(&["top"]));
}

#[test]
fn top_as_csv() {
    insta::assert_snapshot!(answer(&["top", "-o", "csv"]));
}

#[test]
fn top_as_json_has_every_measure_and_exact_numbers() {
    let by = "source.address,destination.address,protocol,destination.port,service";
    let text =
        answer(&["top", "--by", by, "--limit", "1", "--sort", "connections_opened", "-o", "json"]);
    insta::assert_snapshot!(text);
}

#[test]
fn unknown_is_null_and_not_zero() {
    let text = answer(&["top", "--filter", "port = 53", "-o", "json"]);
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let row = &json["rows"][0];
    assert_eq!(row["connections_uncounted"], 2);
    for measure in ["bytes", "bytes_sent", "bytes_received", "packets_sent", "packets_received"] {
        assert_eq!(row[measure], Value::Null, "{measure}");
    }
}

#[test]
fn sums_are_the_same_however_they_are_asked_for() {
    let sum = |arguments: &[&str]| {
        let text = answer(&[arguments, &["-o", "json", "--limit", "0"]].concat());
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let rows = json["rows"].as_array().expect("rows").clone();
        rows.iter().filter_map(|row| row["bytes"].as_u64()).sum::<u64>()
    };
    let all = sum(&["top"]);
    assert_eq!(all, 9_000_000_700 + 1_502_048 + 168 + 300 + 1_000);
    assert_eq!(sum(&["top", "--by", "class"]), all);
    assert_eq!(sum(&["flows"]), all);
    assert_eq!(sum(&["series"]), all);
    assert_eq!(sum(&["series", "--step", "10s", "--by", "source.unit"]), all);
}

#[test]
fn flows_as_a_table() {
    insta::assert_snapshot!(answer(&["flows"]));
}

#[test]
fn flows_have_every_key_field() {
    insta::assert_snapshot!(answer(&[
        "flows",
        "--filter",
        "class = internet and port = 443",
        "-o",
        "json"
    ]));
}

#[test]
fn series_by_class() {
    insta::assert_snapshot!(answer(&["series", "--by", "class", "--step", "60s"]));
}

#[test]
fn what_was_left_out_is_said() {
    let table = answer(&["top", "--limit", "2"]);
    assert!(table.contains("2 rows (there are more: --limit)"), "{table}");
    let table = answer(&["top", "--limit", "0"]);
    assert!(!table.contains("there are more"), "{table}");
}

#[test]
fn no_flows_is_an_answer() {
    let table = answer(&["top", "--filter", "port = 1"]);
    assert!(table.starts_with("no flows from 2026-01-31T08:00:00Z"), "{table}");
    let json = answer(&["top", "--filter", "port = 1", "-o", "json"]);
    assert!(json.contains("\"rows\": []"), "{json}");
}

#[test]
fn values_of_a_field() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let values = |arguments: &[&str]| {
        printed(&ask(directory.path(), &[&["values", "--dimension"], arguments].concat()))
    };
    assert_eq!(values(&["destination.unit"]), "nginx.service\n");
    assert_eq!(values(&["destination.unit", "--prefix", "x"]), "");
    assert_eq!(values(&["destination.unit", "-o", "json"]), "[\n  \"nginx.service\"\n]\n");
    assert_eq!(values(&["destination.unit", "-o", "csv"]), "destination.unit\nnginx.service\n");
    assert_eq!(values(&["source.executable"]), "=1+1\\u{1b}[2J,evil\"\n");
}

#[test]
fn nothing_is_coloured_in_a_pipe() {
    for arguments in [&["top"][..], &["flows"], &["series"]] {
        assert!(!answer(arguments).contains('\u{1b}'), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let mut child = weir(&["query", "flows", "-o", "json", "--data-dir"])
        .arg(directory.path())
        .args(ALL)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir was built with this test");
    drop(child.stdout.take());
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("stderr is a pipe");
    stderr.read_to_string(&mut said).expect("weir speaks UTF-8");
    assert!(child.wait().expect("the child is ours").success());
    assert_eq!(said, "");
}

#[test]
fn a_series_in_parts_is_the_series_in_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    // Four days around the flows: more steps than a part has.
    let around =
        ["--since", "2026-01-29T07:13:00Z", "--until", "2026-02-02T09:41:00Z", "-o", "csv"];
    for step in ["10s", "60s", "90s", "1h", "5400s", "2d"] {
        let series = |limit: &str| {
            let asked = ["series", "--by", "source.name", "--step", step, "--limit", limit];
            printed(&ask(directory.path(), &[&asked[..], &around].concat()))
        };
        assert_eq!(series("0"), series("100000"), "{step}");
        assert!(series("0").lines().count() > 3, "{step}");
    }
}

#[test]
fn a_list_goes_on_where_a_cursor_points() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let list = |arguments: &[&str]| {
        let asked = [&["flows", "-o", "csv"], arguments, &ALL].concat();
        printed(&ask(directory.path(), &asked))
    };
    let whole = list(&["--limit", "0"]);
    // The cursor of a page of one row, as the library hands it out.
    let store =
        weir_store::SqliteStore::open_read_only(directory.path(), weir_store::Limits::default());
    let query = weir_server::Query::new(
        std::sync::Arc::new(store.expect("a store")),
        std::sync::Arc::default(),
        std::sync::Arc::default(),
        std::sync::Arc::new(|| weir_flow::WallTime(0)),
    );
    let question = weir_server::answer::FlowsQuestion {
        range: super::stored::START..super::stored::START + 600,
        filter: weir_flow::Filter::All,
        step_seconds: 10,
        sort: None,
        limit: Some(1),
        cursor: None,
    };
    let page = weir_server::Answers::flows(&query, &question).expect("a page");
    let cursor = page.next_cursor.expect("there is more than one flow");
    let rest = list(&["--limit", "0", "--cursor", &cursor]);
    let (whole, rest): (Vec<&str>, Vec<&str>) = (whole.lines().collect(), rest.lines().collect());
    assert_eq!(rest[0], whole[0]);
    assert_eq!(rest[1..], whole[2..]);
}
