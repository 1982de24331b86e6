//! Doing something inside of a namespace without another program.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::thread;

use crate::error::{LabError, io_error};

/// Runs `work` on a thread of its own inside the namespace; threads that it starts are there too.
pub(crate) fn inside<T: Send>(
    space: &str,
    work: impl FnOnce() -> Result<T, LabError> + Send,
) -> Result<T, LabError> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(space)?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread into a namespace, for the rest of its life.
pub(crate) fn enter(space: &str) -> Result<(), LabError> {
    let path = format!("/run/netns/{space}");
    let file = File::open(&path).map_err(io_error("open", &path))?;
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: the descriptor is open for the whole call, which touches no memory.
    let code = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    if code == 0 { Ok(()) } else { Err(io_error("enter", &path)(io::Error::last_os_error())) }
}
