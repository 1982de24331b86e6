//! The listener, and the way of a request to its answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::time::sleep;

use super::answer::{self, Asks};
use super::body::{self, Said};
use super::state::{RESOURCES, Resource, Shared};
use super::{Fault, SERVER_TOKEN, review, watch};
use crate::error::{LabError, io_error};

/// Listens on `address` from a thread of its own.
pub(super) fn start(
    address: SocketAddr,
    shared: &Arc<Shared>,
) -> Result<(SocketAddr, JoinHandle<()>), LabError> {
    let name = address.to_string();
    let (says, hears) = mpsc::sync_channel(1);
    let shared = Arc::clone(shared);
    // A thread begins in the namespace of the one that makes it.
    let thread = thread::Builder::new()
        .name("kubernetes".to_owned())
        .spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(listen(address, &shared, &says)),
                // Who waits for the address hears of it; nobody else could.
                Err(error) => drop(says.send(Err(error))),
            }
        })
        .map_err(io_error("start a thread for", &name))?;
    let bound = hears.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::BrokenPipe.into()));
    Ok((bound.map_err(io_error("listen on", &name))?, thread))
}

async fn listen(
    address: SocketAddr,
    shared: &Arc<Shared>,
    says: &mpsc::SyncSender<std::io::Result<SocketAddr>>,
) {
    let bound = TcpListener::bind(address).await;
    let bound = bound.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = match bound {
        Ok((address, listener)) => (address, listener),
        Err(error) => return drop(says.send(Err(error))),
    };
    drop(says.send(Ok(address)));
    let mut listener = Some(listener);
    let mut changes = shared.changes();
    loop {
        if shared.look(|state| state.ended) {
            return;
        }
        if is_refused(shared) {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accept => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(converse(stream, Arc::clone(shared)));
                }
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

fn is_refused(shared: &Shared) -> bool {
    shared.look(|state| state.faults.contains(&Fault::Refused))
}

/// Answers one connection until it ends or is to be cut.
async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let mut changes = shared.changes();
    let answers = Arc::clone(&shared);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            // How a connection ended is the other side's business.
            _ = &mut connection => return,
            changed = changes.changed() => {
                if changed.is_err() || is_refused(&shared) {
                    return;
                }
            }
        }
    }
}

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Said> {
    if let Some(delay) = shared.look(|state| {
        state.faults.iter().find_map(|fault| match fault {
            Fault::Slow { delay } => Some(*delay),
            _ => None,
        })
    }) {
        sleep(delay).await;
    }
    let bearer = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let is_known = bearer == Some(&format!("Bearer {SERVER_TOKEN}"));
    if !is_known || shared.look(|state| state.faults.contains(&Fault::Unauthorized)) {
        return answer::unauthorized();
    }
    let path = request.uri().path().to_owned();
    if path == "/version" {
        return answer::version();
    }
    if path == review::PATH {
        if request.method() != Method::POST {
            return answer::method_not_allowed();
        }
        return match body::read(request.into_body()).await {
            Some(asked) => review::answer(&asked, shared),
            None => answer::bad_request("the body is too long or broken"),
        };
    }
    let Some(target) = Target::parse(&path) else { return answer::no_such_path() };
    if request.method() != Method::GET {
        return answer::method_not_allowed();
    }
    let plural = target.resource.plural;
    let asks = match Asks::parse(request.uri().query().unwrap_or_default()) {
        Ok(asks) => asks,
        Err(why) => return answer::bad_request(&why),
    };
    let verb = match (target.name.is_some(), asks.watch) {
        (true, _) => "get",
        (false, true) => "watch",
        (false, false) => "list",
    };
    if shared.look(|state| state.is_forbidden(plural)) {
        return answer::forbidden(target.resource, verb);
    }
    let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let only_metadata = accepted.is_some_and(|accepted| accepted.contains("PartialObjectMetadata"));
    match verb {
        "get" => answer::get(shared, &target, only_metadata),
        "watch" => watch::answer(shared, &target, &asks, only_metadata),
        _ => answer::list(shared, &target, &asks, only_metadata),
    }
}

/// What a path names.
pub(super) struct Target {
    pub(super) resource: &'static Resource,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, plural, name) = match *rest {
            ["namespaces", namespace, plural] => (Some(namespace), plural, None),
            ["namespaces", namespace, plural, name] => (Some(namespace), plural, Some(name)),
            [plural] => (None, plural, None),
            [plural, name] => (None, plural, Some(name)),
            _ => return None,
        };
        let resource = RESOURCES.iter().find(|resource| {
            resource.group == group && resource.version == version && resource.plural == plural
        })?;
        Some(Self {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        })
    }
}
