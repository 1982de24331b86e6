//! What one server hears from its agents, told to the others that share its store.
//!
//! An agent speaks to one server at a time, and which addresses are on its node decides whose bytes
//! are counted by whom: a server that did not know would count what another one counts. So every
//! such change is written under a key that begins with the time, and every server reads the last
//! minute of them again and again, or what came since it could read last.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use hashbrown::{HashMap, HashSet};
use weir_flow::Name;
use weir_flow::cluster::Change;
use weir_store::{FlowStore, Memory, StoreError};

use super::memory::{decode, encode};
use super::names::Names;

/// Under what news are kept.
const PREFIX: &[u8] = b"news/1/";
/// For how long, in seconds: whoever cannot read them for longer has to begin anew.
const KEPT_SECONDS: u64 = 7 * 86_400;
/// How far back news are read: servers' clocks may differ, and a store may take its time.
const BACK_SECONDS: u64 = 60;
/// News read at a time.
const PAGE: usize = 4_096;
/// Pages read in a row; the rest is read the next time, from where this ended.
const PAGES: usize = 32;

/// What goes back and forth.
pub(super) struct News {
    /// Tells this server's news from the others'.
    server: u64,
    written: u64,
    /// News of others that were taken in, with their time.
    seen: HashMap<Vec<u8>, u64>,
    /// Until when they were read.
    heard: u64,
    /// The last one that was read, where there are more.
    after: Option<Vec<u8>>,
}

impl News {
    /// For who has read everything that was kept at this time.
    pub(super) fn new(now_seconds: u64) -> Self {
        Self {
            // The seeds of hash maps are random, which is random enough for this.
            server: RandomState::new().hash_one(0_u8),
            written: 0,
            seen: HashMap::new(),
            heard: now_seconds,
            after: None,
        }
    }

    /// What others have to know of these changes. What the Kubernetes API tells, it tells them, too.
    pub(super) fn of(&mut self, changes: &[Change], now_seconds: u64) -> Vec<Memory> {
        let told = changes
            .iter()
            .filter(|change| matches!(change, Change::Local { .. } | Change::Enrolled { .. }));
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
        // A clock may have been set back.
        self.heard = self.heard.min(now_seconds);
        let since = self.heard.saturating_sub(BACK_SECONDS);
        self.seen.retain(|_, at| *at >= since);
        let mut after = self.after.take().unwrap_or_else(|| key(since));
        let (mut changes, mut names) = (Vec::new(), Names::default());
        for number in 1..=PAGES {
            let page = match store.remembered(PREFIX, &after, PAGE) {
                Ok(page) => page,
                Err(error) if changes.is_empty() => return Err(error),
                // What was read counts; whether the store is away shows the next time.
                Err(_) => break,
            };
            let Some(last) = page.last() else {
                self.heard = now_seconds;
                break;
            };
            after.clone_from(&last.key);
            self.heard = self.heard.max(time_of(&after).unwrap_or(0)).min(now_seconds);
            if number == PAGES {
                self.after = Some(after.clone());
            }
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

/// Of what waits to be written, lets go of beginnings whose end another server has written
/// meanwhile: a memory that is written again takes the place of what it was.
pub(super) fn without_ended(waiting: &mut Vec<Change>, heard: &[Change]) {
    if waiting.is_empty() {
        return;
    }
    let beginning = |change: &Change| match change {
        Change::Local { node, own, fact } => {
            Some((Name::clone(node), *own, fact.address, fact.from))
        }
        _ => None,
    };
    let is_open =
        |change: &Change| matches!(change, Change::Local { fact, .. } if fact.to.is_none());
    let ended = heard.iter().filter(|change| !is_open(change)).filter_map(beginning);
    let ended: HashSet<_> = ended.collect();
    waiting.retain(|change| {
        !(is_open(change) && beginning(change).is_some_and(|begun| ended.contains(&begun)))
    });
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
        store.remember(&one.of(&[local(1, Some(8))], 80_000)).unwrap();
        let read = other.read(&store, 90_000).unwrap();
        assert_eq!(texts(&read), texts(&[local(1, None), local(1, Some(8))]));
        assert!(other.read(&store, 90_001).unwrap().is_empty() && other.seen.is_empty());
        // A clock that is set back makes nobody skip anything.
        store.remember(&one.of(&[local(2, None)], 70_000)).unwrap();
        let read = texts(&other.read(&store, 70_001).unwrap());
        assert_eq!(read[..1], texts(&[local(2, None)]), "{read:?}");
    }

    #[test]
    fn what_ended_meanwhile_is_not_begun_again() {
        let (open, ended) = (local(1, None), local(1, Some(9)));
        let mut waiting = vec![open.clone(), local(2, None), ended.clone()];
        without_ended(&mut waiting, std::slice::from_ref(&open));
        assert_eq!(waiting.len(), 3);
        without_ended(&mut waiting, std::slice::from_ref(&ended));
        assert_eq!(texts(&waiting), texts(&[local(2, None), ended]));
    }
}
