//! The cluster as its API and its agents tell of it: the server's only room that knows Kubernetes.
//!
//! Watchers ([`Watched`]) follow pods, nodes, services, namespaces and the owners of pods, keep
//! little of each object, and tell the pure book ([`weir_flow::cluster::Cluster`]) what it means.
//! The book answers for every batch. What changes in it is kept in the store and read back at the
//! next start, so that batches from before a restart are attributed by their own time. Where the
//! API cannot be reached, or refuses a resource, metering goes on; the state says what is missing
//! and what to do.

mod book;
mod connect;
mod follow;
mod lenient;
mod memory;
mod names;
mod news;
mod objects;
mod pods;
mod review;
mod status;

use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

use kube::Client;
use kube::runtime::watcher::Event;
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use weir_flow::cluster::{Cluster, Counts, LocalFact, Uid, Update};
use weir_flow::ranges::Ranges;
use weir_flow::{Directory, Homes, Name, WallTime};
use weir_store::FlowStore;

use self::book::{Book, Told};
use self::objects::{Jobs, Namespaces, Nodes, Object, Pods, ReplicaSets, Services};
use self::status::Resources;
use crate::ingest::Directories;
use crate::query::Clock;
use crate::wire::{Announce, Announcement};

pub use self::connect::{Access, ClusterError};
pub use self::follow::Pace;
pub use self::memory::MemoryCounts;
pub use self::review::{Reviewer, ReviewerConfig};
pub use self::status::ResourceStatus;

/// What of the API's objects counts.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Labels of pods that are kept.
    pub pod_labels: Vec<Box<str>>,
    /// Labels of namespaces that are kept for their pods, where a pod has none of that name.
    pub namespace_labels: Vec<Box<str>>,
    /// The label that the agents' pods have: key and value.
    pub agent_selector: (Box<str>, Box<str>),
    /// The service accounts that the agents' pods run as: namespace and name.
    pub agent_accounts: Vec<(Box<str>, Box<str>)>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            pod_labels: Vec::new(),
            namespace_labels: Vec::new(),
            agent_selector: ("app.kubernetes.io/name".into(), "weir-agent".into()),
            agent_accounts: vec![("weir".into(), "weir-agent".into())],
        }
    }
}

/// How the cluster is watched.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// How the book is kept.
    pub book: weir_flow::cluster::Config,
    /// What of the API's objects counts.
    pub rules: Rules,
    /// How long things may take.
    pub pace: Pace,
}

/// The cluster's book, kept up to date.
pub struct Watched {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    watching: Option<JoinHandle<()>>,
    keeper: Option<memory::Keeper>,
}

/// How far the watches are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The first lists of pods and nodes are in the book.
    pub is_synced: bool,
    /// How often something was heard, or failed.
    pub times: u64,
}

/// The book and what feeds it.
struct Shared {
    cluster: RwLock<Cluster>,
    book: Mutex<Book>,
    resources: Mutex<Resources>,
    /// How many kinds of objects were listed, or could not be.
    first_lists: watch::Sender<usize>,
    heard: watch::Sender<Heard>,
    clock: Clock,
    pace: Pace,
}

impl Watched {
    /// A book that knows what `store` remembers of it and keeps remembering it there. Nothing is
    /// watched yet.
    pub fn open(
        config: Config,
        store: Option<Arc<dyn FlowStore>>,
        clock: Clock,
    ) -> Result<Self, ClusterError> {
        let mut book = config.book;
        if store.is_none() {
            // Nobody would take them.
            book.limits.changes = 0;
        }
        let mut cluster = Cluster::new(book);
        let begun = clock();
        if let Some(store) = &store {
            memory::restore(&mut cluster, &**store)?;
        }
        let shared = Arc::new(Shared {
            cluster: RwLock::new(cluster),
            book: Mutex::new(Book::new(config.rules)),
            resources: Mutex::default(),
            first_lists: watch::Sender::new(0),
            heard: watch::Sender::new(Heard::default()),
            clock,
            pace: config.pace,
        });
        let keeper = store.map(|store| memory::Keeper::start(Arc::clone(&shared), store, begun));
        let keeper = keeper.transpose().map_err(|source| ClusterError::Start { source })?;
        Ok(Self { shared, stop: None, watching: None, keeper })
    }

    /// Watches the API from a thread of its own until this is dropped. An API that cannot be
    /// reached is no error: it is tried again and again.
    pub fn watch(&mut self, access: Access) -> Result<(), ClusterError> {
        let shared = Arc::clone(&self.shared);
        let (stop, stopped) = oneshot::channel();
        let (says, hears) = mpsc::sync_channel(1);
        let failed = |source| ClusterError::Start { source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let run = move || {
            runtime.block_on(async {
                match access.client().await {
                    Ok(client) => {
                        // Whoever started this waits for the word.
                        drop(says.send(Ok(())));
                        tokio::select! {
                            () = shared.watch(&client) => {}
                            // Told to stop, or forgotten: the same here.
                            _ = stopped => {}
                        }
                    }
                    Err(error) => drop(says.send(Err(error))),
                }
            });
        };
        let thread = thread::Builder::new().name("cluster".to_owned()).spawn(run);
        self.watching = Some(thread.map_err(failed)?);
        self.stop = Some(stop);
        hears.recv().unwrap_or_else(|_| Err(failed(io::ErrorKind::BrokenPipe.into())))
    }

    /// Looks addresses outside the cluster up in these from now on.
    pub fn set_ranges(&self, ranges: Arc<Ranges>) {
        self.shared.write().set_ranges(ranges);
    }

    /// Tells the book something else than the API does.
    pub fn apply(&self, update: Update) {
        self.shared.write().apply(update);
    }

    /// The node that a pod runs on.
    pub fn node_of(&self, pod_uid: &str) -> Option<Name> {
        locked(&self.shared.book).node_of(Uid::of(pod_uid))
    }

    /// Whether a node has an agent at that time.
    pub fn is_enrolled(&self, node: &str, at: WallTime) -> bool {
        self.shared.read().as_seen_by(node, 0).enrolled(node, at)
    }

    /// What the book holds, what it answered, and what it let go.
    pub fn counts(&self) -> Counts {
        self.shared.read().counts()
    }

    /// Objects that were left out because they lack what makes them one.
    pub fn odd_objects(&self) -> u64 {
        locked(&self.shared.book).odd
    }

    /// How each kind of object is.
    pub fn resources(&self) -> Vec<ResourceStatus> {
        locked(&self.shared.resources).status((self.shared.clock)())
    }

    /// What was kept in the store, and what could not be. `None`: nothing is.
    pub fn memory(&self) -> Option<MemoryCounts> {
        self.keeper.as_ref().map(memory::Keeper::counts)
    }

    /// How far the watches are; changes with everything they hear, failures included.
    pub fn heard(&self) -> watch::Receiver<Heard> {
        self.shared.heard.subscribe()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Nobody listens where the thread has ended already.
            let _ended = stop.send(());
        }
        if let Some(watching) = self.watching.take() {
            // A panic there was reported when it happened.
            drop(watching.join());
        }
    }
}

impl Directories for Watched {
    fn lend(&self, observer: &str, skew_nanos: u64, ask: &mut dyn FnMut(&dyn Directory)) {
        let cluster = self.shared.read();
        ask(&cluster.as_seen_by(observer, skew_nanos));
    }
}

impl Announce for Watched {
    fn announce(&self, announcement: Announcement) {
        let Announcement { node, complete, facts, at } = announcement;
        let of = |wanted: bool| -> Vec<LocalFact> {
            let wanted = facts.iter().filter(|fact| fact.own == wanted);
            wanted
                .map(|fact| LocalFact { address: fact.address, from: fact.from, to: fact.to })
                .collect()
        };
        let mut cluster = self.shared.write();
        for own in [true, false] {
            let (node, facts) = (Name::clone(&node), of(own));
            if complete {
                cluster.apply(Update::LocalAll { node, own, facts, at });
            } else if !facts.is_empty() {
                cluster.apply(Update::Local { node, own, facts });
            }
        }
    }

    fn speaks(&self, node: &str, since: WallTime) {
        self.apply(Update::Enrolled { node: Name::from(node), from: since });
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Cluster> {
        self.cluster.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Cluster> {
        self.cluster.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch(&self, client: &Client) {
        let client = || client.clone();
        tokio::join!(
            follow::follow::<Nodes>(self, client(), self.pace),
            follow::follow::<Namespaces>(self, client(), self.pace),
            follow::follow::<ReplicaSets>(self, client(), self.pace),
            follow::follow::<Jobs>(self, client(), self.pace),
            follow::follow::<Services>(self, client(), self.pace),
            async {
                self.wait_for_others().await;
                follow::follow::<Pods>(self, client(), self.pace).await;
            },
        );
    }

    /// Pods come last, so that their owners, nodes and namespaces are known. Whoever does not come
    /// soon is not waited for.
    async fn wait_for_others(&self) {
        let mut first_lists = self.first_lists.subscribe();
        let others = first_lists.wait_for(|lists| *lists >= status::KINDS - 1);
        // Either way the pods' turn has come.
        let _waited = tokio::time::timeout(self.pace.patience * 2, others).await;
    }

    fn begin_list<K: Told>(&self) -> u32 {
        locked(&self.resources).of::<K>().begin_list()
    }

    fn failed<K: Told>(&self, error: String) {
        let now = (self.clock)();
        tracing::warn!(resource = K::PLURAL, %error, "cannot follow the cluster");
        if locked(&self.resources).of::<K>().failed(error, now) {
            self.first_lists.send_modify(|lists| *lists += 1);
        }
        self.heard.send_modify(|heard| heard.times += 1);
    }

    /// Takes in what happened.
    fn take<K: Told>(&self, event: Event<Object<K>>, list: u32) {
        let now = (self.clock)();
        let is_complete = matches!(event, Event::InitDone);
        let (updates, objects) = {
            let mut book = locked(&self.book);
            let updates = match event {
                Event::Init => Vec::new(),
                Event::InitApply(object) | Event::Apply(object) => {
                    K::put(&mut book, &object, list, now)
                }
                Event::Delete(object) => K::delete(&mut book, &object, now),
                Event::InitDone => K::sweep(&mut book, list, now),
            };
            (updates, K::count(&book))
        };
        if !updates.is_empty() {
            let mut cluster = self.write();
            for update in updates {
                cluster.apply(update);
            }
        }
        let is_synced = {
            let mut resources = locked(&self.resources);
            if resources.of::<K>().heard(objects, is_complete, now) {
                self.first_lists.send_modify(|lists| *lists += 1);
            }
            is_complete && resources.is_synced()
        };
        if is_synced {
            self.write().apply(Update::Synced { at: now });
        }
        self.heard.send_modify(|heard| {
            heard.is_synced |= is_synced;
            heard.times += 1;
        });
    }

    /// Notes that the book is complete until now, where it is.
    fn note_complete(&self) {
        let now = (self.clock)();
        if locked(&self.resources).is_current(now) {
            self.write().apply(Update::Synced { at: now });
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // Many errors repeat their cause in their own text.
    texts.dedup_by(|later, earlier| earlier.contains(later.as_str()));
    texts.join(": ")
}
