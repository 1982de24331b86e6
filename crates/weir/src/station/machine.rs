//! What surrounds the agent on this machine: its endpoints, its tracking and interfaces, and the
//! status to show.

use weir_agent::coverage::Counted;
use weir_agent::machine::Machine;
use weir_agent::{AgentStatus, Environment};
use weir_flow::batch::Gap;
use weir_flow::connection::Listeners;

use super::Watcher;
use super::directory::{ReaderView, SharedDirectory};
use super::status_file::StatusFile;

/// The machine that `weir up` runs on.
pub(super) struct ThisMachine {
    facts: SharedDirectory,
    view: ReaderView,
    machine: Machine,
    status: StatusFile,
    api: Option<String>,
    watcher: Option<Watcher>,
}

impl ThisMachine {
    pub(super) fn new(facts: SharedDirectory, machine: Machine, status: StatusFile) -> Self {
        Self { view: facts.reader_view(), facts, machine, status, api: None, watcher: None }
    }

    /// Statuses say from now on where the API answers.
    pub(super) fn set_api(&mut self, url: String) {
        self.api = Some(url);
    }

    /// Shows each status to somebody from now on.
    pub(super) fn set_watcher(&mut self, watcher: Option<Watcher>) {
        self.watcher = watcher;
    }
}

impl Environment for ThisMachine {
    fn listeners(&self) -> &dyn Listeners {
        &self.view
    }

    fn tick_begins(&mut self) -> Vec<Gap> {
        self.facts.renew(&mut self.view);
        self.machine.watch_tracking().into_iter().collect()
    }

    fn tick_ends(&mut self, counted: Counted) -> Vec<(String, i64)> {
        self.machine.compare(counted)
    }

    fn downtime_bound(&mut self) -> Option<u64> {
        self.machine.downtime_bound()
    }

    fn show(&mut self, mut status: AgentStatus) {
        self.machine.complete(&mut status);
        self.status.write(&status, self.api.as_deref());
        if let Some(watcher) = &mut self.watcher {
            watcher(status);
        }
    }
}
