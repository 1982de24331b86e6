//! `weir query`: questions to a data directory, whether weir is running or not, or to a weir that
//! answers on the network.

mod lists;
mod live;
mod local;
mod progress;
mod status;

use std::io;

use clap::{Command, FromArgMatches as _};
use weir_server::answer::{AnswerError, Answers, TopQuestion};
use weir_server::moment;

use self::local::Local;
use crate::args::{
    GlobalDataDir, Layered, Origin, QueryArgs, Question, TopQueryArgs, UsageError, ValuesArgs,
};
use crate::data_dir;
use crate::location::Location;
use crate::remote::Remote;
use crate::render;

/// What can be asked, for those who mistype it.
const QUESTIONS: [&str; 6] = ["top", "flows", "series", "values", "status", "help"];

/// Answers one question on stdout.
pub(crate) fn run(args: QueryArgs) -> anyhow::Result<()> {
    let QueryArgs { location, data_dir, question } = args;
    let location = choose(location, data_dir)?;
    let question = question.map_or_else(just_top, Ok)?;
    let result = match question {
        Question::Top(args) => top(args, location),
        Question::Flows(args) => open(location).and_then(|it| lists::flows(args, &*it)),
        Question::Series(args) => open(location).and_then(|it| lists::series(args, &*it)),
        Question::Values(args) => values(&args, location),
        Question::Status(args) => status::run(&args, location),
    };
    result.map_err(with_advice)
}

fn choose(location: Option<String>, data_dir: Layered<GlobalDataDir>) -> anyhow::Result<Location> {
    let Some(location) = location else {
        return Ok(Location::Directory(data_dir::choose(data_dir.args.data_dir)?));
    };
    if data_dir.origin("data_dir") == Origin::Flag {
        let problem = "a place before the question and --data-dir are two places: leave one away";
        return Err(UsageError(problem.to_owned()).into());
    }
    Ok(Location::parse(&location, &QUESTIONS)?)
}

/// `weir query http://gauge:8885`, without a word on what.
fn just_top() -> anyhow::Result<Question> {
    let command = <TopQueryArgs as clap::Args>::augment_args(Command::new("top"));
    let mut matches = command.try_get_matches_from(["top"])?;
    Ok(Question::Top(TopQueryArgs::from_arg_matches_mut(&mut matches)?))
}

fn open(location: Location) -> anyhow::Result<Box<dyn Answers>> {
    Ok(match location {
        Location::Directory(directory) => {
            let local = Local::open(&directory);
            Box::new(local.map_err(|error| Local::explained(error, &directory))?.query())
        }
        Location::Url(base) => Box::new(Remote::new(base)),
    })
}

/// The one thing that goes wrong on every machine: weir runs as root, the question is asked as
/// somebody else.
fn with_advice(error: anyhow::Error) -> anyhow::Error {
    if let Some(AnswerError::Question(problem)) = error.downcast_ref() {
        return UsageError(problem.clone()).into();
    }
    let is_denied = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
    if !is_denied {
        return error;
    }
    error.context(
        "this user may not read weir's data, ask as the user weir runs as (sudo), or over its API: weir \
         query http://127.0.0.1:8885",
    )
}

fn top(args: TopQueryArgs, location: Location) -> anyhow::Result<()> {
    let TopQueryArgs { selection, by, sort, limit, output } = args;
    let range = selection.range(moment::now_seconds())?;
    let question =
        TopQuestion { by, range, filter: selection.filter()?, sort, limit: at_most(limit) };
    let report = open(location)?.top(&question)?;
    Ok(render::print(&report, output.output)?)
}

fn values(args: &ValuesArgs, location: Location) -> anyhow::Result<()> {
    let ValuesArgs { dimension, prefix, limit, output } = args;
    let limit = at_most(*limit).unwrap_or(usize::MAX);
    let values = open(location)?.values(*dimension, prefix, limit)?;
    Ok(render::print_values(&dimension.to_string(), &values, output.output)?)
}

/// On the command line 0 is no limit.
fn at_most(limit: usize) -> Option<usize> {
    (limit > 0).then_some(limit)
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
