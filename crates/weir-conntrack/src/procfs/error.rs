//! Why the text form cannot be read.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::line::LineError;

/// A file that was to be the table's text form, and is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcfsError {
    /// The file that was named does not exist.
    #[error("there is no {}; {}", path.display(), instead(existing))]
    Absent {
        /// The file.
        path: PathBuf,
        /// The usual places where there is one.
        existing: Vec<PathBuf>,
    },
    /// It is a directory.
    #[error("{} is a directory: name the file in it, such as {0}/nf_conntrack", path.display())]
    Directory {
        /// The path.
        path: PathBuf,
    },
    /// It is a pipe, a device or a socket.
    #[error(
        "{} is neither a file of /proc nor a regular file: copy its text to a file and name that",
        path.display()
    )]
    Special {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be opened or read.
    #[error("cannot read {}{}", path.display(), permission(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A copy without an entry. The kernel's own file may be empty: nothing is tracked.
    #[error(
        "{} is empty: a copy of the table has at least one entry; make it with `cat \
         /proc/net/nf_conntrack`",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It holds bytes that no text has.
    #[error("{} is not conntrack text: it is binary", path.display())]
    Binary {
        /// The file.
        path: PathBuf,
    },
    /// Its lines are not the kernel's.
    #[error(
        "{} is not conntrack text: line {line} cannot be read; expected lines as the kernel writes \
         them, such as `ipv4 2 tcp 6 431999 ESTABLISHED src=... dst=... sport=... dport=... src=... \
         dst=... sport=... dport=... use=1`",
        path.display()
    )]
    NotConntrack {
        /// The file.
        path: PathBuf,
        /// The first such line, counted from 1.
        line: u64,
        /// What is wrong with it.
        #[source]
        source: LineError,
    },
    /// The table is too large to be read as text.
    #[error(
        "{} has {} entries, more than the {limit} that are read as text{}; read them over netlink \
         (the default, needs CAP_NET_ADMIN)",
        path.display(),
        at_least(*entries, *limit),
        slowness(*slow)
    )]
    Large {
        /// The file.
        path: PathBuf,
        /// Entries, as far as known.
        entries: u64,
        /// The most that are read.
        limit: u64,
        /// This kernel takes more than twice the time for twice the entries.
        slow: bool,
    },
    /// A copy is too large.
    #[error(
        "{} has more than {} MiB, the most that is read of a copy: split it",
        path.display(),
        limit >> 20
    )]
    LargeFile {
        /// The file.
        path: PathBuf,
        /// The most bytes that are read.
        limit: u64,
    },
    /// None of the usual places has a usable file.
    #[error(
        "no conntrack text was found{}; load it with `modprobe nf_conntrack`, which needs a kernel \
         built with CONFIG_NF_CONNTRACK_PROCFS, or read the table over netlink (the default, needs \
         CAP_NET_ADMIN)",
        tried(attempts)
    )]
    NoneFound {
        /// What was there, and why it was not taken.
        attempts: Vec<Tried>,
    },
}

/// A usual place whose file was not taken.
#[derive(Debug)]
pub struct Tried {
    /// The file.
    pub path: PathBuf,
    /// Why not; `None`: the kernel's own file, in which nothing stands.
    pub because: Option<Box<ProcfsError>>,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(because) = &self.because else {
            return write!(f, "{} is empty", self.path.display());
        };
        write!(f, "{because}")?;
        let mut cause = std::error::Error::source(because);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn instead(existing: &[PathBuf]) -> String {
    if existing.is_empty() {
        return "nor is any of the usual files there: load them with `modprobe nf_conntrack`, or \
                read the table over netlink (the default, needs CAP_NET_ADMIN)"
            .to_owned();
    }
    let paths: Vec<String> = existing.iter().map(|path| path.display().to_string()).collect();
    format!("these are there: {}; name one of them, or `auto`", paths.join(", "))
}

fn permission(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        ": run as a user who may read it, such as root, or grant CAP_DAC_READ_SEARCH"
    } else {
        ""
    }
}

fn at_least(entries: u64, limit: u64) -> String {
    // A count that is just beyond the limit is where the reading was given up.
    if entries == limit.saturating_add(1) {
        format!("at least {entries}")
    } else {
        entries.to_string()
    }
}

fn slowness(slow: bool) -> &'static str {
    if slow {
        " by this kernel, which takes hours for a large table (mended in Linux 6.16)"
    } else {
        ""
    }
}

fn tried(attempts: &[Tried]) -> String {
    let reasons: Vec<String> = attempts.iter().map(ToString::to_string).collect();
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
}
