//! Telling of connections to which nothing happened, for whoever begins to listen.

use super::{Ledger, Phase, SlotFlags, Surroundings, billing};
use crate::counters::Totals;
use crate::record::{FlowRecord, RecordFlags};
use crate::sample::Sample;

impl Ledger {
    /// Tells, with the next whole dump, also of connections to which nothing happened
    /// ([`RecordFlags::PRESENT`]): somebody begins to listen. Only between ticks.
    pub fn announce(&mut self) {
        debug_assert_eq!(self.phase, Phase::Idle, "a dump is announced whole");
        self.announcing = true;
    }

    /// Says that a connection is there, nothing else.
    #[cold]
    pub(super) fn tell(
        &self,
        key: u64,
        flags: SlotFlags,
        sample: &Sample,
        totals: Totals,
        out: &mut dyn Surroundings,
    ) {
        // An end that waits to be settled tells more.
        if flags.has(SlotFlags::SHADOW) || self.finals.contains_key(&key) {
            return;
        }
        let now = (self.clock.now, self.clock.now);
        let record = billing::record(key, sample, flags, (totals, totals), now);
        out.record(&FlowRecord { flags: record.flags.with(RecordFlags::PRESENT), ..record });
    }
}
