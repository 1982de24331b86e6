//! Faults of the disk, of delivery and of the machine: the real agent and spool over a scripted
//! kernel, and a store that takes each batch once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod agent;
mod disk;
mod script;
mod server;
mod spool;
mod wire;
