//! What one server holds of a node, so that several can tell which of them heard of it last.

use serde::{Deserialize, Serialize};

/// The batches of a node that a server has taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hold {
    /// Which node.
    pub(crate) node: String,
    /// Of which of its epochs.
    pub(crate) epoch: String,
    /// The first number of those that came one after another.
    pub(crate) first: u64,
    /// The highest.
    pub(crate) last: u64,
    /// When the kernel was read for the newest, by the node's own clock, nanoseconds since 1970.
    pub(crate) read_at: u64,
}

impl Hold {
    /// True where this one was heard of the node later than the other. Numbers decide within an
    /// epoch, the node's own clock between epochs: servers' clocks may differ.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        if self.epoch == other.epoch {
            return self.last > other.last;
        }
        self.read_at > other.read_at
    }

    /// True where both have the same newest batch: it was delivered to both.
    pub(crate) fn is_level_with(&self, other: &Self) -> bool {
        !self.is_newer_than(other) && !other.is_newer_than(self)
    }
}
