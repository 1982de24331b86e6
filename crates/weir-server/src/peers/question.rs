//! What servers ask each other, as it crosses the wire.

use serde::{Deserialize, Serialize};
use weir_flow::Field;
use weir_flow::filter::Filter;

use super::{GROUPS_MAX, ROWS_MAX};
use crate::answer::{
    ConnectionSort, Connections, ConnectionsQuestion, NodeStatus, Rates, RatesQuestion,
};
use crate::live::Hold;

/// What a server wants to know of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Asked {
    /// The first connections in some order.
    Connections {
        node: Option<String>,
        filter: String,
        state: Option<String>,
        sort: ConnectionSort,
        rows: usize,
        /// Nodes of which somebody else heard later.
        without: Vec<String>,
    },
    /// What moves, by fields.
    Rates { by: Vec<String>, filter: String, groups: usize, without: Vec<String> },
    /// What agents say of themselves.
    Nodes,
    /// Only what is held.
    Holds,
}

/// What a server answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// What it holds of which node.
    pub(crate) holds: Vec<Hold>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<Connections>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rates: Option<Rates>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nodes: Option<Vec<NodeStatus>>,
    /// How long its agents have been silent.
    #[serde(default)]
    pub(crate) silent: Vec<(String, u64)>,
}

impl Asked {
    /// The same, without these nodes.
    pub(crate) fn without(&self, nodes: Vec<String>) -> Self {
        let mut asked = self.clone();
        match &mut asked {
            Self::Connections { without, .. } | Self::Rates { without, .. } => *without = nodes,
            Self::Nodes | Self::Holds => {}
        }
        asked
    }

    pub(super) fn connections(question: &ConnectionsQuestion) -> Self {
        let ConnectionsQuestion { node, filter, state, sort, offset, limit } = question;
        Self::Connections {
            node: node.clone(),
            filter: written(filter),
            state: state.clone(),
            sort: *sort,
            rows: offset.saturating_add(*limit),
            without: Vec::new(),
        }
    }

    pub(super) fn rates(question: &RatesQuestion) -> Self {
        let RatesQuestion { by, filter, limit: _ } = question;
        Self::Rates {
            by: by.iter().map(ToString::to_string).collect(),
            filter: written(filter),
            // A group may be small everywhere and large together.
            groups: GROUPS_MAX,
            without: Vec::new(),
        }
    }

    /// What is wrong with an answer to this question.
    pub(super) fn misses(&self, told: &Told) -> Option<&'static str> {
        match self {
            Self::Connections { rows, .. } => match &told.connections {
                None => Some("it holds no connections"),
                Some(answer) if answer.connections.len() > *rows => {
                    Some("it holds more connections than were asked for")
                }
                Some(_) => None,
            },
            Self::Rates { groups, .. } => match &told.rates {
                None => Some("it holds no rates"),
                Some(answer) if answer.rates.len() > *groups => {
                    Some("it holds more groups than were asked for")
                }
                Some(_) => None,
            },
            Self::Nodes => told.nodes.is_none().then_some("it holds no nodes"),
            Self::Holds => None,
        }
    }
}

/// A question of somebody else's, where it makes sense.
pub(super) fn connections_question(
    node: Option<String>,
    filter: &str,
    state: Option<String>,
    sort: ConnectionSort,
    rows: usize,
) -> Result<ConnectionsQuestion, String> {
    let filter = read(filter)?;
    Ok(ConnectionsQuestion { node, filter, state, sort, offset: 0, limit: rows.min(ROWS_MAX) })
}

/// A question of somebody else's, where it makes sense.
pub(super) fn rates_question(
    by: &[String],
    filter: &str,
    groups: usize,
) -> Result<RatesQuestion, String> {
    let by: Option<Vec<Field>> = by.iter().map(|field| Field::parse(field)).collect();
    let by = by.ok_or("it asks by a field that is not known here")?;
    Ok(RatesQuestion { by, filter: read(filter)?, limit: groups.min(GROUPS_MAX) })
}

fn written(filter: &Filter) -> String {
    if *filter == Filter::All { String::new() } else { filter.to_string() }
}

fn read(filter: &str) -> Result<Filter, String> {
    Filter::parse(filter).map_err(|error| error.to_string())
}
