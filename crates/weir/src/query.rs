//! `weir query`: questions to the data directory, whether weir is running or not.

mod live;
pub(crate) mod report;
mod status;

use std::io;
use std::path::PathBuf;

use weir_flow::{EndpointField, Field, Side};
use weir_store::{FlowQuery, FlowStore as _, Limits, Measure, Order, SqliteStore};

use crate::args::{
    FlowsArgs, Format, QueryArgs, Question, Selection, SeriesArgs, TopQueryArgs, ValuesArgs,
};
use weir_server::moment;
use crate::{data_dir, render};

/// Answers one question on stdout.
pub(crate) fn run(args: QueryArgs) -> anyhow::Result<()> {
    let result = match args.question {
        Question::Top(args) => top(args),
        Question::Flows(args) => flows(args),
        Question::Series(args) => series(args),
        Question::Values(args) => values(args),
        Question::Status(args) => status::run(args),
    };
    result.map_err(with_advice)
}

/// The one thing that goes wrong on every machine: weir runs as root, the question is asked as
/// somebody else.
fn with_advice(error: anyhow::Error) -> anyhow::Error {
    let is_denied = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
    if !is_denied {
        return error;
    }
    error.context("this user may not read weir's data, ask as the user weir runs as (sudo)")
}

fn top(args: TopQueryArgs) -> anyhow::Result<()> {
    let TopQueryArgs { data_dir, selection, by, sort, limit, output } = args;
    let asked = Asked {
        group_by: by,
        bucket_seconds: None,
        order: Order::Measure(sort),
        limit: at_most(limit),
    };
    answer(data_dir.data_dir, &selection, asked, &|_| true, output.output)
}

fn flows(args: FlowsArgs) -> anyhow::Result<()> {
    let FlowsArgs { data_dir, selection, step, sort, limit, output } = args;
    let asked = Asked {
        group_by: key_fields(),
        bucket_seconds: Some(step),
        order: sort.map_or(Order::Keys, Order::Measure),
        limit: at_most(limit),
    };
    answer(data_dir.data_dir, &selection, asked, &is_in_flow_table, output.output)
}

fn series(args: SeriesArgs) -> anyhow::Result<()> {
    let SeriesArgs { data_dir, selection, by, step, limit, output } = args;
    let asked = Asked {
        group_by: by,
        bucket_seconds: Some(step),
        order: Order::Keys,
        limit: at_most(limit),
    };
    answer(data_dir.data_dir, &selection, asked, &|_| true, output.output)
}

fn values(args: ValuesArgs) -> anyhow::Result<()> {
    let ValuesArgs { data_dir, dimension, prefix, limit, output } = args;
    let store = open(data_dir.data_dir)?;
    let limit = at_most(limit).unwrap_or(usize::MAX);
    let values = store.values(dimension, &prefix, limit)?;
    Ok(render::print_values(&dimension.to_string(), &values, output.output)?)
}

/// What the three kinds of sums differ in.
struct Asked {
    group_by: Vec<Field>,
    bucket_seconds: Option<u64>,
    order: Order,
    limit: Option<usize>,
}

fn answer(
    data_dir: Option<PathBuf>,
    selection: &Selection,
    asked: Asked,
    is_in_table: &dyn Fn(Field) -> bool,
    format: Format,
) -> anyhow::Result<()> {
    let Asked { group_by, bucket_seconds, order, limit } = asked;
    let range = selection.range(moment::now_seconds())?;
    let filter = selection.filter()?;
    let measures = Measure::ALL.to_vec();
    let query = FlowQuery { range, filter, group_by, bucket_seconds, measures, order, limit };
    let table = open(data_dir)?.query(&query)?;
    Ok(render::print(&report::from_table(&table, is_in_table), format)?)
}

fn open(given: Option<PathBuf>) -> anyhow::Result<SqliteStore> {
    Ok(SqliteStore::open_read_only(data_dir::choose(given)?, Limits::default())?)
}

/// On the command line 0 is no limit.
fn at_most(limit: usize) -> Option<usize> {
    (limit > 0).then_some(limit)
}

/// All that tells two flows of a window apart. Ids and the IP version follow from the rest, yet
/// whoever reads the answer should not have to work them out.
fn key_fields() -> Vec<Field> {
    Field::all().collect()
}

/// A table has no room for everything; JSON and CSV have.
fn is_in_flow_table(field: Field) -> bool {
    matches!(
        field,
        Field::Endpoint(Side::Source | Side::Destination, EndpointField::Name)
            | Field::DestinationPort
            | Field::Protocol
            | Field::Service
            | Field::Class
    )
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn who_may_not_read_is_told_who_may() {
        let denied = |kind| {
            let result: Result<(), _> = Err(io::Error::from(kind)).context("open status.json");
            format!("{:#}", with_advice(result.expect_err("it is an error")))
        };
        let said = denied(io::ErrorKind::PermissionDenied);
        assert!(said.contains("ask as the user weir runs as"), "{said}");
        assert!(said.contains("open status.json: permission denied"), "{said}");
        assert!(!denied(io::ErrorKind::InvalidData).contains("ask as"));
    }
}
