//! Whose namespaces are these?

use std::fmt;
use std::fs;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::command;
use crate::error::{LabError, io_error};

/// What all of the lab's namespaces begin with.
const PREFIX: &str = "weirlab-";
/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// The process that made a namespace, and which of its boxes it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunId {
    pid: u32,
    start: u64,
    count: u32,
}

impl RunId {
    pub(super) fn of_this_process() -> Result<Self, LabError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let start = start_of(pid).ok_or_else(|| {
            let unreadable = io::Error::other("no start time in it");
            io_error("read", "/proc/self/stat")(unreadable)
        })?;
        Ok(Self { pid, start, count: COUNT.fetch_add(1, Ordering::Relaxed) })
    }

    pub(super) fn space(self, place: &str) -> String {
        format!("{self}-{place}")
    }

    fn parse(space: &str) -> Option<Self> {
        let mut parts = space.strip_prefix(PREFIX)?.splitn(4, '-');
        let mut next = || parts.next();
        Some(Self {
            pid: next()?.parse().ok()?,
            start: next()?.parse().ok()?,
            count: next()?.parse().ok()?,
        })
    }

    fn is_alive(self) -> bool {
        start_of(self.pid) == Some(self.start)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}", self.pid, self.start, self.count)
    }
}

/// When a process began: field 22 of `/proc/PID/stat`, in clock ticks since boot. The second field
/// is the program's name in parentheses and may hold anything.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Refuses to go on without root.
pub(super) fn need_root() -> Result<(), LabError> {
    let status =
        fs::read_to_string("/proc/self/status").map_err(io_error("read", "/proc/self/status"))?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    match uid.and_then(|uid| uid.split_ascii_whitespace().nth(1)) {
        Some("0") => Ok(()),
        _ => Err(LabError::NotRoot),
    }
}

/// Removes the namespaces (and the processes in them) of runs that are no more. Returns the names.
pub fn clean() -> Result<Vec<String>, LabError> {
    let mut removed = Vec::new();
    let entries = match fs::read_dir(NAMES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(removed),
        Err(error) => return Err(io_error("list", NAMES)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(io_error("list", NAMES))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if RunId::parse(&name).is_some_and(|run| !run.is_alive()) {
            remove(&name)?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Ends what runs in a namespace and removes it.
pub(super) fn remove(space: &str) -> Result<(), LabError> {
    for signal in ["-TERM", "-KILL"] {
        // Only processes inside the namespace are listed: the lab started them all.
        let pids = command::run("ip", &["netns", "pids", space], "")?;
        let pids: Vec<&str> = pids.split_ascii_whitespace().collect();
        if pids.is_empty() {
            break;
        }
        // A process that ends by itself meanwhile makes `kill` fail, which is as good.
        drop(Command::new("kill").arg(signal).args(pids).output());
        thread::sleep(Duration::from_millis(200));
    }
    command::run("ip", &["netns", "del", space], "").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_names_its_run() {
        let run = RunId::of_this_process().unwrap();
        assert_eq!(RunId::parse(&run.space("pod-a-b")), Some(run));
        assert!(run.is_alive());
        assert!(!RunId { start: run.start + 1, ..run }.is_alive(), "a reused pid is another run");
    }

    #[test]
    fn other_peoples_namespaces_are_left_alone() {
        for name in ["weir-1-2-3-x", "weirlab-x", "weirlab-1", "weirlab-one-2-3-x", "cni-1234"] {
            assert_eq!(RunId::parse(name), None, "{name}");
        }
    }
}
