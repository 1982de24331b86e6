//! Help is what most people read of weir: every page is looked at before it changes.

use weir_flow::Field;

use super::{printed, weir};

#[test]
fn pages() {
    let pages: [&[&str]; 17] = [
        &[],
        &["up"],
        &["top"],
        &["query"],
        &["query", "top"],
        &["query", "flows"],
        &["query", "series"],
        &["query", "values"],
        &["query", "status"],
        &["ranges"],
        &["ranges", "lookup"],
        &["ranges", "list"],
        &["ranges", "build"],
        &["config"],
        &["config", "check"],
        &["completions"],
        &["man"],
    ];
    for words in pages {
        let output = weir(words).arg("--help").output().expect("weir was built with this test");
        let name = ["help"].iter().chain(words).copied().collect::<Vec<_>>().join("_");
        insta::assert_snapshot!(name, printed(&output));
    }
}

#[test]
fn version() {
    let output = weir(&["--version"]).output().expect("weir was built with this test");
    assert_eq!(printed(&output), format!("weir {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_field_is_listed() {
    let output = weir(&["query", "top", "--help"]).output().expect("weir was built with this test");
    let help = printed(&output);
    let (_, listed) = help.split_once("Fields to sum by").expect("the list of fields");
    for field in Field::all() {
        let field = field.to_string();
        let name = field.trim_start_matches("source.").trim_start_matches("destination.");
        let mut words = listed.split(|c: char| !c.is_alphanumeric() && !"_.".contains(c));
        let is_listed = words.any(|word| word.trim_matches('.') == name);
        assert!(is_listed, "{field}");
    }
}

/// An example that does not parse teaches nothing. Running them needs data, so a wrong command
/// line is told from a missing store, or a missing weir, by its exit code.
#[test]
fn examples_are_well_formed() {
    let mut examples = 0;
    for words in [
        &["query"][..],
        &["query", "top"],
        &["query", "flows"],
        &["query", "series"],
        &["query", "values"],
        &["query", "status"],
    ] {
        let output = weir(words).arg("--help").output().expect("weir was built with this test");
        for line in printed(&output).lines().map(str::trim).filter(|l| l.starts_with("weir query "))
        {
            let command = line.split(" | ").next().expect("split yields at least one part");
            // Port 1 is reserved for a service that nobody runs.
            let command = command.replace(":8885", ":1");
            let (place, code): (&[&str], _) = if command.contains("http://") {
                (&[], 3)
            } else {
                (&["--data-dir", "/nonexistent/weir"], 1)
            };
            let status = weir(&[])
                .args(words_of(&command).iter().skip(1))
                .args(place)
                .output()
                .expect("weir was built with this test");
            let said = String::from_utf8_lossy(&status.stderr);
            assert_eq!(status.status.code(), Some(code), "{command}: {said}");
            assert!(said.contains("weir up"), "{command}: {said}");
            examples += 1;
        }
    }
    assert!(examples >= 10, "only {examples} examples were found");
}

/// Words as a shell splits them, for examples that quote with `'` at most.
fn words_of(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in command.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
