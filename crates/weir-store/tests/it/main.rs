//! The store as its users see it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod clickhouse;
mod conformance;
mod crash;
mod files;
mod kubenetmon;
mod support;
mod two_stores;
mod upgrade;
