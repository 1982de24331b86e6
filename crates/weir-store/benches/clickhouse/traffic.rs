//! Ten minutes of a made-up cluster, from a fixed seed: pods of many workloads on nodes in three
//! zones that open short connections to one another and to addresses outside, several between the
//! same two in a minute. Every node reports what it saw each ten seconds.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use weir_flow::attribution::Attributed;
use weir_flow::counters::{Counters, Totals};
use weir_flow::endpoint::Resolution;
use weir_flow::fold::Folder;
use weir_flow::record::RecordFlags;
use weir_flow::time::{BootTime, SECOND, WallTime};
use weir_flow::view::View;
use weir_flow::{Class, Endpoint, EndpointKind, FlowRecord, Folded, Protocol};

/// 2026-11-20T12:00:00Z.
pub(crate) const START: u64 = 1_795_176_000;
/// How long it is.
pub(crate) const SECONDS: u64 = 600;
const NODES: u32 = 4;
const PODS: u32 = 300;
const WORKLOADS: u32 = 60;
const OUTSIDE: u32 = 300;
/// Pairs that talk, of every pod.
const PEERS: u32 = 6;
/// Of a hundred pairs, how many open a connection in a window of ten seconds.
const BUSY: u64 = 35;

/// What one node saw in one window.
pub(crate) struct Report {
    pub(crate) node: String,
    pub(crate) sequence: u64,
    pub(crate) end_seconds: u64,
    pub(crate) flows: Folded,
    pub(crate) records: Vec<(FlowRecord, Attributed)>,
}

/// A connection at work.
struct Connection {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
    start: u64,
    totals: Totals,
    /// Windows it still has.
    left: u64,
}

/// All reports, window by window.
pub(crate) fn reports() -> Vec<Report> {
    let endpoints: Vec<Arc<Endpoint>> =
        (0..PODS + OUTSIDE).map(|number| Arc::new(endpoint(number))).collect();
    let mut random = Random(0x5eed);
    let mut connections: Vec<Connection> = Vec::new();
    let mut reports = Vec::new();
    let mut folder = Folder::default();
    for window in 0..SECONDS / 10 {
        let start = START + window * 10;
        open(&mut connections, start, &mut random);
        let mut seen: Vec<Vec<(FlowRecord, Attributed)>> = vec![Vec::new(); NODES as usize];
        connections.retain_mut(|connection| {
            let record = step(connection, start, &endpoints, &mut random);
            let ends =
                [connection.source, connection.destination].map(|end| &endpoints[end as usize]);
            let class = class(connection.source, connection.destination);
            let home = connection.source % NODES;
            let attributed = |view| Attributed {
                source: Arc::clone(ends[0]),
                destination: Arc::clone(ends[1]),
                class,
                service: None,
                view,
            };
            seen[home as usize].push((record, attributed(View::Counts { transit: false })));
            let other = connection.destination % NODES;
            if connection.destination < PODS && other != home {
                seen[other as usize].push((record, attributed(View::Second)));
            }
            connection.left > 0
        });
        for (node, records) in (0..).zip(seen) {
            for (record, ends) in &records {
                folder.add(record, 0, ends);
            }
            reports.push(Report {
                node: node_name(node),
                sequence: window + 1,
                end_seconds: start + 10,
                flows: folder.finish(),
                records,
            });
        }
    }
    reports
}

/// Several reports in one, as if one node had seen all of it.
pub(crate) fn merged(reports: &[Report], sequence: u64) -> Report {
    let mut folder = Folder::default();
    for (record, ends) in reports.iter().flat_map(|report| &report.records) {
        folder.add(record, 0, ends);
    }
    Report {
        node: node_name(0),
        sequence,
        end_seconds: reports.iter().map(|report| report.end_seconds).max().unwrap_or(START),
        flows: folder.finish(),
        records: Vec::new(),
    }
}

/// The id of a pod that talks.
pub(crate) fn busy_pod() -> String {
    endpoint(7).id()
}

fn open(connections: &mut Vec<Connection>, start: u64, random: &mut Random) {
    for source in 0..PODS {
        for peer in 0..PEERS {
            if random.below(100) >= BUSY {
                continue;
            }
            let pair = mixed(u64::from(source) << 32 | u64::from(peer));
            let number = u32::try_from(pair >> 32).expect("32 bits are left");
            let (destination, destination_port) = match pair % 10 {
                0..2 => (PODS + number % OUTSIDE, 443),
                _ => (number % PODS, [80, 5_432, 6_379, 8_080, 9_092][(pair % 5) as usize]),
            };
            let source_port = u16::try_from(32_768 + random.below(28_000)).expect("a port");
            connections.push(Connection {
                source,
                destination,
                source_port,
                destination_port,
                start: start * SECOND + random.below(9 * SECOND),
                totals: Totals::default(),
                left: 1 + random.below(3) * random.below(4),
            });
        }
    }
}

/// What the connection does in the window.
fn step(
    connection: &mut Connection,
    start: u64,
    endpoints: &[Arc<Endpoint>],
    random: &mut Random,
) -> FlowRecord {
    let size = 200_u64 << random.below(12);
    let bytes = [size + random.below(size), size * 3 + random.below(size * 2)];
    let from = connection.totals;
    let to = Totals {
        sent: more(from.sent, bytes[0], 700),
        received: more(from.received, bytes[1], 1_200),
    };
    connection.totals = to;
    connection.left -= 1;
    let opened = from == Totals::default();
    let address = |number: u32| endpoints[number as usize].address;
    FlowRecord {
        connection: mixed(connection.start ^ u64::from(connection.source_port)),
        zone: 0,
        protocol: Protocol::TCP,
        source: address(connection.source),
        source_port: connection.source_port,
        destination: address(connection.destination),
        destination_port: connection.destination_port,
        service: None,
        translated_source: None,
        start: Some(WallTime(connection.start)),
        interval_from: BootTime(connection.start.max(start * SECOND)),
        interval_to: BootTime((start + 10) * SECOND),
        from,
        to,
        state: weir_flow::ConnectionState::default(),
        flags: RecordFlags::OPENED
            .when(opened)
            .with(RecordFlags::CLOSED.when(connection.left == 0)),
    }
}

fn more(counters: Counters, bytes: u64, a_packet: u64) -> Counters {
    Counters { bytes: counters.bytes + bytes, packets: counters.packets + 1 + bytes / a_packet }
}

fn node_name(node: u32) -> String {
    format!("ip-10-0-{node}-17.eu-west-1.compute.internal")
}

fn zone(number: u32) -> u32 {
    number % NODES % 3
}

fn class(source: u32, destination: u32) -> Class {
    match (destination < PODS, source % NODES == destination % NODES) {
        (false, _) => Class::Internet,
        (true, true) => Class::SameNode,
        (true, false) if zone(source) == zone(destination) => Class::SameZone,
        (true, false) => Class::CrossZone,
    }
}

fn endpoint(number: u32) -> Endpoint {
    if number >= PODS {
        let address = Ipv4Addr::from(0xc633_0000 + (number - PODS) * 7);
        return Endpoint::bare(EndpointKind::External, IpAddr::V4(address));
    }
    let workload = number * 7 % WORKLOADS;
    let set = mixed(u64::from(workload)) & 0xff_ffff_ffff;
    let own = mixed(u64::from(number)) & 0xf_ffff;
    let address = Ipv4Addr::from(0x0af4_0000 + number * 3);
    Endpoint {
        namespace: Some(format!("team-{}", workload % 8).into()),
        pod: Some(format!("app-{workload}-{set:010x}-{own:05x}").into()),
        workload_kind: Some("Deployment".into()),
        workload_name: Some(format!("app-{workload}").into()),
        node: Some(node_name(number % NODES).into()),
        zone: Some(format!("eu-west-1{}", ["a", "b", "c"][zone(number) as usize]).into()),
        region: Some("eu-west-1".into()),
        app: Some(format!("app-{workload}").into()),
        resolution: Some(Resolution::Directory),
        ..Endpoint::bare(EndpointKind::Pod, IpAddr::V4(address))
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0) % bound
    }
}

/// The finaliser of `SplitMix64`.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
