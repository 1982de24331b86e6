//! `weir config`: what `weir up` would run with, and what it would refuse.

use std::fs;
use std::path::Path;

use super::{printed, refused, weir};

fn write(directory: &Path, text: &str) -> String {
    let file = directory.join("weir.yaml");
    fs::write(&file, text).expect("the directory is ours");
    file.display().to_string()
}

#[test]
fn the_example_passes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let example = weir(&["config", "example"]).output().expect("weir was built with this test");
    let file = write(directory.path(), &printed(&example));
    let check = weir(&["config", "check", "--data-dir", "/data", "--config", &file]).output();
    insta::assert_snapshot!(printed(&check.expect("weir was built with this test")));
}

/// Flag, variable, file, default: each wins over those after it.
#[test]
fn each_layer_wins_over_the_next() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = write(directory.path(), "interval: 7s\n");
    for (flag, variable, has_file, expected) in [
        (true, true, true, "interval: 2s # flag"),
        (false, true, true, "interval: 3s # env"),
        (false, false, true, "interval: 7s # file, line 1"),
        (false, false, false, "interval: 5s # default"),
        (true, false, false, "interval: 2s # flag"),
        (false, true, false, "interval: 3s # env"),
    ] {
        let mut command = weir(&["config", "check", "--data-dir", "/data"]);
        if flag {
            command.args(["--interval", "2s"]);
        }
        if variable {
            command.env("WEIR_INTERVAL", "3s");
        }
        if has_file {
            command.env("WEIR_CONFIG", &file);
        }
        let text = printed(&command.output().expect("weir was built with this test"));
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(expected), "{expected}: {text}");
    }
}

/// What a file switches on, a variable switches off.
#[test]
fn a_switch_has_two_positions() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = write(directory.path(), "plain: yes\n");
    for (variable, expected) in [(None, "true"), (Some("0"), "false"), (Some("false"), "false")] {
        let mut command = weir(&["config", "check", "--data-dir", "/data", "--config", &file]);
        command.envs(variable.map(|value| ("WEIR_PLAIN", value)));
        let text = printed(&command.output().expect("weir was built with this test"));
        assert!(text.contains(&format!("plain: {expected}")), "{text}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = write(directory.path(), "intervall: 5s\nlisten: 0.0.0.0:8885\ncpu_budget: 2\n");
    for words in [&["config", "check"][..], &["up"]] {
        let mut command = weir(words);
        let output = command.args(["--data-dir", "/data", "--config", &file]).output();
        let said = refused(&output.expect("weir was built with this test"));
        insta::assert_snapshot!("everything_wrong", said.replace(&file, "weir.yaml"));
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = weir(&["config", "check", "--config", "/nonexistent/weir.yaml"]).output();
    let said = refused(&output.expect("weir was built with this test"));
    assert!(said.starts_with("1 error: read the configuration /nonexistent/weir.yaml: "), "{said}");
}

#[test]
fn an_open_door_is_warned_of() {
    let output = weir(&["config", "check", "--data-dir", "/data", "--insecure-listen"])
        .args(["--listen", "0.0.0.0:8885"])
        .output()
        .expect("weir was built with this test");
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("WARNING: the API on 0.0.0.0:8885 answers everybody"), "{said}");
}
