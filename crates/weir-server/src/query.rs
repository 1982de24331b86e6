//! Answers in the process that holds the store and the live connections.

mod board;
mod cursor;
mod pages;
mod store_status;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_flow::{Field, WallTime};
use weir_store::{FlowQuery, FlowStore, Measure, Order, StoreError};

use crate::Live;
use crate::answer::{
    AnswerError, Answers, Connections, ConnectionsQuestion, FlowsPage, FlowsQuestion, Rates,
    RatesQuestion, Report, SeriesQuestion, Status, TopQuestion,
};
use crate::moment;

pub use board::Board;
pub use store_status::store_status;

/// Tells what time it is.
pub type Clock = Arc<dyn Fn() -> WallTime + Send + Sync>;

/// Whoever holds a store and the live connections can be asked.
pub struct Query {
    store: Arc<dyn FlowStore>,
    live: Arc<Live>,
    board: Arc<Board>,
    clock: Clock,
    changes: Arc<AtomicU64>,
}

impl Query {
    /// Answers from these, at the time that `clock` tells.
    pub fn new(
        store: Arc<dyn FlowStore>,
        live: Arc<Live>,
        board: Arc<Board>,
        clock: Clock,
    ) -> Self {
        Self { store, live, board, clock, changes: Arc::default() }
    }

    /// To be called after each commit: answers given before are not repeated any more.
    pub fn store_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Counts the calls of [`Query::store_changed`].
    pub fn changes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.changes)
    }

    fn ask(&self, query: &FlowQuery) -> Result<Report, AnswerError> {
        let table = self.store.query(query).map_err(from_store)?;
        Ok(Report::from_table(&table))
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("board", &self.board).finish_non_exhaustive()
    }
}

impl Answers for Query {
    fn status(&self, range: Range<u64>) -> Result<Status, AnswerError> {
        let now = (self.clock)();
        let (store, gaps, counters) =
            store_status(&*self.store, range.clone()).map_err(from_store)?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_dir: self.board.data_dir().map(str::to_owned),
            since: moment::rfc3339(range.start),
            until: moment::rfc3339(range.end),
            nodes: self.board.nodes(now.seconds()),
            store: Some(store),
            gaps,
            counters,
        })
    }

    fn top(&self, question: &TopQuestion) -> Result<Report, AnswerError> {
        let TopQuestion { by, range, filter, sort, limit } = question;
        self.ask(&FlowQuery {
            range: range.clone(),
            filter: filter.clone(),
            group_by: by.clone(),
            bucket_seconds: None,
            measures: Measure::ALL.to_vec(),
            order: Order::Measure(*sort),
            limit: *limit,
        })
    }

    fn series(&self, question: &SeriesQuestion) -> Result<Report, AnswerError> {
        let SeriesQuestion { by, range, filter, step_seconds, limit } = question;
        self.ask(&FlowQuery {
            range: range.clone(),
            filter: filter.clone(),
            group_by: by.clone(),
            bucket_seconds: Some(*step_seconds),
            measures: Measure::ALL.to_vec(),
            order: Order::Keys,
            limit: *limit,
        })
    }

    fn flows(&self, question: &FlowsQuestion) -> Result<FlowsPage, AnswerError> {
        let Some(sort) = question.sort else {
            return pages::page(&*self.store, question);
        };
        if question.cursor.is_some() {
            return Err(AnswerError::Question(
                "a cursor goes on by time: leave sort away, or the cursor".to_owned(),
            ));
        }
        let query = FlowQuery {
            order: Order::Measure(sort),
            limit: question.limit,
            ..pages::query(question, question.range.clone(), question.step_seconds)
        };
        Ok(FlowsPage { report: self.ask(&query)?, next_cursor: None })
    }

    fn values(
        &self,
        dimension: Field,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, AnswerError> {
        self.store.values(dimension, prefix, limit).map_err(from_store)
    }

    fn connections(&self, question: &ConnectionsQuestion) -> Result<Connections, AnswerError> {
        Ok(self.live.connections(question, (self.clock)()))
    }

    fn rates(&self, question: &RatesQuestion) -> Result<Rates, AnswerError> {
        Ok(self.live.rates(question, (self.clock)()))
    }
}

/// Tells whose fault it was: the question's, the moment's or the store's.
fn from_store(error: StoreError) -> AnswerError {
    match error {
        StoreError::TooManyGroups { .. } | StoreError::Query { .. } => {
            AnswerError::Question(error.to_string())
        }
        StoreError::TimedOut { .. } => AnswerError::Busy(error.to_string()),
        other => AnswerError::Store(other),
    }
}
