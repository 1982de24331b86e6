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
        all.add(run(seed, None).unwrap_or_else(|error| panic!("seed {seed}: {error}")));
    }
    println!("{} seeds: {all:?}", seeds());
    // Faults that never happen prove nothing.
    assert!(all.kills > seeds() / 2 && all.redeliveries > seeds() && all.unseen > seeds());
    assert!(all.bytes > 0 && all.lives > seeds());
}

/// The first of 1,000 seeds that notices.
fn first_violation(broken: Break) -> Option<(u64, String)> {
    (0..1_000).find_map(|seed| run(seed, Some(broken)).err().map(|error| (seed, error)))
}

#[test]
fn judging_before_the_events_are_drained_is_noticed() {
    assert_ne!(first_violation(Break::TickOrder), None);
}

#[test]
fn a_ledger_kept_apart_from_the_log_is_noticed() {
    assert_ne!(first_violation(Break::OneLog), None);
}

#[test]
fn an_identity_without_the_start_is_noticed() {
    assert_ne!(first_violation(Break::Identity), None);
}

#[test]
fn a_seed_is_a_run() {
    assert_eq!(run(17, None), run(17, None));
}
