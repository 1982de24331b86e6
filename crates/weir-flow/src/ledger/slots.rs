//! The ledger's table: a list of 48-byte slots in chunks.

use std::collections::VecDeque;

use crate::counters::{Counters, Totals};

/// What the ledger remembers of one live connection: 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The connection's key.
    pub key: u64,
    /// The counters last billed up to, in the kernel's directions.
    pub totals: Totals,
    /// From the top: [`Group`] (46 + 12 bits), [`SlotFlags`] (6 bits).
    meta: u64,
}

const _: () = assert!(size_of::<Slot>() == 48, "the ledger's promise is 48 bytes a connection");

/// What the entries of one connection in several zones share, and which of them this is: 46 bits
/// of a hash of the reply tuple without its zone, and the low 12 bits of the zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The hash; only its upper 46 bits are kept.
    pub hash: u64,
    /// The zone; only its low 12 bits are kept.
    pub zone: u16,
}

impl Group {
    const ZONE: u64 = 0xfff;

    /// The bits of the hash that are kept.
    pub fn hash_kept(self) -> u64 {
        self.hash >> 18
    }

    /// True when both zones are the same, as far as they are kept.
    pub fn same_zone(self, zone: u16) -> bool {
        u64::from(self.zone ^ zone) & Self::ZONE == 0
    }

    fn bits(self) -> u64 {
        self.hash_kept() << 18 | (u64::from(self.zone) & Self::ZONE) << 6
    }

    fn from_bits(bits: u64) -> Self {
        let zone = u16::try_from(bits >> 6 & Self::ZONE).expect("12 bits fit in 16");
        Self { hash: bits >> 18 << 18, zone }
    }
}

/// One bit each; they share a word with the zone group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotFlags(u8);

impl SlotFlags {
    /// Read against the kernel's directions.
    pub const TURNED: Self = Self(1);
    /// Met in mid-stream.
    pub const PICKED_UP: Self = Self(1 << 1);
    /// Another zone's entry of the same connection counts; this one does not.
    pub const SHADOW: Self = Self(1 << 2);
    /// Carries no counters.
    pub const UNCOUNTED: Self = Self(1 << 3);
    /// Not in the last dump, and no DESTROY event said why.
    pub const MISSED: Self = Self(1 << 4);
    /// An empty place: the connection ended or moved elsewhere in the table.
    pub const VACANT: Self = Self(1 << 5);

    /// True when all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when any bit of `other` is set.
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These and `other`'s.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` if `condition`, else no flag.
    #[must_use]
    pub fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::default() }
    }

    const ALL: u8 = 0b11_1111;
}

impl Slot {
    /// A slot of a connection.
    pub fn new(key: u64, totals: Totals, group: Group, flags: SlotFlags) -> Self {
        Self { key, totals, meta: group.bits() | u64::from(flags.0) }
    }

    /// Its flags.
    pub fn flags(&self) -> SlotFlags {
        SlotFlags(self.meta.to_le_bytes()[0] & SlotFlags::ALL)
    }

    /// Its zone group.
    pub fn group(&self) -> Group {
        Group::from_bits(self.meta)
    }

    /// True when the place holds no connection.
    pub(super) fn is_vacant(&self) -> bool {
        self.flags().has(SlotFlags::VACANT)
    }

    pub(super) fn set(&mut self, flags: SlotFlags) {
        self.meta |= u64::from(flags.0);
    }

    pub(super) fn clear(&mut self, flags: SlotFlags) {
        self.meta &= !u64::from(flags.0);
    }

    /// Writes the slot's 48 bytes, little endian: the checkpoint's format.
    pub fn to_bytes(self) -> [u8; 48] {
        let Totals { sent, received } = self.totals;
        let words =
            [self.key, sent.packets, sent.bytes, received.packets, received.bytes, self.meta];
        let mut bytes = [0; 48];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Slot::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8; 48]) -> Self {
        let word = |index: usize| {
            let eight = bytes[index * 8..][..8].try_into().expect("eight bytes were sliced");
            u64::from_le_bytes(eight)
        };
        let totals = Totals {
            sent: Counters { packets: word(1), bytes: word(2) },
            received: Counters { packets: word(3), bytes: word(4) },
        };
        Self { key: word(0), totals, meta: word(5) }
    }
}

/// Slots a chunk holds: 48 KiB, small against the table, large against the allocator's overhead.
const CHUNK: usize = 1_024;

/// Chunks given back by a list that was read, taken by the list that is written: the table is
/// rewritten at every dump without holding it twice.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<Vec<Slot>>);

impl Spare {
    /// Free chunks kept at most; more go back to the allocator.
    const LIMIT: usize = 8;

    fn take(&mut self) -> Vec<Slot> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    fn give(&mut self, mut chunk: Vec<Slot>) {
        if self.0.len() < Self::LIMIT {
            chunk.clear();
            self.0.push(chunk);
        }
    }
}

/// A queue of slots with random access near its front.
#[derive(Debug, Default)]
pub(super) struct Slots {
    chunks: VecDeque<Vec<Slot>>,
    /// Slots of the front chunk that were popped.
    front: usize,
}

impl Slots {
    pub(super) fn push(&mut self, slot: Slot, spare: &mut Spare) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(slot),
            _ => {
                let mut chunk = spare.take();
                chunk.push(slot);
                self.chunks.push_back(chunk);
            }
        }
    }

    /// Keeps a place at the end, vacant until it is [`put`](Self::put). Only where nothing was
    /// popped.
    pub(super) fn reserve(&mut self, spare: &mut Spare) -> usize {
        debug_assert_eq!(self.front, 0, "places are counted from the front");
        self.push(Slot::new(0, Totals::default(), Group::default(), SlotFlags::VACANT), spare);
        let last = self.chunks.back().map_or(0, Vec::len) - 1;
        (self.chunks.len() - 1) * CHUNK + last
    }

    /// Fills a reserved place.
    pub(super) fn put(&mut self, place: usize, slot: Slot) {
        debug_assert!(self.peek(place).is_some_and(Slot::is_vacant), "a place is filled once");
        self.chunks[place / CHUNK][place % CHUNK] = slot;
    }

    /// The slot `ahead` places behind the front.
    #[inline]
    pub(super) fn peek(&self, ahead: usize) -> Option<&Slot> {
        let index = self.front + ahead;
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// Takes the front slot.
    #[inline]
    pub(super) fn pop(&mut self, spare: &mut Spare) -> Option<Slot> {
        let chunk = self.chunks.front()?;
        let slot = *chunk.get(self.front)?;
        self.front += 1;
        if self.front == chunk.len() {
            let empty = self.chunks.pop_front().expect("the front chunk was just read");
            spare.give(empty);
            self.front = 0;
        }
        Some(slot)
    }

    /// Every place that holds a connection.
    pub(super) fn occupied(&self) -> impl Iterator<Item = &Slot> {
        let places = self.chunks.iter().flatten();
        places.skip(self.front).filter(|slot| !slot.is_vacant())
    }

    /// Every place that holds a connection, to be changed.
    pub(super) fn occupied_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        let places = self.chunks.iter_mut().flatten();
        places.skip(self.front).filter(|slot| !slot.is_vacant())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(key: u64) -> Slot {
        Slot::new(key, Totals::default(), Group::default(), SlotFlags::TURNED)
    }

    #[test]
    fn slots_are_a_queue_across_chunks() {
        let (mut slots, mut spare) = (Slots::default(), Spare::default());
        for round in 0..3 {
            let keys = 0..u64::try_from(CHUNK * 2 + 5).unwrap();
            keys.clone().for_each(|key| slots.push(slot(key), &mut spare));
            assert_eq!(slots.occupied().count(), CHUNK * 2 + 5, "round {round}");
            assert_eq!(slots.peek(CHUNK).unwrap().key, CHUNK as u64);
            assert!(slots.peek(CHUNK * 2 + 5).is_none());
            for key in keys {
                assert_eq!(slots.pop(&mut spare).unwrap().key, key);
            }
            assert!(slots.pop(&mut spare).is_none());
        }
    }

    #[test]
    fn a_slot_survives_its_bytes() {
        let totals = Totals {
            sent: Counters { packets: 1, bytes: u64::MAX },
            received: Counters { packets: 3, bytes: 4 },
        };
        let group = Group { hash: u64::MAX >> 18 << 18, zone: 0xff0 };
        let slot = Slot::new(u64::MAX, totals, group, SlotFlags::SHADOW);
        assert_eq!(Slot::from_bytes(&slot.to_bytes()), slot);
        assert_eq!((slot.group(), slot.flags()), (group, SlotFlags::SHADOW));
        assert!(slot.group().same_zone(0xfff0) && !slot.group().same_zone(0));
    }
}
