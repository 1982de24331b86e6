//! The text form of the table: `/proc/net/nf_conntrack`, for where netlink is not to be had, and
//! copies of it.
//!
//! It says less than netlink (see [`parse_line`]), costs more, and tells nothing of connections
//! that end. [`Candidates`] knows where it may be, [`Table`] reads it, [`Limits`] keeps a reading
//! from hurting the machine.

mod candidates;
mod error;
mod line;
mod proc;
mod table;

pub use candidates::{Candidates, Found};
pub use error::{ProcfsError, Tried};
pub use line::{LineError, parse_line};
pub use proc::Limits;
pub use table::Table;
