//! Whom a question goes to: a directory, or a weir that answers over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::thread;

use super::stored::{ALL, fill};
use super::{ask, printed, refused, weir};

fn query(arguments: &[&str]) -> Output {
    weir(&["query"]).args(arguments).output().expect("weir was built with this test")
}

#[test]
fn a_directory_may_stand_before_the_question() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let place = directory.path().display().to_string();
    let expected = printed(&ask(directory.path(), &[&["top"][..], &ALL].concat()));
    for before in [&[place.as_str()][..], &["--data-dir", &place]] {
        let output = query(&[before, &["top"], &ALL].concat());
        assert_eq!(printed(&output), expected);
    }
    let mut from_environment = weir(&["query", "top"]);
    let output = from_environment.args(ALL).env("WEIR_DATA_DIR", &place).output();
    assert_eq!(printed(&output.expect("weir was built with this test")), expected);
}

#[test]
fn a_place_alone_is_asked_for_top() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let text = printed(&query(&[&directory.path().display().to_string()]));
    assert!(text.starts_with("no flows from "), "{text}");
}

#[test]
fn a_place_beside_data_dir_is_one_too_many() {
    let said = refused(&query(&["/one", "top", "--data-dir", "/other"]));
    assert!(said.starts_with("2 error: a place before the question and --data-dir"), "{said}");
    // A variable is a default, and the place wins over it.
    let output =
        weir(&["query", "/nonexistent/one", "top"]).env("WEIR_DATA_DIR", "/other").output();
    let said = refused(&output.expect("weir was built with this test"));
    assert!(said.contains("/nonexistent/one"), "{said}");
}

#[test]
fn what_is_no_place_is_explained() {
    for (arguments, says) in [
        (&["tpo"][..], "did you mean `top`?"),
        (&["tpo", "--since", "1h"], "--since"),
        (&["gauge:8885", "top"], "begins with http://"),
        (&["https://gauge", "top"], "https is not spoken yet"),
    ] {
        let said = refused(&query(arguments));
        assert!(said.starts_with("2 error: "), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn nobody_at_the_url_has_an_exit_code_of_its_own() {
    // Port 1 is reserved for a service that nobody runs.
    for question in ["top", "flows", "series", "status"] {
        let said = refused(&query(&["http://127.0.0.1:1", question]));
        insta::assert_snapshot!("nobody_there", said);
    }
}

/// Pages as a server sends them, a connection each.
fn serving(pages: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        for page in pages {
            let (mut stream, _) = listener.accept().expect("weir asks");
            let mut request = [0; 8192];
            let length = stream.read(&mut request).expect("weir speaks first");
            assert!(request[..length].ends_with(b"\r\n\r\n"), "one read has a small request");
            let length = page.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: {length}\r\n\r\n{page}"
            );
            stream.write_all(head.as_bytes()).expect("weir reads");
        }
    });
    url
}

/// The first page decides whether a table has the column UNCOUNTED: its heading and six rows.
const UNCOUNTED_WORDS: usize = 7;

/// The same flows from a directory and, in pages, over HTTP.
#[test]
fn pages_read_as_one_list() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    // A table grows wider as it goes; what it says is the same.
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for format in ["json", "csv", "table"] {
        let flows = [&["flows", "-o", format][..], &ALL].concat();
        let local = printed(&ask(directory.path(), &flows));
        let url = serving(pages_of(directory.path()));
        let remote = printed(&query(&[&[url.as_str()][..], &flows].concat()));
        if format == "table" {
            assert_eq!(words(remote).len(), words(local).len() - UNCOUNTED_WORDS);
        } else {
            assert_eq!(remote, local, "{format}");
        }
    }
}

/// The directory's flows, two rows a page.
fn pages_of(directory: &Path) -> Vec<String> {
    let text = printed(&ask(directory, &[&["flows", "-o", "json"][..], &ALL].concat()));
    let whole: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let rows = whole["rows"].as_array().expect("rows");
    let pages = rows.chunks(2).enumerate().map(|(index, rows)| {
        let mut page = whole.clone();
        let is_last = (index + 1) * 2 >= whole["rows"].as_array().map_or(0, Vec::len);
        page["rows"] = rows.into();
        page["more"] = (!is_last).into();
        page["next_cursor"] = if is_last { None } else { Some(format!("c{index}")) }.into();
        page.to_string()
    });
    pages.collect()
}
