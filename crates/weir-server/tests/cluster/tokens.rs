//! Whose token it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use weir_lab::kube::{Fault, TokenIdentity};
use weir_server::cluster::{Reviewer, ReviewerConfig};
use weir_server::wire::{Denial, Identify as _};

use crate::support::{Followed, api_with_nodes, followed, pod};

fn agent(node: Option<&str>) -> TokenIdentity {
    TokenIdentity {
        username: "system:serviceaccount:weir:weir-agent".to_owned(),
        audiences: vec!["weir".to_owned()],
        node: node.map(str::to_owned),
        ..TokenIdentity::default()
    }
}

async fn reviewer(followed: &Followed, config: ReviewerConfig) -> Reviewer {
    let watched = Arc::clone(&followed.watched);
    Reviewer::connect(&followed.access, watched, config).await.unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_token_is_let_in_or_the_reason_is_said_without_it() {
    let api = api_with_nodes();
    api.put(pod("agent", "10.244.1.1")).unwrap();
    let uid = api.get("Pod", "shop", "agent").unwrap()["metadata"]["uid"].clone();
    let of_pod = |uid: &str| TokenIdentity {
        pod: Some(("agent".to_owned(), uid.to_owned())),
        ..agent(None)
    };
    let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
    let cases = [
        ("good-token", Some(agent(Some("n2"))), Ok("n2")),
        // Before Kubernetes 1.32 a token says its pod only.
        ("pods-token", Some(of_pod(uid.as_str().unwrap())), Ok("n1")),
        ("gone-token", Some(of_pod("gone")), Err(Denial::NoNode)),
        ("bare-token", Some(agent(None)), Err(Denial::NoNode)),
        ("forged-token", None, Err(Denial::Unauthenticated)),
        (
            "old-token",
            Some(TokenIdentity { expires: Some(an_hour_ago), ..agent(Some("n1")) }),
            Err(Denial::Unauthenticated),
        ),
        (
            "api-token",
            Some(TokenIdentity { audiences: vec!["api".to_owned()], ..agent(Some("n1")) }),
            Err(Denial::WrongAudience),
        ),
        (
            "user-token",
            Some(TokenIdentity {
                username: "system:serviceaccount:shop:weir-agent".to_owned(),
                ..agent(Some("n1"))
            }),
            Err(Denial::NotAnAgent),
        ),
    ];
    for (token, identity, _) in &cases {
        if let Some(identity) = identity {
            api.token(token, identity.clone());
        }
    }
    let followed = followed(api);
    run(async {
        let reviewer = reviewer(&followed, ReviewerConfig::default()).await;
        for (token, _, expected) in &cases {
            let answer = reviewer.identify(token).await;
            let found = answer.as_ref().map(|it| it.node.as_str()).map_err(|it| it.reason);
            assert_eq!(found, *expected, "{token}: {answer:?}");
            assert!(!format!("{answer:?}").contains(token), "{answer:?}");
        }
    });
}

#[test]
fn an_audience_that_is_not_confirmed_is_no_audience() {
    let api = api_with_nodes();
    api.token("t", agent(Some("n1")));
    api.fault(Fault::AudiencesIgnored);
    let followed = followed(api);
    run(async {
        let reviewer = reviewer(&followed, ReviewerConfig::default()).await;
        assert_eq!(reviewer.identify("t").await.unwrap_err().reason, Denial::WrongAudience);
    });
}

#[test]
fn answers_are_remembered_for_a_while_and_bounded() {
    let api = api_with_nodes();
    api.token("t", agent(Some("n1")));
    let followed = followed(api);
    run(async {
        let config = ReviewerConfig { answers: 2, ..ReviewerConfig::default() };
        let reviewer = reviewer(&followed, config).await;
        for _ in 0..3 {
            reviewer.identify("t").await.unwrap();
            reviewer.identify("nobody").await.unwrap_err();
        }
        assert_eq!(followed.api.reviews(), 2);
        for number in 0..10 {
            reviewer.identify(&format!("flood-{number}")).await.unwrap_err();
        }
        // The yes outlived the flood.
        let reviews = followed.api.reviews();
        followed.api.revoke("t");
        reviewer.identify("t").await.unwrap();
        assert_eq!(followed.api.reviews(), reviews);
    });
    run(async {
        let (yes, no) = (Duration::ZERO, Duration::ZERO);
        let config = ReviewerConfig { yes, no, ..ReviewerConfig::default() };
        let reviewer = reviewer(&followed, config).await;
        assert_eq!(reviewer.identify("t").await.unwrap_err().reason, Denial::Unauthenticated);
    });
}

#[test]
fn an_api_that_fails_lets_nobody_in_and_is_asked_again() {
    let api = api_with_nodes();
    api.token("t", agent(Some("n1")));
    let followed = followed(api);
    run(async {
        let reviewer = reviewer(&followed, ReviewerConfig::default()).await;
        followed.api.fault(Fault::ReviewsFail);
        let denied = reviewer.identify("t").await.unwrap_err();
        assert_eq!((denied.reason, denied.retry), (Denial::Undecided, true));
        followed.api.heal();
        assert_eq!(reviewer.identify("t").await.unwrap().node, "n1");
    });
}

#[test]
fn a_servers_token_is_no_agents_and_an_agents_is_no_servers() {
    let api = api_with_nodes();
    let of = |account: &str, audience: &str| TokenIdentity {
        username: format!("system:serviceaccount:{account}"),
        audiences: vec![audience.to_owned()],
        node: Some("n1".to_owned()),
        ..TokenIdentity::default()
    };
    let cases = [
        ("servers", of("weir:weir-server", "weir"), Ok("system:serviceaccount:weir:weir-server")),
        ("agents", of("weir:weir-agent", "weir"), Err(Denial::NotAServer)),
        ("elsewhere", of("shop:weir-server", "weir"), Err(Denial::NotAServer)),
        ("other", of("weir:weir-server", "api"), Err(Denial::WrongAudience)),
    ];
    for (token, identity, _) in &cases {
        api.token(token, identity.clone());
    }
    let followed = followed(api);
    run(async {
        let reviewer = reviewer(&followed, ReviewerConfig::default()).await;
        for (token, _, expected) in &cases {
            let found = reviewer.identify_server(token).await.map_err(|denied| denied.reason);
            assert_eq!(found.as_deref().map_err(|reason| *reason), *expected, "{token}");
        }
        assert_eq!(reviewer.identify("servers").await.unwrap_err().reason, Denial::NotAnAgent);
        assert_eq!(reviewer.identify("agents").await.unwrap().node, "n1");
        assert_eq!(followed.api.reviews(), 4, "one review tells both");
        let denied = reviewer.identify_server("forged").await.unwrap_err();
        assert_eq!(denied.reason, Denial::Unauthenticated);
    });
}
