//! Who is not let in: nothing is stored, the counter moves, the log says why without the token.

use weir_proto::pb::{self, from_agent};
use weir_server::wire::{Denial, TurnedAway};

use crate::support::{Dialler, World, batch, greeting, hello, logged, message};

/// The epoch that belongs to another node.
const TAKEN: u128 = 99;

struct Case {
    what: String,
    dialler: Dialler,
    first: pb::FromAgent,
    reason: Denial,
    /// What must not be in any log.
    secret: Option<String>,
}

struct Cases<'a> {
    world: &'a World,
    all: Vec<Case>,
}

impl Cases<'_> {
    fn token(&mut self, token: &str, reason: Denial) {
        self.add(token, self.world.agent(token), hello("n1", 1), reason, Some(token.to_owned()));
    }

    fn header(&mut self, header: Option<&[u8]>, reason: Denial) {
        let dialler = Dialler { header: header.map(<[u8]>::to_vec), ..self.world.agent("unused") };
        self.add(&format!("{header:?}"), dialler, hello("n1", 1), reason, None);
    }

    fn first(&mut self, what: &str, first: pb::FromAgent, reason: Denial) {
        self.add(what, self.world.agent("good-n1"), first, reason, None);
    }

    fn hello(&mut self, what: &str, hello: pb::Hello, reason: Denial) {
        self.first(what, message(from_agent::Message::Hello(hello)), reason);
    }

    fn certificate(&mut self, names: &[&str], says: &str, reason: Denial) {
        let certificate = Some(self.world.authority.issue(names));
        let dialler = Dialler { certificate, header: None, ..self.world.agent("unused") };
        self.add(&format!("{names:?}"), dialler, hello(says, 1), reason, None);
    }

    fn add(
        &mut self,
        what: &str,
        dialler: Dialler,
        first: pb::FromAgent,
        reason: Denial,
        secret: Option<String>,
    ) {
        self.all.push(Case { what: what.to_owned(), dialler, first, reason, secret });
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases(world: &World) -> Vec<Case> {
    let mut cases = Cases { world, all: Vec::new() };
    cases.header(None, Denial::Missing);
    for header in [
        &b"Bearer"[..],
        b"Bearer ",
        b"Basic bjE6c2VjcmV0",
        b"Bearer good-n1 good-n2",
        b"good-n1",
        b"Bearer \xc3\xa9",
        b"Bearer good\xff",
    ] {
        cases.header(Some(header), Denial::Malformed);
    }
    for forged in [
        "forged",
        "Good-n1",
        "GOOD-N1",
        "goo-n1",
        "xgood-n1",
        "good",
        "good_n1",
        "eyJhbGciOiJub25lIn0.e30.",
        "0",
        "null",
        "undefined",
        "../../good",
        "%67ood-n1",
        "\"good-n1\"",
    ] {
        cases
            .token(forged, if forged == "good" { Denial::NoNode } else { Denial::Unauthenticated });
    }
    cases.token("expired-n1", Denial::Unauthenticated);
    cases.token("audience-n1", Denial::WrongAudience);
    cases.token("account-n1", Denial::NotAnAgent);
    cases.token("nodeless-n1", Denial::NoNode);
    cases.token("unreviewed-n1", Denial::Undecided);
    cases.token("hung-n1", Denial::Undecided);
    for node in ["../n1", "N1", "n1;drop", "n1%00", "n1\"", "{n1}"] {
        cases.token(&format!("good-{node}"), Denial::NoNode);
    }
    cases.token(&format!("good-{}", "n".repeat(254)), Denial::NoNode);
    for says in ["n2", "N1", "n1 ", " n1", "n1.agents.weir", "n1\u{200b}", "n1\u{1b}[31m", "*"] {
        cases.first(says, hello(says, 1), Denial::OtherNode);
    }
    cases.first("another node's epoch", hello("n1", TAKEN), Denial::OtherEpoch);

    let good = greeting("n1", 1);
    for (min, max) in [(0, 0), (2, 9), (9, 2), (u32::MAX, u32::MAX)] {
        let hello = pb::Hello { protocol_min: min, protocol_max: max, ..good.clone() };
        cases.hello(&format!("versions {min} to {max}"), hello, Denial::Version);
    }
    for bytes in [0, 8, 15, 17, 64] {
        let hello = pb::Hello { epoch: vec![1; bytes], ..good.clone() };
        cases.hello(&format!("epoch of {bytes}"), hello, Denial::Greeting);
    }
    cases.hello("no boot", pb::Hello { boot: vec![], ..good.clone() }, Denial::Greeting);
    cases.hello("long node", pb::Hello { node: "n".repeat(300), ..good.clone() }, Denial::Greeting);
    cases.hello("long version", pb::Hello { version: "1".repeat(65), ..good }, Denial::Greeting);
    for (what, first) in [
        ("a batch first", from_agent::Message::Batch(batch(1, 1, 10))),
        ("facts first", from_agent::Message::Facts(pb::Facts::default())),
        ("status first", from_agent::Message::Status(pb::Status::default())),
        ("ping first", from_agent::Message::Ping(pb::Ping::default())),
    ] {
        cases.first(what, message(first), Denial::Greeting);
    }
    cases.first("nothing first", pb::FromAgent { message: None }, Denial::Greeting);

    cases.certificate(&["weir-server"], "n1", Denial::NoNode);
    cases.certificate(&["n1.agents.weir", "n2.agents.weir"], "n1", Denial::NoNode);
    cases.certificate(&["n1.agents.weir.example.org"], "n1", Denial::NoNode);
    cases.certificate(&["*.agents.weir"], "n1", Denial::NoNode);
    cases.certificate(&["n2.agents.weir"], "n1", Denial::OtherNode);
    cases.all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_by_what_they_are_not() {
    let world = World::new();
    let mut owner = world.agent("good-n9").greet("n9", TAKEN).await.0;
    assert_eq!(owner.deliver(batch(TAKEN, 1, 5)).await, crate::support::Said::Committed);
    let stored = (world.bytes(), world.queue.report().counts.committed);

    let cases = cases(&world);
    assert!(cases.len() >= 50, "{}", cases.len());
    for Case { what, dialler, first, reason, secret } in cases {
        let before = world.counts.denied(reason);
        let stuff = message(from_agent::Message::Batch(batch(1, 1, 1_000)));
        let status = match dialler.open(vec![first, stuff]).await {
            Ok(mut talk) => talk.end().await,
            Err(status) => status,
        };
        assert_ne!(status.code(), tonic::Code::Ok, "{what}: {status}");
        assert_eq!(world.counts.denied(reason), before + 1, "{what}: {reason} {status}");
        assert!(status.message().contains(reason.name()), "{what}: {status}");
        if let Some(secret) = secret.filter(|secret| secret.len() > 8) {
            assert!(!status.message().contains(&secret), "{what}: {status}");
            assert!(!logged().contains(&secret), "the log has the token {secret:?}");
        }
    }
    assert_eq!((world.bytes(), world.queue.report().counts.committed), stored);
    let log = logged();
    assert!(log.contains("an agent is not let in"), "{log}");
    assert!(log.contains("nobody knows this token") && log.contains("missing_credentials"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_others_and_of_yesterday_do_not_get_as_far_as_a_call() {
    let world = World::new();
    let stranger = crate::support::Authority::new();
    for certificate in [
        stranger.issue(&["n1.agents.weir"]),
        world.authority.issue_until(&["n1.agents.weir"], 2020),
    ] {
        let before = world.counts.turned_away(TurnedAway::Handshake);
        let dialler =
            Dialler { certificate: Some(certificate), header: None, ..world.agent("unused") };
        let opened = dialler.open(vec![hello("n1", 1)]).await;
        let status = match opened {
            Ok(mut talk) => talk.end().await,
            Err(status) => status,
        };
        assert_ne!(status.code(), tonic::Code::Ok, "{status}");
        assert!(world.counts.turned_away(TurnedAway::Handshake) > before);
    }
    assert!(world.is_untouched());
    assert!(logged().contains("no TLS handshake"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_has_few_streams() {
    let world = World::new();
    let agent = world.agent("good-n1");
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(agent.greet("n1", 1).await.0);
    }
    let mut fifth = agent.open(vec![hello("n1", 1)]).await.unwrap();
    let status = fifth.end().await;
    assert!(status.message().contains("has 4 streams already"), "{status}");
    assert_eq!(world.counts.denied(Denial::TooManyStreams), 1);
    world.agent("good-n2").greet("n2", 2).await;
}
