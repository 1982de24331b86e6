//! Where the text form may be.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::proc::Limits;
use super::table::Table;
use super::{ProcfsError, Tried};

/// The usual places, the best first. In a container the host's `/proc` may be mounted at
/// `/host/proc`; there `net` is a link to the reader's own network namespace, so that of the
/// host's first process comes before it.
const USUAL: [&str; 10] = [
    "/host/proc/1/net/nf_conntrack",
    "/host/proc/1/net/ip_conntrack",
    "/host/proc/1/net/nf_conntrack6",
    "/host/proc/net/nf_conntrack",
    "/host/proc/net/ip_conntrack",
    "/host/proc/net/nf_conntrack6",
    "/proc/net/nf_conntrack",
    "/proc/net/ip_conntrack",
    "/proc/net/nf_conntrack6",
    "/proc/net/ip_conntrack6",
];

/// Places to look for the text form, the best first.
#[derive(Clone, Debug)]
pub struct Candidates(Vec<PathBuf>);

impl Default for Candidates {
    fn default() -> Self {
        Self(USUAL.iter().map(PathBuf::from).collect())
    }
}

/// What a search has found.
#[derive(Debug)]
pub struct Found {
    /// The table.
    pub table: Table,
    /// What was looked at before and not taken, with the reason.
    pub passed_over: Vec<Tried>,
}

impl Candidates {
    /// These places, in this order.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self(paths)
    }

    /// The places where there is something.
    pub fn existing(&self) -> Vec<PathBuf> {
        self.0.iter().filter(|path| path.exists()).cloned().collect()
    }

    /// The first file that can be read and has conntrack's text in it; else the first of the
    /// kernel's own that is empty, because nothing is tracked.
    pub fn find(&self, limits: Limits) -> Result<Found, ProcfsError> {
        let mut passed_over = Vec::new();
        let mut idle: Option<Table> = None;
        for path in &self.0 {
            match Table::open(path, limits) {
                Ok(table) if table.was_empty() => {
                    let path = path.clone();
                    if idle.is_none() {
                        idle = Some(table);
                    } else {
                        passed_over.push(Tried { path, because: None });
                    }
                }
                Ok(table) => {
                    let before =
                        idle.map(|idle| Tried { path: idle.path().to_owned(), because: None });
                    passed_over.extend(before);
                    return Ok(Found { table, passed_over });
                }
                Err(error) if is_absent(&error) => {}
                // A large table is the right one: a lesser place must not hide that.
                Err(error @ ProcfsError::Large { .. }) => return Err(error),
                Err(error) => {
                    passed_over.push(Tried { path: path.clone(), because: Some(Box::new(error)) });
                }
            }
        }
        match idle {
            Some(table) => Ok(Found { table, passed_over }),
            None => Err(ProcfsError::NoneFound { attempts: passed_over }),
        }
    }

    /// Reads the file at `path`; if there is none, the error names the places that have one.
    pub fn at(&self, path: &Path, limits: Limits) -> Result<Table, ProcfsError> {
        Table::open(path, limits).map_err(|error| {
            if is_absent(&error) {
                ProcfsError::Absent { path: path.to_owned(), existing: self.existing() }
            } else {
                error
            }
        })
    }
}

/// True also where a part of the path is a file instead of a directory.
fn is_absent(error: &ProcfsError) -> bool {
    match error {
        ProcfsError::Absent { .. } => true,
        ProcfsError::Unreadable { source, .. } => source.kind() == ErrorKind::NotADirectory,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
