//! Delivery and crashes.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tempfile::TempDir;
use weir_flow::batch::{Gap, GapReason};

use crate::script::{Mood, World, until};

fn world() -> (TempDir, World) {
    let directory = TempDir::new().unwrap();
    let world = World::new(directory.path().join("spool"));
    (directory, world)
}

/// Ten connections that were there before weir, with a past; the baseline stands.
fn begun() -> (TempDir, World) {
    let (directory, world) = world();
    world.kernel(|kernel| {
        for port in 1..=10 {
            kernel.open(port);
            kernel.carry(port, 5_000);
        }
    });
    world.session();
    (directory, world)
}

fn carry_all(world: &World, bytes: u64) {
    world.kernel(|kernel| (1..=10).for_each(|port| kernel.carry(port, bytes)));
}

fn sum(gaps: &[Gap]) -> (u64, u64, u64) {
    let add = |get: fn(&Gap) -> u64| gaps.iter().map(get).sum();
    (add(|gap| gap.connections), add(|gap| gap.records), add(|gap| gap.bytes))
}

#[test]
fn what_passed_before_the_baseline_is_not_billed_and_what_passes_later_is() {
    let (_directory, world) = begun();
    assert_eq!(world.store(|store| store.total()), 0);
    carry_all(&world, 100);
    world.kernel(|kernel| {
        kernel.open(20);
        kernel.carry(20, 30);
        kernel.carry(3, 1);
        kernel.end(3);
    });
    world.session();
    world.store(|store| {
        assert_eq!((store.of(1), store.of(3), store.of(20)), (200, 202, 60));
        assert_eq!(store.total(), 10 * 200 + 2 + 60);
    });
}

#[test]
fn a_dump_that_breaks_off_makes_no_baseline_and_loses_nothing() {
    let (_directory, world) = world();
    world.kernel(|kernel| {
        (1..=10).for_each(|port| kernel.open(port));
        kernel.dumps_break_off = true;
    });
    world.session();
    assert!(!world.spool.join("checkpoint").exists(), "half a table is no baseline");
    assert_eq!(world.store(|store| store.answers), 0, "nothing is sent without one");
    world.kernel(|kernel| kernel.dumps_break_off = false);
    world.session();
    carry_all(&world, 50);
    world.kernel(|kernel| kernel.dumps_break_off = true);
    world.session();
    carry_all(&world, 50);
    world.kernel(|kernel| kernel.dumps_break_off = false);
    world.session();
    assert_eq!(world.store(|store| store.total()), 10 * 200);
    assert_eq!(world.store(|store| sum(&store.gaps(GapReason::AgentDown)).0), 0, "nothing is gone");
}

#[test]
fn answers_that_are_lost_count_nothing_twice() {
    let (_directory, world) = begun();
    world.store(|store| store.mood = Mood::LosesAnswers);
    for _ in 0..3 {
        carry_all(&world, 100);
        world.session();
    }
    assert!(world.files("frames").len() >= 3, "what was not answered is kept");
    world.store(|store| store.mood = Mood::Accepts);
    world.session();
    assert_eq!(world.store(|store| store.total()), 10 * 600);
    assert!(world.store(|store| store.known) >= 1);
    assert_eq!(world.files("frames").len(), 0, "answered and covered: deleted");
    assert_eq!(world.files("quarantine").len(), 0);
}

#[test]
fn a_refused_batch_goes_to_quarantine_and_is_declared_once() {
    let (_directory, world) = begun();
    carry_all(&world, 100);
    world.store(|store| store.mood = Mood::Refuses);
    world.session();
    assert_eq!(world.store(|store| store.total()), 0);
    let quarantined = world.files("quarantine").len();
    assert!(quarantined >= 1);
    world.store(|store| store.mood = Mood::Accepts);
    for _ in 0..3 {
        carry_all(&world, 7);
        world.session();
    }
    let (declared, total) = world.store(|store| (store.gaps(GapReason::Refused), store.total()));
    assert_eq!(total, 10 * 3 * 14, "what came later is stored");
    assert_eq!(world.files("quarantine").len(), quarantined);
    assert_eq!(sum(&declared), (0, 10, 10 * 200), "{declared:?}");
}

#[test]
fn a_refused_batch_is_declared_while_the_agent_runs_on() {
    let (_directory, world) = begun();
    let (ended, _) = world.while_running(|| {
        until("the first ticks", || world.status().ticks > 2);
        world.store(|store| store.mood = Mood::Refuses);
        carry_all(&world, 100);
        until("a refusal", || !world.files("quarantine").is_empty());
        world.store(|store| store.mood = Mood::Accepts);
        until("its declaration", || {
            world.store(|store| !store.gaps(GapReason::Refused).is_empty())
        });
    });
    ended.unwrap();
    let declared = world.store(|store| sum(&store.gaps(GapReason::Refused)));
    let stored = world.store(|store| store.total());
    assert_eq!(stored + declared.2, 10 * 200, "each byte is stored or declared");
}

#[test]
fn a_stop_ends_soon_whatever_the_store_says() {
    for mood in [Mood::Retries(Duration::from_mins(10)), Mood::Refuses, Mood::LosesAnswers] {
        let (_directory, world) = begun();
        world.store(|store| store.mood = mood);
        let (ended, took) = world.while_running(|| {
            carry_all(&world, 100);
            let before = world.store(|store| store.answers);
            until("an answer", || world.store(|store| store.answers) > before);
        });
        ended.unwrap();
        assert!(took < Duration::from_secs(5), "{mood:?}: {took:?}");
        world.store(|store| store.mood = Mood::Accepts);
        world.session();
        let refused = world.store(|store| sum(&store.gaps(GapReason::Refused)).2);
        assert_eq!(world.store(|store| store.total()) + refused, 10 * 200, "{mood:?}");
    }
}

#[test]
fn why_delivery_waits_is_said_and_then_forgotten() {
    let (_directory, world) = begun();
    world.store(|store| store.mood = Mood::Retries(Duration::from_millis(10)));
    let (ended, _) = world.while_running(|| {
        carry_all(&world, 100);
        until("the reason", || {
            world.status().waiting_because.as_deref() == Some("the store rests")
        });
        assert!(world.status().undelivered > 0 && world.status().spool_bytes > 0);
        world.store(|store| store.mood = Mood::Accepts);
        until("no reason", || world.status().waiting_because.is_none());
    });
    ended.unwrap();
}

/// Kills an agent between two ticks: three connections were seen to end since the last seal.
fn killed_with_last_words() -> (TempDir, World) {
    let (directory, mut world) = begun();
    world.interval = Duration::from_hours(1);
    let copy = directory.path().join("killed");
    let (ended, _) = world.while_running(|| {
        // The second look after a start comes after a second; then the long interval begins.
        until("two ticks", || world.status().ticks >= 2);
        carry_all(&world, 100);
        world.kernel(|kernel| (1..=3).for_each(|port| kernel.end(port)));
        let open = || world.files("").into_iter().rfind(|path| is_open(path)).unwrap();
        // Three of them: each takes more than 80 bytes.
        until("the last words", || fs::metadata(open()).is_ok_and(|found| found.len() > 240));
        copy_world(&world, &copy);
        world.store(|store| store.mood = Mood::Retries(Duration::from_secs(1)));
    });
    ended.unwrap();
    world.store(|store| store.mood = Mood::Accepts);
    world.spool = copy;
    (directory, world)
}

fn is_open(path: &std::path::Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with("open-")
}

fn copy_world(world: &World, copy: &std::path::Path) {
    let mut world = World::new(world.spool.clone());
    world.left_by_a_kill(copy.to_owned());
}

#[test]
fn a_kill_loses_no_last_word() {
    let (_directory, world) = killed_with_last_words();
    assert_eq!(world.store(|store| store.total()), 0);
    world.session();
    assert_eq!(world.store(|store| store.total()), 10 * 200);
    let gone = world.store(|store| sum(&store.gaps(GapReason::AgentDown)));
    assert_eq!(gone.0, 0, "all of them were heard");
    world.session();
    assert_eq!(world.store(|store| store.total()), 10 * 200, "and are not heard again");
}

#[test]
fn a_torn_last_word_is_declared_and_the_others_are_billed() {
    let (_directory, world) = killed_with_last_words();
    let open: Vec<_> = world.files("").into_iter().filter(|path| is_open(path)).collect();
    let torn = open.last().unwrap();
    let length = fs::metadata(torn).unwrap().len();
    fs::OpenOptions::new().write(true).open(torn).unwrap().set_len(length - 3).unwrap();
    world.session();
    assert_eq!(world.store(|store| store.total()), 9 * 200);
    let gaps = world.store(|store| store.gaps(GapReason::AgentDown));
    assert_eq!(sum(&gaps).0, 1, "one is gone and nobody heard how far it came: {gaps:?}");
    assert!(gaps.iter().any(|gap| gap.bytes_bound == Some(7)), "the bound is declared");
}

#[test]
fn events_the_kernel_dropped_are_declared() {
    let (_directory, world) = begun();
    world.kernel(|kernel| {
        kernel.entries.remove(&4);
        kernel.lost = 1;
    });
    world.session();
    let lost = world.store(|store| store.gaps(GapReason::EventsLost));
    assert_eq!(sum(&lost).0, 1);
}

#[test]
fn a_frame_damaged_before_a_checkpoint_costs_only_itself() {
    let (_directory, world) = begun();
    world.store(|store| store.mood = Mood::Retries(Duration::from_millis(1)));
    for _ in 0..3 {
        carry_all(&world, 100);
        world.session();
    }
    // Each session's first batch has its records.
    let frames = world.files("frames");
    assert!(frames.len() >= 3, "{frames:?}");
    let middle = frames
        .iter()
        .filter(|path| fs::metadata(path).unwrap().len() > 400)
        .nth(1)
        .expect("three batches hold records");
    let mut bytes = fs::read(middle).unwrap();
    let half = bytes.len() / 2;
    bytes[half] ^= 0x10;
    fs::write(middle, bytes).unwrap();
    world.store(|store| store.mood = Mood::Accepts);
    world.session();
    world.session();
    assert_eq!(world.store(|store| store.total()), 2 * 10 * 200, "the others are stored");
    assert_eq!(world.files("quarantine").len(), 1);
    assert_eq!(world.store(|store| store.gaps(GapReason::SpoolDamaged).len()), 1, "declared once");
}

#[test]
fn a_frame_that_changes_on_the_disk_while_weir_runs_is_declared() {
    let (_directory, world) = begun();
    world.store(|store| store.mood = Mood::Retries(Duration::from_millis(5)));
    let (ended, _) = world.while_running(|| {
        carry_all(&world, 100);
        let full = || {
            let large = |path: &std::path::PathBuf| fs::metadata(path).is_ok_and(|f| f.len() > 400);
            world.files("frames").into_iter().find(large)
        };
        until("a batch", || full().is_some());
        fs::write(full().unwrap(), b"nonsense").unwrap();
        world.store(|store| store.mood = Mood::Accepts);
        until("its declaration", || {
            world.store(|store| !store.gaps(GapReason::SpoolDamaged).is_empty())
        });
    });
    ended.unwrap();
    assert_eq!(world.files("quarantine").len(), 1);
}

#[test]
fn a_full_spool_drops_the_oldest_and_declares_it_exactly() {
    let (_directory, mut world) = begun();
    world.limits.bytes = 4_000;
    world.store(|store| store.mood = Mood::Retries(Duration::from_millis(1)));
    for _ in 0..12 {
        carry_all(&world, 100);
        world.session();
    }
    let held: u64 =
        world.files("frames").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    // The newest batch is never dropped, and notices take their place.
    assert!(held < 8_000, "{held} bytes are held");
    world.limits.bytes = 1 << 20;
    world.store(|store| store.mood = Mood::Accepts);
    world.session();
    let (stored, gaps) = world.store(|store| (store.total(), store.gaps(GapReason::SpoolFull)));
    let (_, records, bytes) = sum(&gaps);
    assert!(!gaps.is_empty() && stored > 0);
    assert_eq!(stored + bytes, 12 * 10 * 200, "each byte is stored or declared");
    assert_eq!(bytes, records * 200, "every record held 200 bytes");
    assert_eq!(world.files("frames").len(), 0, "no hole keeps anything waiting");
}

#[test]
fn a_dropped_batch_keeps_what_it_had_to_declare() {
    let (_directory, mut world) = begun();
    world.limits.bytes = 1;
    world.store(|store| store.mood = Mood::Retries(Duration::from_millis(1)));
    world.kernel(|kernel| kernel.lost = 5);
    for _ in 0..4 {
        carry_all(&world, 100);
        world.session();
    }
    world.store(|store| store.mood = Mood::Accepts);
    world.session();
    let lost = world.store(|store| store.gaps(GapReason::EventsLost));
    assert_eq!(sum(&lost).0, 5, "{lost:?}");
}

#[test]
fn nothing_to_do_is_a_clean_end() {
    let (_directory, world) = world();
    world.run(&AtomicBool::new(true)).unwrap();
    assert!(world.spool.join("checkpoint").exists());
    assert_eq!(world.store(|store| store.total()), 0);
    world.kernel(|kernel| {
        kernel.open(1);
        kernel.carry(1, 9);
        assert_eq!(kernel.bytes(1), 18);
    });
    world.session();
    assert_eq!(world.store(|store| store.of(1)), 18);
}
