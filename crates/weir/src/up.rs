//! `weir up`: the whole pipeline in one process.
//!
//! kernel → ledger → spool → ingest → store, as threads: the reader (this one), the spool's
//! writer, the delivery, and one that keeps the local directory fresh.

mod directory;
mod machine;
mod screen;
mod status_file;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing_subscriber::EnvFilter;
use weir_agent::{Agent, AgentConfig, ConntrackSource, Deliver, Spool, SpoolLimits, clock, pages};
use weir_conntrack::tracking::{Installed, Probe, Tracking};
use weir_conntrack::{Events, capability, sysctl};
use weir_flow::ingest::Answer;
use weir_server::{Ingest, IngestCounts};
use weir_store::{FlowStore, Limits, Options, SqliteStore};

use self::directory::SharedDirectory;
use self::machine::Machine;
use self::screen::Screen;
use self::status_file::{State, StatusFile};
use crate::args::UpArgs;
use crate::top::host_name;
use crate::{data_dir, unprivileged};

/// Runs until a signal ends it.
pub(crate) fn run(mut args: UpArgs) -> anyhow::Result<()> {
    log_to_stderr();
    pages::keep_small();
    let stopping = stop_on_signals()?;
    if !capability::net_admin()? {
        return unprivileged::watch(args.interval, args.plain, &stopping);
    }

    let directory = data_dir::choose(args.data_dir.data_dir.take())?;
    let options = Options { retention: args.retention, limits: Limits::default() };
    let store = Arc::new(SqliteStore::open(&directory, options)?);
    let status = StatusFile::new(&directory);
    status.write_state(State::Starting);
    let result = meter(&args, &directory, &store, status.clone(), &stopping);
    // However it ended: the next reader of the status should not wait for a word.
    status.write_state(State::Stopped);
    result?;
    say("stopped; everything that was read is stored or in the spool");
    Ok(())
}

fn meter(
    args: &UpArgs,
    directory: &Path,
    store: &Arc<SqliteStore>,
    status: StatusFile,
    stopping: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let UpArgs { interval, cpu_budget, activate_conntrack, no_set_sysctls, plain, .. } = *args;
    if no_set_sysctls {
        check_sysctls();
    } else {
        set_sysctls();
    }
    // Listening before anything else: even the packet that probes tracking is heard to end.
    let source = ConntrackSource::open(Events::RECEIVE_BUFFER_BYTES)?;
    let (tracking, installed) = prepare_tracking(activate_conntrack)?;
    // A clean exit takes our table away, and so does a failed start; the settings stay.
    let _activated = installed.map(|_| Activated);
    say(&format!(
        "source: conntrack over netlink (this process has CAP_NET_ADMIN), {} KiB for waiting events",
        source.receive_buffer_bytes() / 1024
    ));
    if source.receive_buffer_bytes() < Events::RECEIVE_BUFFER_BYTES {
        say(
            "the kernel granted a smaller event buffer than asked for: bursts may be lost (counted)",
        );
    }
    let boot = clock::boot_id()?;
    let spool_directory = directory.join("spool");
    let (spool, recovered) =
        Spool::open(&spool_directory, boot, clock::wall(), SpoolLimits::default())?;
    match recovered.last_sealed {
        None => say("new spool: what passed before now is the baseline and is not billed"),
        Some(_) => say("spool found: continuing where the last run ended"),
    }

    let facts = SharedDirectory::new(&host_name());
    facts.keep_fresh(stopping);
    let ingest = Ingest::new(host_name(), Arc::clone(store) as Arc<dyn FlowStore>, facts.clone())
        .context("read what the store has committed")?;
    let mut in_process = InProcess::new(
        ingest,
        Arc::clone(store) as Arc<dyn FlowStore>,
        Arc::clone(status.ingest()),
    );
    let screen = Screen::new(Arc::clone(store), plain, interval);
    let down_since = recovered.last_sealed;
    let mut machine =
        Machine::new(facts, tracking, installed, down_since, &spool_directory, status, screen)?;
    let config = AgentConfig { interval, cpu_budget, ..AgentConfig::default() };
    Agent::new(config, source, spool, recovered).run(&mut machine, &mut in_process, stopping)?;
    Ok(())
}

/// The nftables table that keeps conntrack at work stands; dropping this removes it.
struct Activated;

impl Drop for Activated {
    fn drop(&mut self) {
        remove_tracking();
    }
}

/// Makes the kernel count, as far as it may, and says what it did.
fn set_sysctls() {
    let enabled = sysctl::enable();
    for change in &enabled.changed {
        say(&format!("set {} from {} to {}", change.name, change.from, change.to));
    }
    for refusal in &enabled.refused {
        say(&format!("warning: {refusal} ({})", refusal.source));
    }
}

fn check_sysctls() {
    if !sysctl::Settings::read().is_complete() {
        say(
            "warning: net.netfilter.nf_conntrack_{acct,timestamp,events} are not all 1: run without \
             --no-set-sysctls, or `sysctl -w net.netfilter.nf_conntrack_acct=1 \
             net.netfilter.nf_conntrack_timestamp=1 net.netfilter.nf_conntrack_events=1`",
        );
    }
}

/// Makes the kernel track, if that was asked for; else says where it does not.
fn prepare_tracking(activate: bool) -> anyhow::Result<(Tracking, Option<Installed>)> {
    let mut tracking = Tracking::open()?;
    // A table of ours that stands already was left by a run that was killed: it is adopted.
    let left_over = tracking.is_installed()?;
    if activate {
        let installed = tracking.install()?;
        say(match installed {
            Installed::New => {
                "conntrack activated by the nftables table inet weir_tracking (removed on exit)"
            }
            Installed::Adopted => "adopted the nftables table inet weir_tracking of an earlier run",
        });
        return Ok((tracking, Some(installed)));
    }
    if !left_over && matches!(tracking.probe()?, Probe::Untracked) {
        say(
            "warning: conntrack is idle here: no firewall rule uses it, so nothing is tracked and \
             nothing can be counted.\n  To activate it with one rule in a table of its own, removed \
             on exit: weir up --activate-conntrack",
        );
    }
    Ok((tracking, None))
}

fn remove_tracking() {
    let removed = Tracking::open().and_then(|mut tracking| tracking.remove());
    match removed {
        Ok(_) => say("removed the nftables table inet weir_tracking"),
        Err(error) => say(&format!(
            "warning: the nftables table stays: {error}; remove it with `nft delete table inet \
             weir_tracking`"
        )),
    }
}

/// Batches go from the spool to the store by a function call.
struct InProcess {
    ingest: Ingest<SharedDirectory>,
    store: Arc<dyn FlowStore>,
    since_prune: u32,
    /// What ingest did, for the status.
    counts: Arc<Mutex<IngestCounts>>,
}

impl InProcess {
    /// Batches between two calls of the store's bounded clean-up.
    const PRUNE_EVERY: u32 = 16;

    fn new(
        ingest: Ingest<SharedDirectory>,
        store: Arc<dyn FlowStore>,
        counts: Arc<Mutex<IngestCounts>>,
    ) -> Self {
        Self { ingest, store, since_prune: 0, counts }
    }
}

impl Deliver for InProcess {
    fn deliver(&mut self, frame: &[u8]) -> Answer {
        let now = clock::wall();
        let answer = self.ingest.accept(frame, now);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.ingest.counts();
        self.since_prune += 1;
        if self.since_prune >= Self::PRUNE_EVERY {
            self.since_prune = 0;
            if let Err(error) = self.store.prune(now.seconds()) {
                tracing::warn!(error = &error as &dyn std::error::Error, "old flows stay for now");
            }
        }
        answer
    }
}

fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // A second signal ends the process at once: the spool is made for that.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stopping))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stopping)))
            .context("listen for signals")?;
    }
    Ok(stopping)
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .compact();
    // Only a second call could fail, and there is none.
    drop(subscriber.try_init());
}

/// A line for the person at the terminal, on stderr: stdout is for the table.
fn say(text: &str) {
    use std::io::Write as _;
    drop(writeln!(std::io::stderr(), "weir: {text}"));
}

/// How often the local directory may be refreshed at most.
const REFRESH: Duration = Duration::from_secs(1);
