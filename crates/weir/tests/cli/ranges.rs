//! Whose an address outside is, and how the copy inside weir is made.

use std::fs;
use std::path::PathBuf;

use super::{printed, weir};

fn samples() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../weir-server/data/samples"))
}

/// Looks up in the samples, whatever this weir was built with.
fn lookup(words: &[&str]) -> String {
    let nowhere = ["--data-dir", "/nonexistent/weir", "--ranges-dir"];
    let mut command = weir(&["ranges"]);
    command.args(words).args(nowhere).arg(samples());
    printed(&command.output().expect("weir was built with this test"))
}

#[test]
fn an_address_is_looked_up_with_where_that_comes_from() {
    insta::assert_snapshot!(
        lookup(&["lookup", "52.216.1.1", "2600:9000::1", "::ffff:8.8.8.8", "192.0.2.1"]),
        @r"
    ADDRESS         CLOUD  REGION     SERVICE        FROM
    52.216.1.1      aws    us-east-1  s3             aws (directory)
    2600:9000::1    aws    global     cloudfront     aws (directory)
    ::ffff:8.8.8.8  gcp    global     googleservice  gcp (directory), google (directory)
    192.0.2.1       -      -          -              -
    "
    );
}

#[test]
fn the_copies_in_use_are_listed() {
    insta::assert_snapshot!(lookup(&["list", "-o", "csv"]), @r"
    provider,prefixes,as_of,from,note,trouble
    aws,33,,directory,,
    gcp,26,,directory,,
    google,29,,directory,,
    azure,16,,directory,,
    ");
}

#[test]
fn equal_files_make_equal_copies_and_a_damaged_one_makes_none() {
    let home = tempfile::tempdir().unwrap();
    let copy = |name: &str, file: &PathBuf| {
        let output = home.path().join(name);
        let mut command = weir(&["ranges", "build", "--note", "sample", "--aws"]);
        command.arg(file).arg("--output").arg(&output);
        (command.output().expect("weir was built with this test"), output)
    };
    let sound = samples().join("ip-ranges.json");
    let ((made, one), (_, two)) = (copy("one", &sound), copy("two", &sound));
    assert!(printed(&made).starts_with("aws           33 prefixes of ?\n"), "{}", printed(&made));
    assert_eq!(fs::read(one).unwrap(), fs::read(two).unwrap());

    let torn = home.path().join("torn.json");
    let whole = fs::read(&sound).unwrap();
    fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    let (refused, output) = copy("three", &torn);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("torn.json: damaged: ") && said.contains("download it again"), "{said}");
    assert!(!output.exists());
}
