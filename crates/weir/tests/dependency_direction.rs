//! The walls between the crates: which of ours may use which, and what must never be linked where.
//! Read from `cargo metadata` and `cargo tree`, so a new edge fails here before anyone reviews it.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Every crate of ours and the crates of ours it may use, for any purpose, tests included.
const MAY_USE: &[(&str, &[&str])] = &[
    ("weir-flow", &[]),
    ("weir-conntrack", &["weir-flow"]),
    ("weir-proto", &["weir-flow"]),
    ("weir-agent", &["weir-flow", "weir-conntrack", "weir-proto"]),
    ("weir-store", &["weir-flow"]),
    ("weir-server", &["weir-flow", "weir-proto", "weir-store"]),
    ("weir", &["weir-flow", "weir-conntrack", "weir-agent", "weir-store", "weir-server"]),
    ("weir-lab", &["weir-flow", "weir-conntrack"]),
];

/// Edges that only tests and benchmarks may have.
const TESTS_MAY_USE: &[(&str, &[&str])] = &[
    ("weir-conntrack", &["weir-lab"]),
    ("weir-agent", &["weir-lab"]),
    ("weir-store", &["weir-lab"]),
    ("weir-server", &["weir-lab"]),
    ("weir", &["weir-lab"]),
];

/// What a crate must not link, not even through another: the walls it was built for.
const NEVER_LINKS: &[(&str, &[&str])] = &[
    // Pure: no IO, no async, no clock, no kube.
    ("weir-flow", &["libc", "tokio", "jiff", "kube", "rusqlite", "serde_json"]),
    // Runs on every node, with privilege: no database, no web framework, no kube.
    ("weir-agent", &["libsqlite3-sys", "kube", "axum"]),
    // Both ends of the wire link it.
    ("weir-proto", &["libsqlite3-sys", "kube", "axum"]),
    ("weir-store", &["kube", "axum"]),
];

#[test]
fn our_crates_use_each_other_only_along_the_way_of_a_flow() {
    let metadata = Metadata::read();
    let mut wrong = Vec::new();
    for package in metadata.ours() {
        let name = text(package, "name");
        let Some(may_use) = listed(MAY_USE, name) else {
            wrong.push(format!("{name} is not in the table of this test"));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let used = text(dependency, "name");
            let in_tests = dependency["kind"] == "dev";
            let allowed = may_use.contains(&used)
                || (in_tests && listed(TESTS_MAY_USE, name).is_some_and(|t| t.contains(&used)));
            if metadata.is_ours(used) && !allowed {
                wrong.push(format!("{name} must not use {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn walls_hold_through_every_dependency() {
    let mut wrong = Vec::new();
    for (name, never) in NEVER_LINKS {
        let linked = linked(name);
        // Without this, a misread answer would pass as linking nothing.
        assert!(linked.contains(*name), "cargo tree does not name {name}: {linked:?}");
        for banned in *never {
            if linked.contains(*banned) {
                wrong.push(format!("{name} links {banned}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Metadata(Value);

impl Metadata {
    fn read() -> Self {
        let json = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
        Self(serde_json::from_str(&json).expect("cargo writes JSON"))
    }

    /// Without dependencies, the packages are the workspace's members.
    fn ours(&self) -> &[Value] {
        list(&self.0, "packages")
    }

    fn is_ours(&self, name: &str) -> bool {
        self.ours().iter().any(|package| text(package, "name") == name)
    }
}

/// The names of all packages that a build of `name` links or runs, itself included.
fn linked(name: &str) -> BTreeSet<String> {
    let tree = ["tree", "--package", name, "--edges", "normal,build", "--prefix", "none"];
    cargo(&tree).lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .expect("cargo runs: it is running this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

fn listed<'a>(table: &'a [(&str, &[&str])], name: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, used)| *used)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("cargo metadata names every package")
}
