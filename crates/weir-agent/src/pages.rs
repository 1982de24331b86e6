//! Small pages of memory, whatever the allocator would like.

/// Tells the kernel to give this process no transparent huge pages, from now on.
///
/// An allocator that asks for them (mimalloc does) pays for 2 MiB wherever it touches a few bytes:
/// a table of 250,000 connections took twice the memory. Nothing here gains speed by them. See
/// `PR_SET_THP_DISABLE` in prctl(2); a kernel that does not know it changes nothing.
pub fn keep_small() {
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: takes numbers and touches no memory of this process. All five are wanted by the
    // kernel, as long integers.
    let code = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1_u64, 0_u64, 0_u64, 0_u64) };
    if code != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "huge pages stay as the kernel has them; memory may look larger");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn the_kernel_says_so() {
        super::keep_small();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
        // Kernels before 5.0 have no such line.
        assert_eq!(line.map_or("0", str::trim), "0");
    }
}
