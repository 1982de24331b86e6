//! The counting rules, and reading what they counted.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;
use weir_flow::{Counters, Protocol};

use super::{ConnectionKey, Excluded, ExcludedReason, Reading};
use crate::error::LabError;
use crate::net::Lab;
use crate::text::line;

/// The table that the rules are in.
const TABLE: &str = "weirlab_truth";
/// Elements of one set. A run whose connections do not fit is reported, never miscounted.
const SET_SIZE: u32 = 1_000_000;

/// Puts the counting rules into a node.
pub fn install(lab: &Lab, node: usize) -> Result<(), LabError> {
    lab.nft(node, &rules())
}

/// Starts counting anew.
pub fn reset(lab: &Lab, node: usize) -> Result<(), LabError> {
    let rules = rules();
    let mut emptied = String::new();
    for name in rules.lines().filter_map(|line| line.strip_prefix("  set ")) {
        line(&mut emptied, &format!("flush set inet {TABLE} {}", name.trim_end_matches(" {")));
    }
    line(&mut emptied, &format!("reset counters table inet {TABLE}"));
    lab.nft(node, &emptied)
}

/// Takes the last places at the hooks, where entries are put into the table. Among hooks of equal
/// priority the kernel puts a newer one before an older one, so this must come before the first rule
/// that makes connection tracking take its own.
pub(crate) fn last_places() -> String {
    let mut chains = String::new();
    for (name, hook, priority, ..) in HOOKS.iter().filter(|hook| hook.2 == i32::MAX) {
        let head = format!("type filter hook {hook} priority {priority}");
        line(&mut chains, &format!("  chain {name} {{\n    {head}\n  }}"));
    }
    format!("table inet {TABLE} {{\n{chains}}}\n")
}

/// Reads what was counted, while traffic may go on: the sums may not agree with each other.
pub fn glance(lab: &Lab, node: usize) -> Result<Reading, LabError> {
    parse(&lab.run_in_node(node, "nft", &["-n", "-j", "list", "table", "inet", TABLE])?)
}

/// Reads what was counted once traffic has ended.
pub fn read(lab: &Lab, node: usize) -> Result<Reading, LabError> {
    let reading = glance(lab, node)?;
    let mut sum = Counters::default();
    for totals in reading.connections.values() {
        sum += totals.sent + totals.received;
    }
    if sum != reading.counted {
        return Err(LabError::Truth(format!(
            "{} packets ({} bytes) were counted, {} ({}) stand in the sets; either they are full \
             or traffic flowed while they were read",
            reading.counted.packets, reading.counted.bytes, sum.packets, sum.bytes
        )));
    }
    Ok(reading)
}

/// Everything counted so far, without its parts.
pub fn counted(lab: &Lab, node: usize) -> Result<Counters, LabError> {
    let arguments = ["-n", "-j", "list", "counter", "inet", TABLE, "counted"];
    Ok(parse(&lab.run_in_node(node, "nft", &arguments)?)?.counted)
}

/// How a family is written in rules.
struct Words {
    /// The last letter of its sets.
    digit: char,
    /// The keyword of its header.
    header: &'static str,
    /// The type of its addresses.
    address: &'static str,
    /// Its name as a protocol family.
    family: &'static str,
    /// Its ICMP as a header.
    icmp: &'static str,
    /// Its ICMP as a protocol.
    icmp_protocol: &'static str,
}

const FAMILIES: [Words; 2] = [
    Words {
        digit: '4',
        header: "ip",
        address: "ipv4_addr",
        family: "ipv4",
        icmp: "icmp",
        icmp_protocol: "icmp",
    },
    Words {
        digit: '6',
        header: "ip6",
        address: "ipv6_addr",
        family: "ipv6",
        icmp: "icmpv6",
        icmp_protocol: "ipv6-icmp",
    },
];

const REASONS: [&str; 4] = ["invalid", "untracked", "icmperror", "latesyn"];

/// What classifies a packet of a connection in the table, before translation. A SYN that is repeated
/// after the kernel has seen an answer to it is known, and still ignored by its counters
/// (`sIG` in `nf_conntrack_proto_tcp.c`).
const KNOWN: &str = "    ct state invalid goto invalid
    ct state untracked goto untracked
    ct state related meta l4proto { icmp, ipv6-icmp } goto icmperror
    ct direction original ct state established tcp flags & (fin | syn | rst | ack) == syn goto latesyn
    ct status & confirmed != 0 goto count
";

/// What finds the packets that begin a connection, and marks them: at the end of their way through
/// the node it shows whether their entry has made it into the table.
const FRESH: &str = "    ct state invalid,untracked return
    ct state related meta l4proto { icmp, ipv6-icmp } return
    ct status & confirmed != 0 return
    counter name fresh
    meta mark set meta mark | 0x40000000
";

/// What counts them there, directly after the kernel has put the entry into the table. The mark goes
/// then: a packet that is wrapped next, or unwrapped, is another connection's and keeps its mark.
const BORN: &str = "    meta mark & 0x40000000 == 0 return
    ct status & confirmed == 0 return
    counter name born
    meta mark set meta mark & 0xbfffffff
    goto count
";

/// The chains at the hooks: name, hook, priority, whether packets from the loopback device are
/// skipped (they were counted on their way out), and rules.
const HOOKS: [(&str, &str, i32, bool, &str); 6] = [
    ("prerouting_known", "prerouting", -150, true, KNOWN),
    ("prerouting_fresh", "prerouting", -90, true, FRESH),
    ("output_known", "output", -150, false, KNOWN),
    ("output_fresh", "output", -90, false, FRESH),
    ("input_born", "input", i32::MAX, true, BORN),
    ("postrouting_born", "postrouting", i32::MAX, false, BORN),
];

fn rules() -> String {
    let mut sets = String::new();
    let mut count = String::from("    counter name counted\n");
    let mut excluded = String::new();
    for words in &FAMILIES {
        connection_sets(words, &mut sets, &mut count);
    }
    for reason in REASONS {
        line(&mut excluded, &format!("  chain {reason} {{"));
        for Words { digit, header, address, family, .. } in &FAMILIES {
            sets.push_str(&set(&format!("{reason}{digit}"), &[address, address, "inet_proto"]));
            line(
                &mut excluded,
                &format!(
                    "    meta nfproto {family} update @{reason}{digit} \
                 {{ {header} saddr . {header} daddr . meta l4proto counter }}"
                ),
            );
        }
        excluded.push_str("  }\n");
    }
    let mut hooks = String::new();
    for (name, hook, priority, skip, body) in HOOKS {
        // What is said about the lab itself is no part of what it measures.
        let skip = if skip {
            "    iifname { \"lo\", \"mgmt0\" } return\n"
        } else {
            "    oifname \"mgmt0\" return\n"
        };
        let head = format!("    type filter hook {hook} priority {priority}");
        line(&mut hooks, &format!("  chain {name} {{\n{head}\n{skip}{body}  }}"));
    }
    format!(
        "table inet {TABLE} {{\n{sets}  counter counted {{ }}\n  counter fresh {{ }}\n  \
         counter born {{ }}\n  \
         chain count {{\n{count}  }}\n{excluded}{hooks}}}\n"
    )
}

/// nft concatenates at most five values, and knows a connection's ports only where the rule fixes
/// the protocol: hence a set for each protocol, family and direction.
fn connection_sets(words: &Words, sets: &mut String, count: &mut String) {
    let Words { digit, header, address, family, icmp, icmp_protocol } = words;
    let source = format!("ct original {header} saddr");
    let dialled = format!("ct original {header} daddr");
    let backend = format!("ct reply {header} saddr");
    let ports =
        format!("{source} . ct original proto-src . {dialled} . ct original proto-dst . {backend}");
    let ports_type = [*address, "inet_service", address, "inet_service", address];
    sets.push_str(&set(&format!("picked{digit}"), &ports_type));
    line(
        count,
        &format!(
            "    meta nfproto {family} meta l4proto tcp ct state new tcp flags & syn == 0 \
         update @picked{digit} {{ {ports} counter }}"
        ),
    );
    let icmp_key = format!("{source} . {dialled} . {backend} . {icmp} type");
    let icmp_type = format!("{icmp}_type");
    let icmp_type = [*address, address, address, &icmp_type];
    let other_key = format!("{source} . {dialled} . {backend} . meta l4proto");
    let other_type = [*address, address, address, "inet_proto"];
    let kinds: [(&str, &str, &str, &[&str]); 4] = [
        ("tcp", "tcp", &ports, &ports_type),
        ("udp", "udp", &ports, &ports_type),
        ("icmp", icmp_protocol, &icmp_key, &icmp_type),
        ("other", "!= { tcp, udp, icmp, ipv6-icmp }", &other_key, &other_type),
    ];
    for (direction, end) in [("original", "sent"), ("reply", "received")] {
        for (kind, protocol, key, types) in kinds {
            sets.push_str(&set(&format!("{kind}{digit}{end}"), types));
            line(
                count,
                &format!(
                    "    meta nfproto {family} meta l4proto {protocol} ct direction {direction} \
                 update @{kind}{digit}{end} {{ {key} counter }}"
                ),
            );
        }
    }
}

fn set(name: &str, types: &[&str]) -> String {
    let types = types.join(" . ");
    format!(
        "  set {name} {{\n    type {types}\n    flags dynamic\n    size {SET_SIZE}\n    \
         counter\n  }}\n"
    )
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    set: Option<Set>,
    counter: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    packets: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Set {
    name: String,
    #[serde(default)]
    elem: Vec<Wrapped>,
}

#[derive(Deserialize)]
struct Wrapped {
    elem: Element,
}

#[derive(Deserialize)]
struct Element {
    val: Concatenation,
    counter: Counter,
}

#[derive(Deserialize)]
struct Concatenation {
    concat: Vec<Value>,
}

#[derive(Clone, Copy, Deserialize)]
struct Counter {
    packets: u64,
    bytes: u64,
}

/// Reads `nft -n -j list`.
fn parse(text: &str) -> Result<Reading, LabError> {
    let answer = |message: String| LabError::Answer { program: "nft".to_owned(), message };
    let listing: Listing = serde_json::from_str(text).map_err(|error| answer(error.to_string()))?;
    let mut reading = Reading::default();
    let (mut fresh, mut born) = (Counters::default(), Counters::default());
    for object in listing.nftables {
        if let Some(Named { name, packets, bytes }) = object.counter {
            let counters = Counters { packets, bytes };
            match name.as_str() {
                "counted" => reading.counted = counters,
                "fresh" => fresh = counters,
                "born" => born = counters,
                _ => {}
            }
        }
        let Some(set) = object.set else { continue };
        for Wrapped { elem } in &set.elem {
            element(&mut reading, &set.name, elem)
                .ok_or_else(|| answer(format!("set {}: {:?}", set.name, elem.val.concat)))?;
        }
    }
    // While traffic flows, packets are on their way between the two.
    reading.stillborn = fresh.since(born).unwrap_or_default();
    Ok(reading)
}

fn element(reading: &mut Reading, set: &str, element: &Element) -> Option<()> {
    let counters = Counters { packets: element.counter.packets, bytes: element.counter.bytes };
    let values = &element.val.concat;
    let (kind, direction) = set.split_once(['4', '6'])?;
    let reason = match kind {
        "invalid" => Some(ExcludedReason::Invalid),
        "untracked" => Some(ExcludedReason::Untracked),
        "icmperror" => Some(ExcludedReason::IcmpError),
        "latesyn" => Some(ExcludedReason::LateSyn),
        _ => None,
    };
    if let Some(reason) = reason {
        let [source, destination, number] = values.as_slice() else { return None };
        let (source, destination) = (address(source)?, address(destination)?);
        let protocol = protocol(number)?;
        reading.excluded.push(Excluded { reason, source, destination, protocol, counters });
        return Some(());
    }
    let key = connection(kind, values)?;
    match (kind, direction) {
        ("picked", _) => *reading.picked_up.entry(key).or_default() += counters,
        (_, "sent") => reading.connections.entry(key).or_default().sent += counters,
        _ => reading.connections.entry(key).or_default().received += counters,
    }
    Some(())
}

fn connection(kind: &str, values: &[Value]) -> Option<ConnectionKey> {
    match (kind, values) {
        ("tcp" | "udp" | "picked", [source, source_port, dialled, dialled_port, backend]) => {
            Some(ConnectionKey {
                protocol: if kind == "udp" { Protocol(17) } else { Protocol::TCP },
                source: address(source)?,
                source_port: number(source_port)?,
                dialled: address(dialled)?,
                dialled_port: number(dialled_port)?,
                backend: address(backend)?,
            })
        }
        ("icmp" | "other", [source, dialled, backend, last]) => {
            let source = address(source)?;
            let (protocol, dialled_port) = match (kind, source.is_ipv4()) {
                ("other", _) => (protocol(last)?, 0),
                (_, true) => (Protocol::ICMP, request_type(true, icmp_type(true, last)?) << 8),
                (_, false) => (Protocol::ICMPV6, request_type(false, icmp_type(false, last)?) << 8),
            };
            let (dialled, backend) = (address(dialled)?, address(backend)?);
            Some(ConnectionKey { protocol, source, source_port: 0, dialled, dialled_port, backend })
        }
        _ => None,
    }
}

/// The type of the request that this packet is, or answers (RFC 792, RFC 4443): conntrack names an
/// entry by its request.
fn request_type(four: bool, kind: u16) -> u16 {
    match (four, kind) {
        (true, 0) => 8,
        (true, 14) => 13,
        (true, 16) => 15,
        (true, 18) => 17,
        (false, 129) => 128,
        (_, other) => other,
    }
}

/// nft names some types even when it is asked for numbers.
fn icmp_type(four: bool, value: &Value) -> Option<u16> {
    match (value.as_str(), four) {
        (None, _) => number(value).filter(|kind| *kind < 256),
        (Some("echo-reply"), true) => Some(0),
        (Some("echo-request"), true) => Some(8),
        (Some("echo-request"), false) => Some(128),
        (Some("echo-reply"), false) => Some(129),
        (Some(_), _) => None,
    }
}

fn address(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn number(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok()
}

fn protocol(value: &Value) -> Option<Protocol> {
    match value.as_str() {
        None => u8::try_from(value.as_u64()?).ok().map(Protocol),
        Some("ipv6-icmp") => Some(Protocol::ICMPV6),
        Some(name) => Protocol::parse(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(set: &str, concat: &str) -> String {
        format!(
            r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}},
            {{"set": {{"name": "{set}", "elem": [{{"elem": {{"val": {{"concat": [{concat}]}},
            "counter": {{"packets": 3, "bytes": 180}}}}}}]}}}},
            {{"counter": {{"name": "counted", "packets": 3, "bytes": 180}}}}]}}"#
        )
    }

    #[test]
    fn a_listing_is_read() {
        let concat = r#""10.0.0.1", 4000, "10.96.0.10", 80, "10.0.0.2""#;
        let reading = parse(&list("tcp4received", concat)).unwrap();
        let (key, totals) = reading.connections.first_key_value().unwrap();
        assert_eq!((key.source_port, key.dialled_port), (4000, 80));
        assert_eq!(totals.received, Counters { packets: 3, bytes: 180 });
        assert!(totals.sent.is_zero());
        assert_eq!(reading.counted.bytes, 180);
    }

    #[test]
    fn an_answer_belongs_to_its_request() {
        for (set, addresses, request) in [
            ("icmp4received", r#""10.0.0.1", "10.0.0.2", "10.0.0.2", 0"#, 0x0800),
            ("icmp6received", r#""fd::1", "fd::2", "fd::2", "echo-reply""#, 0x8000),
        ] {
            let reading = parse(&list(set, addresses)).unwrap();
            let (key, _) = reading.connections.first_key_value().unwrap();
            assert_eq!(key.dialled_port, request, "{set}");
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in ["", "{}", &list("tcp4sent", "1, 2"), &list("icmp4sent", r#""a","b","c",9"#)] {
            parse(text).unwrap_err();
        }
    }
}
