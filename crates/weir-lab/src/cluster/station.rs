//! The weir of a cluster: the Kubernetes API it reads, its server, and an agent on every node.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;

use super::objects::{self, AUDIENCE, SELECTOR};
use super::process::Process;
use crate::command::run_command;
use crate::error::{LabError, io_error};
use crate::kube::{self, Api, TokenIdentity};
use crate::net::{Lab, SERVER, command_in, inside};
use crate::scenario::{Imposter, Place, Scenario, Token};
use crate::verify::check_stop;
use crate::weir::find_program;

/// Where the server takes batches.
pub(super) const INGEST_PORT: u16 = 8884;
/// Where it answers.
pub(super) const API_PORT: u16 = 8885;
/// Where the Kubernetes API is.
const KUBE_PORT: u16 = 6443;
/// How long a part may take until it works.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take until an agent that was cut off has delivered its backlog.
const DELIVERY_LIMIT: Duration = Duration::from_secs(90);
/// How long a part may take to end.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `weir`.
    pub weir: PathBuf,
    /// `weir-agent`.
    pub agent: PathBuf,
}

impl Programs {
    /// weir, and the agent beside it.
    pub(super) fn beside(weir: &Path) -> Result<Self, LabError> {
        let agent = weir.with_file_name("weir-agent");
        let agent = find_program("weir-agent", agent.is_file().then_some(agent.as_path()))?;
        Ok(Self { weir: weir.to_owned(), agent })
    }
}

/// A running weir of a cluster. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Station {
    pub(super) api: Arc<Api>,
    programs: Programs,
    data: PathBuf,
    control: String,
    server_arguments: Vec<String>,
    server: Process,
    agents: Vec<Agent>,
}

#[derive(Debug)]
struct Agent {
    node: String,
    space: String,
    arguments: Vec<String>,
    process: Process,
}

impl Station {
    /// Starts the API and the server, and waits until it answers.
    pub(super) fn start(
        lab: &Lab,
        scenario: &Scenario,
        programs: &Programs,
        data: &Path,
    ) -> Result<Self, LabError> {
        let api = inside(lab.control(), || {
            Api::start(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), KUBE_PORT))
        })?;
        objects::publish(&api, scenario)?;
        write(data, "kubeconfig", &api.kubeconfig())?;
        certificates(data)?;
        let mut station = Self {
            api: Arc::new(api),
            programs: programs.clone(),
            data: data.to_owned(),
            control: lab.control().to_owned(),
            server_arguments: server_arguments(scenario, data),
            server: Process::new("server", data),
            agents: Vec::new(),
        };
        station.launch_server()?;
        Ok(station)
    }

    /// Starts an agent on every node and waits until each of them reads.
    pub(super) fn start_agents(
        &mut self,
        lab: &Lab,
        scenario: &Scenario,
        interval: Duration,
    ) -> Result<(), LabError> {
        for (index, node) in scenario.nodes.iter().enumerate() {
            let token = format!("token-of-{}", node.name);
            self.api.token(&token, objects::agent_identity(&node.name));
            let name = format!("agent-{}", node.name);
            self.add_agent(lab, index, &node.name, &name, &token, 8_883, interval)?;
        }
        let now = SystemTime::now();
        (0..self.agents.len()).try_for_each(|index| self.launch_agent(index))?;
        let nodes: Vec<&str> = scenario.nodes.iter().map(|node| node.name.as_str()).collect();
        self.wait_until_reading(&nodes, now)
    }

    /// Starts agents that must not be believed.
    pub(super) fn start_imposters(
        &mut self,
        lab: &Lab,
        scenario: &Scenario,
        interval: Duration,
    ) -> Result<(), LabError> {
        for (index, Imposter { node, token }) in scenario.imposters.iter().enumerate() {
            // Who has stolen a token says it is the node that it is of.
            let says = if *token == Token::Stolen { other(*node, scenario) } else { *node };
            let says = &scenario.nodes[says].name;
            let secret = super::secret(index, *token);
            if let Some(identity) = identity(*token, scenario, *node) {
                self.api.token(&secret, identity);
            }
            let name = format!("imposter-{index}-{}", token.name());
            let metrics = 8_900 + u16::try_from(index).unwrap_or_default();
            self.add_agent(lab, *node, says, &name, &secret, metrics, interval)?;
            self.launch_agent(index)?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "an agent's command line, said once")]
    fn add_agent(
        &mut self,
        lab: &Lab,
        node: usize,
        says: &str,
        name: &str,
        token: &str,
        metrics: u16,
        interval: Duration,
    ) -> Result<(), LabError> {
        let file = |name: &str| self.data.join(name).display().to_string();
        let token_file = format!("{name}.token");
        write(&self.data, &token_file, token)?;
        let arguments: Vec<String> = [
            "--node",
            says,
            "--server",
            &format!("{SERVER}:{INGEST_PORT}"),
            "--spool",
            &file(&format!("{name}.spool")),
            "--ca-file",
            &file("ca.pem"),
            "--interval",
            &format!("{}s", interval.as_secs()),
            "--metrics",
            &format!("127.0.0.1:{metrics}"),
            "--token-file",
            &file(&token_file),
            "--drain",
            "40s",
        ]
        .map(str::to_owned)
        .to_vec();
        self.agents.push(Agent {
            node: says.to_owned(),
            space: lab.space(Place::Node(node)).to_owned(),
            arguments,
            process: Process::new(name, &self.data),
        });
        Ok(())
    }

    /// Starts the server, and waits until it answers.
    pub(super) fn launch_server(&mut self) -> Result<(), LabError> {
        let mut command = command_in(&self.control, self.programs.weir.as_os_str());
        command.arg("server").args(&self.server_arguments);
        self.server.launch(command)?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            self.server.must_run()?;
            match self.ask(&["status", "--since", "1h"]) {
                Ok(_) => return Ok(()),
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
                Err(error) => {
                    return Err(self.server.trouble(&format!("does not answer ({error})")));
                }
            }
        }
    }

    /// `kill -9` to the server.
    pub(super) fn kill_server(&mut self) -> Result<(), LabError> {
        self.server.kill()
    }

    /// SIGTERM to the server.
    pub(super) fn stop_server(&mut self) -> Result<(), LabError> {
        self.server.tell_to_end()?;
        match self.server.wait(STOP_LIMIT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.server.trouble(&format!("ended with {status}"))),
            None => Err(self.server.trouble("did not end after SIGTERM")),
        }
    }

    /// Starts an agent (again).
    pub(super) fn launch_agent(&mut self, index: usize) -> Result<(), LabError> {
        let agent = &mut self.agents[index];
        let mut command = command_in(&agent.space, self.programs.agent.as_os_str());
        command.args(&agent.arguments);
        agent.process.launch(command)
    }

    /// `kill -9` to an agent.
    pub(super) fn kill_agent(&mut self, index: usize) -> Result<(), LabError> {
        self.agents[index].process.kill()
    }

    /// Fails when a part has ended by itself.
    pub(super) fn must_run(&mut self) -> Result<(), LabError> {
        self.server.must_run()?;
        self.agents.iter_mut().try_for_each(|agent| agent.process.must_run())
    }

    /// Waits until nothing is on its way: every agent has delivered what it had sealed by now.
    pub(super) fn wait_until_delivered(&mut self, stop: &AtomicBool) -> Result<(), LabError> {
        let deadline = Instant::now() + DELIVERY_LIMIT;
        loop {
            check_stop(stop)?;
            self.must_run()?;
            let status = self.ask(&["status", "--since", "1h"])?;
            let Some((node, batches, why)) = undelivered(&status) else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(self.server.trouble(&format!(
                    "has not taken {batches} batches of node {node} within {DELIVERY_LIMIT:?} ({why})"
                )));
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// SIGTERM to all agents at once: each takes a last look, delivers what it has, and ends.
    pub(super) fn stop_agents(&mut self) -> Result<(), LabError> {
        self.agents.iter().try_for_each(|agent| agent.process.tell_to_end())?;
        for agent in &mut self.agents {
            match agent.process.wait(STOP_LIMIT)? {
                Some(status) if status.success() => {}
                Some(status) => {
                    return Err(agent.process.trouble(&format!("ended with {status}")));
                }
                None => return Err(agent.process.trouble("did not end within 60 s of SIGTERM")),
            }
        }
        Ok(())
    }

    /// Ends imposters, which have nowhere to deliver to.
    pub(super) fn end_imposters(&mut self) -> Result<(), LabError> {
        self.agents.iter().try_for_each(|agent| agent.process.tell_to_end())?;
        let mut agents = self.agents.iter_mut();
        agents.try_for_each(|agent| agent.process.wait(Duration::from_secs(2)).map(drop))
    }

    /// Waits until every named node's agent is known to read the kernel, by its word of `since` or
    /// later: an older one may be that of an agent that was killed.
    pub(super) fn wait_until_reading(
        &mut self,
        nodes: &[&str],
        since: SystemTime,
    ) -> Result<(), LabError> {
        let since = kube::timestamp(since);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            self.must_run()?;
            let answer = self.ask(&["status", "--since", "1h"])?;
            let mut waiting = nodes.iter().filter(|node| !is_reading(&answer, node, &since));
            let Some(first) = waiting.next() else { return Ok(()) };
            if Instant::now() > deadline {
                let silent = self.agents.iter().find(|agent| agent.node == *first);
                let what = format!("is not said to read the kernel after {START_LIMIT:?}");
                return Err(silent.map_or_else(
                    || self.server.trouble(&what),
                    |agent| agent.process.trouble(&what),
                ));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Asks the server's API.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = command_in(&self.control, self.programs.weir.as_os_str());
        command.args(["query", &format!("http://127.0.0.1:{API_PORT}")]);
        command.args(arguments).args(["-o", "json"]);
        run_command(command, "")
    }

    /// Asks for flows, all of them.
    pub(super) fn ask_top(&self, by: &str, filter: &str) -> Result<String, LabError> {
        let arguments = ["top", "--by", by, "--limit", "0", "--since", "2h", "--filter", filter];
        self.ask(&arguments)
    }

    /// Everything the server has printed.
    pub(super) fn server_said(&self) -> String {
        self.server.said()
    }

    /// A command that looks at the server, for people.
    pub(super) fn watch(&self) -> Command {
        let mut command = command_in(&self.control, self.programs.weir.as_os_str());
        command.args(["top", &format!("http://127.0.0.1:{API_PORT}")]);
        command
    }
}

/// What an imposter's token stands for; nothing where nobody has issued it.
fn identity(token: Token, scenario: &Scenario, node: usize) -> Option<TokenIdentity> {
    let good = objects::agent_identity(&scenario.nodes[node].name);
    Some(match token {
        Token::Forged => return None,
        Token::Expired => TokenIdentity { expires: Some(SystemTime::UNIX_EPOCH), ..good },
        Token::WrongAudience => {
            let audiences = vec!["https://kubernetes.default.svc".to_owned()];
            TokenIdentity { audiences, ..good }
        }
        Token::OtherAccount => {
            TokenIdentity { username: "system:serviceaccount:shop:default".to_owned(), ..good }
        }
        Token::ForeignNode | Token::Stolen => {
            objects::agent_identity(&scenario.nodes[other(node, scenario)].name)
        }
    })
}

fn other(node: usize, scenario: &Scenario) -> usize {
    (node + 1) % scenario.nodes.len()
}

fn server_arguments(scenario: &Scenario, data: &Path) -> Vec<String> {
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
    [
        ("--data-dir", file("server")),
        ("--listen", format!("127.0.0.1:{API_PORT}")),
        ("--ingest", format!("{SERVER}:{INGEST_PORT}")),
        ("--metrics", "127.0.0.1:8883".to_owned()),
        ("--tls-cert", file("server.pem")),
        ("--tls-key", file("server.key")),
        ("--kubeconfig", file("kubeconfig")),
        ("--audience", AUDIENCE.to_owned()),
        ("--agent-account", format!("{}:{}", objects::NAMESPACE, objects::ACCOUNT)),
        ("--agent-selector", SELECTOR.to_owned()),
        ("--networks", networks.join(",")),
        ("--region", region),
        ("--cluster", "lab".to_owned()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .chain(["--no-range-refresh".to_owned()])
    .collect()
}

/// An authority and a certificate of the server's that it has signed.
fn certificates(data: &Path) -> Result<(), LabError> {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let trouble = |error: rcgen::Error| LabError::Answer {
        program: "the certificate generator".to_owned(),
        message: error.to_string(),
    };
    let mut authority = CertificateParams::new(Vec::new()).map_err(trouble)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().map_err(trouble)?;
    let authority = CertifiedIssuer::self_signed(authority, key).map_err(trouble)?;
    let names = vec![SERVER.to_string(), "weir-server".to_owned()];
    let server = CertificateParams::new(names).map_err(trouble)?;
    let key = KeyPair::generate().map_err(trouble)?;
    let server = server.signed_by(&key, &authority).map_err(trouble)?;
    write(data, "ca.pem", &authority.pem())?;
    write(data, "server.pem", &server.pem())?;
    write(data, "server.key", &key.serialize_pem())
}

fn write(data: &Path, name: &str, text: &str) -> Result<(), LabError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = data.join(name);
    let shown = path.display().to_string();
    let file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let mut file = file.map_err(io_error("make", &shown))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(io_error("write", &shown))
}

/// The first node with more than a few batches on their way, how many they are, and why.
fn undelivered(answer: &str) -> Option<(String, u64, String)> {
    /// Sealed since the last word, or on their way at any moment.
    const USUAL: u64 = 2;
    #[derive(Deserialize)]
    struct Answer {
        nodes: Vec<Said>,
    }
    #[derive(Deserialize)]
    struct Said {
        node: String,
        #[serde(default)]
        undelivered_batches: u64,
        delivery_waits: Option<String>,
    }
    let answer: Answer = serde_json::from_str(answer).ok()?;
    let waiting = answer.nodes.into_iter().find(|said| said.undelivered_batches > USUAL)?;
    let why = waiting.delivery_waits.unwrap_or_else(|| "no reason given".to_owned());
    Some((waiting.node, waiting.undelivered_batches, why))
}

/// True when a node's agent is said to read the kernel.
fn is_reading(answer: &str, node: &str, since: &str) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        nodes: Vec<Said>,
    }
    #[derive(Deserialize)]
    struct Said {
        node: String,
        state: String,
        updated: Option<String>,
    }
    serde_json::from_str::<Answer>(answer).is_ok_and(|answer| {
        answer.nodes.iter().any(|said| {
            // Times of one form in UTC compare as texts.
            let is_fresh = said.updated.as_deref().is_some_and(|updated| updated >= since);
            said.node == node && said.state == "reading" && is_fresh
        })
    })
}
