//! The cluster's book: scenarios that a network engineer can read, each run through one check, and
//! properties of the history of addresses against what truly happened.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

mod believed;
mod churn;
mod entry;
mod rows;
mod scenario;

use std::fs;
use std::path::Path;

/// Every file in `scenarios/`, every case in it.
#[test]
fn every_scenario_is_as_its_file_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/scenarios");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let (mut cases, mut wrong) = (0, Vec::new());
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let scenario = match toml::from_str::<scenario::Scenario>(&text) {
            Ok(scenario) => scenario,
            Err(error) => panic!("{name}: {error}"),
        };
        let (book, settings) = (scenario.book(), scenario.settings());
        for case in &scenario.case {
            cases += 1;
            let differences = case.check(&book, &settings).into_iter();
            wrong.extend(differences.map(|line| format!("{name}: {line}")));
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= 90, "only {cases} cases were found");
}
