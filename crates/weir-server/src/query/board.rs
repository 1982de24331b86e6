//! What the agents last said of themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::answer::{NodeStatus, State};
use crate::kubenetmon::Counts;
use crate::moment;

/// More nodes than any cluster has; what is beyond is left out, with a word in the log.
const MAX_NODES: usize = 10_000;

/// Readings that may be missed, and seconds besides, before silence is worth a word.
const PATIENCE_READINGS: u32 = 3;
const PATIENCE_SECONDS: u64 = 30;

/// The newest word of each node's agent, and where the store is.
#[derive(Debug, Default)]
pub struct Board {
    data_dir: Option<String>,
    nodes: RwLock<BTreeMap<String, NodeStatus>>,
    kubenetmon: OnceLock<Arc<Counts>>,
}

impl Board {
    /// An empty board of a process whose store is in `data_dir`.
    pub fn new(data_dir: Option<String>) -> Self {
        Self { data_dir, nodes: RwLock::default(), kubenetmon: OnceLock::new() }
    }

    /// Where the embedded store is.
    pub fn data_dir(&self) -> Option<&str> {
        self.data_dir.as_deref()
    }

    /// Shows what kubenetmon's agents report, from now on. The first call counts.
    pub fn set_kubenetmon(&self, counts: Arc<Counts>) {
        // One door is opened in a process.
        drop(self.kubenetmon.set(counts));
    }

    /// What kubenetmon's agents reported, where they are let in.
    pub fn kubenetmon(&self) -> Option<&Counts> {
        self.kubenetmon.get().map(Arc::as_ref)
    }

    /// Takes the place of what this node said before.
    pub fn put(&self, status: NodeStatus) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() >= MAX_NODES && !nodes.contains_key(&status.node) {
            tracing::warn!(
                node = status.node,
                "too many nodes: the status of this one is not kept"
            );
            return;
        }
        nodes.insert(status.node.clone(), status);
    }

    /// How long each node has been silent, seconds.
    pub(crate) fn silences(&self, now_seconds: u64) -> Vec<(String, u64)> {
        let said = self.nodes(now_seconds).into_iter();
        said.filter_map(|said| Some((said.node, said.silent_seconds?))).collect()
    }

    /// Forgets what a node said: it speaks to another server now.
    pub(crate) fn let_go(&self, node: &str) {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// Each node's last word by name, corrected by how long ago it was.
    pub fn nodes(&self, now_seconds: u64) -> Vec<NodeStatus> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.values().map(|said| judged(said.clone(), now_seconds)).collect()
    }
}

/// Whoever says nothing for long does not do any more what it said last.
fn judged(mut said: NodeStatus, now_seconds: u64) -> NodeStatus {
    let updated = said.updated.as_deref().and_then(moment::parse_rfc3339);
    said.silent_seconds = updated.map(|updated| now_seconds.saturating_sub(updated));
    let interval = Duration::try_from_secs_f64(said.interval_seconds).unwrap_or_default();
    let patience = interval.saturating_mul(PATIENCE_READINGS).as_secs() + PATIENCE_SECONDS;
    match said.silent_seconds {
        Some(silent) if silent > patience && said.state != State::Stopped => {
            said.state = State::Stalled;
            said.reason = Some(format!("weir runs but has not spoken for {silent} s"));
        }
        _ => {}
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_769_846_400;

    fn said(state: State, updated: &str, interval_seconds: f64) -> NodeStatus {
        let board = Board::default();
        let updated = Some(updated.to_owned());
        board.put(NodeStatus { state, updated, interval_seconds, ..NodeStatus::default() });
        board.nodes(NOW).remove(0)
    }

    #[test]
    fn silence_is_told_from_a_long_interval_and_from_the_end() {
        let (fresh, old) = ("2026-01-31T07:59:58Z", "2026-01-31T07:50:00Z");
        for (state, updated, interval, judged) in [
            (State::Reading, fresh, 5.0, State::Reading),
            (State::Reading, old, 5.0, State::Stalled),
            (State::Reading, old, 300.5, State::Reading),
            (State::Reading, old, -1.0, State::Stalled),
            (State::Reading, old, f64::NAN, State::Stalled),
            (State::Stopped, old, 5.0, State::Stopped),
            (State::Reading, "garbage", 5.0, State::Reading),
        ] {
            let node = said(state, updated, interval);
            assert_eq!(node.state, judged, "{state:?} {updated} {interval}");
            assert_eq!(node.reason.is_some(), judged == State::Stalled);
        }
        assert_eq!(said(State::Reading, old, 5.0).silent_seconds, Some(600));
    }

    #[test]
    fn a_node_has_one_place_and_places_end() {
        let board = Board::new(Some("/data".to_owned()));
        for number in 0..=MAX_NODES {
            let node = format!("n{number:05}");
            board.put(NodeStatus { node, ..NodeStatus::default() });
        }
        board.put(NodeStatus { node: "n00003".to_owned(), ticks: 7, ..NodeStatus::default() });
        let nodes = board.nodes(NOW);
        assert_eq!((nodes.len(), nodes[3].ticks), (MAX_NODES, 7));
        assert_eq!(board.data_dir(), Some("/data"));
    }
}
