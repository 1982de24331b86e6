//! What the book is told, and what it tells to be remembered.

use std::net::IpAddr;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::endpoint::{Endpoint, Name};
use crate::ranges::Prefix;
use crate::time::WallTime;
use crate::tuple::Protocol;

/// An instant that is known only within bounds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bounds {
    /// Not before.
    pub earliest: WallTime,
    /// Not after; [`WallTime`]'s greatest value where it may be still to come.
    pub latest: WallTime,
}

impl Bounds {
    /// An instant that is known exactly.
    pub fn exactly(at: WallTime) -> Self {
        Self { earliest: at, latest: at }
    }

    /// Some instant between these two, which may come in either order.
    pub fn between(one: WallTime, other: WallTime) -> Self {
        Self { earliest: one.min(other), latest: one.max(other) }
    }

    pub(super) fn meets(self, other: Self) -> bool {
        self.earliest <= other.latest && other.earliest <= self.latest
    }

    /// What both allow; `other` where they contradict each other.
    pub(super) fn narrowed_by(self, other: Self) -> Self {
        if !self.meets(other) {
            return other;
        }
        Self { earliest: self.earliest.max(other.earliest), latest: self.latest.min(other.latest) }
    }

    pub(super) fn widened(self, nanos: u64) -> Self {
        Self {
            earliest: WallTime(self.earliest.0.saturating_sub(nanos)),
            latest: WallTime(self.latest.0.saturating_add(nanos)),
        }
    }
}

/// The identity of an object of the API: its UUID, or a hash of another text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub u128);

impl Uid {
    /// The identity that this text is: a UUID as it stands, any other text by its hash.
    pub fn of(text: &str) -> Self {
        let mut digits: u128 = 0;
        let mut count = 0;
        for byte in text.bytes().filter(|byte| *byte != b'-') {
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Self(xxh3_128(text.as_bytes()));
            };
            digits = digits << 4 | u128::from(digit);
            count += 1;
        }
        if count == 32 { Self(digits) } else { Self(xxh3_128(text.as_bytes())) }
    }
}

/// A pod, as far as the book needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its identity: a pod made again under the same name is another pod.
    pub uid: Uid,
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// The node it is bound to.
    pub node: Option<Name>,
    /// All its addresses.
    pub addresses: Vec<IpAddr>,
    /// It has no address of its own: it uses its node's.
    pub host_network: bool,
    /// Kind and name of the top of its owner chain.
    pub workload: Option<(Name, Name)>,
    /// The application, as its labels call it.
    pub app: Option<Name>,
    /// Chosen labels: `key=value,key=value`, by key.
    pub labels: Option<Name>,
    /// When it got its addresses.
    pub from: Bounds,
    /// When it let go of them; `None` while it is not known to have ended.
    pub ended: Option<Bounds>,
    /// The ports at which the kubelet probes it.
    pub probe_ports: Vec<u16>,
    /// It is weir's agent: its node is enrolled.
    pub runs_agent: bool,
}

/// A node, as far as the book needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: Name,
    /// All its addresses.
    pub addresses: Vec<IpAddr>,
    /// The networks its pods' addresses come from.
    pub pod_networks: Vec<Prefix>,
    /// Its availability zone.
    pub zone: Option<Name>,
    /// Its region.
    pub region: Option<Name>,
    /// Its cloud.
    pub cloud: Option<Name>,
    /// When it joined.
    pub since: WallTime,
}

/// A service, as far as the book needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// Its virtual addresses: cluster, external and load balancer addresses.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<(Protocol, u16)>,
    /// Its ports on every node's addresses.
    pub node_ports: Vec<(Protocol, u16)>,
    /// When it was made.
    pub since: WallTime,
}

/// An address that an agent saw on its node: its own, or one it routes to a pod there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalFact {
    /// The address.
    pub address: IpAddr,
    /// When it was seen to appear; 0 where it was there before anybody looked. The first interval
    /// of an address on a node may have begun before it was seen.
    pub from: WallTime,
    /// When it was seen to disappear; `None` while it is there.
    pub to: Option<WallTime>,
}

/// News for the book.
#[derive(Clone, Debug)]
pub enum Update {
    /// A pod is there, or has changed, or has ended and is still listed.
    Pod(Pod),
    /// A pod is listed no more.
    PodGone {
        /// Which.
        uid: Uid,
        /// When it let go of its addresses.
        at: Bounds,
    },
    /// A node is there, or has changed.
    Node(NodeFacts),
    /// A node was deleted.
    NodeGone {
        /// Which.
        name: Name,
        /// When.
        at: WallTime,
    },
    /// A service is there, or has changed.
    Service(ServiceFacts),
    /// A service was deleted.
    ServiceGone {
        /// Its namespace.
        namespace: Name,
        /// Its name.
        name: Name,
        /// When.
        at: WallTime,
    },
    /// What an agent saw change on its node.
    Local {
        /// The agent's node.
        node: Name,
        /// The addresses are the node's own, not its pods'.
        own: bool,
        /// What it saw.
        facts: Vec<LocalFact>,
    },
    /// All that an agent sees on its node, and as much of the past as it remembers: what is not
    /// among it disappeared unseen.
    LocalAll {
        /// The agent's node.
        node: Name,
        /// The addresses are the node's own, not its pods'.
        own: bool,
        /// What it sees.
        facts: Vec<LocalFact>,
        /// When it looked.
        at: WallTime,
    },
    /// The node has an agent from now on.
    Enrolled {
        /// Which.
        node: Name,
        /// Since when.
        from: WallTime,
    },
    /// All that happened in the cluster before this moment has been told.
    Synced {
        /// Until when the book is complete.
        at: WallTime,
    },
}

/// News of the book that outlive it: what [`super::Cluster::restore`] takes after a restart.
#[derive(Clone, Debug)]
pub enum Change {
    /// Somebody has, or had, an address.
    Held {
        /// The address.
        address: IpAddr,
        /// The holder's identity.
        uid: Uid,
        /// The holder.
        endpoint: Arc<Endpoint>,
        /// Since when.
        from: Bounds,
        /// Until when; `None` while it is not known to have ended.
        to: Option<Bounds>,
    },
    /// What an agent saw on its node.
    Local {
        /// The agent's node.
        node: Name,
        /// The address is the node's own, not a pod's.
        own: bool,
        /// What it saw.
        fact: LocalFact,
    },
    /// The node has, or had, an agent.
    Enrolled {
        /// The node.
        node: Name,
        /// Since when.
        from: WallTime,
        /// Until when; `None` while it is there.
        to: Option<WallTime>,
    },
    /// The book was complete.
    Known {
        /// Until when.
        until: WallTime,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_itself_and_any_other_text_its_hash() {
        let uid = Uid::of("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0");
        assert_eq!(uid, Uid(0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0));
        for text in ["", "abc", "static-pod", &"f".repeat(33)] {
            assert_eq!(Uid::of(text), Uid(xxh3_128(text.as_bytes())), "{text}");
        }
    }

    #[test]
    fn bounds_narrow_to_what_both_allow() {
        let between = |one, other| Bounds::between(WallTime(one), WallTime(other));
        assert_eq!(between(1, 5).narrowed_by(between(9, 3)), between(3, 5));
        assert_eq!(between(1, 2).narrowed_by(between(3, 4)), between(3, 4));
        assert!(between(1, 3).meets(between(3, 4)));
        assert!(!between(1, 2).meets(between(3, 4)));
    }
}
