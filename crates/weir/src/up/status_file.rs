//! `status.json` in the data directory: what `weir query status` reads.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use weir_agent::AgentStatus;
use weir_conntrack::sysctl::Settings;
use weir_server::IngestCounts;

use weir_server::moment;

/// What weir is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Reading,
    Stopped,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Reading => "reading",
            Self::Stopped => "stopped",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct StatusFile {
    path: PathBuf,
    ingest: Arc<Mutex<IngestCounts>>,
}

impl StatusFile {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("status.json"), ingest: Arc::default() }
    }

    /// Where ingest leaves its counts.
    pub(super) fn ingest(&self) -> &Arc<Mutex<IngestCounts>> {
        &self.ingest
    }

    /// Writes a state alone; what else stood there stays if it can be read.
    pub(super) fn write_state(&self, state: State) {
        let said = fs::read_to_string(&self.path).ok();
        let said = said.and_then(|text| serde_json::from_str(&text).ok());
        let mut object = match (state, said) {
            (State::Stopped, Some(Value::Object(object))) => object,
            _ => serde_json::Map::new(),
        };
        object.insert("state".to_owned(), state.name().into());
        object.insert("pid".to_owned(), std::process::id().into());
        object.insert("updated".to_owned(), moment::rfc3339(moment::now_seconds()).into());
        self.put(&Value::Object(object));
    }

    /// Writes all that is known after a tick.
    pub(super) fn write(&self, status: &AgentStatus) {
        let Settings { accounting, timestamps, events, max, count, .. } = Settings::read();
        let causes: Vec<Value> = status
            .causes
            .iter()
            .map(|(name, text)| json!({ "name": name, "text": text }))
            .collect();
        let ingest = *self.ingest.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(&json!({
            "state": State::Reading.name(),
            "pid": std::process::id(),
            "updated": moment::rfc3339(moment::now_seconds()),
            "source": status.source,
            "accounting": accounting,
            "timestamps": timestamps,
            "events_setting": events,
            "table_max": max,
            "table_count": count,
            "coverage": status.coverage,
            "causes": causes,
            "interval_seconds": status.interval.as_secs_f64(),
            "tick_cpu_seconds": status.tick_cpu.as_secs_f64(),
            "ticks": status.ticks,
            "connections": status.connections,
            "records": status.records,
            "billed_bytes": status.billed_bytes,
            "destroy_events": status.events,
            "lost_events": status.lost_events,
            "malformed_messages": status.malformed,
            "ended_unseen": status.ended_unseen,
            "foreign_zeroings": status.ledger.foreign_zeroings,
            "stale_entries": status.ledger.stale_entries,
            "shadow_entries": status.ledger.shadow_entries,
            "uncounted_entries": status.ledger.uncounted_entries,
            "picked_up": status.ledger.picked_up,
            "spool_bytes": status.spool_bytes,
            "undelivered_batches": status.undelivered,
            "spool_dropped_batches": status.dropped,
            "delivery_waits": status.waiting_because,
            "batches_committed": ingest.committed,
            "batches_known": ingest.known,
            "batches_refused": ingest.refused,
            "batches_retried": ingest.retried,
            "batches_from_future": ingest.future,
            "folded_keys": ingest.folded_keys,
        }));
    }

    /// Whole or not at all. Two files change places, so that on a full disk, too, there is room for
    /// a status: it goes where the last but one stood.
    fn put(&self, value: &Value) {
        let temporary = self.path.with_extension("json.tmp");
        let text = format!("{value:#}\n");
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
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
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
