//! What `weir server` runs with: flags over environment over file over defaults.

mod kubenetmon;
mod peers;
mod store;
mod translate;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::{Args as _, Command, FromArgMatches as _};
use weir_flow::ranges::{Prefix, Range};
use weir_server::cluster::{Access, ReviewerConfig, Rules};
use weir_server::wire::TlsFiles;
use weir_store::Retention;

use crate::args::{Layered, Listen, Origin, ServerArgs, UsageError};
use crate::config::{self, Written};
use crate::data_dir;
use crate::render::Shown;

pub(crate) use self::kubenetmon::KubenetmonDoor;
pub(crate) use self::store::{StoreChoice, StoreConfig};

/// A configuration with every setting, explained.
pub(crate) const EXAMPLE: &str = include_str!("example.yaml");

/// Every setting there is, in the order in which they are explained.
const KEYS: [&str; 49] = [
    "data_dir",
    "retention",
    "store",
    "clickhouse_url",
    "clickhouse_database",
    "clickhouse_user",
    "clickhouse_password_file",
    "clickhouse_ca",
    "clickhouse_insecure_skip_verify",
    "clickhouse_cluster",
    "clickhouse_replicated",
    "clickhouse_no_migrate",
    "kubenetmon_table",
    "environment",
    "kubenetmon_ignore_udp",
    "kubenetmon_flag",
    "kubenetmon_listen",
    "kubenetmon_batch_rows",
    "kubenetmon_batch_time",
    "kubenetmon_connection_age",
    "kubenetmon_credentials",
    "replicas",
    "peers",
    "peer_ca",
    "peer_name",
    "peer_token_file",
    "server_account",
    "listen",
    "insecure_listen",
    "allow_host",
    "ingest",
    "metrics",
    "tls_cert",
    "tls_key",
    "client_ca",
    "insecure_plaintext",
    "kubeconfig",
    "no_kubernetes",
    "audience",
    "agent_account",
    "agent_selector",
    "networks",
    "cloud",
    "region",
    "cluster",
    "ranges_dir",
    "no_range_refresh",
    "pod_labels",
    "namespace_labels",
];

/// Those that are paths.
const PATHS: [&str; 11] = [
    "data_dir",
    "clickhouse_password_file",
    "clickhouse_ca",
    "kubenetmon_credentials",
    "peer_ca",
    "peer_token_file",
    "tls_cert",
    "tls_key",
    "client_ca",
    "kubeconfig",
    "ranges_dir",
];

/// Where agents deliver where nobody says.
const INGEST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8884);

/// The one setting that has no flag: the operator's own ranges.
const OWN_RANGES: &str = "cidrs";

/// What `weir server` runs with.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// How long flows are kept.
    pub(crate) retention: Retention,
    /// Where flows are kept.
    pub(crate) store: StoreChoice,
    /// What kubenetmon's agents report is taken, too.
    pub(crate) kubenetmon: Option<KubenetmonDoor>,
    /// Other servers, and how they are asked.
    pub(crate) peers: Option<weir_server::peers::Options>,
    /// Where the API answers.
    pub(crate) listen: Listen,
    /// Further names by which it may be asked.
    pub(crate) allow_host: Vec<String>,
    /// Where agents deliver.
    pub(crate) ingest: SocketAddr,
    /// Where health and metrics are.
    pub(crate) metrics: Listen,
    /// How agents are met; `None`: in plain sight, and nobody is asked.
    pub(crate) tls: Option<TlsFiles>,
    /// How the Kubernetes API is reached; `None`: there is none.
    pub(crate) kubernetes: Option<Access>,
    /// Which tokens are let in.
    pub(crate) reviewer: ReviewerConfig,
    /// What of the API's objects counts.
    pub(crate) rules: Rules,
    /// Networks inside the cluster.
    pub(crate) networks: Vec<Prefix>,
    /// Where the cluster runs.
    pub(crate) region: weir_flow::cluster::Region,
    /// The cluster's name.
    pub(crate) cluster: Option<String>,
    /// Where the operator puts published ranges.
    pub(crate) ranges_dir: Option<PathBuf>,
    /// Newer ranges are looked for.
    pub(crate) range_refresh: bool,
    /// The operator's own ranges.
    pub(crate) own_ranges: Vec<(Prefix, Range)>,
}

/// A configuration, and how each setting came to be.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// What the server runs with.
    pub(crate) config: Config,
    args: ServerArgs,
    origins: Vec<(&'static str, Origin)>,
    /// What became of settings in another program's words.
    pub(crate) notes: Vec<String>,
}

impl Config {
    /// What somebody should know before it runs.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.tls.is_none() {
            warnings.push(format!(
                "WARNING: --insecure-plaintext: {} takes batches without TLS from whoever can \
                 reach it, for whatever node they name. Anybody there can read and forge all of \
                 this cluster's figures. Never use it beyond a trial",
                self.ingest
            ));
        }
        if let Listen::At(address) = self.listen
            && !self.listen.is_private()
        {
            warnings.push(format!(
                "WARNING: the API on {address} answers everybody who can reach it, without asking \
                 who they are: what this cluster talks to, and when. Listen on 127.0.0.1:{} unless \
                 a firewall or a proxy stands in front",
                address.port()
            ));
        }
        warnings.extend(self.store.warnings());
        warnings.extend(self.kubenetmon.iter().flat_map(KubenetmonDoor::warnings));
        warnings
    }
}

/// Settings, each from the layer that decides it.
struct Layers {
    args: ServerArgs,
    origins: Vec<(&'static str, Origin)>,
    own_ranges: Vec<(Prefix, Range)>,
    notes: Vec<String>,
    problems: Vec<String>,
}

/// Puts the layers together; says everything that is wrong at once.
pub(crate) fn resolve(typed: Layered<ServerArgs>) -> anyhow::Result<Resolved> {
    let Layers { args, origins, own_ranges, notes, mut problems } = layer(typed)?;
    let config = complete(args.clone(), own_ranges, &mut problems)?;
    if config.tls.is_none() && !notes.is_empty() && args.insecure_plaintext != Some(true) {
        problems.push(translate::ABOUT_TLS.to_owned());
    }
    refuse(&problems)?;
    Ok(Resolved { config, args, origins, notes })
}

/// The same of the store alone.
pub(crate) fn resolve_store(typed: Layered<ServerArgs>) -> anyhow::Result<StoreConfig> {
    let Layers { args, mut problems, .. } = layer(typed)?;
    let retention = args.retention.unwrap_or_default();
    let mut choice = store::choose(args.store, retention, args.replicas, &mut problems);
    let place = kubenetmon::Whereabouts {
        cloud: args.cloud.as_deref(),
        region: args.region.as_deref(),
        cluster: args.cluster.as_deref(),
    };
    let ingest = args.ingest.unwrap_or(INGEST);
    kubenetmon::choose(args.kubenetmon, place, ingest, &mut choice, &mut problems);
    refuse(&problems)?;
    Ok(StoreConfig { choice })
}

fn refuse(problems: &[String]) -> Result<(), UsageError> {
    if problems.is_empty() {
        return Ok(());
    }
    let problems = problems.join("\n  ");
    Err(UsageError(format!("the configuration is wrong\n  {problems}")))
}

fn layer(typed: Layered<ServerArgs>) -> anyhow::Result<Layers> {
    let mut origins: Vec<(&'static str, Origin)> =
        KEYS.into_iter().map(|key| (key, typed.origin(key))).collect();
    let mut args = typed.args;
    let mut problems = Vec::new();
    let (mut own_ranges, mut notes) = (Vec::new(), Vec::new());
    if let Some(path) = args.config.clone() {
        let written = Written::read(&path)?;
        for setting in written.settings() {
            let place = setting.place();
            let result = match setting.key() {
                OWN_RANGES => written.own_ranges().map(|own| own_ranges = own),
                key if translate::is_theirs(&written, key) => Ok(()),
                key => take(&mut args, &mut origins, key, &setting),
            };
            if let Err(error) = result {
                problems.push(format!("{place}: {}", Shown(&format!("{error:#}"))));
            }
        }
        let credentials = args.kubenetmon.kubenetmon_credentials.clone();
        let credentials = credentials.unwrap_or_else(|| translate::CREDENTIALS.into());
        let translated = translate::translate(&written, &credentials, args.cluster.as_deref());
        problems.extend(translated.problems);
        notes = translated.notes;
        for (key, value, line) in translated.settings {
            let decided = origins.iter().find(|(known, _)| *known == key);
            if let Some((_, origin)) = decided.filter(|(_, origin)| *origin != Origin::Default) {
                notes.push(format!("{key}: {value} is not used: {key} is said already ({origin})"));
            }
            if let Err(error) = put(&mut args, &mut origins, key, &value, line) {
                problems.push(format!("line {line}: {}", Shown(&format!("{error:#}"))));
            }
        }
    }
    Ok(Layers { args, origins, own_ranges, notes, problems })
}

/// Takes one setting of a file, where it was not typed.
fn take(
    args: &mut ServerArgs,
    origins: &mut [(&'static str, Origin)],
    key: &str,
    setting: &config::Setting<'_>,
) -> anyhow::Result<()> {
    let Some((_, origin)) = origins.iter_mut().find(|(known, _)| *known == key) else {
        let keys = KEYS.into_iter().chain([OWN_RANGES]).chain(translate::KEYS);
        anyhow::bail!("{}", config::unknown(key, keys));
    };
    if setting.is_empty() {
        // The same as without it, and nothing that can be typed.
        if *origin == Origin::Default {
            *origin = Origin::File(setting.line());
        }
        return Ok(());
    }
    let value = setting.as_typed().with_context(|| key.to_owned())?;
    put(args, origins, key, &value, setting.line())
}

/// Takes a setting of this value, where it was not typed.
fn put(
    args: &mut ServerArgs,
    origins: &mut [(&'static str, Origin)],
    key: &str,
    value: &str,
    line: u64,
) -> anyhow::Result<()> {
    let origin = origins.iter_mut().find(|(known, _)| *known == key).map(|(_, origin)| origin);
    let origin = origin.expect("whoever calls looked it up among the keys");
    // Where weir is started from should not decide what a file means.
    let is_path = PATHS.contains(&key);
    ensure!(!is_path || value.starts_with('/'), "{key}: a path in a file begins with /");
    let flag = format!("--{}={value}", key.replace('_', "-"));
    // Checked even where something typed wins: a file is right or wrong by itself.
    let command = ServerArgs::augment_args(Command::new("server").no_binary_name(true));
    // The environment has its say elsewhere.
    let command = command.mut_args(|arg| arg.env(None::<&'static str>));
    let matches = command.try_get_matches_from([OsString::from(flag)]);
    let matches = matches.map_err(|error| anyhow::anyhow!("{key}: {}", reason(&error)))?;
    if *origin == Origin::Default {
        args.update_from_arg_matches(&matches)?;
        *origin = Origin::File(line);
    }
    Ok(())
}

/// What clap says of a value, without the flag that nobody typed.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.split_once("': ").map_or(line, |(_, reason)| reason).to_owned()
}

#[expect(clippy::too_many_lines, reason = "every setting is named once")]
fn complete(
    args: ServerArgs,
    own_ranges: Vec<(Prefix, Range)>,
    problems: &mut Vec<String>,
) -> anyhow::Result<Config> {
    // Every setting is named here, so that none is forgotten.
    let ServerArgs {
        config: _,
        data_dir,
        retention,
        store,
        kubenetmon,
        replicas,
        others,
        listen,
        insecure_listen,
        allow_host,
        ingest,
        metrics,
        tls_cert,
        tls_key,
        client_ca,
        insecure_plaintext,
        kubeconfig,
        no_kubernetes,
        audience,
        agent_account,
        agent_selector,
        networks,
        cloud,
        region,
        cluster,
        ranges_dir,
        no_range_refresh,
        pod_labels,
        namespace_labels,
    } = args;
    let local = |port| Listen::At(SocketAddr::from(([127, 0, 0, 1], port)));
    let listen = listen.unwrap_or_else(|| local(8885));
    if !listen.is_private() && !insecure_listen.unwrap_or(false) {
        problems.push(
            "listen: others than this machine could reach the API, which asks nobody who they \
             are; if that is meant, say so with --insecure-listen (insecure_listen: true)"
                .to_owned(),
        );
    }
    let retention = retention.unwrap_or_default();
    let mut store = store::choose(store, retention, replicas, problems);
    let place = kubenetmon::Whereabouts {
        cloud: cloud.as_deref(),
        region: region.as_deref(),
        cluster: cluster.as_deref(),
    };
    let ingest = ingest.unwrap_or(INGEST);
    let kubenetmon = kubenetmon::choose(kubenetmon, place, ingest, &mut store, problems);
    let kubernetes = kubernetes(kubeconfig, no_kubernetes.unwrap_or(false), problems);
    let plain = insecure_plaintext.unwrap_or(false);
    let tls = tls(tls_cert, tls_key, client_ca, plain, kubernetes.is_some(), problems);
    let accounts: Option<Vec<(Box<str>, Box<str>)>> = agent_account.map(|accounts| {
        accounts.into_iter().map(|(namespace, name)| (namespace.into(), name.into())).collect()
    });
    let reviewer = ReviewerConfig::default();
    let accounts = accounts.unwrap_or_else(|| reviewer.accounts.clone());
    let audience = audience.unwrap_or_else(|| reviewer.audience.clone());
    let mut reviewer = ReviewerConfig { audience, accounts: accounts.clone(), ..reviewer };
    let peers = peers::choose(others, &store, tls.as_ref(), plain, &mut reviewer, problems);
    let rules = Rules::default();
    let boxed = |texts: Option<Vec<String>>| -> Vec<Box<str>> {
        texts.unwrap_or_default().into_iter().map(Into::into).collect()
    };
    let pod_labels = kubenetmon::labels(boxed(pod_labels), &store);
    Ok(Config {
        data_dir: data_dir::choose(data_dir)?,
        retention,
        store,
        kubenetmon,
        peers,
        listen,
        allow_host: allow_host.unwrap_or_default(),
        ingest,
        metrics: metrics.unwrap_or_else(|| local(8883)),
        tls,
        kubernetes,
        reviewer,
        rules: Rules {
            pod_labels,
            namespace_labels: boxed(namespace_labels),
            agent_selector: agent_selector
                .map_or(rules.agent_selector, |(key, value)| (key.into(), value.into())),
            agent_accounts: accounts,
        },
        networks: networks.unwrap_or_default(),
        region: weir_flow::cluster::Region {
            cloud: cloud.map(Into::into),
            region: region.map(Into::into),
        },
        cluster,
        ranges_dir,
        range_refresh: !no_range_refresh.unwrap_or(false),
        own_ranges,
    })
}

fn kubernetes(
    kubeconfig: Option<PathBuf>,
    without: bool,
    problems: &mut Vec<String>,
) -> Option<Access> {
    match (kubeconfig, without) {
        (Some(_), true) => {
            problems.push("kubeconfig: contradicts no_kubernetes; leave one away".to_owned());
            None
        }
        (Some(path), false) => Some(Access::Kubeconfig(path)),
        (None, true) => None,
        (None, false) => Some(Access::InCluster),
    }
}

fn tls(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_authorities: Option<PathBuf>,
    plain: bool,
    tokens: bool,
    problems: &mut Vec<String>,
) -> Option<TlsFiles> {
    let problem = match (certificate, key) {
        (None, None) if plain && client_authorities.is_none() => return None,
        _ if plain => "insecure_plaintext: contradicts tls_cert, tls_key and client_ca",
        (Some(certificate), Some(key)) if tokens || client_authorities.is_some() => {
            return Some(TlsFiles { certificate, key, client_authorities, tokens });
        }
        (Some(_), Some(_)) => {
            "client_ca: without Kubernetes, agents can only be known by their certificates: name \
             who signs them"
        }
        _ => {
            "tls_cert, tls_key: agents are met with TLS: name a certificate and its key (for a \
             trial on one machine: --no-kubernetes --insecure-plaintext)"
        }
    };
    problems.push(problem.to_owned());
    None
}

/// Every setting that was said, and where; the others with their defaults.
pub(crate) fn print(resolved: &Resolved) -> String {
    let mut text = String::new();
    for note in &resolved.notes {
        writeln!(text, "# kubenetmon's {}", Shown(note)).expect("a string has room");
    }
    for ((key, origin), value) in resolved.origins.iter().zip(values(resolved)) {
        let line = format!("{key}: {value}");
        writeln!(text, "{line:<48} # {origin}").expect("a string has room");
    }
    text
}

/// The settings as a file would have them, in the order of [`KEYS`].
#[expect(clippy::too_many_lines, reason = "a list")]
fn values(resolved: &Resolved) -> impl IntoIterator<Item = String> {
    let Resolved { config, args, .. } = resolved;
    let paths = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let texts = |items: &Vec<Box<str>>| list(items.iter().map(|it| config::scalar(it)).collect());
    let on = |value: Option<bool>| value.unwrap_or(false).to_string();
    let scalar =
        |value: Option<String>| value.map_or_else(|| "null".to_owned(), |it| config::scalar(&it));
    let accounts = config.reviewer.accounts.iter();
    let (key, value) = &config.rules.agent_selector;
    let [kind, url, database, user, password, ca, skip_verify, cluster, replicated, no_migrate] =
        store::values(&config.store, &args.store);
    let [
        table,
        environment,
        ignore_udp,
        flags,
        door,
        batch_rows,
        batch_time,
        connection_age,
        credentials,
    ] = kubenetmon::values(&args.kubenetmon);
    let [places, peer_ca, peer_name, peer_token, servers] =
        peers::values(&args.others, &config.reviewer);
    [
        scalar(Some(config.data_dir.display().to_string())),
        config::levels(&config.retention),
        kind,
        url,
        database,
        user,
        password,
        ca,
        skip_verify,
        cluster,
        replicated,
        no_migrate,
        table,
        environment,
        ignore_udp,
        flags,
        door,
        batch_rows,
        batch_time,
        connection_age,
        credentials,
        args.replicas.unwrap_or(1).to_string(),
        places,
        peer_ca,
        peer_name,
        peer_token,
        servers,
        config::place(config.listen),
        on(args.insecure_listen),
        list(config.allow_host.iter().map(|it| config::scalar(it)).collect()),
        config::place(Listen::At(config.ingest)),
        config::place(config.metrics),
        scalar(paths(&args.tls_cert)),
        scalar(paths(&args.tls_key)),
        scalar(paths(&args.client_ca)),
        on(args.insecure_plaintext),
        scalar(paths(&args.kubeconfig)),
        on(args.no_kubernetes),
        scalar(Some(config.reviewer.audience.clone())),
        list(accounts.map(|(space, name)| config::scalar(&format!("{space}:{name}"))).collect()),
        scalar(Some(format!("{key}={value}"))),
        list(config.networks.iter().map(|it| config::scalar(&it.to_string())).collect()),
        scalar(config.region.cloud.as_ref().map(ToString::to_string)),
        scalar(config.region.region.as_ref().map(ToString::to_string)),
        scalar(config.cluster.clone()),
        scalar(paths(&config.ranges_dir)),
        on(args.no_range_refresh),
        texts(&config.rules.pod_labels),
        texts(&config.rules.namespace_labels),
    ]
}
