//! What surrounds an agent on any machine: tracking that must stay on, and interfaces to compare
//! with.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weir_conntrack::tracking::{Installed, Tracking};
use weir_flow::WallTime;
use weir_flow::batch::{Gap, GapReason};

use crate::coverage::{Counted, Coverage, Facts, diagnose};
use crate::interfaces::{InterfaceCounters, Interfaces, Moved};
use crate::tracking::Say;
use crate::{AgentError, AgentStatus, clock};

/// A diagnosis reads the whole rule set: not more often than this.
const DIAGNOSE_EVERY: Duration = Duration::from_mins(1);

/// Watches the machine from tick to tick.
#[derive(Debug)]
pub struct Machine {
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
    say: Say,
}

impl Machine {
    /// A machine whose tracking is watched, if `installed` says that it is weir's. `down_since` is
    /// when the last run ended; what is to outlive this one is kept in `spool`.
    pub fn new(
        tracking: Option<Tracking>,
        installed: Option<Installed>,
        down_since: Option<WallTime>,
        spool: &Path,
        say: Say,
    ) -> Result<Self, AgentError> {
        // A new table in an old spool: nothing was tracked since the last run.
        let last_seen_tracking = match (installed, down_since) {
            (Some(Installed::New), Some(since)) => since,
            _ => WallTime(0),
        };
        Ok(Self {
            tracking,
            installed,
            last_seen_tracking,
            interfaces: Interfaces::open()?,
            last: None,
            saved: spool.join("interfaces"),
            coverage: Coverage::default(),
            causes: Vec::new(),
            diagnosed: None,
            say,
        })
    }

    /// Makes sure that tracking is still on, and declares the time it was not.
    pub fn watch_tracking(&mut self) -> Option<Gap> {
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
            (self.say)(
                "the nftables table inet weir_tracking was removed by somebody: restoring it",
            );
            if let Err(error) = tracking.install() {
                (self.say)(&format!("warning: it cannot be restored: {error}"));
            }
        }
        (absent_since > WallTime(0)).then(|| Gap {
            reason: GapReason::TrackingOff,
            from_seconds: absent_since.seconds(),
            to_seconds: now.seconds(),
            ..Gap::default()
        })
    }

    /// Holds what was counted in a tick against what the interfaces moved. Returns health counts.
    pub fn compare(&mut self, counted: Counted) -> Vec<(String, i64)> {
        let Some(moved) = self.moved() else { return Vec::new() };
        self.coverage.add(clock::now().now, counted, &moved);
        let expected = i64::try_from(moved.expected_l3_bytes()).unwrap_or(i64::MAX);
        self.explain(counted, moved);
        vec![("interface_bytes".to_owned(), expected)]
    }

    /// An upper bound for the bytes that passed while no weir ran here.
    pub fn downtime_bound(&mut self) -> Option<u64> {
        let text = fs::read_to_string(&self.saved).ok()?;
        let earlier = InterfaceCounters::from_text(&text).ok()?;
        let now = self.interfaces.read().ok()?;
        now.difference(&earlier)?.upper_bound_bytes()
    }

    /// Says in a status how much of the traffic was counted, and why not all.
    pub fn complete(&self, status: &mut AgentStatus) {
        status.coverage = self.coverage.ratio();
        status.causes.clone_from(&self.causes);
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
