//! No bytes from the network break what reads messages, and no frame grows beyond what it says.
//!
//! The first byte says which side reads; the second whether a batch is made of the rest, without
//! which few mutations get as far as the decompressor.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use weir_flow::frame::Batch;
use weir_proto::{Fact, Greeting, Measured, Packer, UnpackLimits, Unpacker, pb};

fuzz_target!(|input: &[u8]| {
    let [side, form, rest @ ..] = input else { return };
    match (side & 1, form & 3) {
        (0, 0) => from_agent(rest),
        (0, 1) => batch(pb::Batch {
            sequence: 1,
            frame: rest.to_vec().into(),
            frame_bytes: u32::from(*form) << 8,
        }),
        (0, 2) => mutated(rest),
        (0, _) => drop(packed(rest)),
        _ => from_server(rest),
    }
});

fn from_agent(bytes: &[u8]) {
    let Ok(message) = pb::FromAgent::decode(bytes) else { return };
    match message.message {
        Some(pb::from_agent::Message::Hello(hello)) => {
            if let Ok(greeting) = Greeting::try_from(&hello) {
                assert_eq!(Greeting::try_from(&pb::Hello::from(&greeting)), Ok(greeting));
            }
        }
        Some(pb::from_agent::Message::Batch(it)) => batch(it),
        Some(pb::from_agent::Message::Facts(facts)) => {
            let Ok(facts) = Fact::all(&facts) else { return };
            let again = Fact::messages(&facts, true).map(|facts| Fact::all(&facts));
            let again: Vec<Fact> = again.flat_map(|facts| facts.expect("ours")).collect();
            assert_eq!(again, facts);
        }
        Some(pb::from_agent::Message::Ping(ping)) => {
            let now = weir_flow::WallTime(ping.heard_nanos.wrapping_add(ping.held_nanos));
            let _bound = Measured::from_ping(&ping, now).bound_nanos();
        }
        Some(pb::from_agent::Message::Status(_)) | None => {}
    }
}

fn from_server(bytes: &[u8]) {
    let Ok(message) = pb::FromServer::decode(bytes) else { return };
    let again = message.encode_to_vec();
    assert_eq!(pb::FromServer::decode(&*again).expect("ours"), message);
}

fn batch(batch: pb::Batch) {
    let Ok(frame) = Unpacker::new(UnpackLimits::default()).unpack(&batch) else { return };
    assert_eq!(frame.len(), batch.frame_bytes as usize);
    if let Ok(batch) = Batch::decode(&frame) {
        let _all = (batch.records().count(), batch.notes().count());
    }
}

/// A compressed frame in which one byte is another.
fn mutated(bytes: &[u8]) {
    let Some((&[place, value], bytes)) = bytes.split_first_chunk() else { return };
    let mut message = packed(bytes);
    let mut frame = message.frame.to_vec();
    let at = usize::from(place) % frame.len();
    frame[at] = value;
    message.frame = frame.into();
    batch(message);
}

fn packed(bytes: &[u8]) -> pb::Batch {
    let batch = Packer::new().expect("zstd has memory").pack(1, bytes).expect("it is short");
    let frame = Unpacker::new(UnpackLimits::default()).unpack(&batch).expect("it is ours");
    assert_eq!(frame, bytes);
    batch
}
