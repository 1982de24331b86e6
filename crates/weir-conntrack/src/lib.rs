//! The kernel's connection tracking, read and never changed.
//!
//! The order of the modules is the order of use: [`sysctl`], [`capability`] and [`tracking`] say
//! whether this network namespace counts connections at all (and can switch that on), [`Events`]
//! listens for connections that end, [`Dump`] reads all that live, and [`message::decode`] turns
//! either's messages into a [`weir_flow::Sample`]. [`netlink`] is the layer below: one raw socket
//! and bounds-checked readers, usable for every netlink protocol. [`procfs`] reads the same table
//! as text, where netlink is not to be had.
//!
//! Everything works in the network namespace of the calling thread at the time of opening.

pub mod capability;
pub mod dump;
mod error;
pub mod events;
pub mod message;
pub mod netlink;
pub mod procfs;
pub mod sysctl;
pub mod tracking;

pub use dump::{Chunk, Dump};
pub use error::Error;
pub use events::{Drained, Events};
pub use netlink::Malformed;
