//! What can be typed after `weir query`.

use std::ops::Range;
use std::path::PathBuf;

use clap::Subcommand;
use weir_flow::{Field, Filter};
use weir_server::moment::{self, Moment};
use weir_store::Measure;

use super::value::{field, measure, step};
use super::{DATA_DIR_HELP, Layered, Output, UsageError};

pub(super) const EXAMPLES: &str = "\
Examples:
  Who talked most in the last ten minutes:
    weir query top
  Which units sent data to the internet today, largest first:
    weir query top --since 1d --by source.unit --filter 'class = internet' --sort bytes_sent
  Bytes per class and minute, for a spreadsheet:
    weir query series --by class --step 60s --since 1h -o csv
  Is weir reading, and what is known to be missing:
    weir query status
  The same of a weir that answers on the network:
    weir query http://127.0.0.1:8885 status

Without a URL every question reads the data directory, whether `weir up` is running or not. A place
without a question is asked for `top`.";

const TOP_QUERY_EXAMPLES: &str = "\
Examples:
  weir query top --since 1h --by destination.name,destination.port
  weir query top --filter 'unit = nginx.service and not class = same_node' --limit 5
  weir query top --sort connections_failed --since 1d

Fields to sum by and to filter on:
  source.* and destination.*: id, name, kind, address, host, unit, container, executable,
    unresolved; in a cluster also owner_id, workload, namespace, pod, service, app, labels, node,
    zone, region, cloud, cloud_service, range, resolution
  destination.port (or port), protocol, service, service.name, class, node, ip_version
In a filter, a field without its side (unit = nginx.service) asks both sides. Tests are
= != ~ !~ < <= > >= and in (…), joined by and, or, not and parentheses.

In a table `?` is unknown: the connections carried no counters. `≥` is a sum with such connections
in it. JSON and CSV hold exact numbers; unknown is null in JSON and empty in CSV.";

const FLOWS_EXAMPLES: &str = "\
Examples:
  weir query flows --since 5m --filter 'destination.port = 443'
  weir query flows --since 2026-01-31T08:00:00Z --until 2026-01-31T09:00:00Z -o csv --limit 0

However long the list, only a part of it is held in memory; on a terminal a line on stderr shows how
far it is while stdout goes elsewhere. A list that is cut off says with which --cursor it goes on.";

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

/// Where to look, before or after the question.
#[derive(Debug, clap::Args)]
pub(crate) struct GlobalDataDir {
    #[arg(
        long,
        global = true,
        env = "WEIR_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR",
        help = DATA_DIR_HELP
    )]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct QueryArgs {
    /// Whom to ask: http://HOST:PORT where weir answers, or a data directory.
    #[arg(value_name = "URL|DIR")]
    pub(crate) location: Option<String>,
    #[command(flatten)]
    pub(crate) data_dir: Layered<GlobalDataDir>,
    #[command(subcommand)]
    pub(crate) question: Option<Question>,
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
    /// Go on where a list was cut off: the text that was shown then. Everything else as before.
    #[arg(long, value_name = "TEXT", conflicts_with = "sort")]
    pub(crate) cursor: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SeriesArgs {
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
    /// From when on to list gaps and sum loss counters.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = Moment::parse)]
    pub(crate) since: Moment,
    #[command(flatten)]
    pub(crate) output: Output,
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
        let range = self.since.seconds(now_seconds)..self.until.end(now_seconds);
        if range.is_empty() {
            return Err(UsageError(format!(
                "nothing lies between --since ({}) and --until ({}): --since must be earlier",
                moment::rfc3339(range.start),
                moment::rfc3339(range.end)
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
