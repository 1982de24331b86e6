//! What is done to a cluster while traffic flows: each action has a beginning and, where it lasts,
//! an end.

use std::time::Duration;

use super::engine::EngineRoom;
use super::servers::{INGEST_PORT, Servers};
use super::station::Station;
use crate::error::LabError;
use crate::net::{Lab, SERVERS};
use crate::scenario::{ActionKind, Scenario};

/// One half of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Flush(usize),
    KillAgent(usize),
    LaunchAgent(usize),
    Cut(usize),
    Mend(usize),
    Refuse,
    Accept,
    KillServer,
    StopServer,
    LaunchServer,
    CutEngine,
    MendEngine,
    KillEngine,
    RestartEngine,
    KillServerUnanswered,
    Race,
    EndRace,
}

/// The deeds of a scenario in the order of time. Without weir only those to the box remain.
pub(super) fn schedule(scenario: &Scenario, with_weir: bool) -> Vec<(Duration, Deed)> {
    let mut deeds = Vec::new();
    for action in &scenario.actions {
        let (first, then) = match action.kind {
            ActionKind::FlushConntrack(node) => (Deed::Flush(node), None),
            ActionKind::KillAgent(node, down) => {
                (Deed::KillAgent(node), Some((down, Deed::LaunchAgent(node))))
            }
            ActionKind::CutAgent(node, down) => (Deed::Cut(node), Some((down, Deed::Mend(node)))),
            ActionKind::CutConnections(down) => (Deed::Refuse, Some((down, Deed::Accept))),
            ActionKind::KillServer(down) => (Deed::KillServer, Some((down, Deed::LaunchServer))),
            ActionKind::StopServer(down) => (Deed::StopServer, Some((down, Deed::LaunchServer))),
            ActionKind::CutEngine(down) => (Deed::CutEngine, Some((down, Deed::MendEngine))),
            ActionKind::KillEngine(down) => (Deed::KillEngine, Some((down, Deed::RestartEngine))),
            ActionKind::KillServerUnanswered(down) => {
                (Deed::KillServerUnanswered, Some((down, Deed::LaunchServer)))
            }
            ActionKind::RaceServers(down) => (Deed::Race, Some((down, Deed::EndRace))),
        };
        deeds.push((action.at, first));
        deeds.extend(then.map(|(down, deed)| (action.at + down, deed)));
    }
    deeds.retain(|(_, deed)| with_weir || matches!(deed, Deed::Flush(_)));
    deeds.sort_by_key(|(at, _)| *at);
    deeds
}

impl Deed {
    /// Does it.
    pub(super) fn perform(self, lab: &Lab, station: Option<&mut Station>) -> Result<(), LabError> {
        match (self, station) {
            (Self::Flush(node), _) => lab.flush_conntrack(node),
            (Self::Cut(node), _) => lab.cut(node),
            (Self::Mend(node), _) => lab.mend(node),
            (Self::Refuse, _) => lab.refuse(INGEST_PORT),
            (Self::Accept, _) => lab.accept(),
            (Self::KillAgent(node), Some(station)) => station.kill_agent(node),
            (Self::LaunchAgent(node), Some(station)) => station.launch_agent(node),
            (Self::KillServer, Some(station)) => station.servers.kill(0),
            (Self::StopServer, Some(station)) => station.servers.stop(0),
            (Self::LaunchServer, Some(station)) => station.servers.launch(0),
            (_, None | Some(Station { engine: None, .. })) => Ok(()),
            (deed, Some(Station { engine: Some(engine), servers, .. })) => {
                deed.perform_with_engine(lab, engine, servers)
            }
        }
    }

    fn perform_with_engine(
        self,
        lab: &Lab,
        engine: &mut EngineRoom,
        servers: &mut Servers,
    ) -> Result<(), LabError> {
        match self {
            Self::CutEngine => engine.cut(true),
            Self::MendEngine => engine.cut(false),
            Self::KillEngine => engine.kill()?,
            Self::RestartEngine => engine.restart()?,
            Self::KillServerUnanswered => {
                engine.hold_answer()?;
                servers.kill(0)?;
                engine.drop_answers();
            }
            Self::Race => {
                engine.hold_inserts()?;
                lab.divert(SERVERS[0], SERVERS[1], INGEST_PORT)?;
            }
            Self::EndRace => {
                engine.release();
                lab.lead_back()?;
            }
            _ => {}
        }
        Ok(())
    }
}
