//! No text breaks the reader of conntrack's text form, and a sample that is read is a sound one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_conntrack::procfs::parse_line;

fuzz_target!(|text: &[u8]| {
    for line in text.split(|byte| *byte == b'\n') {
        let Ok(sample) = parse_line(line) else { continue };
        for tuple in [sample.original, sample.reply] {
            assert_eq!(tuple.source.is_ipv4(), tuple.destination.is_ipv4());
            assert_eq!(tuple.protocol, sample.original.protocol);
        }
        assert_eq!(sample.original.source.is_ipv4(), sample.reply.source.is_ipv4());
        assert_eq!((sample.id, sample.start, sample.stop), (0, None, None));
        // What was read depends on the words alone, not on the space between them.
        let spread = [b"\t", line, b" "].concat();
        assert_eq!(parse_line(&spread), Ok(sample));
    }
});
