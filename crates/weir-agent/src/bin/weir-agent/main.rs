//! weir-agent: reads one node's connection tracking and delivers it to the server, each byte once.

mod check;
mod config;
mod file;
mod health;
mod kubenetmon;
mod metrics;
mod node;
mod run;
mod settings;
mod units;

use std::io::{self, Write as _};
use std::process::ExitCode;

use tracing_subscriber::filter::LevelFilter;

use settings::Asked;

/// Batches of short-lived records are made and dropped every tick; this allocator gives the memory
/// back and is quicker at it than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The settings are wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Asked { check, settings, notes } = match settings::ask() {
        Ok(asked) => asked,
        Err(problems) => return fail(&problems, USAGE),
    };
    let config = match config::Config::new(&settings) {
        Ok(config) => config,
        Err(problems) => return fail(&problems, USAGE),
    };
    if check {
        return match check::print(&settings, &notes, &config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("{error:#}"), 1),
        };
    }
    log();
    for note in &notes {
        tracing::info!("{note}");
    }
    match run::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

/// Log lines go to stderr. `WEIR_LOG` is a level and no more: filters by module would make the
/// binary a tenth larger.
fn log() {
    let level = std::env::var("WEIR_LOG").ok().and_then(|level| level.parse().ok());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .with_target(false)
        .with_ansi(false)
        .with_writer(io::stderr)
        .compact();
    // Only a second call could fail, and there is none.
    drop(subscriber.try_init());
}

/// Says what went wrong. With stderr closed there is nobody to tell; the exit code still says it.
fn fail(text: &str, code: u8) -> ExitCode {
    drop(writeln!(io::stderr(), "error: {text}"));
    ExitCode::from(code)
}
