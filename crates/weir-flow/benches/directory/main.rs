//! How fast the cluster's book finds who had an address, and how much memory a pod takes in it.
//!
//! One line a figure: `NAME VALUE UNIT target OP X ok|short`. The floor is a plain hash map that holds
//! the answers.

#[path = "../attribution/allocator.rs"]
mod allocator;
#[path = "../attribution/report.rs"]
mod report;
#[path = "../attribution/world.rs"]
mod world;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hashbrown::HashMap;
use weir_flow::attribution::{Directory as _, Question};
use weir_flow::cluster::{Bounds, Cluster, Config, Pod, Uid, Update};
use weir_flow::{Endpoint, Name, Protocol, Side, WallTime};

use report::{Shortest, Target, floor, precise, report};
use world::{Dice, NODES, PODS_PER_NODE, at};

const INTERVALS: u32 = 100_000;
const QUESTIONS: u32 = 1_000_000;
/// Questions timed at once: so few that nobody else gets the processor meanwhile.
const PART: usize = 1_000;
const ROUNDS: usize = 7;
/// Seconds from one owner of an address to the next.
const TURN: u64 = 100;

fn main() {
    // `cargo test --all-targets` runs this too, without the flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    memory();
    lookups("lookup", 1);
    lookups("lookup_of_5_owners", 5);
    lookups("lookup_of_50_owners", 50);
}

fn memory() {
    let mut book = world::without_pods();
    let before = allocator::heap().held;
    world::add_pods(&mut book);
    let taken = precise(allocator::heap().held - before) / precise((NODES * PODS_PER_NODE).into());
    report("book_bytes_per_pod", taken, "B", &Target::AtMost(1_200.0));
    black_box(book);
}

/// 100,000 intervals, so many of each address.
fn lookups(name: &str, owners: u32) {
    let addresses: Vec<IpAddr> =
        (0..INTERVALS / owners).map(|number| Ipv4Addr::from(0x0a00_0000 + number).into()).collect();
    let mut book = Cluster::new(Config::default());
    for (number, address) in addresses.iter().enumerate() {
        for owner in 0..owners {
            book.apply(Update::Pod(pod(number, owner, *address, owners)));
        }
    }
    book.apply(Update::Synced { at: at(1) });
    let held = precise(book.counts().holdings as u64);
    report(&format!("{name}_intervals"), held, "in the book", &Target::AtLeast(INTERVALS.into()));
    let mut dice = Dice(1);
    let asked: Vec<Question> = (0..QUESTIONS)
        .map(|_| {
            let moment = at(u64::from(dice.roll(owners)) * TURN + 50);
            Question {
                side: Side::Source,
                protocol: Protocol::TCP,
                address: addresses[dice.roll(INTERVALS / owners) as usize],
                port: 40_000,
                peer_address: [198, 51, 100, 7].into(),
                peer_port: 443,
                at: moment,
                latest: moment,
            }
        })
        .collect();

    let observer = book.as_seen_by("node", 0);
    let key = |question: &Question| (question.address, question.at);
    let plain: HashMap<(IpAddr, WallTime), Arc<Endpoint>> =
        asked.iter().map(|question| (key(question), observer.resolve(question))).collect();
    assert!(plain.values().all(|found| found.pod.is_some()));
    let floor_taken = per_question(&asked, |question| plain.get(&key(question)).map(Arc::clone));
    floor(&format!("{name}_floor"), floor_taken, "ns");
    let before = allocator::heap().allocations;
    for question in &asked {
        drop(black_box(observer.resolve(question)));
    }
    let allocations = precise(allocator::heap().allocations - before);
    report(&format!("{name}_allocations"), allocations, "in all", &Target::AtMost(0.0));
    let taken = per_question(&asked, |question| observer.resolve(question));
    report(name, taken, "ns", &Target::AtMost(100.0));
    report(&format!("{name}_to_floor"), taken / floor_taken, "x", &Target::AtMost(2.5));
}

fn pod(number: usize, owner: u32, address: IpAddr, owners: u32) -> Pod {
    let begin = u64::from(owner) * TURN;
    let from = Bounds::between(at(begin), at(begin + 2));
    let ended = Bounds::between(at(begin + TURN - 3), at(begin + TURN - 1));
    Pod {
        uid: Uid(u128::try_from(number).unwrap_or_default() << 32 | u128::from(owner)),
        namespace: Name::from("namespace"),
        name: Name::from(format!("pod-{number}-{owner}")),
        node: Some(Name::from("node")),
        addresses: vec![address],
        host_network: false,
        workload: None,
        app: None,
        labels: None,
        from,
        ended: (owner + 1 < owners).then_some(ended),
        probe_ports: Vec::new(),
        runs_agent: false,
    }
}

fn per_question<T>(asked: &[Question], ask: impl Fn(&Question) -> T) -> f64 {
    let mut shortest = Shortest::of(asked.len().div_ceil(PART));
    for _ in 0..ROUNDS {
        for (part, questions) in asked.chunks(PART).enumerate() {
            shortest.time(part, || {
                for question in questions {
                    drop(black_box(ask(question)));
                }
            });
        }
    }
    shortest.seconds() * 1e9 / precise(QUESTIONS.into())
}
