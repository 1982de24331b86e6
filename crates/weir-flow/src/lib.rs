//! The words and the arithmetic of network flows.
//!
//! Everything here is pure: no IO, no async, no clock. Time is an argument, the kernel's word
//! arrives as a [`Sample`], and what leaves is a value. The order of the modules is the way of a
//! flow: what the kernel says, what one connection did in one interval, who took part in it, and
//! what is kept of it.

pub mod attribution;
pub mod batch;
pub mod class;
pub mod cluster;
pub mod connection;
pub mod counters;
pub mod endpoint;
pub mod field;
pub mod filter;
pub mod fold;
pub mod frame;
pub mod ingest;
pub mod journal;
pub mod kubenetmon;
pub mod ledger;
pub mod port;
pub mod ranges;
pub mod record;
pub mod sample;
pub mod seal;
pub mod state;
pub mod time;
pub mod tuple;
pub mod view;

pub use attribution::Directory;
pub use batch::{BatchId, Digest, Epoch};
pub use class::Class;
pub use counters::{Counters, Totals};
pub use endpoint::{Endpoint, EndpointKind, Name, Resolution, Unresolved};
pub use field::{EndpointField, Field, Side};
pub use filter::Filter;
pub use fold::{Flow, FlowKey, Folded, Level, Measures};
pub use record::{FlowRecord, RecordFlags};
pub use sample::{Sample, Status, TcpState};
pub use state::ConnectionState;
pub use time::{BootTime, WallTime};
pub use tuple::{Protocol, Tuple};
pub use view::{Home, Homes, View};
