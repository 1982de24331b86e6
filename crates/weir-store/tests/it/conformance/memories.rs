//! What others keep in a store.

use weir_store::{FlowStore, Memory};

use super::ages::prune;
use super::{Open, Opened, opened};
use crate::support::NOON;

fn memory(key: &str, value: &str, until_seconds: u64) -> Memory {
    Memory { key: key.into(), value: value.into(), until_seconds }
}

fn keys(store: &dyn FlowStore, prefix: &str, after: &str, limit: usize) -> Vec<String> {
    let found = store.remembered(prefix.as_bytes(), after.as_bytes(), limit).unwrap();
    found.into_iter().map(|it| String::from_utf8(it.key).unwrap()).collect()
}

pub(super) fn memories_come_back_by_prefix_in_order(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    store.remember(&[]).unwrap();
    let all = ["b/2", "a/1", "b/1", "b", "c/1", "b\u{10ffff}"];
    let all: Vec<Memory> = all.iter().map(|key| memory(key, "x", NOON)).collect();
    store.remember(&all).unwrap();
    assert_eq!(keys(&**store, "b/", "", 9), ["b/1", "b/2"]);
    assert_eq!(keys(&**store, "b/", "b/1", 9), ["b/2"]);
    assert_eq!(keys(&**store, "b/", "", 1), ["b/1"]);
    assert_eq!(keys(&**store, "", "", 9).len(), 6);
    assert!(keys(&**store, "d", "", 9).is_empty());
}

pub(super) fn a_memory_is_replaced_and_forgotten_in_time(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    store.remember(&[memory("a", "old", NOON), memory("b", "x", NOON)]).unwrap();
    store.remember(&[memory("a", "new", NOON + 10)]).unwrap();
    prune(&**store, NOON);
    assert_eq!(keys(&**store, "", "", 9), ["a", "b"]);
    prune(&**store, NOON + 1);
    assert_eq!(store.remembered(b"", b"", 9).unwrap(), [memory("a", "new", NOON + 10)]);
    // More than one call deletes.
    let many: Vec<Memory> =
        (0..12_000).map(|it| memory(&format!("{it:05}"), "", NOON + 20)).collect();
    store.remember(&many).unwrap();
    prune(&**store, NOON + 21);
    assert!(keys(&**store, "", "", 9).is_empty());
}
