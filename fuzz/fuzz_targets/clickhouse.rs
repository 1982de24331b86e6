//! No answer of ClickHouse breaks the reader of its rows, however it was cut or spoilt on the way.
//!
//! The first byte says how many columns a row has, the next ones what is in them.
#![no_main]

use libfuzzer_sys::fuzz_target;

// Compiled in from its source: as a dependency, the store would bring SQLite.
#[path = "../../crates/weir-store/src/clickhouse/rows.rs"]
mod rows;

use rows::{Malformed, Rows};

fuzz_target!(|input: &[u8]| {
    let Some((count, rest)) = input.split_first() else { return };
    let count = 1 + usize::from(count % 8);
    let Some((columns, bytes)) = rest.split_at_checked(count) else { return };
    let mut rows = Rows::new(bytes);
    // Every column takes a byte at least, so there are no more of them than bytes.
    for column in columns.iter().cycle().take(bytes.len() + 1) {
        if rows.is_empty() {
            return;
        }
        if value(&mut rows, *column).is_err() {
            return;
        }
    }
    assert!(rows.is_empty(), "a value was read from no bytes");
});

fn value(rows: &mut Rows<'_>, column: u8) -> Result<(), Malformed> {
    match column % 10 {
        0 => rows.u8().map(drop),
        1 => rows.u16().map(drop),
        2 => rows.u32().map(drop),
        3 => rows.u64().map(drop),
        4 => rows.i64().map(drop),
        5 => rows.u128().map(drop),
        6 => rows.address().map(drop),
        7 => rows.text().map(drop),
        8 => rows.bytes().map(drop),
        _ => rows.length().map(drop),
    }
}
