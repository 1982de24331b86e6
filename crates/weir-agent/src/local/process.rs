//! From a socket's inode to the process that has it open.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::Owner;
use super::cgroup::owner_of_process;

/// The most open files that are looked at in one search.
const MAX_FILES: usize = 200_000;
/// Processes that had sockets lately, and are asked first.
const MAX_RECENT: usize = 64;

/// Searches `/proc` for the owners of sockets.
#[derive(Debug)]
pub(super) struct Processes {
    proc: PathBuf,
    recent: Vec<u32>,
}

/// How a search went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Searched {
    /// Some processes may not be looked into.
    pub(super) denied: bool,
    /// The search was cut off at its limit.
    pub(super) cut: bool,
}

impl Processes {
    pub(super) fn of_this_machine() -> Self {
        Self { proc: PathBuf::from("/proc"), recent: Vec::new() }
    }

    /// Removes from `wanted` the inodes whose owner is found, and puts their owners into `found`.
    pub(super) fn search(
        &mut self,
        wanted: &mut HashSet<u32>,
        found: &mut HashMap<u32, Arc<Owner>>,
    ) -> Searched {
        let mut searched = Searched::default();
        let mut files = 0;
        let mut successful = Vec::new();
        let recent = std::mem::take(&mut self.recent);
        let all = process_ids(&self.proc).into_iter().filter(|pid| !recent.contains(pid));
        for pid in recent.iter().copied().chain(all) {
            if wanted.is_empty() {
                break;
            }
            if files >= MAX_FILES {
                searched.cut = true;
                break;
            }
            match self.search_one(pid, wanted, found) {
                Ok((looked_at, hits)) => {
                    files += looked_at;
                    if hits > 0 {
                        successful.push(pid);
                    }
                }
                // A process that has ended meanwhile is not an error.
                Err(error) => searched.denied |= error.kind() == io::ErrorKind::PermissionDenied,
            }
        }
        successful.extend(recent);
        let mut seen = HashSet::new();
        successful.retain(|pid| seen.insert(*pid));
        successful.truncate(MAX_RECENT);
        self.recent = successful;
        searched
    }

    /// The number of files looked at, and of sockets found among them.
    fn search_one(
        &self,
        pid: u32,
        wanted: &mut HashSet<u32>,
        found: &mut HashMap<u32, Arc<Owner>>,
    ) -> io::Result<(usize, usize)> {
        let process = self.proc.join(pid.to_string());
        let mut owner: Option<Arc<Owner>> = None;
        let (mut files, mut hits) = (0, 0);
        for file in fs::read_dir(process.join("fd"))? {
            files += 1;
            let link = fs::read_link(file?.path());
            let Some(inode) = link.ok().and_then(|link| socket_inode(&link)) else { continue };
            if wanted.remove(&inode) {
                let owner = owner.get_or_insert_with(|| Arc::new(owner_of(&process)));
                found.insert(inode, Arc::clone(owner));
                hits += 1;
            }
        }
        Ok((files, hits))
    }
}

fn process_ids(proc: &Path) -> Vec<u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The inode of a link such as `socket:[4711]`.
fn socket_inode(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn owner_of(process: &Path) -> Owner {
    let cgroup = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    if let Some(owner) = owner_of_process(&cgroup) {
        return owner;
    }
    let executable = fs::read_link(process.join("exe")).ok().and_then(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        // The kernel marks an executable that was replaced while it runs.
        Some(name.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(name))
    });
    let name = executable.or_else(|| {
        let comm = fs::read_to_string(process.join("comm")).ok()?;
        Some(comm.trim_end().to_owned())
    });
    name.filter(|name| !name.is_empty()).map_or_else(Owner::gone, |name| Owner::executable(&name))
}

/// The inode of the machine's first process namespace (`PROC_PID_INIT_INO` in
/// `include/linux/proc_ns.h`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// True when no process is hidden from this one by a process namespace.
pub(super) fn sees_all() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link == Path::new(FIRST_NAMESPACE))
}

/// This process' effective user (`/proc/self/status`); `None` where `/proc` cannot be read.
pub(super) fn effective_uid() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A `/proc` with one process that has these sockets open.
    fn process(proc: &Path, pid: u32, exe: &str, cgroup: &str, inodes: &[u32]) {
        let process = proc.join(pid.to_string());
        fs::create_dir_all(process.join("fd")).unwrap();
        symlink(exe, process.join("exe")).unwrap();
        fs::write(process.join("cgroup"), cgroup).unwrap();
        symlink("/dev/null", process.join("fd/0")).unwrap();
        for (number, inode) in inodes.iter().enumerate() {
            let link = process.join(format!("fd/{}", number + 3));
            symlink(format!("socket:[{inode}]"), link).unwrap();
        }
    }

    #[test]
    fn sockets_are_found_and_named() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 10, "/usr/bin/redis-server", "0::/\n", &[100, 101]);
        process(proc.path(), 11, "/opt/app (deleted)", "0::/user.slice/session-1.scope\n", &[200]);
        process(proc.path(), 12, "/usr/sbin/nginx", "0::/system.slice/nginx.service\n", &[300]);
        fs::create_dir(proc.path().join("sys")).unwrap();

        let mut processes = Processes { proc: proc.path().to_owned(), recent: vec![999] };
        let mut wanted: HashSet<u32> = [100, 200, 300, 400].into();
        let mut found = HashMap::new();
        let searched = processes.search(&mut wanted, &mut found);
        assert_eq!(searched, Searched::default());
        assert_eq!(wanted, [400].into());
        assert_eq!(*found[&100], Owner::executable("redis-server"));
        assert_eq!(*found[&200], Owner::executable("app"));
        assert_eq!(*found[&300], Owner::unit("nginx.service"));
        assert_eq!(processes.recent.len(), 4);
    }

    #[test]
    fn only_socket_links_have_an_inode() {
        let inode = |link: &str| socket_inode(Path::new(link));
        assert_eq!(inode("socket:[4711]"), Some(4711));
        for other in ["pipe:[4711]", "socket:[]", "socket:[99999999999]", "socket:[1", "/a"] {
            assert_eq!(inode(other), None, "{other}");
        }
    }

    #[test]
    fn the_effective_user_is_known() {
        assert!(effective_uid().is_some());
    }
}
