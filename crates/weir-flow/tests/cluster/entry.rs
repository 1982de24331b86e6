//! A conntrack entry as `conntrack -L` writes it.

use std::net::{IpAddr, Ipv4Addr};

use weir_flow::sample::Status;
use weir_flow::{Counters, Protocol, Sample, Totals, Tuple, WallTime};

/// Reads a line. A connection of a protocol without ports has none.
pub(crate) fn parse(line: &str, start: WallTime) -> Sample {
    let mut words = line.split_whitespace().peekable();
    let protocol = words.next().map(|word| Protocol::parse(word).expect("a protocol")).unwrap();
    let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut tuples = [Tuple { protocol, source: unspecified, ..Tuple::default() }; 2];
    let mut counters = [Counters::default(); 2];
    let (mut direction, mut zone, mut sources) = (0, 0, 0);
    for word in words {
        let Some((key, value)) = word.split_once('=') else { continue };
        let number = || value.parse::<u64>().expect("a number");
        let port = || value.parse::<u16>().expect("a port");
        if key == "src" {
            direction = sources;
            sources += 1;
        }
        let tuple = &mut tuples[direction];
        match key {
            "src" => tuple.source = value.parse().expect("an address"),
            "dst" => tuple.destination = value.parse().expect("an address"),
            "sport" | "id" => tuple.source_port = port(),
            "dport" => tuple.destination_port = port(),
            // As the kernel has it: the type and the code in one number.
            "type" => tuple.destination_port |= port() << 8,
            "code" => tuple.destination_port |= port(),
            "packets" => counters[direction].packets = number(),
            "bytes" => counters[direction].bytes = number(),
            "zone" => zone = port(),
            "mark" | "use" => {}
            other => panic!("`{other}` is not known in {line}"),
        }
    }
    assert_eq!(sources, 2, "an entry has two directions: {line}");
    let [sent, received] = counters;
    let [original, reply] = tuples;
    Sample {
        zone,
        original,
        reply,
        totals: Some(Totals { sent, received }),
        status: Status(0b1110),
        start: Some(start),
        ..Sample::default()
    }
}
