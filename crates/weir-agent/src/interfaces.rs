//! What this machine's network moved, by counters that conntrack has no part in.
//!
//! Conntrack counts a packet once, with its layer-3 length, when it enters (from an interface, or
//! from a local socket). To say how much of the traffic it saw, the same sum is needed from
//! elsewhere. No single counter has it; [`Moved`] puts it together:
//!
//! ```text
//! received   octets the IP stack took in (IpExt InOctets, Ip6InOctets) without those of loopback
//! + bridged  what the ports of a bridge received and the bridge did not pass up to the IP stack
//! + bypassed what interfaces received and neither the IP stack nor a bridge saw
//! + sent     octets the IP stack put out (OutOctets, Ip6OutOctets) without those it forwarded
//! ```
//!
//! Interfaces alone would do worse: their bytes include 14 of Ethernet header a packet, and a
//! network card counts segments where conntrack counts the GRO packet made of them (about 3.5 % of
//! bulk TCP is headers that conntrack never sees). The stack's octets are counted after GRO and
//! before GSO, packet by packet as in conntrack. On loopback a packet enters once, when it is sent.
//!
//! The kernel has no counter of forwarded octets, only of forwarded packets. Where packets are
//! both forwarded and delivered here, the forwarded octets lie between two bounds, and the share
//! of packets, or better what conntrack itself counted as sent from here, says where
//! ([`Moved::expected_with`]). A machine that does only one of the two has an exact answer.
//!
//! Observed on Linux 6.18, 20 MiB of TCP each, conntrack's sum ÷ the estimate: loopback 1.0000;
//! from and to this machine over veth 1.0000; routed pod → outside, outside → pod and pod → pod
//! 1.0000; bridged pod → outside, host → pod and pod → pod (`bridge-nf-call-iptables=1`) 1.0000.
//! The same from interface counters with their Ethernet headers: 0.9995. A machine that forwards a
//! fifth of its traffic and sends, receives and loops the rest: 1.0000 with what conntrack counted
//! as sent from here, 0.973 from the share of packets alone.

mod estimate;
mod links;
mod saved;
mod stack;

use std::fs;

use weir_conntrack::Error;
use weir_conntrack::netlink::Socket;

pub use self::estimate::Moved;
use self::links::Link;
pub use self::saved::Unreadable;
use self::stack::Stack;

/// More interfaces than this are not read; then there is no upper bound.
const MAX_INTERFACES: usize = 65_536;
/// The kernel fills no more than this per receive.
const BUFFER_BYTES: usize = 32 * 1024;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Reads the counters of the network namespace it was opened in.
#[derive(Debug)]
pub struct Interfaces {
    socket: Socket,
    buffer: Box<[u8]>,
}

impl Interfaces {
    /// Opens a netlink socket. Needs no privilege.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        Ok(Self { socket, buffer: vec![0; BUFFER_BYTES].into_boxed_slice() })
    }

    /// Reads all counters. Must be called in the network namespace of [`Interfaces::open`].
    pub fn read(&mut self) -> Result<InterfaceCounters, Error> {
        let boot = fs::read_to_string(BOOT_ID)
            .map_err(|source| Error::File { path: BOOT_ID.into(), source })?;
        let boot = boot.trim().to_owned();
        // The stack before the interfaces: a packet in between is then bypassed rather than
        // negative, and below the threshold of that.
        let stack = Stack::read()?;
        let (links, unread) = links::read(&self.socket, &mut self.buffer)?;
        Ok(InterfaceCounters { boot, stack, links, unread })
    }
}

/// Cumulative counters at one moment. They survive a restart of weir
/// ([`InterfaceCounters::to_text`]), though not one of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// The boot they count in (`/proc/sys/kernel/random/boot_id`).
    boot: String,
    stack: Stack,
    /// Sorted by index.
    links: Vec<Link>,
    /// Interfaces whose counters could not be read, or were too many.
    unread: u64,
}

impl InterfaceCounters {
    /// What moved since `earlier`. `None` when the two cannot be compared: the machine was started
    /// again, or a counter went backwards.
    pub fn difference(&self, earlier: &Self) -> Option<Moved> {
        if self.boot != earlier.boot {
            return None;
        }
        let stack = self.stack.since(&earlier.stack)?;
        let mut links = Vec::with_capacity(self.links.len());
        let mut old = earlier.links.iter().peekable();
        let mut vanished = 0;
        for link in &self.links {
            while old.next_if(|old| old.index < link.index).is_some() {
                vanished += 1;
            }
            links.push(match old.next_if(|old| old.index == link.index) {
                Some(old) => Link { counters: link.counters.since(&old.counters)?, ..link.clone() },
                // Made in between: it began at zero.
                None => link.clone(),
            });
        }
        vanished += u64::try_from(old.count()).unwrap_or(u64::MAX);
        Some(Moved::new(&stack, &links, vanished, self.unread.max(earlier.unread)))
    }
}

#[cfg(test)]
mod tests;
