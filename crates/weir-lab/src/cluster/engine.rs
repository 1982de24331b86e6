//! The ClickHouse of a cluster, with a gate before it for every server.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::gate::{Gate, Mode};
use super::servers::own;
use crate::clickhouse::{Database, Engine};
use crate::error::LabError;

/// Where servers find it.
const PORT: u16 = 8123;
/// How long an insert is waited for: batches come at least as often as agents look.
const INSERT_LIMIT: Duration = Duration::from_secs(30);
/// How much later in an insert every further kill comes.
const LATER: Duration = Duration::from_millis(4);

/// ClickHouse, as this run has it.
#[derive(Debug)]
pub(super) struct EngineRoom {
    // Dropped before the engine that has it.
    database: Database,
    engine: Engine,
    gates: Vec<Gate>,
    kills: u32,
}

/// What was done to ClickHouse and to those who write to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EngineOutcome {
    /// Inserts of different batches that it was given.
    pub batches: usize,
    /// Those that it was given more than once.
    pub repeated_batches: usize,
    /// Those that it was given by more than one server.
    pub raced_batches: usize,
    /// Some had to be.
    pub must_race: bool,
    /// How often it was killed.
    pub kills: u32,
}

impl EngineOutcome {
    /// True when what had to happen to it did.
    pub fn is_good(&self) -> bool {
        !self.must_race || self.raced_batches > 0
    }
}

impl EngineRoom {
    /// Starts an engine (or finds the server that is named), and opens a gate to it for every server.
    pub(super) fn start(space: &str, servers: usize) -> Result<Self, LabError> {
        let named = std::env::var_os(crate::clickhouse::SERVER).is_some_and(|url| !url.is_empty());
        let engine = if named { Engine::shared()? } else { Engine::own()? };
        let target = address(engine.url())?;
        let gates = (0..servers)
            .map(|index| Gate::open(space, SocketAddr::new(own(index), PORT), target))
            .collect::<Result<_, _>>()?;
        Ok(Self { database: engine.name(), engine, gates, kills: 0 })
    }

    /// The engine itself.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What a server's command line says of it.
    pub(super) fn arguments(&self, index: usize) -> Vec<String> {
        let url = format!("http://{}", SocketAddr::new(own(index), PORT));
        ["--store", "clickhouse", "--clickhouse-url", &url]
            .map(str::to_owned)
            .into_iter()
            .chain(self.database_arguments())
            .collect()
    }

    /// What it says of the database alone.
    pub(super) fn database_arguments(&self) -> Vec<String> {
        ["--clickhouse-database", self.database.name()]
            .into_iter()
            .chain(self.engine.user().into_iter().flat_map(|user| ["--clickhouse-user", user]))
            .map(str::to_owned)
            .collect()
    }

    /// What a server's environment says of it.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let password = self.engine.password().map(str::to_owned);
        password
            .into_iter()
            .map(|password| ("WEIR_CLICKHOUSE_PASSWORD".to_owned(), password))
            .collect()
    }

    /// Takes the way to it away, or gives it back.
    pub(super) fn cut(&self, is_away: bool) {
        let mode = if is_away { Mode::Shut } else { Mode::Open };
        self.gates.iter().for_each(|gate| gate.set(mode));
    }

    /// `kill -9` when it has just been given an insert; every further kill comes a little later.
    pub(super) fn kill(&mut self) -> Result<(), LabError> {
        if self.engine.pid().is_none() {
            let message = "an engine that is not the lab's own cannot be killed";
            return Err(LabError::Truth(message.to_owned()));
        }
        if !self.gates[0].wait_for_insert(INSERT_LIMIT) {
            return Err(LabError::Truth(format!("no insert came within {INSERT_LIMIT:?}")));
        }
        thread::sleep(LATER * self.kills);
        self.engine.kill()?;
        self.kills += 1;
        Ok(())
    }

    /// Starts it again on its data.
    pub(super) fn restart(&mut self) -> Result<(), LabError> {
        self.engine.restart()?;
        let target = address(self.engine.url())?;
        self.gates.iter().for_each(|gate| gate.lead_to(target));
        Ok(())
    }

    /// Waits until it has done an insert of the first server's and the answer is held back.
    pub(super) fn hold_answer(&self) -> Result<(), LabError> {
        self.gates[0].set(Mode::HoldAnswers);
        if self.gates[0].wait_for_unanswered(INSERT_LIMIT) {
            return Ok(());
        }
        Err(LabError::Truth(format!("no insert was answered within {INSERT_LIMIT:?}")))
    }

    /// Forgets the answers that are held back: whoever waited for them is gone.
    pub(super) fn drop_answers(&self) {
        self.gates[0].set(Mode::Shut);
        self.gates[0].set(Mode::Open);
    }

    /// Waits until an insert of the first server's is held back.
    pub(super) fn hold_inserts(&self) -> Result<(), LabError> {
        self.gates[0].set(Mode::HoldInserts);
        if self.gates[0].wait_for_held(INSERT_LIMIT) {
            return Ok(());
        }
        Err(LabError::Truth(format!("no insert came within {INSERT_LIMIT:?}")))
    }

    /// Lets what is held back go on.
    pub(super) fn release(&self) {
        self.gates[0].set(Mode::Open);
    }

    /// What was done to it.
    pub(super) fn outcome(&self, must_race: bool) -> EngineOutcome {
        // By token: how often, and by how many servers.
        let mut given: BTreeMap<String, (u32, usize)> = BTreeMap::new();
        for (token, times) in self.gates.iter().flat_map(Gate::given) {
            let sum = given.entry(token).or_default();
            *sum = (sum.0 + times, sum.1 + 1);
        }
        EngineOutcome {
            batches: given.len(),
            repeated_batches: given.values().filter(|(times, _)| *times > 1).count(),
            raced_batches: given.values().filter(|(_, servers)| *servers > 1).count(),
            must_race,
            kills: self.kills,
        }
    }
}

/// Where a URL leads; the gates hand on what is said there as it is.
fn address(url: &str) -> Result<SocketAddr, LabError> {
    let trouble = |message: String| LabError::Answer { program: "ClickHouse".to_owned(), message };
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(trouble(format!("{url}: the lab reaches it by http:// only")));
    };
    let place = rest.split('/').next().unwrap_or(rest);
    let place = if place.contains(':') { place.to_owned() } else { format!("{place}:{PORT}") };
    let mut found = place.to_socket_addrs().map_err(|error| trouble(format!("{url}: {error}")))?;
    found.next().ok_or_else(|| trouble(format!("{url} has no address")))
}
