//! The conntrack table as text, for where netlink is not to be had.

use std::path::Path;
use std::thread;
use std::time::Duration;

use weir_conntrack::Error;
use weir_conntrack::procfs::{Candidates, Found, Limits, Table};

use super::{FlowSource, Heard, Visitor};
use crate::AgentError;

/// `/proc/net/nf_conntrack`, or a copy of it. It tells nothing of connections that end: what it
/// showed last is all that is known of them.
#[derive(Debug)]
pub struct ProcfsSource {
    table: Table,
    passed_over: Vec<String>,
}

impl ProcfsSource {
    /// Opens the text form at `path`, or where it is found first, within the limits that suit the
    /// running kernel.
    pub fn open(path: Option<&Path>) -> Result<Self, AgentError> {
        Self::open_within(path, Limits::of_this_kernel())
    }

    /// Opens it within these limits.
    pub fn open_within(path: Option<&Path>, limits: Limits) -> Result<Self, AgentError> {
        let candidates = Candidates::default();
        let opened = match path {
            Some(path) => candidates.at(path, limits).map(|table| (table, Vec::new())),
            None => candidates.find(limits).map(|Found { table, passed_over }| {
                (table, passed_over.iter().map(ToString::to_string).collect())
            }),
        };
        let (table, passed_over) = opened.map_err(Error::from)?;
        Ok(Self { table, passed_over })
    }

    /// The file that is read.
    pub fn path(&self) -> &Path {
        self.table.path()
    }

    /// The usual places that were looked at before and not taken, each with the reason.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }
}

impl FlowSource for ProcfsSource {
    fn name(&self) -> &'static str {
        "procfs"
    }

    fn limits(&self) -> Option<&'static str> {
        Some(
            "conntrack's text form: connections that begin and end between two readings are not \
             seen, nor what others moved after the last reading; it does not say when a connection \
             began, so one that follows another with the same addresses and ports looks like the \
             same; while the table changes, the kernel may leave entries out",
        )
    }

    fn wait(&self, timeout: Duration) -> Result<bool, AgentError> {
        thread::sleep(timeout);
        Ok(false)
    }

    fn drain(&mut self, _visitor: &mut dyn Visitor) -> Result<Heard, AgentError> {
        Ok(Heard::default())
    }

    fn begin_dump(&mut self) -> Result<(), AgentError> {
        Ok(self.table.start().map_err(Error::from)?)
    }

    fn next_piece(&mut self, visitor: &mut dyn Visitor) -> Result<Option<Heard>, AgentError> {
        let more = self.table.next_chunk(|sample| visitor.entry(sample)).map_err(Error::from)?;
        Ok(more.then(Heard::default))
    }

    fn malformed(&self) -> u64 {
        self.table.malformed()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use weir_flow::Sample;

    use super::*;

    #[derive(Default)]
    struct Seen(Vec<u16>);

    impl Visitor for Seen {
        fn last_word(&mut self, sample: &Sample) {
            panic!("no file tells an end: {sample:?}");
        }

        fn entry(&mut self, sample: &Sample) {
            self.0.push(sample.original.source_port);
        }
    }

    #[test]
    fn a_copy_is_dumped_as_it_is_now() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy");
        let write = |ports: &[u16]| {
            let line = |port: &u16| {
                format!(
                    "udp 17 29 src=10.0.0.1 dst=10.0.0.2 sport={port} dport=53 [UNREPLIED] \
                     src=10.0.0.2 dst=10.0.0.1 sport=53 dport={port} use=1\n"
                )
            };
            fs::write(&path, ports.iter().map(line).collect::<String>()).unwrap();
        };
        write(&[1, 2]);
        let mut source: Box<dyn FlowSource> = Box::new(ProcfsSource::open(Some(&path)).unwrap());
        let dump = |source: &mut Box<dyn FlowSource>| {
            let mut seen = Seen::default();
            assert_eq!(source.drain(&mut seen).unwrap(), Heard::default());
            source.begin_dump().unwrap();
            while source.next_piece(&mut seen).unwrap().is_some() {}
            seen.0
        };
        assert_eq!(dump(&mut source), [1, 2]);
        write(&[2, 3, 4]);
        assert_eq!(dump(&mut source), [2, 3, 4]);
        assert_eq!((source.name(), source.malformed()), ("procfs", 0));
        assert!(source.limits().is_some() && !source.wait(Duration::ZERO).unwrap());
    }

    #[test]
    fn what_cannot_be_opened_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let error = ProcfsSource::open(Some(directory.path())).unwrap_err().to_string();
        assert!(error.contains("is a directory"), "{error}");
    }
}
