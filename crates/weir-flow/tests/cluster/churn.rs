//! One address, many owners: what the book says against what truly happened.
//!
//! The truth is made up from a seed: owners one after the other, each for a second or more. The
//! API tells of them in whole seconds and late, agents in milliseconds; now and then an owner is
//! never told of. Whatever is told in whatever order, the book may say that it does not know, but
//! it never names anybody but the true owner.

use std::sync::Arc;

use proptest::prelude::*;
use weir_flow::attribution::{Directory as _, Question};
use weir_flow::cluster::{Bounds, Change, Cluster, Config, LocalFact, NodeFacts, Pod, Uid, Update};
use weir_flow::view::Homes as _;
use weir_flow::{Endpoint, Name, Protocol, Side, Unresolved, WallTime};

const MILLI: u64 = 1_000_000;
const ADDRESS: [u8; 4] = [10, 244, 1, 7];

/// Small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, from: u64, to: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from + (self.0 >> 33) % (to - from + 1)
    }
}

/// Somebody had the address. Times are milliseconds.
struct Owner {
    number: u64,
    up: u64,
    down: u64,
    /// What the API says of its beginning and end: whole seconds, and when it was heard.
    from: (u64, u64),
    to: (u64, u64),
    /// When the agent saw it come and go.
    seen: (u64, u64),
    /// The API never tells of it.
    hidden: bool,
}

impl Owner {
    fn name(&self) -> String {
        format!("owner-{}", self.number)
    }

    fn pod(&self, ended: bool) -> Update {
        Update::Pod(Pod {
            uid: Uid(u128::from(self.number)),
            namespace: Name::from("jobs"),
            name: Name::from(self.name()),
            node: Some(Name::from("a")),
            addresses: vec![ADDRESS.into()],
            host_network: false,
            workload: None,
            app: None,
            labels: None,
            from: between(self.from),
            ended: ended.then(|| between(self.to)),
            probe_ports: Vec::new(),
            runs_agent: false,
        })
    }

    fn gone(&self) -> Update {
        Update::PodGone { uid: Uid(u128::from(self.number)), at: between(self.to) }
    }

    fn fact(&self, ended: bool) -> Update {
        let (from, to) = self.seen;
        Update::Local {
            node: Name::from("a"),
            own: false,
            facts: vec![LocalFact {
                address: ADDRESS.into(),
                from: at(from),
                to: ended.then(|| at(to)),
            }],
        }
    }
}

fn at(milliseconds: u64) -> WallTime {
    WallTime(milliseconds * MILLI)
}

fn between((one, other): (u64, u64)) -> Bounds {
    Bounds::between(at(one), at(other))
}

/// A true history.
fn history(seed: u64, owners: u64, hidden_percent: u64) -> Vec<Owner> {
    let mut dice = Dice(seed);
    let mut now = 100_000;
    let mut list = Vec::new();
    for number in 0..owners {
        let up = now + dice.roll(20, 1_500);
        let down = up + dice.roll(1_000, 5_000);
        now = down;
        let whole = |milliseconds: u64| milliseconds / 1_000 * 1_000;
        list.push(Owner {
            number,
            up,
            down,
            from: (whole(up - dice.roll(0, 800)), up + dice.roll(100, 2_000)),
            to: (whole(down - dice.roll(0, 500)), down + dice.roll(100, 2_000)),
            seen: (up + dice.roll(0, 20), down + dice.roll(0, 20)),
            hidden: dice.roll(0, 99) < hidden_percent,
        });
    }
    list
}

fn empty() -> Cluster {
    let mut book = Cluster::new(Config::default());
    book.apply(Update::Node(NodeFacts {
        name: Name::from("a"),
        addresses: vec![[192, 168, 0, 1].into()],
        pod_networks: vec!["10.244.1.0/24".parse().unwrap()],
        zone: None,
        region: None,
        cloud: None,
        since: at(0),
    }));
    book.apply(Update::Synced { at: at(1) });
    book
}

fn ask(book: &Cluster, milliseconds: u64) -> Arc<Endpoint> {
    book.as_seen_by("a", 0).resolve(&question(milliseconds))
}

fn question(milliseconds: u64) -> Question {
    Question {
        side: Side::Source,
        protocol: Protocol::TCP,
        address: ADDRESS.into(),
        port: 40_000,
        peer_address: [198, 51, 100, 7].into(),
        peer_port: 80,
        at: at(milliseconds),
        latest: at(milliseconds),
    }
}

/// Never anybody but the owner. True when it is not said who it was because several may have been.
fn is_ambiguous(answer: &Endpoint, owner: &Owner, when: u64) -> bool {
    let said = answer.pod.as_deref();
    let right = said.is_none_or(|said| !owner.hidden && said == owner.name());
    assert!(right, "at {when} it was {}, not {said:?}", owner.name());
    assert_eq!(said.is_none(), answer.unresolved.is_some());
    answer.unresolved == Some(Unresolved::Ambiguous)
}

/// Moments in each owner's time.
fn moments(owners: &[Owner]) -> impl Iterator<Item = (&Owner, u64)> {
    owners
        .iter()
        .flat_map(|owner| (owner.up..=owner.down).step_by(97).map(move |when| (owner, when)))
}

/// What the API alone can tell: by going through all of it.
fn naive(owners: &[Owner], when: u64) -> Option<String> {
    let possible = owners.iter().filter(|owner| owner.from.0 <= when && when <= owner.to.1);
    let possible: Vec<&Owner> = possible.collect();
    let sure = possible.iter().filter(|owner| owner.from.1 <= when && when <= owner.to.0);
    let sure: Vec<&&Owner> = sure.collect();
    match (possible.as_slice(), sure.as_slice()) {
        ([one], _) => Some(one.name()),
        (_, [one]) => Some(one.name()),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn by_the_api_alone_it_is_the_owner_or_said_to_be_ambiguous(seed: u64) {
        let owners = history(seed, 40, 0);
        let mut book = empty();
        for owner in &owners {
            book.apply(owner.pod(false));
            book.apply(owner.gone());
        }
        for (owner, when) in moments(&owners) {
            let answer = ask(&book, when);
            is_ambiguous(&answer, owner, when);
            let expected = naive(&owners, when);
            prop_assert_eq!(answer.pod.as_deref(), expected.as_deref());
            prop_assert!(answer.unresolved != Some(Unresolved::NotInDirectory));
        }
    }

    #[test]
    fn with_what_the_node_saw_it_is_the_owner_or_nobody(seed: u64) {
        let owners = history(seed, 40, 20);
        let mut book = empty();
        for owner in &owners {
            book.apply(owner.fact(true));
            if !owner.hidden {
                book.apply(owner.pod(true));
            }
        }
        for (owner, when) in moments(&owners) {
            is_ambiguous(&ask(&book, when), owner, when);
        }
    }

    /// As it happens: the agent tells at once, the API late, and records ask seconds later.
    #[test]
    fn while_it_happens_it_is_the_owner_or_nobody(seed: u64) {
        let owners = history(seed, 30, 20);
        let mut news: Vec<(u64, Update)> = Vec::new();
        for owner in &owners {
            news.push((owner.seen.0, owner.fact(false)));
            news.push((owner.seen.1, owner.fact(true)));
            if !owner.hidden {
                news.push((owner.from.1, owner.pod(false)));
                news.push((owner.to.1.max(owner.from.1), owner.gone()));
            }
        }
        news.sort_by_key(|(when, _)| *when);
        let mut book = empty();
        let mut dice = Dice(seed);
        let mut news = news.into_iter().peekable();
        for (owner, when) in moments(&owners) {
            let now = when + dice.roll(60, 160);
            while let Some((_, update)) = news.next_if(|(heard, _)| *heard <= now) {
                book.apply(update);
            }
            is_ambiguous(&ask(&book, when), owner, when);
        }
    }

    /// Nothing that is told makes the book panic or grow without limit.
    #[test]
    fn whatever_is_told_the_book_stays_within_its_limits(
        told in prop::collection::vec((0u8..7, 0u64..12, 0u64..400, 0u64..400), 1..200),
    ) {
        let mut config = Config::default();
        config.limits.holdings = 8;
        config.limits.per_address = 4;
        config.limits.facts = 8;
        config.limits.changes = 16;
        let mut book = Cluster::new(config);
        for (what, number, one, other) in told {
            let owner = Owner {
                number,
                up: 0,
                down: 0,
                from: (one, other),
                to: (other, one),
                seen: (one, other),
                hidden: false,
            };
            match what {
                0 => book.apply(owner.pod(false)),
                1 => book.apply(owner.pod(true)),
                2 => book.apply(owner.gone()),
                3 => book.apply(owner.fact(false)),
                4 => book.apply(owner.fact(true)),
                5 => book.forget_before(at(one)),
                _ => book.apply(Update::LocalAll {
                    node: Name::from("a"),
                    own: false,
                    facts: Vec::new(),
                    at: at(one),
                }),
            }
            ask(&book, one);
            let counts = book.counts();
            prop_assert!(counts.holdings <= 8 && counts.facts <= 8 && counts.changes <= 16);
        }
    }
}

#[test]
fn with_what_the_node_saw_hardly_anything_is_ambiguous() {
    let (mut asked, mut ambiguous, mut unnamed) = (0, 0, 0);
    for seed in 0..50 {
        let owners = history(seed, 50, 0);
        let mut book = empty();
        for owner in &owners {
            book.apply(owner.fact(true));
            book.apply(owner.pod(true));
        }
        for (owner, when) in moments(&owners) {
            let answer = ask(&book, when);
            asked += 1;
            ambiguous += u32::from(is_ambiguous(&answer, owner, when));
            unnamed += u32::from(answer.pod.is_none());
        }
    }
    println!("{ambiguous} of {asked} ambiguous, {unnamed} unnamed");
    assert!(unnamed * 100 <= asked * 2, "{unnamed} of {asked} are unnamed");
}

#[test]
fn what_was_remembered_answers_after_a_restart() {
    let owners = history(7, 10, 0);
    let mut book = empty();
    for owner in &owners {
        book.apply(owner.fact(true));
        book.apply(owner.pod(true));
    }
    // The last one is there still.
    let last = Owner { number: 99, ..history(8, 11, 0).pop().unwrap() };
    book.apply(last.pod(false));
    let changes: Vec<Change> = book.take_changes();
    assert!(book.take_changes().is_empty());

    let mut again = empty_unsynced();
    for change in changes {
        again.restore(change);
    }
    assert!(again.take_changes().is_empty(), "what is restored is no news");
    for (owner, when) in moments(&owners) {
        let (before, after) = (ask(&book, when), ask(&again, when));
        assert_eq!(before.pod, after.pod, "{} at {when}", owner.name());
    }
    // It was not told of again by the time that the directory was complete: it has ended.
    let later = last.from.1 + 600_000;
    again.apply(Update::Synced { at: at(later) });
    assert_eq!(ask(&again, later + 1).unresolved, Some(Unresolved::NotInDirectory));
    let ended = again.take_changes();
    let is_end = |change: &Change| matches!(change, Change::Held { uid: Uid(99), to: Some(_), .. });
    assert!(ended.iter().any(is_end), "{ended:?}");
}

/// What one server is told, the others hear later, and not always in the same order.
#[test]
fn what_is_heard_late_begins_nothing_again() {
    let fact = |from: u64, to: Option<u64>| LocalFact {
        address: ADDRESS.into(),
        from: at(from),
        to: to.map(at),
    };
    let heard = |node: &str, fact| Change::Local { node: Name::from(node), own: false, fact };
    let mut book = empty();
    book.take_changes();
    let ended = fact(0, Some(9_000));
    book.apply(Update::Local { node: Name::from("a"), own: false, facts: vec![ended] });
    book.take_changes();
    // Its beginning was seen, before the agent began anew and knew of it only that it was there.
    book.hear(heard("a", fact(5_000, None)));
    assert_eq!(book.counts().facts, 1);
    book.hear(heard("a", fact(9_500, None)));
    assert_eq!(book.counts().facts, 2, "the next one is another one");

    // Who has an agent is told apart.
    let own = Change::Local { node: Name::from("gone"), own: true, fact: fact(100, None) };
    book.hear(own);
    assert_eq!(book.counts().announced, 1);
    assert!(!book.as_seen_by("gone", 0).enrolled("gone", at(200)));
    assert!(book.take_changes().is_empty(), "what is heard is not told on");
}

fn empty_unsynced() -> Cluster {
    let mut book = Cluster::new(Config::default());
    book.apply(Update::Enrolled { node: Name::from("a"), from: at(0) });
    book.take_changes();
    book
}

#[test]
fn what_does_not_fit_is_counted() {
    let mut config = Config::default();
    config.limits.holdings = 2;
    config.limits.changes = 3;
    config.limits.answers = 16;
    config.limits.nodes = 1;
    let mut book = Cluster::new(config);
    let owners = history(1, 4, 0);
    // Nobody has ended, so there is nobody to forget.
    for owner in &owners {
        book.apply(owner.pod(false));
    }
    let counts = book.counts();
    assert_eq!((counts.holdings, counts.refused, counts.evicted), (2, 2, 0));
    // Who has ended makes room for who comes.
    for owner in &owners {
        book.apply(owner.pod(true));
    }
    let counts = book.counts();
    assert_eq!((counts.holdings, counts.evicted, counts.changes), (2, 2, 3));
    assert_eq!(counts.changes_lost, 3);
    assert_eq!(ask(&book, owners[0].up).unresolved, Some(Unresolved::DirectoryUnavailable));
    assert_eq!(ask(&book, owners[3].up + 500).pod.as_deref(), Some("owner-3"));

    book.apply(Update::Enrolled { node: Name::from("b"), from: at(1) });
    assert_eq!((book.counts().nodes, book.counts().refused), (1, 3));

    for last in 0..=255 {
        let observer = book.as_seen_by("a", 0);
        let mut question = question(1);
        question.address = [198, 51, 100, last].into();
        assert_eq!(observer.resolve(&question).address, question.address);
    }
    assert!(book.counts().answers <= 16 && book.counts().answers_evicted >= 240);
}

/// An agent that begins to look anew does not see the addresses come: the holder stays the holder.
#[test]
fn an_agent_s_restart_changes_no_holder() {
    let all = |from: u64, to: Option<u64>, when| Update::LocalAll {
        node: Name::from("a"),
        own: false,
        facts: vec![LocalFact { address: ADDRESS.into(), from: at(from), to: to.map(at) }],
        at: at(when),
    };
    let nothing = |when| Update::LocalAll {
        node: Name::from("a"),
        own: false,
        facts: Vec::new(),
        at: at(when),
    };
    let owner = &history(3, 1, 0)[0];
    let who = owner.name();
    let later = owner.up + 60_000;
    // It says since when it looks, or that the address was there before.
    for from in [later, 0] {
        let mut book = empty();
        book.apply(owner.fact(false));
        book.apply(owner.pod(false));
        book.apply(all(from, None, later));
        // An agent remembers what one before it saw.
        book.apply(all(owner.seen.0, None, later + 1));
        for when in [owner.up, later - 1, later + 1] {
            assert_eq!(ask(&book, when).pod.as_deref(), Some(&*who), "at {when} from {from}");
        }
        // Gone while nobody looked, and the API has not told yet.
        book.apply(nothing(later + 60_000));
        assert_eq!(ask(&book, later + 1).pod.as_deref(), Some(&*who));
        assert!(ask(&book, later + 60_001).pod.is_none());
        // There again, and another's.
        book.apply(all(0, None, later + 120_000));
        assert!(ask(&book, later + 119_999).pod.is_none());
        assert_eq!(ask(&book, later + 1).pod.as_deref(), Some(&*who));
    }
}

/// The agent came after the pod: it does not know since when the address is there.
#[test]
fn an_address_that_was_there_before_the_agent_is_its_pod_s() {
    let owner = &history(3, 1, 0)[0];
    let looked = owner.up + 60_000;
    for from in [0, looked] {
        let mut book = empty();
        book.apply(owner.pod(false));
        let fact = LocalFact { address: ADDRESS.into(), from: at(from), to: None };
        let (node, facts) = (Name::from("a"), vec![fact]);
        book.apply(Update::LocalAll { node, own: false, facts, at: at(looked) });
        for when in [owner.up, looked, looked + 1_000] {
            assert_eq!(ask(&book, when).pod.as_deref(), Some(&*owner.name()), "at {when}");
        }
    }
}
