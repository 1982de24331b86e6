//! What the screen says, what `weir query` says, and what the kernel counted, are the same.

use std::process::Command;

use serde_json::Value;

use crate::machine::{Machine, until};
use crate::tmux::Terminal;
use crate::wire::Wire;
use crate::{SIZE, WEIR};

/// The test's own traffic. The questions over HTTP are traffic too, and do not stop.
const OURS: &str = "address in (10.77.0.0/24, fd77::/64)";
const API: &str = "http://127.0.0.1:8885";

#[test]
fn totals_are_those_of_the_store_and_of_the_kernel() {
    let Some(wire) = Wire::new("totals") else { return };
    let near = &wire.near;
    let _up = near.up(&["--activate-conntrack"]);
    keep_entries(near);
    let terminal = Terminal::open(near, SIZE, &[]);
    terminal.run(&format!("{WEIR} top --filter '{OURS}'"));
    let mut traffic = wire.traffic();
    until("something is stored", || stored(near) > 200_000);
    traffic.stop();
    until("everything is stored", || stored(near) == counted_by_the_kernel(near));

    let directory = near.data().display().to_string();
    let table = ask(near, &[&directory, "top", "--by", "source.name,destination.name"]);
    let groups: Vec<_> = table.lines().skip(1).map(cells).filter(|row| row.len() > 4).collect();
    // Three IPv4 destinations and one IPv6; more where the program was not known at first.
    assert!(groups.len() >= 4, "{table}");
    terminal.wait(&format!("the totals of\n{table}"), |screen| {
        groups.iter().all(|row| {
            let (ends, totals) = (&row[..2], &row[3..5]);
            screen.lines().any(|line| {
                let cells = cells(line);
                cells.windows(2).any(|pair| pair == ends)
                    && cells.windows(2).any(|pair| pair == totals)
            })
        })
    });

    // One range for both doors. Nothing changes any more: the answers are the same to the byte.
    let time = |text: &str| {
        let output = Command::new("date").args(["-u", "+%FT%TZ", "-d", text]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (since, until) = (time("-30 minutes"), time("+10 minutes"));
    let range = ["--since", &since, "--until", &until, "-o", "json"];
    for question in [
        &["top", "--by", "source.name,destination.address,destination.port,protocol"][..],
        &["series", "--by", "protocol", "--step", "10s"],
        &["flows"],
    ] {
        let words = |place| [&[place], question, &range[..]].concat();
        let there = ask(near, &words(API));
        let here = ask(near, &words(&directory));
        let rows = serde_json::from_str::<Value>(&here).unwrap()["rows"].as_array().unwrap().len();
        assert!(rows >= 2, "{here}");
        assert_eq!(there, here, "{question:?}");
    }
}

/// The parts of a line: between them are two spaces at least, or a frame.
fn cells(line: &str) -> Vec<&str> {
    let is_frame = |c: char| "│┃|".contains(c);
    let parts = line.split(is_frame).flat_map(|part| part.split("  "));
    let parts = parts.map(|part| part.trim_start_matches(['»', '*']).trim());
    parts.filter(|part| !part.is_empty()).collect()
}

/// `weir query`, from within the namespace.
fn ask(near: &Machine, words: &[&str]) -> String {
    let mut command = near.weir(&["query"]);
    let output = command.args(words).args(["--filter", OURS]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Bytes of both directions.
fn stored(near: &Machine) -> u64 {
    let directory = near.data().display().to_string();
    let answer = ask(near, &[&directory, "top", "--by", "protocol", "--limit", "0", "-o", "json"]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let rows = answer["rows"].as_array().unwrap().iter();
    let of = |row: &Value, name: &str| row[name].as_u64().unwrap_or(0);
    rows.map(|row| of(row, "bytes_sent") + of(row, "bytes_received")).sum()
}

/// Entries outlive the test, so that the table's counters are the truth.
fn keep_entries(near: &Machine) {
    near.keep_entries();
    for name in ["time_wait", "fin_wait", "close_wait", "last_ack", "close"] {
        near.run(
            "sysctl",
            &["-qw", &format!("net.netfilter.nf_conntrack_tcp_timeout_{name}=3600")],
        );
    }
}

fn counted_by_the_kernel(near: &Machine) -> u64 {
    let families = ["ipv4", "ipv6"].map(|family| near.run("conntrack", &["-L", "-f", family]));
    let lines = families.iter().flat_map(|table| table.lines());
    let lines = lines.filter(|line| line.contains("10.77.0.") || line.contains("fd77:"));
    let words = lines.flat_map(str::split_whitespace);
    let counted = words.filter_map(|word| word.strip_prefix("bytes="));
    counted.map(|bytes| bytes.parse::<u64>().unwrap()).sum()
}
