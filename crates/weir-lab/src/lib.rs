//! A cluster in a box: network namespaces that act as nodes, their pods, services and the outside
//! world; traffic between them; and the truth to check weir against.
//!
//! The way of a run: a [`scenario`] is read, [`net`] builds its box, [`truth`] counts every packet in
//! the nodes, [`traffic`] flows, [`weir`] meters it, and [`compare`] holds the one against the other.
//! [`verify`] does all of that on one node, [`cluster`] on several, with a Kubernetes API ([`kube`])
//! that says whose their addresses are. A developer's tool: it is never shipped, needs root, and sends
//! nothing beyond its own namespaces.

pub mod clickhouse;
pub mod cluster;
mod command;
pub mod compare;
pub mod day;
pub mod error;
pub mod figures;
pub mod fill;
pub mod kube;
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
