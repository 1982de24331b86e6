//! How fast the embedded store takes flows, how small it keeps them, how soon it answers.
//!
//! One line a figure: `NAME VALUE UNIT target OP X ok|short`. The traffic is made up, from a fixed
//! seed: a day of sessions between 2,000 local endpoints and 3,000 external addresses, with a few
//! busy and many quiet ones. `WEIR_BENCH_ROWS` sets how many rows of the finest level the day has.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_flow::fold::{Flow, FlowKey};
use weir_flow::tuple::Protocol;
use weir_flow::{
    BatchId, Class, Digest, Endpoint, EndpointKind, Epoch, Field, Filter, Folded, Level, Measures,
};
use weir_store::{
    CommitBatch, FlowQuery, FlowStore as _, Measure, Options, Order, Outcome, Retention,
    SqliteStore,
};

/// 2026-11-19T12:23:40Z: neither end of the day is a whole minute of an hour.
const START: u64 = 1_795_091_020;
const DAY: u64 = 86_400;
const WINDOWS: u64 = DAY / 10;
const LOCALS: u32 = 2_000;
const EXTERNALS: u32 = 3_000;
const HOSTS: u32 = 120;
const UNITS: u32 = 300;
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
    let health = milliseconds(&|| assert!(store.health().expect("an answer").edges > 0));
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

/// Commits a day of `rows` rows, in batches of whole windows and at least `per_commit` rows that
/// do not cross an hour. Only the commits are timed.
fn fill(store: &SqliteStore, rows: u64, per_commit: usize) -> Taken {
    let mut traffic = Traffic::new(rows / WINDOWS + 1);
    let endpoints: Vec<Arc<Endpoint>> =
        (0..LOCALS + EXTERNALS).map(endpoint).map(Arc::new).collect();
    let mut taken = Taken::default();
    let mut sequence = 0;
    let mut finest = Vec::new();
    for window in 0..WINDOWS {
        let start = START + window * 10;
        traffic.window(start, &mut finest);
        let hour_ends = (start + 10).is_multiple_of(3_600);
        if finest.len() < per_commit && !hour_ends && window + 1 < WINDOWS {
            continue;
        }
        if finest.is_empty() {
            continue;
        }
        sequence += 1;
        let flows = folded(&endpoints, std::mem::take(&mut finest));
        let batch = CommitBatch {
            node: "bench",
            id: BatchId { epoch: Epoch(1), sequence },
            digest: Digest(sequence.into()),
            end_seconds: start + 10,
            flows: &flows,
            gaps: &[],
            counters: &[],
        };
        let (wall, cpu) = (Instant::now(), cpu_time());
        let outcomes = store.commit(&[batch]).expect("the disk has room");
        taken.cpu += cpu_time().saturating_sub(cpu);
        taken.wall += wall.elapsed();
        assert_eq!(outcomes, [Outcome::Committed]);
        taken.rows += flows.levels[0].len() as u64;
        if taken.rows >= rows {
            break;
        }
    }
    taken
}

/// The flows with the endpoints they name, and no others, as batches have them.
fn folded(all: &[Arc<Endpoint>], mut finest: Vec<Flow>) -> Folded {
    let mut indices: BTreeMap<u32, u32> = BTreeMap::new();
    let mut endpoints = Vec::new();
    let mut index = |number: u32| {
        *indices.entry(number).or_insert_with(|| {
            endpoints.push(Arc::clone(&all[number as usize]));
            u32::try_from(endpoints.len() - 1).expect("thousands of endpoints")
        })
    };
    for flow in &mut finest {
        flow.key.source = index(flow.key.source);
        flow.key.destination = index(flow.key.destination);
    }
    finest.sort_unstable_by_key(|flow| flow.key);
    let coarser = |level: Level| {
        let mut sums: BTreeMap<FlowKey, Measures> = BTreeMap::new();
        for flow in &finest {
            let window = flow.key.window - flow.key.window % level.seconds();
            *sums.entry(FlowKey { window, ..flow.key }).or_default() += flow.measures;
        }
        sums.into_iter().map(|(key, measures)| Flow { key, measures }).collect()
    };
    let (minute, hour) = (coarser(Level::Minute), coarser(Level::Hour));
    Folded { endpoints, levels: [finest, minute, hour], ..Folded::default() }
}

fn endpoint(index: u32) -> Endpoint {
    if index >= LOCALS {
        let address = Ipv4Addr::from(0xc633_0000 + (index - LOCALS) * 7);
        return Endpoint::bare(EndpointKind::External, IpAddr::V4(address));
    }
    let mut local =
        Endpoint::bare(EndpointKind::Host, IpAddr::V4(Ipv4Addr::from(0x0af4_0000 + index * 3)));
    local.host = Some(format!("node-{}", index % HOSTS).into());
    local.unit = Some(format!("app-{}.service", index * 7 % UNITS).into());
    local
}

/// Sessions that come and go.
struct Traffic {
    random: u64,
    per_window: u64,
    /// Flow keys at work, with the windows they still have.
    active: BTreeMap<(u32, u32, u16), u32>,
}

impl Traffic {
    fn new(per_window: u64) -> Self {
        Self { random: 0x5eed, per_window, active: BTreeMap::new() }
    }

    /// The flows of the next window, in the order of their keys.
    fn window(&mut self, window: u64, flows: &mut Vec<Flow>) {
        while (self.active.len() as u64) < self.per_window {
            let (key, windows) = self.session();
            self.active.entry(key).or_insert(windows);
        }
        let mut active = std::mem::take(&mut self.active);
        active.retain(|&(source, destination, destination_port), left| {
            let key = FlowKey {
                window,
                protocol: if destination_port == 53 { Protocol::UDP } else { Protocol::TCP },
                source,
                destination,
                destination_port,
                service: (destination % 3 == 0 && destination < LOCALS)
                    .then(|| (Ipv4Addr::from(0x0a60_0000 + destination % 200).into(), 80)),
                class: match (destination < LOCALS, source % HOSTS == destination % HOSTS) {
                    (false, _) => Class::Internet,
                    (true, true) => Class::SameNode,
                    (true, false) => Class::IntraVpc,
                },
            };
            let measures = self.measures(*left);
            flows.push(Flow { key, measures });
            *left -= 1;
            *left > 0
        });
        self.active = active;
    }

    /// A new session: who talks to whom, and for how many windows.
    fn session(&mut self) -> ((u32, u32, u16), u32) {
        let source = self.skewed(LOCALS);
        // Everybody has some forty peers, the same every time.
        let peer = u64::from(self.skewed(40)) << 32 | u64::from(source);
        let peer = mixed(peer);
        let number = u32::try_from(peer >> 32).expect("32 bits are left");
        let (destination, port) = match peer % 100 {
            0..20 => (LOCALS + number % EXTERNALS, 443),
            20..30 => (number % 8, 53),
            _ => (number % LOCALS, [80, 443, 5_432, 6_379, 8_080, 9_092][(peer % 6) as usize]),
        };
        // A third are over at once; the others last minutes.
        let windows = match self.next() % 3 {
            0 => 1,
            _ => 2 + self.skewed(60),
        };
        ((source, destination, port), windows)
    }

    fn measures(&mut self, left: u32) -> Measures {
        let size = 64_u64 << (self.next() % 15);
        let (sent, received) = (size + self.next() % size, size * 3 + self.next() % (size * 2));
        let random = self.next();
        Measures {
            bytes_sent: sent,
            bytes_received: received,
            packets_sent: 1 + sent / 700,
            packets_received: 1 + received / 1_200,
            connections_opened: random % 3,
            connections_closed: if left == 1 { 1 + random % 3 } else { random % 2 },
            connections_failed: u64::from(random.is_multiple_of(50)),
            ..Measures::default()
        }
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.random)
    }

    /// Below `bound`, the small ones far more often: even on a scale of powers.
    fn skewed(&mut self, bound: u32) -> u32 {
        let bits = u64::from(bound.ilog2()) + 1;
        let below = 2_u64 << (self.next() % bits);
        u32::try_from(self.next() % below.min(u64::from(bound))).expect("below a 32-bit bound")
    }
}

/// The finaliser of `SplitMix64`.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
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
