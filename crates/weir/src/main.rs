//! weir: network flow observability for Kubernetes and for one plain Linux machine.

mod args;
mod data_dir;
mod query;
mod render;
mod top;
mod unprivileged;
mod up;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command, UsageError};
use render::Shown;

/// Batches of short-lived records are made and dropped every tick; this allocator gives the memory
/// back and is quicker at it than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Up(args) => up::run(args),
        Command::Top(args) => top::run(args),
        Command::Query(args) => query::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads us has seen enough (`weir query flows | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Says what went wrong, with every cause, and chooses the exit code.
fn report(error: &anyhow::Error) -> ExitCode {
    let (text, code) = match error.downcast_ref::<UsageError>() {
        Some(usage) => (format!("error: {usage}"), 2),
        None => (format!("error: {}", Shown(&format!("{error:#}"))), 1),
    };
    // With stderr closed there is nobody left to tell; the exit code still says it.
    drop(writeln!(io::stderr(), "{text}"));
    ExitCode::from(code)
}
