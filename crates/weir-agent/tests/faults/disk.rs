//! A real small disk that gets full, and one that cannot be written. Needs root to mount it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use weir_agent::{AgentError, Spool, clock};

use crate::script::{ROOMY, World, said, until};

/// A disk of its own, unmounted however the test ends.
struct Disk(TempDir);

impl Disk {
    /// `None`, loudly, when this process may not mount; in CI that is a failure.
    fn mount(kib: u32) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let root = fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0");
        assert!(root || std::env::var_os("CI").is_none(), "a small disk needs root, in CI too");
        if !root {
            std::io::stderr().write_all(b"SKIPPED: a small disk needs root\n").unwrap();
            return None;
        }
        let size = format!("size={kib}k");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "weir-test"])
            .arg(directory.path()));
        Some(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn set_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(self.path()));
    }

    /// Takes all the space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        for size in [4_096, 256, 16, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.path()));
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    let Some(disk) = Disk::mount(512) else { return };
    let world = World::new(disk.path().join("spool"));
    world.kernel(|kernel| (1..=40).for_each(|port| kernel.open(port)));
    world.session();
    let (ended, _) = world.while_running(|| {
        until("a tick", || world.status().ticks > 2);
        let filler = disk.fill();
        world.kernel(|kernel| {
            (1..=40).for_each(|port| kernel.carry(port, 1_000));
            (1..=5).for_each(|port| kernel.end(port));
        });
        until("the reason", || {
            world.status().waiting_because.is_some_and(|why| why.contains("No space left"))
        });
        // More happens while nothing can be written.
        world.kernel(|kernel| {
            (6..=40).for_each(|port| kernel.carry(port, 500));
            (6..=10).for_each(|port| kernel.end(port));
        });
        std::thread::sleep(Duration::from_millis(300));
        fs::remove_file(filler).unwrap();
        until("the rest", || world.store(|store| store.total()) == 40 * 2_000 + 35 * 1_000);
        until("no reason", || world.status().waiting_because.is_none());
    });
    ended.unwrap();
    assert_eq!(world.store(|store| store.total()), 40 * 2_000 + 35 * 1_000);
    assert_eq!(world.files("frames").len(), 0);
    world.session();
    assert_eq!(
        world.store(|store| store.total()),
        40 * 2_000 + 35 * 1_000,
        "nothing is billed twice"
    );
    let lost =
        world.store(|store| store.gaps.iter().map(|gap| gap.connections + gap.bytes).sum::<u64>());
    assert_eq!(lost, 0, "{:?}", world.store(|store| store.gaps.clone()));
}

#[test]
fn a_stop_on_a_full_disk_ends_soon_and_says_why() {
    let Some(disk) = Disk::mount(512) else { return };
    let world = World::new(disk.path().join("spool"));
    world.kernel(|kernel| (1..=40).for_each(|port| kernel.open(port)));
    world.session();
    let mut filler = PathBuf::new();
    let (ended, took) = world.while_running(|| {
        until("a tick", || world.status().ticks > 2);
        filler = disk.fill();
        world.kernel(|kernel| (1..=40).for_each(|port| kernel.carry(port, 1_000)));
        until("the reason", || world.status().waiting_because.is_some());
    });
    let error = said(&ended.unwrap_err());
    assert!(error.contains("No space left on device"), "{error}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    fs::remove_file(filler).unwrap();
    world.session();
    assert_eq!(world.store(|store| store.total()), 40 * 2_000, "the kernel had counted on");
}

#[test]
fn a_disk_that_cannot_be_written_is_named() {
    let Some(disk) = Disk::mount(256) else { return };
    let spool = disk.path().join("spool");
    disk.set_read_only();
    let error = Spool::open(&spool, 1, clock::wall(), ROOMY).unwrap_err();
    let text = said(&error);
    assert!(matches!(error, AgentError::Spool { .. }), "{text}");
    assert!(text.contains(spool.to_str().unwrap()) && text.contains("Read-only"), "{text}");
}
