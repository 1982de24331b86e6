use std::fs;

use super::*;

const LIMITS: Limits = Limits { entries: 1000, copy_bytes: 1 << 20, slow: false };
const LINE: &str = "udp 17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=53 [UNREPLIED] src=10.0.0.2 \
    dst=10.0.0.1 sport=53 dport=1 use=1\n";
/// A file of the kernel's that is empty, as an idle table is: this process has set no timer.
const IDLE: &str = "/proc/self/timers";

/// A directory with these files, and candidates for them in this order. `None`: not made.
fn places(files: &[(&str, Option<&str>)]) -> (tempfile::TempDir, Candidates) {
    let root = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, text) in files {
        let path = root.path().join(name);
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        paths.push(path);
    }
    (root, Candidates::new(paths))
}

#[test]
fn the_order_is_the_hosts_first_process_then_the_host_then_here() {
    let Candidates(paths) = Candidates::default();
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    insta::assert_snapshot!(paths.join("\n"));
}

#[test]
fn the_first_that_can_be_read_is_taken_and_the_others_are_told() {
    let (root, candidates) = places(&[
        ("absent", None),
        ("empty", Some("")),
        ("other", Some("something else\n")),
        ("good", Some(LINE)),
        ("better", Some(LINE)),
    ]);
    let Found { table, passed_over } = candidates.find(LIMITS).unwrap();
    assert_eq!(table.path(), root.path().join("good"));
    let names: Vec<_> = passed_over.iter().map(|tried| tried.path.file_name().unwrap()).collect();
    assert_eq!(names, ["empty", "other"]);
    assert_eq!(candidates.existing().len(), 4);
}

#[test]
fn the_kernels_own_empty_file_serves_when_nothing_better_is_there() {
    let idle = PathBuf::from(IDLE);
    let (root, Candidates(others)) = places(&[("empty", Some("")), ("good", Some(LINE))]);
    let [empty, good] = [others[0].clone(), others[1].clone()];
    let found = Candidates::new(vec![idle.clone(), empty]).find(LIMITS).unwrap();
    assert_eq!(found.table.path(), idle);
    assert!(found.table.was_empty());
    let found = Candidates::new(vec![idle.clone(), good.clone()]).find(LIMITS).unwrap();
    assert_eq!(found.table.path(), good);
    assert_eq!(found.passed_over[0].to_string(), format!("{} is empty", idle.display()));
    drop(root);
}

#[test]
fn nothing_found_tells_what_was_there() {
    let (root, candidates) =
        places(&[("absent", None), ("empty", Some("")), ("other", Some("something\n"))]);
    let error = candidates.find(LIMITS).unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(&root.path().display().to_string(), "DIR"));
    insta::assert_snapshot!(
        places(&[("absent", None)]).1.find(LIMITS).unwrap_err(),
        @"no conntrack text was found; load it with `modprobe nf_conntrack`, which needs a kernel built with CONFIG_NF_CONNTRACK_PROCFS, or read the table over netlink (the default, needs CAP_NET_ADMIN)"
    );
}

#[test]
fn a_path_that_is_not_there_names_those_that_are() {
    let (root, candidates) = places(&[("absent", None), ("one", Some(LINE)), ("two", Some(""))]);
    let tell = |candidates: &Candidates, name: &str| {
        let error = candidates.at(&root.path().join(name), LIMITS).unwrap_err();
        error.to_string().replace(&root.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!(
        tell(&candidates, "nf_contrack"),
        @"there is no DIR/nf_contrack; these are there: DIR/one, DIR/two; name one of them, or `auto`"
    );
    // A part of the path is a file.
    insta::assert_snapshot!(
        tell(&Candidates::new(Vec::new()), "one/nf_conntrack"),
        @"there is no DIR/one/nf_conntrack; nor is any of the usual files there: load them with `modprobe nf_conntrack`, or read the table over netlink (the default, needs CAP_NET_ADMIN)"
    );
    assert_eq!(
        candidates.at(&root.path().join("one"), LIMITS).unwrap().path().file_name().unwrap(),
        "one"
    );
}
