//! An agent on a node of its own: addresses that come and go, and the shipped binary itself. They
//! need root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod binary;
mod facts;
#[expect(dead_code, reason = "shared with other tests, which use more of it")]
#[path = "../coverage/space.rs"]
mod space;

use std::thread;
use std::time::{Duration, Instant};

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
