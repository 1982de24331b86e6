//! What is wrong, and what to do: every error a user can cause by typing.

use std::fs;

use super::stored::fill;
use super::{ask, refused, weir};

#[test]
fn a_wrong_command_line_is_refused_with_what_is_valid() {
    let nowhere = std::path::Path::new("/nonexistent/weir");
    for (arguments, says) in [
        (&["top", "--filter", "source.unti = x"][..], "did you mean `source.unit`"),
        (&["top", "--filter", "port = "], "expected"),
        (&["top", "--since", "10x"], "unknown unit \"x\""),
        (&["top", "--since", "yesterday"], "valid are now, a duration ago"),
        (&["top", "--since", "1m", "--until", "5m"], "--since must be earlier"),
        (&["top", "--limit", "many"], "invalid value 'many' for '--limit <N>'"),
        (&["top", "--limit", "-1"], "-1"),
        (&["top", "--sort", "speed"], "not a measure; there are: bytes, bytes_sent"),
        (&["top", "--by", "name"], "say which side: source.name or destination.name"),
        (&["top", "--by", "colour"], "not a field; there are: source.id"),
        (&["series", "--step", "7s"], "multiples of 10s"),
        (&["values"], "--dimension <FIELD>"),
        (&["top", "-o", "xml"], "possible values: table, json, csv"),
    ] {
        let said = refused(&ask(nowhere, arguments));
        assert!(said.starts_with("2 error: "), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn a_filter_error_points_at_its_place() {
    let filter = "class = internet and destination.prt = 443";
    insta::assert_snapshot!(refused(&ask("/nonexistent".as_ref(), &["top", "--filter", filter])));
}

#[test]
fn up_refuses_what_makes_no_sense() {
    for (arguments, says) in [
        (&["--interval", "2h"][..], "at most 1h"),
        (&["--cpu-budget", "1"], "needs a % sign"),
        (&["--cpu-budget", "0%"], "more than 0%"),
        (&["--cpu-budget", "NaN%"], "more than 0%"),
        (&["--retention", "5s=1d"], "no windows of \"5s\""),
        (&["--retention", "1m"], "has no `=`"),
        (&["--retention", "1h=1d,1m=2d"], "at least as long"),
        (&["--retention", "10s=0,1m=0,1h=0"], "kept for some time"),
    ] {
        let output = weir(&["up"]).args(arguments).output().expect("weir was built with this test");
        let said = refused(&output);
        assert!(said.starts_with("2 error: "), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn no_data_says_what_makes_some() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for question in ["top", "flows", "series", "status"] {
        let said = refused(&ask(&directory.path().join("none"), &[question]));
        assert!(said.starts_with("1 error: there is no store in "), "{said}");
        assert!(said.contains("`weir up --data-dir "), "{said}");
    }
}

#[test]
fn a_damaged_store_is_said_to_be_damaged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let file = database(directory.path());
    let mut bytes = fs::read(&file).expect("the database is there");
    for byte in bytes.iter_mut().skip(16) {
        *byte = !*byte;
    }
    fs::write(&file, bytes).expect("the database can be written");
    let said = refused(&ask(directory.path(), &["top"]));
    assert!(said.starts_with("1 error: "), "{said}");
    assert!(said.contains("damaged"), "{said}");
}

fn database(directory: &std::path::Path) -> std::path::PathBuf {
    let files = fs::read_dir(directory).expect("the directory is there");
    files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.metadata().is_ok_and(|file| file.is_file()))
        .max_by_key(|path| path.metadata().map_or(0, |file| file.len()))
        .expect("the store has a file")
}
