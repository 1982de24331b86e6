//! The HTTP API against its own document: schemathesis asks a running weir whatever the document
//! allows, and much that it does not. Needs root, Python and, the first time, a package index.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(clippy::panic, reason = "a test that waited in vain should say for what")]

#[path = "up/machine.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod machine;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::machine::Machine;

#[test]
fn every_answer_is_one_that_the_document_promises() {
    let Some(machine) = Machine::new("schema") else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // Installing is no part of the run, and has no network inside of the namespace.
    let output = Command::new(root.join("scripts/python.sh")).output().unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let is_ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!is_ci, "schemathesis must run in CI: {said}");
        let loud = format!("SKIPPED: THE API WAS NOT FUZZED, schemathesis is missing: {said}\n");
        std::io::stderr().write_all(loud.as_bytes()).unwrap();
        return;
    }
    let up = machine.up(&["--activate-conntrack"]);
    machine.carry(20, 1_000);

    let script: PathBuf = root.join("scripts/schemathesis.sh");
    let mut command = machine.command(script.to_str().unwrap(), &["http://127.0.0.1:8885"]);
    command.env("SECONDS_MAX", "40");
    if std::env::var("CI").as_deref() == Ok("true") {
        // The same questions each time: a failure is the last change's.
        command.env("SEED", "1");
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}{}", up.said());
    assert_eq!(machine.node()["state"], "reading");
    up.stop();
}
