//! What can be typed after `weir top`.

use std::time::Duration;

use weir_flow::Field;

use super::Output;
use super::value::{Conntrack, conntrack, duration, field, interval};

pub(super) const EXAMPLES: &str = "\
Examples:
  What moves on this machine, until q:
    weir top
  Only what goes to the internet, by unit:
    weir top --filter 'class = internet' --by source.unit,destination.name
  The busiest connections, once, for a program:
    weir top --once -o json
  Another machine whose weir answers on the network:
    weir top http://127.0.0.1:8885

Without a place it attaches to the `weir up` of this machine; where none runs, it reads conntrack
itself and stores nothing. Bytes are those of IP packets, headers included. Without CAP_NET_ADMIN it
shows this machine's TCP sockets instead, by their payload, and says so. In a table `?` is unknown,
never 0; it is null in JSON and empty in CSV.";

#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Whom to watch: http://HOST:PORT where weir answers, or the data directory of one that runs.
    /// Default: this machine.
    #[arg(value_name = "URL|DIR")]
    pub(crate) location: Option<String>,
    /// Show the busiest connections of this machine once and end.
    #[arg(long, conflicts_with_all = ["location", "filter", "by", "since", "interval"])]
    pub(crate) once: bool,
    /// With --once: how many connections to show; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 20, requires = "once")]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Only connections for which this holds, e.g. 'unit = nginx.service and port in (80, 443)'.
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    pub(crate) filter: String,
    /// Fields to sum by at first, separated by commas. Those of filters: source.name, class, …
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', value_parser = field,
          default_value = "source.name,destination.name")]
    pub(crate) by: Vec<Field>,
    /// How far back sums reach at first.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(crate) since: Duration,
    /// Time between two looks.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// By which door connections come where no weir runs: netlink; or their text form in /proc,
    /// where auto finds it or in a file.
    #[arg(long, env = "WEIR_CONNTRACK", hide_env_values = true, value_name = "netlink|auto|PATH",
          default_value = "netlink", value_parser = conntrack)]
    pub(crate) conntrack: Conntrack,
    /// Make the kernel track connections while it runs, as `weir up --activate-conntrack` does.
    #[arg(long)]
    pub(crate) activate_conntrack: bool,
    /// Set the kernel's conntrack settings, as `weir up` does: without, bytes may be unknown.
    #[arg(long)]
    pub(crate) set_sysctls: bool,
    /// Read the kernel itself, even where `weir up` runs.
    #[arg(long, conflicts_with = "location")]
    pub(crate) standalone: bool,
}
