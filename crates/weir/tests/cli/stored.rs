//! A small store, filled the way weir fills it: by commits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use weir_flow::batch::{Gap, GapReason};
use weir_flow::endpoint::Unresolved;
use weir_flow::tuple::Protocol;
use weir_flow::{
    BatchId, Class, Digest, Endpoint, EndpointKind, Epoch, Flow, FlowKey, Folded, Level, Measures,
};
use weir_store::{CommitBatch, FlowStore as _, Options, Outcome, SqliteStore};

/// 2026-01-31T08:00:00Z, the start of an hour.
pub(crate) const START: u64 = 1_769_846_400;

/// Everything there is, as arguments.
pub(crate) const ALL: [&str; 4] =
    ["--since", "2026-01-31T08:00:00Z", "--until", "2026-01-31T08:10:00Z"];

/// Makes the store and leaves it as a stopped weir does.
pub(crate) fn fill(directory: &Path) {
    let store = SqliteStore::open(directory, Options::default()).expect("the directory is empty");
    let gap = Gap {
        reason: GapReason::AgentDown,
        from_seconds: START + 10,
        to_seconds: START + 40,
        connections: 3,
        records: 0,
        bytes: 0,
        bytes_bound: Some(5_000_000),
    };
    let batches = [
        (1, START + 10, flows_of_first_batch(), vec![], 0),
        (2, START + 70, flows_of_second_batch(), vec![gap], 12),
    ];
    for (sequence, end_seconds, flows, gaps, lost_events) in &batches {
        let outcome = store.commit(&[CommitBatch {
            node: "gauge",
            id: BatchId { epoch: Epoch(7), sequence: *sequence },
            digest: Digest(u128::from(*sequence)),
            end_seconds: *end_seconds,
            flows: &folded(flows),
            gaps,
            counters: &[("records", 4), ("lost_events", *lost_events)],
            records: &[],
            wall_offset: 0,
        }]);
        assert_eq!(outcome.expect("the disk has room"), [Outcome::Committed]);
    }
}

/// In order: a unit, a neighbour, an external address, an executable with a hostile name.
fn endpoints() -> Vec<Arc<Endpoint>> {
    let host = |address| Endpoint {
        host: Some("gauge".into()),
        ..Endpoint::bare(EndpointKind::Host, ip(address))
    };
    [
        Endpoint { unit: Some("nginx.service".into()), ..host("10.0.0.5") },
        Endpoint::bare(EndpointKind::Local, ip("10.244.1.2")),
        Endpoint {
            unresolved: Some(Unresolved::SocketGone),
            ..Endpoint::bare(EndpointKind::External, ip("203.0.113.7"))
        },
        Endpoint { executable: Some("=1+1\u{1b}[2J,evil\"".into()), ..host("10.0.0.5") },
    ]
    .into_iter()
    .map(Arc::new)
    .collect()
}

fn flows_of_first_batch() -> Vec<Flow> {
    let service = Some((ip("10.96.0.10"), 80));
    vec![
        Flow {
            key: FlowKey { service, ..key(START, Protocol::TCP, 1, 0, 8080) },
            measures: sums([2_048, 1_500_000, 12, 1_100], [3, 2, 1, 0, 0]),
        },
        Flow {
            key: FlowKey { class: Class::Internet, ..key(START, Protocol::TCP, 0, 2, 443) },
            measures: sums([700, 9_000_000_000, 9, 6_000_000], [1, 0, 0, 0, 0]),
        },
        Flow {
            // An echo request: type 8, code 0.
            key: key(START, Protocol::ICMP, 1, 0, 8 << 8),
            measures: sums([84, 84, 1, 1], [1, 1, 0, 0, 0]),
        },
    ]
}

fn flows_of_second_batch() -> Vec<Flow> {
    let window = START + 60;
    vec![
        Flow {
            key: key(window, Protocol::TCP, 1, 0, 8080),
            measures: sums([100, 200, 1, 1], [1, 0, 0, 0, 0]),
        },
        Flow {
            // Its connection is older than the kernel's accounting: nobody counted its bytes.
            key: FlowKey { class: Class::Internet, ..key(window, Protocol::UDP, 3, 2, 53) },
            measures: sums([0, 0, 0, 0], [0, 0, 0, 0, 2]),
        },
        Flow {
            key: FlowKey { class: Class::Internet, ..key(window, Protocol::TCP, 3, 2, 443) },
            measures: sums([1_000, 0, 10, 0], [2, 1, 1, 0, 1]),
        },
    ]
}

fn key(window: u64, protocol: Protocol, source: u32, destination: u32, port: u16) -> FlowKey {
    FlowKey {
        window,
        protocol,
        source,
        destination,
        destination_port: port,
        service: None,
        service_name: None,
        class: Class::SameNode,
    }
}

/// Bytes and packets sent and received; connections opened, closed, failed, unreplied, uncounted.
fn sums(traffic: [u64; 4], connections: [u64; 5]) -> Measures {
    let [bytes_sent, bytes_received, packets_sent, packets_received] = traffic;
    let [opened, closed, failed, unreplied, uncounted] = connections;
    Measures {
        bytes_sent,
        bytes_received,
        packets_sent,
        packets_received,
        connections_opened: opened,
        connections_closed: closed,
        connections_failed: failed,
        connections_unreplied: unreplied,
        connections_uncounted: uncounted,
        transit_bytes: 0,
    }
}

fn folded(flows: &[Flow]) -> Folded {
    let level = |level: Level| {
        let mut sums: BTreeMap<FlowKey, Measures> = BTreeMap::new();
        for flow in flows {
            let window = flow.key.window - flow.key.window % level.seconds();
            *sums.entry(FlowKey { window, ..flow.key }).or_default() += flow.measures;
        }
        sums.into_iter().map(|(key, measures)| Flow { key, measures }).collect()
    };
    Folded { endpoints: endpoints(), levels: Level::ALL.map(level), ..Folded::default() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
