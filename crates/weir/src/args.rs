//! What can be typed. Parsing does nothing: it only turns text into values or refuses it.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use weir_flow::{EndpointField, Field, Filter, Side};
use weir_store::{Measure, Retention};

use crate::since::{self, Moment};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; the reason is on stderr
  2  the command line is wrong; nothing was done";

const UP_EXAMPLES: &str = "\
Examples:
  Watch this machine, as root:
    weir up --activate-conntrack
  Keep the data elsewhere and read the kernel every 2 seconds:
    weir up --data-dir /srv/weir --interval 2s

The kernel counts a connection's bytes only while net.netfilter.nf_conntrack_acct=1. With the
permission to, weir sets that and two more (nf_conntrack_timestamp, nf_conntrack_events) and says
so; --no-set-sysctls leaves them alone and reports what is missing.";

const TOP_EXAMPLES: &str = "\
Examples:
  The busiest connections of this machine, once:
    weir top --once
  The same for a program:
    weir top --once -o json

It reads the conntrack table twice, a second apart, and stores nothing; `weir up` need not run.
Bytes are those of IP packets, headers included. Without CAP_NET_ADMIN it shows this machine's TCP
sockets instead, by their payload, and says so. In a table `?` is unknown, never 0; it is null in
JSON and empty in CSV.";

const QUERY_EXAMPLES: &str = "\
Examples:
  Who talked most in the last ten minutes:
    weir query top
  Which units sent data to the internet today, largest first:
    weir query top --since 1d --by source.unit --filter 'class = internet' --sort bytes_sent
  Bytes per class and minute, for a spreadsheet:
    weir query series --by class --step 60s --since 1h -o csv
  Is weir reading, and what is known to be missing:
    weir query status

Every question reads the data directory, whether `weir up` is running or not.";

const TOP_QUERY_EXAMPLES: &str = "\
Examples:
  weir query top --since 1h --by destination.name,destination.port
  weir query top --filter 'unit = nginx.service and not class = same_node' --limit 5
  weir query top --sort connections_failed --since 1d

Fields to sum by and to filter on:
  source.* and destination.*: id, name, kind, address, host, unit, container, executable, unresolved
  destination.port (or port), protocol, service, class, node, ip_version
In a filter, a field without its side (unit = nginx.service) asks both sides. Tests are
= != ~ !~ < <= > >= and in (…), joined by and, or, not and parentheses.

In a table `?` is unknown: the connections carried no counters. `≥` is a sum with such connections
in it. JSON and CSV hold exact numbers; unknown is null in JSON and empty in CSV.";

const FLOWS_EXAMPLES: &str = "\
Examples:
  weir query flows --since 5m --filter 'destination.port = 443'
  weir query flows --since 2026-01-31T08:00:00Z --until 2026-01-31T09:00:00Z -o csv --limit 0";

const SERIES_EXAMPLES: &str = "\
Examples:
  weir query series --since 6h --step 5m
  weir query series --by destination.unit --filter 'port = https' --step 10s -o json

Only steps in which something was stored have a row.";

const VALUES_EXAMPLES: &str = "\
Examples:
  weir query values --dimension source.unit --prefix ng
  weir query values --dimension destination.port";

const STATUS_EXAMPLES: &str = "\
Examples:
  weir query status
  weir query status -o json | jq .gaps

States: `reading`; `starting`; `stopped`, also when the process is gone without a word; `stalled`
when it is there but has not spoken for a while.";

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
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// Show what this machine's connections are doing now.
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopArgs),
    /// Ask what was kept.
    #[command(after_help = QUERY_EXAMPLES)]
    Query(QueryArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
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
    /// Make the kernel track connections, with a firewall table that holds nothing else and is
    /// removed at the end. Without any rule that uses conntrack, Linux tracks nothing.
    #[arg(long, env = "WEIR_ACTIVATE_CONNTRACK", hide_env_values = true)]
    pub(crate) activate_conntrack: bool,
    /// How long to keep the flows of each window length: 10 s, 1 min, 1 h. A length left out keeps
    /// its default.
    #[arg(long, env = "WEIR_RETENTION", hide_env_values = true, value_name = "10s=…,1m=…,1h=…",
          default_value = "10s=1d,1m=14d,1h=400d", value_parser = retention)]
    pub(crate) retention: Retention,
    /// Leave the kernel's conntrack settings as they are.
    #[arg(long, env = "WEIR_NO_SET_SYSCTLS", hide_env_values = true)]
    pub(crate) no_set_sysctls: bool,
    /// Print the live table again each time instead of redrawing it in place.
    #[arg(long, env = "WEIR_PLAIN", hide_env_values = true)]
    pub(crate) plain: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Show it once and end.
    #[arg(long, required = true)]
    pub(crate) once: bool,
    /// How many connections to show; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct QueryArgs {
    #[command(subcommand)]
    pub(crate) question: Question,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Question {
    /// Rank flows, summed over the whole range.
    #[command(after_help = TOP_QUERY_EXAMPLES)]
    Top(TopQueryArgs),
    /// List flows, one row per flow and window, with all their fields.
    #[command(after_help = FLOWS_EXAMPLES)]
    Flows(FlowsArgs),
    /// Sum flows step by step.
    #[command(after_help = SERIES_EXAMPLES)]
    Series(SeriesArgs),
    /// List the values of a field.
    #[command(after_help = VALUES_EXAMPLES)]
    Values(ValuesArgs),
    /// Show how weir is: state, store, declared gaps, losses.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct TopQueryArgs {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Fields to sum by, separated by commas. Those of filters: source.name, class, …
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', value_parser = field,
          default_value = "source.name,destination.name,destination.port,protocol")]
    pub(crate) by: Vec<Field>,
    /// Measure to rank by, largest first.
    #[arg(long, value_name = "MEASURE", default_value = "bytes", value_parser = measure)]
    pub(crate) sort: Measure,
    /// How many rows to show; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Length of the windows; longer where shorter ones are not kept any more.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = step)]
    pub(crate) step: u64,
    /// Measure to sort by, largest first. Without it, by time.
    #[arg(long, value_name = "MEASURE", value_parser = measure)]
    pub(crate) sort: Option<Measure>,
    /// How many rows to show; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SeriesArgs {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Fields to sum by, separated by commas. Without it, one sum per step.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', value_parser = field)]
    pub(crate) by: Vec<Field>,
    /// Length of a step; longer where shorter windows are not kept any more.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = step)]
    pub(crate) step: u64,
    /// How many rows to show; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ValuesArgs {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// The field: source.unit, destination.port, class, …
    #[arg(long, value_name = "FIELD", value_parser = field)]
    pub(crate) dimension: Field,
    /// Only values that begin with this.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// How many values to show; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// From when on to list gaps and sum loss counters.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = Moment::parse)]
    pub(crate) since: Moment,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DataDir {
    #[arg(
        long,
        env = "WEIR_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR",
        help = "Where weir keeps its data. Default: /var/lib/weir for root, else \
                $XDG_STATE_HOME/weir or ~/.local/state/weir"
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

/// Which flows.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// From when on: 10m (ten minutes ago), 2h30m, 1d, or RFC 3339.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = Moment::parse)]
    pub(crate) since: Moment,
    /// Until when: now, or as --since.
    #[arg(long, value_name = "TIME", default_value = "now", value_parser = Moment::parse)]
    pub(crate) until: Moment,
    /// Only flows for which this holds, e.g. 'unit = nginx.service and port in (80, 443)'.
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    pub(crate) filter: String,
}

impl Selection {
    /// Seconds since 1970, half-open, never empty.
    pub(crate) fn range(&self, now_seconds: u64) -> Result<Range<u64>, UsageError> {
        let range = self.since.seconds(now_seconds)..self.until.seconds(now_seconds);
        if range.is_empty() {
            return Err(UsageError(format!(
                "nothing lies between --since ({}) and --until ({}): --since must be earlier",
                since::rfc3339(range.start),
                since::rfc3339(range.end)
            )));
        }
        Ok(range)
    }

    /// The filter, parsed.
    pub(crate) fn filter(&self) -> Result<Filter, UsageError> {
        Filter::parse(&self.filter).map_err(|error| {
            UsageError(format!(
                "invalid value for '--filter <FILTER>'\n{}",
                error.render(&self.filter)
            ))
        })
    }
}

/// The command line is well-formed but makes no sense. Exit code 2, as for clap's own errors.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

fn interval(text: &str) -> anyhow::Result<Duration> {
    let interval = since::duration(text)?;
    // Every interval is a batch and every batch ends within its hour.
    ensure!(interval <= Duration::from_hours(1), "at most 1h");
    Ok(interval)
}

fn step(text: &str) -> anyhow::Result<u64> {
    let seconds = since::duration(text)?.as_secs();
    ensure!(seconds % 10 == 0, "steps are multiples of 10s, the shortest window that is kept");
    Ok(seconds)
}

/// `10s=1d,1m=14d,1h=400d`: window lengths and how long their flows are kept; 0 keeps none.
fn retention(text: &str) -> anyhow::Result<Retention> {
    let mut retention = Retention::default();
    for part in text.split(',') {
        let (window, kept) = part
            .split_once('=')
            .with_context(|| format!("{part:?} has no `=`; write it as 10s=1d,1m=14d,1h=400d"))?;
        let level = match window {
            "10s" => &mut retention.ten_seconds,
            "1m" => &mut retention.minute,
            "1h" => &mut retention.hour,
            other => anyhow::bail!("no windows of {other:?} are kept; there are 10s, 1m and 1h"),
        };
        *level = if kept == "0" { 0 } else { since::duration(kept)?.as_secs() };
    }
    ensure!(retention.hour > 0, "windows of 1h must be kept for some time");
    ensure!(
        retention.hour >= retention.minute && retention.hour >= retention.ten_seconds,
        "windows of 1h must be kept at least as long as shorter ones"
    );
    Ok(retention)
}

fn percent(text: &str) -> anyhow::Result<f64> {
    let hint = "a percentage of one core, more than 0% and at most 100%: 1%, 0.5%";
    let number = text.strip_suffix('%').with_context(|| format!("needs a % sign; {hint}"))?;
    let percent: f64 = number.parse().with_context(|| hint)?;
    ensure!(percent > 0.0 && percent <= 100.0, "{hint}");
    Ok(percent / 100.0)
}

fn measure(text: &str) -> anyhow::Result<Measure> {
    Measure::parse(text).with_context(|| {
        format!("not a measure; there are: {}", Measure::ALL.map(Measure::name).join(", "))
    })
}

fn field(text: &str) -> anyhow::Result<Field> {
    if text == "port" {
        return Ok(Field::DestinationPort);
    }
    if let Some(field) = Field::parse(text) {
        return Ok(field);
    }
    let sides = EndpointField::ALL.into_iter().find(|field| field.name() == text).map(|field| {
        let side = |side| Field::Endpoint(side, field);
        format!("say which side: {} or {}", side(Side::Source), side(Side::Destination))
    });
    let known = || {
        let names: Vec<String> = Field::all().map(|field| field.to_string()).collect();
        format!("not a field; there are: {}", names.join(", "))
    };
    anyhow::bail!("{}", sides.unwrap_or_else(known))
}
