//! No datagram breaks the netlink readers, and a decoded sample is a sound one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_conntrack::Malformed;
use weir_conntrack::message::decode;
use weir_conntrack::netlink::{Attributes, attributes, messages};
use weir_flow::Sample;

fuzz_target!(|datagram: &[u8]| {
    let mut sample = Sample::default();
    for message in messages(datagram) {
        let Ok(message) = message else { break };
        let _unused = message.control();
        let _unused = walk(attributes(message.payload));
        if decode(message.payload, &mut sample).is_ok() {
            for tuple in [sample.original, sample.reply] {
                assert_eq!(tuple.source.is_ipv4(), tuple.destination.is_ipv4());
            }
            // What was decoded depends on the bytes alone.
            let mut again = sample;
            assert_eq!(decode(message.payload, &mut again), Ok(()));
            assert_eq!(again, sample);
        }
    }
});

/// Reads every attribute as a number, as text and as a nest.
fn walk(list: Attributes<'_>) -> Result<(), Malformed> {
    for attribute in list {
        let attribute = attribute?;
        let _unused = (attribute.u8(), attribute.be_u32(), attribute.u64(), attribute.text());
        walk(attribute.nested()?)?;
    }
    Ok(())
}
