//! How fast the embedded store takes flows, how small it keeps them, how soon it answers.
//!
//! One line a figure: `NAME VALUE UNIT target OP X ok|short`. The traffic is made up
//! ([`weir_lab::day`]). `WEIR_BENCH_ROWS` sets how many rows of the finest level the day has.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use weir_flow::{BatchId, Digest, Epoch, Field, Filter, Level};
use weir_lab::day::{self, Day, START};
use weir_store::{
    CommitBatch, FlowQuery, FlowStore as _, Measure, Options, Order, Outcome, Retention,
    SqliteStore,
};

/// The length of a day.
const DAY: u64 = day::SECONDS;
const ROWS_PER_COMMIT: usize = 10_000;
const RUNS: usize = 9;

fn main() {
    let rows = std::env::var("WEIR_BENCH_ROWS")
        .map_or(10_000_000, |rows| rows.parse().expect("WEIR_BENCH_ROWS is a number of rows"));
    finest_alone(rows.min(1_000_000));
    one_window_a_commit(rows.min(500_000));
    let directory = tempfile::tempdir().expect("a directory for the store");
    let store = all_levels(directory.path(), rows);
    queries(&store);
    upkeep(&store);
}

enum Target {
    AtLeast(f64),
    AtMost(f64),
}

fn report(name: &str, value: f64, unit: &str, target: &Target) {
    let (sign, bound, met) = match *target {
        Target::AtLeast(bound) => (">=", bound, value >= bound),
        Target::AtMost(bound) => ("<=", bound, value <= bound),
    };
    let verdict = if met { "ok" } else { "short" };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{name} {value:.2} {unit} target {sign} {bound} {verdict}")
        .expect("somebody reads the figures");
}

/// The finest level and nothing else, in commits of 10,000 rows.
fn finest_alone(rows: u64) {
    let directory = tempfile::tempdir().expect("a directory for the store");
    let retention = Retention { minute: 0, hour: 0, ..Retention::default() };
    let store = open(directory.path(), retention);
    let taken = fill(&store, rows, ROWS_PER_COMMIT);
    report("store_finest_alone", taken.per_cpu_second(), "rows/cpu-s", &Target::AtLeast(400_000.0));
}

/// The least that roll-ups can save: commits of one window, as one poll of all nodes makes.
fn one_window_a_commit(rows: u64) {
    let directory = tempfile::tempdir().expect("a directory for the store");
    let store = open(directory.path(), Retention::default());
    let taken = fill(&store, rows, 1);
    let target = Target::AtLeast(50_000.0);
    report("store_all_levels_one_window", taken.per_cpu_second(), "rows/cpu-s", &target);
}

fn all_levels(directory: &Path, rows: u64) -> SqliteStore {
    let store = open(directory, Retention::default());
    let taken = fill(&store, rows, ROWS_PER_COMMIT);
    report("store_all_levels", taken.per_cpu_second(), "rows/cpu-s", &Target::AtLeast(180_000.0));
    let rate = precise(taken.rows) / taken.wall.as_secs_f64();
    report("store_all_levels_wall", rate, "rows/s", &Target::AtLeast(50_000.0));

    let health = store.health().expect("the store is well");
    let finest = health.levels[0].rows;
    drop(store);
    let database = rusqlite::Connection::open(directory.join("flows.db")).expect("a database");
    let bytes = |sql: &str| -> f64 {
        database.query_row(sql, [], |row| row.get(0)).expect("the engine counts its pages")
    };
    let table = bytes("SELECT CAST(sum(pgsize) AS REAL) FROM dbstat WHERE name = 'flow_10s'");
    let all = bytes("SELECT CAST(sum(pgsize) AS REAL) FROM dbstat");
    drop(database);
    report("store_bytes_per_finest_row", table / precise(finest), "B", &Target::AtMost(48.0));
    report("store_file_to_finest", all / table, "x", &Target::AtMost(1.6));
    open(directory, Retention::default())
}

fn open(directory: &Path, retention: Retention) -> SqliteStore {
    SqliteStore::open(directory, Options { retention, ..Options::default() })
        .expect("a fresh directory can hold a store")
}

fn queries(store: &SqliteStore) {
    let end = START + DAY;
    let of = |seconds, by: &str| FlowQuery {
        range: end - seconds..end,
        filter: Filter::All,
        group_by: by.split(',').map(|name| Field::parse(name).expect("a field")).collect(),
        bucket_seconds: None,
        measures: vec![Measure::Bytes],
        order: Order::Measure(Measure::Bytes),
        limit: Some(20),
    };
    let busiest = {
        let table = store.query(&of(600, "source.id")).expect("an answer");
        table.rows[0][0].to_string()
    };
    let filter = Filter::parse(&format!("id = \"{busiest}\"")).expect("a filter");
    let asked = [
        ("q1_top_pairs_10m", of(600, "source.id,destination.id")),
        (
            "q2_class_by_minute_24h",
            FlowQuery {
                bucket_seconds: Some(60),
                limit: None,
                order: Order::Keys,
                ..of(DAY, "class")
            },
        ),
        (
            "q3_unit_edges_1h",
            FlowQuery { limit: None, ..of(3_600, "source.unit,destination.unit") },
        ),
        (
            "q4_peers_of_one_24h",
            FlowQuery { filter, limit: Some(100), ..of(DAY, "source.id,destination.id") },
        ),
        ("q5_top_units_24h", of(DAY, "source.unit,destination.unit,destination.port")),
    ];
    for (name, query) in asked {
        let mut times: Vec<f64> = (0..RUNS)
            .map(|_| {
                let started = Instant::now();
                let table = store.query(&query).expect("an answer");
                assert!(!table.rows.is_empty());
                started.elapsed().as_secs_f64() * 1_000.0
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let level = match store.query(&query).expect("an answer").level {
            Level::TenSeconds => "10s",
            Level::Minute => "1m",
            Level::Hour => "1h",
        };
        let name = format!("store_{name}[{level}]");
        report(&name, times[RUNS / 2], "ms", &Target::AtMost(200.0));
    }
}

/// What is done beside: health, and pruning, of which one call holds up commits.
fn upkeep(store: &SqliteStore) {
    let milliseconds = |work: &dyn Fn()| {
        let mut times: Vec<f64> = (0..RUNS)
            .map(|_| {
                let started = Instant::now();
                work();
                started.elapsed().as_secs_f64() * 1_000.0
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let health = milliseconds(&|| assert!(store.health().expect("an answer").edges > Some(0)));
    report("store_health", health[RUNS / 2], "ms", &Target::AtMost(500.0));
    let prune = milliseconds(&|| {
        let pruned = store.prune(START + 2 * DAY).expect("rows can be deleted");
        assert!(pruned.rows[0] > 0);
    });
    report("store_prune_call_longest", prune[RUNS - 1], "ms", &Target::AtMost(200.0));
}

#[derive(Default)]
struct Taken {
    rows: u64,
    wall: Duration,
    cpu: Duration,
}

impl Taken {
    fn per_cpu_second(&self) -> f64 {
        precise(self.rows) / self.cpu.as_secs_f64()
    }
}

/// Commits a day of `rows` rows, in batches of at least `per_commit` rows. Only the commits are
/// timed.
fn fill(store: &SqliteStore, rows: u64, per_commit: usize) -> Taken {
    let mut taken = Taken::default();
    for (sequence, part) in (1..).zip(Day::new(START, rows).in_parts(per_commit)) {
        let batch = CommitBatch {
            node: "bench",
            id: BatchId { epoch: Epoch(1), sequence },
            digest: Digest(sequence.into()),
            end_seconds: part.end_seconds,
            flows: &part.flows,
            gaps: &[],
            counters: &[],
            records: &[],
            wall_offset: 0,
        };
        let (wall, cpu) = (Instant::now(), cpu_time());
        let outcomes = store.commit(&[batch]).expect("the disk has room");
        taken.cpu += cpu_time().saturating_sub(cpu);
        taken.wall += wall.elapsed();
        assert_eq!(outcomes, [Outcome::Committed]);
        taken.rows += part.flows.levels[0].len() as u64;
    }
    taken
}

/// CPU time of this process, user and system.
fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    #[expect(unsafe_code, reason = "the standard library cannot ask for CPU time")]
    // SAFETY: `usage` has room for what getrusage(2) writes and lives until it returns.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    assert_eq!(result, 0, "getrusage(2) of the own process cannot fail");
    #[expect(unsafe_code, reason = "the standard library cannot ask for CPU time")]
    // SAFETY: getrusage(2) returned 0, so it filled the whole structure.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^53")]
fn precise(number: u64) -> f64 {
    number as f64
}
