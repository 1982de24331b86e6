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

/// How weir is set up in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Where the servers keep what they know.
    pub store: Store,
    /// How many servers there are; agents are spread over them.
    pub servers: usize,
    /// Servers and agents are set up with kubenetmon's own file and variables, and its table is held
    /// against the truth too.
    pub kubenetmon: bool,
    /// The cloud that the cluster is said to run in.
    pub cloud: Option<String>,
}

/// Where a server keeps what it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// A file of its own.
    #[default]
    Sqlite,
    /// ClickHouse, for all servers together.
    Clickhouse,
}

impl Default for Setup {
    fn default() -> Self {
        Self { store: Store::default(), servers: 1, kubenetmon: false, cloud: None }
    }
}

impl Setup {
    /// Servers that have an address to be reached at.
    pub const SERVERS_LIMIT: usize = 4;

    /// What of it does not go together, and what would.
    pub fn problem(&self, is_cluster: bool) -> Option<String> {
        if (1..=Self::SERVERS_LIMIT).contains(&self.servers) {
            let with = match (self.store, self) {
                (Store::Clickhouse, _) if !is_cluster => {
                    return Some("ClickHouse needs a cluster of several nodes".to_owned());
                }
                (Store::Sqlite, Self { servers: 2.., .. }) => "more than one server",
                (Store::Sqlite, Self { kubenetmon: true, .. }) => "kubenetmon's table",
                _ => return None,
            };
            return Some(format!(
                "{with} needs ClickHouse: write `store = \"clickhouse\"` in [weir] or add \
                 --store clickhouse"
            ));
        }
        Some(format!("there can be 1 to {} servers", Self::SERVERS_LIMIT))
    }
}

/// What an operator says that addresses outside belong to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// What to call it.
    pub name: String,
    /// Its cloud.
    pub cloud: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// The service behind it.
    pub service: Option<String>,
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
