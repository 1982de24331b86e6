//! The server half of weir: batches in, attributed and folded flows into the store; questions in,
//! answers out.

pub mod answer;
pub mod api;
pub mod attended;
pub mod cluster;
pub mod health;
pub mod ingest;
pub mod kubenetmon;
pub mod live;
pub mod moment;
pub mod peers;
pub mod query;
pub mod ranges;
pub mod wire;

pub use answer::{AnswerError, Answers};
pub use attended::{Attended, StoreState};
pub use ingest::{Directories, Ingest, IngestCounts, Speaker};
pub use live::Live;
pub use peers::Peers;
pub use query::{Board, Clock, Query, store_status};
