//! What is made from the definition of the command line: completions and manual pages.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{printed, refused, weir};

fn completions(shell: &str) -> String {
    let output = weir(&["completions", shell]).output();
    printed(&output.expect("weir was built with this test"))
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = completions(shell);
        for word in ["query", "flows", "cpu-budget", "insecure-listen"] {
            assert!(text.contains(word), "{shell} does not complete {word}");
        }
    }
    let output = weir(&["completions", "tcsh"]).output();
    let said = refused(&output.expect("weir was built with this test"));
    assert!(said.contains("possible values: bash, elvish, fish, powershell, zsh"), "{said}");
}

#[test]
fn bash_can_read_its_completions() {
    let child = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn();
    let mut child = child.expect("bash is on every machine that builds weir");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(completions("bash").as_bytes()).expect("bash reads to the end");
    drop(stdin);
    assert!(child.wait().expect("the child is ours").success());
}

#[test]
fn the_manual_page_begins_as_manual_pages_do() {
    let output = weir(&["man"]).output().expect("weir was built with this test");
    let text = printed(&output);
    let head: Vec<&str> = text.lines().take(8).collect();
    let head = head.join("\n").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(head);
    assert!(text.contains("Exit codes:"), "{text}");
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pages = directory.path().join("man1");
    let output = weir(&["man", "--dir"]).arg(&pages).output();
    assert_eq!(printed(&output.expect("weir was built with this test")), "");
    let entries = fs::read_dir(&pages).expect("the directory was made");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    insta::assert_snapshot!(names.join(" "));
}
