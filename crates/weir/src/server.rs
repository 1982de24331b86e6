//! `weir server`: takes what agents read, names it, keeps it and answers, until stopped.

mod care;
mod commands;
mod config;
mod kubenetmon;
mod metrics;
mod peers;
mod store;

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
use weir_server::peers::Local;
use weir_server::query::{Board, Query};
use weir_server::ranges::{Keeper, Settings, Urls};
use weir_server::wire::{self, Credentials, Identify, Queue, QueueLimits, QueueThread, WireLimits};
use weir_server::{Clock, Ingest, Live, StoreState, api, health};
use weir_store::FlowStore;

use self::care::Care;
use self::metrics::{Sources, Vitals};
use crate::args::Listen;
use crate::say::{self, say};
use crate::signals;

pub(crate) use self::commands::run as act;
pub(crate) use self::config::{Config, EXAMPLE, Resolved, print, resolve};
pub(crate) use self::store::is_elsewhere;

/// Between two looks at the signals.
const LOOK: Duration = Duration::from_millis(100);
/// Agents are let in once the cluster is known, or after this time: they keep what they read, and
/// what is named by a directory that knows nothing yet is named badly for ever.
const DIRECTORY_PATIENCE: Duration = Duration::from_mins(1);
/// How often certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);

/// Runs until a signal ends it.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    say::log();
    let stopping = signals::stop()?;
    let clock: Clock = Arc::new(clock::wall);
    let state = Arc::new(StoreState::new(Arc::clone(&clock)));
    let vitals = Arc::new(Vitals::new(Arc::clone(&state)));
    // Health first: whoever restarts what does not answer should not do it while the rest starts.
    let _health = match config.metrics {
        Listen::Off => None,
        Listen::At(address) => Some(
            health::start(address, Arc::clone(&vitals) as Arc<dyn health::Health>, clock)
                .with_context(|| format!("answer for health and metrics on {address}"))?,
        ),
    };
    let opened = store::patiently(&stopping, &state, || Parts::open(config, &state))?;
    let Some(parts) = opened else { return Ok(()) };
    vitals.opened(parts.sources());
    let api = parts.open_api(config)?;
    parts.wait_for_directory(config, &stopping);
    let opened = store::patiently(&stopping, &state, || parts.open_wire(config))?;
    if let Some(wire) = opened {
        say(&format!("agents deliver to {}", wire.address));
        vitals.let_in(wire.counts());
        let foreign = config.kubenetmon.as_ref();
        let foreign = kubenetmon::open(foreign, &parts.store, &parts.watched, &parts.board)?;
        while !stopping.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
        }
        vitals.closing();
        if let Some(foreign) = foreign {
            foreign.stop();
        }
        wire.stop();
    }
    parts.close(&vitals);
    drop(api);
    say("stopped; everything that was answered is stored");
    Ok(())
}

/// Everything that runs beside the wire.
struct Parts {
    store: Arc<dyn FlowStore>,
    care: Care,
    query: Arc<Query>,
    board: Arc<Board>,
    watched: Arc<Watched>,
    queue: Queue,
    thread: QueueThread,
    runtime: Runtime,
    reviewer: Option<Arc<dyn Identify>>,
    /// What other servers may ask for, where there are any.
    local: Option<Arc<Local>>,
    stop_ranges: oneshot::Sender<()>,
}

impl Parts {
    fn open(config: &Config, state: &Arc<StoreState>) -> anyhow::Result<Self> {
        let store = store::open(config, state)?;
        let clock: Clock = Arc::new(clock::wall);
        let board = Arc::new(Board::new(store::directory(config)));
        let watched = Arc::new(watch(config, Arc::clone(&store), &clock)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("weir-server")
            .enable_all()
            .build()
            .context("start the server's threads")?;
        let reviewer = reviewer(config, &watched, &runtime)?;
        let stop_ranges = keep_ranges(config, &watched, &runtime);

        let live = Arc::new(Live::default());
        let query = Query::new(
            Arc::clone(&store),
            Arc::clone(&live),
            Arc::clone(&board),
            Arc::clone(&clock),
        );
        let query = query.with_store_state(Arc::clone(state));
        let (query, local) = peers::open(config.peers.as_ref(), query, &live, &board, &clock)?;
        let query = Arc::new(query);
        let ingest = Ingest::new(Arc::clone(&store), Arc::clone(&watched))
            .context("read what the store has committed")?
            .with_live(live);
        let asked = Arc::clone(&query);
        let committed = Box::new(move || asked.store_changed());
        let (queue, thread) = Queue::start(ingest, QueueLimits::default(), clock, committed)
            .context("start the thread that takes batches")?;
        let care = Care::start(Arc::clone(&store)).context("start the thread of the store")?;
        Ok(Self {
            store,
            care,
            query,
            board,
            watched,
            queue,
            thread,
            runtime,
            reviewer,
            local,
            stop_ranges,
        })
    }

    fn sources(&self) -> Sources {
        Sources {
            queue: self.queue.clone(),
            watched: Arc::clone(&self.watched),
            board: Arc::clone(&self.board),
            store: Arc::clone(&self.store),
            health: self.care.health(),
        }
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
            store: Arc::clone(&self.store),
            announce: Arc::clone(&self.watched) as Arc<dyn wire::Announce>,
            board: Arc::clone(&self.board),
            clock: Arc::new(clock::wall),
            peers: self.local.clone(),
            limits: WireLimits::default(),
            certificates_every: CERTIFICATES_EVERY,
        })?)
    }

    /// Takes what waits and ends everything.
    fn close(self, vitals: &Vitals) {
        let Self { queue, thread, stop_ranges, runtime, care, .. } = self;
        vitals.let_go();
        care.stop();
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
