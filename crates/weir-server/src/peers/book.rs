//! Where other servers are: names looked up again and again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::local::Local;
use super::peer::{Failure, Manners, Peer};
use super::question::{Asked, Told};
use super::{Instance, Options, PEERS_MAX, Place};
use crate::answer::{PeerState, PeerStatus};

/// Names are looked up for this long at most.
const LOOKUP: Duration = Duration::from_secs(5);
/// Until all names were found once, they are looked up this often.
const SOON: Duration = Duration::from_secs(1);

/// Everybody there is.
#[derive(Debug)]
pub(super) struct Book {
    places: Vec<Place>,
    manners: Arc<Manners>,
    refresh: Duration,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    peers: Vec<Arc<Peer>>,
    /// What could not be found, and what is too much.
    missing: Vec<PeerStatus>,
}

impl Book {
    pub(super) fn new(options: Options, instance: Instance) -> Self {
        let Options { places, tls, token, deadline, refresh } = options;
        let missing = places
            .iter()
            .map(|place| missing(place.to_string(), "it was not looked up yet"))
            .collect();
        let manners = Arc::new(Manners { tls, token, deadline, instance });
        let known = Mutex::new(Known { peers: Vec::new(), missing });
        Self { places, manners, refresh, known }
    }

    /// Those to be asked: not this server itself, and each once, by whichever of its addresses
    /// answers.
    pub(super) fn others(&self) -> Vec<Arc<Peer>> {
        let known = self.known();
        let (well, ill): (Vec<_>, Vec<_>) =
            known.peers.iter().partition(|peer| peer.trouble().is_none());
        let mut seen = vec![self.manners.instance];
        let mut others = Vec::new();
        for peer in well.into_iter().chain(ill) {
            match peer.instance() {
                Some(instance) if seen.contains(&instance) => continue,
                Some(instance) => seen.push(instance),
                None => {}
            }
            others.push(Arc::clone(peer));
        }
        others.sort_by_key(|peer| peer.address);
        others
    }

    /// What could not be found.
    pub(super) fn missing(&self) -> Vec<PeerStatus> {
        self.known().missing.clone()
    }

    async fn look_up(&self) {
        let mut found: Vec<(SocketAddr, &Place)> = Vec::new();
        let mut lost = Vec::new();
        for place in &self.places {
            let looked = timeout(LOOKUP, lookup_host((place.host.as_str(), place.port))).await;
            let addresses = match looked {
                Ok(Ok(addresses)) => Ok(addresses.collect::<Vec<_>>()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_late) => Err("no answer in time".to_owned()),
            };
            match addresses {
                Ok(addresses) => found.extend(addresses.into_iter().map(|it| (it, place))),
                Err(error) => lost.push((place, error)),
            }
        }
        found.sort_by_key(|(address, _)| *address);
        found.dedup_by_key(|(address, _)| *address);

        let mut known = self.known();
        let mut peers = Vec::new();
        let mut missed = Vec::new();
        for (address, place) in found {
            if peers.len() > PEERS_MAX {
                let reason = format!("more than {PEERS_MAX} other servers are not asked");
                missed.push(PeerStatus {
                    state: PeerState::Failed,
                    ..missing(address.to_string(), &reason)
                });
                continue;
            }
            let old = known.peers.iter().find(|peer| peer.address == address);
            peers.push(
                old.map_or_else(|| Peer::new(address, &place.host, &self.manners), Arc::clone),
            );
        }
        if !lost.is_empty() {
            // Whoever was found before is most likely still there.
            let gone = |peer: &&Arc<Peer>| peers.iter().all(|it| it.address != peer.address);
            let kept: Vec<Arc<Peer>> = known.peers.iter().filter(gone).cloned().collect();
            peers.extend(kept);
            peers.truncate(PEERS_MAX + 1);
        }
        missed.truncate(PEERS_MAX);
        missed.extend(lost.into_iter().map(|(place, error)| {
            missing(place.to_string(), &format!("the name cannot be looked up: {error}"))
        }));
        known.peers = peers;
        known.missing = missed;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is whole in itself.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(address: String, reason: &str) -> PeerStatus {
    let (state, reason) = (PeerState::Unreachable, Some(reason.to_owned()));
    PeerStatus { address, state, reason, milliseconds: None, nodes: None }
}

/// Looks names up, and learns what others hold, until the runtime ends.
#[expect(clippy::infinite_loop, reason = "a task that its runtime ends")]
pub(super) async fn keep(book: Arc<Book>, local: Arc<Local>) {
    book.look_up().await;
    let mut ticks = interval(book.refresh.min(SOON));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let is_found = book.missing().is_empty();
        if is_found && looked.is_some_and(|at| at.elapsed() < book.refresh) {
            continue;
        }
        book.look_up().await;
        let told = learn(&book).await;
        local.let_go(&told);
        looked = Some(Instant::now());
    }
}

/// What the others hold. Nobody waits for it, so they are asked one after another.
async fn learn(book: &Book) -> Vec<Told> {
    let mut all = Vec::new();
    for peer in book.others() {
        if peer.trouble().is_some() {
            continue;
        }
        let told: Result<Option<Told>, Failure> =
            peer.ask(&Asked::Holds, Instant::now() + book.manners.deadline).await;
        all.extend(told.ok().flatten());
    }
    all
}
