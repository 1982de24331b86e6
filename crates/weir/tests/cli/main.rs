//! `weir` as it is typed: what it prints, and how it ends.

mod config;
mod errors;
mod generated;
mod help;
mod place;
mod query;
mod ranges;
mod server;
mod status;
mod stored;

use std::path::Path;
use std::process::{Command, Output};

/// `weir` with these arguments and none of the environment that would change its answer.
fn weir(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent");
    command
}

/// Runs a question on a data directory.
fn ask(directory: &Path, arguments: &[&str]) -> Output {
    weir(&["query"])
        .args(arguments)
        .arg("--data-dir")
        .arg(directory)
        .output()
        .expect("weir was built with this test")
}

/// What a successful command printed.
fn printed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert_eq!(said, "", "nothing goes to stderr");
    String::from_utf8(output.stdout.clone()).expect("weir prints UTF-8")
}

/// What a failed command said on stderr, its exit code before it.
fn refused(output: &Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing goes to stdout");
    let code = output.status.code().expect("weir was not killed");
    format!("{code} {}", String::from_utf8_lossy(&output.stderr))
}
