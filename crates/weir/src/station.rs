//! The whole pipeline in one process: what `weir up` runs, and `weir top` where no weir runs.
//!
//! kernel → ledger → spool → ingest → store, as threads: the reader (the one that calls
//! [`Station::run`]), the spool's writer, the delivery, and one that keeps the local directory
//! fresh.

mod delivery;
mod directory;
mod door;
mod machine;
mod status_file;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use weir_agent::machine::Machine;
use weir_agent::tracking::{self, Activated};
use weir_agent::{Agent, AgentConfig, AgentStatus, FlowSource, Spool, SpoolLimits, clock};
use weir_server::query::Board;
use weir_server::{Ingest, Live, Query};
use weir_store::{FlowStore, Limits, Options, Retention, SqliteStore};

use self::delivery::InProcess;
use self::directory::SharedDirectory;
use self::machine::ThisMachine;
use self::status_file::StatusFile;
use crate::say::say;
use crate::top::host_name;

pub(crate) use self::door::Door;
pub(crate) use self::status_file::State;

/// What a station is to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// How long flows are kept.
    pub(crate) retention: Retention,
    /// Time between two readings.
    pub(crate) interval: Duration,
    /// CPU time for reading, as a share of one core.
    pub(crate) cpu_budget: f64,
    /// By which door connections come.
    pub(crate) door: Door,
    /// Make the kernel track.
    pub(crate) activate_conntrack: bool,
    /// Make the kernel count.
    pub(crate) set_sysctls: bool,
}

/// Sees each status after it is known.
pub(crate) type Watcher = Box<dyn FnMut(AgentStatus) + Send>;

/// A pipeline, ready to run.
pub(crate) struct Station {
    store: Arc<SqliteStore>,
    query: Arc<Query>,
    agent: Agent<Box<dyn FlowSource + Send>>,
    machine: ThisMachine,
    delivery: InProcess,
    status: StatusFile,
    _activated: Option<Activated>,
}

impl Station {
    /// Opens everything; nothing is read yet. `stopping` ends what runs beside.
    pub(crate) fn open(plan: &Plan, stopping: &Arc<AtomicBool>) -> anyhow::Result<Self> {
        let options = Options { retention: plan.retention, limits: Limits::default() };
        let store = Arc::new(SqliteStore::open(&plan.data_dir, options)?);
        let board = Arc::new(Board::new(Some(plan.data_dir.display().to_string())));
        let status = StatusFile::new(&plan.data_dir, host_name(), Arc::clone(&board));
        status.write_state(State::Starting, None);
        let opened = Self::open_beside(plan, store, board, &status, stopping);
        if opened.is_err() {
            // The next reader of the status should not wait for a word.
            status.write_state(State::Stopped, None);
        }
        opened
    }

    fn open_beside(
        plan: &Plan,
        store: Arc<SqliteStore>,
        board: Arc<Board>,
        status: &StatusFile,
        stopping: &Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let by_netlink = plan.door == Door::Netlink;
        if by_netlink && plan.set_sysctls {
            tracking::set_sysctls(say);
        } else if by_netlink {
            let how = "with --set-sysctls (weir up: without --no-set-sysctls)";
            tracking::check_sysctls(how, say);
        }
        door::check(&plan.door, &plan.data_dir)?;
        // Listening before anything else: even the packet that probes tracking is heard to end.
        let source = door::open(&plan.door)?;
        // Text and sockets need no permission, and so cannot ask for tracking.
        let (tracking, installed) = if by_netlink {
            let (tracking, installed) =
                tracking::prepare(plan.activate_conntrack, "weir up --activate-conntrack", say)?;
            (Some(tracking), installed)
        } else {
            (None, None)
        };
        // A clean exit takes our table away, and so does a failed start; the settings stay.
        let activated = installed.map(|_| Activated::new(say));
        let boot = clock::boot_id()?;
        let spool_dir = plan.data_dir.join("spool");
        let (spool, recovered) =
            Spool::open(&spool_dir, boot, clock::wall(), SpoolLimits::default())?;
        door::keep(&plan.door, &plan.data_dir)?;
        match recovered.last_sealed {
            None => say("new spool: what passed before now is the baseline and is not billed"),
            Some(_) => say("spool found: continuing where the last run ended"),
        }
        let facts = SharedDirectory::new(&host_name());
        facts.keep_fresh(stopping);
        let live = Arc::new(Live::default());
        let shared = || Arc::clone(&store) as Arc<dyn FlowStore>;
        let query = Arc::new(Query::new(shared(), Arc::clone(&live), board, Arc::new(clock::wall)));
        let ingest = Ingest::new(shared(), facts.clone())
            .context("read what the store has committed")?
            .with_live(live);
        let delivery = InProcess::new(
            ingest,
            shared(),
            Arc::clone(&query),
            facts.clone(),
            Arc::clone(status.ingest()),
        );
        let down_since = recovered.last_sealed;
        let machine = Machine::new(tracking, installed, down_since, &spool_dir, say)?;
        let machine = ThisMachine::new(facts, machine, status.clone());
        let Plan { interval, cpu_budget, .. } = *plan;
        let config = AgentConfig { interval, cpu_budget, ..AgentConfig::default() };
        Ok(Self {
            agent: Agent::new(config, source, spool, recovered),
            status: status.clone(),
            store,
            query,
            machine,
            delivery,
            _activated: activated,
        })
    }

    /// Who answers questions, while it runs and after.
    pub(crate) fn query(&self) -> Arc<Query> {
        Arc::clone(&self.query)
    }

    /// Where flows rest.
    pub(crate) fn store(&self) -> Arc<SqliteStore> {
        Arc::clone(&self.store)
    }

    /// Says in every status where the API answers.
    pub(crate) fn set_api(&mut self, url: String) {
        self.status.write_state(State::Starting, Some(&url));
        self.machine.set_api(url);
    }

    /// Says that it will not run after all.
    pub(crate) fn give_up(&self) {
        self.status.write_state(State::Stopped, None);
    }

    /// Reads, until `stopping`; then takes a last look and delivers what it can.
    pub(crate) fn run(
        mut self,
        watcher: Option<Watcher>,
        stopping: &AtomicBool,
    ) -> anyhow::Result<()> {
        self.machine.set_watcher(watcher);
        let result = self.agent.run(&mut self.machine, &mut self.delivery, stopping);
        // However it ended: the next reader of the status should not wait for a word.
        self.status.write_state(State::Stopped, None);
        Ok(result?)
    }
}
