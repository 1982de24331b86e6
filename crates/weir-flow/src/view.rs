//! Which of several observers' records of one connection counts.
//!
//! Every node that a connection touches has a conntrack entry for it, so a connection between two
//! nodes is measured twice, and one that passes through a third node three times. One pure function
//! decides for all observers alike, from what is durable: who an address belonged to when the
//! connection began, and which nodes have an agent. Never from who is reachable now, because an
//! agent that is cut off sends its batches later.

use std::net::IpAddr;

use crate::record::FlowRecord;
use crate::time::WallTime;

/// Where an address was at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home<'a> {
    /// On this node.
    Node(&'a str),
    /// On whichever node observes it: loopback and link-local addresses, service addresses, and
    /// addresses that several nodes announce.
    Observer,
    /// Outside of the cluster.
    Outside,
    /// Inside the cluster, but nobody knows where.
    Unknown,
}

/// Knows where addresses are at home.
pub trait Homes {
    /// Where `address` was at home at `at`.
    fn home(&self, address: IpAddr, at: WallTime) -> Home<'_>;

    /// True when the node had an agent of its own then, whether or not it could be reached.
    fn enrolled(&self, node: &str, at: WallTime) -> bool;
}

/// What a record is among all records of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The one that counts.
    Counts {
        /// Its bytes travelled on from here to the backend's node.
        transit: bool,
    },
    /// A second leg, counted as a first one elsewhere: from here to the backend's node.
    Transit,
    /// Another node's record counts; this one is only compared with it.
    Second,
    /// Neither end was at home here, and nothing was dialled or translated here: not this node's to
    /// tell.
    Foreign,
    /// An end inside the cluster is not known.
    Undecided,
}

impl View {
    /// The only view there is, as where a machine watches itself.
    pub const ONLY: Self = Self::Counts { transit: false };

    /// True for the record whose bytes and connections are in every total.
    pub fn counts(self) -> bool {
        matches!(self, Self::Counts { .. })
    }
}

/// What `observer`'s record is. `at` is the start of its connection.
pub fn view(record: &FlowRecord, at: WallTime, observer: &str, homes: &dyn Homes) -> View {
    let home = |address| match homes.home(address, at) {
        Home::Observer => Home::Node(observer),
        home => home,
    };
    let here = |home| home == Home::Node(observer);
    let source = home(record.source);
    // Most records are of what began here: nothing else is asked then.
    if here(source) {
        return View::Counts { transit: false };
    }
    if source == Home::Unknown {
        return View::Undecided;
    }
    let destination = home(record.destination);
    let dialled_here = record.service.is_some_and(|(address, _)| here(home(address)));
    let passes = record.translated_source.is_some_and(|(address, _)| here(home(address)));
    let counted_elsewhere = match source {
        Home::Node(node) => homes.enrolled(node, at),
        Home::Outside | Home::Observer | Home::Unknown => false,
    };
    if !here(destination) && !passes && !dialled_here {
        return match (destination, counted_elsewhere) {
            (Home::Unknown, true) => View::Second,
            (Home::Unknown, false) => View::Undecided,
            _ => View::Foreign,
        };
    }
    let on_from_here = passes && !here(destination) && destination != Home::Outside;
    if counted_elsewhere {
        return if on_from_here { View::Transit } else { View::Second };
    }
    // Dialled here and sent on under the source's own address: the backend's node counts it.
    if here(destination) || passes { View::Counts { transit: on_from_here } } else { View::Second }
}

#[cfg(test)]
mod tests;
