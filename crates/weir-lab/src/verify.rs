//! A whole run on one node: box, truth, weir, traffic, comparison.

mod absence;
pub(crate) mod floors;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use weir_flow::Counters;

use crate::compare::{Absence, Comparison, compare, truth_alone};
use crate::error::{LabError, io_error};
use crate::net::Lab;
use crate::scenario::{ActionKind, Place, Scenario, SourcePorts};
use crate::traffic::{Generators, TrafficReport};
use crate::truth::{self, Ports, Truth};
use crate::weir::Weir;
pub(crate) use absence::Watch;

/// The only node of a run without a server.
const NODE: usize = 0;

/// What a run is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// This program, to start generators with.
    pub program: PathBuf,
    /// The weir under test; without one the truth is only held against the generators.
    pub weir: Option<PathBuf>,
    /// How often weir reads the kernel.
    pub interval: Duration,
    /// Where weir keeps its data; emptied when the run is over unless `keep` is set.
    pub data: PathBuf,
    /// Keep weir's data and log.
    pub keep: bool,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// The truth against weir, or against nothing where weir was left out.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// What the generators did.
    pub traffic: TrafficReport,
    /// True when weir took part.
    pub weir: bool,
}

/// Runs a scenario. `stop` ends it early with [`LabError::Interrupted`].
pub fn verify(
    scenario: &Scenario,
    ports: &BTreeMap<Place, SourcePorts>,
    options: &Options,
    stop: &AtomicBool,
) -> Result<Outcome, LabError> {
    let lab = Lab::build(scenario, ports)?;
    truth::install(&lab, NODE)?;
    let data = Data::make(options)?;
    let mut weir = match &options.weir {
        Some(program) => Some(Weir::start(&lab, program, &data.path, options.interval)?),
        None => None,
    };
    let mut generators = Generators::start(&lab, scenario, &options.program)?;
    truth::reset(&lab, NODE)?;
    let absence = run(&lab, scenario, options, &mut generators, weir.as_mut(), stop)?;
    let traffic = generators.finish()?;
    settle(&lab, &[NODE], stop)?;
    if let Some(weir) = &mut weir {
        weir.stop()?;
    }
    // Read after weir's last look: had traffic gone on, the truth would have more.
    let reading = truth::read(&lab, NODE)?;
    let truth = Truth::of(&reading, &Ports::of(scenario));
    floors::check(&truth, &traffic)?;
    let comparison = match &weir {
        Some(weir) => compare(&truth, &weir.flows()?, &weir.gaps()?, absence.as_ref()),
        None => truth_alone(&truth),
    };
    Ok(Outcome { scenario: scenario.name.clone(), comparison, traffic, weir: weir.is_some() })
}

/// Lets traffic flow and does the scenario's actions, until the last source has ended.
fn run(
    lab: &Lab,
    scenario: &Scenario,
    options: &Options,
    generators: &mut Generators,
    mut weir: Option<&mut Weir>,
    stop: &AtomicBool,
) -> Result<Option<Absence>, LabError> {
    let kills = |kind: ActionKind| matches!(kind, ActionKind::KillAgent(..));
    let mut watch = scenario
        .actions
        .iter()
        .any(|action| kills(action.kind))
        .then(|| Watch::new(NODE, Ports::of(scenario), options.interval));
    let mut actions = scenario.actions.iter().peekable();
    generators.go(lab, scenario)?;
    let begin = Instant::now();
    let limit = scenario.duration + Duration::from_mins(1);
    while !generators.are_done()? || actions.peek().is_some() {
        check_stop(stop)?;
        if begin.elapsed() > limit {
            return Err(LabError::Truth(format!("traffic did not end within {limit:?}")));
        }
        if let Some(watch) = &mut watch {
            watch.look(lab)?;
        }
        if let Some(action) = actions.next_if(|action| action.at <= begin.elapsed()) {
            match (action.kind, weir.as_deref_mut(), &mut watch) {
                (ActionKind::FlushConntrack(node), ..) => lab.flush_conntrack(node)?,
                (ActionKind::KillAgent(_, down), Some(weir), Some(watch)) => {
                    weir.kill()?;
                    watch.away(lab)?;
                    thread::sleep(down);
                    weir.launch(lab)?;
                    watch.back(lab)?;
                }
                // Nothing to kill where weir does not take part; the others are left to clusters.
                (
                    ActionKind::KillAgent(..)
                    | ActionKind::CutAgent(..)
                    | ActionKind::CutConnections(_)
                    | ActionKind::KillServer(_)
                    | ActionKind::StopServer(_)
                    | ActionKind::CutEngine(_)
                    | ActionKind::KillEngine(_)
                    | ActionKind::KillServerUnanswered(_)
                    | ActionKind::RaceServers(_),
                    ..,
                ) => {}
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(watch.map(Watch::into_absence))
}

/// Waits until nothing is counted any more.
pub(crate) fn settle(lab: &Lab, nodes: &[usize], stop: &AtomicBool) -> Result<(), LabError> {
    const QUIET: Duration = Duration::from_secs(2);
    const LIMIT: Duration = Duration::from_secs(30);
    let begin = Instant::now();
    let mut last = Counters::default();
    let mut since = Instant::now();
    while since.elapsed() < QUIET {
        check_stop(stop)?;
        if begin.elapsed() > LIMIT {
            return Err(LabError::Truth("the box does not come to rest".to_owned()));
        }
        let mut now = Counters::default();
        for node in nodes {
            now += truth::counted(lab, *node)?;
        }
        if now != last {
            (last, since) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// [`LabError::Interrupted`] once `stop` is set.
pub fn check_stop(stop: &AtomicBool) -> Result<(), LabError> {
    if stop.load(Ordering::Relaxed) { Err(LabError::Interrupted) } else { Ok(()) }
}

/// weir's data directory of one run.
pub(crate) struct Data {
    pub(crate) path: PathBuf,
    keep: bool,
}

impl Data {
    pub(crate) fn make(options: &Options) -> Result<Self, LabError> {
        let name = options.data.display().to_string();
        if let Some(parent) = options.data.parent() {
            fs::create_dir_all(parent).map_err(io_error("make the parent of", &name))?;
        }
        fs::create_dir(&options.data).map_err(io_error("make", &name))?;
        Ok(Self { path: options.data.clone(), keep: options.keep })
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if !self.keep {
            // Leftovers in the temporary directory hurt nobody.
            drop(fs::remove_dir_all(&self.path));
            drop(fs::remove_file(self.path.with_extension("log")));
        }
    }
}

/// A place for weir's data under the system's temporary directory.
pub fn temporary_data(name: &str) -> PathBuf {
    Path::new(&std::env::temp_dir()).join(format!("{name}-{}", std::process::id()))
}
