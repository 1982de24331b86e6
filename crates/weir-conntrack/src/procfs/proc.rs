//! What the kernel is and how much it may be asked for.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// `PROC_SUPER_MAGIC` of `include/uapi/linux/magic.h`.
const PROC_SUPER_MAGIC: libc::c_long = 0x9fa0;

/// How much is read at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the kernel's own file.
    pub entries: u64,
    /// Bytes of a copy, which costs the kernel nothing.
    pub copy_bytes: u64,
    /// This kernel begins each read of 4 KiB with a walk from the table's start.
    pub slow: bool,
}

impl Limits {
    /// The most entries where the cost grows with their square: about a second of one core.
    const SLOW_ENTRIES: u64 = 20_000;
    /// The most entries where the cost grows with their number: about a second of one core.
    const ENTRIES: u64 = 500_000;
    /// The most bytes of a copy: more than a million entries.
    const COPY_BYTES: u64 = 256 << 20;

    /// What suits the running kernel. One whose version cannot be read is taken for a slow one.
    pub fn of_this_kernel() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self::of(&release)
    }

    fn of(release: &str) -> Self {
        let slow = version(release).is_none_or(|version| version < (6, 16));
        let entries = if slow { Self::SLOW_ENTRIES } else { Self::ENTRIES };
        Self { entries, copy_bytes: Self::COPY_BYTES, slow }
    }

    /// The same, with another limit of entries where one is given.
    #[must_use]
    pub fn with_entries(self, entries: Option<u64>) -> Self {
        Self { entries: entries.unwrap_or(self.entries), ..self }
    }
}

/// The first two numbers of a kernel's version.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// True when the file is the kernel's own and no copy.
pub(super) fn is_kernels(file: &File) -> bool {
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: all-zero is a valid statfs, a plain struct of integers.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: the descriptor is open while `file` lives, and `stat` is writable and large enough.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut stat) };
    result == 0 && stat.f_type == PROC_SUPER_MAGIC
}

/// Entries of the table whose text `path` is: `/proc/PID/net/stat` counts them beside it, in the
/// same network namespace. `None`: nobody says.
pub(super) fn count(path: &Path) -> Option<u64> {
    let statistics = path.parent()?.join("stat").join(path.file_name()?);
    let text = fs::read_to_string(statistics).ok()?;
    // A line of names, then a line for each processor, all with the same first number.
    let first = text.lines().nth(1)?.split_ascii_whitespace().next()?;
    u64::from_str_radix(first, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_6_16_are_slow_and_so_is_one_that_does_not_say() {
        for (release, slow) in [
            ("6.18.44-generic\n", false),
            ("6.16.0", false),
            ("7.0-rc1", false),
            ("6.15.11", true),
            ("5.14.0-427.el9.x86_64", true),
            ("", true),
            ("six", true),
            ("99999999999.1", true),
        ] {
            let limits = Limits::of(release);
            assert_eq!(limits.slow, slow, "{release}");
            assert_eq!(limits.entries, if slow { 20_000 } else { 500_000 });
        }
        assert_eq!(Limits::of("6.18").with_entries(Some(7)).entries, 7);
        assert_eq!(Limits::of("6.18").with_entries(None).entries, 500_000);
    }

    #[test]
    fn the_count_stands_beside_the_table() {
        let net = tempfile::tempdir().unwrap();
        let path = net.path().join("nf_conntrack");
        assert_eq!(count(&path), None);
        fs::create_dir(net.path().join("stat")).unwrap();
        let statistics = net.path().join("stat/nf_conntrack");
        fs::write(&statistics, "entries  found\n0000a1ff  00000000\n0000a1ff  00000007\n").unwrap();
        assert_eq!(count(&path), Some(0xa1ff));
        fs::write(&statistics, "entries  found\n").unwrap();
        assert_eq!(count(&path), None);
    }

    #[test]
    fn a_file_of_proc_is_the_kernels() {
        assert!(is_kernels(&File::open("/proc/self/stat").unwrap()));
        assert!(!is_kernels(&tempfile::tempfile().unwrap()));
    }
}
