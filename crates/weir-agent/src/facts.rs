//! Local facts: which addresses this node has and routes to its pods, and since when.
//!
//! The kernel tells of every change as it happens, so these times are exact where those of the
//! Kubernetes API are whole seconds, and come late. An address that was there before anybody
//! looked is said to be there since [`SINCE_BEFORE`], unless an agent of this boot saw it come.

mod book;
mod message;
mod watch;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hashbrown::HashSet;
use weir_flow::WallTime;
use weir_proto::Fact;

use self::book::Book;
pub use self::watch::watch;

/// Since when an address is there that was there before anybody looked.
pub const SINCE_BEFORE: WallTime = WallTime(0);

/// What is known of this node's addresses, shared between the thread that listens to the kernel and
/// those who ask or announce.
#[derive(Clone, Debug, Default)]
pub struct Facts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    book: Mutex<Book>,
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("book", &self.book).finish_non_exhaustive()
    }
}

/// What an announcer has not said yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// It is all that is known, and replaces what was said before.
    pub complete: bool,
    /// The addresses.
    pub facts: Vec<Fact>,
    /// What to ask with the next time.
    pub cursor: u64,
}

/// How much is known, and what has gone wrong since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactCounts {
    /// Addresses of the node itself.
    pub own: u64,
    /// Addresses routed to pods and containers on it.
    pub routed: u64,
    /// Addresses that are gone and still told of.
    pub past: u64,
    /// Changes seen.
    pub changes: u64,
    /// Times the kernel dropped changes, and everything was read again.
    pub overruns: u64,
    /// Facts not taken or forgotten because there was no room.
    pub dropped: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
}

impl Facts {
    /// Everything known; the first thing to say on a new stream.
    pub fn all(&self) -> News {
        self.lock().all()
    }

    /// What came after `cursor`; everything, where that is too long ago. `None`: nothing did.
    pub fn since(&self, cursor: u64) -> Option<News> {
        self.lock().since(cursor)
    }

    /// The addresses of this node itself, loopback ones aside.
    pub fn own(&self) -> HashSet<IpAddr> {
        let book = self.lock();
        book.present_facts().filter(|fact| fact.own).map(|fact| fact.address).collect()
    }

    /// How much is known.
    pub fn counts(&self) -> FactCounts {
        self.lock().counts()
    }

    /// Calls `ring` after each change. Only the first caller is heard.
    pub(crate) fn on_change(&self, ring: impl Fn() + Send + Sync + 'static) {
        drop(self.0.bell.set(Box::new(ring)));
    }

    fn has_changed(&self) {
        if let Some(ring) = self.0.bell.get() {
            ring();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // A panic while it was held leaves plain data that is valid at every step.
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
