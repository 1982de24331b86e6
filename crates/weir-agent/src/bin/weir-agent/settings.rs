//! Settings as text, and where each came from: flags over environment over file over defaults.
//!
//! One table names every setting; from it come the flags, the environment variables, the file's keys
//! and the help.

use std::env;
use std::fmt;
use std::path::Path;

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::{file, kubenetmon};

/// One setting. Its flag is its key with `-` for `_`.
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    flag: &'static str,
    env: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    help: &'static str,
}

const SWITCH: &str = "true|false";

/// Every setting there is, in the order in which they are explained.
#[rustfmt::skip]
pub(crate) const SETTINGS: [Setting; 19] = [
    Setting { key: "node", flag: "node", env: "WEIR_NODE", value: "NAME", default: None,
        help: "This node's name, as Kubernetes has it. The server takes it from the credentials; it is said for comparison" },
    Setting { key: "server", flag: "server", env: "WEIR_SERVER", value: "HOST:PORT", default: None,
        help: "Where the server takes batches (its port 8884)" },
    Setting { key: "spool", flag: "spool", env: "WEIR_SPOOL", value: "DIR", default: Some("/var/lib/weir-agent"),
        help: "A directory on the node's own disk for what is not delivered yet. It must outlive the agent" },
    Setting { key: "spool_bytes", flag: "spool-bytes", env: "WEIR_SPOOL_BYTES", value: "SIZE", default: Some("1GiB"),
        help: "The most the spool may hold; beyond it the oldest batches are dropped and declared" },
    Setting { key: "spool_free", flag: "spool-free", env: "WEIR_SPOOL_FREE", value: "PERCENT", default: Some("15%"),
        help: "Share of the disk that the spool leaves free" },
    Setting { key: "token_file", flag: "token-file", env: "WEIR_TOKEN_FILE", value: "FILE", default: None,
        help: "A service account's token for the server's audience; read anew for every connection" },
    Setting { key: "ca_file", flag: "ca-file", env: "WEIR_CA_FILE", value: "FILE", default: None,
        help: "Certificates of the authorities that may vouch for the server; without it, the system's" },
    Setting { key: "cert_file", flag: "cert-file", env: "WEIR_CERT_FILE", value: "FILE", default: None,
        help: "This node's certificate (NODE.agents.weir), instead of a token" },
    Setting { key: "key_file", flag: "key-file", env: "WEIR_KEY_FILE", value: "FILE", default: None,
        help: "Its key" },
    Setting { key: "server_name", flag: "server-name", env: "WEIR_SERVER_NAME", value: "NAME", default: None,
        help: "The name the server's certificate bears, where that is not its host" },
    Setting { key: "interval", flag: "interval", env: "WEIR_INTERVAL", value: "DURATION", default: Some("5s"),
        help: "Time between two readings of the kernel" },
    Setting { key: "cpu_budget", flag: "cpu-budget", env: "WEIR_CPU_BUDGET", value: "PERCENT", default: Some("5%"),
        help: "CPU time for reading, of one core; it reads less often to keep it" },
    Setting { key: "metrics", flag: "metrics", env: "WEIR_METRICS", value: "ADDRESS:PORT", default: Some("127.0.0.1:8883"),
        help: "Where /metrics, /live and /ready answer; none switches them off" },
    Setting { key: "accounting_wait", flag: "accounting-wait", env: "WEIR_ACCOUNTING_WAIT", value: "DURATION", default: Some("5m"),
        help: "After a boot, how long entries without counters are no cause for complaint" },
    Setting { key: "skip_accounting_check", flag: "skip-accounting-check", env: "WEIR_SKIP_ACCOUNTING_CHECK", value: SWITCH, default: Some("false"),
        help: "Do not look whether the kernel counts" },
    Setting { key: "set_sysctls", flag: "set-sysctls", env: "WEIR_SET_SYSCTLS", value: SWITCH, default: Some("false"),
        help: "Make the kernel count: set nf_conntrack_acct, _timestamp and _events. Never done unasked" },
    Setting { key: "activate_conntrack", flag: "activate-conntrack", env: "WEIR_ACTIVATE_CONNTRACK", value: SWITCH, default: Some("false"),
        help: "Make the kernel track, with a firewall table of weir's own that is removed at the end" },
    Setting { key: "drain", flag: "drain", env: "WEIR_DRAIN", value: "DURATION", default: Some("10s"),
        help: "How long batches are still delivered after SIGTERM; what is left waits in the spool" },
    Setting { key: "insecure_plaintext", flag: "insecure-plaintext", env: "WEIR_INSECURE_PLAINTEXT", value: SWITCH, default: Some("false"),
        help: "Speak without TLS and without saying who speaks. Whoever is on the way can read and forge everything" },
];

const EXAMPLES: &str = "\
Examples:
  A node of a cluster, with a projected token:
    weir-agent --node worker-1 --server weir-server.weir:8884 --spool /var/lib/weir-agent \\
      --token-file /var/run/secrets/weir/token --ca-file /etc/weir/ca.crt
  What that comes to, and how much disk an hour without the server needs:
    weir-agent check --config agent.yaml

Needs CAP_NET_ADMIN in the node's network namespace. The kernel counts bytes only while
net.netfilter.nf_conntrack_acct=1. Every setting has an environment variable and, with _ for -, the
same name in the file. kubenetmon's variables (NODE_NAME, COLLECTION_INTERVAL,
KUBENETMON_SERVER_SERVICE_HOST and _PORT, METRICS_PORT, UPTIME_WAIT_DURATION,
SKIP_CONNTRACK_SANITY_CHECK) are understood, too. WEIR_LOG=debug says more.";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(u64),
    /// The variable it stood in.
    Environment(&'static str),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(line) => write!(f, "file, line {line}"),
            Self::Environment(name) => write!(f, "env {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A setting's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) key: &'static str,
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// Every setting that has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings(pub(crate) Vec<Said>);

impl Settings {
    pub(crate) fn get(&self, key: &str) -> Option<&Said> {
        self.0.iter().find(|said| said.key == key)
    }
}

/// What was asked for.
pub(crate) struct Asked {
    pub(crate) check: bool,
    pub(crate) settings: Settings,
    /// What became of kubenetmon's variables, a line each.
    pub(crate) notes: Vec<String>,
}

/// Reads flags, environment and file.
pub(crate) fn ask() -> Result<Asked, String> {
    let matches = command().get_matches();
    let (check, matches) = match matches.subcommand() {
        Some((_, matches)) => (true, matches.clone()),
        None => (false, matches),
    };
    let file = match matches.get_one::<String>("config") {
        Some(path) => file::read(Path::new(path))?,
        None => Vec::new(),
    };
    let environment = |name: &str| env::var(name).ok();
    let settings = layer(&matches, &environment, &file);
    let notes = kubenetmon::notes(&settings, &environment);
    Ok(Asked { check, settings, notes })
}

/// The command line.
pub(crate) fn command() -> Command {
    let check = Command::new("check")
        .about("Print the resolved settings, and how much disk an hour without the server needs");
    with_settings(Command::new("weir-agent"))
        .about(
            "Read this node's connection tracking and deliver it to weir's server, each byte once",
        )
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXAMPLES)
        .max_term_width(100)
        .subcommand(with_settings(check))
        .args_conflicts_with_subcommands(true)
}

fn with_settings(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .env("WEIR_CONFIG")
        .hide_env_values(true)
        .value_name("FILE")
        .help("Settings from a YAML file; flags and variables win over it");
    command.arg(config).args(SETTINGS.iter().map(argument))
}

fn argument(setting: &'static Setting) -> Arg {
    let Setting { key, flag, env, value, default, help } = setting;
    let help = match default {
        Some(default) if *value != SWITCH => format!("{help} [default: {default}]"),
        _ => (*help).to_owned(),
    };
    let argument = Arg::new(*key)
        .long(*flag)
        .env(*env)
        .hide_env_values(true)
        .value_name(*value)
        .value_parser(ValueParser::string())
        .action(ArgAction::Set)
        .help(help);
    if *value != SWITCH {
        return argument;
    }
    argument
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .hide_default_value(true)
}

/// Chooses a layer for each setting.
fn layer(
    matches: &ArgMatches,
    environment: &kubenetmon::Environment<'_>,
    file: &[file::Entry],
) -> Settings {
    let choose = |setting: &'static Setting| {
        let key = setting.key;
        let said = |text: String, origin: Origin| Some(Said { key, text, origin });
        let typed = matches.get_one::<String>(key).cloned();
        match (typed, matches.value_source(key)) {
            (Some(text), Some(ValueSource::CommandLine)) => return said(text, Origin::Flag),
            (Some(text), _) if !text.is_empty() => {
                return said(text, Origin::Environment(setting.env));
            }
            _ => {}
        }
        if let Some((name, text)) = kubenetmon::value(key, environment) {
            return said(text, Origin::Environment(name));
        }
        let written = file.iter().find(|entry| entry.key == key);
        if let Some(file::Entry { text, line, .. }) = written {
            return said(text.clone(), Origin::File(*line));
        }
        said(setting.default?.to_owned(), Origin::Default)
    };
    Settings(SETTINGS.iter().filter_map(choose).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn resolve(flags: &[&str], variables: &[(&str, &str)], yaml: &str) -> Settings {
        let arguments = std::iter::once("weir-agent").chain(flags.iter().copied());
        let matches = command().get_matches_from(arguments);
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let file = file::parse(yaml, "agent.yaml").unwrap();
        layer(&matches, &|name| variables.get(name).cloned(), &file)
    }

    fn said(settings: &Settings, key: &str) -> (String, String) {
        let said = settings.get(key).unwrap();
        (said.text.clone(), said.origin.to_string())
    }

    #[test]
    fn the_command_line_is_sound_and_every_key_has_its_flag() {
        command().debug_assert();
        assert_eq!(SETTINGS.map(|setting| setting.key).len(), 19);
        for setting in &SETTINGS {
            assert_eq!(setting.env, format!("WEIR_{}", setting.key.to_uppercase()));
            assert_eq!(setting.flag, setting.key.replace('_', "-"));
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let settings =
            resolve(&["--interval", "2s", "--set-sysctls"], &[], "interval: 9s\nspool: /s");
        assert_eq!(said(&settings, "interval"), ("2s".into(), "flag".into()));
        assert_eq!(said(&settings, "spool"), ("/s".into(), "file, line 2".into()));
        assert_eq!(said(&settings, "set_sysctls"), ("true".into(), "flag".into()));
        assert_eq!(said(&settings, "drain"), ("10s".into(), "default".into()));
        assert_eq!(settings.get("node"), None);
    }

    #[test]
    fn kubenetmons_variables_are_understood_and_said() {
        let settings = resolve(
            &["--interval=3s"],
            &[
                ("NODE_NAME", "n1"),
                ("COLLECTION_INTERVAL", "7s"),
                ("KUBENETMON_SERVER_SERVICE_HOST", "fd00::1"),
                ("KUBENETMON_SERVER_SERVICE_PORT", "9000"),
                ("METRICS_PORT", "1234"),
                ("UPTIME_WAIT_DURATION", "300s"),
                ("SKIP_CONNTRACK_SANITY_CHECK", ""),
                ("GOMAXPROCS", "1"),
            ],
            "metrics: none",
        );
        assert_eq!(said(&settings, "server").0, "[fd00::1]:9000");
        assert_eq!(said(&settings, "interval").0, "3s", "a flag wins");
        assert_eq!(said(&settings, "metrics"), ("0.0.0.0:1234".into(), "env METRICS_PORT".into()));
        assert_eq!(said(&settings, "skip_accounting_check").1, "default", "empty is not set");
    }
}
