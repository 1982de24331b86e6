//! By which door connections come in.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use weir_agent::{ConntrackSource, FlowSource, ProcfsSource, SocketSource};
use weir_conntrack::Events;

use crate::args::Conntrack;
use crate::say::say;

/// The file that remembers which door a data directory was filled by.
const FILE: &str = "source";

/// A door to the kernel's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// conntrack over netlink.
    Netlink,
    /// Its text form: in this file, or wherever it is found first.
    Text(Option<PathBuf>),
    /// This machine's TCP sockets.
    Sockets,
}

impl Door {
    /// The one that was asked for.
    pub(crate) fn of(conntrack: &Conntrack) -> Self {
        match conntrack {
            Conntrack::Netlink => Self::Netlink,
            Conntrack::Auto => Self::Text(None),
            Conntrack::File(path) => Self::Text(Some(path.clone())),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Netlink => "conntrack",
            Self::Text(_) => "procfs",
            Self::Sockets => "sockets",
        }
    }
}

/// Opens it, and says what it is.
pub(super) fn open(door: &Door) -> anyhow::Result<Box<dyn FlowSource + Send>> {
    match door {
        Door::Netlink => netlink(),
        Door::Text(path) => {
            let source = ProcfsSource::open(path.as_deref())
                .context("read connections from conntrack's text form (--conntrack)")?;
            for passed_over in source.passed_over() {
                say(&format!("passed over: {passed_over}"));
            }
            say(&format!("source: {}, a lesser one: {}", source.path().display(), limits(&source)));
            Ok(Box::new(source))
        }
        Door::Sockets => {
            let source = SocketSource::open().context("read this machine's TCP sockets")?;
            say(&format!("source: this machine's TCP sockets, a lesser one: {}", limits(&source)));
            Ok(Box::new(source))
        }
    }
}

fn netlink() -> anyhow::Result<Box<dyn FlowSource + Send>> {
    let source = ConntrackSource::open(Events::RECEIVE_BUFFER_BYTES)?;
    say(&format!(
        "source: conntrack over netlink (this process has CAP_NET_ADMIN), {} KiB for waiting events",
        source.receive_buffer_bytes() / 1024
    ));
    if source.receive_buffer_bytes() < Events::RECEIVE_BUFFER_BYTES {
        say(
            "the kernel granted a smaller event buffer than asked for: bursts may be lost (counted)",
        );
    }
    Ok(Box::new(source))
}

fn limits(source: &dyn FlowSource) -> &'static str {
    source.limits().unwrap_or("it sees all")
}

/// Refuses a data directory that was filled by another door: two doors name one connection
/// differently, and what both had counted would stand twice.
pub(super) fn check(door: &Door, data_dir: &Path) -> anyhow::Result<()> {
    match filled_by(data_dir)? {
        Some(name) if name != door.name() => bail!(
            "{} was filled from {name}, and connections read from {} would be counted twice in it; \
             choose another with --data-dir",
            data_dir.display(),
            door.name()
        ),
        _ => Ok(()),
    }
}

/// Remembers the door that a data directory is filled by from now on.
pub(super) fn keep(door: &Door, data_dir: &Path) -> anyhow::Result<()> {
    let (file, temporary) = (data_dir.join(FILE), data_dir.join("source.tmp"));
    fs::write(&temporary, format!("{}\n", door.name()))
        .and_then(|()| fs::rename(&temporary, &file))
        .with_context(|| format!("write {}", file.display()))
}

/// The name of the door a data directory was filled by; `None` where nothing was read into it yet.
fn filled_by(data_dir: &Path) -> anyhow::Result<Option<String>> {
    if !data_dir.join("spool").exists() {
        return Ok(None);
    }
    let file = data_dir.join(FILE);
    let name = match fs::read_to_string(&file) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    // From before there was a choice.
    Ok(Some(if name.is_empty() { Door::Netlink.name().to_owned() } else { name }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_keeps_to_the_door_it_was_filled_by() {
        let directory = tempfile::tempdir().unwrap();
        let check = |door: Door| check(&door, directory.path()).map_err(|e| format!("{e:#}"));
        // Nothing was read into it: any door will do, and none is remembered by asking.
        check(Door::Text(None)).unwrap();
        check(Door::Netlink).unwrap();
        fs::create_dir(directory.path().join("spool")).unwrap();
        keep(&Door::Text(None), directory.path()).unwrap();
        check(Door::Text(Some("other".into()))).unwrap();
        let error = check(Door::Netlink).unwrap_err();
        assert!(
            error.contains("was filled from procfs") && error.contains("--data-dir"),
            "{error}"
        );
    }

    #[test]
    fn one_from_before_there_was_a_choice_was_filled_by_netlink() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("spool")).unwrap();
        assert!(check(&Door::Text(None), directory.path()).is_err());
        check(&Door::Netlink, directory.path()).unwrap();
        keep(&Door::Netlink, directory.path()).unwrap();
        assert!(check(&Door::Sockets, directory.path()).is_err());
    }
}
