//! What can be typed after `weir ranges`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Subcommand;

use super::{DataDir, Output};

pub(super) const EXAMPLES: &str = "\
Examples:
  Whose is this address, and how is that known:
    weir ranges lookup 52.216.1.1 2600:9000::1
  What is in use, and from which day:
    weir ranges list
  Make the copy that is built into weir from files as providers publish them:
    weir ranges build --aws ip-ranges.json --gcp cloud.json --google goog.json \\
      --azure ServiceTags_Public_20260105.json --output crates/weir-server/data/ranges.bin";

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct RangesArgs {
    #[command(subcommand)]
    pub(crate) action: RangesAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RangesAction {
    /// Say whose an address is, by the ranges on this machine.
    Lookup(RangesLookupArgs),
    /// Say which ranges are on this machine, and from which day.
    List(RangesListArgs),
    /// Put published files into the compact form that is built into weir.
    Build(RangesBuildArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RangesLookupArgs {
    /// The addresses.
    #[arg(required = true, value_name = "ADDRESS")]
    pub(crate) addresses: Vec<IpAddr>,
    #[command(flatten)]
    pub(crate) place: RangesPlace,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RangesListArgs {
    #[command(flatten)]
    pub(crate) place: RangesPlace,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where ranges are besides those built in.
#[derive(Debug, clap::Args)]
pub(crate) struct RangesPlace {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Where the operator puts files as providers publish them.
    #[arg(long, env = "WEIR_RANGES_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) ranges_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RangesBuildArgs {
    /// Amazon's ip-ranges.json.
    #[arg(long, value_name = "FILE")]
    pub(crate) aws: Option<PathBuf>,
    /// Google's cloud.json (its customers' addresses).
    #[arg(long, value_name = "FILE")]
    pub(crate) gcp: Option<PathBuf>,
    /// Google's goog.json (all of its addresses).
    #[arg(long, value_name = "FILE")]
    pub(crate) google: Option<PathBuf>,
    /// Microsoft's `ServiceTags_Public_DATE.json`.
    #[arg(long, value_name = "FILE")]
    pub(crate) azure: Option<PathBuf>,
    /// What is to be said about the copy wherever it is shown; nothing for the published files.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) note: String,
    /// Where to write it.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}
