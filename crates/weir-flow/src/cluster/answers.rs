//! Answers that are not in the book: endpoints made from nothing but an address, each made once.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::endpoint::{Endpoint, EndpointKind, Resolution, Unresolved};
use crate::ranges::Ranges;

use super::networks::Key;

/// Locks, so that several readers of the book seldom wait for each other.
const SHARDS: usize = 16;

/// What kind of answer it is. With the address it says all, until the book's networks or ranges
/// change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    /// Outside the cluster.
    Outside,
    /// Inside, but not to be named.
    Inside(Unresolved),
    /// A node's address, of the node as it probes its pods.
    Probe,
}

type Shard = HashMap<(Key, Answer), Arc<Endpoint>>;

/// Made answers. Readers of the book share it, so it has locks of its own.
#[derive(Debug)]
pub(super) struct Answers {
    shards: [Mutex<Shard>; SHARDS],
    per_shard: usize,
    evicted: AtomicU64,
}

impl Answers {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            per_shard: limit.div_ceil(SHARDS),
            evicted: AtomicU64::new(0),
        }
    }

    /// The answer made before, or made now.
    pub(super) fn get(
        &self,
        key: Key,
        answer: Answer,
        make: impl FnOnce() -> Endpoint,
    ) -> Arc<Endpoint> {
        let mut shard = lock(&self.shards[usize::from(key.last_byte()) % SHARDS]);
        if let Some(made) = shard.get(&(key, answer)) {
            return Arc::clone(made);
        }
        if shard.len() >= self.per_shard {
            self.evicted.fetch_add(shard.len() as u64, Ordering::Relaxed);
            shard.clear();
        }
        let made = Arc::new(make());
        shard.insert((key, answer), Arc::clone(&made));
        made
    }

    /// Forgets all answers, because what they were made from has changed.
    pub(super) fn clear(&mut self) {
        for shard in &mut self.shards {
            shard.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

/// A shard is whole between two calls, whatever became of a thread that held it.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An endpoint outside the cluster.
pub(super) fn outside(address: IpAddr, ranges: &Ranges) -> Endpoint {
    let bare = Endpoint::bare(EndpointKind::External, address);
    let Some(range) = ranges.lookup(address) else { return bare };
    let own = range.name.is_some();
    Endpoint {
        zone: range.zone.clone(),
        region: range.region.clone(),
        cloud: range.cloud.clone(),
        cloud_service: range.service.clone(),
        range: range.name.clone(),
        resolution: Some(if own { Resolution::OperatorRange } else { Resolution::CloudRange }),
        ..bare
    }
}
