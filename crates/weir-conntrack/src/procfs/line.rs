//! One line of the text form: `ct_seq_show()` of `net/netfilter/nf_conntrack_standalone.c`, and its
//! elder `ip_conntrack`, which has no address family in front.

use std::net::IpAddr;
use std::str::{FromStr, SplitAsciiWhitespace};

use weir_flow::{Counters, Protocol, Sample, Status, TcpState, Totals, Tuple};

use crate::message::WITH_PORTS;

/// `IPS_SEEN_REPLY`.
const SEEN_REPLY: u32 = 1 << 1;
/// `IPS_ASSURED`.
const ASSURED: u32 = 1 << 2;
/// `IPS_CONFIRMED`: every entry of the table is.
const CONFIRMED: u32 = 1 << 3;
/// `IPS_SRC_NAT`.
const SOURCE_NAT: u32 = 1 << 4;
/// `IPS_DST_NAT`.
const DESTINATION_NAT: u32 = 1 << 5;
/// `IPS_OFFLOAD`.
const OFFLOAD: u32 = 1 << 14;
/// `IPS_HW_OFFLOAD`.
const HARDWARE_OFFLOAD: u32 = 1 << 15;

/// What the kernel calls a protocol that it has no name for.
const UNNAMED: &str = "unknown";
/// The last name of old kernels for a state that is `SYN_SENT2` today.
const OLD_SYN_SENT2: &str = "LISTEN";

/// Why a line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// It is longer than any line of the kernel's.
    #[error("it is longer than {limit} bytes")]
    Long {
        /// The most a line may have.
        limit: usize,
    },
    /// It is not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It does not begin as an entry does.
    #[error("it should begin with a protocol's name and number, such as `tcp 6`")]
    NoProtocol,
    /// Something that every entry has is absent.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A value cannot be read.
    #[error("`{key}=` is not followed by {expected}")]
    Value {
        /// What stands before the equals sign.
        key: &'static str,
        /// What should follow.
        expected: &'static str,
    },
    /// A third direction.
    #[error("it has more than two tuples")]
    Directions,
    /// Addresses of both families in one entry, or of another family than the line's first word.
    #[error("it mixes IPv4 and IPv6 addresses")]
    MixedFamilies,
    /// The file ends in the middle of it.
    #[error("the file ends in the middle of it")]
    Cut,
}

/// One direction as it is read.
#[derive(Clone, Copy, Default)]
struct Direction {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    ports: [Option<u16>; 2],
    /// ICMP's type, code and identifier.
    message_type: Option<u8>,
    code: Option<u8>,
    identifier: Option<u16>,
    packets: Option<u64>,
    bytes: Option<u64>,
}

/// Everything a line says.
#[derive(Default)]
struct Entry {
    directions: [Direction; 2],
    /// Tuples begun so far.
    begun: usize,
    unreplied: bool,
    flags: u32,
    mark: u32,
    zone: u16,
}

/// Reads one line of `nf_conntrack` or `ip_conntrack`.
///
/// The text has no id: [`Sample::id`] is 0, and with it and without a start (`delta-time` counts
/// whole seconds, so what follows from it differs from reading to reading) two lives of one tuple
/// between two readings cannot be told apart. Of the status it shows what was answered, assured
/// and offloaded; translation is inferred from the tuples. TCP's flags are absent, so an entry met
/// in mid-stream is not recognised.
///
/// Words, keys and flags that are not known here are passed over, so that newer kernels can be
/// read.
pub fn parse_line(line: &[u8]) -> Result<Sample, LineError> {
    let line = str::from_utf8(line).map_err(|_position| LineError::NotText)?;
    let mut words = line.split_ascii_whitespace();
    let (family, protocol) = head(&mut words)?;
    let mut tcp = None;
    let mut entry = Entry::default();
    for word in words {
        if let Some((key, value)) = word.split_once('=') {
            entry.pair(protocol, key, value)?;
        } else if entry.begun == 0 {
            // The timeout, absent for offloaded entries, and the state.
            tcp = tcp.or_else(|| tcp_state(protocol, word));
        } else {
            entry.flag(word);
        }
    }
    let Entry { directions: [original, reply], begun, unreplied, flags, mark, zone } = entry;
    if begun < 2 {
        return Err(LineError::Missing(["original tuple", "reply tuple"][begun]));
    }
    let totals = match (original.counters()?, reply.counters()?) {
        (Some(sent), Some(received)) => Some(Totals { sent, received }),
        (None, None) => None,
        // The kernel counts both directions or none; half would be taken for zero.
        _ => return Err(LineError::Missing("counters of one direction")),
    };
    let (original, reply) = (original.tuple(protocol)?, reply.tuple(protocol)?);
    let ipv4 = original.source.is_ipv4();
    if reply.source.is_ipv4() != ipv4 || family.is_some_and(|family| (family == 2) != ipv4) {
        return Err(LineError::MixedFamilies);
    }
    let replied = if unreplied { 0 } else { SEEN_REPLY };
    let status = Status(CONFIRMED | replied | flags | translation(&original, &reply));
    Ok(Sample { zone, original, reply, totals, status, mark, tcp, ..Sample::default() })
}

/// Reads the family, where there is one, and the protocol.
fn head(words: &mut SplitAsciiWhitespace<'_>) -> Result<(Option<u8>, Protocol), LineError> {
    let mut named = || -> Option<(&str, u8)> { Some((words.next()?, words.next()?.parse().ok()?)) };
    let (name, number) = named().ok_or(LineError::NoProtocol)?;
    // `ipv6` is a protocol's name as well (6in4, number 41): the family's number is 10.
    let family = matches!((name, number), ("ipv4", 2) | ("ipv6", 10)).then_some(number);
    let (name, number) =
        if family.is_some() { named().ok_or(LineError::NoProtocol)? } else { (name, number) };
    let protocol = Protocol(number);
    let known = if name == UNNAMED { None } else { Protocol::parse(name) };
    if is_a_name(name) && known.is_none_or(|known| known == protocol) {
        Ok((family, protocol))
    } else {
        Err(LineError::NoProtocol)
    }
}

/// True for what may name a protocol, whether weir knows it or not.
fn is_a_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_lowercase())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The state of a TCP entry, if `word` is one.
fn tcp_state(protocol: Protocol, word: &str) -> Option<TcpState> {
    /// One more than the highest of `enum tcp_conntrack`.
    const STATES: u8 = 10;
    if protocol != Protocol::TCP {
        return None;
    }
    let word = if word == OLD_SYN_SENT2 { "SYN_SENT2" } else { word };
    (0..STATES)
        .map(|state| TcpState { state, ..TcpState::default() })
        .find(|state| state.name() == word)
}

/// What the tuples say of translation. The kernel marks an entry when it changes what replies look
/// like, which is what can be seen here.
fn translation(original: &Tuple, reply: &Tuple) -> u32 {
    let source = (original.source, original.source_port);
    let destination = (original.destination, original.destination_port);
    let (back_from, back_to) = if original.protocol.is_icmp() {
        // A request's identifier stands in the same place in both directions.
        ((reply.source, destination.1), (reply.destination, reply.source_port))
    } else {
        ((reply.source, reply.source_port), (reply.destination, reply.destination_port))
    };
    let source_nat = if back_to == source { 0 } else { SOURCE_NAT };
    let destination_nat = if back_from == destination { 0 } else { DESTINATION_NAT };
    source_nat | destination_nat
}

impl Entry {
    fn pair(&mut self, protocol: Protocol, key: &str, value: &str) -> Result<(), LineError> {
        if key == "src" {
            self.begun += 1;
        }
        let Some(current) = self.begun.checked_sub(1) else { return Ok(()) };
        let direction = self.directions.get_mut(current).ok_or(LineError::Directions)?;
        match key {
            "src" => direction.source = Some(read("src", value, "an IP address")?),
            "dst" => direction.destination = Some(read("dst", value, "an IP address")?),
            "sport" => direction.ports[0] = Some(read("sport", value, "a port")?),
            "dport" => direction.ports[1] = Some(read("dport", value, "a port")?),
            "packets" => direction.packets = Some(read("packets", value, "a number")?),
            "bytes" => direction.bytes = Some(read("bytes", value, "a number")?),
            "type" => direction.message_type = Some(read("type", value, "a number below 256")?),
            "code" => direction.code = Some(read("code", value, "a number below 256")?),
            // `conntrack -o id` writes the entry's own id under the same name at the end.
            "id" if protocol.is_icmp() && direction.identifier.is_none() => {
                direction.identifier = Some(read("id", value, "a number below 65536")?);
            }
            "mark" => self.mark = read("mark", value, "a number")?,
            // As over netlink: the entry's zone, else that of its original direction.
            "zone" => self.zone = read("zone", value, "a number below 65536")?,
            "zone-orig" => self.zone = read("zone-orig", value, "a number below 65536")?,
            _ => {}
        }
        Ok(())
    }

    fn flag(&mut self, word: &str) {
        match word {
            "[UNREPLIED]" => self.unreplied = true,
            "[ASSURED]" => self.flags |= ASSURED,
            "[OFFLOAD]" => self.flags |= OFFLOAD,
            // Hardware carries what a flowtable has offered to it.
            "[HW_OFFLOAD]" => self.flags |= OFFLOAD | HARDWARE_OFFLOAD,
            _ => {}
        }
    }
}

impl Direction {
    fn counters(&self) -> Result<Option<Counters>, LineError> {
        match (self.packets, self.bytes) {
            (Some(packets), Some(bytes)) => Ok(Some(Counters { packets, bytes })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(LineError::Missing("byte counter")),
            (None, Some(_)) => Err(LineError::Missing("packet counter")),
        }
    }

    fn tuple(&self, protocol: Protocol) -> Result<Tuple, LineError> {
        let source = self.source.ok_or(LineError::Missing("source address"))?;
        let destination = self.destination.ok_or(LineError::Missing("destination address"))?;
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(LineError::MixedFamilies);
        }
        let [source_port, destination_port] = if protocol.is_icmp() {
            let message_type = self.message_type.ok_or(LineError::Missing("ICMP type"))?;
            let code = self.code.ok_or(LineError::Missing("ICMP code"))?;
            let identifier = self.identifier.ok_or(LineError::Missing("ICMP identifier"))?;
            [identifier, u16::from_be_bytes([message_type, code])]
        } else if WITH_PORTS.contains(&protocol.0) {
            let [source_port, destination_port] = self.ports;
            [
                source_port.ok_or(LineError::Missing("source port"))?,
                destination_port.ok_or(LineError::Missing("destination port"))?,
            ]
        } else {
            [0, 0]
        };
        Ok(Tuple { protocol, source, destination, source_port, destination_port })
    }
}

fn read<T: FromStr>(
    key: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<T, LineError> {
    value.parse().map_err(|_unreadable| LineError::Value { key, expected })
}

#[cfg(test)]
mod tests;
