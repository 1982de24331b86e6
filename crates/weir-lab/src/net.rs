//! The box: network namespaces that act as nodes, their pods and the world outside. A cluster has two
//! more: `fabric` joins its nodes, and `control` is where the server and the Kubernetes API are.
//!
//! Every namespace is called `weirlab-PID-START-COUNT-PLACE`, where PID and START (the process's
//! start time in clock ticks, field 22 of `/proc/PID/stat`) name the process that made it. Whoever
//! starts later can thus tell a crashed run's leftovers from a run that still goes on.

mod churn;
mod cut;
mod enter;
mod fabric;
mod run;
mod setup;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::command;
use crate::error::LabError;
use crate::scenario::{Place, Scenario, SourcePorts};
use crate::truth;

pub(crate) use churn::Visitor;
pub(crate) use enter::{enter, inside};
pub use fabric::{SERVERS, management_address};
use run::RunId;
pub use run::clean;
pub(crate) use setup::whole;

/// A box that exists. It goes when this is dropped.
#[derive(Debug)]
pub struct Lab {
    run: RunId,
    spaces: Vec<String>,
    places: BTreeMap<Place, String>,
    fabric: Option<String>,
    control: Option<String>,
}

impl Lab {
    /// Builds the box of a scenario, after removing what crashed runs left behind.
    pub fn build(
        scenario: &Scenario,
        ports: &BTreeMap<Place, SourcePorts>,
    ) -> Result<Self, LabError> {
        run::need_root()?;
        clean()?;
        let mut lab = Self {
            run: RunId::of_this_process()?,
            spaces: Vec::new(),
            places: BTreeMap::new(),
            fabric: None,
            control: None,
        };
        // From here on an error drops `lab`, which removes what has been made so far.
        for place in scenario.places() {
            let space = match place {
                Place::Pod(index) if scenario.pods[index].host_network => {
                    lab.space(Place::Node(scenario.pods[index].node)).to_owned()
                }
                _ => lab.add_space(&scenario.place_name(place))?,
            };
            lab.places.insert(place, space);
        }
        if scenario.is_cluster() {
            lab.fabric = Some(lab.add_space("fabric")?);
            lab.control = Some(lab.add_space("control")?);
        }
        setup::wire(&lab, scenario)?;
        setup::settings(&lab, scenario, ports)?;
        for node in 0..scenario.nodes.len() {
            lab.nft(node, &truth::last_places())?;
            lab.nft(node, &setup::rules(scenario, node))?;
            setup::wait_until_ready(lab.space(Place::Node(node)))?;
        }
        lab.fabric
            .iter()
            .chain(&lab.control)
            .try_for_each(|space| setup::wait_until_ready(space))?;
        Ok(lab)
    }

    fn add_space(&mut self, place: &str) -> Result<String, LabError> {
        let space = self.run.space(place);
        command::run("ip", &["netns", "add", &space], "")?;
        self.spaces.push(space.clone());
        Ok(space)
    }

    /// The network namespace of a place.
    ///
    /// # Panics
    /// When the place is not of the scenario this box was built from.
    pub fn space(&self, place: Place) -> &str {
        self.places.get(&place).expect("a place of the scenario the box was built from")
    }

    /// The namespace of the server and the Kubernetes API.
    ///
    /// # Panics
    /// When the box is no cluster.
    pub fn control(&self) -> &str {
        self.control.as_deref().expect("a box with several nodes")
    }

    /// A directory name of this run's own.
    pub fn run_name(&self) -> String {
        self.run.to_string()
    }

    /// A command that will run in a place.
    pub fn command(&self, place: Place, program: &std::ffi::OsStr) -> Command {
        command_in(self.space(place), program)
    }

    /// Runs a command in a node and returns what it printed.
    pub fn run_in_node(
        &self,
        node: usize,
        program: &str,
        arguments: &[&str],
    ) -> Result<String, LabError> {
        run_in(self.space(Place::Node(node)), program, arguments, "")
    }

    /// Loads rules into a node.
    pub fn nft(&self, node: usize, rules: &str) -> Result<(), LabError> {
        run_in(self.space(Place::Node(node)), "nft", &["-f", "-"], rules).map(drop)
    }

    /// A node's conntrack table as the kernel prints it.
    pub fn conntrack_table(&self, node: usize) -> Result<String, LabError> {
        self.run_in_node(node, "cat", &["/proc/net/nf_conntrack"])
    }

    /// Empties a node's conntrack table.
    pub fn flush_conntrack(&self, node: usize) -> Result<(), LabError> {
        self.run_in_node(node, "conntrack", &["-F"]).map(drop)
    }
}

/// A command that will run in a namespace.
pub(crate) fn command_in(space: &str, program: &std::ffi::OsStr) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space]).arg(program).stdin(Stdio::null());
    command
}

/// Runs a command in a namespace, gives it `input`, and returns what it printed.
fn run_in(space: &str, program: &str, arguments: &[&str], input: &str) -> Result<String, LabError> {
    let mut command = command_in(space, program.as_ref());
    command.args(arguments);
    command::run_command(command, input).map_err(|error| named(error, program))
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
