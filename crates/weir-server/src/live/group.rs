//! Live connections, summed by fields.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::HashMap;
use weir_flow::{Endpoint, EndpointField, Field, Side, WallTime};

use super::Hidden;
use super::node::Node;
use super::numbers::Numbers;
use super::page::{matches, newest, shown};
use super::table::{Live, Table};
use crate::answer::{RateRow, Rates, RatesQuestion};
use crate::moment;

/// Groups that are told apart in one answer; connections of others are left out of it.
const GROUPS_MAX: usize = 100_000;

#[derive(Clone, Copy, Default)]
struct Sum {
    connections: u64,
    uncounted: u64,
    /// `None`: of no connection it is known.
    rate: Option<[f64; 2]>,
}

/// Where a connection has a field's value: what has one place has one value.
#[derive(PartialEq, Eq, Hash)]
enum Place {
    Endpoint(usize),
    Number(usize),
    Service(Option<(IpAddr, u16)>),
    Name(Option<usize>),
}

pub(super) fn rates(
    table: &Table,
    hidden: &Hidden,
    question: &RatesQuestion,
    now: WallTime,
) -> Rates {
    let is_shown = shown(table, hidden);
    let mut values: Vec<Numbers<Place, Option<String>>> =
        question.by.iter().map(|_| Numbers::default()).collect();
    let mut groups = Groups::new(question.by.len());
    let mut key = Vec::with_capacity(question.by.len());
    let mut more = false;
    for live in table.connections.values() {
        let node = &table.nodes[live.node];
        if !is_shown[live.node] || !matches(&question.filter, live, node) {
            continue;
        }
        key.clear();
        key.extend(question.by.iter().zip(&mut values).map(|(field, values)| {
            values.number(place(*field, live), || value(*field, live, node))
        }));
        let Some(sum) = groups.sum(&key) else {
            more = true;
            continue;
        };
        sum.connections += u64::from(live.ended.is_none());
        sum.uncounted += u64::from(live.totals.is_none() && live.ended.is_none());
        if let Some(rate) = live.rate(node, now) {
            let [sent, received] = sum.rate.unwrap_or_default();
            sum.rate = Some([sent + rate[0], received + rate[1]]);
        }
    }
    let mut groups = groups.sums;
    more |= groups.len() > question.limit;
    let (texts, ranks): (Vec<_>, Vec<_>) = values.into_iter().map(Numbers::sorted).unzip();
    for (key, _) in &mut groups {
        key.iter_mut().zip(&ranks).for_each(|(number, ranks)| *number = ranks[*number as usize]);
    }
    if question.limit < groups.len() {
        groups.select_nth_unstable_by(question.limit, busiest_first);
        groups.truncate(question.limit);
    }
    groups.sort_unstable_by(busiest_first);
    let newest = newest(table, &is_shown);
    Rates {
        at: newest.and_then(Node::read_at).map(moment::rfc3339_millis),
        interval_seconds: newest.and_then(|node| node.interval_seconds(now)),
        rates: groups.iter().map(|(key, sum)| row(&question.by, key, &texts, sum)).collect(),
        more,
        peers: Vec::new(),
    }
}

/// Sums by keys of numbers.
struct Groups {
    /// What two parts of a key make together: for each part but the first, by what the parts before
    /// it make. Pairs of numbers are found sooner than keys.
    pairs: Vec<HashMap<(u32, u32), u32>>,
    /// By what all parts make together, which is counted up from 0.
    sums: Vec<(Vec<u32>, Sum)>,
}

impl Groups {
    fn new(parts: usize) -> Self {
        let pairs = vec![HashMap::new(); parts.saturating_sub(1)];
        Self { pairs, sums: Vec::new() }
    }

    /// The sum of a key; `None` where there are too many.
    fn sum(&mut self, key: &[u32]) -> Option<&mut Sum> {
        let mut parts = key.iter().copied();
        let first = parts.next().unwrap_or_default();
        let whole = parts.zip(&mut self.pairs).fold(first, |before, (part, pairs)| {
            let next = u32::try_from(pairs.len()).unwrap_or(u32::MAX);
            *pairs.entry((before, part)).or_insert(next)
        });
        let place = usize::try_from(whole).ok()?;
        if place == self.sums.len() && place < GROUPS_MAX {
            self.sums.push((key.to_vec(), Sum::default()));
        }
        self.sums.get_mut(place).map(|(_, sum)| sum)
    }
}

/// Ties by the values, so that the order is always the same.
fn busiest_first(
    (one_key, one): &(Vec<u32>, Sum),
    (other_key, other): &(Vec<u32>, Sum),
) -> Ordering {
    // Below every known rate, which is never negative.
    let total = |sum: &Sum| sum.rate.map_or(-1.0, |[sent, received]| sent + received);
    total(other)
        .total_cmp(&total(one))
        .then_with(|| other.connections.cmp(&one.connections))
        .then_with(|| one_key.cmp(other_key))
}

fn row(by: &[Field], key: &[u32], texts: &[Vec<Option<String>>], sum: &Sum) -> RateRow {
    let values = key.iter().zip(texts).map(|(rank, texts)| texts[*rank as usize].clone());
    RateRow {
        fields: by.iter().map(Field::to_string).zip(values).collect(),
        connections: sum.connections,
        connections_uncounted: sum.uncounted,
        bytes_sent_per_second: sum.rate.map(|rate| rate[0]),
        bytes_received_per_second: sum.rate.map(|rate| rate[1]),
    }
}

fn place(field: Field, live: &Live) -> Place {
    match field {
        // Nobody drops an endpoint while the table is read.
        Field::Endpoint(Side::Source, _) => Place::Endpoint(Arc::as_ptr(&live.ends.source).addr()),
        Field::Endpoint(Side::Destination, _) => {
            Place::Endpoint(Arc::as_ptr(&live.ends.destination).addr())
        }
        Field::DestinationPort => Place::Number(live.destination_port.into()),
        Field::Protocol => Place::Number(live.protocol.0.into()),
        Field::Service => Place::Service(live.service.as_deref().copied()),
        Field::ServiceName => Place::Name(
            live.ends.service.as_ref().map(|name| Arc::as_ptr(name).cast::<u8>().addr()),
        ),
        Field::Class => Place::Number(live.ends.class.code().into()),
        Field::Node => Place::Number(live.node),
        Field::IpVersion => Place::Number(live.source().address.is_ipv4().into()),
    }
}

/// A field's value as it is written in filters.
fn value(field: Field, live: &Live, node: &Node) -> Option<String> {
    match field {
        Field::Endpoint(Side::Source, field) => endpoint_value(field, live.source()),
        Field::Endpoint(Side::Destination, field) => endpoint_value(field, live.destination()),
        Field::DestinationPort => Some(live.destination_port.to_string()),
        Field::Protocol => Some(live.protocol.to_string()),
        Field::Service => live
            .service
            .as_deref()
            .map(|(address, port)| SocketAddr::new(*address, *port).to_string()),
        Field::ServiceName => live.ends.service.as_deref().map(str::to_owned),
        Field::Class => Some(live.ends.class.to_string()),
        Field::Node => Some(node.name.to_string()),
        Field::IpVersion => {
            Some(if live.source().address.is_ipv4() { "4" } else { "6" }.to_owned())
        }
    }
}

fn endpoint_value(field: EndpointField, endpoint: &Endpoint) -> Option<String> {
    match field {
        EndpointField::Kind => Some(endpoint.kind.to_string()),
        EndpointField::Address => Some(endpoint.address.to_string()),
        EndpointField::Resolution => endpoint.resolution.map(|how| how.name().to_owned()),
        EndpointField::Unresolved => endpoint.unresolved.map(|reason| reason.name().to_owned()),
        field => endpoint.text(field).map(Into::into),
    }
}
