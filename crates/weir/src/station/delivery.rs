//! Delivery without a wire: the server half is a function call away.

use std::sync::{Arc, Mutex, PoisonError};

use weir_agent::{Deliver, clock};
use weir_flow::ingest::Answer;
use weir_server::{Ingest, IngestCounts, Query, Speaker};
use weir_store::FlowStore;

use super::directory::SharedDirectory;
use crate::top::host_name;

/// The server half, in this process.
pub(super) struct InProcess {
    ingest: Ingest<SharedDirectory>,
    speaker: Speaker,
    store: Arc<dyn FlowStore>,
    query: Arc<Query>,
    facts: SharedDirectory,
    since_prune: u32,
    /// Where the status finds what ingest did.
    counts: Arc<Mutex<IngestCounts>>,
}

impl InProcess {
    /// Batches between two calls of the store's bounded clean-up.
    const PRUNE_EVERY: u32 = 16;

    pub(super) fn new(
        ingest: Ingest<SharedDirectory>,
        store: Arc<dyn FlowStore>,
        query: Arc<Query>,
        facts: SharedDirectory,
        counts: Arc<Mutex<IngestCounts>>,
    ) -> Self {
        let speaker = Speaker::here(&host_name());
        Self { ingest, speaker, store, query, facts, since_prune: 0, counts }
    }
}

impl Deliver for InProcess {
    fn deliver(&mut self, frame: &[u8]) -> Answer {
        self.facts.freshen();
        let now = clock::wall();
        let answer = self.ingest.accept(&self.speaker, frame, now);
        self.query.store_changed();
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.ingest.counts();
        self.since_prune += 1;
        if self.since_prune >= Self::PRUNE_EVERY {
            self.since_prune = 0;
            if let Err(error) = self.store.prune(now.seconds()) {
                tracing::warn!(error = &error as &dyn std::error::Error, "old flows stay for now");
            }
        }
        answer
    }
}
