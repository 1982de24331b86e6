//! Several servers on one store, and a store that goes away and comes back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod engine;
mod outage;
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weir_flow::WallTime;
use weir_flow::ingest::Answer;
use weir_flow::time::SECOND;
use weir_server::cluster::{Config, Watched};
use weir_server::wire::{Announce as _, Announcement};
use weir_store::FlowStore;

use self::support::{EPOCH, NOW, Told, agent, all, frame, server};

#[test]
fn one_batch_to_two_servers_counts_once() {
    let directory = TempDir::new().unwrap();
    let store = Told::open(directory.path());
    let (mut one, mut other) = (server(&store), server(&store));
    assert_eq!(one.accept(&agent("n1"), &frame(1, 100), NOW), Answer::Committed);
    assert_eq!(other.accept(&agent("n1"), &frame(1, 100), NOW), Answer::Committed);
    assert_eq!(all(&*store), (100, 1));
    let counts = (one.counts(), other.counts());
    assert_eq!((counts.0.committed, counts.0.known), (1, 0));
    assert_eq!((counts.1.committed, counts.1.known), (0, 1));
    // The other server knows it now by itself.
    assert_eq!(other.accept(&agent("n1"), &frame(1, 100), NOW), Answer::Committed);
    let Answer::Refused { reason } = other.accept(&agent("n1"), &frame(1, 99), NOW) else {
        panic!("the same number with other content was taken")
    };
    assert!(reason.contains("other content"), "{reason}");
}

#[test]
fn an_agent_that_comes_from_another_server_is_told_what_that_one_took() {
    let directory = TempDir::new().unwrap();
    let store = Told::open(directory.path());
    let (mut one, mut other) = (server(&store), server(&store));
    for sequence in [1, 2, 3, 7] {
        one.accept(&agent("n1"), &frame(sequence, 100), NOW);
    }
    assert!(other.committed(EPOCH).is_none());
    other.refresh(EPOCH, NOW);
    assert_eq!(other.committed(EPOCH).unwrap().spans(), [(1, 3), (7, 7)]);
    let later = WallTime(NOW.0 + SECOND);
    other.refresh(EPOCH, later);
    assert_eq!(store.looks.load(Ordering::Relaxed), 1, "it was read a moment ago");
    let Answer::Refused { reason } = other.accept(&agent("n2"), &frame(8, 1), NOW) else {
        panic!("another node's epoch was taken")
    };
    assert!(reason.contains("another node"), "{reason}");
}

#[test]
fn holes_that_another_server_filled_are_none() {
    let directory = TempDir::new().unwrap();
    let store = Told::open(directory.path());
    let (mut one, mut other) = (server(&store), server(&store));
    // As many as may stand above the low-water mark.
    for number in 1..=64 {
        let answer = other.accept(&agent("n1"), &frame(number * 2, 1), NOW);
        assert_eq!(answer, Answer::Committed, "{number}");
    }
    let next = frame(200, 1);
    let Answer::Retry { reason, .. } = other.accept(&agent("n1"), &next, NOW) else {
        panic!("there are too many holes")
    };
    assert!(reason.contains("missing"), "{reason}");
    for number in 1..=64 {
        one.accept(&agent("n1"), &frame(number * 2 - 1, 1), NOW);
    }
    let later = WallTime(NOW.0 + 10 * SECOND);
    assert_eq!(other.accept(&agent("n1"), &next, later), Answer::Committed);
    assert_eq!(all(&*store), (129, 129));
}

#[test]
fn servers_at_the_same_moment_count_once() {
    let directory = TempDir::new().unwrap();
    let store = Told::open(directory.path());
    let servers: Vec<_> = (0..4).map(|_| Mutex::new(server(&store))).collect();
    thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| {
                for sequence in 1..=20 {
                    let answer =
                        server.lock().unwrap().accept(&agent("n1"), &frame(sequence, 10), NOW);
                    assert_eq!(answer, Answer::Committed);
                }
            });
        }
    });
    assert_eq!(all(&*store), (200, 20));
}

/// What an agent tells one server of its node decides what every server counts.
#[test]
fn what_one_server_hears_of_a_node_the_others_learn() {
    let directory = TempDir::new().unwrap();
    let store = Told::open(directory.path());
    let clock = Passing::default();
    let (one, other) = (book(&store, &clock), book(&store, &clock));
    announce(&one);
    until_told(&other);
    until_told(&book(&store, &clock));
}

/// It reads on from where it could read last.
#[test]
fn a_server_that_was_cut_off_for_long_learns_what_the_others_heard_meanwhile() {
    let directory = TempDir::new().unwrap();
    let store = Told::open(directory.path());
    let others_way = store.beside();
    let clock = Passing::default();
    let (one, other) = (book(&store, &clock), book(&others_way, &clock));
    others_way.is_away.store(true, Ordering::Relaxed);
    announce(&one);
    until_told(&book(&store, &clock));
    clock.jumped.store(3_600, Ordering::Relaxed);
    store.prune(NOW.seconds() + 3_600).unwrap();
    assert!(!is_told(&other), "it cannot know yet");
    others_way.is_away.store(false, Ordering::Relaxed);
    until_told(&other);
}

/// A clock that goes on, and can be made to jump.
#[derive(Clone, Default)]
struct Passing {
    /// Seconds.
    jumped: Arc<AtomicU64>,
}

fn book(store: &Arc<Told>, clock: &Passing) -> Watched {
    let (begun, jumped) = (Instant::now(), Arc::clone(&clock.jumped));
    let clock: weir_server::Clock = Arc::new(move || {
        let passed = begun.elapsed() + Duration::from_secs(jumped.load(Ordering::Relaxed));
        WallTime(NOW.0 + u64::try_from(passed.as_nanos()).unwrap())
    });
    let store = Arc::clone(store) as Arc<dyn FlowStore>;
    Watched::open(Config::default(), Some(store), clock).unwrap()
}

fn announce(book: &Watched) {
    let fact =
        weir_proto::Fact { address: [10, 0, 0, 1].into(), from: WallTime(0), to: None, own: true };
    book.speaks("n1", NOW);
    book.announce(Announcement { node: "n1".into(), complete: true, facts: vec![fact], at: NOW });
}

fn is_told(book: &Watched) -> bool {
    book.is_enrolled("n1", NOW) && book.counts().announced == 1
}

fn until_told(book: &Watched) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !is_told(book) {
        assert!(Instant::now() < patience, "nobody told this server");
        thread::sleep(Duration::from_millis(50));
    }
}
