//! The local directory, shared: one thread keeps it fresh, others ask it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use weir_agent::clock;
use weir_agent::local::LocalDirectory;
use weir_conntrack::sysctl;
use weir_flow::attribution::Question;
use weir_flow::connection::Listeners;
use weir_flow::{Directory, Endpoint, Protocol};
use weir_server::Directories;

/// How often sockets are looked at, at most.
const REFRESH: Duration = Duration::from_secs(1);
/// What was looked at this long ago is fresh enough for a batch.
const MOMENT: Duration = Duration::from_millis(200);

/// This machine's endpoints, for every thread.
#[derive(Clone)]
pub(super) struct SharedDirectory {
    local: Arc<Mutex<LocalDirectory>>,
    kernel_is_liberal: bool,
    looked: Arc<Mutex<Looked>>,
}

/// When sockets were looked at last, and how long that took.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    at: Option<Instant>,
    cost: Duration,
}

impl SharedDirectory {
    pub(super) fn new(host: &str) -> Self {
        let kernel_is_liberal = sysctl::Settings::read().tcp_be_liberal == Some(true);
        let local = Arc::new(Mutex::new(LocalDirectory::new(host)));
        Self { local, kernel_is_liberal, looked: Arc::default() }
    }

    /// Looks at sockets again and again, so that short-lived ones are known when their flows
    /// arrive. Never takes more than a hundredth of a core.
    pub(super) fn keep_fresh(&self, stopping: &Arc<AtomicBool>) {
        let (shared, stopping) = (self.clone(), Arc::clone(stopping));
        thread::spawn(move || {
            while !stopping.load(Ordering::Acquire) {
                let begun = Instant::now();
                shared.freshen();
                let cost = begun.elapsed();
                thread::sleep(REFRESH.max(cost * 100).min(Duration::from_secs(30)));
            }
        });
    }

    /// Looks once more before the ends of a batch are named, unless that was done a moment ago or
    /// costs too much: a connection that was opened since would bear its host's name only.
    pub(super) fn freshen(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let Looked { at, cost } = *looked;
        if at.is_some_and(|at| at.elapsed() < MOMENT.max(cost * 50)) {
            return;
        }
        let begun = Instant::now();
        self.refresh();
        *looked = Looked { at: Some(Instant::now()), cost: begun.elapsed() };
    }

    /// What the reader may ask at every record without waiting for a refresh.
    pub(super) fn reader_view(&self) -> ReaderView {
        let own = self.lock().own_addresses().collect();
        ReaderView { shared: self.clone(), own }
    }

    /// Brings a view up to date; while a refresh runs, what it knew before will do.
    pub(super) fn renew(&self, view: &mut ReaderView) {
        if let Ok(local) = self.local.try_lock() {
            view.own = local.own_addresses().collect();
        }
    }

    fn refresh(&self) {
        if let Err(error) = self.lock().refresh(clock::wall()) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "this machine's sockets cannot be read; endpoints stay unnamed"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, LocalDirectory> {
        // A refresh that panicked leaves the last complete picture or an older one.
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for SharedDirectory {
    fn resolve(&self, question: &Question) -> Arc<Endpoint> {
        self.lock().resolve(question)
    }
}

impl Directories for SharedDirectory {
    fn lend(&self, _: &str, _: u64, ask: &mut dyn FnMut(&dyn Directory)) {
        ask(self);
    }
}

/// The directory as the reader sees it during a tick.
pub(super) struct ReaderView {
    shared: SharedDirectory,
    own: HashSet<IpAddr>,
}

impl Listeners for ReaderView {
    fn listens(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.shared.lock().listens(protocol, address, port)
    }

    fn is_own(&self, address: IpAddr) -> Option<bool> {
        Some(address.is_loopback() || self.own.contains(&address))
    }

    fn kernel_is_liberal(&self) -> bool {
        self.shared.kernel_is_liberal
    }
}
