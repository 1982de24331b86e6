//! From a cgroup to the unit or container that it is.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;

use super::Owner;

/// The most cgroups that are looked at in one walk.
const MAX_CGROUPS: usize = 65_536;
/// A container's id is cut to this, as the runtimes' own listings do.
const CONTAINER_CHARACTERS: usize = 12;
/// A container's full id.
const CONTAINER_ID_CHARACTERS: usize = 64;

/// The machine's cgroups, by id.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    /// Where the unified hierarchy is mounted, if it is.
    mount: Option<PathBuf>,
    /// `None`: the cgroup does not exist or says nothing about whose it is.
    by_id: HashMap<u64, Option<Arc<Owner>>>,
}

impl Cgroups {
    /// Finds the unified hierarchy; on a hybrid system it is `/sys/fs/cgroup/unified`.
    pub(super) fn of_this_machine() -> Self {
        let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
        Self { mount: unified_mount(&mounts), by_id: HashMap::new() }
    }

    /// Where the unified hierarchy is mounted.
    #[cfg(test)]
    pub(super) fn mount(&self) -> Option<&Path> {
        self.mount.as_deref()
    }

    /// True when a walk might teach something about this id.
    pub(super) fn is_new(&self, id: u64) -> bool {
        self.mount.is_some() && !self.by_id.contains_key(&id)
    }

    /// Whose sockets those of this cgroup are, as far as the cgroup says.
    pub(super) fn owner(&self, id: u64) -> Option<Arc<Owner>> {
        self.by_id.get(&id).cloned().flatten()
    }

    /// Learns the ids of all cgroups there are: a cgroup's id is the inode number of its
    /// directory. The ids in `asked` that are not among them are known not to be.
    pub(super) fn walk(&mut self, asked: &[u64]) {
        let Some(mount) = &self.mount else { return };
        let before = std::mem::take(&mut self.by_id);
        let root = fs::metadata(mount).map(|metadata| metadata.ino());
        let mut waiting: Vec<(u64, PathBuf)> =
            root.ok().map(|id| (id, mount.clone())).into_iter().collect();
        while let Some((id, directory)) = waiting.pop() {
            let owner = match before.get(&id) {
                Some(owner) => owner.clone(),
                None => {
                    relative(mount, &directory).and_then(|path| owner_of_path(&path)).map(Arc::new)
                }
            };
            self.by_id.insert(id, owner);
            // A cgroup may vanish while it is read; its children go with it.
            let children = fs::read_dir(&directory).into_iter().flatten().flatten();
            for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()))
            {
                if self.by_id.len() + waiting.len() < MAX_CGROUPS {
                    waiting.push((child.ino(), child.path()));
                }
            }
        }
        for id in asked {
            self.by_id.entry(*id).or_default();
        }
    }
}

fn relative(mount: &Path, directory: &Path) -> Option<String> {
    directory.strip_prefix(mount).ok().map(|path| format!("/{}", path.display()))
}

/// The mount point of the first `cgroup2` file system in a `mountinfo` file (`proc(5)`).
fn unified_mount(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let mount_point = fields.nth(4)?;
        // Optional fields end at a lone dash, after which comes the file system's type.
        fields.find(|field| *field == b"-")?;
        (fields.next()? == b"cgroup2").then(|| unescaped(mount_point))
    })
}

/// Undoes the octal escapes (`\040`) of `mountinfo`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

/// Whose a process is, by the text of its `/proc/PID/cgroup` (`cgroups(7)`): a container known to
/// any hierarchy, else the unit known to the unified or systemd's own.
pub(super) fn owner_of_process(text: &str) -> Option<Owner> {
    let lines = || {
        text.lines().filter_map(|line| {
            let (_, line) = line.split_once(':')?;
            line.split_once(':')
        })
    };
    let container = lines().find_map(|(_, path)| container_of_path(path));
    container.map(Owner::container).or_else(|| {
        lines()
            .filter(|(controllers, _)| controllers.is_empty() || *controllers == "name=systemd")
            .find_map(|(_, path)| unit_of_path(path))
            .map(Owner::unit)
    })
}

fn owner_of_path(path: &str) -> Option<Owner> {
    container_of_path(path).map(Owner::container).or_else(|| unit_of_path(path).map(Owner::unit))
}

/// The innermost container's id, cut to 12 characters.
fn container_of_path(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|segment| {
        let segment = segment.strip_suffix(".scope").unwrap_or(segment);
        if let Some(name) = segment.strip_prefix("lxc.payload.") {
            return (!name.is_empty()).then_some(name);
        }
        // docker-ID, cri-containerd-ID, crio-ID, libpod-ID; with colons where containerd's own
        // cgroup holds them (…slice:cri-containerd:ID); a bare ID where cgroupfs is the driver.
        let id = segment.rsplit(['-', ':']).next()?;
        let is_id = id.len() == CONTAINER_ID_CHARACTERS
            && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_id.then(|| id.get(..CONTAINER_CHARACTERS))?
    })
}

/// The innermost systemd unit, unless it says less than the executable's name would.
fn unit_of_path(path: &str) -> Option<&str> {
    let unit = path.rsplit('/').find(|segment| {
        let is_unit = |suffix| segment.strip_suffix(suffix).is_some_and(|name| !name.is_empty());
        is_unit(".service") || is_unit(".scope")
    })?;
    // systemd itself, which also makes the sockets that it hands on; and login sessions, whose
    // numbers mean nothing.
    let says_little = unit == "init.scope" || unit.starts_with("session-");
    (!says_little).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1fb1d2a4c96de8ef9b8b8c9b0a5e7f3d1fb1d2a4c96de8ef9b8b8c9b0a5e7f3d";

    fn check(path: &str, expected: &str) {
        let owner = owner_of_path(&path.replace("ID", ID));
        let name = owner.as_ref().map(|owner| match (&owner.unit, &owner.container) {
            (Some(unit), None) => format!("unit {unit}"),
            (None, Some(container)) => format!("container {container}"),
            other => panic!("{path}: {other:?}"),
        });
        assert_eq!(name.as_deref().unwrap_or("nobody"), expected, "{path}");
    }

    #[test]
    fn units() {
        check("/system.slice/nginx.service", "unit nginx.service");
        check("/system.slice/system-getty.slice/getty@tty1.service", "unit getty@tty1.service");
        check("/system.slice/postgresql.service/worker-3", "unit postgresql.service");
        check(r"/system.slice/dev-disk\x2dx.service", r"unit dev-disk\x2dx.service");
        check(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service",
            "unit sync.service",
        );
        check("/machine.slice/machine-qemu.scope", "unit machine-qemu.scope");
        check("/user.slice/user-1000.slice/session-3.scope", "nobody");
        check("/user.slice/user-1000.slice/user@1000.service/init.scope", "nobody");
        check("/init.scope", "nobody");
        check("/system.slice", "nobody");
        check("/.service", "nobody");
        check("/", "nobody");
        check("", "nobody");
    }

    #[test]
    fn containers() {
        let id = "container 1fb1d2a4c96d";
        check("/docker/ID", id);
        check("/system.slice/docker-ID.scope", id);
        check("/system.slice/docker-ID.scope/init", id);
        check("/docker/ID/system.slice/nginx.service", id);
        check("/kubepods/burstable/pod0a1b2c3d-1111-2222-3333-444455556666/ID", id);
        check(
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0a1b_2c.slice/cri-containerd-ID.scope",
            id,
        );
        check("/kubepods.slice/kubepods-pod0a1b_2c.slice/crio-ID.scope", id);
        check("/kubepods.slice/kubepods-pod0a1b_2c.slice/crio-ID.scope/container", id);
        check("/system.slice/containerd.service/kubepods-pod0a1b.slice:cri-containerd:ID", id);
        check("/machine.slice/libpod-ID.scope/container", id);
        check("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", id);
        check("/libpod_parent/libpod-ID", id);
        check("/system.slice/nerdctl-ID.scope", id);
        check("/lxc.payload.web1/system.slice/nginx.service", "container web1");
        // A container in a container: the inner one.
        check(&format!("/docker/{}/kubelet.slice/cri-containerd-ID.scope", "0".repeat(64)), id);
        // Not an id: too short, or not lower-case hexadecimal.
        check("/docker/1fb1d2a4c96d", "nobody");
        check(&format!("/docker/{}", "g".repeat(64)), "nobody");
        check(&format!("/docker/{}", "é".repeat(32)), "nobody");
    }

    #[test]
    fn a_process_is_named_by_the_hierarchy_that_knows() {
        let owner = |text: &str| owner_of_process(&text.replace("ID", ID));
        let v2 = "0::/system.slice/ssh.service\n";
        assert_eq!(owner(v2), Some(Owner::unit("ssh.service")));
        let hybrid = "4:memory:/system.slice\n1:name=systemd:/system.slice/cron.service\n0::/\n";
        assert_eq!(owner(hybrid), Some(Owner::unit("cron.service")));
        let docker_v1 = "4:memory:/docker/ID\n1:name=systemd:/system.slice/docker.service\n";
        assert_eq!(owner(docker_v1), Some(Owner::container("1fb1d2a4c96d")));
        // A controller's path is not systemd's.
        assert_eq!(owner("4:memory:/x.service\n"), None);
        assert_eq!(owner("nonsense\n::\n"), None);
    }

    #[test]
    fn the_unified_hierarchy_is_found() {
        let hybrid = b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/my\\040cgroup rw shared:9 master:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(unified_mount(hybrid), Some("/sys/fs/my cgroup".into()));
        assert_eq!(unified_mount(b"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw\n"), None);
        assert_eq!(unified_mount(b"cgroup2\n- cgroup2\n\\\n\n"), None);
    }

    #[test]
    fn a_walk_learns_this_machine_s_cgroups() {
        let mut cgroups = Cgroups::of_this_machine();
        let Some(mount) = cgroups.mount.clone() else {
            assert!(std::env::var_os("CI").is_none(), "no unified cgroup hierarchy in CI");
            println!("SKIPPED: no unified cgroup hierarchy is mounted here");
            return;
        };
        let root = fs::metadata(mount).unwrap().ino();
        assert!(cgroups.is_new(root) && cgroups.is_new(u64::MAX));
        cgroups.walk(&[u64::MAX]);
        assert!(!cgroups.is_new(root) && !cgroups.is_new(u64::MAX));
        assert_eq!((cgroups.owner(root), cgroups.owner(u64::MAX)), (None, None));
    }
}
