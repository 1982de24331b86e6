//! What can be typed after `weir server`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use weir_flow::ranges::Prefix;
use weir_server::moment::Moment;
use weir_store::Retention;

use super::kubenetmon::KubenetmonArgs;
use super::layered::Layered;
use super::peers::PeersArgs;
use super::store::StoreArgs;
use super::value::{Listen, host, listen, retention, switch};

pub(super) const EXAMPLES: &str = "\
Examples:
  In a pod, with a certificate from a secret; agents show their service account's token:
    weir server --data-dir /var/lib/weir --ingest 0.0.0.0:8884 --tls-cert /tls/tls.crt --tls-key /tls/tls.key
  Without Kubernetes: agents show client certificates named NODE.agents.weir:
    weir server --no-kubernetes --client-ca agents-ca.pem --tls-cert tls.crt --tls-key tls.key
  Keep flows in ClickHouse, where one machine is not enough:
    weir server --config weir-server.yaml --clickhouse-url https://clickhouse:8443
  See what would run, and where each value comes from:
    weir config check-server --config weir-server.yaml

Agents deliver to port 8884; people and programs ask at 8885; health and metrics are at 8883. All
three listen on this machine alone unless told otherwise.";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  As a user who may make tables, before servers who may not:
    weir server migrate --config weir-server.yaml --clickhouse-user admin --clickhouse-password-file admin.pw";

const REBUILD_EXAMPLES: &str = "\
Examples:
  The hours that servers have noted to be in doubt:
    weir server rebuild --config weir-server.yaml
  Yesterday evening's hours:
    weir server rebuild --config weir-server.yaml --since 2026-01-30T18:00:00Z --until 2026-01-31T00:00:00Z";

/// `weir server`, or something about its store.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ServerCommand {
    #[command(subcommand)]
    pub(crate) action: Option<ServerAction>,
    #[command(flatten)]
    pub(crate) run: Layered<ServerArgs>,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ServerAction {
    /// Make ClickHouse's tables or bring them up to date, and end.
    #[command(after_help = MIGRATE_EXAMPLES)]
    Migrate(Box<Layered<StoreOnlyArgs>>),
    /// Sum ClickHouse's closed hours anew from the finest windows, where sums differ from them.
    #[command(after_help = REBUILD_EXAMPLES)]
    Rebuild(Box<RebuildArgs>),
    /// Print the rights that a server's user needs in ClickHouse.
    Grants(Box<Layered<StoreOnlyArgs>>),
}

/// The settings of `weir server` that concern its store alone.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct StoreOnlyArgs {
    /// The server's configuration; only what concerns the store is used.
    #[arg(long, env = "WEIR_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// How long to keep the flows of each window length: 10 s, 1 min, 1 h. Default:
    /// 10s=1d,1m=14d,1h=400d.
    #[arg(long, env = "WEIR_RETENTION", hide_env_values = true, value_name = "10s=…,1m=…,1h=…",
          value_parser = retention)]
    pub(crate) retention: Option<Retention>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RebuildArgs {
    #[command(flatten)]
    pub(crate) store: Layered<StoreOnlyArgs>,
    /// The first hour: a time, or how long ago: 2026-01-31T08:00:00Z, 6h. Default: the hours that
    /// servers have noted to be in doubt.
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    pub(crate) since: Option<Moment>,
    /// The end of the last hour.
    #[arg(long, value_name = "TIME", default_value = "now", value_parser = Moment::parse)]
    pub(crate) until: Moment,
}

/// The settings of `weir server`. Each has the same name in the configuration file, with `_` for
/// `-`. None has its default here, so that a file's value can be told from one that was typed.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ServerArgs {
    /// Settings from a file; flags and variables win over it. See `weir config example-server`.
    #[arg(long, env = "WEIR_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[arg(long, env = "WEIR_DATA_DIR", hide_env_values = true, value_name = "DIR",
          help = super::DATA_DIR_HELP)]
    pub(crate) data_dir: Option<PathBuf>,
    /// How long to keep the flows of each window length: 10 s, 1 min, 1 h. Default:
    /// 10s=1d,1m=14d,1h=400d.
    #[arg(long, env = "WEIR_RETENTION", hide_env_values = true, value_name = "10s=…,1m=…,1h=…",
          value_parser = retention)]
    pub(crate) retention: Option<Retention>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) kubenetmon: KubenetmonArgs,
    /// How many servers take batches for this cluster; more than one need ClickHouse. Default: 1.
    #[arg(long, env = "WEIR_REPLICAS", hide_env_values = true, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) replicas: Option<u32>,
    #[command(flatten)]
    pub(crate) others: PeersArgs,
    /// Where the HTTP API answers; none switches it off. Default: 127.0.0.1:8885.
    #[arg(long, env = "WEIR_LISTEN", hide_env_values = true, value_name = "ADDRESS:PORT",
          value_parser = listen)]
    pub(crate) listen: Option<Listen>,
    /// Let others than this machine reach the API. It asks nobody who they are: whoever reaches it
    /// can read everything.
    #[arg(long, env = "WEIR_INSECURE_LISTEN", hide_env_values = true, value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = switch)]
    pub(crate) insecure_listen: Option<bool>,
    /// A further name by which the API may be asked, besides localhost and where it listens.
    #[arg(long, env = "WEIR_ALLOW_HOST", hide_env_values = true, value_name = "HOST",
          value_delimiter = ',', value_parser = host)]
    pub(crate) allow_host: Option<Vec<String>>,
    /// Where agents deliver. Default: 127.0.0.1:8884.
    #[arg(long, env = "WEIR_INGEST", hide_env_values = true, value_name = "ADDRESS:PORT",
          value_parser = address)]
    pub(crate) ingest: Option<SocketAddr>,
    /// Where /metrics, /live and /ready answer; none switches them off. Default: 127.0.0.1:8883.
    #[arg(long, env = "WEIR_METRICS", hide_env_values = true, value_name = "ADDRESS:PORT",
          value_parser = listen)]
    pub(crate) metrics: Option<Listen>,
    /// The certificate shown to agents, with those above it, PEM. Read again when it changes.
    #[arg(long, env = "WEIR_TLS_CERT", hide_env_values = true, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, env = "WEIR_TLS_KEY", hide_env_values = true, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Who signs agents' certificates, PEM. An agent's certificate is for the DNS name
    /// `NODE.agents.weir`.
    #[arg(long, env = "WEIR_CLIENT_CA", hide_env_values = true, value_name = "FILE")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Take batches without TLS from whoever brings them, for whatever node they name. For trying
    /// things out.
    #[arg(long, env = "WEIR_INSECURE_PLAINTEXT", hide_env_values = true, value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = switch)]
    pub(crate) insecure_plaintext: Option<bool>,
    /// How the Kubernetes API is reached. Default: as pods do.
    #[arg(long, env = "WEIR_KUBECONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// There is no Kubernetes: addresses are named by what agents announce alone.
    #[arg(long, env = "WEIR_NO_KUBERNETES", hide_env_values = true, value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = switch)]
    pub(crate) no_kubernetes: Option<bool>,
    /// For whom agents' tokens must have been made. Default: weir.
    #[arg(long, env = "WEIR_AUDIENCE", hide_env_values = true, value_name = "NAME")]
    pub(crate) audience: Option<String>,
    /// A service account that agents run as. Default: weir:weir-agent.
    #[arg(long, env = "WEIR_AGENT_ACCOUNT", hide_env_values = true,
          value_name = "NAMESPACE:NAME", value_delimiter = ',', value_parser = account)]
    pub(crate) agent_account: Option<Vec<(String, String)>>,
    /// The label of agents' pods. Default: app.kubernetes.io/name=weir-agent.
    #[arg(long, env = "WEIR_AGENT_SELECTOR", hide_env_values = true, value_name = "KEY=VALUE",
          value_parser = selector)]
    pub(crate) agent_selector: Option<(String, String)>,
    /// Networks whose addresses are inside the cluster: those of nodes, pods and services.
    #[arg(
        long,
        env = "WEIR_NETWORKS",
        hide_env_values = true,
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(crate) networks: Option<Vec<Prefix>>,
    /// The cloud the cluster runs in: aws, gcp or azure.
    #[arg(long, env = "WEIR_CLOUD", hide_env_values = true, value_name = "CLOUD")]
    pub(crate) cloud: Option<String>,
    /// The region of nodes that do not say theirs.
    #[arg(long, env = "WEIR_REGION", hide_env_values = true, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// The cluster's name, for people.
    #[arg(long, env = "WEIR_CLUSTER", hide_env_values = true, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// Where the operator puts cloud ranges as providers publish them.
    #[arg(long, env = "WEIR_RANGES_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) ranges_dir: Option<PathBuf>,
    /// Do not look for newer cloud ranges on the internet.
    #[arg(long, env = "WEIR_NO_RANGE_REFRESH", hide_env_values = true, value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = switch)]
    pub(crate) no_range_refresh: Option<bool>,
    /// Labels of pods that are kept with their flows.
    #[arg(
        long,
        env = "WEIR_POD_LABELS",
        hide_env_values = true,
        value_name = "KEY",
        value_delimiter = ','
    )]
    pub(crate) pod_labels: Option<Vec<String>>,
    /// Labels of namespaces that are kept with their pods' flows.
    #[arg(
        long,
        env = "WEIR_NAMESPACE_LABELS",
        hide_env_values = true,
        value_name = "KEY",
        value_delimiter = ','
    )]
    pub(crate) namespace_labels: Option<Vec<String>>,
}

impl From<Layered<StoreOnlyArgs>> for Layered<ServerArgs> {
    /// The same as the server's, of which nothing else was said.
    fn from(typed: Layered<StoreOnlyArgs>) -> Self {
        typed.map(|StoreOnlyArgs { config, store, retention }| ServerArgs {
            config,
            retention,
            store,
            ..ServerArgs::default()
        })
    }
}

fn address(text: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(Listen::At(address)) = listen(text) {
        return Ok(address);
    }
    anyhow::bail!("needs an address and a port: 127.0.0.1:8884 or [::]:8884")
}

pub(super) fn account(text: &str) -> anyhow::Result<(String, String)> {
    let hint = "needs a namespace and a name: weir:weir-agent";
    let (namespace, name) = text.split_once(':').with_context(|| hint)?;
    ensure!(!namespace.is_empty() && !name.is_empty() && !name.contains(':'), "{hint}");
    Ok((namespace.to_owned(), name.to_owned()))
}

fn selector(text: &str) -> anyhow::Result<(String, String)> {
    let hint = "needs one label: app.kubernetes.io/name=weir-agent";
    let (key, value) = text.split_once('=').with_context(|| hint)?;
    ensure!(!key.is_empty() && !value.is_empty() && !value.contains(['=', ',']), "{hint}");
    Ok((key.to_owned(), value.to_owned()))
}
