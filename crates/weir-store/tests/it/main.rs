//! The store as its users see it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod conformance;
mod crash;
mod files;
mod support;
mod upgrade;
