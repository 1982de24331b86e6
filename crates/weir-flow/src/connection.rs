//! What identifies a connection for its lifetime, and which way round it is read.

use std::net::IpAddr;

use crate::batch::Epoch;
use crate::port;
use crate::record::FlowRecord;
use crate::record::RecordFlags;
use crate::sample::Sample;
use crate::tuple::{Protocol, Tuple};

/// Makes the 64-bit keys of connections.
///
/// A connection is (id, zone, original tuple, start). The kernel's id alone collides (it is a
/// hash) and is reused together with its tuple when a port is reused; the start tells those lives
/// apart. The key is a hash of all of it under the epoch's random bits, so that nobody who can
/// choose ports and addresses can aim for a collision, and so that it means the same connection
/// after a restart of the agent.
#[derive(Clone, Copy, Debug)]
pub struct KeyMaker {
    seeds: [u64; 2],
}

impl KeyMaker {
    /// The key maker of an epoch.
    pub fn new(epoch: Epoch) -> Self {
        let high = u64::try_from(epoch.0 >> 64).expect("the upper half of 128 bits is 64 bits");
        let low = u64::try_from(epoch.0 & u128::from(u64::MAX)).expect("masked to 64 bits");
        Self { seeds: [low ^ 0x9e37_79b9_7f4a_7c15, high ^ 0xd1b5_4a32_d192_ed03] }
    }

    /// The key of the connection a sample speaks of.
    #[inline]
    pub fn connection(&self, sample: &Sample) -> u64 {
        let identity = u64::from(sample.id) << 16 | u64::from(sample.zone);
        let start = sample.start.map_or(0, |start| start.0);
        let hash = self.tuple(&sample.original);
        mix(mix(hash ^ self.seeds[0], identity ^ self.seeds[1]), start ^ self.seeds[0])
    }

    /// What the entries of one connection in several zones have in common: a hash of the reply
    /// tuple without its zone.
    pub fn group(&self, reply: &Tuple) -> u64 {
        let mut tuple = *reply;
        if tuple.protocol.is_icmp() {
            tuple.destination_port = 0;
        }
        self.tuple(&tuple)
    }

    /// The same for a record, from which the reply tuple can be told.
    pub fn group_of_record(&self, record: &FlowRecord) -> u64 {
        let opener = record.translated_source.unwrap_or((record.source, record.source_port));
        let backend = (record.destination, record.destination_port);
        let icmp = record.protocol.is_icmp();
        let (from, to) = if record.flags.has(RecordFlags::TURNED) {
            (opener, backend)
        } else {
            (backend, opener)
        };
        self.group(&Tuple {
            protocol: record.protocol,
            source: from.0,
            destination: to.0,
            source_port: if icmp { record.source_port } else { from.1 },
            destination_port: if icmp { 0 } else { to.1 },
        })
    }

    #[inline]
    fn tuple(&self, tuple: &Tuple) -> u64 {
        let (source, destination) = (halves(tuple.source), halves(tuple.destination));
        let ports = u64::from(tuple.source_port) << 32
            | u64::from(tuple.destination_port) << 16
            | u64::from(tuple.protocol.0) << 8
            | u64::from(tuple.source.is_ipv6());
        let source = mix(source.0 ^ self.seeds[0], source.1 ^ self.seeds[1]);
        let destination = mix(destination.0 ^ self.seeds[1], destination.1 ^ ports);
        mix(source ^ ports, destination ^ self.seeds[0])
    }
}

/// Multiply to 128 bits and fold: every input bit reaches every output bit.
#[inline]
fn mix(left: u64, right: u64) -> u64 {
    // An odd constant keeps a zero factor from erasing the other one.
    let left = left ^ 0xa076_1d64_78bd_642f;
    let product = u128::from(left).wrapping_mul(u128::from(right ^ 0xe703_7ed1_a0b4_28db));
    #[expect(clippy::cast_possible_truncation, reason = "folding takes both halves")]
    let folded = (product as u64) ^ ((product >> 64) as u64);
    folded
}

#[inline]
fn halves(address: IpAddr) -> (u64, u64) {
    match address {
        IpAddr::V4(v4) => (0, u64::from(u32::from(v4))),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            #[expect(clippy::cast_possible_truncation, reason = "the two halves of 128 bits")]
            let halves = ((bits >> 64) as u64, bits as u64);
            halves
        }
    }
}

/// What the node knows that helps to tell who opened a connection met in mid-stream.
pub trait Listeners {
    /// True when something is known to listen at this address and port.
    fn listens(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool;

    /// True when the address is this machine's own; `None` where nobody knows.
    fn is_own(&self, _: IpAddr) -> Option<bool> {
        None
    }

    /// `nf_conntrack_tcp_be_liberal`: when on, mid-stream entries cannot be told from others.
    fn kernel_is_liberal(&self) -> bool {
        false
    }
}

/// Knows of nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoListeners;

impl Listeners for NoListeners {
    fn listens(&self, _: Protocol, _: IpAddr, _: u16) -> bool {
        false
    }
}

/// Which way round an entry is read, decided once at first sight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// The kernel made the entry from the middle of a stream.
    pub picked_up: bool,
    /// The kernel's original direction leads away from the listening end.
    pub turned: bool,
}

impl Orientation {
    /// Decides for a first sight: original direction = source to destination, except for an entry
    /// picked up in mid-stream, whose original direction is only that of the next packet.
    pub fn of(sample: &Sample, listeners: &dyn Listeners) -> Self {
        let picked_up = !listeners.kernel_is_liberal()
            && sample.original.protocol == Protocol::TCP
            && sample.tcp.is_some_and(crate::sample::TcpState::both_liberal);
        // Translation rules only match in the direction of opening.
        let translated = !sample.original.is_mirrored_by(&sample.reply);
        let turned = picked_up && !translated && opener_is_destination(sample, listeners);
        Self { picked_up, turned }
    }
}

/// True when the original *source* looks like the end that was dialled: it listens, else it has a
/// known service port, else the lower port.
fn opener_is_destination(sample: &Sample, listeners: &dyn Listeners) -> bool {
    let Tuple { protocol, source, destination, source_port, destination_port } = sample.original;
    let listens = |address, port| listeners.listens(protocol, address, port);
    let known = |port| port::is_well_known(protocol, port);
    let mut evidence = [
        (listens(source, source_port), listens(destination, destination_port)),
        (known(source_port), known(destination_port)),
    ]
    .into_iter();
    match evidence.find(|(source, destination)| source != destination) {
        Some((source_serves, _)) => source_serves,
        None => source_port < destination_port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::TcpState;
    use crate::time::WallTime;

    fn tuple(source: &str, source_port: u16, destination: &str, destination_port: u16) -> Tuple {
        Tuple {
            protocol: Protocol::TCP,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port,
            destination_port,
        }
    }

    fn mirrored(original: Tuple, liberal: bool) -> Sample {
        let flags = if liberal { 0x2a } else { 0x23 };
        let reply = Tuple {
            source: original.destination,
            destination: original.source,
            source_port: original.destination_port,
            destination_port: original.source_port,
            ..original
        };
        let tcp = Some(TcpState { state: 3, flags_original: flags, flags_reply: flags });
        Sample { original, reply, tcp, ..Sample::default() }
    }

    struct Port9000;
    impl Listeners for Port9000 {
        fn listens(&self, _: Protocol, _: IpAddr, port: u16) -> bool {
            port == 9_000
        }
    }

    #[test]
    fn every_part_of_the_identity_changes_the_key() {
        let keys = KeyMaker::new(Epoch(7));
        let base = mirrored(tuple("10.0.0.1", 40_000, "10.0.0.2", 80), false);
        let mut variants = vec![base; 6];
        variants[1].id = 1;
        variants[2].zone = 1;
        variants[3].start = Some(WallTime(1));
        variants[4].original.source_port = 40_001;
        variants[5].original.source = "::10.0.0.1".parse().unwrap();
        let hashes: std::collections::HashSet<_> =
            variants.iter().map(|sample| keys.connection(sample)).collect();
        assert_eq!(hashes.len(), variants.len());
        assert_ne!(keys.connection(&base), KeyMaker::new(Epoch(8)).connection(&base));
    }

    #[test]
    fn a_normal_entry_is_never_turned() {
        let sample = mirrored(tuple("10.0.0.2", 80, "10.0.0.1", 40_000), false);
        assert_eq!(Orientation::of(&sample, &NoListeners), Orientation::default());
    }

    #[test]
    fn a_picked_up_entry_is_turned_to_the_listening_end() {
        let cases = [
            (("10.0.0.2", 80), ("10.0.0.1", 40_000), true, "known port"),
            (("10.0.0.1", 40_000), ("10.0.0.2", 80), false, "known port, right way round"),
            (("10.0.0.2", 20_000), ("10.0.0.1", 40_000), true, "lower port"),
            (("10.0.0.2", 9_000), ("10.0.0.1", 80), true, "a listener beats a known port"),
            (("10.0.0.2", 7_000), ("10.0.0.1", 7_000), false, "a tie stays as it is"),
        ];
        for (source, destination, turned, why) in cases {
            let sample = mirrored(tuple(source.0, source.1, destination.0, destination.1), true);
            let seen = Orientation::of(&sample, &Port9000);
            assert_eq!(seen, Orientation { picked_up: true, turned }, "{why}");
        }
    }

    #[test]
    fn a_translated_entry_is_not_turned() {
        let mut sample = mirrored(tuple("10.0.0.1", 30, "10.96.0.1", 8_080), true);
        sample.reply.source = "10.0.0.9".parse().unwrap();
        assert!(!Orientation::of(&sample, &NoListeners).turned);
    }
}
