//! No bytes break the readers of published ranges and of the compact copy; what is read finds its
//! own prefixes and is written and read back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_flow::ranges::{List, Provider, Ranges};

// Compiled in from their source: as a dependency, the server would bring hundreds of crates.
#[path = "../../crates/weir-server/src/ranges/compact.rs"]
mod compact;
#[expect(dead_code, reason = "the server asks for the day in a file's name as well")]
#[path = "../../crates/weir-server/src/ranges/published.rs"]
mod published;

use compact::{Edition, decode, decode_body, encode};
use published::parse;

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    match Provider::ALL.get(usize::from(*choice)) {
        Some(provider) => {
            let published = parse(*provider, bytes);
            check_list(&published.list);
            let note = String::new();
            let edition = Edition { list: published.list, as_of: published.as_of, note };
            check_edition(&edition);
        }
        // The digest would hide everything behind it.
        None => {
            drop(decode(bytes));
            for edition in decode_body(bytes).unwrap_or_default() {
                check_list(&edition.list);
                check_edition(&edition);
            }
        }
    }
});

/// Every prefix's own first address is found in it or in one inside it, and none is there twice.
fn check_list(list: &List) {
    assert!(list.entries().windows(2).all(|pair| pair[0].prefix < pair[1].prefix));
    let ranges = Ranges::new(std::slice::from_ref(list), &[]);
    for listed in list.entries() {
        let address = listed.prefix.address();
        let longest = list.entries().iter().filter(|other| other.prefix.contains(address));
        // Quadratic, so only of what is small.
        if list.entries().len() <= 64 {
            let longest = longest.max_by_key(|other| other.prefix.length()).expect("itself");
            let found = ranges.lookup(address).expect("it is in its own prefix");
            assert_eq!(found.region.as_deref().unwrap_or_default(), &*longest.region);
            assert_eq!(found.service.as_deref().unwrap_or_default(), &*longest.service);
        }
    }
}

fn check_edition(edition: &Edition) {
    // A note may be cut when it is written.
    let read = decode(&encode(std::slice::from_ref(edition))).expect("what was written is read");
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].list, edition.list);
    assert_eq!(read[0].as_of, edition.as_of);
}
