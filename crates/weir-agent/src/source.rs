//! Where samples come from. The ledger does not care by which door they came.

mod conntrack;
mod procfs;
mod sockets;

use std::time::Duration;

use weir_flow::Sample;

pub use self::conntrack::ConntrackSource;
pub use self::procfs::ProcfsSource;
pub use self::sockets::SocketSource;
use crate::AgentError;

/// Takes what a source yields.
pub trait Visitor {
    /// A connection's last word: it ended.
    fn last_word(&mut self, sample: &Sample);

    /// An entry of the running dump.
    fn entry(&mut self, sample: &Sample);
}

/// What was heard of connections that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Last words given to the visitor.
    pub received: u64,
    /// Ends whose word came damaged.
    pub malformed: u64,
    /// Ends the kernel could not tell us because the socket was full.
    pub lost: u64,
}

impl Heard {
    /// Adds what was heard later.
    pub fn add(&mut self, more: Self) {
        self.received += more.received;
        self.malformed += more.malformed;
        self.lost += more.lost;
    }
}

/// A door to the kernel's counters. Reading never changes them.
pub trait FlowSource {
    /// Its name, as status shows it.
    fn name(&self) -> &'static str;

    /// What it does not see or cannot tell, for people; `None`: it sees all that the kernel tracks.
    fn limits(&self) -> Option<&'static str> {
        None
    }

    /// Waits until a last word is there or the time is over; true when one is.
    fn wait(&self, timeout: Duration) -> Result<bool, AgentError>;

    /// Gives every waiting last word.
    fn drain(&mut self, visitor: &mut dyn Visitor) -> Result<Heard, AgentError>;

    /// Begins a dump.
    fn begin_dump(&mut self) -> Result<(), AgentError>;

    /// Receives the next piece of the dump: gives first the last words that wait by then, then the
    /// piece's entries. `None` when the dump is over.
    fn next_piece(&mut self, visitor: &mut dyn Visitor) -> Result<Option<Heard>, AgentError>;

    /// Entries and last words that could not be read since the source was opened.
    fn malformed(&self) -> u64;
}

impl<S: FlowSource + ?Sized> FlowSource for Box<S> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn limits(&self) -> Option<&'static str> {
        (**self).limits()
    }

    fn wait(&self, timeout: Duration) -> Result<bool, AgentError> {
        (**self).wait(timeout)
    }

    fn drain(&mut self, visitor: &mut dyn Visitor) -> Result<Heard, AgentError> {
        (**self).drain(visitor)
    }

    fn begin_dump(&mut self) -> Result<(), AgentError> {
        (**self).begin_dump()
    }

    fn next_piece(&mut self, visitor: &mut dyn Visitor) -> Result<Option<Heard>, AgentError> {
        (**self).next_piece(visitor)
    }

    fn malformed(&self) -> u64 {
        (**self).malformed()
    }
}
