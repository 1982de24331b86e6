//! What surrounds the agent on a node.

use std::cell::RefCell;
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use serde::Serialize;
use weir_agent::coverage::Counted;
use weir_agent::facts::Facts;
use weir_agent::local::Listening;
use weir_agent::machine::Machine;
use weir_agent::wire::StatusBoard;
use weir_agent::{AgentStatus, Environment};
use weir_conntrack::sysctl::Settings;
use weir_flow::Protocol;
use weir_flow::batch::Gap;
use weir_flow::connection::Listeners;

use crate::health::{Accounting, Health, Phase};

/// The node an agent runs on.
pub(crate) struct Node {
    name: String,
    machine: Machine,
    ears: Ears,
    facts: Facts,
    health: Health,
    board: StatusBoard,
    check: Option<AccountingCheck>,
}

impl Node {
    pub(crate) fn new(
        name: String,
        machine: Machine,
        facts: Facts,
        health: Health,
        board: StatusBoard,
        accounting_wait: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let ears = Ears {
            own: facts.own(),
            listening: RefCell::new(Listening::open()?),
            kernel_is_liberal: Settings::read().tcp_be_liberal == Some(true),
        };
        let check = accounting_wait.map(AccountingCheck::new);
        Ok(Self { name, machine, ears, facts, health, board, check })
    }
}

impl Environment for Node {
    fn listeners(&self) -> &dyn Listeners {
        &self.ears
    }

    fn tick_begins(&mut self) -> Vec<Gap> {
        self.ears.own = self.facts.own();
        self.machine.watch_tracking().into_iter().collect()
    }

    fn tick_ends(&mut self, counted: Counted) -> Vec<(String, i64)> {
        if let Some(check) = &mut self.check {
            let settings = Settings::read();
            let before = std::mem::replace(
                &mut self.health.lock().accounting,
                check.judge(settings.accounting, counted, uptime()),
            );
            match (&before, &self.health.lock().accounting) {
                (Accounting::Off(_), Accounting::Works) => tracing::info!("bytes are counted now"),
                (before, Accounting::Off(why)) if !matches!(before, Accounting::Off(_)) => {
                    tracing::error!(why, "no bytes are counted on this node");
                }
                _ => {}
            }
        }
        self.machine.compare(counted)
    }

    fn downtime_bound(&mut self) -> Option<u64> {
        self.machine.downtime_bound()
    }

    fn show(&mut self, mut status: AgentStatus) {
        self.machine.complete(&mut status);
        let accounting = {
            let mut state = self.health.lock();
            state.status = status.clone();
            state.ticked = Some(Instant::now());
            if state.phase == Phase::Starting {
                state.phase = Phase::Reading;
            }
            state.accounting.clone()
        };
        let told = Told::new(&self.name, &status, &accounting, Settings::read());
        match serde_json::to_vec(&told) {
            Ok(json) => self.board.put(json),
            Err(error) => tracing::warn!(%error, "the status cannot be written as JSON"),
        }
    }
}

/// What the reader asks of the node while it reads.
struct Ears {
    own: HashSet<IpAddr>,
    listening: RefCell<Listening>,
    kernel_is_liberal: bool,
}

impl Listeners for Ears {
    fn listens(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.listening.borrow_mut().listens(protocol, address, port)
    }

    fn is_own(&self, address: IpAddr) -> Option<bool> {
        Some(address.is_loopback() || self.own.contains(&address))
    }

    fn kernel_is_liberal(&self) -> bool {
        self.kernel_is_liberal
    }
}

/// Looks whether the kernel counts. Nothing of this stops the agent: what is missing can be put
/// right while it runs.
#[derive(Debug)]
pub(crate) struct AccountingCheck {
    wait: Duration,
    /// Something was counted once.
    worked: bool,
}

impl AccountingCheck {
    pub(crate) fn new(wait: Duration) -> Self {
        Self { wait, worked: false }
    }

    /// What a tick says about it. Entries that were made before accounting was switched on never
    /// count; a node that has only such is given time.
    pub(crate) fn judge(
        &mut self,
        setting: Option<bool>,
        counted: Counted,
        uptime: Duration,
    ) -> Accounting {
        if setting == Some(false) {
            self.worked = false;
            let remedy = "run `sysctl -w net.netfilter.nf_conntrack_acct=1` on the node, or let \
                          the agent do it with --set-sysctls";
            return Accounting::Off(format!("net.netfilter.nf_conntrack_acct is 0: {remedy}"));
        }
        self.worked |= counted.bytes > 0;
        if self.worked {
            return Accounting::Works;
        }
        if counted.entries_without_counters == 0 || uptime < self.wait {
            return Accounting::Unknown;
        }
        Accounting::Off(format!(
            "{} entries carry no counters and nothing was counted yet: connections opened before \
             accounting was switched on are never counted, new ones will be",
            counted.entries_without_counters
        ))
    }
}

fn uptime() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split(' ').next().and_then(|seconds| seconds.parse().ok());
    seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(Duration::MAX)
}

/// The agent's status in the shape of one node of the API's `/status`. Absent is unknown.
#[derive(Serialize)]
struct Told<'a> {
    node: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    pid: u32,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_limits: Option<&'static str>,
    accounting: Option<bool>,
    timestamps: Option<bool>,
    events_setting: Option<u8>,
    table_max: Option<u64>,
    table_count: Option<u64>,
    coverage: Option<f64>,
    causes: Vec<Cause<'a>>,
    interval_seconds: f64,
    tick_cpu_seconds: f64,
    ticks: u64,
    connections: usize,
    records: u64,
    billed_bytes: u64,
    destroy_events: u64,
    lost_events: u64,
    malformed_messages: u64,
    ended_unseen: u64,
    foreign_zeroings: u64,
    stale_entries: u64,
    shadow_entries: u64,
    uncounted_entries: u64,
    picked_up: u64,
    spool_bytes: u64,
    undelivered_batches: u64,
    spool_dropped_batches: u64,
    delivery_waits: Option<&'a str>,
}

#[derive(Serialize)]
struct Cause<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Told<'a> {
    fn new(
        node: &'a str,
        status: &'a AgentStatus,
        accounting: &'a Accounting,
        settings: Settings,
    ) -> Self {
        let mut causes: Vec<_> =
            status.causes.iter().map(|(name, text)| Cause { name, text }).collect();
        if let Accounting::Off(why) = accounting {
            causes.push(Cause { name: "accounting_off", text: why });
        }
        Self {
            node,
            state: "reading",
            reason: None,
            pid: std::process::id(),
            source: status.source,
            source_limits: status.source_limits,
            accounting: settings.accounting,
            timestamps: settings.timestamps,
            events_setting: settings.events,
            table_max: settings.max,
            table_count: settings.count,
            coverage: status.coverage,
            causes,
            interval_seconds: status.interval.as_secs_f64(),
            tick_cpu_seconds: status.tick_cpu.as_secs_f64(),
            ticks: status.ticks,
            connections: status.connections,
            records: status.records,
            billed_bytes: status.billed_bytes,
            destroy_events: status.events,
            lost_events: status.lost_events,
            malformed_messages: status.malformed,
            ended_unseen: status.ended_unseen,
            foreign_zeroings: status.ledger.foreign_zeroings,
            stale_entries: status.ledger.stale_entries,
            shadow_entries: status.ledger.shadow_entries,
            uncounted_entries: status.ledger.uncounted_entries,
            picked_up: status.ledger.picked_up,
            spool_bytes: status.spool_bytes,
            undelivered_batches: status.undelivered,
            spool_dropped_batches: status.dropped,
            delivery_waits: status.waiting_because.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounting_is_judged_by_what_is_counted_and_recovers() {
        let mut check = AccountingCheck::new(Duration::from_mins(5));
        let counted = |bytes, without| Counted {
            bytes,
            entries_without_counters: without,
            ..Counted::default()
        };
        let (young, old) = (Duration::from_mins(1), Duration::from_mins(9));
        assert_eq!(check.judge(Some(true), counted(0, 0), old), Accounting::Unknown, "idle");
        assert_eq!(check.judge(Some(true), counted(0, 7), young), Accounting::Unknown);
        let Accounting::Off(why) = check.judge(Some(true), counted(0, 7), old) else {
            panic!("nothing is counted");
        };
        assert!(why.starts_with("7 entries carry no counters"), "{why}");
        assert_eq!(check.judge(Some(true), counted(9, 7), old), Accounting::Works);
        assert_eq!(check.judge(None, counted(0, 7), old), Accounting::Works, "a quiet tick");
        let Accounting::Off(why) = check.judge(Some(false), counted(9, 0), old) else {
            panic!("it is switched off");
        };
        assert!(why.contains("sysctl -w net.netfilter.nf_conntrack_acct=1"), "{why}");
        assert_eq!(check.judge(Some(true), counted(0, 0), old), Accounting::Unknown);
    }
}
