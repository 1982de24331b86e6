//! Answers in the process that holds the store and the live connections.

mod board;
mod cursor;
mod pages;
mod store_status;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_flow::filter::{Operator, Subject, Test, Value};
use weir_flow::{Class, Field, Filter, WallTime};
use weir_store::{FlowQuery, FlowStore, Measure, Order, StoreError};

use crate::Live;
use crate::answer::{
    AnswerError, Answers, Connections, ConnectionsQuestion, FlowsPage, FlowsQuestion, Rates,
    RatesQuestion, Report, SeriesQuestion, Status, StoreTrouble, TopQuestion,
};
use crate::attended::{StoreState, Trouble, is_away};
use crate::ingest::chain;
use crate::kubenetmon::Counts;
use crate::moment;
use crate::peers::Peers;

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
    state: Option<Arc<StoreState>>,
    peers: Option<Arc<Peers>>,
}

impl Query {
    /// Answers from these, at the time that `clock` tells.
    pub fn new(
        store: Arc<dyn FlowStore>,
        live: Arc<Live>,
        board: Arc<Board>,
        clock: Clock,
    ) -> Self {
        Self { store, live, board, clock, changes: Arc::default(), state: None, peers: None }
    }

    /// Says how the store does, too.
    #[must_use]
    pub fn with_store_state(mut self, state: Arc<StoreState>) -> Self {
        self.state = Some(state);
        self
    }

    /// Asks other servers, too, for what they hold in memory.
    #[must_use]
    pub fn with_peers(mut self, peers: Arc<Peers>) -> Self {
        self.peers = Some(peers);
        self
    }

    /// To be called after each commit: answers given before are not repeated any more.
    pub fn store_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Counts the calls of [`Query::store_changed`].
    pub fn changes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.changes)
    }

    /// Refuses without asking where the store was away a moment ago: everybody who waits for it
    /// holds up somebody who could be answered.
    fn is_there(&self) -> Result<(), AnswerError> {
        let away = self.state.as_ref().and_then(|state| state.is_away());
        away.map_or(Ok(()), |trouble| Err(AnswerError::Away(trouble.error)))
    }

    fn ask(&self, query: &FlowQuery) -> Result<Report, AnswerError> {
        self.is_there()?;
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
        let (nodes, peers) = match &self.peers {
            Some(peers) => peers.nodes()?,
            None => (self.board.nodes(now.seconds()), Vec::new()),
        };
        let there = self.is_there();
        let asked =
            there.and_then(|()| store_status(&*self.store, range.clone()).map_err(from_store));
        let trouble = self.state.as_ref().and_then(|state| state.trouble());
        let (store, gaps, counters) = match (asked, &trouble) {
            (Ok((store, gaps, counters)), _) => (Some(store), gaps, counters),
            // What is known without the store is worth an answer.
            (Err(_), Some(_)) => (None, Vec::new(), Vec::new()),
            (Err(error), None) => return Err(error),
        };
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_dir: self.board.data_dir().map(str::to_owned),
            since: moment::rfc3339(range.start),
            until: moment::rfc3339(range.end),
            nodes,
            peers,
            kubenetmon: self.board.kubenetmon().map(Counts::status),
            store,
            store_error: trouble.map(told),
            gaps,
            counters,
        })
    }

    fn top(&self, question: &TopQuestion) -> Result<Report, AnswerError> {
        let TopQuestion { by, range, filter, sort, limit } = question;
        self.ask(&FlowQuery {
            range: range.clone(),
            filter: counted_once(filter, by),
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
            filter: counted_once(filter, by),
            group_by: by.clone(),
            bucket_seconds: Some(*step_seconds),
            measures: Measure::ALL.to_vec(),
            order: Order::Keys,
            limit: *limit,
        })
    }

    fn flows(&self, question: &FlowsQuestion) -> Result<FlowsPage, AnswerError> {
        self.is_there()?;
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
        self.is_there()?;
        self.store.values(dimension, prefix, limit).map_err(from_store)
    }

    fn connections(&self, question: &ConnectionsQuestion) -> Result<Connections, AnswerError> {
        match &self.peers {
            Some(peers) => peers.connections(question),
            None => Ok(self.live.connections(question, (self.clock)())),
        }
    }

    fn rates(&self, question: &RatesQuestion) -> Result<Rates, AnswerError> {
        let filter = counted_once(&question.filter, &question.by);
        let question = RatesQuestion { filter, ..question.clone() };
        match &self.peers {
            Some(peers) => peers.rates(&question),
            None => Ok(self.live.rates(&question, (self.clock)())),
        }
    }
}

/// What a tunnel carries is counted inside it already: the tunnel itself is in no sum, unless the
/// question tells classes apart.
fn counted_once(filter: &Filter, by: &[Field]) -> Filter {
    if by.contains(&Field::Class) || tells_classes_apart(filter) {
        return filter.clone();
    }
    let transport = Test {
        subject: Subject::Field(Field::Class),
        operator: Operator::In,
        values: vec![Value::Number(Class::Transport.code().into())],
    };
    filter.clone().and(Filter::Not(Box::new(Filter::Test(transport))))
}

fn tells_classes_apart(filter: &Filter) -> bool {
    match filter {
        Filter::All => false,
        Filter::And(left, right) | Filter::Or(left, right) => {
            tells_classes_apart(left) || tells_classes_apart(right)
        }
        Filter::Not(inner) => tells_classes_apart(inner),
        Filter::Test(test) => test.subject == Subject::Field(Field::Class),
    }
}

fn told(trouble: Trouble) -> StoreTrouble {
    let Trouble { since, reason, error, failures, .. } = trouble;
    let (since, reason) = (moment::rfc3339(since.seconds()), reason.to_owned());
    StoreTrouble { since, reason, error, failures }
}

/// Tells whose fault it was: the question's, the moment's or the store's.
fn from_store(error: StoreError) -> AnswerError {
    match error {
        StoreError::TooManyGroups { .. }
        | StoreError::TooLarge { .. }
        | StoreError::Query { .. } => AnswerError::Question(error.to_string()),
        StoreError::TimedOut { .. } => AnswerError::Busy(error.to_string()),
        away if is_away(&away) => AnswerError::Away(chain(&away)),
        other => AnswerError::Store(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_left_out_of_sums_that_do_not_tell_classes_apart() {
        for (filter, by, expected) in [
            ("", vec![], "not class = transport"),
            ("", vec![Field::Class], ""),
            ("class = transport", vec![], "class = transport"),
            ("not (port = 1 or class = same_node)", vec![], "not (port = 1 or class = same_node)"),
            ("port = 1", vec![Field::Protocol], "port = 1 and not class = transport"),
        ] {
            let parsed = |text| Filter::parse(text).unwrap();
            assert_eq!(counted_once(&parsed(filter), &by), parsed(expected), "{filter}");
        }
    }
}
