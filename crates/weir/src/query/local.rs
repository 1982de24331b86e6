//! A data directory, read beside whoever writes it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use weir_agent::clock;
use weir_server::answer::Status;
use weir_server::{Query, moment, store_status};
use weir_store::{FlowStore as _, Limits, SqliteStore, StoreError};

use super::live::{self, Writer};
use crate::server;
use crate::top::host_name;

/// An open data directory.
pub(super) struct Local(Arc<SqliteStore>);

impl Local {
    /// Opens it to be read.
    pub(super) fn open(directory: &Path) -> weir_store::Result<Self> {
        SqliteStore::open_read_only(directory, Limits::default()).map(|store| Self(Arc::new(store)))
    }

    /// Says where to ask instead, where the flows of this directory are elsewhere.
    pub(super) fn explained(error: StoreError, directory: &Path) -> anyhow::Error {
        if !matches!(error, StoreError::Missing { .. }) || !server::is_elsewhere(directory) {
            return error.into();
        }
        anyhow::anyhow!(
            "the server of {} keeps its flows in ClickHouse: ask the server, at its address: weir \
             query http://127.0.0.1:8885 (see --listen of `weir server`)",
            directory.display()
        )
    }

    /// Answers from it. What lives at the moment is known only to the weir that writes.
    pub(super) fn query(self) -> Query {
        Query::new(self.0, Arc::default(), Arc::default(), Arc::new(clock::wall))
    }
}

/// How the weir of this directory is, whether it runs or not.
pub(super) fn status(directory: &Path, range: Range<u64>) -> anyhow::Result<Status> {
    let said = live::read(directory)?;
    let store = match Local::open(directory) {
        Ok(Local(store)) => Some(store),
        // weir has spoken, so it is only about to make its store.
        Err(StoreError::Missing { .. }) if said.is_some() => None,
        Err(error) => return Err(Local::explained(error, directory)),
    };
    let writer = match SqliteStore::writer_of(directory)? {
        None => Writer::Nobody,
        Some(process) => Writer::Process(process.pid),
    };
    let mut node = live::judge(said.unwrap_or_default(), writer, moment::now_seconds());
    if node.node.is_empty() {
        node.node = node_of(store.as_deref())?;
    }
    let stored = store.map(|store| store_status(&*store, range.clone())).transpose()?;
    let (store, gaps, counters) = match stored {
        Some((store, gaps, counters)) => (Some(store), gaps, counters),
        None => (None, Vec::new(), Vec::new()),
    };
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_dir: Some(directory.display().to_string()),
        since: moment::rfc3339(range.start),
        until: moment::rfc3339(range.end),
        nodes: vec![node],
        peers: Vec::new(),
        store,
        store_error: None,
        kubenetmon: None,
        gaps,
        counters,
    })
}

/// Whose status it is, where it does not say: the node whose batches are stored, else this one.
fn node_of(store: Option<&SqliteStore>) -> weir_store::Result<String> {
    let committed = store.map(SqliteStore::committed).transpose()?.unwrap_or_default();
    Ok(committed.into_iter().next_back().map_or_else(host_name, |epoch| epoch.node))
}
