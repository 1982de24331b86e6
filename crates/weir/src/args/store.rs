//! What can be typed about the store of `weir server`.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::ValueEnum;

use super::value::switch;

/// Where flows rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// In the data directory.
    Sqlite,
    /// In ClickHouse.
    Clickhouse,
}

/// Where flows rest, and how ClickHouse is reached. Each has the same name in the configuration
/// file, with `_` for `-`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct StoreArgs {
    /// Where flows are kept: sqlite is a file in the data directory, for one server. Default:
    /// sqlite, or clickhouse where its URL is given.
    #[arg(
        long,
        env = "WEIR_STORE",
        hide_env_values = true,
        value_name = "STORE",
        hide_possible_values = true
    )]
    pub(crate) store: Option<StoreKind>,
    /// ClickHouse's HTTP interface: `http://HOST:8123` or `https://HOST:8443`.
    #[arg(long, env = "WEIR_CLICKHOUSE_URL", hide_env_values = true, value_name = "URL",
          value_parser = url)]
    pub(crate) clickhouse_url: Option<String>,
    /// The database there, one for each cluster. Default: weir.
    #[arg(long, env = "WEIR_CLICKHOUSE_DATABASE", hide_env_values = true, value_name = "NAME",
          value_parser = name)]
    pub(crate) clickhouse_database: Option<String>,
    /// As whom. Default: ClickHouse's user `default`.
    #[arg(long, env = "WEIR_CLICKHOUSE_USER", hide_env_values = true, value_name = "USER")]
    pub(crate) clickhouse_user: Option<String>,
    /// The file with the user's password. Without: the variable `WEIR_CLICKHOUSE_PASSWORD`.
    #[arg(
        long,
        env = "WEIR_CLICKHOUSE_PASSWORD_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) clickhouse_password_file: Option<PathBuf>,
    /// Who signs ClickHouse's certificate, PEM. Default: the system's authorities.
    #[arg(long, env = "WEIR_CLICKHOUSE_CA", hide_env_values = true, value_name = "FILE")]
    pub(crate) clickhouse_ca: Option<PathBuf>,
    /// Take any certificate for ClickHouse's. For trying things out.
    #[arg(long, env = "WEIR_CLICKHOUSE_INSECURE_SKIP_VERIFY", hide_env_values = true,
          value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = switch)]
    pub(crate) clickhouse_insecure_skip_verify: Option<bool>,
    /// The ClickHouse cluster on which tables are made (`ON CLUSTER`).
    #[arg(long, env = "WEIR_CLICKHOUSE_CLUSTER", hide_env_values = true, value_name = "NAME",
          value_parser = name)]
    pub(crate) clickhouse_cluster: Option<String>,
    /// Tables are replicated.
    #[arg(long, env = "WEIR_CLICKHOUSE_REPLICATED", hide_env_values = true, value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = switch)]
    pub(crate) clickhouse_replicated: Option<bool>,
    /// Leave the tables as they are, and stop where they are not as this weir needs them: `weir
    /// server migrate` brings them up to date.
    #[arg(long, env = "WEIR_CLICKHOUSE_NO_MIGRATE", hide_env_values = true, value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = switch)]
    pub(crate) clickhouse_no_migrate: Option<bool>,
}

fn url(text: &str) -> anyhow::Result<String> {
    let hint = "the HTTP interface of ClickHouse: http://HOST:8123 or https://HOST:8443";
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    ensure!(matches!(scheme, "http" | "https"), "needs {hint}");
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    ensure!(!authority.is_empty(), "needs {hint}");
    ensure!(!authority.contains('@'), "user and password have settings of their own; needs {hint}");
    ensure!(!rest.contains(['?', '#']), "leave everything from `?` on away; needs {hint}");
    match authority.rsplit_once(':').map(|(_, port)| port) {
        Some("9000" | "9440") => {
            bail!("that is the port of ClickHouse's native protocol; needs {hint}")
        }
        _ => Ok(text.trim_end_matches('/').to_owned()),
    }
}

/// The name of a database or a cluster, as it can stand in SQL without surprises.
fn name(text: &str) -> anyhow::Result<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.{}".contains(c);
    ensure!(
        !text.is_empty() && text.len() <= 64 && text.chars().all(is_plain),
        "a name of at most 64 letters, digits, `_`, `-` and `.`"
    );
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, expected) in [
            ("http://ch:8123", "http://ch:8123"),
            ("https://[::1]:8443/", "https://[::1]:8443"),
            ("http://proxy/clickhouse/", "http://proxy/clickhouse"),
        ] {
            assert_eq!(url(text).unwrap(), expected);
        }
        for (text, says) in [
            ("ch:8123", "http://HOST:8123"),
            ("tcp://ch:9000", "http://HOST:8123"),
            ("http://", "http://HOST:8123"),
            ("http://ch:9000", "native protocol"),
            ("https://ch:9440/", "native protocol"),
            ("http://me:secret@ch:8123", "settings of their own"),
            ("http://ch:8123/?database=x", "from `?` on"),
        ] {
            let said = url(text).unwrap_err().to_string();
            assert!(said.contains(says) && !said.contains("secret"), "{text}: {said}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(name("prod-eu_1").unwrap(), "prod-eu_1");
        for text in ["", "a b", "a`b", "a'b", &"x".repeat(65)] {
            assert!(name(text).is_err(), "{text}");
        }
    }
}
