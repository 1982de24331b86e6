//! The HTTP API as whoever asks sees it: a real server over a real store.

#![expect(clippy::panic, reason = "a test that got another answer should say which")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod answers;
mod bounds;
mod document;
mod http;
mod pages;
mod schema;
mod support;
