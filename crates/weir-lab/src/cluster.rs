//! A run on several nodes: box, truth on each, the Kubernetes API, a server and agents, traffic and
//! faults, comparison.
//!
//! [`ground`] says from the scenario alone where addresses are at home and whose they are, so that
//! [`views`] can tell which node's truth of a connection counts. Nothing of weir's own rules is used.

pub(crate) mod churn;
mod deeds;
pub mod demo;
mod engine;
mod files;
mod gate;
pub mod ground;
pub mod kubenetmon;
mod live;
mod objects;
mod process;
mod relay;
mod report;
mod servers;
mod station;
pub mod totals;
pub mod views;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

pub use churn::Outcome as ChurnOutcome;
pub use engine::EngineOutcome;
pub use live::{LiveLine, Peer};
pub use report::table;
pub use station::Programs;

use crate::compare::{Absence, Comparison, Row, compare, truth_alone};
use crate::error::LabError;
use crate::net::Lab;
use crate::scenario::{ActionKind, Place, Scenario, SourcePorts};
use crate::traffic::{Generators, TrafficReport};
use crate::truth::{self, Ports};
use crate::verify::{Data, Options, Watch, check_stop, floors, settle};
use crate::weir;
use deeds::Deed;
use ground::Ground;
use kubenetmon::TableOutcome;
use station::Station;
use totals::TotalsLine;
use views::{Difference, Views};

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// The truth against weir, by address.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// The truth against weir, by owner and class.
    pub totals: Vec<TotalsLine>,
    /// How the nodes' views differ from each other.
    pub views: Difference,
    /// weir has bytes that only carry other bytes in totals that did not ask for them.
    pub transport_in_totals: bool,
    /// What came of pods that own one address in turn.
    pub churn: Option<ChurnOutcome>,
    /// What came of agents that must not be believed.
    pub imposters: Option<Imposters>,
    /// What was done to ClickHouse and to those who write to it.
    pub engine: Option<EngineOutcome>,
    /// What each of several servers told of connections in the middle of the run.
    pub live: Vec<LiveLine>,
    /// kubenetmon's table against the truth.
    pub kubenetmon: Option<TableOutcome>,
    /// What the generators did.
    pub traffic: TrafficReport,
    /// True when weir took part.
    pub weir: bool,
    /// An agent was killed: what ended meanwhile may be declared instead of counted.
    pub agent_killed: bool,
}

/// What came of agents that must not be believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imposters {
    /// How many there were.
    pub agents: usize,
    /// Rows that came of them.
    pub rows: usize,
    /// Tokens that stand in the server's log.
    pub tokens_told: usize,
    /// Whose refusal the server's log does not explain.
    pub unexplained: Vec<&'static str>,
    /// The lines that do, one of each.
    pub log: Vec<String>,
}

impl Imposters {
    /// True when nothing came of them, and the log says why without telling a secret.
    pub fn is_good(&self) -> bool {
        self.rows == 0 && self.tokens_told == 0 && self.unexplained.is_empty()
    }
}

impl Outcome {
    /// True when every byte is where it belongs, or is declared.
    pub fn is_good(&self) -> bool {
        if let Some(imposters) = &self.imposters {
            return imposters.is_good();
        }
        if !self.weir {
            return self.views.is_explained();
        }
        let missing: u64 = self.totals.iter().map(TotalsLine::missing).sum();
        let by_address = self.comparison.total.difference.bytes();
        // What weir declares to be missing is missing here too, and no more.
        let declared = i128::from(missing) <= by_address.max(0);
        let churn = self.churn.as_ref().is_none_or(ChurnOutcome::is_good);
        let raced = self.engine.as_ref().is_none_or(EngineOutcome::is_good);
        // In churn the owners' own judge decides: a pair of its address is many pods.
        let totals =
            self.churn.is_some() || (declared && !self.totals.iter().any(TotalsLine::is_excess));
        // Without an absence nothing is missing, whatever is declared.
        let may_declare = self.agent_killed || self.churn.is_some();
        let by_address = self.comparison.is_exact() || (may_declare && self.comparison.is_good());
        let table = self.kubenetmon.as_ref().is_none_or(TableOutcome::is_good);
        by_address && totals && churn && raced && table && !self.transport_in_totals
    }
}

/// Runs a scenario with several nodes. `stop` ends it early with [`LabError::Interrupted`].
pub fn verify(
    scenario: &Scenario,
    ports: &BTreeMap<Place, SourcePorts>,
    options: &Options,
    stop: &AtomicBool,
) -> Result<Outcome, LabError> {
    let lab = Lab::build(scenario, ports)?;
    let nodes: Vec<usize> = (0..scenario.nodes.len()).collect();
    nodes.iter().try_for_each(|node| truth::install(&lab, *node))?;
    let data = Data::make(options)?;
    let mut station = match &options.weir {
        Some(program) => Some(start(&lab, scenario, program, &data.path, options)?),
        None => None,
    };
    let mut generators = Generators::start(&lab, scenario, &options.program)?;
    // Imposters are not waited for, and a packet of theirs must not come between.
    if scenario.imposters.is_empty() {
        nodes.iter().try_for_each(|node| truth::reset(&lab, *node))?;
    }
    let (absences, live) = run(&lab, scenario, options, &mut generators, station.as_mut(), stop)?;
    let traffic = generators.finish()?;
    settle(&lab, &nodes, stop)?;
    if let Some(station) = &mut station {
        if scenario.imposters.is_empty() {
            station.wait_until_delivered(stop)?;
            station.stop_agents()?;
        } else {
            station.end_imposters()?;
        }
    }
    // Read after weir's last look: had traffic gone on, the truth would have more.
    let views = Views::read(&lab, scenario)?;
    let outcome = judge(scenario, &views, station.as_ref(), &absences, traffic)?;
    Ok(Outcome { live, ..outcome })
}

/// Starts the server and the agents.
fn start(
    lab: &Lab,
    scenario: &Scenario,
    program: &Path,
    data: &Path,
    options: &Options,
) -> Result<Station, LabError> {
    let programs = Programs::beside(program)?;
    let mut station = Station::start(lab, scenario, &programs, data)?;
    if scenario.imposters.is_empty() {
        station.start_agents(lab, scenario, options.interval)?;
    } else {
        station.start_imposters(lab, scenario, options.interval)?;
    }
    Ok(station)
}

/// Lets traffic flow and does the scenario's deeds, until the last source and deed have ended.
/// Returns what vanished while agents were killed, by node, and what several servers told in the
/// middle.
fn run(
    lab: &Lab,
    scenario: &Scenario,
    options: &Options,
    generators: &mut Generators,
    mut station: Option<&mut Station>,
    stop: &AtomicBool,
) -> Result<(BTreeMap<usize, Absence>, Vec<LiveLine>), LabError> {
    let mut live = Vec::new();
    let races = scenario.actions.iter().any(|a| matches!(a.kind, ActionKind::RaceServers(_)));
    let deeds = deeds::schedule(scenario, station.is_some());
    let mut watches = watches(scenario, options);
    let api = station.as_deref().map(|station| std::sync::Arc::clone(&station.api));
    thread::scope(|scope| {
        let churn = scenario.churn.as_ref().map(|churn| {
            let program = &options.program;
            let api = api.as_deref();
            scope.spawn(move || churn::run(lab, scenario, churn, api, program, stop))
        });
        let mut deeds = deeds.into_iter().peekable();
        generators.go(lab, scenario)?;
        let begin = Instant::now();
        let limit = 2 * scenario.duration + Duration::from_mins(2);
        let is_busy = |churn: &Option<ScopedJoinHandle<'_, _>>| {
            churn.as_ref().is_some_and(|churn| !churn.is_finished())
        };
        while !generators.are_done()? || deeds.peek().is_some() || is_busy(&churn) {
            check_stop(stop)?;
            if begin.elapsed() > limit {
                return Err(LabError::Truth(format!("traffic did not end within {limit:?}")));
            }
            for watch in watches.values_mut() {
                watch.look(lab)?;
            }
            if let Some((_, deed)) = deeds.next_if(|(at, _)| *at <= begin.elapsed()) {
                let now = SystemTime::now();
                deed.perform(lab, station.as_deref_mut())?;
                match deed {
                    Deed::KillAgent(node) => watch(&mut watches, node, |w| w.away(lab))?,
                    Deed::LaunchAgent(node) => {
                        if let Some(station) = station.as_deref_mut() {
                            station.wait_until_reading(&[&scenario.nodes[node].name], now)?;
                        }
                        watch(&mut watches, node, |w| w.back(lab))?;
                    }
                    _ => {}
                }
            }
            if let Some(station) = station.as_deref_mut() {
                station.must_run()?;
                let is_time = live.is_empty() && begin.elapsed() > scenario.duration / 2;
                // In a race the first server has nobody and hardly moves.
                if is_time && station.servers.len() > 1 && !races {
                    live = live::look(&station.servers, scenario)?;
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
        if let Some(churn) = churn {
            churn.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })?;
    let absences = watches.into_iter().map(|(node, watch)| (node, watch.into_absence()));
    Ok((absences.collect(), live))
}

fn watch(
    watches: &mut BTreeMap<usize, Watch>,
    node: usize,
    work: impl FnOnce(&mut Watch) -> Result<(), LabError>,
) -> Result<(), LabError> {
    watches.get_mut(&node).map_or(Ok(()), work)
}

fn watches(scenario: &Scenario, options: &Options) -> BTreeMap<usize, Watch> {
    let killed = scenario.actions.iter().filter_map(|action| match action.kind {
        ActionKind::KillAgent(node, _) => Some(node),
        _ => None,
    });
    killed.map(|node| (node, Watch::new(node, Ports::of(scenario), options.interval))).collect()
}

/// Holds what weir says against the truth.
fn judge(
    scenario: &Scenario,
    views: &Views,
    station: Option<&Station>,
    absences: &BTreeMap<usize, Absence>,
    traffic: TrafficReport,
) -> Result<Outcome, LabError> {
    let ground = Ground::of(scenario);
    let (mut once, transport) = views.once(&ground);
    floors::check(&once, &traffic)?;
    let difference = views.difference(&ground);
    let has = |is: &dyn Fn(ActionKind) -> bool| scenario.actions.iter().any(|a| is(a.kind));
    let mut outcome = Outcome {
        scenario: scenario.name.clone(),
        comparison: truth_alone(&once),
        totals: totals::compare(&views::by_pair(&once, &ground), None),
        views: difference,
        transport_in_totals: false,
        churn: None,
        imposters: None,
        engine: station
            .and_then(|station| station.engine.as_ref())
            .map(|engine| engine.outcome(has(&|kind| matches!(kind, ActionKind::RaceServers(_))))),
        live: Vec::new(),
        kubenetmon: None,
        traffic,
        weir: station.is_some(),
        agent_killed: has(&|kind| matches!(kind, ActionKind::KillAgent(..))),
    };
    let Some(station) = station else { return Ok(outcome) };
    if !scenario.imposters.is_empty() {
        outcome.imposters = Some(imposters(scenario, station)?);
        return Ok(outcome);
    }
    let absence = (!absences.is_empty()).then(|| counted(absences, &ground));
    let gaps = weir::parse_gaps(&station.ask(&["status", "--since", "2h"])?)?;
    station.must_agree()?;
    let (mut rows, mut said) = (Vec::new(), BTreeMap::new());
    for filter in ["not class = transport", "class = transport"] {
        rows.extend(weir::parse_flows(&station.ask_top(weir::BY, filter)?)?);
        said.extend(totals::parse(&station.ask_top(totals::BY, filter)?)?);
    }
    if !transport.groups.is_empty() {
        let unasked = weir::parse_flows(&station.ask_top(weir::BY, "")?)?;
        let carrying = |row: &Row| transport.groups.contains_key(&row.group);
        outcome.transport_in_totals = unasked.iter().any(carrying);
    }
    once.groups.extend(transport.groups);
    outcome.comparison = compare(&once, &rows, &gaps, absence.as_ref());
    outcome.totals = totals::compare(&views::by_pair(&once, &ground), Some(&said));
    if let (true, Some(engine)) = (scenario.setup.kubenetmon, &station.engine) {
        let table = kubenetmon::judge(scenario, views, engine.engine(), kubenetmon::TABLE)?;
        outcome.kubenetmon = Some(table);
    }
    if let Some(churn) = &scenario.churn {
        outcome.churn = Some(churn::judge(churn, &once, &station.ask_top(churn::BY, "")?)?);
    }
    Ok(outcome)
}

/// What of the absences belongs to views that count.
fn counted(absences: &BTreeMap<usize, Absence>, ground: &Ground) -> Absence {
    let mut all = Absence::default();
    for (node, absence) in absences {
        for (group, totals) in &absence.vanished {
            if ground.counts(group, *node) {
                *all.vanished.entry(*group).or_default() += *totals;
            }
        }
        all.unseen_bytes += absence.unseen_bytes;
    }
    all
}

fn imposters(scenario: &Scenario, station: &Station) -> Result<Imposters, LabError> {
    let rows = weir::parse_flows(&station.ask_top(weir::BY, "")?)?.len()
        + weir::parse_flows(&station.ask_top(weir::BY, "class = transport")?)?.len();
    let said = station.server_said();
    let tokens = scenario.imposters.iter().enumerate();
    let told = tokens.filter(|(index, imposter)| said.contains(&secret(*index, imposter.token)));
    let tokens_told = told.count();
    let (mut log, mut unexplained) = (Vec::new(), Vec::new());
    for imposter in &scenario.imposters {
        let Some(reason) = imposter.token.refusal() else { continue };
        match said.lines().find(|line| line.contains("not let in") && line.contains(reason)) {
            Some(line) => log.push(line.to_owned()),
            None => unexplained.push(imposter.token.name()),
        }
    }
    Ok(Imposters { agents: scenario.imposters.len(), rows, tokens_told, unexplained, log })
}

/// An imposter's token.
fn secret(index: usize, token: crate::scenario::Token) -> String {
    format!("secret-of-{}-{index}", token.name())
}
