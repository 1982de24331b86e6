//! What can be done with a server's store beside running the server.

use std::io::{self, Write as _};

use weir_server::moment;
use weir_store::{ClickHouseOptions, ClickHouseStore, Migrated};

use super::config::{StoreChoice, resolve_store};
use crate::args::{Layered, RebuildArgs, ServerAction, StoreOnlyArgs, UsageError};
use crate::render::{self, Shown};

const HOUR: u64 = 3_600;
/// The user in statements that give rights, where none was named.
const USER: &str = "weir";

/// Does it.
pub(crate) fn run(action: ServerAction) -> anyhow::Result<()> {
    match action {
        ServerAction::Migrate(args) => migrate(*args),
        ServerAction::Rebuild(args) => rebuild(*args),
        ServerAction::Grants(args) => grants(*args),
    }
}

fn migrate(args: Layered<StoreOnlyArgs>) -> anyhow::Result<()> {
    let options = ClickHouseOptions { migrate: true, ..clickhouse(args)? };
    let Migrated { from, to } = ClickHouseStore::migrate(&options)?;
    let did = match from {
        None => format!("made, with schema version {to}"),
        Some(from) if from == to => format!("up to date already, with schema version {to}"),
        Some(from) => format!("brought from schema version {from} to {to}"),
    };
    let database = &options.database;
    print(&format!("the tables in the ClickHouse database {database} were {did}"))
}

/// Hour by hour, so that it is seen how far it is and what is done stays done.
fn rebuild(args: RebuildArgs) -> anyhow::Result<()> {
    let RebuildArgs { store, since, until } = args;
    let store = ClickHouseStore::open(clickhouse(store)?)?;
    let now = moment::now_seconds();
    // The hour that lasts is still written to.
    let end = until.end(now).min(now) / HOUR * HOUR;
    let hours: Vec<u64> = match since {
        Some(since) => (since.seconds(now) / HOUR..end / HOUR).map(|hour| hour * HOUR).collect(),
        None => store.hours_in_doubt()?.into_iter().filter(|hour| *hour < end).collect(),
    };
    let (mut rebuilt, mut doubles) = (0, Vec::new());
    for (done, hour) in hours.iter().enumerate() {
        progress(&format!("{} of {}: {}", done + 1, hours.len(), moment::rfc3339(*hour)));
        let range = *hour..*hour + HOUR;
        for found in store.rebuild(range.clone())? {
            rebuilt += usize::from(!found.rebuilt.is_empty());
        }
        doubles.extend(store.audit(range)?);
    }
    for batch in &doubles {
        progress(&format!("batch {batch} is there more than once"));
    }
    anyhow::ensure!(
        doubles.is_empty(),
        "{} batches are there more than once, and so are their bytes: see docs/clickhouse.md",
        doubles.len()
    );
    let looked = hours.len();
    print(&format!("{looked} hours were compared with their flows; {rebuilt} were summed anew"))
}

fn grants(args: Layered<StoreOnlyArgs>) -> anyhow::Result<()> {
    let options = clickhouse(args)?;
    let user = options.user.as_deref().unwrap_or(USER);
    let rights = ClickHouseStore::grants(&options, user);
    Ok(render::to_stdout(|out, _| {
        writeln!(out, "-- To serve:")?;
        rights.serve.iter().try_for_each(|statement| writeln!(out, "{statement};"))?;
        writeln!(out, "-- To make the tables and bring them up to date, and to rebuild hours:")?;
        rights.migrate.iter().try_for_each(|statement| writeln!(out, "{statement};"))
    })?)
}

fn clickhouse(args: Layered<StoreOnlyArgs>) -> anyhow::Result<ClickHouseOptions> {
    match resolve_store(args.into())?.choice {
        StoreChoice::ClickHouse(clickhouse) => clickhouse.with_password(),
        StoreChoice::Sqlite => Err(UsageError(
            "this is about ClickHouse: name it with --clickhouse-url (an embedded store is brought \
             up to date when its server starts, and its sums are never apart from its flows)"
                .to_owned(),
        )
        .into()),
    }
}

fn print(line: &str) -> anyhow::Result<()> {
    Ok(render::to_stdout(|out, _| writeln!(out, "{}", Shown(line)))?)
}

/// A line on stderr. With that closed there is nobody to tell.
fn progress(line: &str) {
    drop(writeln!(io::stderr(), "weir: {}", Shown(line)));
}
