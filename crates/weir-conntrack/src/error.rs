//! What can go wrong at the kernel's edge.

use std::io;
use std::time::Duration;

use crate::netlink::Malformed;
use crate::procfs::ProcfsError;

/// An operation that failed, and on what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a netlink socket failed.
    #[error("cannot {operation}")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel asks for a capability that this process does not have.
    #[error(
        "cannot {operation}: this needs the capability CAP_NET_ADMIN; run as root, or grant it \
         with `setcap cap_net_admin+ep {program}`, or in Kubernetes set \
         securityContext.capabilities.add: [NET_ADMIN] on the container"
    )]
    NotPermitted {
        /// What was tried.
        operation: &'static str,
        /// Path of the running program, for the command in the message.
        program: String,
    },
    /// The kernel answered a request with an error (`NLMSG_ERROR`, or in `NLMSG_DONE`).
    #[error("the kernel refused to {operation}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The kernel said that it dropped part of an answer (`NLMSG_OVERRUN`, `ENOBUFS`).
    #[error("the answer was incomplete: the receive buffer overran while trying to {operation}")]
    Overrun {
        /// What was asked.
        operation: &'static str,
    },
    /// No answer came.
    #[error("no answer from the kernel within {} s to the request to {operation}", .waited.as_secs())]
    Silent {
        /// What was asked.
        operation: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// A datagram was longer than the buffer, so its end is lost.
    #[error(
        "cannot {operation}: a netlink datagram of {size} bytes came into {room} bytes of room"
    )]
    Cut {
        /// What was asked.
        operation: &'static str,
        /// Bytes of the datagram.
        size: usize,
        /// Bytes of the buffer.
        room: usize,
    },
    /// The kernel's bytes are not what its headers promise.
    #[error("cannot read the answer to the request to {operation}")]
    Malformed {
        /// What was asked.
        operation: &'static str,
        /// What is wrong with it.
        #[source]
        source: Malformed,
    },
    /// A file of `/proc` could not be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The table's text form cannot be read.
    #[error(transparent)]
    Procfs(#[from] ProcfsError),
}

impl Error {
    /// A failed system call; a refused permission gets its own variant.
    pub(crate) fn call(operation: &'static str, source: io::Error) -> Self {
        if is_permission(&source) {
            return Self::not_permitted(operation);
        }
        Self::Socket { operation, source }
    }

    /// The (positive) error number of a kernel's answer.
    pub(crate) fn answer(operation: &'static str, errno: i32) -> Self {
        let source = io::Error::from_raw_os_error(errno);
        if is_permission(&source) {
            return Self::not_permitted(operation);
        }
        Self::Refused { operation, source }
    }

    pub(crate) fn malformed(operation: &'static str) -> impl FnOnce(Malformed) -> Self {
        move |source| Self::Malformed { operation, source }
    }

    /// The error number of the kernel's answer, where the kernel answered with one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Socket { source, .. }
            | Self::Refused { source, .. }
            | Self::File { source, .. } => source.raw_os_error(),
            Self::NotPermitted { .. } => Some(libc::EPERM),
            _ => None,
        }
    }

    fn not_permitted(operation: &'static str) -> Self {
        let program = std::env::current_exe()
            .map_or_else(|_| String::from("weir"), |path| path.display().to_string());
        Self::NotPermitted { operation, program }
    }
}

fn is_permission(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}
