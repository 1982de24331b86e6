//! What surrounds the agent on this machine: tracking that must stay on, interfaces to compare
//! with, the status to show.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use weir_agent::coverage::{Counted, Coverage, Facts, diagnose};
use weir_agent::interfaces::{InterfaceCounters, Interfaces, Moved};
use weir_agent::{AgentStatus, Environment, clock};
use weir_conntrack::tracking::{Installed, Tracking};
use weir_flow::WallTime;
use weir_flow::batch::{Gap, GapReason};
use weir_flow::connection::Listeners;

use super::Watcher;
use super::directory::{ReaderView, SharedDirectory};
use super::status_file::StatusFile;
use crate::say::say;

/// A diagnosis reads the whole rule set: not more often than this.
const DIAGNOSE_EVERY: Duration = Duration::from_mins(1);

pub(super) struct Machine {
    facts: SharedDirectory,
    view: ReaderView,
    /// `None` where the source needs no tracking.
    tracking: Option<Tracking>,
    /// `Some` when weir itself keeps tracking on.
    installed: Option<Installed>,
    last_seen_tracking: WallTime,
    interfaces: Interfaces,
    last: Option<InterfaceCounters>,
    /// The file that remembers `last` for the time weir does not run.
    saved: PathBuf,
    coverage: Coverage,
    causes: Vec<(String, String)>,
    diagnosed: Option<Instant>,
    status: StatusFile,
    api: Option<String>,
    watcher: Option<Watcher>,
}

/// What a machine is made of.
pub(super) struct Surroundings {
    pub(super) facts: SharedDirectory,
    pub(super) tracking: Option<Tracking>,
    pub(super) installed: Option<Installed>,
    /// When the last run ended.
    pub(super) down_since: Option<WallTime>,
    pub(super) spool: PathBuf,
    pub(super) status: StatusFile,
}

impl Machine {
    pub(super) fn new(surroundings: Surroundings) -> anyhow::Result<Self> {
        let Surroundings { facts, tracking, installed, down_since, spool, status } = surroundings;
        // A new table in an old spool: nothing was tracked since the last run.
        let last_seen_tracking = match (installed, down_since) {
            (Some(Installed::New), Some(since)) => since,
            _ => WallTime(0),
        };
        Ok(Self {
            view: facts.reader_view(),
            facts,
            tracking,
            installed,
            last_seen_tracking,
            interfaces: Interfaces::open()?,
            last: None,
            saved: spool.join("interfaces"),
            coverage: Coverage::default(),
            causes: Vec::new(),
            diagnosed: None,
            status,
            api: None,
            watcher: None,
        })
    }

    /// Statuses say from now on where the API answers.
    pub(super) fn set_api(&mut self, url: String) {
        self.api = Some(url);
    }

    /// Shows each status to somebody from now on.
    pub(super) fn set_watcher(&mut self, watcher: Option<Watcher>) {
        self.watcher = watcher;
    }

    /// Makes sure that tracking is still on, and declares the time it was not.
    fn watch_tracking(&mut self) -> Option<Gap> {
        self.installed?;
        let tracking = self.tracking.as_mut()?;
        let now = clock::wall();
        let absent_since = std::mem::replace(&mut self.last_seen_tracking, now);
        let is_new = self.installed == Some(Installed::New) && self.last.is_none();
        let stands = tracking.is_installed().unwrap_or(true);
        if stands && !is_new {
            return None;
        }
        if !stands {
            say("the nftables table inet weir_tracking was removed by somebody: restoring it");
            if let Err(error) = tracking.install() {
                say(&format!("warning: it cannot be restored: {error}"));
            }
        }
        (absent_since > WallTime(0)).then(|| Gap {
            reason: GapReason::TrackingOff,
            from_seconds: absent_since.seconds(),
            to_seconds: now.seconds(),
            ..Gap::default()
        })
    }

    fn moved(&mut self) -> Option<Moved> {
        let now = match self.interfaces.read() {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "interfaces cannot be read; coverage is unknown"
                );
                return None;
            }
        };
        let moved = self.last.as_ref().map(|last| now.difference(last));
        // Best effort: without it a later downtime has no bound, and says so.
        if let Err(error) = fs::write(&self.saved, now.to_text()) {
            tracing::debug!(%error, "interface counters not saved");
        }
        self.last = Some(now);
        let moved = moved?;
        if moved.is_none() {
            self.coverage.skip();
        }
        moved
    }

    fn explain(&mut self, counted: Counted, moved: Moved) {
        if !self.coverage.is_low() {
            self.causes.clear();
            return;
        }
        if self.diagnosed.is_some_and(|at| at.elapsed() < DIAGNOSE_EVERY) {
            return;
        }
        self.diagnosed = Some(Instant::now());
        match Facts::gather(counted, moved) {
            Ok(facts) => {
                let causes = diagnose(&facts).into_iter();
                self.causes = causes
                    .map(|cause| {
                        let remedy = cause.remedy().map(|remedy| format!("; try: {remedy}"));
                        (cause.name().to_owned(), format!("{cause}{}", remedy.unwrap_or_default()))
                    })
                    .collect();
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "coverage is low and the cause cannot be looked for"
            ),
        }
    }
}

impl Environment for Machine {
    fn listeners(&self) -> &dyn Listeners {
        &self.view
    }

    fn tick_begins(&mut self) -> Vec<Gap> {
        self.facts.renew(&mut self.view);
        self.watch_tracking().into_iter().collect()
    }

    fn tick_ends(&mut self, counted: Counted) -> Vec<(String, i64)> {
        let Some(moved) = self.moved() else { return Vec::new() };
        self.coverage.add(clock::now().now, counted, &moved);
        let expected = i64::try_from(moved.expected_l3_bytes()).unwrap_or(i64::MAX);
        self.explain(counted, moved);
        vec![("interface_bytes".to_owned(), expected)]
    }

    fn downtime_bound(&mut self) -> Option<u64> {
        let text = fs::read_to_string(&self.saved).ok()?;
        let earlier = InterfaceCounters::from_text(&text).ok()?;
        let now = self.interfaces.read().ok()?;
        now.difference(&earlier)?.upper_bound_bytes()
    }

    fn show(&mut self, mut status: AgentStatus) {
        status.coverage = self.coverage.ratio();
        status.causes.clone_from(&self.causes);
        self.status.write(&status, self.api.as_deref());
        if let Some(watcher) = &mut self.watcher {
            watcher(status);
        }
    }
}
