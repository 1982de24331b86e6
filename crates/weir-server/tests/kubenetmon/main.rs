//! What kubenetmon's agents report, as they report it: over a real connection, into the real table.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod bad_input;
mod history;
mod scenarios;
mod support;
mod writing;
