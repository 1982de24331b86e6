//! How weir is, as it is answered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PeerStatus;

/// How weir is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// weir's version.
    pub version: String,
    /// Where the embedded store is; absent where there is none or it is elsewhere.
    pub data_dir: Option<String>,
    /// From when on gaps are listed and counters summed, RFC 3339.
    pub since: String,
    /// Until when, RFC 3339.
    pub until: String,
    /// Each observing node.
    pub nodes: Vec<NodeStatus>,
    /// The other servers that were asked. Where one did not answer, the nodes whose agents speak to
    /// it may be missing.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
    /// The store; absent while it is being made or cannot be asked.
    pub store: Option<StoreStatus>,
    /// What is wrong with the store: it takes no batches, or answers nothing. Agents keep their
    /// batches meanwhile.
    #[serde(default)]
    pub store_error: Option<StoreTrouble>,
    /// What kubenetmon's agents reported; absent where they are not let in.
    #[serde(default)]
    pub kubenetmon: Option<KubenetmonStatus>,
    /// What is known to be missing. Empty, too, where `store` is absent.
    pub gaps: Vec<Gap>,
    /// The agents' own counters. Empty, too, where `store` is absent.
    pub counters: Vec<NodeCounter>,
}

/// What kubenetmon's agents reported, since this server began. It goes to kubenetmon's table alone,
/// and nobody can tell what was lost on the way: it is in no other figure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KubenetmonStatus {
    /// What is promised: `best_effort`.
    pub promise: String,
    /// Connections now.
    pub connections: u64,
    /// Observations reported.
    pub observations: u64,
    /// Of those, observations in which something was wrong.
    pub malformed: u64,
    /// Observations for which the table has no place.
    pub ignored: u64,
    /// Observations that were lost here.
    pub dropped: u64,
    /// Rows that the table took.
    pub rows: u64,
    /// Why the last insert failed, where it did.
    pub error: Option<String>,
}

/// What is wrong with the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreTrouble {
    /// Since when, RFC 3339.
    pub since: String,
    /// The stable name of the kind of failure.
    pub reason: String,
    /// What it said last, and what to do.
    pub error: String,
    /// Tries that failed since.
    pub failures: u64,
}

/// What an agent is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has not looked yet.
    #[default]
    Starting,
    /// It reads the kernel.
    Reading,
    /// It is there but has not spoken for a while.
    Stalled,
    /// It is gone.
    Stopped,
}

impl State {
    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Reading => "reading",
            Self::Stalled => "stalled",
            Self::Stopped => "stopped",
        }
    }
}

/// One node's agent, as it last spoke of itself. Counts are since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// What it is doing.
    pub state: State,
    /// Why the state is not what was said last.
    pub reason: Option<String>,
    /// When it spoke, RFC 3339.
    pub updated: Option<String>,
    /// How long ago that was, seconds.
    pub silent_seconds: Option<u64>,
    /// Its process.
    pub pid: Option<u32>,
    /// Where its API answers, where it does.
    pub api: Option<String>,
    /// The source in use: `conntrack`, `procfs`, `sockets`.
    pub source: String,
    /// What the source does not see, where it is a lesser one.
    pub source_limits: Option<String>,
    /// `nf_conntrack_acct`; absent where there is no such setting.
    pub accounting: Option<bool>,
    /// `nf_conntrack_timestamp`.
    pub timestamps: Option<bool>,
    /// `nf_conntrack_events`: 0 none, 1 all, 2 only while somebody listens.
    pub events_setting: Option<u8>,
    /// `nf_conntrack_max`.
    pub table_max: Option<u64>,
    /// `nf_conntrack_count`.
    pub table_count: Option<u64>,
    /// Share of what the interfaces moved that was counted; absent where too little moved.
    pub coverage: Option<f64>,
    /// Why coverage is low, each with its remedy.
    pub causes: Vec<Cause>,
    /// Time between two readings, as the pace has it now.
    pub interval_seconds: f64,
    /// CPU time the last reading took.
    pub tick_cpu_seconds: f64,
    /// Readings.
    pub ticks: u64,
    /// Connections in the table.
    pub connections: u64,
    /// Records sealed.
    pub records: u64,
    /// Bytes counted.
    pub billed_bytes: u64,
    /// Notices of ended connections.
    pub destroy_events: u64,
    /// Notices the kernel dropped.
    pub lost_events: u64,
    /// Messages that could not be read.
    pub malformed_messages: u64,
    /// Connections that ended without a notice.
    pub ended_unseen: u64,
    /// Counters that somebody else zeroed.
    pub foreign_zeroings: u64,
    /// Entries shown after their end.
    pub stale_entries: u64,
    /// Entries of a further zone of a connection that is counted already.
    pub shadow_entries: u64,
    /// Entries without counters.
    pub uncounted_entries: u64,
    /// Entries met in mid-stream.
    pub picked_up: u64,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Batches not answered yet.
    pub undelivered_batches: u64,
    /// Batches dropped because the spool or the disk was full.
    pub spool_dropped_batches: u64,
    /// Why delivery waits, where it does.
    pub delivery_waits: Option<String>,
    /// Batches committed. This and the next five are counted where ingest has one node only; of a
    /// cluster's nodes together they are among the server's metrics.
    pub batches_committed: Option<u64>,
    /// Batches that had been committed before.
    pub batches_known: Option<u64>,
    /// Batches refused for good.
    pub batches_refused: Option<u64>,
    /// Batches asked for again later.
    pub batches_retried: Option<u64>,
    /// Batches whose clock ran ahead.
    pub batches_from_future: Option<u64>,
    /// Flow keys folded because a batch held too many.
    pub folded_keys: Option<u64>,
    /// The agent's version, where it is a process of its own.
    pub agent_version: Option<String>,
    /// Its spool's epoch.
    pub epoch: Option<String>,
    /// When its last batch was committed, RFC 3339; absent while none was by this server.
    pub last_batch: Option<String>,
    /// How long before now its newest committed batch was sealed.
    pub lag_seconds: Option<f64>,
    /// How far its clock is ahead of the server's; behind where negative.
    pub clock_ahead_seconds: Option<f64>,
    /// What it counted of its traffic with other nodes, and what those saw of it.
    pub views: Vec<OtherView>,
}

/// The same traffic as two nodes saw it, since the server began. The difference is packets cut or
/// joined on the way, each with a header of its own, and packets dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OtherView {
    /// The other node.
    pub node: String,
    /// Packets this node counted, both directions.
    pub counted_packets: u64,
    /// Bytes this node counted.
    pub counted_bytes: u64,
    /// Packets the other node saw.
    pub seen_packets: u64,
    /// Bytes the other node saw.
    pub seen_bytes: u64,
}

/// Why coverage is low.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cause {
    /// Its stable name.
    pub name: String,
    /// What it is, and the command that helps.
    pub text: String,
}

/// The store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    /// The engine and its version.
    pub engine: String,
    /// Version of the schema.
    pub schema_version: u32,
    /// Batches committed, as far as they are still known.
    pub batches: u64,
    /// Bytes on disk.
    pub file_bytes: u64,
    /// Of those, bytes free for new rows.
    pub reusable_bytes: u64,
    /// Bytes that may still be written on that disk; absent where it cannot be asked.
    pub free_disk_bytes: Option<u64>,
    /// Distinct endpoints; `null` where the store does not number them.
    pub endpoints: Option<u64>,
    /// Distinct flow keys, windows aside.
    pub edges: Option<u64>,
    /// Each level that is kept, finest first.
    pub levels: Vec<StoreLevel>,
}

/// A level of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreLevel {
    /// Length of its windows.
    pub window_seconds: u64,
    /// For how long it is kept.
    pub retention_seconds: u64,
    /// Stored rows. A figure about the store, not about traffic.
    pub rows: u64,
    /// Start of its oldest window, RFC 3339.
    pub oldest: Option<String>,
    /// Start of its newest window, RFC 3339.
    pub newest: Option<String>,
}

/// Something that is known to be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// The observer's node.
    pub node: String,
    /// The stable name of the reason.
    pub reason: String,
    /// When it began, RFC 3339.
    pub from: String,
    /// When it ended, RFC 3339.
    pub to: String,
    /// Connections that ended in it.
    pub connections: u64,
    /// Records lost for sure.
    pub records: u64,
    /// Bytes lost for sure.
    pub bytes: u64,
    /// At most this many bytes more; absent where there is no bound.
    pub bytes_bound: Option<u64>,
}

/// An agent's counter, summed over the range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCounter {
    /// The observer's node.
    pub node: String,
    /// The counter's name.
    pub name: String,
    /// Its sum.
    pub value: i64,
}
