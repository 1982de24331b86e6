//! No bytes at kubenetmon's door break it: what is not refused by name is an observation that counts
//! what the message said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use weir_flow::WallTime;
use weir_flow::time::SECOND;
use weir_proto::kubenetmon as pb;

// Compiled in from its source: as a dependency, the server would bring hundreds of crates.
#[path = "../../crates/weir-server/src/kubenetmon/message.rs"]
mod message;

use message::{Malformed, read};

const NOW: u64 = 1_800_000_000;

fuzz_target!(|input: &[u8]| {
    let Ok(mut observation) = pb::Observation::decode(input) else { return };
    let now = WallTime(NOW * SECOND);
    if read(observation.clone(), None, now) == Err(Malformed::Time) {
        // The fuzzer has no clock.
        observation.timestamp = NOW - observation.timestamp % 3_600;
    }
    match read(observation.clone(), None, now) {
        Err(reason) => assert!(Malformed::ALL.contains(&reason) && !reason.name().is_empty()),
        Ok(read_once) => {
            let flow = observation.flow.clone().expect("it has been read");
            let original = flow.original.expect("it has been read");
            assert_eq!(read_once.sent.bytes, original.bytes);
            assert_eq!(read_once.sent.packets, original.packets);
            let reply = flow.reply.expect("it has been read");
            assert_eq!(read_once.received.bytes, reply.bytes);
            assert_eq!(read_once.received.packets, reply.packets);
            // A name that is known already changes nothing.
            let node = read_once.node.clone();
            assert_eq!(read(observation, Some(&node), now), Ok(read_once));
        }
    }
});
