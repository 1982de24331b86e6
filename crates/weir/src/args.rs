//! What can be typed. Parsing does nothing: it only turns text into values or refuses it.

mod kubenetmon;
mod layered;
mod peers;
mod query;
mod ranges;
mod server;
mod store;
mod top;
mod up;
pub(crate) mod value;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use kubenetmon::{ForeignTable, KubenetmonArgs};
pub(crate) use layered::{Layered, Origin};
pub(crate) use peers::{PeersArgs, check as check_peers};
pub(crate) use query::{
    FlowsArgs, GlobalDataDir, QueryArgs, Question, SeriesArgs, StatusArgs, TopQueryArgs, ValuesArgs,
};
pub(crate) use ranges::{RangesAction, RangesArgs, RangesBuildArgs, RangesLookupArgs, RangesPlace};
pub(crate) use server::{RebuildArgs, ServerAction, ServerArgs, ServerCommand, StoreOnlyArgs};
pub(crate) use store::{StoreArgs, StoreKind};
pub(crate) use top::TopArgs;
pub(crate) use up::UpArgs;
pub(crate) use value::{Conntrack, Listen};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; the reason is on stderr
  2  the command line or the configuration is wrong; nothing was done
  3  weir cannot be reached at the given URL";

const CONFIG_EXAMPLES: &str = "\
Examples:
  Begin a configuration:
    weir config example > weir.yaml
  See what `weir up` would run with, and where each value comes from:
    weir config check --config weir.yaml --interval 2s";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  For bash, now and in every later shell:
    source <(weir completions bash)
    weir completions bash > ~/.local/share/bash-completion/completions/weir
  For fish:
    weir completions fish > ~/.config/fish/completions/weir.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  Read it:
    weir man | man -l -
  Install the pages of all commands:
    weir man --dir ~/.local/share/man/man1";

/// See, meter and explain every byte that crosses this machine's connections.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read this machine's connections and keep their flows, until stopped.
    #[command(after_help = up::EXAMPLES)]
    Up(Box<Layered<UpArgs>>),
    /// Take what agents on other machines read, name it, keep it and answer, until stopped.
    #[command(after_help = server::EXAMPLES)]
    Server(Box<ServerCommand>),
    /// Show what this machine's connections are doing now.
    #[command(after_help = top::EXAMPLES)]
    Top(TopArgs),
    /// Ask what was kept.
    #[command(after_help = query::EXAMPLES)]
    Query(QueryArgs),
    /// Say whose addresses outside the cluster are.
    #[command(after_help = ranges::EXAMPLES)]
    Ranges(RangesArgs),
    /// Look at the configuration.
    #[command(after_help = CONFIG_EXAMPLES)]
    Config(ConfigArgs),
    /// Print a shell's completions.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands.
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Say what `weir up` would run with, given the same flags; refuse what it would refuse.
    Check(Box<Layered<UpArgs>>),
    /// Print a configuration with every setting, explained.
    Example,
    /// Say what `weir server` would run with, given the same flags; refuse what it would refuse.
    CheckServer(Box<Layered<ServerArgs>>),
    /// Print a configuration of `weir server` with every setting, explained.
    ExampleServer,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell.
    pub(crate) shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Write a page per command into this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

const DATA_DIR_HELP: &str = "Where weir keeps its data. Default: /var/lib/weir for root, else \
                             $XDG_STATE_HOME/weir or ~/.local/state/weir";

#[derive(Debug, clap::Args)]
pub(crate) struct DataDir {
    #[arg(
        long,
        env = "WEIR_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR",
        help = DATA_DIR_HELP
    )]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Form of the answer; numbers are exact in json and csv.
    #[arg(
        short,
        long,
        env = "WEIR_OUTPUT",
        hide_env_values = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(crate) output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Csv,
}

/// The command line is well-formed but makes no sense. Exit code 2, as for clap's own errors.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
