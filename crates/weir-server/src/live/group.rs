//! Live connections, summed by fields.

use std::cmp::Reverse;
use std::net::SocketAddr;

use hashbrown::HashMap;
use weir_flow::{Endpoint, EndpointField, Field, Side, WallTime};

use super::page::{matches, newest};
use super::table::{Live, Node, Table};
use crate::answer::{RateRow, Rates, RatesQuestion};
use crate::moment;

/// Groups that are told apart in one answer; connections of others are left out of it.
const GROUPS_MAX: usize = 100_000;

#[derive(Clone, Copy, Default)]
struct Sum {
    connections: u64,
    uncounted: u64,
    rate: [f64; 2],
}

pub(super) fn rates(table: &Table, question: &RatesQuestion, now: WallTime) -> Rates {
    let mut groups: HashMap<Vec<Option<String>>, Sum> = HashMap::new();
    let mut more = false;
    for live in table.connections.values() {
        let node = &table.nodes[live.node];
        if !matches(&question.filter, live, node) {
            continue;
        }
        let key: Vec<_> = question.by.iter().map(|field| value(*field, live, node)).collect();
        let full = groups.len() >= GROUPS_MAX;
        let sum = match groups.entry(key) {
            hashbrown::hash_map::Entry::Vacant(_) if full => {
                more = true;
                continue;
            }
            entry => entry.or_default(),
        };
        sum.connections += u64::from(live.ended.is_none());
        sum.uncounted += u64::from(live.totals.is_none() && live.ended.is_none());
        if let Some(rate) = live.rate(node, now) {
            sum.rate = [sum.rate[0] + rate[0], sum.rate[1] + rate[1]];
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    more |= groups.len() > question.limit;
    groups.sort_by(|(one_key, one), (other_key, other)| {
        let total = |sum: &Sum| sum.rate[0] + sum.rate[1];
        total(other)
            .total_cmp(&total(one))
            .then_with(|| Reverse(one.connections).cmp(&Reverse(other.connections)))
            .then_with(|| one_key.cmp(other_key))
    });
    groups.truncate(question.limit);
    let newest = newest(table);
    Rates {
        at: newest.map(|node| moment::rfc3339_millis(node.tick)),
        interval_seconds: newest.and_then(Node::interval_seconds),
        rates: groups.into_iter().map(|(key, sum)| row(&question.by, key, sum)).collect(),
        more,
    }
}

fn row(by: &[Field], key: Vec<Option<String>>, sum: Sum) -> RateRow {
    RateRow {
        fields: by.iter().map(Field::to_string).zip(key).collect(),
        connections: sum.connections,
        connections_uncounted: sum.uncounted,
        bytes_sent_per_second: sum.rate[0],
        bytes_received_per_second: sum.rate[1],
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
        Field::Class => Some(live.ends.class.to_string()),
        Field::Node => Some(node.name.to_string()),
        Field::IpVersion => {
            Some(if live.source().address.is_ipv4() { "4" } else { "6" }.to_owned())
        }
    }
}

fn endpoint_value(field: EndpointField, endpoint: &Endpoint) -> Option<String> {
    let text = match field {
        EndpointField::Id => return Some(endpoint.id()),
        EndpointField::Name => return Some(endpoint.name()),
        EndpointField::Kind => return Some(endpoint.kind.to_string()),
        EndpointField::Address => return Some(endpoint.address.to_string()),
        EndpointField::Unresolved => {
            return endpoint.unresolved.map(|reason| reason.name().to_owned());
        }
        EndpointField::Host => &endpoint.host,
        EndpointField::Unit => &endpoint.unit,
        EndpointField::Container => &endpoint.container,
        EndpointField::Executable => &endpoint.executable,
    };
    text.as_deref().map(str::to_owned)
}
