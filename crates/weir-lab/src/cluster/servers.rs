//! The servers of a cluster: what they are started with, and what they are asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::objects::{self, AUDIENCE, SELECTOR};
use super::process::Process;
use crate::clickhouse::http;
use crate::command::run_command;
use crate::error::LabError;
use crate::net::{SERVERS, command_in, inside};
use crate::scenario::Scenario;

/// Where a server takes batches.
pub(super) const INGEST_PORT: u16 = 8884;
/// Where it answers.
pub(super) const API_PORT: u16 = 8885;
/// Where its metrics are.
const METRICS_PORT: u16 = 8883;
/// What servers show each other.
pub(super) const TOKEN_FILE: &str = "servers.token";
/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long it may take to end.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// All servers. Dropping them ends them.
#[derive(Debug)]
pub(super) struct Servers {
    weir: PathBuf,
    control: String,
    list: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Process,
}

impl Servers {
    /// No server yet.
    pub(super) fn new(weir: &Path, control: &str) -> Self {
        Self { weir: weir.to_owned(), control: control.to_owned(), list: Vec::new() }
    }

    /// One more server, which does not run yet.
    pub(super) fn add(
        &mut self,
        data: &Path,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) {
        let process = Process::new(&name(self.list.len()), data);
        self.list.push(Server { arguments, environment, process });
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Starts a server, and waits until it answers.
    pub(super) fn launch(&mut self, index: usize) -> Result<(), LabError> {
        let server = &mut self.list[index];
        let mut command = command_in(&self.control, self.weir.as_os_str());
        command.arg("server").args(&server.arguments);
        command.envs(server.environment.iter().map(|(name, value)| (name, value)));
        server.process.launch(command)?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            self.list[index].process.must_run()?;
            match self.ask(index, &["status", "--since", "1h"]) {
                Ok(_) => return Ok(()),
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
                Err(error) => {
                    return Err(self.trouble(index, &format!("does not answer ({error})")));
                }
            }
        }
    }

    /// `kill -9` to a server.
    pub(super) fn kill(&mut self, index: usize) -> Result<(), LabError> {
        self.list[index].process.kill()
    }

    /// SIGTERM to a server.
    pub(super) fn stop(&mut self, index: usize) -> Result<(), LabError> {
        self.list[index].process.tell_to_end()?;
        match self.list[index].process.wait(STOP_LIMIT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.trouble(index, &format!("ended with {status}"))),
            None => Err(self.trouble(index, "did not end after SIGTERM")),
        }
    }

    /// Fails when one has ended by itself.
    pub(super) fn must_run(&mut self) -> Result<(), LabError> {
        self.list.iter_mut().try_for_each(|server| server.process.must_run())
    }

    /// Asks a server's API.
    pub(super) fn ask(&self, index: usize, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = command_in(&self.control, self.weir.as_os_str());
        command.args(["query", &url(index)]);
        command.args(arguments).args(["-o", "json"]);
        run_command(command, "")
    }

    /// Gets a page of a server's API.
    pub(super) fn get(&self, index: usize, path: &str) -> Result<String, LabError> {
        let page = format!("{}{path}", url(index));
        inside(&self.control, || http::get(&page))
    }

    /// A command that looks at a server, for people.
    pub(super) fn watch(&self, index: usize) -> Command {
        let mut command = command_in(&self.control, self.weir.as_os_str());
        command.args(["top", &url(index)]);
        command
    }

    /// Everything a server has printed.
    pub(super) fn said(&self, index: usize) -> String {
        self.list[index].process.said()
    }

    /// An error with a server's last words.
    pub(super) fn trouble(&self, index: usize, what: &str) -> LabError {
        self.list[index].process.trouble(what)
    }
}

fn name(index: usize) -> String {
    if index == 0 { "server".to_owned() } else { format!("server-{}", index + 1) }
}

fn url(index: usize) -> String {
    format!("http://{}", SocketAddr::new(own(index), API_PORT))
}

/// A loopback address of a server's own.
pub(super) fn own(index: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, u8::try_from(index + 1).unwrap_or(u8::MAX)).into()
}

/// What every server of a scenario is started with, whatever its store.
pub(super) fn arguments(scenario: &Scenario, data: &Path, index: usize) -> Vec<String> {
    let file = |name: &str| data.join(name).display().to_string();
    let networks = scenario.nodes.iter().flat_map(|node| {
        let pods = node.pod_networks.iter().map(|net| format!("{}/{}", net.base(), net.prefix));
        pods.chain(
            node.uplinks
                .iter()
                .map(|uplink| format!("{uplink}/{}", if uplink.is_ipv4() { 32 } else { 128 })),
        )
    });
    let networks: Vec<String> = networks.collect();
    let region = scenario.nodes[0].region.clone().unwrap_or_else(|| "lab".to_owned());
    let address = SERVERS[index];
    let mut arguments = vec![
        ("--data-dir", file(&name(index))),
        ("--listen", SocketAddr::new(own(index), API_PORT).to_string()),
        ("--tls-cert", file("server.pem")),
        ("--tls-key", file("server.key")),
        ("--kubeconfig", file("kubeconfig")),
        ("--audience", AUDIENCE.to_owned()),
        ("--agent-account", format!("{}:{}", objects::NAMESPACE, objects::ACCOUNT)),
        ("--agent-selector", SELECTOR.to_owned()),
        ("--networks", networks.join(",")),
    ];
    // kubenetmon's file says these in its own words.
    if !scenario.setup.kubenetmon {
        let cloud = scenario.setup.cloud.iter().map(|cloud| ("--cloud", cloud.clone()));
        arguments.extend(cloud);
        arguments.extend([
            ("--ingest", format!("{address}:{INGEST_PORT}")),
            ("--metrics", SocketAddr::new(own(index), METRICS_PORT).to_string()),
            ("--region", region),
            ("--cluster", "lab".to_owned()),
        ]);
    }
    if scenario.setup.servers > 1 {
        let all = SERVERS.iter().take(scenario.setup.servers);
        let all: Vec<String> = all.map(|address| format!("{address}:{INGEST_PORT}")).collect();
        arguments.extend([
            ("--peers", all.join(",")),
            ("--peer-ca", file("ca.pem")),
            ("--peer-token-file", file(TOKEN_FILE)),
        ]);
    }
    arguments
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .chain(["--no-range-refresh".to_owned()])
        .collect()
}
