//! Putting the agent together, and running it until it is told to stop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use weir_agent::facts::{self, Facts};
use weir_agent::machine::Machine;
use weir_agent::tracking::{self, Activated};
use weir_agent::wire::{Speaker, StatusBoard, Wire, WireConfig};
use weir_agent::{Agent, AgentConfig, AgentError, ConntrackSource, Recovered, Spool, clock, pages};
use weir_conntrack::{Events, capability};

use crate::config::Config;
use crate::health::{Health, Phase};
use crate::node::Node;

/// Time between two tries to get hold of the spool.
const LOCK_RETRY: Duration = Duration::from_secs(1);
/// How long the server may take until it has said welcome.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to answer a batch.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// Runs until a signal asks it to end.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    pages::keep_small();
    let stopping = stop_on_signals()?;
    let health = Health::default();
    health.lock().spool_limit = config.limits.bytes;
    if let Some(address) = config.metrics {
        health.serve(address)?;
        tracing::info!(%address, "metrics, /live and /ready");
    }
    if config.tls.is_none() {
        tracing::warn!(
            "INSECURE: plaintext, and nobody says who speaks: whoever is on the way to the server \
             can read and forge everything (--insecure-plaintext)"
        );
    }
    if !capability::net_admin()? {
        bail!(
            "no permission to read connection tracking: the agent needs CAP_NET_ADMIN in the node's \
             network namespace (in Kubernetes: hostNetwork: true and capabilities.add: [NET_ADMIN])"
        );
    }
    if config.set_sysctls {
        tracking::set_sysctls(say);
    } else {
        tracking::check_sysctls("with --set-sysctls", say);
    }
    let how = "weir-agent --activate-conntrack";
    let (tracking, installed) = tracking::prepare(config.activate_conntrack, how, say)?;
    // A clean exit takes our table away, and so does a failed start.
    let _activated = installed.map(|_| Activated::new(say));
    let Some((source, spool, recovered)) = open(config, &health, &stopping)? else {
        return Ok(());
    };
    let facts = Facts::default();
    let watch_ends = Arc::new(AtomicBool::new(false));
    let watching = facts::watch(&facts, &config.spool.join("addresses"), &watch_ends)?;
    let board = StatusBoard::default();
    let speaker =
        Speaker { epoch: spool.epoch(), epoch_born: spool.epoch_born(), boot: spool.boot() };
    let mut wire = Wire::new(wire_config(config), speaker, facts.clone(), board.clone());
    {
        let mut state = health.lock();
        state.wire = Some(wire.status());
        state.facts = Some(facts.clone());
    }
    let down_since = recovered.last_sealed;
    let machine = Machine::new(Some(tracking), installed, down_since, &config.spool, say)?;
    let wait = config.accounting_wait;
    let mut node = Node::new(config.node.clone(), machine, facts, health.clone(), board, wait)?;
    let Config { interval, cpu_budget, .. } = *config;
    let how = AgentConfig { interval, cpu_budget, ..AgentConfig::default() };
    let agent = Agent::new(how, source, spool, recovered);
    note_stop(&health, &stopping);
    tracing::info!(node = config.node, server = %config.server, "reading");
    let ended = agent.run(&mut node, &mut wire, &stopping);
    watch_ends.store(true, Ordering::Release);
    if watching.join().is_err() {
        tracing::error!("the thread that followed addresses has died");
    }
    tracing::info!("stopped");
    Ok(ended?)
}

/// What is needed to read, once no other agent reads here; `None` when told to stop meanwhile.
fn open(
    config: &Config,
    health: &Health,
    stopping: &AtomicBool,
) -> anyhow::Result<Option<(ConntrackSource, Spool, Recovered)>> {
    let mut said = false;
    while !stopping.load(Ordering::Acquire) {
        // Listening before the books are opened: nothing that ends meanwhile is missed.
        let source = ConntrackSource::open(Events::RECEIVE_BUFFER_BYTES)?;
        match Spool::open(&config.spool, clock::boot_id()?, clock::wall(), config.limits) {
            Ok((spool, recovered)) => {
                health.set_phase(Phase::Starting);
                tell(&config.spool, &source, &recovered);
                return Ok(Some((source, spool, recovered)));
            }
            Err(AgentError::Locked { path }) => {
                health.set_phase(Phase::Waiting);
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(
                        spool = %path.display(),
                        "another agent on this node holds the spool; waiting for it to end"
                    );
                }
                drop(source);
                thread::sleep(LOCK_RETRY);
            }
            Err(error) => return Err(error).context("open the spool"),
        }
    }
    Ok(None)
}

fn tell(spool: &Path, source: &ConntrackSource, recovered: &Recovered) {
    let spool = spool.display();
    if recovered.last_sealed.is_some() {
        tracing::info!(%spool, "spool found: continuing where the last run ended");
    } else {
        let meaning = "new spool: what passed before now is the baseline and is not billed";
        tracing::info!(%spool, "{meaning}");
    }
    if source.receive_buffer_bytes() < Events::RECEIVE_BUFFER_BYTES {
        tracing::warn!(
            "the kernel granted a smaller event buffer than asked for: bursts may be lost (counted)"
        );
    }
}

fn wire_config(config: &Config) -> WireConfig {
    WireConfig {
        server: config.server.clone(),
        node: config.node.clone(),
        tls: config.tls.clone(),
        token: config.token.clone(),
        connect_timeout: CONNECT_TIMEOUT,
        answer_timeout: ANSWER_TIMEOUT,
        drain: config.drain,
    }
}

/// Becomes true when a signal asks the process to end. A second one ends it at once: the spool is
/// made for that.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stopping))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stopping)))
            .context("listen for signals")?;
    }
    Ok(stopping)
}

/// Says so when a stop was asked for: whoever sends traffic here should know before it ends.
fn note_stop(health: &Health, stopping: &Arc<AtomicBool>) {
    let (health, stopping) = (health.clone(), Arc::clone(stopping));
    thread::spawn(move || {
        while !stopping.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(200));
        }
        tracing::info!("told to stop: a last look, and what is left is delivered");
        health.set_phase(Phase::Stopping);
    });
}

/// A line for whoever runs the agent.
fn say(text: &str) {
    if text.starts_with("warning: ") { tracing::warn!("{text}") } else { tracing::info!("{text}") }
}
