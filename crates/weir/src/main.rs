//! weir: network flow observability for Kubernetes and for one plain Linux machine.

mod args;
mod completions;
mod config;
mod data_dir;
mod location;
mod query;
mod ranges;
mod remote;
mod render;
mod say;
mod server;
mod signals;
mod station;
mod top;
mod unprivileged;
mod up;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command, ConfigAction, ConfigArgs, ServerCommand, UsageError};
use render::Shown;
use weir_server::AnswerError;

/// Batches of short-lived records are made and dropped every tick; this allocator gives the memory
/// back and is quicker at it than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads us has seen enough (`weir query flows | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => {
            let config = config::resolve(*args)?.config;
            config.warnings().iter().for_each(|warning| warn(warning));
            up::run(&config)
        }
        Command::Server(args) => {
            let ServerCommand { action, run } = *args;
            if let Some(action) = action {
                return server::act(action);
            }
            let server::Resolved { config, notes, .. } = server::resolve(run)?;
            for note in &notes {
                warn(&format!("kubenetmon's {}", Shown(note)));
            }
            config.warnings().iter().for_each(|warning| warn(warning));
            server::run(&config)
        }
        Command::Top(args) => top::run(&args),
        Command::Query(args) => query::run(args),
        Command::Ranges(args) => ranges::run(args),
        Command::Config(ConfigArgs { action: ConfigAction::Check(args) }) => {
            let resolved = config::resolve(*args)?;
            resolved.config.warnings().iter().for_each(|warning| warn(warning));
            Ok(render::to_stdout(|out, _| out.write_all(config::print(&resolved).as_bytes()))?)
        }
        Command::Config(ConfigArgs { action: ConfigAction::Example }) => {
            Ok(render::to_stdout(|out, _| out.write_all(config::EXAMPLE.as_bytes()))?)
        }
        Command::Config(ConfigArgs { action: ConfigAction::CheckServer(args) }) => {
            let resolved = server::resolve(*args)?;
            resolved.config.warnings().iter().for_each(|warning| warn(warning));
            Ok(render::to_stdout(|out, _| out.write_all(server::print(&resolved).as_bytes()))?)
        }
        Command::Config(ConfigArgs { action: ConfigAction::ExampleServer }) => {
            Ok(render::to_stdout(|out, _| out.write_all(server::EXAMPLE.as_bytes()))?)
        }
        Command::Completions(args) => completions::complete(&args),
        Command::Man(args) => completions::man(args),
    }
}

/// A line on stderr. With that closed there is nobody to tell.
fn warn(text: &str) {
    drop(writeln!(io::stderr(), "weir: {text}"));
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
        None => (format!("error: {}", Shown(&format!("{error:#}"))), code_of(error)),
    };
    // With stderr closed there is nobody left to tell; the exit code still says it.
    drop(writeln!(io::stderr(), "{text}"));
    ExitCode::from(code)
}

fn code_of(error: &anyhow::Error) -> u8 {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<AnswerError>());
    if causes.any(|cause| matches!(cause, AnswerError::Unreachable(_))) { 3 } else { 1 }
}
