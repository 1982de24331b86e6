//! Making the ledger again from its journal: checkpoint + later frames = ledger.

use hashbrown::HashMap;

use super::index::KeyHash;
use super::{Group, Ledger, Slot, SlotFlags, Slots, Spare};
use crate::batch::Epoch;
use crate::connection::KeyMaker;
use crate::record::{FlowRecord, RecordFlags};
use crate::sample::Sample;
use crate::time::{BootTime, WallTime};

/// A ledger being made again. Slots of the checkpoint first, then what came after, in order.
#[derive(Debug)]
pub struct Replay {
    epoch: Epoch,
    keys: KeyMaker,
    slots: Vec<Slot>,
    places: HashMap<u64, usize, KeyHash>,
    heard: Vec<Sample>,
    ended: Vec<(u64, u16, Option<WallTime>)>,
}

impl Replay {
    /// Begins with an empty table.
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            keys: KeyMaker::new(epoch),
            slots: Vec::new(),
            places: HashMap::default(),
            heard: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// A slot of the checkpoint.
    pub fn slot(&mut self, slot: Slot) {
        self.put(slot);
    }

    /// A record of a frame sealed after the checkpoint.
    pub fn record(&mut self, record: &FlowRecord) {
        if record.flags.has(RecordFlags::CLOSED) {
            self.forget(record.connection);
            return;
        }
        let turned = record.flags.has(RecordFlags::TURNED);
        let totals = if turned { record.to.turned() } else { record.to };
        let flags = SlotFlags::default()
            .with(SlotFlags::TURNED.when(turned))
            .with(SlotFlags::PICKED_UP.when(record.flags.has(RecordFlags::PICKED_UP)))
            .with(SlotFlags::UNCOUNTED.when(record.flags.has(RecordFlags::UNCOUNTED)));
        let group = Group { hash: self.keys.group_of_record(record), zone: record.zone };
        self.put(Slot::new(record.connection, totals, group, flags));
    }

    /// A last word whose record was replayed: its other zones' last words are told by it.
    pub fn heard(&mut self, sample: &Sample) {
        self.heard.push(*sample);
    }

    /// The same for an end of the last tick whose own last word is gone already.
    pub fn ended(&mut self, record: &FlowRecord) {
        let group = self.keys.group_of_record(record);
        self.ended.push((group, record.zone, record.start));
    }

    /// A connection that was judged gone.
    pub fn forget(&mut self, connection: u64) {
        if let Some(place) = self.places.remove(&connection) {
            self.slots[place].set(SlotFlags::VACANT);
        }
    }

    /// The ledger, as it was when its last frame was sealed at `last_tick` (of this boot; 0 after
    /// a reboot).
    pub fn finish(self, last_tick: BootTime) -> Ledger {
        let mut ledger = Ledger::new(self.epoch, false);
        ledger.clock.now = last_tick;
        ledger.live = self.places.len();
        let (mut slots, mut spare) = (Slots::default(), Spare::default());
        for slot in self.slots.into_iter().filter(|slot| !slot.is_vacant()) {
            slots.push(slot, &mut spare);
        }
        ledger.new = slots;
        // Whether zones are in use is not known yet; to remember a few groups in vain is cheap.
        for (group, zone, start) in self.ended {
            let graves = &mut ledger.tombstones.before;
            graves.groups.entry(group).or_default().push((zone, start));
        }
        ledger.zones_in_use = !self.heard.is_empty();
        for sample in &self.heard {
            let key = ledger.keys.connection(sample);
            ledger.bury(key, sample, SlotFlags::default());
        }
        ledger
    }

    fn put(&mut self, slot: Slot) {
        if let Some(place) = self.places.get(&slot.key) {
            self.slots[*place] = slot;
        } else {
            self.places.insert(slot.key, self.slots.len());
            self.slots.push(slot);
        }
    }
}
