//! What can be typed about other servers.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use weir_server::peers::{PEERS_MAX, Place};

use super::server::account;

/// Several servers over one store. Each has the same name in the configuration file, with `_` for
/// `-`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct PeersArgs {
    /// Where all servers take batches: a name with all their addresses, or each by itself. They are
    /// asked for live connections and for what agents say of themselves.
    #[arg(long, env = "WEIR_PEERS", hide_env_values = true, value_name = "HOST:PORT",
          value_delimiter = ',', value_parser = place)]
    pub(crate) peers: Option<Vec<Place>>,
    /// Who may vouch for other servers, PEM. Default: the authorities the system trusts.
    #[arg(long, env = "WEIR_PEER_CA", hide_env_values = true, value_name = "FILE")]
    pub(crate) peer_ca: Option<PathBuf>,
    /// The name that their certificates bear, where it is not the one in --peers.
    #[arg(long, env = "WEIR_PEER_NAME", hide_env_values = true, value_name = "NAME")]
    pub(crate) peer_name: Option<String>,
    /// The service account's token that is shown to them. Without, this server's own certificate
    /// is: it must be for the DNS name `NAME.servers.weir`, too.
    #[arg(long, env = "WEIR_PEER_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) peer_token_file: Option<PathBuf>,
    /// A service account that servers run as. Default: weir:weir-server.
    #[arg(long, env = "WEIR_SERVER_ACCOUNT", hide_env_values = true,
          value_name = "NAMESPACE:NAME", value_delimiter = ',', value_parser = account)]
    pub(crate) server_account: Option<Vec<(String, String)>>,
}

fn place(text: &str) -> anyhow::Result<Place> {
    let hint = "needs a host and a port: weir-servers.weir:8884, or [fd00::7]:8884";
    let (host, port) = text.rsplit_once(':').context(hint)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    ensure!(bare.is_some() || !host.contains(':'), "{hint}");
    let host = bare.unwrap_or(host);
    let port: u16 = port.parse().ok().context(hint)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    ensure!(port > 0 && !host.is_empty() && host.chars().all(is_name), "{hint}");
    Ok(Place { host: host.to_owned(), port })
}

/// Checks what no single value shows.
pub(crate) fn check(places: &[Place]) -> Result<(), String> {
    if places.len() > PEERS_MAX {
        return Err(format!("peers: at most {PEERS_MAX}; one name may have all addresses"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_host_and_a_port() {
        for (text, expected) in [
            ("weir-servers.weir:8884", Some(("weir-servers.weir", 8884))),
            ("10.0.0.7:8884", Some(("10.0.0.7", 8884))),
            ("[fd00::7]:8884", Some(("fd00::7", 8884))),
            ("fd00::7:8884", None),
            ("weir-servers", None),
            (":8884", None),
            ("weir:0", None),
            ("weir:port", None),
            ("http://weir:8884", None),
            ("we ir:8884", None),
        ] {
            let found = place(text).ok();
            let found = found.as_ref().map(|place| (place.host.as_str(), place.port));
            assert_eq!(found, expected, "{text}");
        }
    }
}
