//! A page of connections, in any order.

use std::cmp::{Ordering, Reverse};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_flow::filter::FlowView;
use weir_flow::{Endpoint, Filter, Name, Totals, WallTime, port};

use super::Hidden;
use super::node::Node;
use super::numbers::Numbers;
use super::table::{Key, Live, Table, seconds};
use crate::answer::{ConnectionRow, ConnectionSort, Connections, ConnectionsQuestion, End};
use crate::moment;

pub(super) fn page(
    table: &Table,
    hidden: &Hidden,
    question: &ConnectionsQuestion,
    now: WallTime,
) -> Connections {
    let ConnectionsQuestion { node, filter, state, sort, offset, limit } = question;
    let is_shown = shown(table, hidden);
    let in_node =
        |live: &Live| node.as_deref().is_none_or(|wanted| *wanted == *table.nodes[live.node].name);
    let in_state = |live: &Live| {
        state.as_deref().is_none_or(|wanted| {
            live.state().is_some_and(|state| state.eq_ignore_ascii_case(wanted))
        })
    };
    let mut bytes_per_second: Option<f64> = None;
    let (mut known, mut matching) = (0, 0);
    let mut first = First::new(*sort, offset.saturating_add(*limit));
    for (key, live) in &table.connections {
        if !is_shown[live.node] {
            continue;
        }
        let node = &table.nodes[live.node];
        known += u64::from(live.ended.is_none());
        if !(in_node(live) && in_state(live) && matches(filter, live, node)) {
            continue;
        }
        let rate = live.rate(node, now);
        if let Some([sent, received]) = rate {
            bytes_per_second = Some(bytes_per_second.unwrap_or(0.0) + sent + received);
        }
        matching += 1;
        first.put(Chosen { key: *key, live, node, rate, name: 0 });
    }
    let rows = first.in_order();
    let connections = rows.iter().skip(*offset).map(|chosen| chosen.row(now)).collect();
    let nodes = || table.nodes.iter().zip(&is_shown).filter(|(_, shown)| **shown);
    let newest = newest(table, &is_shown);
    Connections {
        at: newest.and_then(Node::read_at).map(moment::rfc3339_millis),
        interval_seconds: newest.and_then(|node| node.interval_seconds(now)),
        known,
        ended: nodes().map(|(node, _)| count(node.ended.len())).sum(),
        matching,
        left_out: nodes().map(|(node, _)| node.left_out).sum(),
        bytes_per_second,
        connections,
        peers: Vec::new(),
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// By the node's place: whether it is shown.
pub(super) fn shown(table: &Table, hidden: &Hidden) -> Vec<bool> {
    table.nodes.iter().map(|node| !hidden.contains(&*node.name)).collect()
}

/// Of the nodes that are shown, the one that was heard of last.
pub(super) fn newest<'a>(table: &'a Table, is_shown: &[bool]) -> Option<&'a Node> {
    let nodes = table.nodes.iter().zip(is_shown).filter(|(_, shown)| **shown);
    let read = nodes.map(|(node, _)| node).filter(|node| node.read_at().is_some());
    read.max_by_key(|node| node.read_at())
}

pub(super) fn matches(filter: &Filter, live: &Live, node: &Node) -> bool {
    *filter == Filter::All
        || filter.matches(&FlowView {
            source: live.source(),
            destination: live.destination(),
            protocol: live.protocol,
            destination_port: live.destination_port,
            service: live.service.as_deref().copied(),
            service_name: live.ends.service.as_deref(),
            class: live.ends.class,
            node: &node.name,
        })
}

#[derive(Clone, Copy)]
struct Chosen<'a> {
    key: Key,
    live: &'a Live,
    node: &'a Node,
    rate: Option<[f64; 2]>,
    /// The place of the name by which they are ordered; 0 where they are not.
    name: u32,
}

/// Those that come first, of all that are put in.
struct First<'a> {
    sort: ConnectionSort,
    /// How many are wanted.
    wanted: usize,
    /// How many are kept until those that are too many are thrown away.
    room: usize,
    kept: Vec<Chosen<'a>>,
    /// Whoever comes behind this one is none of the first.
    last: Option<Chosen<'a>>,
}

impl<'a> First<'a> {
    /// Throwing away is worth it for more than a few.
    const ROOM_MIN: usize = 1_024;

    fn new(sort: ConnectionSort, wanted: usize) -> Self {
        // Names are compared by their places among all names, which are known at the end.
        let is_by_name = matches!(sort, ConnectionSort::Source | ConnectionSort::Destination);
        let room =
            if is_by_name { usize::MAX } else { wanted.saturating_mul(2).max(Self::ROOM_MIN) };
        Self { sort, wanted, room, kept: Vec::new(), last: None }
    }

    fn put(&mut self, one: Chosen<'a>) {
        let is_behind = |last| compare(self.sort, &one, last).is_gt();
        if self.wanted == 0 || self.last.as_ref().is_some_and(is_behind) {
            return;
        }
        self.kept.push(one);
        if self.kept.len() >= self.room {
            self.cut();
            self.last = self.kept.last().copied();
        }
    }

    /// Throws away what is too many. The last one of the others stands last.
    fn cut(&mut self) {
        if self.wanted < self.kept.len() {
            let order = |one: &Chosen<'_>, other: &Chosen<'_>| compare(self.sort, one, other);
            self.kept.select_nth_unstable_by(self.wanted.saturating_sub(1), order);
            self.kept.truncate(self.wanted);
        }
    }

    fn in_order(mut self) -> Vec<Chosen<'a>> {
        match self.sort {
            ConnectionSort::Source => rank_by_name(&mut self.kept, |live| &live.ends.source),
            ConnectionSort::Destination => {
                rank_by_name(&mut self.kept, |live| &live.ends.destination);
            }
            _ => {}
        }
        self.cut();
        self.kept.sort_unstable_by(|one, other| compare(self.sort, one, other));
        self.kept
    }
}

/// Gives each the place of its end's name, then address, among all names.
fn rank_by_name<'b>(chosen: &mut [Chosen<'b>], side: impl Fn(&'b Live) -> &'b Arc<Endpoint>) {
    let mut names = Numbers::default();
    for one in chosen.iter_mut() {
        let end = side(one.live);
        // Nobody drops an endpoint while the table is read.
        one.name = names.number(Arc::as_ptr(end).addr(), || (end.name(), end.address));
    }
    let (_, ranks) = names.sorted();
    for one in chosen {
        one.name = ranks[one.name as usize];
    }
}

/// Largest first, unknown last; ties by bytes, then by node and key, so that the order is always
/// the same. Rows of several servers are put in the same order by what they say
/// (`peers::merge`).
fn compare(sort: ConnectionSort, one: &Chosen<'_>, other: &Chosen<'_>) -> Ordering {
    let ascending = match sort {
        ConnectionSort::Rate => descending(one.rate.map(sum), other.rate.map(sum)),
        ConnectionSort::SentRate => descending(one.rate.map(|r| r[0]), other.rate.map(|r| r[0])),
        ConnectionSort::ReceivedRate => {
            descending(one.rate.map(|r| r[1]), other.rate.map(|r| r[1]))
        }
        ConnectionSort::Age => {
            // To the millisecond, as rows say it.
            let start = |live: &Live| live.start.map(|start| start.0 / 1_000_000);
            let age = |live: &Live| (live.start.is_none(), Reverse(start(live)));
            age(one.live).cmp(&age(other.live))
        }
        ConnectionSort::Protocol => one.live.protocol.cmp(&other.live.protocol),
        ConnectionSort::State => {
            let state = |live: &Live| (live.state().is_none(), live.state());
            state(one.live).cmp(&state(other.live))
        }
        ConnectionSort::Port => port_of(one, |live| live.destination_port)
            .cmp(&port_of(other, |live| live.destination_port)),
        ConnectionSort::Source => {
            let place = |one: &Chosen<'_>| (one.name, port_of(one, |live| live.source_port));
            place(one).cmp(&place(other))
        }
        ConnectionSort::Destination => {
            let place = |one: &Chosen<'_>| (one.name, port_of(one, |live| live.destination_port));
            place(one).cmp(&place(other))
        }
        ConnectionSort::Bytes => Ordering::Equal,
    };
    let bytes = |live: &Live| live.totals.map(Totals::bytes);
    let place = |one: &Chosen<'_>| (one.key.1, one.key.0);
    ascending
        .then_with(|| bytes(other.live).cmp(&bytes(one.live)))
        .then_with(|| one.node.name.cmp(&other.node.name))
        .then_with(|| place(one).cmp(&place(other)))
}

/// A port, where the protocol has ports.
fn port_of(one: &Chosen<'_>, port: impl Fn(&Live) -> u16) -> Option<u16> {
    one.live.protocol.has_ports().then(|| port(one.live))
}

fn sum([sent, received]: [f64; 2]) -> f64 {
    sent + received
}

fn descending(one: Option<f64>, other: Option<f64>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => other.total_cmp(&one),
        (one, other) => other.is_some().cmp(&one.is_some()),
    }
}

impl Chosen<'_> {
    fn row(&self, now: WallTime) -> ConnectionRow {
        let Self { key, live, node, rate, .. } = self;
        let until = live.ended.unwrap_or(now);
        let icmp = live.protocol.is_icmp();
        let place = |place: &(IpAddr, u16)| {
            if icmp { place.0.to_string() } else { SocketAddr::new(place.0, place.1).to_string() }
        };
        let dialled = live.service.as_deref().map_or(live.destination_port, |service| service.1);
        let port_name = port::service_name(live.protocol, live.destination_port)
            .or_else(|| port::service_name(live.protocol, dialled));
        ConnectionRow {
            id: format!("{}/{:016x}", node.name, key.1),
            node: node.name.to_string(),
            protocol: live.protocol.to_string(),
            state: live.state().map(str::to_owned),
            source: end(live.source(), live.source_port, live.protocol.has_ports()),
            destination: end(live.destination(), live.destination_port, live.protocol.has_ports()),
            service: live.service.as_deref().map(place),
            service_name: live.ends.service.as_deref().map(str::to_owned),
            translated_source: live.translated_source.as_deref().map(place),
            port_name: port_name.map(str::to_owned),
            class: live.ends.class.to_string(),
            start: live.start.map(moment::rfc3339_millis),
            age_seconds: live.start.map(|start| seconds(until.0.saturating_sub(start.0))),
            idle_seconds: live.moved_at.map(|at| seconds(now.0.saturating_sub(at.0))),
            bytes_sent: live.totals.map(|totals| totals.sent.bytes),
            bytes_received: live.totals.map(|totals| totals.received.bytes),
            packets_sent: live.totals.map(|totals| totals.sent.packets),
            packets_received: live.totals.map(|totals| totals.received.packets),
            bytes_sent_per_second: rate.map(|rate| rate[0]),
            bytes_received_per_second: rate.map(|rate| rate[1]),
            picked_up: live.picked_up,
        }
    }
}

fn end(endpoint: &Endpoint, port: u16, has_ports: bool) -> End {
    let owned = |text: &Option<Name>| text.as_deref().map(str::to_owned);
    End {
        id: endpoint.id(),
        name: endpoint.name(),
        kind: endpoint.kind.to_string(),
        address: endpoint.address.to_string(),
        port: has_ports.then_some(port),
        host: owned(&endpoint.host),
        unit: owned(&endpoint.unit),
        container: owned(&endpoint.container),
        executable: owned(&endpoint.executable),
        namespace: owned(&endpoint.namespace),
        workload: endpoint.workload(),
        node: owned(&endpoint.node),
        zone: owned(&endpoint.zone),
        region: owned(&endpoint.region),
        app: owned(&endpoint.app),
        cloud: owned(&endpoint.cloud),
        cloud_service: owned(&endpoint.cloud_service),
        resolution: endpoint.resolution.map(|how| how.name().to_owned()),
        unresolved: endpoint.unresolved.map(|reason| reason.name().to_owned()),
    }
}
