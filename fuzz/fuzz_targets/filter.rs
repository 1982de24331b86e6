//! No text breaks the filter parser, and what a filter prints is read back as the same filter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_flow::Filter;

fuzz_target!(|text: &str| {
    match Filter::parse(text) {
        Ok(filter) => {
            let printed = filter.to_string();
            let read = Filter::parse(&printed);
            // Canonical text may be longer than what was read (`port` is `destination.port`), and
            // only then may it be refused.
            if printed.len() <= weir_flow::filter::MAX_BYTES {
                assert_eq!(read.as_ref(), Ok(&filter), "{printed}");
            }
        }
        Err(error) => {
            assert!(error.position <= text.len());
            assert!(error.render(text).contains('^'));
        }
    }
});
