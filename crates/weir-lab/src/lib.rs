//! A cluster in a box: network namespaces that act as a node, its pods, services and the outside
//! world; traffic between them; and the truth to check weir against.
//!
//! The way of a run: a [`scenario`] is read, [`net`] builds its box, [`truth`] counts every packet in
//! the node, [`traffic`] flows, [`weir`] meters it, and [`compare`] holds the one against the other.
//! [`verify`] does all of that. A developer's tool: it is never shipped, needs root, and sends
//! nothing beyond its own namespaces.

mod command;
pub mod compare;
pub mod day;
pub mod error;
pub mod figures;
pub mod fill;
pub mod net;
pub mod scenario;
pub mod simulation;
pub mod table;
mod text;
pub mod traffic;
pub mod truth;
pub mod verify;
pub mod weir;

pub use error::LabError;
