//! The server half of weir: batches in, attributed and folded flows into the store.

pub mod ingest;

pub use ingest::{Ingest, IngestCounts};
