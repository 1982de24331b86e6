//! The protocol holds for every seed, and the simulator would notice if it did not.

use weir_lab::simulation::{Break, Deeds, run};

/// Seeds of the clean run. `WEIR_SEEDS` asks for more or fewer.
fn seeds() -> u64 {
    std::env::var("WEIR_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20_000)
}

#[test]
fn each_byte_is_committed_once_or_declared() {
    let mut all = Deeds::default();
    for seed in 0..seeds() {
        let deeds = run(seed, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        all.lives += deeds.lives;
        all.kills += deeds.kills;
        all.redeliveries += deeds.redeliveries;
        all.unseen += deeds.unseen;
        all.bytes += deeds.bytes;
    }
    println!("{} seeds: {all:?}", seeds());
    // Faults that never happen prove nothing.
    assert!(all.kills > seeds() / 2 && all.redeliveries > seeds() && all.unseen > seeds());
    assert!(all.bytes > 0 && all.lives > seeds());
}

fn first_violation(broken: Break) -> (u64, String) {
    let mut seeds = 0..1_000;
    let found = seeds.find_map(|seed| run(seed, Some(broken)).err().map(|error| (seed, error)));
    let found = found.unwrap_or_else(|| panic!("{broken:?} went unnoticed for 1,000 seeds"));
    println!("{broken:?}: seed {}: {}", found.0, found.1);
    found
}

#[test]
fn judging_before_the_events_are_drained_is_noticed() {
    first_violation(Break::TickOrder);
}

#[test]
fn a_ledger_kept_apart_from_the_log_is_noticed() {
    first_violation(Break::OneLog);
}

#[test]
fn an_identity_without_the_start_is_noticed() {
    first_violation(Break::Identity);
}

#[test]
fn a_seed_is_a_run() {
    assert_eq!(run(17, None), run(17, None));
}
