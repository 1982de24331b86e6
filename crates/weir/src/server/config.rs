//! What `weir server` runs with: flags over environment over file over defaults.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
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

/// A configuration with every setting, explained.
pub(crate) const EXAMPLE: &str = include_str!("example.yaml");

/// Every setting there is, in the order in which they are explained.
const KEYS: [&str; 24] = [
    "data_dir",
    "retention",
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
const PATHS: [&str; 6] =
    ["data_dir", "tls_cert", "tls_key", "client_ca", "kubeconfig", "ranges_dir"];

/// The one setting that has no flag: the operator's own ranges.
const OWN_RANGES: &str = "cidrs";

/// What `weir server` runs with.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// How long flows are kept.
    pub(crate) retention: Retention,
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
    pub(crate) config: Config,
    args: ServerArgs,
    origins: Vec<(&'static str, Origin)>,
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
        warnings
    }
}

/// Puts the layers together; says everything that is wrong at once.
pub(crate) fn resolve(typed: Layered<ServerArgs>) -> anyhow::Result<Resolved> {
    let mut origins: Vec<(&'static str, Origin)> =
        KEYS.into_iter().map(|key| (key, typed.origin(key))).collect();
    let mut args = typed.args;
    let mut problems = Vec::new();
    let mut own_ranges = Vec::new();
    if let Some(path) = args.config.clone() {
        let written = Written::read(&path)?;
        for setting in written.settings() {
            let place = setting.place();
            let result = match setting.key() {
                OWN_RANGES => written.own_ranges().map(|own| own_ranges = own),
                key => take(&mut args, &mut origins, key, &setting),
            };
            if let Err(error) = result {
                problems.push(format!("{place}: {}", Shown(&format!("{error:#}"))));
            }
        }
    }
    let config = complete(args.clone(), own_ranges, &mut problems)?;
    if !problems.is_empty() {
        let problems = problems.join("\n  ");
        return Err(UsageError(format!("the configuration is wrong\n  {problems}")).into());
    }
    Ok(Resolved { config, args, origins })
}

/// Takes one setting of a file, where it was not typed.
fn take(
    args: &mut ServerArgs,
    origins: &mut [(&'static str, Origin)],
    key: &str,
    setting: &config::Setting<'_>,
) -> anyhow::Result<()> {
    let Some((_, origin)) = origins.iter_mut().find(|(known, _)| *known == key) else {
        let keys = KEYS.into_iter().chain([OWN_RANGES]);
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
        *origin = Origin::File(setting.line());
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
    let kubernetes = kubernetes(kubeconfig, no_kubernetes.unwrap_or(false), problems);
    let plain = insecure_plaintext.unwrap_or(false);
    let tls = tls(tls_cert, tls_key, client_ca, plain, kubernetes.is_some(), problems);
    let accounts: Option<Vec<(Box<str>, Box<str>)>> = agent_account.map(|accounts| {
        accounts.into_iter().map(|(namespace, name)| (namespace.into(), name.into())).collect()
    });
    let reviewer = ReviewerConfig::default();
    let accounts = accounts.unwrap_or_else(|| reviewer.accounts.clone());
    let audience = audience.unwrap_or_else(|| reviewer.audience.clone());
    let rules = Rules::default();
    let boxed = |texts: Option<Vec<String>>| -> Vec<Box<str>> {
        texts.unwrap_or_default().into_iter().map(Into::into).collect()
    };
    Ok(Config {
        data_dir: data_dir::choose(data_dir)?,
        retention: retention.unwrap_or_default(),
        listen,
        allow_host: allow_host.unwrap_or_default(),
        ingest: ingest.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8884))),
        metrics: metrics.unwrap_or_else(|| local(8883)),
        tls,
        kubernetes,
        reviewer: ReviewerConfig { audience, accounts: accounts.clone(), ..reviewer },
        rules: Rules {
            pod_labels: boxed(pod_labels),
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
    let Resolved { config, args, origins } = resolved;
    let mut text = String::new();
    let paths = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let texts = |items: &Vec<Box<str>>| list(items.iter().map(|it| config::scalar(it)).collect());
    let on = |value: Option<bool>| value.unwrap_or(false).to_string();
    let scalar =
        |value: Option<String>| value.map_or_else(|| "null".to_owned(), |it| config::scalar(&it));
    let accounts = config.reviewer.accounts.iter();
    let (key, value) = &config.rules.agent_selector;
    let values = [
        scalar(Some(config.data_dir.display().to_string())),
        config::levels(&config.retention),
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
    ];
    for ((key, origin), value) in origins.iter().zip(values) {
        let line = format!("{key}: {value}");
        writeln!(text, "{line:<48} # {origin}").expect("a string has room");
    }
    text
}
