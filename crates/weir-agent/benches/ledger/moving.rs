//! Entries that move without traffic: a source that adds to their counters as they pass.
//!
//! What is added grows with each dump, so that every chosen entry has new numbers in each. The
//! cost of adding is within what is measured; it is one copy of a sample.

use std::time::Duration;

use weir_agent::{AgentError, ConntrackSource, FlowSource, Heard, Visitor};
use weir_conntrack::Events;
use weir_flow::{Counters, Sample, Totals};

pub(crate) struct Moving {
    inner: ConntrackSource,
    percent: u32,
    dumps: u64,
}

impl Moving {
    /// Moves about `percent` of the entries, always the same ones.
    pub(crate) fn open(percent: u32) -> Result<Self, AgentError> {
        let inner = ConntrackSource::open(Events::RECEIVE_BUFFER_BYTES)?;
        Ok(Self { inner, percent, dumps: 0 })
    }
}

impl FlowSource for Moving {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn wait(&self, timeout: Duration) -> Result<bool, AgentError> {
        self.inner.wait(timeout)
    }

    fn drain(&mut self, visitor: &mut dyn Visitor) -> Result<Heard, AgentError> {
        self.inner.drain(visitor)
    }

    fn begin_dump(&mut self) -> Result<(), AgentError> {
        self.dumps += 1;
        self.inner.begin_dump()
    }

    fn next_piece(&mut self, visitor: &mut dyn Visitor) -> Result<Option<Heard>, AgentError> {
        if self.percent == 0 {
            return self.inner.next_piece(visitor);
        }
        let counters = |packets: u64, size: u64| Counters { packets, bytes: packets * size };
        let moved = Totals {
            sent: counters(self.dumps * 12, 230),
            received: counters(self.dumps * 31, 1_340),
        };
        let percent = self.percent;
        self.inner.next_piece(&mut Mover { visitor, percent, moved })
    }

    fn malformed(&self) -> u64 {
        self.inner.malformed()
    }
}

struct Mover<'a> {
    visitor: &'a mut dyn Visitor,
    percent: u32,
    moved: Totals,
}

impl Visitor for Mover<'_> {
    fn last_word(&mut self, sample: &Sample) {
        self.visitor.last_word(sample);
    }

    fn entry(&mut self, sample: &Sample) {
        if sample.id % 100 >= self.percent {
            return self.visitor.entry(sample);
        }
        let mut sample = *sample;
        if let Some(totals) = &mut sample.totals {
            *totals += self.moved;
        }
        self.visitor.entry(&sample);
    }
}
