//! The kernel's own text of a conntrack table (`/proc/net/nf_conntrack`): a second witness beside
//! the counting rules, read without anything of weir's.

use std::net::IpAddr;

use weir_flow::{Counters, Protocol, Totals};

use crate::error::LabError;
use crate::truth::ConnectionKey;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its connection. ICMP identifiers are left out, as the truth leaves them out.
    pub key: ConnectionKey,
    /// Its counters, where accounting was on when it was made.
    pub totals: Option<Totals>,
}

/// Reads a table's text.
pub fn parse(text: &str) -> Result<Vec<Entry>, LabError> {
    let entries = text.lines().filter(|line| !line.trim().is_empty()).map(|line| {
        entry(line).ok_or_else(|| LabError::Answer {
            program: "the kernel's conntrack table".to_owned(),
            message: format!("`{line}`"),
        })
    });
    entries.collect()
}

/// A direction as it is printed.
#[derive(Default)]
struct Direction {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: u16,
    destination_port: u16,
    icmp: Option<(u8, u8)>,
    packets: Option<u64>,
    bytes: Option<u64>,
}

fn entry(line: &str) -> Option<Entry> {
    let number = line.split_ascii_whitespace().nth(3)?.parse().ok()?;
    let mut directions: Vec<Direction> = Vec::new();
    for word in line.split_ascii_whitespace() {
        let Some((name, value)) = word.split_once('=') else { continue };
        if name == "src" {
            let source = Some(value.parse().ok()?);
            directions.push(Direction { source, ..Direction::default() });
            continue;
        }
        let Some(direction) = directions.last_mut() else { continue };
        match name {
            "dst" => direction.destination = Some(value.parse().ok()?),
            "sport" => direction.source_port = value.parse().ok()?,
            "dport" => direction.destination_port = value.parse().ok()?,
            "type" => direction.icmp = Some((value.parse().ok()?, 0)),
            "code" => direction.icmp = Some((direction.icmp?.0, value.parse().ok()?)),
            "packets" => direction.packets = Some(value.parse().ok()?),
            "bytes" => direction.bytes = Some(value.parse().ok()?),
            _ => {}
        }
    }
    let [original, reply] = directions.as_slice() else { return None };
    let port = original.icmp.map(|(kind, code)| u16::from_be_bytes([kind, code]));
    let key = ConnectionKey {
        protocol: Protocol(number),
        source: original.source?,
        source_port: original.source_port,
        dialled: original.destination?,
        dialled_port: port.unwrap_or(original.destination_port),
        backend: reply.source?,
    };
    let counters = |d: &Direction| Some(Counters { packets: d.packets?, bytes: d.bytes? });
    let totals = counters(original).zip(counters(reply));
    Some(Entry { key, totals: totals.map(|(sent, received)| Totals { sent, received }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read() {
        let text = "\
ipv4     2 tcp      6 117 TIME_WAIT src=10.0.0.2 dst=10.96.0.10 sport=41740 dport=80 packets=14 bytes=1736 src=10.0.0.3 dst=10.0.0.2 sport=8080 dport=41740 packets=13 bytes=300736 [ASSURED] mark=0 delta-time=2 zone=0 use=2
ipv6     10 icmpv6   58 29 src=fd00:0000:0000:0000:0000:0000:0000:0001 dst=fd00:0000:0000:0000:0000:0000:0000:0002 type=128 code=0 id=7 src=fd00:0000:0000:0000:0000:0000:0000:0002 dst=fd00:0000:0000:0000:0000:0000:0000:0001 type=129 code=0 id=7 mark=0 zone=0 use=2
";
        let entries = parse(text).unwrap();
        assert_eq!(entries[0].key.backend, "10.0.0.3".parse::<IpAddr>().unwrap());
        assert_eq!((entries[0].key.source_port, entries[0].key.dialled_port), (41740, 80));
        let totals = entries[0].totals.unwrap();
        assert_eq!((totals.sent.packets, totals.received.bytes), (14, 300_736));
        assert_eq!(entries[1].key.dialled_port, 0x8000);
        assert_eq!(entries[1].totals, None, "no accounting is not zero");
    }

    #[test]
    fn nonsense_is_an_error() {
        parse("ipv4 2 tcp six 117").unwrap_err();
        parse("ipv4 2 tcp 6 117 src=1.2.3.4 dst=here").unwrap_err();
    }
}
