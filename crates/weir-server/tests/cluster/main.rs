//! The cluster as a Kubernetes API tells of it, one that works and one that does not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod faults;
mod memories;
mod names;
mod support;
mod times;
mod tokens;
