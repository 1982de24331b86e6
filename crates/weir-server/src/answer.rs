//! What weir can be asked and what it answers: one shape for the terminal, the command line and
//! the HTTP API.
//!
//! [`Answers`] is the seam. [`crate::Query`] answers in the process that holds the store and the
//! live connections; whoever is elsewhere asks over HTTP and gets the same types back.

mod connections;
mod peers;
mod report;
mod status;

use std::ops::Range;

use weir_flow::{Field, Filter};
use weir_store::Measure;

pub use connections::{ConnectionRow, ConnectionSort, Connections, End, RateRow, Rates};
pub use peers::{PeerState, PeerStatus};
pub use report::{Cell, Column, Report, Unit};
pub use status::{
    Cause, Gap, KubenetmonStatus, NodeCounter, NodeStatus, OtherView, State, Status, StoreLevel,
    StoreStatus, StoreTrouble,
};

/// Somebody who can be asked.
pub trait Answers: Send + Sync {
    /// How weir is, with the gaps and counters of `range` (seconds since 1970).
    fn status(&self, range: Range<u64>) -> Result<Status, AnswerError>;

    /// Flows ranked, summed over the whole range.
    fn top(&self, question: &TopQuestion) -> Result<Report, AnswerError>;

    /// Flows summed step by step.
    fn series(&self, question: &SeriesQuestion) -> Result<Report, AnswerError>;

    /// Flows one by one, a page of them.
    fn flows(&self, question: &FlowsQuestion) -> Result<FlowsPage, AnswerError>;

    /// The values of a field that begin with `prefix`.
    fn values(
        &self,
        dimension: Field,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, AnswerError>;

    /// Connections as they are now.
    fn connections(&self, question: &ConnectionsQuestion) -> Result<Connections, AnswerError>;

    /// What moves now, summed by fields.
    fn rates(&self, question: &RatesQuestion) -> Result<Rates, AnswerError>;
}

/// See [`Answers::top`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopQuestion {
    /// Fields to sum by.
    pub by: Vec<Field>,
    /// Seconds since 1970, half-open.
    pub range: Range<u64>,
    /// Which flows.
    pub filter: Filter,
    /// Largest first by this.
    pub sort: Measure,
    /// How many rows at most; `None`: as many as the store allows.
    pub limit: Option<usize>,
}

/// See [`Answers::series`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesQuestion {
    /// Fields to sum by.
    pub by: Vec<Field>,
    /// Seconds since 1970, half-open.
    pub range: Range<u64>,
    /// Which flows.
    pub filter: Filter,
    /// Length of a step, seconds.
    pub step_seconds: u64,
    /// How many rows at most; `None`: as many as the store allows.
    pub limit: Option<usize>,
}

/// See [`Answers::flows`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowsQuestion {
    /// Seconds since 1970, half-open.
    pub range: Range<u64>,
    /// Which flows.
    pub filter: Filter,
    /// Length of the windows, seconds.
    pub step_seconds: u64,
    /// Largest first by this; `None`: by time. A cursor goes only with time.
    pub sort: Option<Measure>,
    /// How many rows at most; `None`: as many as the store allows.
    pub limit: Option<usize>,
    /// Where the page before ended ([`FlowsPage::next_cursor`]).
    pub cursor: Option<String>,
}

/// A page of flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowsPage {
    /// The flows.
    pub report: Report,
    /// Where the next page begins; `None` after the last one.
    pub next_cursor: Option<String>,
}

/// See [`Answers::connections`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionsQuestion {
    /// Only of this observer.
    pub node: Option<String>,
    /// Which connections.
    pub filter: Filter,
    /// Only those in this state (`ESTABLISHED`, `TIME_WAIT`, `replied`, …; `ended`).
    pub state: Option<String>,
    /// In which order.
    pub sort: ConnectionSort,
    /// How many rows to leave out at the beginning.
    pub offset: usize,
    /// How many rows at most.
    pub limit: usize,
}

/// See [`Answers::rates`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RatesQuestion {
    /// Fields to sum by.
    pub by: Vec<Field>,
    /// Which connections.
    pub filter: Filter,
    /// How many rows at most, the busiest first.
    pub limit: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The question makes no sense; asked again it will not either.
    #[error("{0}")]
    Question(String),
    /// The cursor points at flows that are not kept any more.
    #[error("the cursor points at flows that are not kept any more; begin anew without it")]
    CursorGone,
    /// It took too long, or too many asked at once: worth another try, or a smaller question.
    #[error("{0}")]
    Busy(String),
    /// The store cannot be asked just now: worth another try.
    #[error("{0}")]
    Away(String),
    /// The store failed.
    #[error("ask the store")]
    Store(#[from] weir_store::StoreError),
    /// weir cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// weir answered with an error, or with something that cannot be read.
    #[error("{0}")]
    Failed(String),
}
