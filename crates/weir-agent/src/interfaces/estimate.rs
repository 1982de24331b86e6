//! From counters to the bytes that conntrack should have seen.

use super::links::Link;
use super::stack::Stack;

/// The smallest IP packet: a bare IPv4 header.
const PACKET_BYTES_MIN: u64 = 20;
/// The largest that GRO makes ("BIG TCP": `GRO_MAX_SIZE`, 8 × 65535).
const PACKET_BYTES_MAX: u64 = 8 * 65_535;
/// Below this many bytes nothing is said to bypass the IP stack: frames that are not IP (ARP, spanning
/// tree, LLDP), and packets between the reading of two files.
const BYPASSED_BYTES_MIN: u64 = 64 * 1024;
/// What interfaces received beyond the IP stack counts as bypassing it only above one part in this
/// many: a card counts headers that GRO removes (up to 3.5 %, more with small segments), VLAN tags
/// and check sequences.
const BYPASSED_PART: u64 = 10;
/// Interfaces named at most.
const NAMED: usize = 8;

/// What moved between two moments. All numbers are bytes, at layer 3 unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Received from other machines and namespaces: by the IP stack, across bridges, and past both.
    pub received: u64,
    /// Of these: from port to port of a bridge, never seen by the IP stack.
    pub bridged: u64,
    /// Of these: neither the IP stack nor a bridge saw them. An eBPF datapath, Open vSwitch, or a
    /// macvlan that belongs to a container took them from the interface; or XDP dropped them.
    pub bypassed: u64,
    /// The interfaces without a bridge's ports that received most, at most 8, the largest first.
    pub interfaces: Vec<(String, u64)>,
    /// The bridges across which most went, at most 8, the largest first.
    pub bridges: Vec<(String, u64)>,
    /// Sent by the IP stack, of local origin or forwarded.
    pub(crate) sent: u64,
    /// How often a forwarded packet's octets are in `sent`.
    pub(crate) forwarded_times: u64,
    /// Bounds of, and a guess at, the forwarded octets.
    pub(crate) forwarded: Range,
    /// Everything in and out of every interface, link headers included.
    pub(crate) upper_bound: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    least: u64,
    guess: u64,
    most: u64,
}

impl Moved {
    pub(super) fn new(stack: &Stack, links: &[Link], vanished: u64, unread: u64) -> Self {
        let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
        let loopbacks = || links.iter().filter(|link| link.is_loopback());
        let looped = sum(&mut loopbacks().map(|link| link.counters.received_bytes));
        let looped_packets = sum(&mut loopbacks().map(|link| link.counters.received_packets));
        let received = stack.received_octets.saturating_sub(looped);
        let delivered_packets = stack.delivered_packets.saturating_sub(looped_packets);

        let bridges: Vec<(String, u64)> = links
            .iter()
            .filter(|link| link.is_bridge())
            .map(|bridge| {
                let ports = links.iter().filter(|link| link.master == Some(bridge.index));
                let ports = sum(&mut ports.map(Link::received_l3));
                (bridge.name.clone(), ports.saturating_sub(bridge.received_l3()))
            })
            .collect();
        let bridged = sum(&mut bridges.iter().map(|(_, bytes)| *bytes));

        let lower: Vec<&Link> =
            links.iter().filter(|link| !link.is_loopback() && !link.is_stacked()).collect();
        let arrived = sum(&mut lower.iter().map(|link| link.received_l3()));
        let beyond = arrived.saturating_sub(received).saturating_sub(bridged);
        let threshold = BYPASSED_BYTES_MIN.max(arrived / BYPASSED_PART);
        let bypassed = if beyond > threshold { beyond } else { 0 };
        let on_bridge = |link: &&&Link| {
            links.iter().any(|other| other.is_bridge() && link.master == Some(other.index))
        };
        let interfaces = lower.iter().filter(|link| !on_bridge(link));
        let interfaces = interfaces.map(|link| (link.name.clone(), link.received_l3())).collect();

        let forwarded_times = if stack.forwarded_twice { 2 } else { 1 };
        let all = sum(&mut links.iter().map(Link::moved));
        Self {
            received: received.saturating_add(bridged).saturating_add(bypassed),
            bridged,
            bypassed,
            interfaces: largest(interfaces),
            bridges: largest(bridges),
            sent: stack.sent_octets,
            forwarded_times,
            forwarded: forwarded(stack, received, delivered_packets, forwarded_times),
            upper_bound: (vanished == 0 && unread == 0).then_some(all),
        }
    }

    /// The layer-3 bytes that conntrack should have counted, as far as these counters alone tell.
    pub fn expected_l3_bytes(&self) -> u64 {
        self.expected(self.forwarded.guess)
    }

    /// The same, helped by what conntrack counted as sent by this machine itself (bytes of the
    /// directions whose source is one of its own addresses). It cannot mislead further than the
    /// counters' own bounds.
    pub fn expected_with(&self, counted_from_here: u64) -> u64 {
        let forwarded = self.sent.saturating_sub(counted_from_here) / self.forwarded_times.max(1);
        self.expected(forwarded.clamp(self.forwarded.least, self.forwarded.most))
    }

    /// The least and the most that [`Moved::expected_l3_bytes`] can be.
    pub fn expected_bounds(&self) -> (u64, u64) {
        (self.expected(self.forwarded.most), self.expected(self.forwarded.least))
    }

    /// More than this cannot have passed: everything received and sent by every interface, link
    /// headers included, so what passes through is in it twice. `None` where an interface of the
    /// earlier moment is gone, and with it what it had moved last.
    pub fn upper_bound_bytes(&self) -> Option<u64> {
        self.upper_bound
    }

    fn expected(&self, forwarded: u64) -> u64 {
        let forwarded = forwarded.saturating_mul(self.forwarded_times);
        self.received.saturating_add(self.sent.saturating_sub(forwarded))
    }
}

/// How many of `received` octets were forwarded: the packets say so between bounds.
fn forwarded(stack: &Stack, received: u64, delivered_packets: u64, times: u64) -> Range {
    let packets = stack.forwarded_packets;
    let at_least = packets.saturating_mul(PACKET_BYTES_MIN);
    let most = packets
        .saturating_mul(PACKET_BYTES_MAX)
        .min(received.saturating_sub(delivered_packets.saturating_mul(PACKET_BYTES_MIN)))
        .min(stack.sent_octets / times);
    let least = at_least
        .max(received.saturating_sub(delivered_packets.saturating_mul(PACKET_BYTES_MAX)))
        .min(most);
    let all = u128::from(packets) + u128::from(delivered_packets);
    let guess = u128::from(received) * u128::from(packets) / all.max(1);
    let guess = u64::try_from(guess).unwrap_or(u64::MAX).clamp(least, most);
    Range { least, guess, most }
}

fn largest(mut named: Vec<(String, u64)>) -> Vec<(String, u64)> {
    named.retain(|(_, bytes)| *bytes > 0);
    named.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    named.truncate(NAMED);
    named
}
