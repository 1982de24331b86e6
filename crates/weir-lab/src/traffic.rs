//! Traffic: generators inside the places of a box, and what they report.
//!
//! A generator is this same program, started in a place's namespace with a plan on its standard
//! input. Sinks listen until their input ends; sources open the connections of their plan and end.
//! What a source does follows from its plan and seed alone; only the scheduler's timing differs.

mod icmp;
mod plan;
mod sink;
mod source;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::spawn_error;
use crate::error::{LabError, io_error};
use crate::net::Lab;
use crate::scenario::{Place, Scenario};

pub use plan::{SinkPlan, SinkReport, SourcePlan, SourceReport};
pub use sink::run as run_sink;
pub use source::run as run_source;

/// The hidden subcommands that generators are started with.
pub const SINK: &str = "generate-sink";
/// See [`SINK`].
pub const SOURCE: &str = "generate-source";

/// What a sink prints once it listens.
const READY: &str = "ready";

/// The running generators of a box. Dropping it ends them.
#[derive(Debug)]
pub struct Generators {
    program: PathBuf,
    sinks: Vec<Generator>,
    sources: Vec<Generator>,
}

/// What came of the traffic.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TrafficReport {
    /// What each source did, in the order of [`Scenario::streams`].
    pub sources: Vec<SourceReport>,
    /// The sum of what the sinks saw.
    pub sinks: SinkReport,
}

/// One generator. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Generator {
    name: String,
    child: Child,
}

impl Generators {
    /// Starts the sinks of a scenario and waits until they listen. `program` is this program.
    pub fn start(lab: &Lab, scenario: &Scenario, program: &Path) -> Result<Self, LabError> {
        let mut generators =
            Self { program: program.to_owned(), sinks: Vec::new(), sources: Vec::new() };
        let mut plans: BTreeMap<Place, SinkPlan> = BTreeMap::new();
        for (place, protocol, address) in scenario.listeners() {
            plans.entry(place).or_default().listen.push((protocol, address));
        }
        for (place, plan) in &plans {
            let running = generators.spawn(lab, scenario, *place, SINK, plan)?;
            generators.sinks.push(running);
        }
        for sink in &mut generators.sinks {
            sink.wait_ready()?;
        }
        Ok(generators)
    }

    /// Starts the sources of a scenario.
    pub fn go(&mut self, lab: &Lab, scenario: &Scenario) -> Result<(), LabError> {
        for (index, stream) in scenario.streams().iter().enumerate() {
            let plan = SourcePlan::of(scenario, stream, index);
            let running = self.spawn(lab, scenario, stream.traffic.from, SOURCE, &plan)?;
            self.sources.push(running);
        }
        Ok(())
    }

    /// True when every source has ended.
    pub fn are_done(&mut self) -> Result<bool, LabError> {
        for source in &mut self.sources {
            let ended = source.child.try_wait().map_err(io_error("wait for", &source.name))?;
            if ended.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Starts the sources again when all of them have ended. Nothing is kept of what they did.
    pub fn go_on(&mut self, lab: &Lab, scenario: &Scenario) -> Result<(), LabError> {
        if !self.are_done()? {
            return Ok(());
        }
        for mut source in std::mem::take(&mut self.sources) {
            source.report::<SourceReport>()?;
        }
        self.go(lab, scenario)
    }

    /// Waits for the sources, ends the sinks, and collects what all of them report.
    pub fn finish(mut self) -> Result<TrafficReport, LabError> {
        let mut report = TrafficReport::default();
        for source in &mut self.sources {
            report.sources.push(source.report()?);
        }
        for sink in &mut self.sinks {
            drop(sink.child.stdin.take());
            report.sinks.add(&sink.report()?);
        }
        Ok(report)
    }

    fn spawn(
        &self,
        lab: &Lab,
        scenario: &Scenario,
        place: Place,
        role: &str,
        plan: &impl Serialize,
    ) -> Result<Generator, LabError> {
        let command = lab.command(place, self.program.as_os_str());
        Generator::spawn(command, &scenario.place_name(place), role, plan)
    }
}

impl Generator {
    /// Starts a sink and waits until it listens. `command` is this program in its place.
    pub(crate) fn sink(command: Command, place: &str, plan: &SinkPlan) -> Result<Self, LabError> {
        let mut sink = Self::spawn(command, place, SINK, plan)?;
        sink.wait_ready()?;
        Ok(sink)
    }

    /// Starts a source.
    pub(crate) fn source(
        command: Command,
        place: &str,
        plan: &SourcePlan,
    ) -> Result<Self, LabError> {
        Self::spawn(command, place, SOURCE, plan)
    }

    /// Ends a sink.
    pub(crate) fn end(mut self) -> Result<SinkReport, LabError> {
        drop(self.child.stdin.take());
        self.report()
    }

    /// Waits for the end of a source.
    pub(crate) fn finish(mut self) -> Result<SourceReport, LabError> {
        self.report()
    }

    fn spawn(
        mut command: Command,
        place: &str,
        role: &str,
        plan: &impl Serialize,
    ) -> Result<Self, LabError> {
        let name = format!("{role} in {place}");
        command.arg(role).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let child = command.spawn().map_err(|error| spawn_error("ip", error))?;
        let mut running = Self { name, child };
        let mut line =
            serde_json::to_string(plan).map_err(|error| running.answer(error.to_string()))?;
        line.push('\n');
        if let Some(stdin) = running.child.stdin.as_mut() {
            stdin.write_all(line.as_bytes()).map_err(io_error("send a plan to", &running.name))?;
        }
        Ok(running)
    }

    fn wait_ready(&mut self) -> Result<(), LabError> {
        let Some(stdout) = self.child.stdout.as_mut() else { return Ok(()) };
        // One byte at a time, so that nothing of the report is taken away with the line.
        let mut line = String::new();
        BufReader::with_capacity(1, stdout)
            .read_line(&mut line)
            .map_err(io_error("read from", &self.name))?;
        if line.trim() == READY {
            return Ok(());
        }
        Err(self.answer(format!("it said `{}` instead of `{READY}`", line.trim())))
    }

    /// Waits for the end of a generator and reads its report.
    fn report<T: DeserializeOwned>(&mut self) -> Result<T, LabError> {
        let mut text = String::new();
        if let Some(stdout) = self.child.stdout.as_mut() {
            stdout.read_to_string(&mut text).map_err(io_error("read from", &self.name))?;
        }
        let status = self.child.wait().map_err(io_error("wait for", &self.name))?;
        if !status.success() {
            return Err(self.answer(format!("it ended with {status}")));
        }
        serde_json::from_str(&text).map_err(|error| self.answer(error.to_string()))
    }

    fn answer(&self, message: String) -> LabError {
        LabError::Answer { program: self.name.clone(), message }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + Duration::from_millis(100);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        // It may have ended meanwhile; then there is nothing left to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
