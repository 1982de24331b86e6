//! Where flows are kept, as it was said.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use weir_store::{ClickHouseOptions, Password, Retention};

use crate::args::{StoreArgs, StoreKind};
use crate::config;

/// The variable that holds ClickHouse's password, where no file does.
pub(super) const PASSWORD: &str = "WEIR_CLICKHOUSE_PASSWORD";
/// The database where nobody names one.
const DATABASE: &str = "weir";
/// More than any password.
const PASSWORD_BYTES: usize = 4_096;

/// Where flows are kept.
#[derive(Clone, Debug)]
pub(crate) enum StoreChoice {
    /// In a file of the data directory.
    Sqlite,
    /// In ClickHouse.
    ClickHouse(Box<ClickHouse>),
}

/// How ClickHouse is reached.
#[derive(Clone, Debug)]
pub(crate) struct ClickHouse {
    /// Everything but a password that stands in a file.
    pub(crate) options: ClickHouseOptions,
    /// Where the password stands. Read at every attempt to begin, so that it may change.
    pub(crate) password_file: Option<PathBuf>,
}

/// What commands about the store run with.
#[derive(Clone, Debug)]
pub(crate) struct StoreConfig {
    pub(crate) choice: StoreChoice,
}

impl StoreChoice {
    /// What somebody should know before it runs.
    pub(super) fn warnings(&self) -> Vec<String> {
        let Self::ClickHouse(clickhouse) = self else { return Vec::new() };
        let ClickHouse { options, password_file } = &**clickhouse;
        let mut warnings = Vec::new();
        if options.insecure_skip_verify {
            warnings.push(format!(
                "WARNING: --clickhouse-insecure-skip-verify: whoever answers at {} is taken for \
                 ClickHouse, and told the password. Name who signs its certificate with \
                 --clickhouse-ca instead",
                options.url
            ));
        }
        let is_secret = options.password.is_some() || password_file.is_some();
        if is_secret && options.url.starts_with("http://") && !is_loopback(&options.url) {
            warnings.push(format!(
                "WARNING: the password and all flows go to {} without TLS: use https://",
                options.url
            ));
        }
        warnings
    }
}

impl ClickHouse {
    /// What the store is opened with.
    pub(crate) fn with_password(&self) -> anyhow::Result<ClickHouseOptions> {
        let Some(path) = &self.password_file else { return Ok(self.options.clone()) };
        let text = fs::read_to_string(path)
            .with_context(|| format!("read ClickHouse's password from {}", path.display()))?;
        let password = text.trim_end_matches(['\r', '\n']);
        ensure!(
            !password.is_empty() && password.len() <= PASSWORD_BYTES,
            "{} holds no password: it must hold one line",
            path.display()
        );
        let password = Some(Password::new(password.to_owned()));
        Ok(ClickHouseOptions { password, ..self.options.clone() })
    }
}

/// Decides, and says what contradicts itself.
pub(super) fn choose(
    args: StoreArgs,
    retention: Retention,
    replicas: Option<u32>,
    problems: &mut Vec<String>,
) -> StoreChoice {
    let is_clickhouse = match args.store {
        Some(kind) => kind == StoreKind::Clickhouse,
        None => args.clickhouse_url.is_some(),
    };
    if !is_clickhouse {
        if args.clickhouse_url.is_some() {
            problems.push("clickhouse_url: contradicts store: sqlite; leave one away".to_owned());
        }
        if let Some(count) = replicas.filter(|count| *count > 1) {
            problems.push(format!(
                "replicas: {count} servers need one store that all of them write to; sqlite has \
                 one writer, and every server would count what is delivered to it again: name a \
                 ClickHouse with --clickhouse-url, or run one server"
            ));
        }
        return StoreChoice::Sqlite;
    }
    let password = env::var(PASSWORD).ok().filter(|password| !password.is_empty());
    let Some(clickhouse) = clickhouse(args, password, retention, problems) else {
        return StoreChoice::Sqlite;
    };
    StoreChoice::ClickHouse(Box::new(clickhouse))
}

fn clickhouse(
    args: StoreArgs,
    password: Option<String>,
    retention: Retention,
    problems: &mut Vec<String>,
) -> Option<ClickHouse> {
    // Every setting is named here, so that none is forgotten.
    let StoreArgs {
        store: _,
        clickhouse_url,
        clickhouse_database,
        clickhouse_user,
        clickhouse_password_file,
        clickhouse_ca,
        clickhouse_insecure_skip_verify,
        clickhouse_cluster,
        clickhouse_replicated,
        clickhouse_no_migrate,
    } = args;
    let Some(url) = clickhouse_url else {
        problems.push(
            "store: clickhouse needs its address: --clickhouse-url https://HOST:8443 \
             (clickhouse_url)"
                .to_owned(),
        );
        return None;
    };
    if password.is_some() && clickhouse_password_file.is_some() {
        problems.push(format!(
            "clickhouse_password_file: contradicts the variable {PASSWORD}; leave one away"
        ));
    }
    let skip_verify = clickhouse_insecure_skip_verify.unwrap_or(false);
    if skip_verify && clickhouse_ca.is_some() {
        problems.push(
            "clickhouse_ca: contradicts clickhouse_insecure_skip_verify; leave one away".to_owned(),
        );
    }
    let database = clickhouse_database.unwrap_or_else(|| DATABASE.to_owned());
    let options = ClickHouseOptions {
        user: clickhouse_user,
        password: password.map(Password::new),
        ca: clickhouse_ca,
        insecure_skip_verify: skip_verify,
        cluster: clickhouse_cluster,
        replicated: clickhouse_replicated.unwrap_or(false),
        migrate: !clickhouse_no_migrate.unwrap_or(false),
        retention,
        ..ClickHouseOptions::new(url, database)
    };
    Some(ClickHouse { options, password_file: clickhouse_password_file })
}

/// The settings as they are printed, in the order in which they are explained. Never the password.
pub(super) fn values(choice: &StoreChoice, args: &StoreArgs) -> [String; 10] {
    let scalar = |value: Option<&str>| value.map_or_else(|| "null".to_owned(), config::scalar);
    let path = |path: &Option<PathBuf>| {
        scalar(path.as_ref().map(|path| path.display().to_string()).as_deref())
    };
    let on = |value: Option<bool>| value.unwrap_or(false).to_string();
    let kind = match choice {
        StoreChoice::Sqlite => "sqlite",
        StoreChoice::ClickHouse(_) => "clickhouse",
    };
    [
        kind.to_owned(),
        scalar(args.clickhouse_url.as_deref()),
        scalar(Some(args.clickhouse_database.as_deref().unwrap_or(DATABASE))),
        scalar(args.clickhouse_user.as_deref()),
        path(&args.clickhouse_password_file),
        path(&args.clickhouse_ca),
        on(args.clickhouse_insecure_skip_verify),
        scalar(args.clickhouse_cluster.as_deref()),
        on(args.clickhouse_replicated),
        on(args.clickhouse_no_migrate),
    ]
}

fn is_loopback(url: &str) -> bool {
    let authority = url.split("://").nth(1).unwrap_or_default().split('/').next();
    let authority = authority.unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed() -> StoreArgs {
        StoreArgs { clickhouse_url: Some("https://ch:8443".to_owned()), ..StoreArgs::default() }
    }

    fn chosen(args: StoreArgs, replicas: Option<u32>) -> (StoreChoice, Vec<String>) {
        let mut problems = Vec::new();
        let choice = choose(args, Retention::default(), replicas, &mut problems);
        (choice, problems)
    }

    #[test]
    fn an_address_is_enough() {
        let (choice, problems) = chosen(typed(), Some(3));
        let StoreChoice::ClickHouse(clickhouse) = choice else { panic!("{choice:?}") };
        assert_eq!(clickhouse.options.database, "weir");
        assert!(clickhouse.options.migrate && problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn contradictions_are_named() {
        let kind = |kind| StoreArgs { store: Some(kind), ..StoreArgs::default() };
        let both = StoreArgs { store: Some(StoreKind::Sqlite), ..typed() };
        let path = Some(PathBuf::from("/x"));
        let unverified = StoreArgs {
            clickhouse_ca: path,
            clickhouse_insecure_skip_verify: Some(true),
            ..typed()
        };
        for (args, replicas, says) in [
            (kind(StoreKind::Clickhouse), None, "needs its address"),
            (both, None, "contradicts store: sqlite"),
            (unverified, None, "contradicts clickhouse_insecure_skip_verify"),
            (kind(StoreKind::Sqlite), Some(2), "name a ClickHouse"),
        ] {
            let (_, problems) = chosen(args, replicas);
            assert!(matches!(&problems[..], [one] if one.contains(says)), "{problems:?}");
        }
        assert_eq!(chosen(kind(StoreKind::Sqlite), Some(1)).1, Vec::<String>::new());
    }

    #[test]
    fn a_password_is_read_anew_and_shown_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, "hunter2\n").unwrap();
        let args = StoreArgs { clickhouse_password_file: Some(path.clone()), ..typed() };
        let (choice, _) = chosen(args.clone(), None);
        assert!(!values(&choice, &args).join(" ").contains("hunter2"));
        let StoreChoice::ClickHouse(clickhouse) = choice else { panic!("{choice:?}") };
        let options = clickhouse.with_password().unwrap();
        assert_eq!(options.password, Some(Password::new("hunter2".to_owned())));
        assert!(!format!("{options:?}").contains("hunter2"));
        fs::write(&path, "\n").unwrap();
        assert!(clickhouse.with_password().unwrap_err().to_string().contains("one line"));
    }

    #[test]
    fn what_leaves_the_machine_in_plain_sight_is_warned_of() {
        for (url, expected) in [
            ("https://ch:8443", 0),
            ("http://ch:8123", 1),
            ("http://127.0.0.1:8123", 0),
            ("http://[::1]:8123", 0),
            ("http://localhost:8123", 0),
        ] {
            let password = Some("hunter2".to_owned());
            let args = StoreArgs { clickhouse_url: Some(url.to_owned()), ..StoreArgs::default() };
            let chosen = clickhouse(args, password, Retention::default(), &mut Vec::new());
            let choice = StoreChoice::ClickHouse(Box::new(chosen.unwrap()));
            assert_eq!(choice.warnings().len(), expected, "{url}");
        }
    }
}
