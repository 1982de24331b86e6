//! The way of batches from the wire into the store: what it costs, and how many bytes cross.
//!
//! `cargo bench -p weir-server --bench ingest`. Prints one figure a line:
//! `NAME VALUE UNIT target OP X ok|short`. Real TLS and gRPC over the loopback; the server's own
//! threads are measured, not those of the agent that sends.

mod made;
mod served;

use std::env;

use anyhow::Result;
use mimalloc::MiMalloc;
use weir_lab::figures::{at_most, float, inform};

use crate::made::Made;
use crate::served::{Sink, measure};

/// The product's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Batches sent, and records in each.
const BATCHES: u64 = 200;
const RECORDS: u64 = 8_192;

fn main() -> Result<()> {
    // `cargo test --all-targets` runs this too, without the flag.
    if !env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let made = Made::new(BATCHES, RECORDS)?;
    let records = float(BATCHES * RECORDS);
    at_most("ingest_bytes_a_record", float(made.packed_bytes) / records, "bytes", 24.0);
    inform("ingest_frame_bytes_a_record", float(made.frame_bytes) / records, "bytes");

    let fold = measure(&made, Sink::Nothing)?;
    let per_record = fold.server_cpu.as_secs_f64() * 1e9 / records;
    // 300,000 records a second on one core.
    at_most("ingest_to_fold_cpu_a_record", per_record, "ns", 1e9 / 300_000.0);
    inform("ingest_to_fold_rate", records / fold.took.as_secs_f64(), "records/s");
    let stored = measure(&made, Sink::Sqlite)?;
    inform("ingest_to_sqlite_rate", records / stored.took.as_secs_f64(), "records/s");
    let per_record = stored.server_cpu.as_secs_f64() * 1e9 / records;
    inform("ingest_to_sqlite_cpu_a_record", per_record, "ns");
    Ok(())
}
