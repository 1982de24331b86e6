//! What this server holds itself.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;

use super::question::{Asked, Told, connections_question, rates_question};
use super::{Instance, PeersError};
use crate::Live;
use crate::live::{Hidden, Hold};
use crate::query::{Board, Clock};

/// A server hears an agent this much later than another one before it forgets what the agent said.
const MOVED_SECONDS: u64 = 60;

/// This server's own live connections and agents.
pub struct Local {
    instance: Instance,
    live: Arc<Live>,
    board: Arc<Board>,
    clock: Clock,
}

impl Local {
    /// Answers from these, at the time that `clock` tells.
    pub fn new(live: Arc<Live>, board: Arc<Board>, clock: Clock) -> Result<Self, PeersError> {
        Ok(Self { instance: Instance::new()?, live, board, clock })
    }

    pub(crate) fn instance(&self) -> Instance {
        self.instance
    }

    /// The answer, or what is wrong with the question.
    pub(crate) fn answer(&self, asked: Asked) -> Result<Told, String> {
        let now = (self.clock)();
        match asked {
            Asked::Connections { node, filter, state, sort, rows, without } => {
                let question = connections_question(node, &filter, state, sort, rows)?;
                let hidden: Hidden = without.into_iter().collect();
                let (answer, holds) = self.live.connections_without(&hidden, &question, now);
                Ok(Told { holds, connections: Some(answer), ..Told::default() })
            }
            Asked::Rates { by, filter, groups, without } => {
                let question = rates_question(&by, &filter, groups)?;
                let hidden: Hidden = without.into_iter().collect();
                let (answer, holds) = self.live.rates_without(&hidden, &question, now);
                Ok(Told { holds, rates: Some(answer), ..Told::default() })
            }
            Asked::Nodes => {
                let nodes = self.board.nodes(now.seconds());
                Ok(Told { holds: self.live.holds(), nodes: Some(nodes), ..Told::default() })
            }
            Asked::Holds => {
                let silent = self.board.silences(now.seconds());
                Ok(Told { holds: self.live.holds(), silent, ..Told::default() })
            }
        }
    }

    /// Forgets nodes that others hear of now.
    pub(super) fn let_go(&self, theirs: &[Told]) {
        let ours: HashMap<String, Hold> =
            self.live.holds().into_iter().map(|hold| (hold.node.clone(), hold)).collect();
        let now = (self.clock)().seconds();
        let silent: HashMap<String, u64> = self.board.silences(now).into_iter().collect();
        for told in theirs {
            let newer =
                |hold: &&Hold| ours.get(&hold.node).is_some_and(|ours| hold.is_newer_than(ours));
            told.holds.iter().filter(newer).for_each(|hold| self.live.let_go(hold));
            for (node, theirs) in &told.silent {
                let moved = |ours: &u64| ours.saturating_sub(*theirs) > MOVED_SECONDS;
                if silent.get(node).is_some_and(moved) {
                    self.board.let_go(node);
                }
            }
        }
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("instance", &self.instance).finish_non_exhaustive()
    }
}
