//! The server half of weir: batches in, attributed and folded flows into the store; questions in,
//! answers out.

pub mod answer;
pub mod api;
pub mod ingest;
pub mod live;
pub mod moment;
pub mod query;

pub use answer::{AnswerError, Answers};
pub use ingest::{Ingest, IngestCounts};
pub use live::Live;
pub use query::{Board, Clock, Query, store_status};
