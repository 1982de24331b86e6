//! What can go wrong in the agent, with the operation and what it was done to.

use std::io;
use std::path::{Path, PathBuf};

use weir_flow::frame::FrameError;

/// What can go wrong in the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Reading conntrack failed.
    #[error(transparent)]
    Conntrack(#[from] weir_conntrack::Error),
    /// A file or directory of the spool could not be used.
    #[error("cannot {operation} {}", path.display())]
    Spool {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent uses the spool.
    #[error(
        "the spool {} is in use by another weir: stop it first, or use another directory",
        path.display()
    )]
    Locked {
        /// The spool's directory.
        path: PathBuf,
    },
    /// The spool's own files contradict themselves.
    #[error(
        "{} is damaged ({what}): move the directory {} aside and weir begins a new spool; what this \
         one held and had not delivered is lost with it",
        path.display(),
        path.parent().unwrap_or(path).display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A frame that was just checked does not decode.
    #[error("batch {sequence} does not decode")]
    Frame {
        /// Its number.
        sequence: u64,
        /// Why.
        source: FrameError,
    },
    /// A kernel file could not be read.
    #[error("cannot read {path}")]
    Kernel {
        /// The file.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// There are more TCP sockets than are followed.
    #[error(
        "this machine has more than {limit} TCP connections, the most that are followed by their \
         sockets: run as root, or grant CAP_NET_ADMIN, to read connection tracking instead"
    )]
    TooManySockets {
        /// The most that are followed.
        limit: usize,
    },
    /// A thread of the agent could not be started or has died.
    #[error("the {thread} thread is gone")]
    Thread {
        /// Which.
        thread: &'static str,
    },
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl AgentError {
    pub(crate) fn spool(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Spool { operation, path, source }
    }
}
