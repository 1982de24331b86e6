//! Opening a spool in whatever state it is found.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use weir_agent::{AgentError, Recovered, Spool, clock};
use weir_flow::WallTime;
use weir_flow::batch::GapReason;

use crate::script::{Mood, ROOMY, World, copy_all, days_later, said, until};

const BOOT: u128 = 7;

fn open_at(directory: &Path, now: WallTime) -> Result<(Spool, Recovered), AgentError> {
    Spool::open(directory, BOOT, now, ROOMY)
}

fn open(directory: &Path) -> Result<(Spool, Recovered), AgentError> {
    open_at(directory, clock::wall())
}

/// A spool with a checkpoint and two batches that nobody took.
fn used() -> (TempDir, World) {
    let directory = TempDir::new().unwrap();
    let world = World::new(directory.path().join("spool"));
    world.kernel(|kernel| (1..=5).for_each(|port| kernel.open(port)));
    world.session();
    world.store(|store| store.mood = Mood::Retries(Duration::from_millis(1)));
    world.kernel(|kernel| (1..=5).for_each(|port| kernel.carry(port, 100)));
    world.session();
    (directory, world)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn who_talked_to_whom_is_nobody_elses_business() {
    let (_directory, world) = used();
    for name in ["", "frames", "quarantine"] {
        assert_eq!(mode(&world.spool.join(name)), 0o700, "{name:?}");
    }
}

#[test]
fn a_second_opener_is_told_and_changes_nothing() {
    let (_directory, world) = used();
    let (first, _) = open(&world.spool).unwrap();
    let frames = world.files("frames");
    let error = open(&world.spool).unwrap_err();
    assert!(matches!(error, AgentError::Locked { .. }), "{error}");
    assert!(said(&error).contains(world.spool.to_str().unwrap()), "{error}");
    assert_eq!(world.files("frames"), frames);
    drop(first);
    open(&world.spool).unwrap();
}

#[test]
fn a_spool_without_a_checkpoint_begins_anew() {
    let (_directory, world) = used();
    let (first, recovered) = open(&world.spool).unwrap();
    let epoch = first.epoch();
    assert!(recovered.last_sealed.is_some() && recovered.next_sequence > 1);
    drop(first);
    fs::remove_file(world.spool.join("checkpoint")).unwrap();
    let (second, recovered) = open(&world.spool).unwrap();
    assert_ne!(second.epoch(), epoch);
    assert_eq!((recovered.next_sequence, recovered.last_sealed), (1, None));
    assert!(recovered.ledger.is_baseline());
    assert_eq!(world.files("frames").len(), 0);
}

#[test]
fn half_written_files_are_removed_and_strangers_are_left_alone() {
    let (_directory, world) = used();
    let half = ["checkpoint-7.tmp", "epoch.tmp", "frames/00000000000000000099.tmp"];
    for name in half {
        fs::write(world.spool.join(name), b"WEIR").unwrap();
    }
    for name in ["notes.txt", "frames/readme"] {
        fs::write(world.spool.join(name), b"mine").unwrap();
    }
    let (spool, recovered) = open(&world.spool).unwrap();
    assert_eq!(recovered.gaps, []);
    drop(spool);
    for name in half {
        assert!(!world.spool.join(name).exists(), "{name}");
    }
    for name in ["notes.txt", "frames/readme"] {
        assert!(world.spool.join(name).exists(), "{name}");
    }
}

/// The files of a spool and what is in them.
fn contents(world: &World) -> Vec<(PathBuf, Vec<u8>)> {
    let files = ["", "frames", "quarantine"].map(|name| world.files(name)).concat();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_damaged_checkpoint_is_named_with_what_to_do_and_nothing_is_touched() {
    let (_directory, world) = used();
    let checkpoint = world.spool.join("checkpoint");
    let good = fs::read(&checkpoint).unwrap();
    let mut damages: Vec<Vec<u8>> = (0..good.len()).map(|cut| good[..cut].to_vec()).collect();
    damages.extend((0..good.len()).map(|place| {
        let mut bytes = good.clone();
        bytes[place] ^= 0x04;
        bytes
    }));
    for bytes in damages {
        fs::write(&checkpoint, &bytes).unwrap();
        let before = contents(&world);
        let error = open(&world.spool).unwrap_err();
        let text = said(&error);
        assert!(matches!(error, AgentError::Damaged { .. }), "{text}");
        let directory = world.spool.display();
        assert!(text.starts_with(&format!("{} is damaged (", checkpoint.display())), "{text}");
        assert!(text.contains(&format!("move the directory {directory} aside")), "{text}");
        assert_eq!(contents(&world), before);
    }
    fs::write(&checkpoint, good).unwrap();
    open(&world.spool).unwrap();
}

#[test]
fn a_foreign_or_lost_epoch_is_refused() {
    let (_directory, world) = used();
    let epoch = world.spool.join("epoch");
    let cases = [
        ("00000000000000000000000000000007\n", "belongs to another epoch"),
        ("what\n", "not 32 hexadecimal digits"),
        ("", "not 32 hexadecimal digits"),
    ];
    for (text, expected) in cases {
        fs::write(&epoch, text).unwrap();
        let error = said(&open(&world.spool).unwrap_err());
        assert!(error.contains(expected) && error.contains("move the directory"), "{error}");
    }
    fs::remove_file(&epoch).unwrap();
    let error = said(&open(&world.spool).unwrap_err());
    assert!(error.contains("no epoch") && error.contains("move the directory"), "{error}");
}

#[test]
fn a_frame_of_another_spool_is_not_taken_for_ours() {
    let (_directory, world) = used();
    let (_other_directory, other) = used();
    let ours = world.files("frames").pop().unwrap();
    fs::copy(other.files("frames").pop().unwrap(), &ours).unwrap();
    let (_spool, recovered) = open(&world.spool).unwrap();
    let reasons: Vec<_> = recovered.gaps.iter().map(|gap| gap.reason).collect();
    assert_eq!(reasons, [GapReason::SpoolDamaged]);
    assert_eq!(world.files("quarantine").len(), 1);
}

#[test]
fn a_spool_that_is_too_old_is_set_aside_and_declared() {
    let (_directory, world) = used();
    let (spool, recovered) = open_at(&world.spool, days_later(0)).unwrap();
    let (epoch, sealed) = (spool.epoch(), recovered.last_sealed.unwrap());
    drop(spool);
    let later = days_later(2);
    let (spool, recovered) = open_at(&world.spool, later).unwrap();
    assert_ne!(spool.epoch(), epoch);
    assert!(recovered.ledger.is_baseline() && recovered.last_sealed.is_none());
    let [gap] = recovered.gaps[..] else { panic!("one gap: {:?}", recovered.gaps) };
    assert_eq!(gap.reason, GapReason::SpoolTooOld);
    assert_eq!((gap.from_seconds, gap.to_seconds), (sealed.seconds(), later.seconds()));
    assert_eq!((gap.connections, gap.records), (5, 5));
    let aside = world.spool.join(format!("expired-{epoch}"));
    assert!(aside.join("checkpoint").exists() && aside.join("frames").is_dir());
    drop(spool);
    // Nothing is declared twice: it was begun anew and has no checkpoint yet.
    let (_spool, recovered) = open_at(&world.spool, later).unwrap();
    assert_eq!(recovered.gaps, []);
}

#[test]
fn a_setting_aside_that_was_cut_off_does_not_stop_the_next_start() {
    let (_directory, world) = used();
    // The checkpoint moves first.
    fs::rename(world.spool.join("checkpoint"), world.spool.join("elsewhere")).unwrap();
    fs::remove_file(world.spool.join("epoch")).unwrap();
    let (_spool, recovered) = open(&world.spool).unwrap();
    assert!(recovered.ledger.is_baseline());
}

#[test]
fn batches_that_went_astray_are_declared() {
    let (_directory, world) = used();
    // As if the last checkpoint had covered one batch less: what follows it must be there.
    let frames = world.files("frames");
    let last = frames.last().unwrap();
    let number: u64 = last.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let astray = world.spool.join(format!("frames/{:020}", number + 3));
    fs::copy(last, &astray).unwrap();
    let (_spool, recovered) = open(&world.spool).unwrap();
    let reasons: Vec<_> = recovered.gaps.iter().map(|gap| gap.reason).collect();
    assert_eq!(reasons, [GapReason::SpoolDamaged; 2], "a hole, and a batch that belongs elsewhere");
    assert_eq!(recovered.next_sequence, number + 4, "a number is never used twice");
}

#[test]
fn a_damaged_batch_that_was_delivered_is_neither_declared_nor_billed_again() {
    let directory = TempDir::new().unwrap();
    let mut world = World::new(directory.path().join("spool"));
    world.kernel(|kernel| (1..=5).for_each(|port| kernel.open(port)));
    world.session();
    let copy = directory.path().join("left");
    let all_done = |frames: &[PathBuf]| !frames.is_empty() && frames.iter().all(|f| is_done(f));
    let earlier = world.status().last_tick;
    world
        .while_running(|| {
            // The first look ends with a checkpoint, which would cover what is carried before it.
            until("the first look is over", || world.status().last_tick > earlier);
            world.kernel(|kernel| (1..=5).for_each(|port| kernel.carry(port, 100)));
            // The agent goes on while its spool is copied: a copy it changed meanwhile is no good.
            until("all is stored, noted and copied", || {
                if world.store(|store| store.total()) != 5 * 200
                    || !all_done(&world.files("frames"))
                {
                    return false;
                }
                drop(fs::remove_dir_all(&copy));
                copy_all(&world.spool, &copy);
                all_done(&files_in(&copy.join("frames")))
            });
        })
        .0
        .unwrap();
    world.spool = copy;
    let done = world.files("frames");
    assert!(all_done(&done));
    for file in &done {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file, bytes).unwrap();
    }
    world.kernel(|kernel| (1..=5).for_each(|port| kernel.carry(port, 10)));
    world.session();
    world.kernel(|kernel| (1..=5).for_each(|port| kernel.carry(port, 1)));
    world.session();
    world.store(|store| {
        assert_eq!(store.gaps(GapReason::SpoolDamaged), []);
        assert_eq!(store.gaps(GapReason::AgentDown).len(), 3, "each time nobody looked");
        // Where a checkpoint covered the damaged batch already, what passed later is known, too.
        assert!([5 * 202, 5 * 222].contains(&store.total()), "{} billed", store.total());
    });
    assert!(world.files("frames").is_empty(), "a checkpoint covers them now");
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect()
}

fn is_done(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "done")
}

#[test]
fn an_answered_batch_is_not_offered_again_after_a_kill() {
    let directory = TempDir::new().unwrap();
    let mut world = World::new(directory.path().join("spool"));
    world.kernel(|kernel| (1..=5).for_each(|port| kernel.open(port)));
    world.session();
    let copy = directory.path().join("left");
    world
        .while_running(|| {
            world.kernel(|kernel| (1..=5).for_each(|port| kernel.carry(port, 100)));
            until("all is stored and noted", || {
                world.store(|store| store.total()) == 5 * 200
                    && world.files("frames").iter().all(|file| is_done(file))
            });
            copy_all(&world.spool, &copy);
        })
        .0
        .unwrap();
    // Between the two the first one sealed a little more: what the copy offers again is that.
    world.spool = copy;
    let (spool, recovered) = open(&world.spool).unwrap();
    assert_eq!(recovered.gaps, []);
    assert_eq!(spool.frames().load().undelivered, 0);
}
