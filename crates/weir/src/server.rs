//! `weir server`: takes what agents read, names it, keeps it and answers, until stopped.

mod config;
mod metrics;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use weir_agent::clock;
use weir_flow::cluster::Update;
use weir_server::cluster::{self, Reviewer, Watched};
use weir_server::query::{Board, Query};
use weir_server::ranges::{Keeper, Settings, Urls};
use weir_server::wire::{self, Credentials, Identify, Queue, QueueLimits, QueueThread, WireLimits};
use weir_server::{Clock, Ingest, Live, api, health};
use weir_store::{FlowStore, Limits, Options, SqliteStore};

use self::metrics::Vitals;
use crate::args::Listen;
use crate::say::{self, say};
use crate::signals;

pub(crate) use self::config::{Config, EXAMPLE, print, resolve};

/// Between two looks at the signals.
const LOOK: Duration = Duration::from_millis(100);
/// Between two clean-ups of the store.
const PRUNE_EVERY: Duration = Duration::from_secs(30);
/// Agents are let in once the cluster is known, or after this time: they keep what they read, and
/// what is named by a directory that knows nothing yet is named badly for ever.
const DIRECTORY_PATIENCE: Duration = Duration::from_mins(1);
/// How often certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);

/// Runs until a signal ends it.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    say::log();
    let stopping = signals::stop()?;
    let parts = Parts::open(config)?;
    let vitals = parts.vitals();
    let clock: Clock = Arc::new(clock::wall);
    // Health first: whoever restarts what does not answer should not do it while the rest starts.
    let _health = match config.metrics {
        Listen::Off => None,
        Listen::At(address) => Some(
            health::start(address, Arc::clone(&vitals) as Arc<dyn health::Health>, clock)
                .with_context(|| format!("answer for health and metrics on {address}"))?,
        ),
    };
    let api = parts.open_api(config)?;
    parts.wait_for_directory(config, &stopping);
    let wire = parts.open_wire(config)?;
    say(&format!("agents deliver to {}", wire.address));
    vitals.opened(wire.counts());

    let mut pruned = Instant::now();
    while !stopping.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        if pruned.elapsed() >= PRUNE_EVERY {
            pruned = Instant::now();
            parts.prune(&stopping);
        }
    }
    vitals.closing();
    wire.stop();
    parts.close(&vitals);
    drop(api);
    say("stopped; everything that was answered is stored");
    Ok(())
}

/// Everything that runs beside the wire.
struct Parts {
    store: Arc<SqliteStore>,
    query: Arc<Query>,
    board: Arc<Board>,
    watched: Arc<Watched>,
    queue: Queue,
    thread: QueueThread,
    runtime: Runtime,
    reviewer: Option<Arc<dyn Identify>>,
    stop_ranges: oneshot::Sender<()>,
}

impl Parts {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let options = Options { retention: config.retention, limits: Limits::default() };
        let store = Arc::new(SqliteStore::open(&config.data_dir, options)?);
        let shared = || Arc::clone(&store) as Arc<dyn FlowStore>;
        let clock: Clock = Arc::new(clock::wall);
        let board = Arc::new(Board::new(Some(config.data_dir.display().to_string())));
        let watched = Arc::new(watch(config, shared(), &clock)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("weir-server")
            .enable_all()
            .build()
            .context("start the server's threads")?;
        let reviewer = reviewer(config, &watched, &runtime)?;
        let stop_ranges = keep_ranges(config, &watched, &runtime);

        let live = Arc::new(Live::default());
        let query = Query::new(shared(), Arc::clone(&live), Arc::clone(&board), Arc::clone(&clock));
        let query = Arc::new(query);
        let ingest = Ingest::new(shared(), Arc::clone(&watched))
            .context("read what the store has committed")?
            .with_live(live);
        let asked = Arc::clone(&query);
        let committed = Box::new(move || asked.store_changed());
        let (queue, thread) = Queue::start(ingest, QueueLimits::default(), clock, committed)
            .context("start the thread that takes batches")?;
        Ok(Self { store, query, board, watched, queue, thread, runtime, reviewer, stop_ranges })
    }

    fn vitals(&self) -> Arc<Vitals> {
        let store = Arc::clone(&self.store) as Arc<dyn FlowStore>;
        let (watched, board) = (Arc::clone(&self.watched), Arc::clone(&self.board));
        Arc::new(Vitals::new(self.queue.clone(), watched, board, store))
    }

    /// Opens the API.
    fn open_api(&self, config: &Config) -> anyhow::Result<Option<api::Running>> {
        let Listen::At(address) = config.listen else { return Ok(None) };
        let options = api::Options {
            allowed_hosts: config.allow_host.clone(),
            ..api::Options::new(Arc::new(clock::wall), self.query.changes())
        };
        let answers = Arc::clone(&self.query);
        let running = api::start(&[address], answers, &options).with_context(|| {
            format!(
                "open the HTTP API on {address} (another weir may run: choose another with \
                 --listen, or --listen none)"
            )
        })?;
        for address in &running.addresses {
            say(&format!("API: http://{address}/api/v1 (and watch: weir top http://{address})"));
        }
        Ok(Some(running))
    }

    fn wait_for_directory(&self, config: &Config, stopping: &AtomicBool) {
        if config.kubernetes.is_none() {
            return;
        }
        let heard = self.watched.heard();
        let begun = Instant::now();
        while !heard.borrow().is_synced && !stopping.load(Ordering::Relaxed) {
            if begun.elapsed() > DIRECTORY_PATIENCE {
                let trouble = self.watched.resources().into_iter().find_map(|it| it.error);
                say(&format!(
                    "warning: the cluster is not known yet ({}); agents are let in, and ends that \
                     stay unknown are declared",
                    trouble.unwrap_or_else(|| "no word from the Kubernetes API".to_owned())
                ));
                return;
            }
            thread::sleep(LOOK);
        }
    }

    fn open_wire(&self, config: &Config) -> anyhow::Result<wire::Running> {
        let credentials = match &config.tls {
            Some(_) => Credentials::Asked { tokens: self.reviewer.clone() },
            None => Credentials::NotAsked,
        };
        Ok(wire::start(wire::Options {
            address: config.ingest,
            tls: config.tls.clone(),
            credentials,
            queue: self.queue.clone(),
            store: Arc::clone(&self.store) as Arc<dyn FlowStore>,
            announce: Arc::clone(&self.watched) as Arc<dyn wire::Announce>,
            board: Arc::clone(&self.board),
            clock: Arc::new(clock::wall),
            limits: WireLimits::default(),
            certificates_every: CERTIFICATES_EVERY,
        })?)
    }

    /// Deletes what is past its time, some at a time so that batches get in between.
    fn prune(&self, stopping: &AtomicBool) {
        let now = clock::wall().seconds();
        loop {
            match self.store.prune(now) {
                Ok(pruned) if pruned.more && !stopping.load(Ordering::Relaxed) => {}
                Ok(_) => return,
                Err(error) => {
                    return tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "old flows stay for now"
                    );
                }
            }
        }
    }

    /// Takes what waits and ends everything.
    fn close(self, vitals: &Vitals) {
        let Self { queue, thread, stop_ranges, runtime, .. } = self;
        vitals.let_go();
        queue.close();
        thread.join();
        drop(stop_ranges);
        runtime.shutdown_timeout(Duration::from_secs(2));
    }
}

/// The cluster's book, and the watches that feed it where there is Kubernetes.
fn watch(config: &Config, store: Arc<dyn FlowStore>, clock: &Clock) -> anyhow::Result<Watched> {
    let book = weir_flow::cluster::Config {
        networks: config.networks.clone(),
        region: config.region.clone(),
        ..weir_flow::cluster::Config::default()
    };
    let rules = config.rules.clone();
    let watching = cluster::Config { book, rules, ..cluster::Config::default() };
    let mut watched = Watched::open(watching, Some(store), Arc::clone(clock))?;
    match &config.kubernetes {
        Some(access) => watched.watch(access.clone())?,
        // Nobody else will tell of anybody: what agents do not announce is not inside.
        None => watched.apply(Update::Synced { at: clock::wall() }),
    }
    Ok(watched)
}

fn reviewer(
    config: &Config,
    watched: &Arc<Watched>,
    runtime: &Runtime,
) -> anyhow::Result<Option<Arc<dyn Identify>>> {
    let Some(access) = &config.kubernetes else { return Ok(None) };
    let connect = Reviewer::connect(access, Arc::clone(watched), config.reviewer.clone());
    Ok(Some(Arc::new(runtime.block_on(connect)?)))
}

/// Names addresses outside the cluster, and keeps the names up to date.
fn keep_ranges(config: &Config, watched: &Arc<Watched>, runtime: &Runtime) -> oneshot::Sender<()> {
    let _entered = runtime.enter();
    let settings = Settings {
        cache: Some(config.data_dir.join("ranges")),
        dir: config.ranges_dir.clone(),
        own: config.own_ranges.clone(),
    };
    let (keeper, ranges) = Keeper::open(settings, config.range_refresh.then(Urls::default));
    watched.set_ranges(ranges);
    let (stop, stopped) = oneshot::channel();
    let watched = Arc::clone(watched);
    // Told to stop, or forgotten: the same here.
    let stopped = async { drop(stopped.await) };
    runtime.spawn(keeper.keep(stopped, move |ranges| watched.set_ranges(ranges)));
    stop
}
