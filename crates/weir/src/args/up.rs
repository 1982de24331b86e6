//! What can be typed after `weir up`.

use std::path::PathBuf;
use std::time::Duration;

use weir_store::Retention;

use super::DataDir;
use super::value::{
    Conntrack, Listen, conntrack, host, interval, listen, percent, retention, switch,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  Watch this machine, as root:
    weir up --activate-conntrack
  Keep the data elsewhere and read the kernel every 2 seconds:
    weir up --data-dir /srv/weir --interval 2s

The kernel counts a connection's bytes only while net.netfilter.nf_conntrack_acct=1. With the
permission to, weir sets that and two more (nf_conntrack_timestamp, nf_conntrack_events) and says
so; --no-set-sysctls leaves them alone and reports what is missing.";

/// The settings of `weir up`. Each has the same name in the configuration file, with `_` for `-`.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Settings from a file; flags and variables win over it. See `weir config example`.
    #[arg(long, env = "WEIR_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Time between two readings of the kernel.
    #[arg(long, env = "WEIR_INTERVAL", hide_env_values = true, value_name = "DURATION",
          default_value = "5s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// CPU time weir allows itself, as a share of one core; it reads less often to keep it.
    #[arg(long, env = "WEIR_CPU_BUDGET", hide_env_values = true, value_name = "PERCENT",
          default_value = "1%", value_parser = percent)]
    pub(crate) cpu_budget: f64,
    /// By which door connections come: netlink; or their text form in /proc, where auto finds it
    /// or in a file.
    #[arg(long, env = "WEIR_CONNTRACK", hide_env_values = true, value_name = "netlink|auto|PATH",
          default_value = "netlink", value_parser = conntrack)]
    pub(crate) conntrack: Conntrack,
    /// Make the kernel track connections, with a firewall table that holds nothing else and is
    /// removed at the end. Without any rule that uses conntrack, Linux tracks nothing.
    #[arg(long, env = "WEIR_ACTIVATE_CONNTRACK", hide_env_values = true, value_parser = switch)]
    pub(crate) activate_conntrack: bool,
    /// How long to keep the flows of each window length: 10 s, 1 min, 1 h. A length left out keeps
    /// its default.
    #[arg(long, env = "WEIR_RETENTION", hide_env_values = true, value_name = "10s=…,1m=…,1h=…",
          default_value = "10s=1d,1m=14d,1h=400d", value_parser = retention)]
    pub(crate) retention: Retention,
    /// Leave the kernel's conntrack settings as they are.
    #[arg(long, env = "WEIR_NO_SET_SYSCTLS", hide_env_values = true, value_parser = switch)]
    pub(crate) no_set_sysctls: bool,
    /// Where the HTTP API answers; none switches it off.
    #[arg(long, env = "WEIR_LISTEN", hide_env_values = true, value_name = "ADDRESS:PORT",
          default_value = "127.0.0.1:8885", value_parser = listen)]
    pub(crate) listen: Listen,
    /// Let others than this machine reach the API. It asks nobody who they are: whoever reaches it
    /// can read everything.
    #[arg(long, env = "WEIR_INSECURE_LISTEN", hide_env_values = true, value_parser = switch)]
    pub(crate) insecure_listen: bool,
    /// A further name by which the API may be asked, besides localhost and where it listens.
    #[arg(long, env = "WEIR_ALLOW_HOST", hide_env_values = true, value_name = "HOST",
          value_delimiter = ',', value_parser = host)]
    pub(crate) allow_host: Vec<String>,
    /// Print a table after each reading instead of drawing the screen.
    #[arg(long, env = "WEIR_PLAIN", hide_env_values = true, value_parser = switch)]
    pub(crate) plain: bool,
}
