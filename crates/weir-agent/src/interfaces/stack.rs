//! The IP stack's own counters, from `/proc/net/{snmp,netstat,snmp6}` (names are those of RFC 1213
//! and RFC 4293; see `net/ipv4/proc.c` and `net/ipv6/proc.c`).

use std::fs;
use std::io;

use weir_conntrack::Error;

const SNMP: &str = "/proc/thread-self/net/snmp";
const NETSTAT: &str = "/proc/thread-self/net/netstat";
const SNMP6: &str = "/proc/thread-self/net/snmp6";

/// IPv4 and IPv6 together, loopback included. Packets are counted after GRO and before GSO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stack {
    pub(super) received_octets: u64,
    pub(super) sent_octets: u64,
    pub(super) delivered_packets: u64,
    pub(super) forwarded_packets: u64,
    /// True where the kernel counts a forwarded packet's octets twice in `sent_octets`, as it did
    /// before Linux 6.7. Told by the column `OutTransmits`, which came right after. On an older
    /// kernel that has the correction all the same, a machine that both forwards and speaks itself
    /// gets too low a guess; what conntrack counted as sent from here corrects it.
    pub(super) forwarded_twice: bool,
}

impl Stack {
    pub(super) fn read() -> Result<Self, Error> {
        let snmp = file(SNMP)?;
        let netstat = file(NETSTAT)?;
        // Absent where the kernel has no IPv6.
        let snmp6 = fs::read_to_string(SNMP6).unwrap_or_default();
        Self::parse(&snmp, &netstat, &snmp6).map_err(|missing| Error::File {
            path: format!("{missing} of {SNMP} or {NETSTAT}"),
            source: io::Error::from(io::ErrorKind::InvalidData),
        })
    }

    /// The error is the name of a counter that every kernel has and this text has not.
    pub(super) fn parse(snmp: &str, netstat: &str, snmp6: &str) -> Result<Self, &'static str> {
        let ip = |name| column(snmp, "Ip:", name).ok_or(name);
        let extended = |name| column(netstat, "IpExt:", name).ok_or(name);
        let six = |name| line(snmp6, name).unwrap_or(0);
        let sum = |four: u64, six: u64| four.wrapping_add(six);
        Ok(Self {
            received_octets: sum(extended("InOctets")?, six("Ip6InOctets")),
            sent_octets: sum(extended("OutOctets")?, six("Ip6OutOctets")),
            delivered_packets: sum(ip("InDelivers")?, six("Ip6InDelivers")),
            forwarded_packets: sum(ip("ForwDatagrams")?, six("Ip6OutForwDatagrams")),
            forwarded_twice: column(snmp, "Ip:", "OutTransmits").is_none(),
        })
    }

    /// The growth since `earlier`; `None` when any number went backwards.
    pub(super) fn since(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            received_octets: self.received_octets.checked_sub(earlier.received_octets)?,
            sent_octets: self.sent_octets.checked_sub(earlier.sent_octets)?,
            delivered_packets: self.delivered_packets.checked_sub(earlier.delivered_packets)?,
            forwarded_packets: self.forwarded_packets.checked_sub(earlier.forwarded_packets)?,
            forwarded_twice: self.forwarded_twice,
        })
    }
}

fn file(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })
}

/// A number of a file that has lines in pairs, names above numbers, each begun by `prefix`.
fn column(text: &str, prefix: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let place = names.split_ascii_whitespace().position(|found| found == name)?;
    numbers.split_ascii_whitespace().nth(place)?.parse().ok()
}

/// A number of a file that has a name and a number on each line.
fn line(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (found, number) = line.split_once(char::is_whitespace)?;
        (found == name).then(|| number.trim().parse().ok())?
    })
}
