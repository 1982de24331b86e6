//! How fast ClickHouse takes flows from weir, how small it keeps them beside kubenetmon's table for
//! the same traffic, and how soon it answers beside SQL written by hand.
//!
//! One line a figure: `NAME VALUE UNIT target OP X ok|short`. The engine is chdb's behind a small
//! stand-in for the server ([`weir_lab::clickhouse`]), whose own cost is printed apart. The traffic
//! is made up. `WEIR_BENCH_ROWS` sets how many rows of the finest level the queries meet.

mod traffic;

use std::io::Write as _;
use std::time::{Duration, Instant};

use traffic::{Report, SECONDS, START};
use weir_flow::kubenetmon::Settings;
use weir_flow::{BatchId, Digest, Epoch, Field, Filter};
use weir_lab::clickhouse::{Database, Engine};
use weir_store::{
    ClickHouseOptions, ClickHouseStore, CommitBatch, FlowQuery, FlowStore as _, KubenetmonTable,
    Limits, Measure, Order, Outcome, Table,
};

const RUNS: usize = 9;
const TOLD: &str = "the engine answers";
/// Batches in one commit.
const AT_ONCE: usize = 50;

fn main() {
    let rows = std::env::var("WEIR_BENCH_ROWS")
        .map_or(10_000_000, |rows| rows.parse().expect("WEIR_BENCH_ROWS is a number of rows"));
    let engine = Engine::own().expect("the engine starts (see docs/develop.md)");
    let reports = traffic::reports();
    let database = engine.name();
    let store = open(&database, None);
    let (stored, seconds) = inserts(&engine, &database, &store, &reports);
    larger_batches(&engine, &reports);
    beside_kubenetmon(&engine, &database, &reports, seconds);
    grow(&database, stored, rows);
    queries(&store, &database);
}

enum Target {
    AtMost(f64),
    /// A figure to read the others by.
    None,
}

fn report(name: &str, value: f64, unit: &str, target: &Target) {
    let verdict = |met| if met { "ok" } else { "short" };
    let target = match *target {
        Target::AtMost(bound) => format!(" target <= {bound} {}", verdict(value <= bound)),
        Target::None => String::new(),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{name} {value:.2} {unit}{target}").expect("somebody reads the figures");
}

fn open(database: &Database, kubenetmon: Option<KubenetmonTable>) -> ClickHouseStore {
    let limits = Limits { query_seconds: 600, ..Limits::default() };
    ClickHouseStore::open(ClickHouseOptions {
        kubenetmon,
        limits,
        expire: false,
        timeout: Duration::from_mins(10),
        ..ClickHouseOptions::new(database.engine().url(), database.name())
    })
    .expect("a fresh database can hold a store")
}

/// Commits all reports, each node in an epoch of its own.
fn commit(store: &ClickHouseStore, reports: &[Report]) {
    let epoch = |node: &str| Epoch(node.bytes().fold(1, |id, byte| id << 3 ^ u128::from(byte)));
    let batches: Vec<CommitBatch<'_>> = reports
        .iter()
        .map(|report| CommitBatch {
            node: &report.node,
            id: BatchId { epoch: epoch(&report.node), sequence: report.sequence },
            digest: Digest(report.sequence.into()),
            end_seconds: report.end_seconds,
            flows: &report.flows,
            gaps: &[],
            counters: &[],
            records: &report.records,
            wall_offset: 0,
        })
        .collect();
    for batches in batches.chunks(AT_ONCE) {
        let outcomes = store.commit(batches).expect("the disk has room");
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Committed), "{outcomes:?}");
    }
}

/// Takes the reports; gives the rows of the finest level, and the engine's CPU-seconds.
fn inserts(
    engine: &Engine,
    database: &Database,
    store: &ClickHouseStore,
    reports: &[Report],
) -> (u64, f64) {
    let (before, own, wall) = (engine.cost().expect(TOLD), cpu_time(), Instant::now());
    commit(store, reports);
    let (after, wall) = (engine.cost().expect(TOLD), wall.elapsed());
    let own = cpu_time().saturating_sub(own);
    let rows = count(database, "SELECT count() FROM flow_10s WHERE is_batch = 0");
    let of_engine = after.engine_cpu_seconds - before.engine_cpu_seconds;
    let rate = |seconds: f64| precise(rows) / seconds;
    let per_batch = precise(rows) / precise(reports.len() as u64);
    report("clickhouse_rows_per_batch", per_batch, "rows", &Target::None);
    report("clickhouse_insert_weir_cpu", rate(own.as_secs_f64()), "rows/cpu-s", &Target::None);
    report("clickhouse_insert_engine_cpu", rate(of_engine), "rows/cpu-s", &Target::None);
    report("clickhouse_insert_wall", rate(wall.as_secs_f64()), "rows/s", &Target::None);
    let server = after.server_cpu_seconds - before.server_cpu_seconds;
    report("clickhouse_insert_test_server_cpu", server, "s, not in the above", &Target::None);
    (rows, of_engine)
}

/// The same flows in few batches, as larger nodes send them.
fn larger_batches(engine: &Engine, reports: &[Report]) {
    let database = engine.name();
    let store = open(&database, None);
    let larger: Vec<Report> =
        reports.chunks(AT_ONCE).zip(1..).map(|(some, n)| traffic::merged(some, n)).collect();
    let before = engine.cost().expect(TOLD);
    commit(&store, &larger);
    let seconds = engine.cost().expect(TOLD).engine_cpu_seconds - before.engine_cpu_seconds;
    let rows = precise(count(&database, "SELECT count() FROM flow_10s WHERE is_batch = 0"));
    let batches = precise(larger.len() as u64);
    report("clickhouse_rows_per_larger_batch", rows / batches, "rows", &Target::None);
    report("clickhouse_insert_larger_engine_cpu", rows / seconds, "rows/cpu-s", &Target::None);
}

/// The same traffic once more, with kubenetmon's table besides.
/// `seconds`: the engine's CPU time without it.
fn beside_kubenetmon(engine: &Engine, database: &Database, reports: &[Report], seconds: f64) {
    let other = engine.name();
    let name = "network_flows_0";
    let settings = Settings {
        environment: "production".into(),
        cloud: "aws".into(),
        region: "eu-west-1".into(),
        cluster: "bench".into(),
        ignore_udp: false,
        flags: Vec::new(),
    };
    let table =
        KubenetmonTable { database: other.name().to_owned(), table: name.to_owned(), settings };
    let store = open(&other, Some(table));
    let before = engine.cost().expect(TOLD);
    commit(&store, reports);
    let both = engine.cost().expect(TOLD).engine_cpu_seconds - before.engine_cpu_seconds;
    let per_batch = 1_000.0 / precise(reports.len() as u64);
    report("clickhouse_insert_a_batch", seconds * per_batch, "cpu-ms", &Target::None);
    let alone = (both - seconds) * per_batch;
    report("kubenetmon_insert_a_batch", alone, "cpu-ms, the difference", &Target::None);
    let theirs = size(&other, name);
    for (name, flows_only) in
        [("flow_10s", " WHERE is_batch = 0"), ("flow_1m", ""), ("flow_1h", "")]
    {
        let ours = size(database, name);
        let rows = count(database, &format!("SELECT count() FROM {name}{flows_only}"));
        let is_fine = name != "flow_1h";
        let at_most = |bound, is_asked| if is_asked { Target::AtMost(bound) } else { Target::None };
        let ratio = precise(rows) / precise(theirs.rows);
        report(&format!("{name}_rows_over_kubenetmon"), ratio, "x", &at_most(0.5, is_fine));
        let ratio = ours.bytes / theirs.bytes;
        report(&format!("{name}_bytes_over_kubenetmon"), ratio, "x", &Target::None);
        let row = ours.bytes / precise(rows);
        report(&format!("{name}_bytes_per_row"), row, "B", &at_most(40.0, is_fine));
    }
    report("kubenetmon_bytes_per_row", theirs.bytes / precise(theirs.rows), "B", &Target::None);
}

struct Size {
    rows: u64,
    bytes: f64,
}

/// A table's rows and compressed bytes once everything is merged.
fn size(database: &Database, table: &str) -> Size {
    database.run(&format!("OPTIMIZE TABLE {table} FINAL")).expect(TOLD);
    let of_parts = |what: &str| {
        count(
            database,
            &format!(
                "SELECT sum({what}) FROM system.parts \
                 WHERE active AND database = '{}' AND table = '{table}'",
                database.name()
            ),
        )
    };
    Size { rows: of_parts("rows"), bytes: precise(of_parts("data_compressed_bytes")) }
}

fn count(database: &Database, sql: &str) -> u64 {
    database.run(sql).expect(TOLD).trim().parse().expect("one number")
}

/// Copies of the ten minutes before them, until there are as many rows: up to a day.
fn grow(database: &Database, stored: u64, rows: u64) {
    let copies = rows.div_ceil(stored).min(86_400 / SECONDS) - 1;
    // The views fold what arrives.
    let sql = format!(
        "INSERT INTO flow_10s SELECT * REPLACE(window - toIntervalSecond(copy * {SECONDS}) AS window) \
         EXCEPT copy FROM (SELECT flows.*, copies.number + 1 AS copy FROM flow_10s AS flows \
         CROSS JOIN numbers({copies}) AS copies WHERE is_batch = 0)"
    );
    let started = Instant::now();
    database.run(&sql).expect(TOLD);
    let seconds = started.elapsed().as_secs_f64();
    report("clickhouse_filled", precise(stored * (copies + 1)), "rows", &Target::None);
    report("clickhouse_filled_in", seconds, "s", &Target::None);
}

/// The limits that weir's statements bear, so that both ways to ask do the same. The test server
/// sets and takes back settings in statements of their own.
const LIMITS: [(&str, &str); 4] = [
    ("max_execution_time", "600"),
    ("max_rows_to_group_by", "1000000"),
    ("group_by_overflow_mode", "throw"),
    ("timeout_overflow_mode", "throw"),
];

/// A question, and what somebody would write who knows the tables.
struct Asked {
    name: &'static str,
    query: FlowQuery,
    by_hand: String,
}

fn queries(store: &ClickHouseStore, database: &Database) {
    let one = |settings: &[(&str, &str)]| {
        let run = || drop(database.run_with("SELECT 1", settings).expect(TOLD));
        median((0..RUNS * 5).map(|_| milliseconds(run)).collect())
    };
    report("test_server_one_statement", one(&[]), "ms", &Target::None);
    report("test_server_one_statement_with_limits", one(&LIMITS), "ms", &Target::None);
    for Asked { name, query, by_hand } in asked() {
        let table = store.query(&query).expect(TOLD);
        let text = database.run(&by_hand).expect(TOLD);
        assert_eq!(text.lines().count(), table.rows.len(), "{name}: {by_hand}");
        assert_eq!(sum_of_text(&text), sum_of_table(&table), "{name}: {by_hand}");
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..RUNS {
            ours.push(milliseconds(|| drop(store.query(&query).expect(TOLD))));
            let by_hand = || drop(database.run_with(&by_hand, &LIMITS).expect(TOLD));
            theirs.push(milliseconds(by_hand));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let level = table.level.seconds();
        report(&format!("clickhouse_{name}[{level}s]"), ours, "ms", &Target::None);
        report(&format!("clickhouse_{name}_by_hand"), theirs, "ms", &Target::None);
        let name = format!("clickhouse_{name}_over_by_hand");
        report(&name, ours / theirs, "x", &Target::AtMost(1.1));
    }
}

/// When the traffic ends.
const END: u64 = START + SECONDS;
/// Whole hours, and the ten minutes after them.
const DAY: u64 = 23 * 3_600 + SECONDS;
const BYTES: &str = "sum(bytes_sent + bytes_received) AS bytes";

fn top(seconds: u64, by: &str, limit: usize) -> FlowQuery {
    FlowQuery {
        range: END - seconds..END,
        filter: Filter::All,
        group_by: by.split(',').map(|name| Field::parse(name).expect("a field")).collect(),
        bucket_seconds: None,
        measures: vec![Measure::Bytes],
        order: Order::Measure(Measure::Bytes),
        limit: Some(limit),
    }
}

fn between(start: u64, end: u64) -> String {
    format!("window >= toDateTime({start}, 'UTC') AND window < toDateTime({end}, 'UTC')")
}

/// Whole hours first, and the last ten minutes from the level that has them.
fn of_a_day(columns: &str) -> String {
    format!(
        "(SELECT {columns} FROM flow_1h WHERE {} UNION ALL SELECT {columns} FROM flow_1m WHERE {})",
        between(END - DAY, END - SECONDS),
        between(END - SECONDS, END)
    )
}

fn asked() -> Vec<Asked> {
    let pod = traffic::busy_pod();
    let peers = Filter::parse(&format!("source.id = \"{pod}\"")).expect("a filter");
    let last = between(END - SECONDS, END);
    vec![
        Asked {
            name: "top_workloads_10m",
            query: top(SECONDS, "source.owner_id,destination.owner_id", 20),
            by_hand: format!(
                "SELECT src_owner_id, dst_owner_id, {BYTES} FROM flow_1m WHERE {last} \
                 GROUP BY 1, 2 ORDER BY bytes DESC, 1, 2 LIMIT 20"
            ),
        },
        Asked {
            name: "top_workloads_24h",
            query: top(DAY, "source.owner_id,destination.owner_id", 20),
            by_hand: format!(
                "SELECT src_owner_id, dst_owner_id, {BYTES} FROM {} \
                 GROUP BY 1, 2 ORDER BY bytes DESC, 1, 2 LIMIT 20",
                of_a_day("src_owner_id, dst_owner_id, bytes_sent, bytes_received")
            ),
        },
        Asked {
            name: "class_by_minute_24h",
            query: FlowQuery {
                bucket_seconds: Some(60),
                order: Order::Keys,
                ..top(DAY, "class", 100_000)
            },
            by_hand: format!(
                "SELECT toStartOfMinute(window) AS minute, class, {BYTES} FROM flow_1m WHERE {} \
                 GROUP BY 1, 2 ORDER BY 1, 2",
                between(END - DAY, END)
            ),
        },
        Asked {
            name: "peers_of_a_pod_24h",
            query: FlowQuery { filter: peers, ..top(DAY, "destination.id", 100) },
            by_hand: format!(
                "SELECT dst_id, {BYTES} FROM {} WHERE src_id = '{pod}' \
                 GROUP BY 1 ORDER BY bytes DESC, 1 LIMIT 100",
                of_a_day("src_id, dst_id, bytes_sent, bytes_received")
            ),
        },
        Asked {
            name: "flows_page_10m",
            query: top(SECONDS, "source.id,destination.id,destination.port,protocol,class", 200),
            by_hand: format!(
                "SELECT src_id, dst_id, destination_port, protocol, class, {BYTES} FROM flow_1m \
                 WHERE {last} GROUP BY 1, 2, 3, 4, 5 ORDER BY bytes DESC, 1, 2, 3, 4, 5 LIMIT 200"
            ),
        },
    ]
}

/// The last column, summed.
fn sum_of_text(text: &str) -> u64 {
    let last = |line: &str| line.rsplit('\t').next().and_then(|cell| cell.parse().ok());
    text.lines().map(|line| last(line).unwrap_or(0)).sum()
}

fn sum_of_table(table: &Table) -> u64 {
    table.rows.iter().filter_map(|row| row.last()?.sum()).sum()
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64() * 1_000.0
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
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
