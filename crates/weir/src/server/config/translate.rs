//! A configuration of kubenetmon's server, in weir's words: what became of each setting.
//!
//! Its settings are those of another program with the same purpose: most name something that weir
//! has, too, some name what weir does not need, and none is passed over in silence.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use weir_server::moment;

use super::store::PASSWORD;
use crate::config::{Setting, Written};

/// Settings that only kubenetmon has. Beside these it has `environment`, `cloud`, `region`,
/// `cluster` and `clickhouse_insecure_skip_verify`, which mean the same here.
pub(super) const KEYS: [&str; 14] = [
    "metrics_port",
    "grpc_port",
    "max_grpc_connection_age",
    "num_inserter_workers",
    "ignore_udp",
    "clickhouse_enabled",
    "clickhouse_endpoint",
    "clickhouse_dial_timeout",
    "clickhouse_max_idle_connections",
    "clickhouse_batch_size",
    "clickhouse_batch_send_timeout",
    "clickhouse_wait_for_async_insert",
    "clickhouse_skip_ping",
    "clickhouse_disable_tls",
];

/// A setting of both that means something else in each: the database of kubenetmon's table, or that
/// of weir's own.
const DATABASE: &str = "clickhouse_database";

/// Where kubenetmon has its user and password.
pub(super) const CREDENTIALS: &str = "/etc/clickhouse";

/// What somebody who comes from kubenetmon has to add.
pub(super) const ABOUT_TLS: &str = "kubenetmon's agents and server speak in plain sight, and its configuration has nothing about \
     TLS; weir's agents show who they are, and need it. Add tls_cert and tls_key to this file, and \
     give each agent WEIR_CA_FILE and WEIR_TOKEN_FILE; or, for as little protection as before, \
     insecure_plaintext: true here and WEIR_INSECURE_PLAINTEXT=true for the agents";

/// The name of kubenetmon's table.
const TABLE: &str = "network_flows_0";
/// Where kubenetmon's table is where nobody says.
const DEFAULT_DATABASE: &str = "default";
/// More than any user's name.
const USER_BYTES: u64 = 4_096;

/// What kubenetmon's settings become.
#[derive(Debug, Default)]
pub(super) struct Translated {
    /// Settings of weir with their values, and the line that they come from.
    pub(super) settings: Vec<(&'static str, String, u64)>,
    /// What somebody should know of each.
    pub(super) notes: Vec<String>,
    /// What makes no sense.
    pub(super) problems: Vec<String>,
}

/// True where this setting of this file has kubenetmon's meaning.
pub(super) fn is_theirs(written: &Written, key: &str) -> bool {
    KEYS.contains(&key) || (key == DATABASE && has_their_clickhouse(written))
}

/// True where this file has settings that only kubenetmon has.
pub(super) fn has_theirs(written: &Written) -> bool {
    written.settings().any(|setting| KEYS.contains(&setting.key()))
}

fn has_their_clickhouse(written: &Written) -> bool {
    let is_one = |key: &str| key.starts_with("clickhouse_") && KEYS.contains(&key);
    written.settings().any(|setting| is_one(setting.key()))
}

/// Puts a file's settings of kubenetmon's into weir's words. `credentials` is where its user and
/// password are, `cluster` what the cluster is called.
pub(super) fn translate(
    written: &Written,
    credentials: &Path,
    cluster: Option<&str>,
) -> Translated {
    let mut translated = Translated::default();
    if !has_theirs(written) {
        return translated;
    }
    for setting in written.settings() {
        let result = match setting.key() {
            key if key.starts_with("clickhouse_") => Ok(()),
            _ => translated.server(&setting),
        };
        translated.wrong(&setting, result);
    }
    if has_their_clickhouse(written) {
        translated.clickhouse(written, credentials, cluster);
    }
    translated
}

impl Translated {
    fn put(&mut self, key: &'static str, value: impl Into<String>, line: u64) {
        self.settings.push((key, value.into(), line));
    }

    fn note(&mut self, setting: &Setting<'_>, became: impl AsRef<str>) {
        let value = setting.as_typed().unwrap_or_default();
        self.notes.push(format!("{}: {value} {}", setting.key(), became.as_ref()));
    }

    fn wrong(&mut self, setting: &Setting<'_>, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.problems.push(format!("{}: {}: {error:#}", setting.place(), setting.key()));
        }
    }

    /// Settings that have nothing to do with ClickHouse.
    fn server(&mut self, setting: &Setting<'_>) -> anyhow::Result<()> {
        let line = setting.line();
        match setting.key() {
            "metrics_port" => {
                let address = format!("0.0.0.0:{}", port(setting)?);
                self.note(setting, format!("is metrics: {address}; its metrics are named weir_…"));
                self.put("metrics", address, line);
            }
            "grpc_port" => {
                let address = format!("0.0.0.0:{}", port(setting)?);
                self.note(
                    setting,
                    format!(
                        "is ingest: {address}, where weir's agents deliver, with TLS; what \
                         kubenetmon's own agents report is taken at kubenetmon_listen, where that \
                         is set"
                    ),
                );
                self.put("ingest", address, line);
            }
            "max_grpc_connection_age" => {
                let age = seconds(setting)?;
                self.note(
                    setting,
                    format!(
                        "is kubenetmon_connection_age: {age}, for kubenetmon's agents; weir's own \
                         choose a server anew after 10 to 30 minutes"
                    ),
                );
                self.put("kubenetmon_connection_age", age, line);
            }
            "num_inserter_workers" => self.note(
                setting,
                "is not needed: each agent's batch is one insert, and several run at the same time",
            ),
            "ignore_udp" => {
                let ignore = switch(setting)?;
                let of_own = "weir's own flows have UDP always";
                self.note(setting, format!("is kubenetmon_ignore_udp: {ignore}; {of_own}"));
                self.put("kubenetmon_ignore_udp", ignore.to_string(), line);
            }
            "environment" | "cloud" | "region" | "cluster" => {
                self.note(setting, "is the same setting here");
            }
            _ => {}
        }
        Ok(())
    }

    /// Settings of ClickHouse, which depend on each other.
    fn clickhouse(&mut self, written: &Written, credentials: &Path, cluster: Option<&str>) {
        let find = |key: &str| written.settings().find(|setting| setting.key() == key);
        let mut on = |key: &str, default: bool| {
            let Some(setting) = find(key) else { return default };
            match switch(&setting) {
                Ok(on) => on,
                Err(error) => {
                    self.wrong(&setting, Err(error));
                    default
                }
            }
        };
        let is_enabled = on("clickhouse_enabled", true);
        let is_plain = on("clickhouse_disable_tls", false);
        let line = find("clickhouse_enabled")
            .or_else(|| find("clickhouse_endpoint"))
            .map_or(0, |it| it.line());
        if is_enabled {
            self.put("store", "clickhouse", line);
        } else {
            self.put("store", "sqlite", line);
            self.put("kubenetmon_table", "none", line);
        }
        for setting in written.settings() {
            let result = self.of_clickhouse(&setting, is_enabled, is_plain, cluster);
            self.wrong(&setting, result);
        }
        if !is_enabled {
            return;
        }
        match find("clickhouse_endpoint") {
            None => self.problems.push(
                "clickhouse_endpoint: is missing: kubenetmon's settings of ClickHouse say nothing \
                 without it (or clickhouse_enabled: false)"
                    .to_owned(),
            ),
            Some(endpoint) => self.credentials(credentials, endpoint.line()),
        }
        if find(DATABASE).is_none() {
            let own = own_database(cluster);
            self.notes.push(format!(
                "clickhouse_database is not set: kubenetmon's table is {DEFAULT_DATABASE}.{TABLE}, \
                 weir's own tables are in {own}"
            ));
            self.put("kubenetmon_table", format!("{DEFAULT_DATABASE}.{TABLE}"), line);
            self.put("clickhouse_database", own, line);
        }
    }

    fn of_clickhouse(
        &mut self,
        setting: &Setting<'_>,
        is_enabled: bool,
        is_plain: bool,
        cluster: Option<&str>,
    ) -> anyhow::Result<()> {
        let line = setting.line();
        match setting.key() {
            "clickhouse_enabled" if is_enabled => self.note(
                setting,
                "is store: clickhouse: kubenetmon's table is written, and weir's own tables beside",
            ),
            "clickhouse_enabled" => self.note(
                setting,
                "is store: sqlite: kubenetmon would throw everything away; weir keeps its own flows \
                 in a file of its data directory, and kubenetmon's table is not written",
            ),
            key if !is_enabled && key.starts_with("clickhouse_") => {
                self.note(setting, "says nothing where clickhouse_enabled is false");
            }
            "clickhouse_endpoint" => {
                let (url, why) = url(setting.as_typed()?.trim(), is_plain)?;
                self.note(setting, format!("is clickhouse_url: {url}; {why}"));
                self.put("clickhouse_url", url, line);
            }
            "clickhouse_disable_tls" if is_plain => {
                self.note(setting, "is in clickhouse_url: http; passwords and flows go in plain sight");
            }
            "clickhouse_disable_tls" => self.note(setting, "is in clickhouse_url: https"),
            "clickhouse_insecure_skip_verify" => self.note(setting, "is the same setting here"),
            DATABASE => self.database(setting, cluster)?,
            "clickhouse_batch_size" => {
                let rows: usize = setting.as_typed()?.parse().context("not a number of rows")?;
                ensure!(rows > 0, "not a number of rows");
                let of_own = "weir's own agents' batches are inserted as they come";
                self.note(setting, format!("is kubenetmon_batch_rows: {rows}; {of_own}"));
                self.put("kubenetmon_batch_rows", rows.to_string(), line);
            }
            "clickhouse_batch_send_timeout" => {
                let time = seconds(setting)?;
                self.note(setting, format!("is kubenetmon_batch_time: {time}"));
                self.put("kubenetmon_batch_time", time, line);
            }
            "clickhouse_dial_timeout" => {
                self.note(setting, "is not needed: weir has times of its own, and tries again");
            }
            "clickhouse_max_idle_connections" => {
                self.note(setting, "is not needed: connections are kept as they are of use");
            }
            "clickhouse_wait_for_async_insert" => self.note(
                setting,
                "is not taken over: an insert is answered when it is durable, never before",
            ),
            "clickhouse_skip_ping" => self.note(
                setting,
                "is not needed: a server waits for ClickHouse, and its agents keep their batches",
            ),
            _ => {}
        }
        Ok(())
    }

    fn database(&mut self, setting: &Setting<'_>, cluster: Option<&str>) -> anyhow::Result<()> {
        let line = setting.line();
        let database = setting.as_typed()?;
        let (table, own) = (format!("{database}.{TABLE}"), own_database(cluster));
        self.note(
            setting,
            format!(
                "is kubenetmon_table: {table}; weir's own tables are in {own} (another: \
                 --clickhouse-database)"
            ),
        );
        self.put("kubenetmon_table", table, line);
        self.put("clickhouse_database", own, line);
        Ok(())
    }

    /// Who weir is in ClickHouse: what kubenetmon reads from two files.
    fn credentials(&mut self, directory: &Path, line: u64) {
        let user = directory.join("username");
        match read_line(&user) {
            Some(text) => {
                self.notes.push(format!("{} is clickhouse_user: {text}", user.display()));
                self.put("clickhouse_user", text, line);
            }
            None => self.notes.push(format!(
                "{} is missing or empty: ClickHouse is asked as its user `default`, unless \
                 clickhouse_user says another",
                user.display()
            )),
        }
        let password = directory.join("password");
        let is_said = env::var_os(PASSWORD).is_some_and(|password| !password.is_empty());
        if is_said {
            self.notes.push(format!("{} is not read: {PASSWORD} is set", password.display()));
        } else if read_line(&password).is_some() {
            let path = password.display().to_string();
            self.notes.push(format!(
                "{path} is clickhouse_password_file, read anew at each attempt; an end of line is \
                 no part of it"
            ));
            self.put("clickhouse_password_file", path, line);
        } else {
            self.notes.push(format!(
                "{} is missing or empty: no password, unless clickhouse_password_file names one",
                password.display()
            ));
        }
    }
}

/// The database of weir's own tables: one for each cluster, since kubenetmon's table, which says
/// of every row where it is from, may be that of many.
fn own_database(cluster: Option<&str>) -> String {
    let Some(cluster) = cluster.filter(|cluster| !cluster.is_empty()) else {
        return "weir".to_owned();
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    format!("weir_{}", cluster.chars().take(48).map(plain).collect::<String>())
}

/// The HTTP interface behind an address of the native protocol, and why it is that one.
fn url(endpoint: &str, is_plain: bool) -> anyhow::Result<(String, String)> {
    let hint = "needs a host and a port: clickhouse.example.org:9440";
    let (host, port) = endpoint.rsplit_once(':').with_context(|| hint)?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0).with_context(|| hint)?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_name = !host.is_empty() && host.chars().all(fits);
    ensure!(is_bracketed || is_name, "{hint}");
    let (scheme, http) = if is_plain { ("http", 8123) } else { ("https", 8443) };
    let native = "the native protocol's port; weir speaks HTTP";
    let (port, why) = match (port, is_plain) {
        (9000, true) | (9440, false) => (http, format!("{port} is {native}, at {http}")),
        (9000, false) => (
            http,
            format!(
                "{port} is {native}, with TLS at {http}, because clickhouse_disable_tls is not \
                 true; without TLS it would be 8123"
            ),
        ),
        (9440, true) => (
            http,
            format!(
                "{port} is {native}, without TLS at {http}, because clickhouse_disable_tls is true"
            ),
        ),
        (8123 | 8443, _) => (port, "the port of its HTTP interface".to_owned()),
        _ => (
            port,
            format!(
                "the port is kept: make sure that it is the HTTP interface's, not that of the \
                 native protocol ({http} is usual)"
            ),
        ),
    };
    Ok((format!("{scheme}://{host}:{port}"), why))
}

fn port(setting: &Setting<'_>) -> anyhow::Result<u16> {
    let port = setting.as_typed()?.parse().ok().filter(|port: &u16| *port > 0);
    port.context("needs a port: 8883")
}

/// A switch as Go reads it, too.
fn switch(setting: &Setting<'_>) -> anyhow::Result<bool> {
    match setting.as_typed()?.as_str() {
        "true" | "True" | "TRUE" | "t" | "T" | "yes" | "on" | "1" => Ok(true),
        "false" | "False" | "FALSE" | "f" | "F" | "no" | "off" | "0" => Ok(false),
        _ => anyhow::bail!("neither true nor false"),
    }
}

/// A time as Go writes it, in whole seconds and at least one.
fn seconds(setting: &Setting<'_>) -> anyhow::Result<String> {
    let text = setting.as_typed()?;
    let is_shorter = ["ns", "us", "µs", "ms"].iter().any(|unit| text.ends_with(unit));
    let time = match moment::duration(&text) {
        Ok(time) => time,
        Err(_) if is_shorter => Duration::from_secs(1),
        Err(error) => return Err(error.into()),
    };
    Ok(format!("{}s", time.as_secs().max(1)))
}

/// A file's only line; `None` where there is none.
fn read_line(path: &Path) -> Option<String> {
    let is_small = fs::metadata(path).is_ok_and(|file| file.len() <= USER_BYTES);
    let text = is_small.then(|| fs::read_to_string(path).ok())??;
    let line = text.trim_end_matches(['\r', '\n']);
    (!line.is_empty() && !line.contains(char::is_control)).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "\
metrics_port: 8883
grpc_port: 8884
environment: production
cloud: aws
region: us-west-2
cluster: shop-1
max_grpc_connection_age: 300s
num_inserter_workers: 20
ignore_udp: true
clickhouse_enabled: true
clickhouse_database: default
clickhouse_endpoint: clickhouse.default.svc.cluster.local:9000
clickhouse_dial_timeout: 30s
clickhouse_max_idle_connections: 50
clickhouse_batch_size: 15000
clickhouse_batch_send_timeout: 30s
clickhouse_wait_for_async_insert: false
clickhouse_skip_ping: false
clickhouse_disable_tls: true
clickhouse_insecure_skip_verify: false
";

    fn of(text: &str) -> Translated {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("username"), "metering\n").unwrap();
        let written = Written::parse(text.to_owned(), "config.yaml".to_owned()).unwrap();
        translate(&written, directory.path(), Some("shop-1"))
    }

    fn value<'a>(translated: &'a Translated, key: &str) -> Option<&'a str> {
        let found = translated.settings.iter().find(|(known, ..)| *known == key);
        found.map(|(_, value, _)| value.as_str())
    }

    #[test]
    fn a_whole_file_is_taken_over_and_each_setting_has_its_note() {
        let translated = of(WHOLE);
        assert_eq!(translated.problems, Vec::<String>::new());
        for (key, expected) in [
            ("metrics", "0.0.0.0:8883"),
            ("ingest", "0.0.0.0:8884"),
            ("store", "clickhouse"),
            ("clickhouse_url", "http://clickhouse.default.svc.cluster.local:8123"),
            ("clickhouse_database", "weir_shop-1"),
            ("clickhouse_user", "metering"),
            ("kubenetmon_table", "default.network_flows_0"),
            ("kubenetmon_ignore_udp", "true"),
            ("kubenetmon_connection_age", "300s"),
            ("kubenetmon_batch_rows", "15000"),
            ("kubenetmon_batch_time", "30s"),
        ] {
            assert_eq!(value(&translated, key), Some(expected), "{key}");
        }
        for line in WHOLE.lines() {
            let noted = translated.notes.iter().filter(|note| note.starts_with(line)).count();
            assert_eq!(noted, 1, "{line}: {:#?}", translated.notes);
        }
    }

    #[test]
    fn its_port_becomes_that_of_the_http_interface_and_tls_is_never_lost() {
        for (endpoint, is_plain, expected, says) in [
            ("ch:9440", false, "https://ch:8443", "native"),
            ("ch:9000", true, "http://ch:8123", "native"),
            ("ch:9000", false, "https://ch:8443", "clickhouse_disable_tls is not true"),
            ("ch:9440", true, "http://ch:8123", "clickhouse_disable_tls is true"),
            ("ch:8443", false, "https://ch:8443", "HTTP interface"),
            ("[fd00::1]:19000", true, "http://[fd00::1]:19000", "is kept"),
        ] {
            let (url, why) = url(endpoint, is_plain).unwrap();
            assert_eq!(url, expected, "{endpoint} {is_plain}");
            assert!(why.contains(says), "{why}");
        }
        for endpoint in
            ["", "ch", "ch:0", "ch:70000", ":9000", "a b:9000", "http://ch:9000", "a@b:1"]
        {
            assert!(url(endpoint, true).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn switched_off_it_keeps_weir_s_own_flows_and_writes_no_table() {
        let translated = of("clickhouse_enabled: false\nclickhouse_endpoint: ch:9000\n");
        assert_eq!(value(&translated, "store"), Some("sqlite"));
        assert_eq!(value(&translated, "kubenetmon_table"), Some("none"));
        assert_eq!(value(&translated, "clickhouse_url"), None);
    }

    #[test]
    fn the_database_is_kubenetmon_s_only_beside_its_other_settings() {
        for (text, expected) in [
            ("clickhouse_database: flows\nclickhouse_url: http://ch:8123", false),
            ("clickhouse_database: flows\nmetrics_port: 1", false),
            ("clickhouse_database: flows\nclickhouse_endpoint: ch:9000", true),
        ] {
            let written = Written::parse(text.to_owned(), "f".to_owned()).unwrap();
            assert_eq!(is_theirs(&written, DATABASE), expected, "{text}");
        }
        let translated = of("clickhouse_endpoint: ch:9440");
        assert_eq!(value(&translated, "kubenetmon_table"), Some("default.network_flows_0"));
    }

    #[test]
    fn nonsense_is_named_with_its_place() {
        let translated = of("metrics_port: 0\nclickhouse_enabled: maybe\nignore_udp: [a]\n\
                             clickhouse_batch_size: many\nclickhouse_batch_send_timeout: 5\n");
        let said = translated.problems.join("\n");
        for expected in [
            "config.yaml:1:15: metrics_port: needs a port",
            "clickhouse_enabled: neither true nor false",
            "clickhouse_batch_size: not a number",
            "clickhouse_batch_send_timeout",
            "clickhouse_endpoint: is missing",
            "ignore_udp",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    #[test]
    fn a_file_of_weir_s_own_is_left_alone() {
        let translated = of("cloud: aws\nclickhouse_url: http://ch:8123\n");
        assert!(translated.settings.is_empty() && translated.notes.is_empty());
        assert!(translated.problems.is_empty());
    }
}
