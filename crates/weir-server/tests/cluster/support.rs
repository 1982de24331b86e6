//! A Kubernetes API, somebody who watches it, and questions.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;
use weir_flow::attribution::Question;
use weir_flow::{Endpoint, Protocol, Side, WallTime};
use weir_lab::kube::{self, Api};
use weir_server::Directories;
use weir_server::cluster::{Access, Config, Pace, ResourceStatus, Rules, Watched};
use weir_store::FlowStore;

/// Nothing here takes that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// An API and the book that follows it.
pub(crate) struct Followed {
    pub(crate) watched: Arc<Watched>,
    pub(crate) api: Api,
    pub(crate) access: Access,
    directory: TempDir,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn now() -> WallTime {
    wall(SystemTime::now())
}

pub(crate) fn wall(time: SystemTime) -> WallTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    WallTime(u64::try_from(since.as_nanos()).unwrap())
}

pub(crate) fn ago(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}

/// Impatient, and with labels to keep.
pub(crate) fn config() -> Config {
    Config {
        rules: Rules {
            pod_labels: vec!["team".into()],
            namespace_labels: vec!["team".into(), "stage".into()],
            ..Rules::default()
        },
        pace: Pace {
            watch_seconds: 1,
            patience: Duration::from_millis(500),
            first_wait: Duration::from_millis(10),
            longest_wait: Duration::from_millis(100),
        },
        ..Config::default()
    }
}

/// An API on a free port of loopback.
pub(crate) fn api() -> Api {
    Api::start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// An API with two nodes, one in each of two zones.
pub(crate) fn api_with_nodes() -> Api {
    let api = api();
    for (name, address, network, zone) in
        [("n1", "10.1.0.1", "10.244.1.0/24", "eu-1a"), ("n2", "10.1.0.2", "10.244.2.0/24", "eu-1b")]
    {
        api.put(kube::node(name, &[ip(address)], &[network], zone)).unwrap();
    }
    api
}

pub(crate) fn clock() -> weir_server::Clock {
    Arc::new(now)
}

/// Follows `api` from now on, with what `store` remembers.
pub(crate) fn follow(api: Api, store: Option<Arc<dyn FlowStore>>) -> Followed {
    let directory = TempDir::new().unwrap();
    let path: PathBuf = directory.path().join("kubeconfig");
    std::fs::write(&path, api.kubeconfig()).unwrap();
    let access = Access::Kubeconfig(path);
    let mut watched = Watched::open(config(), store, clock()).unwrap();
    watched.watch(access.clone()).unwrap();
    Followed { watched: Arc::new(watched), api, access, directory }
}

/// Follows it, and waits for the first lists.
pub(crate) fn followed(api: Api) -> Followed {
    let followed = follow(api, None);
    followed.until("everything is listed", |it| {
        it.watched.resources().iter().filter(|resource| resource.is_synced).count() == 6
    });
    followed
}

impl Followed {
    /// Waits until something is so, looking whenever the book has heard something.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let mut heard = self.watched.heard();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let waits = async {
            while !is_so(self) {
                heard.changed().await.unwrap();
            }
        };
        let waited = runtime.block_on(async { tokio::time::timeout(PATIENCE, waits).await });
        assert!(waited.is_ok(), "never: {what}; {:?}", self.watched.resources());
    }

    /// Who had this address then.
    pub(crate) fn who(&self, address: &str, at: WallTime) -> Arc<Endpoint> {
        who(&self.watched, address, at)
    }

    /// Its name, or why it has none.
    pub(crate) fn name(&self, address: &str, at: WallTime) -> String {
        named(&self.who(address, at))
    }

    pub(crate) fn status(&self, resource: &str) -> ResourceStatus {
        let all = self.watched.resources();
        all.into_iter().find(|status| status.resource == resource).unwrap()
    }

    /// Lets go of the watches; the API and its kubeconfig stay.
    pub(crate) fn stop(self) -> (Api, TempDir) {
        drop(self.watched);
        (self.api, self.directory)
    }
}

pub(crate) fn who(watched: &Watched, address: &str, at: WallTime) -> Arc<Endpoint> {
    let question = Question {
        side: Side::Source,
        protocol: Protocol::TCP,
        address: ip(address),
        port: 40_000,
        peer_address: ip("192.0.2.1"),
        peer_port: 443,
        at,
        latest: at,
    };
    let mut answer = None;
    watched.lend("n1", 0, &mut |directory| answer = Some(directory.resolve(&question)));
    answer.expect("a directory that is lent is asked")
}

pub(crate) fn named(endpoint: &Endpoint) -> String {
    match endpoint.unresolved {
        Some(reason) => format!("{reason:?}"),
        None => endpoint.id(),
    }
}

/// A pod of the namespace `shop` on node `n1`, running for a minute.
pub(crate) fn pod(name: &str, address: &str) -> Value {
    kube::pod("shop", name, "n1", &[ip(address)], ago(60))
}

/// The object with these fields put over its own.
pub(crate) fn with(mut object: Value, fields: &Value) -> Value {
    merge(&mut object, fields);
    object
}

fn merge(into: &mut Value, fields: &Value) {
    match (into.as_object_mut(), fields.as_object()) {
        (Some(into), Some(fields)) => {
            for (key, value) in fields {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *into = fields.clone(),
    }
}

pub(crate) fn owned_by(kind: &str, name: &str, uid: &str) -> Value {
    json!({ "metadata": { "ownerReferences": [
        { "kind": kind, "name": name, "uid": uid, "controller": true },
    ] } })
}
