//! How the server is, for machines.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_agent::clock;
use weir_flow::{Resolution, Unresolved};
use weir_server::StoreState;
use weir_server::attended::Trouble;
use weir_server::cluster::Watched;
use weir_server::health::{Exposition, Health};
use weir_server::query::Board;
use weir_server::wire::{Counts, Denial, Malformation, Queue, TurnedAway};
use weir_store::FlowStore;

use super::care::LastHealth;
use super::kubenetmon;

/// A group of batches that takes longer than this is stuck: many times as long as a store that is
/// away lets it wait.
const STUCK: Duration = Duration::from_mins(10);

/// What the server's health is read from.
pub(super) struct Vitals {
    store: Arc<StoreState>,
    state: Mutex<State>,
}

/// What is there once the store is.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) queue: Queue,
    pub(super) watched: Arc<Watched>,
    pub(super) board: Arc<Board>,
    pub(super) store: Arc<dyn FlowStore>,
    /// How the store was when it was last asked.
    pub(super) health: LastHealth,
}

#[derive(Default)]
struct State {
    /// `None` until the store is there, and once the server ends: the queue ends with its last way
    /// in.
    sources: Option<Sources>,
    /// `None` until agents are let in.
    wire: Option<Arc<Counts>>,
    is_closing: bool,
}

impl Vitals {
    pub(super) fn new(store: Arc<StoreState>) -> Self {
        Self { store, state: Mutex::default() }
    }

    /// The store is there, and everything behind it.
    pub(super) fn opened(&self, sources: Sources) {
        self.state().sources = Some(sources);
    }

    /// Agents are let in.
    pub(super) fn let_in(&self, wire: Arc<Counts>) {
        self.state().wire = Some(wire);
    }

    /// They are not any more.
    pub(super) fn closing(&self) {
        self.state().is_closing = true;
    }

    /// Holds nothing open.
    pub(super) fn let_go(&self) {
        self.state().sources = None;
    }

    fn sources(&self) -> Option<Sources> {
        self.state().sources.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ingest(queue: &Queue, exposition: &mut Exposition) {
        let report = queue.report();
        let counts = report.counts;
        exposition.counters(
            "weir_ingest_batches_total",
            "Batches by what became of them.",
            "outcome",
            [
                ("committed", counts.committed),
                ("known", counts.known),
                ("refused", counts.refused),
                ("retried", counts.retried),
            ],
        );
        exposition.counter(
            "weir_ingest_commits_total",
            "Transactions in which batches were committed.",
            report.commits,
        );
        exposition.counter(
            "weir_ingest_future_batches_total",
            "Batches whose clock ran ahead by more than two minutes.",
            counts.future,
        );
        exposition.counter(
            "weir_ingest_waited_batches_total",
            "Times a batch was sent back until the directory knows more.",
            counts.waited,
        );
        exposition.counters(
            "weir_ingest_uncounted_records_total",
            "Records that are in no total, by reason.",
            "reason",
            [
                ("second_view", counts.second_views),
                ("foreign_view", counts.foreign_views),
                ("undecided", counts.undecided),
            ],
        );
        exposition.counters(
            "weir_ingest_unbilled_bytes_total",
            "Bytes of records that should be in a total and are not, by reason.",
            "reason",
            [("foreign_view", counts.foreign_bytes), ("undecided", counts.undecided_bytes)],
        );
        exposition.counter(
            "weir_ingest_folded_keys_total",
            "Flow keys folded because a batch held too many.",
            counts.folded_keys,
        );
        exposition.gauge(
            "weir_ingest_queue_free_bytes",
            "Bytes of frames that may still wait.",
            Some(as_f64(queue.free_bytes())),
        );
    }

    fn wire(&self, exposition: &mut Exposition) {
        let Some(wire) = self.state().wire.clone() else { return };
        exposition.counters(
            "weir_ingest_denied_total",
            "Times that somebody was not let in, by reason.",
            "reason",
            Denial::ALL.map(|reason| (reason.name(), wire.denied(reason))),
        );
        exposition.counters(
            "weir_ingest_turned_away_total",
            "Connections that did not get as far as a call, by reason.",
            "reason",
            TurnedAway::ALL.map(|reason| (reason.name(), wire.turned_away(reason))),
        );
        exposition.counters(
            "weir_ingest_malformed_total",
            "Messages in which something was wrong, by what.",
            "what",
            Malformation::ALL.map(|what| (what.name(), wire.malformed(what))),
        );
        exposition.counter(
            "weir_ingest_fenced_batches_total",
            "Batches of an agent whose node has a younger one.",
            wire.fenced(),
        );
        exposition.counter(
            "weir_ingest_received_batches_total",
            "Batches received.",
            wire.batches(),
        );
        exposition.counter(
            "weir_ingest_received_frame_bytes_total",
            "Bytes of their frames.",
            wire.frame_bytes(),
        );
        exposition.counter(
            "weir_ingest_received_packed_bytes_total",
            "Bytes of their frames as they crossed the wire.",
            wire.packed_bytes(),
        );
        exposition.counter(
            "weir_ingest_facts_total",
            "Addresses announced by agents.",
            wire.facts(),
        );
        exposition.counter("weir_ingest_streams_total", "Streams let in.", wire.streams());
        let gauges = [
            ("weir_ingest_streams", "Streams that last.", wire.streams_now()),
            ("weir_ingest_connections", "Connections that last.", wire.connections_now()),
        ];
        for (name, help, value) in gauges {
            exposition.gauge(name, help, Some(as_f64(value)));
        }
    }

    fn directory(watched: &Watched, exposition: &mut Exposition) {
        let counts = watched.counts();
        let sizes = [
            ("addresses", counts.addresses),
            ("holdings", counts.holdings),
            ("facts", counts.facts),
            ("nodes", counts.nodes),
            ("services", counts.services),
            ("announced", counts.announced),
            ("strangers", counts.answers),
        ];
        exposition.gauges(
            "weir_directory_entries",
            "What the directory holds.",
            "kind",
            sizes.map(|(kind, size)| (kind, as_f64(u64::try_from(size).unwrap_or(u64::MAX)))),
        );
        exposition.counters(
            "weir_directory_resolved_total",
            "Ends that were named, by how.",
            "resolution",
            Resolution::ALL.iter().map(|it| it.name()).zip(counts.resolved),
        );
        exposition.counters(
            "weir_directory_unresolved_total",
            "Ends that were not named, by reason.",
            "reason",
            Unresolved::ALL.iter().map(|it| it.name()).zip(counts.unresolved),
        );
        exposition.counters(
            "weir_directory_lost_total",
            "What the directory let go for lack of room, by what.",
            "what",
            [
                ("evicted", counts.evicted),
                ("refused", counts.refused),
                ("changes", counts.changes_lost),
                ("strangers", counts.answers_evicted),
                ("odd_objects", watched.odd_objects()),
            ],
        );
        let resources = watched.resources();
        exposition.counters(
            "weir_directory_failures_total",
            "Failures of watching the Kubernetes API, by kind of object.",
            "resource",
            resources.iter().map(|it| (it.resource, it.failures)),
        );
        let synced = |is_synced| if is_synced { 1.0 } else { 0.0 };
        exposition.gauges(
            "weir_directory_synced",
            "1 where all objects of a kind were listed.",
            "resource",
            resources.iter().map(|it| (it.resource, synced(it.is_synced))),
        );
    }

    fn nodes(board: &Board, exposition: &mut Exposition) {
        let nodes = board.nodes(clock::wall().seconds());
        exposition.gauges(
            "weir_node_lag_seconds",
            "How long ago each node's newest committed batch was sealed.",
            "node",
            nodes.iter().filter_map(|it| Some((it.node.as_str(), it.lag_seconds?))),
        );
        exposition.gauges(
            "weir_node_clock_ahead_seconds",
            "How far each node's clock is ahead of the server's.",
            "node",
            nodes.iter().filter_map(|it| Some((it.node.as_str(), it.clock_ahead_seconds?))),
        );
    }
}

impl Vitals {
    /// How the store does: known here, and never asked for, because whoever asks for health does
    /// not wait.
    fn store(&self, health: Option<weir_store::Health>, exposition: &mut Exposition) {
        let up = |trouble: Option<Trouble>| if trouble.is_none() { 1.0 } else { 0.0 };
        exposition.gauges(
            "weir_store_up",
            "1 while the store takes batches (write) and answers (read).",
            "use",
            [("write", up(self.store.writing())), ("read", up(self.store.reading()))],
        );
        let now = clock::wall();
        exposition.gauge(
            "weir_store_away_seconds",
            "For how long the store has not taken batches, or not answered.",
            self.store.trouble().map(|it| as_f64(now.seconds().saturating_sub(it.since.seconds()))),
        );
        exposition.counters(
            "weir_store_errors_total",
            "Failures of the store, by reason.",
            "reason",
            self.store.errors(),
        );
        let Some(health) = health else { return };
        let bytes = |count| Some(as_f64(count));
        let (file, free) = (health.file_bytes, health.free_disk_bytes);
        exposition.gauge("weir_store_file_bytes", "Bytes on disk.", bytes(file));
        exposition.gauge(
            "weir_store_free_disk_bytes",
            "Bytes that may still be written on that disk.",
            free.and_then(bytes),
        );
    }
}

impl Health for Vitals {
    fn live(&self) -> Result<(), String> {
        let is_closing = self.state().is_closing;
        let Some(Sources { queue, .. }) = self.sources() else { return Ok(()) };
        if !is_closing && queue.is_closed() {
            return Err("the thread that takes batches is gone".to_owned());
        }
        match queue.report().busy_since.map(|since| since.elapsed()) {
            Some(busy) if busy > STUCK => {
                Err(format!("batches have been on their way into the store for {busy:.0?}"))
            }
            _ => Ok(()),
        }
    }

    fn ready(&self) -> Result<(), String> {
        let sources = self.sources();
        {
            let state = self.state();
            if state.is_closing {
                return Err("the server is stopping".to_owned());
            }
            if state.wire.is_none() {
                let why = match self.store.writing() {
                    Some(trouble) => format!("the store is waited for: {}", trouble.error),
                    None if sources.is_none() => "the store is being opened".to_owned(),
                    None => "the cluster is not known".to_owned(),
                };
                return Err(format!("agents are not let in yet: {why}"));
            }
        }
        self.live()?;
        // A store that is away concerns every server alike. Agents that are turned away by all of
        // them would not even hear why they wait.
        match sources.and_then(|it| it.health.last()).and_then(|health| health.free_disk_bytes) {
            Some(0) => Err("the disk of the store is full".to_owned()),
            _ => Ok(()),
        }
    }

    fn metrics(&self, exposition: &mut Exposition) {
        exposition.gauges(
            "weir_build_info",
            "The version that runs.",
            "version",
            [(env!("CARGO_PKG_VERSION"), 1.0)],
        );
        let sources = self.sources();
        self.store(sources.as_ref().and_then(|it| it.health.last()), exposition);
        let Some(Sources { queue, watched, board, store, .. }) = sources else { return };
        Self::ingest(&queue, exposition);
        self.wire(exposition);
        Self::directory(&watched, exposition);
        Self::nodes(&board, exposition);
        if let Some(table) = store.kubenetmon() {
            kubenetmon::expose_own(&table.kubenetmon_counts(), exposition);
        }
        if let Some(counts) = board.kubenetmon() {
            kubenetmon::expose(counts, exposition);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "the text format knows no integers")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
