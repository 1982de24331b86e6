//! The weir of a cluster: the Kubernetes API it reads, its server, and an agent on every node.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;

use super::engine::EngineRoom;
use super::files::{self, certificates, write};
use super::kubenetmon;
use super::objects;
use super::process::Process;
use super::servers::{self, INGEST_PORT, Servers};
use crate::error::LabError;
use crate::kube::{self, Api, TokenIdentity};
use crate::net::{Lab, SERVERS, command_in, inside};
use crate::scenario::{Imposter, Place, Scenario, Store, Token};
use crate::verify::check_stop;
use crate::weir::{self, find_program};

/// Where the Kubernetes API is.
const KUBE_PORT: u16 = 6443;
/// The servers' configuration file.
const CONFIG: &str = "server.yaml";
/// How long an agent may take until it works.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long it may take until an agent that was cut off has delivered its backlog.
const DELIVERY_LIMIT: Duration = Duration::from_secs(90);
/// How long an agent may take to end.
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
    pub(super) servers: Servers,
    // After those who write to it, so that it goes last.
    pub(super) engine: Option<EngineRoom>,
    is_kubenetmon: bool,
    agents: Vec<Agent>,
}

#[derive(Debug)]
struct Agent {
    node: String,
    space: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Process,
}

impl Station {
    /// Starts the API and the servers, and waits until they answer.
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
        api.token("token-of-servers", objects::server_identity());
        write(data, servers::TOKEN_FILE, "token-of-servers")?;
        let engine = match scenario.setup.store {
            Store::Clickhouse => Some(EngineRoom::start(lab.control(), scenario.setup.servers)?),
            Store::Sqlite => None,
        };
        let config = files::server_config(scenario);
        if !config.is_empty() {
            write(data, CONFIG, &config)?;
        }
        let mut servers = Servers::new(&programs.weir, lab.control());
        for index in 0..scenario.setup.servers {
            let mut arguments = servers::arguments(scenario, data, index);
            let mut environment = Vec::new();
            if let Some(engine) = &engine {
                environment = engine.environment();
                if scenario.setup.kubenetmon {
                    // Its file says where ClickHouse is; the database of weir's own tables it cannot.
                    arguments.extend(engine.database_arguments());
                } else {
                    arguments.extend(engine.arguments(index));
                }
            }
            if !config.is_empty() {
                arguments.extend(["--config".to_owned(), data.join(CONFIG).display().to_string()]);
            }
            servers.add(data, arguments, environment);
        }
        let mut station = Self {
            api: Arc::new(api),
            programs: programs.clone(),
            data: data.to_owned(),
            servers,
            engine,
            is_kubenetmon: scenario.setup.kubenetmon,
            agents: Vec::new(),
        };
        (0..station.servers.len()).try_for_each(|index| station.servers.launch(index))?;
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
        let server = SERVERS[node % self.servers.len()];
        let mut arguments: Vec<String> = [
            "--spool",
            &file(&format!("{name}.spool")),
            "--ca-file",
            &file("ca.pem"),
            "--token-file",
            &file(&token_file),
            "--drain",
            "40s",
        ]
        .map(str::to_owned)
        .to_vec();
        let mut environment = Vec::new();
        if self.is_kubenetmon {
            environment = kubenetmon::agent_environment(says, server, metrics, interval);
        } else {
            let own = [
                ("--node", says.to_owned()),
                ("--server", format!("{server}:{INGEST_PORT}")),
                ("--interval", format!("{}s", interval.as_secs())),
                ("--metrics", format!("127.0.0.1:{metrics}")),
            ];
            arguments.extend(own.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        }
        self.agents.push(Agent {
            node: says.to_owned(),
            space: lab.space(Place::Node(node)).to_owned(),
            arguments,
            environment,
            process: Process::new(name, &self.data),
        });
        Ok(())
    }

    /// Starts an agent (again).
    pub(super) fn launch_agent(&mut self, index: usize) -> Result<(), LabError> {
        let agent = &mut self.agents[index];
        let mut command = command_in(&agent.space, self.programs.agent.as_os_str());
        command.args(&agent.arguments);
        command.envs(agent.environment.iter().map(|(name, value)| (name, value)));
        agent.process.launch(command)
    }

    /// `kill -9` to an agent.
    pub(super) fn kill_agent(&mut self, index: usize) -> Result<(), LabError> {
        self.agents[index].process.kill()
    }

    /// Fails when a part has ended by itself.
    pub(super) fn must_run(&mut self) -> Result<(), LabError> {
        self.servers.must_run()?;
        self.agents.iter_mut().try_for_each(|agent| agent.process.must_run())
    }

    /// Waits until nothing is on its way: every agent has delivered what it had sealed by now.
    pub(super) fn wait_until_delivered(&mut self, stop: &AtomicBool) -> Result<(), LabError> {
        let deadline = Instant::now() + DELIVERY_LIMIT;
        loop {
            check_stop(stop)?;
            self.must_run()?;
            let Some(said) = self.nodes_or_wait(deadline)? else { continue };
            let waiting = said.into_values().find(|said| said.undelivered_batches > USUAL);
            let Some(Said { node, undelivered_batches, delivery_waits, .. }) = waiting else {
                return Ok(());
            };
            if Instant::now() > deadline {
                let why = delivery_waits.unwrap_or_else(|| "no reason given".to_owned());
                let what = format!(
                    "has not taken {undelivered_batches} batches of node {node} within \
                     {DELIVERY_LIMIT:?} ({why})"
                );
                return Err(self.servers.trouble(0, &what));
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
            let Some(said) = self.nodes_or_wait(deadline)? else { continue };
            let mut waiting = nodes
                .iter()
                .filter(|node| said.get(**node).is_none_or(|said| !said.is_reading(&since)));
            let Some(first) = waiting.next() else { return Ok(()) };
            if Instant::now() > deadline {
                let silent = self.agents.iter().find(|agent| agent.node == *first);
                let what = format!("is not said to read the kernel after {START_LIMIT:?}");
                return Err(silent.map_or_else(
                    || self.servers.trouble(0, &what),
                    |agent| agent.process.trouble(&what),
                ));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What is said of every node: of several servers' words the latest.
    fn nodes(&self) -> Result<BTreeMap<String, Said>, LabError> {
        let mut all: BTreeMap<String, Said> = BTreeMap::new();
        for index in 0..self.servers.len() {
            let answer = self.servers.ask(index, &["status", "--since", "1h"])?;
            for said in said(&answer)? {
                let is_newer = all.get(&said.node).is_none_or(|other| other.updated < said.updated);
                if is_newer {
                    all.insert(said.node.clone(), said);
                }
            }
        }
        Ok(all)
    }

    /// The same; nothing while a server cannot answer yet, because its store is away or slow.
    fn nodes_or_wait(&self, deadline: Instant) -> Result<Option<BTreeMap<String, Said>>, LabError> {
        match self.nodes() {
            Ok(said) => Ok(Some(said)),
            Err(error) if Instant::now() > deadline => Err(error),
            Err(_) => {
                thread::sleep(Duration::from_millis(200));
                Ok(None)
            }
        }
    }

    /// Asks the first server's API.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String, LabError> {
        self.servers.ask(0, arguments)
    }

    /// Asks for flows, all of them but those that an agent sends itself when it begins, to see
    /// whether they are counted: they passed before the truth was set to nothing.
    pub(super) fn ask_top(&self, by: &str, filter: &str) -> Result<String, LabError> {
        const OWN: &str = "not source.address in (127.0.0.1, ::1)";
        let both = format!("{filter} and {OWN}");
        let filter = if filter.is_empty() { OWN } else { &both };
        let arguments = ["top", "--by", by, "--limit", "0", "--since", "2h", "--filter", filter];
        self.ask(&arguments)
    }

    /// Fails unless every server answers as the first does.
    pub(super) fn must_agree(&self) -> Result<(), LabError> {
        let top = ["top", "--by", weir::BY, "--limit", "0", "--since", "2h"];
        let first = weir::parse_flows(&self.servers.ask(0, &top)?)?;
        for index in 1..self.servers.len() {
            if weir::parse_flows(&self.servers.ask(index, &top)?)? != first {
                return Err(self.servers.trouble(index, "answers otherwise than the first server"));
            }
        }
        Ok(())
    }

    /// Everything the first server has printed.
    pub(super) fn server_said(&self) -> String {
        self.servers.said(0)
    }

    /// A command that looks at the first server, for people.
    pub(super) fn watch(&self) -> Command {
        self.servers.watch(0)
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

/// Batches sealed since the last word, or on their way at any moment.
const USUAL: u64 = 2;

/// What a server says of a node.
#[derive(Clone, Debug, Deserialize)]
struct Said {
    node: String,
    state: String,
    updated: Option<String>,
    #[serde(default)]
    undelivered_batches: u64,
    delivery_waits: Option<String>,
}

impl Said {
    /// True when its agent reads the kernel, by its word of `since` or later.
    fn is_reading(&self, since: &str) -> bool {
        // Times of one form in UTC compare as texts.
        let is_fresh = self.updated.as_deref().is_some_and(|updated| updated >= since);
        self.state == "reading" && is_fresh
    }
}

fn said(answer: &str) -> Result<Vec<Said>, LabError> {
    #[derive(Deserialize)]
    struct Answer {
        nodes: Vec<Said>,
    }
    let answer = serde_json::from_str(answer).map_err(|error| LabError::Answer {
        program: "weir".to_owned(),
        message: error.to_string(),
    });
    answer.map(|Answer { nodes }| nodes)
}
