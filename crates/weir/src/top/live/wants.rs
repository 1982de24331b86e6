//! What the screen wants to know, and the answers it gets.

use weir_flow::{Field, Filter};
use weir_server::answer::{Connections, ConnectionsQuestion, Rates, RatesQuestion, Report, Status};

/// All questions whose answers are on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wants {
    /// How weir is.
    pub(super) status: StatusWant,
    /// The connections in view.
    pub(super) connections: ConnectionsQuestion,
    /// The groups that move.
    pub(super) rates: RatesQuestion,
    /// The nodes.
    pub(super) nodes: RatesQuestion,
    /// What the groups moved.
    pub(super) top: TopWant,
    /// How the selected group went.
    pub(super) series: Option<SeriesWant>,
    /// Values for the filter line.
    pub(super) values: Option<ValuesWant>,
    /// True: only what is new is asked, nothing again.
    pub(super) paused: bool,
}

/// How weir is, with the gaps of the last so many seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusWant {
    pub(super) since_seconds: u64,
}

/// What groups moved over the last so many seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopWant {
    pub(super) by: Vec<Field>,
    pub(super) filter: Filter,
    pub(super) since_seconds: u64,
    pub(super) limit: usize,
}

/// How something went over the last so many seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeriesWant {
    pub(super) filter: Filter,
    pub(super) since_seconds: u64,
    pub(super) step_seconds: u64,
}

/// Values that begin so, of any of these fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ValuesWant {
    pub(super) fields: Vec<Field>,
    pub(super) prefix: String,
}

/// An answer, with the question it belongs to: by the time it is there another may be asked.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Status(Box<Status>),
    Connections(ConnectionsQuestion, Connections),
    Rates(RatesQuestion, Rates),
    Nodes(Rates),
    Top(TopWant, Report),
    Series(SeriesWant, Report),
    Values(ValuesWant, Vec<String>),
    /// This question was not answered; others may be.
    Refused(Part, String),
    /// Nobody answers.
    Unreachable {
        why: String,
        /// Until it is tried again.
        retry_seconds: u64,
    },
}

impl Answer {
    /// True when whoever answered had not read anything yet.
    pub(super) fn is_unread(&self) -> bool {
        match self {
            Self::Connections(_, found) => found.at.is_none(),
            Self::Rates(_, found) | Self::Nodes(found) => found.at.is_none(),
            _ => false,
        }
    }
}

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Status,
    Connections,
    Rates,
    Nodes,
    Top,
    Series,
    Values,
}

impl Part {
    /// All of them, in the order they are asked.
    pub(super) const ALL: [Self; 7] = [
        Self::Connections,
        Self::Rates,
        Self::Nodes,
        Self::Values,
        Self::Status,
        Self::Top,
        Self::Series,
    ];

    /// What an error calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Connections => "connections",
            Self::Rates => "rates",
            Self::Nodes => "nodes",
            Self::Top => "totals",
            Self::Series => "series",
            Self::Values => "values",
        }
    }
}
