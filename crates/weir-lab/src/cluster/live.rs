//! Whether every server of several tells of all nodes' connections, whoever the agents speak to.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::servers::Servers;
use crate::error::LabError;
use crate::scenario::Scenario;

/// How long it may take until each does.
const LIMIT: Duration = Duration::from_mins(1);

/// What a server tells of connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LiveLine {
    /// The server, counted from 1.
    pub server: usize,
    /// Nodes whose connections it tells of, and how many.
    pub nodes: BTreeMap<String, usize>,
    /// How it stands with the other servers.
    pub peers: Vec<Peer>,
}

/// How a server stands with another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Where it asks it.
    pub address: String,
    /// `ok`, or what is wrong.
    pub state: String,
}

/// Asks every server until each tells of all nodes.
pub(super) fn look(servers: &Servers, scenario: &Scenario) -> Result<Vec<LiveLine>, LabError> {
    let all: BTreeSet<&str> = scenario.nodes.iter().map(|node| node.name.as_str()).collect();
    let deadline = Instant::now() + LIMIT;
    loop {
        let ask = |index| parse(index, &servers.get(index, "/api/v1/connections?limit=1000")?);
        let lines: Vec<LiveLine> = (0..servers.len()).map(ask).collect::<Result<_, LabError>>()?;
        let tells_all = |line: &LiveLine| {
            let nodes: BTreeSet<&str> = line.nodes.keys().map(String::as_str).collect();
            nodes == all && line.peers.iter().all(|peer| peer.state == "ok")
        };
        let Some(lacking) = lines.iter().find(|line| !tells_all(line)) else { return Ok(lines) };
        if Instant::now() > deadline {
            let what = format!("does not tell of all nodes' connections: {lacking:?}");
            return Err(servers.trouble(lacking.server - 1, &what));
        }
        thread::sleep(Duration::from_millis(500));
    }
}

fn parse(index: usize, text: &str) -> Result<LiveLine, LabError> {
    #[derive(Deserialize)]
    struct Answer {
        connections: Vec<Row>,
        #[serde(default)]
        peers: Vec<Peer>,
    }
    #[derive(Deserialize)]
    struct Row {
        node: String,
    }
    let answer: Answer = serde_json::from_str(text).map_err(|error| LabError::Answer {
        program: "weir".to_owned(),
        message: error.to_string(),
    })?;
    let mut nodes = BTreeMap::new();
    for row in answer.connections {
        *nodes.entry(row.node).or_default() += 1;
    }
    Ok(LiveLine { server: index + 1, nodes, peers: answer.peers })
}
