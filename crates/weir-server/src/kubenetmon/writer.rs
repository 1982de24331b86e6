//! One thread that names what was observed, makes rows of it and inserts them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use weir_flow::kubenetmon::{Ends, Observation, Row, Settings};
use weir_flow::{
    BootTime, Class, ConnectionState, Directory, Endpoint, FlowRecord, RecordFlags, Totals,
};
use weir_store::KubenetmonSink;

use super::counts::{Counts, Dropped};
use super::door::Chunk;
use crate::ingest::Directories;

/// Rows of the table for one observation: one for each direction.
const ROWS_OF_ONE: usize = 2;
/// Times an insert is offered before its rows are dropped.
const TRIES: u32 = 5;
/// With nothing to write, the next thing to do is far away.
const IDLE: Duration = Duration::from_hours(1);

/// Makes rows and inserts them.
pub(super) struct Writer {
    pub(super) sink: Arc<dyn KubenetmonSink>,
    pub(super) directories: Arc<dyn Directories>,
    pub(super) settings: Settings,
    pub(super) counts: Arc<Counts>,
    /// Rows of the table in one insert.
    pub(super) batch_rows: usize,
    /// How long the first row of an insert waits for more.
    pub(super) batch_time: Duration,
    /// Wait before the second try; before each later one it is twice as long.
    pub(super) retry_wait: Duration,
    /// What tells this process's inserts from others'.
    pub(super) token: String,
    /// Ends waits between tries: whoever holds the other end has let go.
    pub(super) stopping: Receiver<()>,
}

impl Writer {
    /// Takes what comes until nobody can send any more, and writes the last of it.
    pub(super) fn run(self, chunks: &Receiver<Chunk>) {
        let (mut rows, mut since, mut inserts) = (Vec::new(), None, 0_u64);
        loop {
            let wait = since
                .map_or(IDLE, |since: Instant| self.batch_time.saturating_sub(since.elapsed()));
            let is_last = match chunks.recv_timeout(wait) {
                Ok(chunk) => {
                    self.label(&chunk.observations, &mut rows);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if rows.is_empty() {
                since = None;
                if is_last {
                    return;
                }
                continue;
            }
            let age = since.get_or_insert_with(Instant::now).elapsed();
            let is_full = rows.len() * ROWS_OF_ONE >= self.batch_rows || age >= self.batch_time;
            if is_full || is_last {
                inserts += 1;
                self.insert(&rows, inserts);
                rows.clear();
                since = None;
            }
            if is_last {
                return;
            }
        }
    }

    fn label(&self, observations: &[Observation], rows: &mut Vec<Row>) {
        for of_node in observations.chunk_by(|one, next| one.node == next.node) {
            let Some(Observation { node, .. }) = of_node.first() else { continue };
            let mut label = |directory: &dyn Directory| {
                self.counts.count_labelled(|counts| {
                    for observation in of_node {
                        let [source, destination] = observation.name_ends(directory);
                        let class = class(observation, directory, &source, &destination);
                        let ends = Ends { source: &source, destination: &destination, class };
                        let row = Row::of(observation, &ends, &self.settings);
                        counts.add(&row);
                        rows.extend(row);
                    }
                });
            };
            self.directories.lend(node, 0, &mut label);
        }
    }

    /// Inserts rows, with the same token at each try, so that one that was taken without an answer
    /// is not taken again.
    fn insert(&self, rows: &[Row], number: u64) {
        let token = format!("{}-{number}", self.token);
        let (mut wait, mut is_stopping) = (self.retry_wait, false);
        for tried in 1..=TRIES {
            let error = match self.sink.insert_kubenetmon(rows, Some(&token)) {
                Ok(()) => return self.counts.inserted(rows.len() * ROWS_OF_ONE),
                Err(error) => error,
            };
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                tried,
                "kubenetmon's table does not take what its agents reported"
            );
            self.counts.failed(error.to_string());
            if tried == TRIES || is_stopping {
                break;
            }
            // The wait ends early where weir stops: then there is one more try.
            let waited = self.stopping.recv_timeout(wait);
            is_stopping = waited == Err(RecvTimeoutError::Disconnected);
            self.counts.count_retry();
            wait *= 2;
        }
        tracing::warn!(observations = rows.len(), "what kubenetmon's agents reported is dropped");
        self.counts.count_dropped(Dropped::InsertFailed, rows.len());
    }
}

/// The class of the traffic, where an operator's range may give it one.
fn class(
    observation: &Observation,
    directory: &dyn Directory,
    source: &Endpoint,
    destination: &Endpoint,
) -> Option<Class> {
    if source.range.is_none() && destination.range.is_none() {
        return None;
    }
    let Observation { original, reply, .. } = observation;
    let record = FlowRecord {
        connection: 0,
        zone: 0,
        protocol: original.protocol,
        source: original.source,
        source_port: original.source_port,
        destination: reply.source,
        destination_port: reply.source_port,
        service: None,
        translated_source: None,
        start: None,
        interval_from: BootTime(0),
        interval_to: BootTime(0),
        from: Totals::default(),
        to: Totals::default(),
        state: ConnectionState::default(),
        flags: RecordFlags::default(),
    };
    Some(directory.class(&record, source, destination))
}
