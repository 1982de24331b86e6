//! A small Kubernetes API for tests and the demo: it lists, pages and watches the objects it is
//! given, reviews tokens, and misbehaves on demand.
//!
//! It answers as a real API server does, as far as weir asks: typed lists without the items' kinds,
//! watches with bookmarks, streaming lists, metadata alone where that is accepted, `Status` objects
//! with the real codes. It knows no selectors, no writes over HTTP and no TLS.
//!
//! An [`Api`] runs on a thread of its own in the network namespace of the thread that starts it.

mod answer;
mod body;
mod objects;
mod review;
mod serve;
mod state;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::error::LabError;
use state::{Shared, State};

pub use objects::{node, pod, service, timestamp, workload};

/// The bearer token of weir's server, as [`Api::kubeconfig`] has it.
pub const SERVER_TOKEN: &str = "token-of-weir-server";

/// A running Kubernetes API. It ends when this is dropped.
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Whom a token stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenIdentity {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// For whom the token is meant.
    pub audiences: Vec<String>,
    /// The node it is bound to, as the API says it from Kubernetes 1.32 on.
    pub node: Option<String>,
    /// The pod it is bound to: name and uid.
    pub pod: Option<(String, String)>,
    /// When it stops being valid.
    pub expires: Option<SystemTime>,
}

/// What the API can do wrong. All last until [`Api::heal`], but for the two that say otherwise.
/// A resource is named as in its path: `pods`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// 403 to every request for the resource; its open watches end.
    Forbidden {
        /// Which resource.
        resource: String,
    },
    /// The resource's history is forgotten: its open watches end with 410, and so does who wants to
    /// resume one. Once.
    Gone {
        /// Which resource.
        resource: String,
    },
    /// The resource's watches stay open and say nothing.
    Stalled {
        /// Which resource.
        resource: String,
    },
    /// The resource's watches say something that is not JSON. Once.
    Garbage {
        /// Which resource.
        resource: String,
    },
    /// No bookmark is ever sent, not even the one that ends a streaming list.
    NoBookmarks,
    /// Streaming lists are refused with 422, as a server without them does.
    NoWatchList,
    /// Nobody listens, and open connections are cut.
    Refused,
    /// Every answer waits that long.
    Slow {
        /// How long.
        delay: Duration,
    },
    /// 401 to everybody.
    Unauthorized,
    /// Token reviews fail with 500.
    ReviewsFail,
    /// Token reviews ignore the audience asked for, as an authenticator that knows none does.
    AudiencesIgnored,
}

/// How often a resource was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Pages of lists.
    pub lists: u64,
    /// Watches, streaming lists among them.
    pub watches: u64,
    /// Of those, watches that are open now.
    pub open: u64,
}

impl Api {
    /// Starts an API without objects on `address`; port 0 takes a free one.
    pub fn start(address: SocketAddr) -> Result<Self, LabError> {
        let shared = Arc::new(Shared::new(State::default()));
        let (address, thread) = serve::start(address, &shared)?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig for weir's server.
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters:\n- name: lab\n  cluster:\n    server: {}\n\
             users:\n- name: weir-server\n  user:\n    token: {SERVER_TOKEN}\n\
             contexts:\n- name: lab\n  context:\n    cluster: lab\n    user: weir-server\n",
            self.url()
        )
    }

    /// Adds an object, or replaces the one of its kind, namespace and name. It needs `kind` and
    /// `metadata.name`; uid, creation time and resource version are given to it where it has none.
    /// Another uid than before is another object: the old one is deleted first.
    pub fn put(&self, object: Value) -> Result<(), LabError> {
        self.shared.change(|state| state.put(object))
    }

    /// Deletes an object, by kind (`Pod`), namespace (empty: none) and name. False: there was none.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<bool, LabError> {
        self.shared.change(|state| state.delete(kind, namespace, name))
    }

    /// An object as it is now.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.look(|state| state.get(kind, namespace, name))
    }

    /// Makes a token valid, or changes whom it stands for.
    pub fn token(&self, token: &str, identity: TokenIdentity) {
        self.shared.change(|state| {
            state.tokens.insert(token.to_owned(), identity);
        });
    }

    /// Makes a token invalid.
    pub fn revoke(&self, token: &str) {
        self.shared.change(|state| {
            state.tokens.remove(token);
        });
    }

    /// Does something wrong from now on.
    pub fn fault(&self, fault: Fault) {
        self.shared.change(|state| state.fault(fault));
    }

    /// Does everything right again.
    pub fn heal(&self) {
        self.shared.change(|state| state.faults.clear());
    }

    /// How often a resource (`pods`) was asked for.
    pub fn asked(&self, resource: &str) -> Asked {
        self.shared.look(|state| state.asked.get(resource).copied().unwrap_or_default())
    }

    /// How many tokens were reviewed.
    pub fn reviews(&self) -> u64 {
        self.shared.look(|state| state.reviews)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shared.change(|state| state.ended = true);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already; there is nothing left to save.
            drop(thread.join());
        }
    }
}
