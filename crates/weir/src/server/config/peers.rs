//! Other servers, as they were said.

use weir_server::cluster::ReviewerConfig;
use weir_server::peers::{Options, PeerTls};
use weir_server::wire::TlsFiles;

use super::store::StoreChoice;
use crate::args::{PeersArgs, check_peers};
use crate::config;

/// Decides, and says what is missing or contradicts itself. `None`: there is one server.
pub(super) fn choose(
    args: PeersArgs,
    store: &StoreChoice,
    tls: Option<&TlsFiles>,
    plain: bool,
    reviewer: &mut ReviewerConfig,
    problems: &mut Vec<String>,
) -> Option<Options> {
    // Every setting is named here, so that none is forgotten.
    let PeersArgs { peers, peer_ca, peer_name, peer_token_file, server_account } = args;
    if let Some(accounts) = server_account {
        let boxed = accounts.into_iter().map(|(space, name)| (space.into(), name.into()));
        reviewer.servers = boxed.collect();
    }
    let places = peers.filter(|places| !places.is_empty())?;
    problems.extend(check_peers(&places).err());
    if matches!(store, StoreChoice::Sqlite) {
        problems.push(
            "peers: several servers need one store that all of them write to; name a ClickHouse \
             with --clickhouse-url, or run one server without --peers"
                .to_owned(),
        );
    }
    if plain {
        problems.push(
            "peers: contradicts insecure_plaintext; servers ask each other over TLS only"
                .to_owned(),
        );
        return None;
    }
    // What is wrong with the certificates is said elsewhere.
    let tls = tls?;
    if peer_token_file.is_none() && tls.client_authorities.is_none() {
        problems.push(
            "peer_token_file: other servers ask who asks them: name a service account's token, or \
             with client_ca show a certificate for NAME.servers.weir"
                .to_owned(),
        );
    }
    let own = || (tls.certificate.clone(), tls.key.clone());
    let identity = peer_token_file.is_none().then(own);
    let tls = PeerTls { authorities: peer_ca, identity, name: peer_name };
    Some(Options::new(places, tls, peer_token_file))
}

/// Their values, for people.
pub(super) fn values(args: &PeersArgs, reviewer: &ReviewerConfig) -> [String; 5] {
    let PeersArgs { peers, peer_ca, peer_name, peer_token_file, server_account: _ } = args;
    let list = |items: Vec<String>| {
        let items: Vec<String> = items.iter().map(|it| config::scalar(it)).collect();
        format!("[{}]", items.join(", "))
    };
    let scalar =
        |value: Option<String>| value.map_or_else(|| "null".to_owned(), |it| config::scalar(&it));
    let places = peers.iter().flatten().map(ToString::to_string).collect();
    let accounts = reviewer.servers.iter().map(|(space, name)| format!("{space}:{name}"));
    [
        list(places),
        scalar(peer_ca.as_ref().map(|path| path.display().to_string())),
        scalar(peer_name.clone()),
        scalar(peer_token_file.as_ref().map(|path| path.display().to_string())),
        list(accounts.collect()),
    ]
}

#[cfg(test)]
mod tests {
    use weir_server::peers::Place;

    use super::*;

    fn problems(args: PeersArgs, tls: Option<&TlsFiles>, plain: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut reviewer = ReviewerConfig::default();
        choose(args, &StoreChoice::Sqlite, tls, plain, &mut reviewer, &mut problems);
        problems
    }

    #[test]
    fn others_are_asked_over_tls_with_credentials_and_one_store() {
        let tls = TlsFiles {
            certificate: "tls.crt".into(),
            key: "tls.key".into(),
            client_authorities: None,
            tokens: true,
        };
        assert!(problems(PeersArgs::default(), None, true).is_empty(), "nobody is asked");
        let place = Place { host: "weir".to_owned(), port: 8884 };
        let args = PeersArgs { peers: Some(vec![place]), ..PeersArgs::default() };
        let said = problems(args.clone(), None, true).join("\n");
        assert!(said.contains("--clickhouse-url") && said.contains("insecure_plaintext"), "{said}");
        let said = problems(args.clone(), Some(&tls), false).join("\n");
        assert!(said.contains("peer_token_file") && said.contains("NAME.servers.weir"), "{said}");
        let with_token = PeersArgs { peer_token_file: Some("token".into()), ..args.clone() };
        assert_eq!(problems(with_token, Some(&tls), false).len(), 1, "the store alone is wrong");
        let signed = TlsFiles { client_authorities: Some("ca.crt".into()), ..tls };
        assert_eq!(problems(args, Some(&signed), false).len(), 1, "its certificate is shown");
    }
}
