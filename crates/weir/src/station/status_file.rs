//! What weir says of itself after every reading: on the board for whoever asks it, and in
//! `status.json` in the data directory for whoever only finds that.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use weir_agent::AgentStatus;
use weir_conntrack::sysctl::Settings;
use weir_server::IngestCounts;
use weir_server::answer::{Cause, NodeStatus};
use weir_server::moment;
use weir_server::query::Board;

pub(crate) use weir_server::answer::State;

/// Where statuses go.
#[derive(Clone, Debug)]
pub(super) struct StatusFile {
    path: PathBuf,
    node: String,
    board: Arc<Board>,
    ingest: Arc<Mutex<IngestCounts>>,
    /// What was said last.
    said: Arc<Mutex<NodeStatus>>,
}

impl StatusFile {
    pub(super) fn new(data_dir: &Path, node: String, board: Arc<Board>) -> Self {
        Self {
            path: data_dir.join("status.json"),
            said: Arc::new(Mutex::new(NodeStatus { node: node.clone(), ..NodeStatus::default() })),
            node,
            board,
            ingest: Arc::default(),
        }
    }

    /// Where ingest leaves its counts.
    pub(super) fn ingest(&self) -> &Arc<Mutex<IngestCounts>> {
        &self.ingest
    }

    /// Says a state alone; what else was said stands. An API that is named answers from now on.
    pub(super) fn write_state(&self, state: State, api: Option<&str>) {
        let mut status = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.state = state;
        status.api = match state {
            State::Stopped => None,
            _ => api.map(str::to_owned).or(status.api),
        };
        self.say(status);
    }

    /// Says all that is known after a reading.
    pub(super) fn write(&self, status: &AgentStatus, api: Option<&str>) {
        let Settings { accounting, timestamps, events, max, count, .. } = Settings::read();
        let causes = status
            .causes
            .iter()
            .map(|(name, text)| Cause { name: name.clone(), text: text.clone() })
            .collect();
        let ingest = *self.ingest.lock().unwrap_or_else(PoisonError::into_inner);
        self.say(NodeStatus {
            node: self.node.clone(),
            state: State::Reading,
            api: api.map(str::to_owned),
            source: status.source.to_owned(),
            source_limits: status.source_limits.map(str::to_owned),
            accounting,
            timestamps,
            events_setting: events,
            table_max: max,
            table_count: count,
            coverage: status.coverage,
            causes,
            interval_seconds: status.interval.as_secs_f64(),
            tick_cpu_seconds: status.tick_cpu.as_secs_f64(),
            ticks: status.ticks,
            connections: u64::try_from(status.connections).unwrap_or(u64::MAX),
            records: status.records,
            billed_bytes: status.billed_bytes,
            destroy_events: status.events,
            lost_events: status.lost_events,
            malformed_messages: status.malformed,
            ended_unseen: status.ended_unseen,
            foreign_zeroings: status.ledger.foreign_zeroings,
            stale_entries: status.ledger.stale_entries,
            shadow_entries: status.ledger.shadow_entries,
            uncounted_entries: status.ledger.uncounted_entries,
            picked_up: status.ledger.picked_up,
            spool_bytes: status.spool_bytes,
            undelivered_batches: status.undelivered,
            spool_dropped_batches: status.dropped,
            delivery_waits: status.waiting_because.clone(),
            batches_committed: Some(ingest.committed),
            batches_known: Some(ingest.known),
            batches_refused: Some(ingest.refused),
            batches_retried: Some(ingest.retried),
            batches_from_future: Some(ingest.future),
            folded_keys: Some(ingest.folded_keys),
            ..NodeStatus::default()
        });
    }

    fn say(&self, mut status: NodeStatus) {
        status.pid = Some(std::process::id());
        status.updated = Some(moment::rfc3339(moment::now_seconds()));
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = status.clone();
        self.put(&status);
        self.board.put(status);
    }

    /// Whole or not at all. Two files change places, so that on a full disk, too, there is room for
    /// a status: it goes where the last but one stood.
    fn put(&self, status: &NodeStatus) {
        let temporary = self.path.with_extension("json.tmp");
        let text = match serde_json::to_string_pretty(status) {
            Ok(text) => text + "\n",
            Err(error) => return tracing::warn!(%error, "status cannot be written as JSON"),
        };
        let written = overwrite(&temporary, text.as_bytes()).and_then(|()| {
            exchange(&temporary, &self.path).or_else(|_first| fs::rename(&temporary, &self.path))
        });
        if let Err(error) = written {
            tracing::warn!(%error, file = %self.path.display(), "status not written");
        }
    }
}

/// Writes into the blocks a file has already.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

/// Lets two files change names, in one step.
#[expect(unsafe_code, reason = "std only renames one way")]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (one, other) = (name(one)?, name(other)?);
    let here = libc::AT_FDCWD;
    // SAFETY: both names are NUL-terminated and live until the call returns.
    let result =
        unsafe { libc::renameat2(here, one.as_ptr(), here, other.as_ptr(), libc::RENAME_EXCHANGE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
