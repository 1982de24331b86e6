//! Arguments that remember whether they were typed.

use std::collections::BTreeMap;
use std::fmt;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody said anything.
    Default,
    /// The configuration file, this line of it.
    File(u64),
    /// An environment variable.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(line) => write!(f, "file, line {line}"),
            Self::Environment => f.write_str("env"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Arguments, and of each where it came from.
#[derive(Debug)]
pub(crate) struct Layered<T> {
    pub(crate) args: T,
    origins: BTreeMap<String, Origin>,
}

impl<T> Layered<T> {
    /// Where the argument with this name came from: [`Origin::Default`] for those that have none.
    pub(crate) fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or(Origin::Default)
    }

    /// Other arguments with the same names.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Layered<U> {
        Layered { args: change(self.args), origins: self.origins }
    }
}

fn origins(matches: &ArgMatches) -> BTreeMap<String, Origin> {
    let origin = |name: &str| match matches.value_source(name)? {
        ValueSource::CommandLine => Some(Origin::Flag),
        ValueSource::EnvVariable => Some(Origin::Environment),
        _ => None,
    };
    let names = matches.ids().map(|id| id.as_str().to_owned());
    names.filter_map(|name| Some((name.clone(), origin(&name)?))).collect()
}

impl<T: FromArgMatches> FromArgMatches for Layered<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        // Reading the arguments takes them out of what was matched.
        let origins = origins(matches);
        Ok(Self { args: T::from_arg_matches(matches)?, origins })
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let origins = origins(matches);
        Ok(Self { args: T::from_arg_matches_mut(matches)?, origins })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.origins = origins(matches);
        self.args.update_from_arg_matches(matches)
    }
}

impl<T: clap::Args> clap::Args for Layered<T> {
    fn group_id() -> Option<clap::Id> {
        T::group_id()
    }

    fn augment_args(command: Command) -> Command {
        T::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }
}
