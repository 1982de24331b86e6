//! What the book knows, kept in the store from one start to the next.
//!
//! Changes are written in batches, a little after they happened; what a crash loses of them the
//! API and the agents tell again, but for pods that came and went in that moment.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_flow::cluster::{Bounds, Change, Cluster, LocalFact, Uid};
use weir_flow::time::SECOND;
use weir_flow::{Endpoint, EndpointKind, Name, Resolution, WallTime};
use weir_store::{FlowStore, Memory, StoreError};

use super::names::Names;
use super::news::{self, News};
use super::{Shared, chain};

/// Between two writes.
const TICK: Duration = Duration::from_secs(2);
/// Ticks between two notes that the book is complete, where nothing else happens.
const QUIET_TICKS: u64 = 5;
/// How long the past is kept: no spool is older.
const KEPT_SECONDS: u64 = 7 * 86_400;
/// Ticks between two looks for what is too old.
const FORGET_TICKS: u64 = 300;
/// Changes written at once.
const AT_ONCE: usize = 4_096;
/// Changes that wait for a store that fails; the oldest go first.
const WAITING: usize = 100_000;

const PREFIX: &[u8] = b"cluster/1/";

/// What was kept, and what could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryCounts {
    /// Changes written.
    pub written: u64,
    /// Changes that wait because the store fails.
    pub waiting: u64,
    /// Changes given up because the store failed for too long.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    waiting: AtomicU64,
    lost: AtomicU64,
}

/// Writes the book's changes until it is dropped, the last ones then.
#[derive(Debug)]
pub(super) struct Keeper {
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
}

impl Keeper {
    /// `restored`: when the book was begun from what was kept.
    pub(super) fn start(
        shared: Arc<Shared>,
        store: Arc<dyn FlowStore>,
        restored: WallTime,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::sync_channel(1);
        let counters = Arc::new(Counters::default());
        let news = store.is_shared().then(|| News::new(restored.seconds()));
        let counters_there = Arc::clone(&counters);
        let mut keeping =
            Keeping { shared, store, counters: counters_there, waiting: Vec::new(), news };
        let run = move || {
            let mut ticks = 0;
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
                ticks += 1;
                keeping.tick(ticks);
            }
            keeping.shared.note_complete();
            keeping.write();
        };
        let thread = thread::Builder::new().name("cluster-memory".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread), counters })
    }

    pub(super) fn counts(&self) -> MemoryCounts {
        let load = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        let Counters { written, waiting, lost } = &*self.counters;
        MemoryCounts { written: load(written), waiting: load(waiting), lost: load(lost) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            drop(thread.join());
        }
    }
}

struct Keeping {
    shared: Arc<Shared>,
    store: Arc<dyn FlowStore>,
    counters: Arc<Counters>,
    /// What the store did not take yet.
    waiting: Vec<Change>,
    /// Where other servers share the store.
    news: Option<News>,
}

impl Keeping {
    fn tick(&mut self, ticks: u64) {
        let mut has_own = self.shared.read().counts().changes > 0;
        has_own |= self.hear();
        if ticks.is_multiple_of(FORGET_TICKS) {
            let now = (self.shared.clock)();
            let horizon = WallTime(now.0.saturating_sub(KEPT_SECONDS * SECOND));
            self.shared.write().forget_before(horizon);
        }
        // Every change says that the book was complete when it was written.
        if has_own || ticks.is_multiple_of(QUIET_TICKS) {
            self.shared.note_complete();
            self.write();
        }
    }

    /// Takes in what agents told other servers. It is not told on: every server reads it itself.
    /// True when there is more of this server's own to write than before.
    fn hear(&mut self) -> bool {
        let Some(news) = &mut self.news else { return false };
        let changes = match news.read(&*self.store, (self.shared.clock)().seconds()) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "cannot read what other servers were told");
                return false;
            }
        };
        if changes.is_empty() {
            return false;
        }
        let own = self.shared.write().take_changes();
        let has_own = !own.is_empty();
        self.waiting.extend(own);
        news::without_ended(&mut self.waiting, &changes);
        let mut changes = changes.into_iter();
        while changes.len() > 0 {
            // Whoever wants the book gets it between.
            let mut cluster = self.shared.write();
            changes.by_ref().take(AT_ONCE).for_each(|change| cluster.hear(change));
        }
        has_own
    }

    fn write(&mut self) {
        self.waiting.append(&mut self.shared.write().take_changes());
        while !self.waiting.is_empty() {
            let now = (self.shared.clock)().seconds();
            let count = self.waiting.len().min(AT_ONCE);
            let changes = &self.waiting[..count];
            let mut memories: Vec<Memory> =
                changes.iter().filter_map(|change| encode(change, now)).collect();
            if let Some(news) = &mut self.news {
                memories.append(&mut news.of(changes, now));
            }
            if let Err(error) = self.store.remember(&memories) {
                tracing::warn!(error = %chain(&error), "cannot keep what is known of the cluster");
                break;
            }
            self.waiting.drain(..count);
            self.counters.written.fetch_add(count as u64, Ordering::Relaxed);
        }
        let lost = self.waiting.len().saturating_sub(WAITING);
        self.waiting.drain(..lost);
        self.counters.lost.fetch_add(lost as u64, Ordering::Relaxed);
        self.counters.waiting.store(self.waiting.len() as u64, Ordering::Relaxed);
    }
}

/// Tells an empty book what the store remembers. What cannot be read, a later weir's perhaps, is
/// left out.
pub(super) fn restore(cluster: &mut Cluster, store: &dyn FlowStore) -> Result<(), StoreError> {
    let mut names = Names::default();
    let (mut after, mut unread) = (Vec::new(), 0_u64);
    loop {
        let page = store.remembered(PREFIX, &after, AT_ONCE)?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.key);
        for memory in &page {
            match decode(memory, &mut names) {
                // Its agent may go on speaking to another server, and not tell it here.
                Some(change) if store.is_shared() => cluster.hear(change),
                Some(change) => cluster.restore(change),
                None => unread += 1,
            }
        }
    }
    if unread > 0 {
        tracing::warn!(unread, "some of what is kept of the cluster cannot be read; left out");
    }
    Ok(())
}

/// A change as it is written. Texts only, so that a person can read it, too.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Written {
    Held { address: IpAddr, uid: String, who: Box<Who>, from: (u64, u64), to: Option<(u64, u64)> },
    Local { node: String, own: bool, address: IpAddr, from: u64, to: Option<u64> },
    Enrolled { node: String, from: u64, to: Option<u64> },
    Known { until: u64 },
}

/// What an endpoint inside the cluster says.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Who {
    kind: u8,
    resolution: Option<u8>,
    #[serde(flatten)]
    texts: Texts,
}

macro_rules! texts {
    ($($field:ident),+ $(,)?) => {
        #[derive(Debug, Default, Deserialize, Serialize)]
        #[serde(default)]
        struct Texts {
            $(#[serde(skip_serializing_if = "Option::is_none")] $field: Option<String>,)+
        }

        impl Texts {
            fn of(endpoint: &Endpoint) -> Self {
                Self { $($field: endpoint.$field.as_deref().map(str::to_owned),)+ }
            }

            fn put(&self, endpoint: &mut Endpoint, names: &mut Names) {
                $(endpoint.$field = self.$field.as_deref().map(|text| names.get(text));)+
            }
        }
    };
}

texts!(
    namespace,
    pod,
    service,
    workload_kind,
    workload_name,
    node,
    zone,
    region,
    app,
    labels,
    cloud,
);

/// Later changes of the same thing have the same key.
pub(super) fn encode(change: &Change, now_seconds: u64) -> Option<Memory> {
    let pair = |bounds: Bounds| (bounds.earliest.0, bounds.latest.0);
    let (key, written) = match change {
        Change::Held { address, uid, endpoint, from, to } => {
            let who = Box::new(Who {
                kind: endpoint.kind.code(),
                resolution: endpoint.resolution.map(Resolution::code),
                texts: Texts::of(endpoint),
            });
            let uid = format!("{:032x}", uid.0);
            let key = format!("held/{address}/{uid}");
            let (from, to) = (pair(*from), to.map(pair));
            (key, Written::Held { address: *address, uid, who, from, to })
        }
        Change::Local { node, own, fact: LocalFact { address, from, to } } => {
            let key = format!("local/{node}/{own}/{address}/{}", from.0);
            let (from, to) = (from.0, to.map(|to| to.0));
            let node = node.as_ref().to_owned();
            (key, Written::Local { node, own: *own, address: *address, from, to })
        }
        Change::Enrolled { node, from, to } => {
            let key = format!("enrolled/{node}/{}", from.0);
            let node = node.as_ref().to_owned();
            (key, Written::Enrolled { node, from: from.0, to: to.map(|to| to.0) })
        }
        Change::Known { until } => ("known".to_owned(), Written::Known { until: until.0 }),
    };
    Some(Memory {
        key: [PREFIX, key.as_bytes()].concat(),
        value: serde_json::to_vec(&written).ok()?,
        until_seconds: now_seconds + KEPT_SECONDS,
    })
}

pub(super) fn decode(memory: &Memory, names: &mut Names) -> Option<Change> {
    let bounds = |(earliest, latest)| Bounds::between(WallTime(earliest), WallTime(latest));
    Some(match serde_json::from_slice(&memory.value).ok()? {
        Written::Held { address, uid, who, from, to } => {
            let kind = EndpointKind::from_code(who.kind)?;
            let mut endpoint = Endpoint {
                resolution: who.resolution.and_then(Resolution::from_code),
                ..Endpoint::bare(kind, address)
            };
            who.texts.put(&mut endpoint, names);
            let uid = Uid(u128::from_str_radix(&uid, 16).ok()?);
            let (from, to) = (bounds(from), to.map(bounds));
            Change::Held { address, uid, endpoint: Arc::new(endpoint), from, to }
        }
        Written::Local { node, own, address, from, to } => {
            let fact = LocalFact { address, from: WallTime(from), to: to.map(WallTime) };
            Change::Local { node: names.get(&node), own, fact }
        }
        Written::Enrolled { node, from, to } => {
            let (from, to) = (WallTime(from), to.map(WallTime));
            Change::Enrolled { node: Name::from(node), from, to }
        }
        Written::Known { until } => Change::Known { until: WallTime(until) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Vec<Change> {
        let address = "fd00::1".parse().unwrap();
        let endpoint = Endpoint {
            namespace: Some("shop".into()),
            pod: Some("api-\u{1b}[2J".into()),
            workload_kind: Some("Deployment".into()),
            workload_name: Some("api".into()),
            node: Some("n1".into()),
            zone: Some("a".into()),
            labels: Some("team=x,tier=y".into()),
            resolution: Some(Resolution::Directory),
            ..Endpoint::bare(EndpointKind::Pod, address)
        };
        let held = |to| Change::Held {
            address,
            uid: Uid(u128::MAX - 5),
            endpoint: Arc::new(endpoint.clone()),
            from: Bounds::between(WallTime(5), WallTime(u64::MAX)),
            to,
        };
        let fact = LocalFact { address, from: WallTime(7), to: None };
        vec![
            held(None),
            held(Some(Bounds::exactly(WallTime(9)))),
            Change::Local { node: "n1".into(), own: true, fact },
            Change::Local {
                node: "n1".into(),
                own: false,
                fact: LocalFact { to: Some(WallTime(8)), ..fact },
            },
            Change::Enrolled { node: "n1".into(), from: WallTime(1), to: Some(WallTime(2)) },
            Change::Known { until: WallTime(3) },
        ]
    }

    #[test]
    fn changes_come_back_as_they_were() {
        for change in changes() {
            let memory = encode(&change, 1_000).unwrap();
            assert_eq!(memory.until_seconds, 1_000 + KEPT_SECONDS);
            let read = decode(&memory, &mut Names::default()).unwrap();
            assert_eq!(format!("{read:?}"), format!("{change:?}"));
        }
    }

    #[test]
    fn a_later_change_takes_the_place_of_an_earlier_one() {
        let keys: Vec<_> = changes().iter().map(|change| encode(change, 0).unwrap().key).collect();
        assert_eq!(keys[0], keys[1]);
        assert_ne!(keys[2], keys[3]);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for value in
            ["", "{}", "[]", r#"{"held":{}}"#, r#"{"other":1}"#, r#"{"known":{"until":-1}}"#]
        {
            let memory = Memory { key: PREFIX.into(), value: value.into(), until_seconds: 0 };
            assert!(decode(&memory, &mut Names::default()).is_none(), "{value}");
        }
    }
}
