//! A writer that is killed leaves what it acknowledged, and nothing in halves.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weir_flow::Folded;
use weir_store::{FlowStore as _, Limits, Options, Outcome, SqliteStore};

use crate::support::{NOON, Spelled, batch, folded, query};

const DIRECTORY: &str = "WEIR_TEST_CRASH_DIRECTORY";
const ROUNDS: u32 = 12;
const FLOWS_PER_BATCH: u64 = 40;

/// What is in a batch depends on its number alone: 40 flows in as many windows, each of as many
/// bytes as the number says.
fn content(sequence: u64) -> Folded {
    let flows: Vec<Spelled> = (0..FLOWS_PER_BATCH)
        .map(|i| {
            let source = format!("10.0.{}.{}", sequence % 5, i);
            Spelled::new(NOON + 10 * (sequence % 300 + i), &source, "192.0.2.1", sequence)
        })
        .collect();
    folded(&flows)
}

fn bytes_up_to(sequence: u64) -> u64 {
    FLOWS_PER_BATCH * sequence * (sequence + 1) / 2
}

/// Commits batches, three at a time, and says after each commit which one was the last.
#[test]
#[ignore = "the process that the crash test starts and kills"]
fn child_commits_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = SqliteStore::open(directory, Options::default()).unwrap();
    let committed = store.committed().unwrap();
    let mut next = committed.first().map_or(1, |epoch| epoch.ranges.low_water() + 1);
    loop {
        let contents: Vec<Folded> = (next..next + 3).map(content).collect();
        let batches: Vec<_> = (next..)
            .zip(&contents)
            .map(|(number, flows)| batch("n1", number, flows, &[]))
            .collect();
        assert_eq!(store.commit(&batches).unwrap(), vec![Outcome::Committed; 3]);
        next += 3;
        println!("acknowledged {}", next - 1);
        std::io::stdout().flush().unwrap();
    }
}

/// Runs the child until it is killed at `after`; returns the last number it acknowledged.
fn run_and_kill(directory: &Path, after: Duration) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_commits_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let killer = std::thread::spawn(move || {
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap()
    });
    // A torn last line is no acknowledgement.
    let acknowledged = output
        .split(b'\n')
        .map_while(Result::ok)
        .filter_map(|line| {
            let line = String::from_utf8(line).ok()?;
            line.strip_prefix("acknowledged ")?.parse().ok()
        })
        .last();
    assert!(!killer.join().unwrap().success(), "the child must die by the signal");
    acknowledged
}

#[test]
fn what_was_acknowledged_survives_kill_9_whole() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let mut acknowledged = 0;
    let mut kills_with_work = 0;
    let started = Instant::now();
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        let after = Duration::from_millis(60 + (random >> 33) % 250);
        if let Some(last) = run_and_kill(directory.path(), after) {
            acknowledged = last;
            kills_with_work += 1;
        }
        if !directory.path().join("flows.db").exists() {
            continue;
        }
        let stored = check(directory.path());
        // What was in flight is there whole, three batches with their numbers, or not at all.
        assert!(
            stored == acknowledged || stored == acknowledged + 3,
            "round {round}: {acknowledged} acknowledged, {stored} stored"
        );
        acknowledged = stored;
    }
    println!(
        "{ROUNDS} kills, {kills_with_work} during commits, {acknowledged} batches, {:?}",
        started.elapsed()
    );
    assert!(kills_with_work >= ROUNDS / 2, "only {kills_with_work} kills met a working child");
}

/// Checks the store with nobody writing it; returns its low-water mark.
fn check(directory: &Path) -> u64 {
    let connection = rusqlite::Connection::open(directory.join("flows.db")).unwrap();
    let verdict: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    drop(connection);

    let store = match SqliteStore::open_read_only(directory, Limits::default()) {
        Ok(store) => store,
        // Killed before its tables were there.
        Err(weir_store::StoreError::Missing { .. }) => return 0,
        Err(error) => panic!("{error}"),
    };
    let committed = store.committed().unwrap();
    let low_water = committed.first().map_or(0, |epoch| epoch.ranges.low_water());
    assert!(committed.iter().all(|epoch| epoch.ranges.spans().len() == 1));
    // By level, and from the totals.
    for by in ["", "source.name"] {
        for bucket in [None, Some(10), Some(60), Some(3_600)] {
            let mut query = query(0..u64::MAX, by);
            query.bucket_seconds = bucket;
            let table = store.query(&query).unwrap();
            let sum: u64 = table.rows.iter().filter_map(|row| row.last()?.sum()).sum();
            assert_eq!(sum, bytes_up_to(low_water), "{bucket:?} {by}");
        }
    }
    low_water
}
