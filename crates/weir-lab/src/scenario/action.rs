//! What is done to a box, and to the weir in it.

use std::time::Duration;

/// Something done to the box while traffic flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// When, from the start of the traffic.
    pub at: Duration,
    /// What.
    pub kind: ActionKind,
}

/// What can be done to the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// Empty the conntrack table of a node (by index).
    FlushConntrack(usize),
    /// `kill -9` the weir of a node (by index) and start it again after this time.
    KillAgent(usize, Duration),
    /// Take the way between an agent (by its node's index) and the server away for this time.
    CutAgent(usize, Duration),
    /// Reset every connection between the agents and the server, and refuse new ones for this time.
    CutConnections(Duration),
    /// `kill -9` the server and start it again after this time.
    KillServer(Duration),
    /// End the server as an operator does and start it again after this time.
    StopServer(Duration),
    /// Take the way between the servers and ClickHouse away for this time.
    CutEngine(Duration),
    /// `kill -9` ClickHouse just when it was given an insert, and start it again on its data after
    /// this time.
    KillEngine(Duration),
    /// `kill -9` the server when ClickHouse has done an insert, but before it can say so, and start
    /// the server again after this time.
    KillServerUnanswered(Duration),
    /// Hold the first server's inserts back for this time, and meanwhile let its agents deliver the
    /// same batches to the second.
    RaceServers(Duration),
}

impl ActionKind {
    /// True for what only ClickHouse can be done to.
    pub fn needs_engine(self) -> bool {
        matches!(
            self,
            Self::CutEngine(_)
                | Self::KillEngine(_)
                | Self::KillServerUnanswered(_)
                | Self::RaceServers(_)
        )
    }
}
