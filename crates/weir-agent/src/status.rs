//! What the agent knows about itself, for status.

use std::time::Duration;

use weir_flow::WallTime;
use weir_flow::ledger::LedgerCounts;

/// A snapshot, made anew at the end of each tick.
#[derive(Clone, Debug, Default)]
pub struct AgentStatus {
    /// The source in use.
    pub source: &'static str,
    /// What that source does not see, where it is a lesser one.
    pub source_limits: Option<&'static str>,
    /// Ticks since the start.
    pub ticks: u64,
    /// When the last tick ended.
    pub last_tick: WallTime,
    /// Time between two dumps, as the pace has it now.
    pub interval: Duration,
    /// CPU time the last tick took.
    pub tick_cpu: Duration,
    /// Connections in the table.
    pub connections: usize,
    /// Records sealed since the start.
    pub records: u64,
    /// Last words read since the start.
    pub events: u64,
    /// Last words the kernel dropped since the start.
    pub lost_events: u64,
    /// Messages that could not be read since the start.
    pub malformed: u64,
    /// Connections that ended without a last word, since the start.
    pub ended_unseen: u64,
    /// Bytes billed since the start.
    pub billed_bytes: u64,
    /// Share of what the interfaces moved that was counted; `None` where too little moved.
    pub coverage: Option<f64>,
    /// Why coverage is low, each with its remedy.
    pub causes: Vec<(String, String)>,
    /// What the ledger met that is unusual.
    pub ledger: LedgerCounts,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Batches not answered yet.
    pub undelivered: u64,
    /// Batches dropped since the start because the spool or the disk was full.
    pub dropped: u64,
    /// Why delivery waits, where it does.
    pub waiting_because: Option<String>,
}
