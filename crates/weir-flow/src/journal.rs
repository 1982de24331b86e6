//! The journal: checkpoint + later frames + open frame = ledger.
//!
//! A DESTROY event cannot be read again, so its sample is appended to the *open frame* as it is
//! read. Everything else is in sealed frames or can be derived again from the kernel. After a
//! crash the ledger is replayed; a last word of the open frame that already stands in a sealed
//! frame is dropped there, the others are settled as if they had just been read.

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::Epoch;
use crate::connection::KeyMaker;
use crate::frame::{Batch, FrameError, Note, decode_sample, encode_sample};
use crate::ledger::{Clock, Ledger, Replay, Slot};
use crate::record::{FlowRecord, RecordFlags};
use crate::sample::Sample;
use crate::time::BootTime;

/// Bytes before the sample of an item: length, checksum, clock.
const ITEM_HEAD: usize = 2 + 4 + 16;

/// Appends one last word to the open frame's bytes.
pub fn encode_last_word(bytes: &mut Vec<u8>, sample: &Sample, read_at: Clock) {
    let begin = bytes.len();
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend_from_slice(&read_at.now.0.to_le_bytes());
    bytes.extend_from_slice(&read_at.wall_offset_nanos.to_le_bytes());
    encode_sample(bytes, sample);
    let length = u16::try_from(bytes.len() - begin).expect("a sample takes less than 200 bytes");
    bytes[begin..begin + 2].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(&bytes[begin + 6..]);
    bytes[begin + 2..begin + 6].copy_from_slice(&sum);
}

/// Reads the open frame's bytes up to the first item that is torn or damaged. The second value is
/// how many bytes were good.
pub fn decode_last_words(bytes: &[u8]) -> (Vec<(Sample, Clock)>, usize) {
    let mut words = Vec::new();
    let mut good = 0;
    while let Some((word, length)) = decode_item(&bytes[good..]) {
        words.push(word);
        good += length;
    }
    (words, good)
}

fn decode_item(bytes: &[u8]) -> Option<((Sample, Clock), usize)> {
    let length = usize::from(u16::from_le_bytes(*bytes.first_chunk()?));
    let item = bytes.get(..length)?;
    if length < ITEM_HEAD || item[2..6] != checksum(&item[6..]) {
        return None;
    }
    let eight = |at: usize| <[u8; 8]>::try_from(&item[at..at + 8]).expect("eight bytes");
    let clock = Clock {
        now: BootTime(u64::from_le_bytes(eight(6))),
        wall_offset_nanos: i64::from_le_bytes(eight(14)),
    };
    let sample = decode_sample(&item[ITEM_HEAD..]).ok()?;
    Some(((sample, clock), length))
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let sum = xxh3_64(bytes).to_le_bytes();
    [sum[0], sum[1], sum[2], sum[3]]
}

/// A recovery in progress: last words first, then the checkpoint, then frames in order.
#[derive(Debug)]
pub struct Recovery {
    keys: KeyMaker,
    replay: Replay,
    boot: u128,
    last_tick: BootTime,
    /// Ends sealed in the last tick: another zone's word of the same connection may still wait.
    ended: Vec<FlowRecord>,
    words: HashMap<u64, Vec<(Sample, Clock)>>,
}

impl Recovery {
    /// Begins in boot `boot`, with the last words found in the open frame.
    pub fn new(epoch: Epoch, boot: u128, last_words: Vec<(Sample, Clock)>) -> Self {
        let keys = KeyMaker::new(epoch);
        let mut words: HashMap<u64, Vec<_>> = HashMap::new();
        for (sample, clock) in last_words {
            words.entry(keys.connection(&sample)).or_default().push((sample, clock));
        }
        let replay = Replay::new(epoch);
        Self { keys, replay, boot, last_tick: BootTime::default(), ended: Vec::new(), words }
    }

    /// A tick that was sealed, or the one a checkpoint was taken after.
    pub fn tick(&mut self, boot: u128, at: BootTime) {
        // Another boot's clock says nothing about this one's.
        if boot == self.boot {
            self.last_tick = self.last_tick.max(at);
        }
    }

    /// A slot of the checkpoint.
    pub fn slot(&mut self, slot: Slot) {
        self.replay.slot(slot);
    }

    /// A frame sealed after the checkpoint, in the order of its number.
    pub fn frame(&mut self, batch: &Batch<'_>) -> Result<(), FrameError> {
        let zones_in_use = self.words.values().flatten().any(|(sample, _)| sample.zone != 0);
        if batch.header.sealed_at > self.last_tick {
            self.ended.clear();
        }
        self.tick(batch.header.boot, batch.header.sealed_at);
        for record in batch.records() {
            let record = record?;
            self.replay.record(&record);
            if record.flags.has(RecordFlags::CLOSED) {
                self.heard(&record);
                self.ended.extend(zones_in_use.then_some(record));
            }
        }
        for note in batch.notes() {
            if let Note::Forget(connection) = note? {
                self.replay.forget(connection);
            }
        }
        Ok(())
    }

    /// The ledger as of the last frame, and the last words that no frame has.
    pub fn finish(self) -> (Ledger, Vec<(Sample, Clock)>) {
        let mut replay = self.replay;
        for record in &self.ended {
            replay.ended(record);
        }
        let mut words: Vec<_> = self.words.into_values().flatten().collect();
        words.sort_by_key(|(sample, clock)| (clock.now, self.keys.connection(sample)));
        (replay.finish(self.last_tick), words)
    }

    /// Drops the last word that a sealed frame already holds. Two lives can share a key where the
    /// kernel gives no start, so the counters must agree too.
    fn heard(&mut self, record: &FlowRecord) {
        let turned = record.flags.has(RecordFlags::TURNED);
        let to = if turned { record.to.turned() } else { record.to };
        let Some(words) = self.words.get_mut(&record.connection) else { return };
        let same = |sample: &Sample| sample.totals.unwrap_or_default() == to;
        if let Some(place) = words.iter().position(|(sample, _)| same(sample)) {
            let (sample, _) = words.remove(place);
            self.replay.heard(&sample);
        }
    }
}
