//! The default door: conntrack over netlink.

use std::time::Duration;

use weir_conntrack::{Dump, Events};

use super::{FlowSource, Heard, Visitor};
use crate::AgentError;

/// Conntrack dumps and DESTROY events, each on a socket of its own.
#[derive(Debug)]
pub struct ConntrackSource {
    events: Events,
    dump: Dump,
    /// Last words that could not be read.
    malformed: u64,
}

impl ConntrackSource {
    /// Opens both sockets, events first: nothing that ends during the first dump is missed.
    pub fn open(receive_buffer_bytes: usize) -> Result<Self, AgentError> {
        let events = Events::open(receive_buffer_bytes)?;
        Ok(Self { events, dump: Dump::open()?, malformed: 0 })
    }

    /// Kernel memory granted for waiting events.
    pub fn receive_buffer_bytes(&self) -> usize {
        self.events.receive_buffer_bytes()
    }
}

/// Reads events until none waits, with a bound: a flood must not keep a dump from going on.
fn drain(events: &mut Events, visitor: &mut dyn Visitor) -> Result<Heard, AgentError> {
    const ROUNDS: usize = 4;
    let mut heard = Heard::default();
    for _ in 0..ROUNDS {
        let drained = events.drain(|sample| visitor.last_word(sample))?;
        heard.add(Heard {
            received: drained.received,
            malformed: drained.malformed,
            lost: drained.lost,
        });
        if !drained.more {
            break;
        }
    }
    Ok(heard)
}

impl FlowSource for ConntrackSource {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    fn wait(&self, timeout: Duration) -> Result<bool, AgentError> {
        Ok(self.events.wait(timeout)?)
    }

    fn drain(&mut self, visitor: &mut dyn Visitor) -> Result<Heard, AgentError> {
        let heard = drain(&mut self.events, visitor)?;
        self.malformed += heard.malformed;
        Ok(heard)
    }

    fn begin_dump(&mut self) -> Result<(), AgentError> {
        Ok(self.dump.start()?)
    }

    fn next_piece(&mut self, visitor: &mut dyn Visitor) -> Result<Option<Heard>, AgentError> {
        let Some(chunk) = self.dump.next_chunk()? else { return Ok(None) };
        // Whatever ended before the kernel filled this piece has its event waiting by now.
        let heard = drain(&mut self.events, visitor)?;
        self.malformed += heard.malformed;
        chunk.entries(|sample| visitor.entry(sample));
        Ok(Some(heard))
    }

    fn malformed(&self) -> u64 {
        self.malformed + self.dump.malformed()
    }
}
