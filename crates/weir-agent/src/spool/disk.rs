//! How full the disk is.

use std::fs::File;
use std::os::fd::AsRawFd as _;

/// Room on a disk, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// What an ordinary user may still write.
    pub(crate) free: u64,
    /// The whole disk.
    pub(crate) total: u64,
}

impl Room {
    /// What to believe of a disk that cannot be asked.
    pub(super) const PLENTY: Self = Self { free: u64::MAX, total: u64::MAX };
}

/// The room on the disk of `directory`.
#[expect(unsafe_code, reason = "std cannot ask how full a disk is")]
pub(crate) fn room(directory: &File) -> Option<Room> {
    // SAFETY: all-zero is a valid statvfs, a plain struct of integers.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open for the file's life and `stat` is valid to write to.
    let result = unsafe { libc::fstatvfs(directory.as_raw_fd(), &raw mut stat) };
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    (result == 0).then(|| Room { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
}
