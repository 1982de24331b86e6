//! The box: network namespaces that act as a node, its pods and the world outside.
//!
//! Every namespace is called `weirlab-PID-START-COUNT-PLACE`, where PID and START (the process's
//! start time in clock ticks, field 22 of `/proc/PID/stat`) name the process that made it. Whoever
//! starts later can thus tell a crashed run's leftovers from a run that still goes on.

mod run;
mod setup;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::command;
use crate::error::LabError;
use crate::scenario::{Place, Scenario, SourcePorts};
use crate::truth;

use run::RunId;
pub use run::clean;

/// A box that exists. It goes when this is dropped.
#[derive(Debug)]
pub struct Lab {
    run: RunId,
    spaces: Vec<String>,
    places: BTreeMap<Place, String>,
}

impl Lab {
    /// Builds the box of a scenario, after removing what crashed runs left behind.
    pub fn build(
        scenario: &Scenario,
        ports: &BTreeMap<Place, SourcePorts>,
    ) -> Result<Self, LabError> {
        run::need_root()?;
        clean()?;
        let mut lab =
            Self { run: RunId::of_this_process()?, spaces: Vec::new(), places: BTreeMap::new() };
        // From here on an error drops `lab`, which removes what has been made so far.
        for place in scenario.places() {
            let space = lab.run.space(&scenario.place_name(place));
            command::run("ip", &["netns", "add", &space], "")?;
            lab.spaces.push(space.clone());
            lab.places.insert(place, space);
        }
        setup::wire(&lab, scenario)?;
        setup::settings(&lab, scenario, ports)?;
        lab.nft(&truth::last_places())?;
        lab.nft(&setup::rules(scenario))?;
        setup::wait_until_ready(&lab)?;
        Ok(lab)
    }

    /// The network namespace of a place.
    ///
    /// # Panics
    /// When the place is not of the scenario this box was built from.
    pub fn space(&self, place: Place) -> &str {
        self.places.get(&place).expect("a place of the scenario the box was built from")
    }

    /// A directory name of this run's own.
    pub fn run_name(&self) -> String {
        self.run.to_string()
    }

    /// A command that will run in a place.
    pub fn command(&self, place: Place, program: &std::ffi::OsStr) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.space(place)]).arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a command in the node and returns what it printed.
    pub fn run_in_node(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = self.command(Place::Node, program.as_ref());
        command.args(arguments);
        command::run_command(command, "").map_err(|error| named(error, program))
    }

    /// Loads rules into the node.
    pub fn nft(&self, rules: &str) -> Result<(), LabError> {
        let mut command = self.command(Place::Node, "nft".as_ref());
        command.args(["-f", "-"]);
        command::run_command(command, rules).map(drop).map_err(|error| named(error, "nft"))
    }

    /// The node's conntrack table as the kernel prints it.
    pub fn conntrack_table(&self) -> Result<String, LabError> {
        self.run_in_node("cat", &["/proc/net/nf_conntrack"])
    }

    /// Empties the node's conntrack table.
    pub fn flush_conntrack(&self) -> Result<(), LabError> {
        self.run_in_node("conntrack", &["-F"]).map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for space in &self.spaces {
            // Whatever remains is removed by the next start; there is nobody to tell here.
            drop(run::remove(space));
        }
    }
}

/// `ip netns exec` reports an absent program with its own status: say which package has it.
fn named(error: LabError, program: &str) -> LabError {
    match error {
        LabError::Command { ref stderr, .. } if stderr.contains("No such file or directory") => {
            let absent = stderr.contains("exec of");
            if absent {
                command::spawn_error(program, std::io::ErrorKind::NotFound.into())
            } else {
                error
            }
        }
        other => other,
    }
}
