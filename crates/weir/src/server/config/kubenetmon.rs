//! kubenetmon's table and the door for its agents, as they were said.

use std::net::SocketAddr;
use std::time::Duration;

use weir_flow::Name;
use weir_flow::kubenetmon::{INSTANCE_LABEL, Settings};
use weir_store::KubenetmonTable;

use super::store::StoreChoice;
use crate::args::{ForeignTable, KubenetmonArgs, Listen};
use crate::config;

/// Rows of one insert where nobody says.
const BATCH_ROWS: usize = 15_000;
const BATCH_TIME: Duration = Duration::from_secs(30);
const CONNECTION_AGE: Duration = Duration::from_mins(5);
/// The environments that kubenetmon knows.
const ENVIRONMENTS: [&str; 3] = ["development", "staging", "production"];
/// The clouds that it knows.
const CLOUDS: [&str; 3] = ["aws", "gcp", "azure"];

/// The door for kubenetmon's agents.
#[derive(Clone, Debug)]
pub(crate) struct KubenetmonDoor {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// What rows say of the cluster.
    pub(crate) settings: Settings,
    /// Rows in one insert.
    pub(crate) batch_rows: usize,
    /// How long a row waits for others.
    pub(crate) batch_time: Duration,
    /// How long a connection lasts.
    pub(crate) connection_age: Duration,
}

/// Where the cluster is, for rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Whereabouts<'a> {
    pub(super) cloud: Option<&'a str>,
    pub(super) region: Option<&'a str>,
    pub(super) cluster: Option<&'a str>,
}

impl KubenetmonDoor {
    /// What somebody should know before it runs.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![format!(
            "WARNING: --kubenetmon-listen: {} takes what kubenetmon's agents report without TLS, \
             from whoever can reach it, for whatever node they name, and it may be lost or forged \
             on the way. It goes to kubenetmon's table alone. Switch it off when the last of those \
             agents is gone; a node with both agents is in that table twice",
            self.address
        )];
        warnings.extend(strange(&self.settings));
        warnings
    }
}

/// Words that no dashboard made for kubenetmon asks for.
fn strange(settings: &Settings) -> Option<String> {
    let Settings { environment, cloud, .. } = settings;
    if !ENVIRONMENTS.contains(&&**environment) {
        return Some(format!(
            "kubenetmon's table will say environment {environment:?}, which is none of {}",
            ENVIRONMENTS.join(", ")
        ));
    }
    let other = !CLOUDS.contains(&&**cloud);
    other.then(|| format!("kubenetmon's table will say cloud {cloud:?}, which kubenetmon refuses"))
}

/// Decides, says what is missing or contradicts itself, and tells the store of the table.
pub(super) fn choose(
    args: KubenetmonArgs,
    place: Whereabouts<'_>,
    ingest: SocketAddr,
    store: &mut StoreChoice,
    problems: &mut Vec<String>,
) -> Option<KubenetmonDoor> {
    // Every setting is named here, so that none is forgotten.
    let KubenetmonArgs {
        kubenetmon_table,
        environment,
        kubenetmon_ignore_udp,
        kubenetmon_flag,
        kubenetmon_listen,
        kubenetmon_batch_rows,
        kubenetmon_batch_time,
        kubenetmon_connection_age,
        kubenetmon_credentials: _,
    } = args;
    let address = match kubenetmon_listen {
        None | Some(Listen::Off) => None,
        Some(Listen::At(address)) => Some(address),
    };
    let Some(ForeignTable::At { database, table }) = kubenetmon_table else {
        if address.is_some() {
            problems.push(
                "kubenetmon_listen: what those agents report goes to kubenetmon's table, which is \
                 not written: say --kubenetmon-table (kubenetmon_table: default.network_flows_0)"
                    .to_owned(),
            );
        }
        return None;
    };
    let StoreChoice::ClickHouse(clickhouse) = store else {
        problems.push(
            "kubenetmon_table: is a table in ClickHouse, and flows are kept in sqlite: name a \
             ClickHouse with --clickhouse-url, or leave it away (none)"
                .to_owned(),
        );
        return None;
    };
    let environment = needed("environment", environment.as_deref(), problems);
    let cloud = needed("cloud", place.cloud, problems);
    let region = needed("region", place.region, problems);
    let cluster = needed("cluster", place.cluster, problems);
    let settings = Settings {
        environment: environment?,
        cloud: normal(&cloud?),
        region: normal(&region?),
        cluster: cluster?,
        ignore_udp: kubenetmon_ignore_udp.unwrap_or(true),
        flags: kubenetmon_flag.unwrap_or_default().into_iter().map(|(n, p)| (p, n)).collect(),
    };
    clickhouse.options.kubenetmon =
        Some(KubenetmonTable { database, table, settings: settings.clone() });
    let address = address?;
    if address.port() == ingest.port() && address.port() != 0 {
        problems.push(format!(
            "kubenetmon_listen: {} is where weir's own agents deliver (ingest): kubenetmon's need a \
             port of their own. Where they cannot be told another, give this one to them and let \
             ingest be another",
            address.port()
        ));
    }
    Some(KubenetmonDoor {
        address,
        settings,
        batch_rows: kubenetmon_batch_rows.unwrap_or(BATCH_ROWS),
        batch_time: kubenetmon_batch_time.unwrap_or(BATCH_TIME),
        connection_age: kubenetmon_connection_age.unwrap_or(CONNECTION_AGE),
    })
}

/// The labels of pods that are kept: where the table is written, the one that it has a column for,
/// too.
pub(super) fn labels(mut kept: Vec<Box<str>>, store: &StoreChoice) -> Vec<Box<str>> {
    let StoreChoice::ClickHouse(clickhouse) = store else { return kept };
    let is_written = clickhouse.options.kubenetmon.is_some();
    if is_written && !kept.iter().any(|label| **label == *INSTANCE_LABEL) {
        kept.push(INSTANCE_LABEL.into());
    }
    kept
}

fn needed(key: &str, said: Option<&str>, problems: &mut Vec<String>) -> Option<Name> {
    let said = said.filter(|said| !said.is_empty()).map(Name::from);
    if said.is_none() {
        problems.push(format!("{key}: rows of kubenetmon's table name it: say --{key} ({key}: …)"));
    }
    said
}

/// A cloud or a region as published ranges write it.
fn normal(text: &str) -> Name {
    text.to_lowercase().split_whitespace().collect::<String>().into()
}

/// The settings as they are printed, in the order in which they are explained.
pub(super) fn values(args: &KubenetmonArgs) -> [String; 9] {
    let scalar = |value: Option<String>| {
        value.map_or_else(|| "null".to_owned(), |value| config::scalar(&value))
    };
    let listen = args.kubenetmon_listen.unwrap_or(Listen::Off);
    let flags = args.kubenetmon_flag.iter().flatten();
    let flags = flags.map(|(name, network)| config::scalar(&format!("{name}={network}")));
    let seconds = |time: Option<Duration>, default: Duration| {
        format!("{}s", time.unwrap_or(default).as_secs())
    };
    [
        args.kubenetmon_table.as_ref().unwrap_or(&ForeignTable::Off).to_string(),
        scalar(args.environment.clone()),
        args.kubenetmon_ignore_udp.unwrap_or(true).to_string(),
        format!("[{}]", flags.collect::<Vec<_>>().join(", ")),
        config::place(listen),
        args.kubenetmon_batch_rows.unwrap_or(BATCH_ROWS).to_string(),
        seconds(args.kubenetmon_batch_time, BATCH_TIME),
        seconds(args.kubenetmon_connection_age, CONNECTION_AGE),
        scalar(args.kubenetmon_credentials.as_ref().map(|path| path.display().to_string())),
    ]
}

#[cfg(test)]
mod tests {
    use weir_store::ClickHouseOptions;

    use super::super::store::ClickHouse;
    use super::*;

    fn clickhouse() -> StoreChoice {
        let options = ClickHouseOptions::new("http://ch:8123", "weir");
        StoreChoice::ClickHouse(Box::new(ClickHouse { options, password_file: None }))
    }

    fn clickhouse_with(table: KubenetmonTable) -> StoreChoice {
        let mut options = ClickHouseOptions::new("http://ch:8123", "weir");
        options.kubenetmon = Some(table);
        StoreChoice::ClickHouse(Box::new(ClickHouse { options, password_file: None }))
    }

    fn table() -> KubenetmonArgs {
        let at = ForeignTable::At { database: "default".into(), table: "network_flows_0".into() };
        KubenetmonArgs {
            kubenetmon_table: Some(at),
            environment: Some("production".into()),
            ..KubenetmonArgs::default()
        }
    }

    const PLACE: Whereabouts<'_> = Whereabouts {
        cloud: Some("AWS"),
        region: Some("Germany West Central"),
        cluster: Some("c1"),
    };

    fn chosen(
        args: KubenetmonArgs,
        place: Whereabouts<'_>,
        mut store: StoreChoice,
    ) -> (Option<KubenetmonDoor>, StoreChoice, Vec<String>) {
        let mut problems = Vec::new();
        let ingest = "0.0.0.0:8884".parse().unwrap();
        let door = choose(args, place, ingest, &mut store, &mut problems);
        (door, store, problems)
    }

    #[test]
    fn the_table_is_told_to_the_store() {
        let (door, store, problems) = chosen(table(), PLACE, clickhouse());
        assert!(door.is_none() && problems.is_empty(), "{problems:?}");
        let StoreChoice::ClickHouse(told) = store else { panic!("{store:?}") };
        let table = told.options.kubenetmon.unwrap();
        assert_eq!(
            (&*table.settings.cloud, &*table.settings.region),
            ("aws", "germanywestcentral")
        );
        assert!(table.settings.ignore_udp);
        assert_eq!(labels(Vec::new(), &clickhouse_with(table)), [INSTANCE_LABEL.into()]);
        assert_eq!(labels(Vec::new(), &clickhouse()), Vec::<Box<str>>::new());
    }

    #[test]
    fn the_door_is_open_only_where_it_was_said_and_loudly() {
        let listen = Listen::At("0.0.0.0:8886".parse().unwrap());
        let args = KubenetmonArgs { kubenetmon_listen: Some(listen), ..table() };
        let (door, _, problems) = chosen(args, PLACE, clickhouse());
        let door = door.unwrap();
        assert_eq!((door.batch_rows, door.batch_time), (15_000, Duration::from_secs(30)));
        assert!(problems.is_empty() && door.warnings()[0].starts_with("WARNING"), "{problems:?}");
    }

    #[test]
    fn what_is_missing_or_contradicts_is_named() {
        let at = |address: &str| Some(Listen::At(address.parse().unwrap()));
        let lone = KubenetmonArgs { kubenetmon_listen: at("0.0.0.0:1"), ..Default::default() };
        let same = KubenetmonArgs { kubenetmon_listen: at("0.0.0.0:8884"), ..table() };
        let nameless = Whereabouts { cluster: Some(""), ..PLACE };
        for (args, place, store, says) in [
            (lone, PLACE, clickhouse(), "--kubenetmon-table"),
            (same, PLACE, clickhouse(), "a port of their own"),
            (table(), PLACE, StoreChoice::Sqlite, "flows are kept in sqlite"),
            (table(), nameless, clickhouse(), "--cluster"),
            (table(), Whereabouts { cloud: None, ..PLACE }, clickhouse(), "--cloud"),
        ] {
            let (_, _, problems) = chosen(args, place, store);
            assert!(matches!(&problems[..], [one] if one.contains(says)), "{problems:?}");
        }
    }
}
