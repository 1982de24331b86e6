//! No bytes found in a spool directory break its readers, and what they read is written back as
//! something that reads the same.
//!
//! The first byte says whether the rest is given a digest that holds, without which no mutation
//! gets past the header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_flow::frame::{Batch, FrameBuilder, HEADER_BYTES, Header};
use weir_flow::journal::{decode_last_words, encode_last_word};
use weir_flow::ledger::Slot;
use weir_flow::{Digest, FlowRecord};
use xxhash_rust::xxh3::Xxh3;

/// Where the header has its digest, and before it four 32-bit numbers.
const DIGEST_AT: usize = HEADER_BYTES - 16;
const PAYLOAD_BYTES_AT: usize = DIGEST_AT - 8;

fuzz_target!(|input: &[u8]| {
    let Some((mode, bytes)) = input.split_first() else { return };
    if mode & 1 == 0 {
        frame(bytes);
    } else {
        let mut bytes = bytes.to_vec();
        seal(&mut bytes);
        frame(&bytes);
    }
    last_words(bytes);
    if let Some(bytes) = bytes.first_chunk() {
        let slot = Slot::from_bytes(bytes);
        assert_eq!(slot.to_bytes(), *bytes);
        let _unused = (slot.flags(), slot.group());
    }
});

fn frame(bytes: &[u8]) {
    let Ok(batch) = Batch::decode(bytes) else { return };
    let records: Result<Vec<FlowRecord>, _> = batch.records().collect();
    let notes: Result<Vec<_>, _> = batch.notes().collect();
    let (Ok(records), Ok(notes)) = (records, notes) else { return };
    let mut builder = FrameBuilder::default();
    for record in &records {
        assert!(record.interval_from <= record.interval_to);
        assert_eq!(record.to.since(record.from), Some(record.delta()));
        builder.record(record);
    }
    for note in &notes {
        builder.note(note);
    }
    let (header, again) = builder.finish(batch.header);
    let batch_again = Batch::decode(again).expect("what was sealed can be read");
    assert_eq!(batch_again.header, header);
    let but_digest = |header: Header| Header { digest: Digest(0), ..header };
    assert_eq!(but_digest(header), but_digest(batch.header));
    assert!(batch_again.records().eq(records.into_iter().map(Ok)));
    assert!(batch_again.notes().eq(notes.into_iter().map(Ok)));
}

fn last_words(bytes: &[u8]) {
    let (words, good) = decode_last_words(bytes);
    assert!(good <= bytes.len());
    let mut again = Vec::new();
    for (sample, clock) in &words {
        encode_last_word(&mut again, sample, *clock);
    }
    let (words_again, good) = decode_last_words(&again);
    assert_eq!(good, again.len());
    assert_eq!(words.len(), words_again.len());
    for ((one, at), (other, again_at)) in words.iter().zip(&words_again) {
        assert_eq!(one, other);
        assert_eq!(at.now, again_at.now);
        assert_eq!(at.wall_offset_nanos, again_at.wall_offset_nanos);
    }
}

/// Makes length and digest hold.
fn seal(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let (header, payload) = bytes.split_at_mut(HEADER_BYTES);
    let length = u32::try_from(payload.len()).expect("an input is far below 4 GiB");
    header[PAYLOAD_BYTES_AT..][..4].copy_from_slice(&length.to_le_bytes());
    let mut hasher = Xxh3::new();
    hasher.update(&header[..DIGEST_AT]);
    hasher.update(payload);
    header[DIGEST_AT..].copy_from_slice(&hasher.digest128().to_le_bytes());
}
