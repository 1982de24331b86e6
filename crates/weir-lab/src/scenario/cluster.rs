//! What only a scenario with several nodes has.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use super::{Place, Span};

/// How packets between the pods of different nodes travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// As they are, by routes to the nodes' pod networks.
    #[default]
    Routed,
    /// Wrapped in VXLAN between the nodes.
    Vxlan,
}

/// What a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Its kind, as Kubernetes writes it.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Pods that own one address in turn, each with traffic from and to a peer.
#[derive(Clone, Debug)]
pub struct Churn {
    /// Their node, by index.
    pub node: usize,
    /// The address.
    pub address: IpAddr,
    /// How many pods.
    pub pods: u16,
    /// How long each lives.
    pub life: Span<Duration>,
    /// Who talks with them.
    pub peer: Place,
    /// Every other pod is deleted at its end; the others stay, as succeeded.
    pub deletes: bool,
    /// How much of their bytes may be left unnamed, in percent.
    pub unnamed_percent: u8,
}

/// An agent that must not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imposter {
    /// The node it runs on and says it is, by index.
    pub node: usize,
    /// What it shows the server.
    pub token: Token,
}

/// What is wrong with an imposter's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Token {
    /// Nobody has issued it.
    Forged,
    /// Its time is over.
    Expired,
    /// It was issued for somebody else to check.
    WrongAudience,
    /// It is of another account.
    OtherAccount,
    /// It is good, but of another node than the agent says.
    ForeignNode,
    /// It is good, and the agent says it is the node that the token was stolen from.
    Stolen,
}

impl Token {
    /// Its name in scenario files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::Expired => "expired",
            Self::WrongAudience => "wrong_audience",
            Self::OtherAccount => "other_account",
            Self::ForeignNode => "foreign_node",
            Self::Stolen => "stolen",
        }
    }

    /// What the server's log must say of it; nothing where the agent is let in, and none of what it
    /// brings is taken for its node's.
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Forged => Some("unauthenticated"),
            Self::Expired => Some("expired"),
            Self::WrongAudience => Some("wrong_audience"),
            Self::OtherAccount => Some("not_an_agent"),
            Self::ForeignNode => Some("other_node"),
            Self::Stolen => None,
        }
    }
}
