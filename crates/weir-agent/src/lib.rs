//! The agent half of weir: from the kernel to sealed batches that are held until answered.
//!
//! [`source`] yields samples, [`agent`] drives the ledger tick by tick and seals what it bills,
//! [`spool`] makes batches durable, [`ship`] delivers them until they are answered. [`local`] knows
//! this machine's endpoints. Nothing here links a database, a web framework or Kubernetes.

pub mod agent;
pub mod clock;
pub mod coverage;
mod error;
pub mod facts;
pub mod interfaces;
pub mod local;
pub mod machine;
pub mod pace;
pub mod pages;
pub mod ship;
pub mod source;
pub mod spool;
pub mod status;
pub mod tracking;
pub mod wire;

pub use agent::{Agent, AgentConfig, Environment};
pub use error::AgentError;
pub use ship::{Carry, Deliver};
pub use source::{ConntrackSource, FlowSource, Heard, ProcfsSource, SocketSource, Visitor};
pub use spool::{Recovered, Spool, SpoolLimits};
pub use status::AgentStatus;
