//! The wire as agents, and others, meet it: real TLS, real gRPC, the real embedded store.

#![expect(clippy::panic, reason = "a test that got another answer should say which")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod bad_input;
mod delivery;
mod denied;
mod peers;
mod support;
mod tls;
