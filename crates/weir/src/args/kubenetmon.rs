//! What can be typed about kubenetmon's table and its agents.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use weir_flow::Name;
use weir_flow::ranges::Prefix;
use weir_server::moment;

use super::value::{Listen, listen, switch};

/// Rows of one insert, at the most.
const BATCH_ROWS_MAX: usize = 1_000_000;
/// The longest name of a flag.
const FLAG_BYTES: usize = 64;

/// Whether and where kubenetmon's table is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ForeignTable {
    /// It is not.
    Off,
    /// In this one.
    At { database: String, table: String },
}

/// kubenetmon's table, beside weir's own. Each has the same name in the configuration file, with
/// `_` for `-`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct KubenetmonArgs {
    /// Write kubenetmon's table in ClickHouse besides; none switches it off. Where only the flag is
    /// given: `default.network_flows_0`.
    #[arg(long, env = "WEIR_KUBENETMON_TABLE", hide_env_values = true,
          value_name = "DATABASE.TABLE", num_args = 0..=1, require_equals = true,
          default_missing_value = "default.network_flows_0", value_parser = table)]
    pub(crate) kubenetmon_table: Option<ForeignTable>,
    /// What its rows say of the cluster: development, staging, production, or another word.
    #[arg(long, env = "WEIR_ENVIRONMENT", hide_env_values = true, value_name = "NAME",
          value_parser = word)]
    pub(crate) environment: Option<String>,
    /// UDP has no rows there. Default: true, as kubenetmon has it. weir's own flows have UDP always.
    #[arg(long, env = "WEIR_KUBENETMON_IGNORE_UDP", hide_env_values = true, value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = switch)]
    pub(crate) kubenetmon_ignore_udp: Option<bool>,
    /// A flag of rows whose remote end is in this network (`connectionFlags`).
    #[arg(long, env = "WEIR_KUBENETMON_FLAG", hide_env_values = true, value_name = "NAME=CIDR",
          value_delimiter = ',', value_parser = flag)]
    pub(crate) kubenetmon_flag: Option<Vec<(Name, Prefix)>>,
    /// Take what kubenetmon's agents report, too, for its table alone; none for nowhere. In plain
    /// sight, from whoever comes, and without any promise that it arrives once. For the time of
    /// moving. Default: none.
    #[arg(long, env = "WEIR_KUBENETMON_LISTEN", hide_env_values = true,
          value_name = "ADDRESS:PORT", value_parser = listen)]
    pub(crate) kubenetmon_listen: Option<Listen>,
    /// Rows of what its agents report in one insert. Default: 15000.
    #[arg(long, env = "WEIR_KUBENETMON_BATCH_ROWS", hide_env_values = true,
          value_name = "NUMBER", value_parser = batch_rows)]
    pub(crate) kubenetmon_batch_rows: Option<usize>,
    /// How long such a row waits for others, at the most. Default: 30s.
    #[arg(long, env = "WEIR_KUBENETMON_BATCH_TIME", hide_env_values = true,
          value_name = "DURATION", value_parser = batch_time)]
    pub(crate) kubenetmon_batch_time: Option<Duration>,
    /// How long a connection of its agents lasts: they then choose a server anew. Default: 5m.
    #[arg(long, env = "WEIR_KUBENETMON_CONNECTION_AGE", hide_env_values = true,
          value_name = "DURATION", value_parser = connection_age)]
    pub(crate) kubenetmon_connection_age: Option<Duration>,
    /// Where kubenetmon's configuration has its user and password, in files named username and
    /// password. Only looked at where that configuration is used. Default: /etc/clickhouse.
    #[arg(long, env = "WEIR_KUBENETMON_CREDENTIALS", hide_env_values = true, value_name = "DIR")]
    pub(crate) kubenetmon_credentials: Option<PathBuf>,
}

impl fmt::Display for ForeignTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("none"),
            Self::At { database, table } => write!(f, "{database}.{table}"),
        }
    }
}

fn table(text: &str) -> anyhow::Result<ForeignTable> {
    let hint = "a table and where it is: default.network_flows_0, or none";
    if text == "none" {
        return Ok(ForeignTable::Off);
    }
    let (database, table) = text.split_once('.').unwrap_or(("default", text));
    let is_plain = |name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        !name.is_empty() && name.len() <= 64 && name.chars().all(fits)
    };
    ensure!(is_plain(database) && is_plain(table), "needs {hint}");
    Ok(ForeignTable::At { database: database.to_owned(), table: table.to_owned() })
}

fn word(text: &str) -> anyhow::Result<String> {
    let fits = |c: char| !c.is_control();
    ensure!(!text.is_empty() && text.len() <= 64 && text.chars().all(fits), "at most 64 letters");
    Ok(text.to_owned())
}

fn flag(text: &str) -> anyhow::Result<(Name, Prefix)> {
    let hint = "needs a name and a network: EGRESS_PROXY=10.9.0.0/16";
    let (name, network) = text.split_once('=').with_context(|| hint)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    ensure!(!name.is_empty() && name.len() <= FLAG_BYTES && name.chars().all(fits), "{hint}");
    Ok((name.into(), network.parse::<Prefix>()?))
}

fn batch_rows(text: &str) -> anyhow::Result<usize> {
    let rows: usize = text.parse().context("not a number of rows")?;
    ensure!((1..=BATCH_ROWS_MAX).contains(&rows), "from 1 to {BATCH_ROWS_MAX}");
    Ok(rows)
}

fn batch_time(text: &str) -> anyhow::Result<Duration> {
    let time = moment::duration(text)?;
    ensure!(time <= Duration::from_mins(10), "at most 10m");
    Ok(time)
}

fn connection_age(text: &str) -> anyhow::Result<Duration> {
    let age = moment::duration(text)?;
    ensure!(age <= Duration::from_hours(24), "at most 1d");
    Ok(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        for (text, expected) in [
            ("none", "none"),
            ("flows", "default.flows"),
            ("prod-1.network_flows_0", "prod-1.network_flows_0"),
        ] {
            assert_eq!(table(text).unwrap().to_string(), expected);
        }
        for text in ["", ".", "a.", ".a", "a.b.c", "a b", "a`b"] {
            assert!(table(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags() {
        let (name, network) = flag("VPN=10.9.1.1/16").unwrap();
        assert_eq!((&*name, network.to_string().as_str()), ("VPN", "10.9.0.0/16"));
        for text in ["", "VPN", "=10.0.0.0/8", "VPN=10.0.0.0/33", "O'N=10.0.0.0/8"] {
            assert!(flag(text).is_err(), "{text}");
        }
    }
}
