//! What one server hears from its agents, told to the others that share its store.
//!
//! An agent speaks to one server at a time, and which addresses are on its node decides whose bytes
//! are counted by whom: a server that did not know would count what another one counts. So every
//! such change is written under a key that begins with the time, and every server reads the last
//! minute of them again and again, or what came since it could read last.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use hashbrown::HashMap;
use weir_flow::cluster::{Change, Cluster, Update};
use weir_store::{FlowStore, Memory, StoreError};

use super::memory::{decode, encode};
use super::names::Names;

/// Under what news are kept.
const PREFIX: &[u8] = b"news/1/";
/// For how long: whoever could not read for longer reads everything that is kept of the cluster.
const KEPT_SECONDS: u64 = 600;
/// How far back news are read: servers' clocks may differ, and a store may take its time.
const BACK_SECONDS: u64 = 60;
/// News read at a time.
const PAGE: usize = 4_096;
/// Pages read in a row; the rest is read the next time.
const PAGES: usize = 32;

/// What goes back and forth.
pub(super) struct News {
    /// Tells this server's news from the others'.
    server: u64,
    written: u64,
    /// News of others that were taken in, with their time.
    seen: HashMap<Vec<u8>, u64>,
    /// When they were read last.
    heard: u64,
}

impl News {
    pub(super) fn new(now_seconds: u64) -> Self {
        Self {
            // The seeds of hash maps are random, which is random enough for this.
            server: RandomState::new().hash_one(0_u8),
            written: 0,
            seen: HashMap::new(),
            heard: now_seconds,
        }
    }

    /// Whether some of what others wrote may be gone before it was read here.
    pub(super) fn has_missed_some(&self, now_seconds: u64) -> bool {
        now_seconds.saturating_sub(self.heard) > KEPT_SECONDS - 2 * BACK_SECONDS
    }

    /// Everything that is kept has been read instead.
    pub(super) fn note_all_read(&mut self, now_seconds: u64) {
        self.heard = now_seconds;
    }

    /// What others have to know of these changes. What the Kubernetes API tells, it tells them, too.
    pub(super) fn of(&mut self, changes: &[Change], now_seconds: u64) -> Vec<Memory> {
        let told = changes.iter().filter(|change| is_told(change));
        let memories = told.filter_map(|change| {
            self.written += 1;
            let number = self.written.to_be_bytes();
            Some(Memory {
                key: [&key(now_seconds)[..], &self.server.to_be_bytes(), &number].concat(),
                value: encode(change, now_seconds)?.value,
                until_seconds: now_seconds + KEPT_SECONDS,
            })
        });
        memories.collect()
    }

    /// What others wrote since this was last read, and was not read yet.
    pub(super) fn read(
        &mut self,
        store: &dyn FlowStore,
        now_seconds: u64,
    ) -> Result<Vec<Change>, StoreError> {
        let since = now_seconds.min(self.heard).saturating_sub(BACK_SECONDS);
        self.seen.retain(|_, at| *at >= since);
        let mut after = key(since);
        let (mut changes, mut names) = (Vec::new(), Names::default());
        for _ in 0..PAGES {
            let page = store.remembered(PREFIX, &after, PAGE)?;
            let Some(last) = page.last() else {
                self.heard = now_seconds;
                break;
            };
            after.clone_from(&last.key);
            self.heard = self.heard.max(time_of(&after).unwrap_or(0)).min(now_seconds);
            for memory in &page {
                if self.is_new(&memory.key, now_seconds)
                    && let Some(change) = decode(memory, &mut names)
                {
                    changes.push(change);
                }
            }
        }
        Ok(changes)
    }

    fn is_new(&mut self, key: &[u8], now_seconds: u64) -> bool {
        let Some(at) = time_of(key) else { return false };
        let Some((server, _)) = key[PREFIX.len() + 8..].split_first_chunk() else { return false };
        if u64::from_be_bytes(*server) == self.server {
            return false;
        }
        // A clock that runs ahead must not make room run out.
        let at = at.min(now_seconds);
        self.seen.insert(key.to_owned(), at).is_none()
    }
}

/// Whether an agent tells this, and not the Kubernetes API.
pub(super) fn is_told(change: &Change) -> bool {
    matches!(change, Change::Local { .. } | Change::Enrolled { .. })
}

/// Takes in what another server was told. It is not told on: every server reads it itself.
pub(super) fn take_in(cluster: &mut Cluster, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Local { node, own, fact } => {
                cluster.apply(Update::Local { node, own, facts: vec![fact] });
            }
            other => cluster.restore(other),
        }
    }
    drop(cluster.take_changes());
}

/// When the news of this key were written, in Unix seconds.
fn time_of(key: &[u8]) -> Option<u64> {
    key.get(PREFIX.len()..)?.first_chunk().map(|at| u64::from_be_bytes(*at))
}

/// The first key of news of this second.
fn key(seconds: u64) -> Vec<u8> {
    [PREFIX, &seconds.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use weir_flow::WallTime;
    use weir_flow::cluster::LocalFact;
    use weir_store::{Options, SqliteStore};

    use super::*;

    fn local(last: u8, to: Option<u64>) -> Change {
        let fact =
            LocalFact { address: [10, 0, 0, last].into(), from: WallTime(7), to: to.map(WallTime) };
        Change::Local { node: "n1".into(), own: true, fact }
    }

    fn texts(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|change| format!("{change:?}")).collect()
    }

    #[test]
    fn news_reach_the_others_once_and_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path(), Options::default()).unwrap();
        let (mut one, mut other) = (News::new(1_000), News::new(1_000));
        let changes = [local(1, None), Change::Known { until: WallTime(9) }, local(2, Some(8))];
        store.remember(&one.of(&changes, 1_000)).unwrap();
        assert!(one.read(&store, 1_001).unwrap().is_empty(), "its own");
        let read = other.read(&store, 1_002).unwrap();
        assert_eq!(texts(&read), texts(&[local(1, None), local(2, Some(8))]));
        assert!(other.read(&store, 1_003).unwrap().is_empty(), "known by now");
        store.remember(&one.of(&[local(1, Some(9))], 1_003)).unwrap();
        assert_eq!(texts(&other.read(&store, 1_004).unwrap()), texts(&[local(1, Some(9))]));
        assert!(News::new(2_000).read(&store, 2_000).unwrap().is_empty(), "long ago");
        assert!(other.read(&store, 1_200).unwrap().is_empty());
        assert!(other.read(&store, 1_300).unwrap().is_empty() && other.seen.is_empty());
    }

    #[test]
    fn what_came_while_the_store_was_away_is_read_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path(), Options::default()).unwrap();
        let (mut one, mut other) = (News::new(1_000), News::new(1_000));
        store.remember(&one.of(&[local(1, None)], 1_100)).unwrap();
        assert!(!other.has_missed_some(1_400));
        assert_eq!(texts(&other.read(&store, 1_400).unwrap()), texts(&[local(1, None)]));
        assert!(other.has_missed_some(1_900), "some are gone by now");
        other.note_all_read(1_900);
        assert!(!other.has_missed_some(1_900));
    }

    #[test]
    fn what_is_taken_in_is_not_told_on() {
        let mut cluster = Cluster::new(weir_flow::cluster::Config::default());
        take_in(&mut cluster, vec![local(1, None)]);
        assert_eq!((cluster.counts().announced, cluster.counts().changes), (1, 0));
    }
}
