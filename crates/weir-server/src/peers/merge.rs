//! Answers of several servers put together as if one had given them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

use hashbrown::HashMap;
use weir_flow::{Field, Protocol};

use crate::answer::{
    ConnectionRow, ConnectionSort, Connections, ConnectionsQuestion, End, NodeStatus, RateRow,
    Rates, RatesQuestion,
};

/// Each answer holds the first rows of its server; no node is in two of them.
pub(super) fn connections(
    question: &ConnectionsQuestion,
    answers: impl Iterator<Item = Connections>,
) -> Connections {
    let mut all = Connections::default();
    for answer in answers {
        if answer.at > all.at {
            (all.at, all.interval_seconds) = (answer.at, answer.interval_seconds);
        }
        all.known = all.known.saturating_add(answer.known);
        all.ended = all.ended.saturating_add(answer.ended);
        all.matching = all.matching.saturating_add(answer.matching);
        all.left_out = all.left_out.saturating_add(answer.left_out);
        all.bytes_per_second = sum(all.bytes_per_second, answer.bytes_per_second);
        all.connections.extend(answer.connections);
    }
    let ConnectionsQuestion { sort, offset, limit, .. } = question;
    all.connections.sort_by(|one, other| compare(*sort, one, other));
    all.connections.drain(..(*offset).min(all.connections.len()));
    all.connections.truncate(*limit);
    all
}

/// Each answer holds the groups of its server; a group may be in several.
pub(super) fn rates(question: &RatesQuestion, answers: impl Iterator<Item = Rates>) -> Rates {
    let RatesQuestion { by, limit, .. } = question;
    let mut all = Rates::default();
    let mut groups: HashMap<Vec<Option<String>>, RateRow> = HashMap::new();
    for answer in answers {
        if answer.at > all.at {
            (all.at, all.interval_seconds) = (answer.at, answer.interval_seconds);
        }
        all.more |= answer.more;
        for row in answer.rates {
            let group = groups
                .entry(values(by, &row.fields))
                .or_insert_with(|| RateRow { fields: row.fields.clone(), ..RateRow::default() });
            group.connections = group.connections.saturating_add(row.connections);
            group.connections_uncounted =
                group.connections_uncounted.saturating_add(row.connections_uncounted);
            group.bytes_sent_per_second =
                sum(group.bytes_sent_per_second, row.bytes_sent_per_second);
            group.bytes_received_per_second =
                sum(group.bytes_received_per_second, row.bytes_received_per_second);
        }
    }
    let mut groups: Vec<(Vec<Option<String>>, RateRow)> = groups.into_iter().collect();
    groups.sort_by(busiest_first);
    all.more |= groups.len() > *limit;
    all.rates = groups.into_iter().take(*limit).map(|(_, row)| row).collect();
    all
}

/// What each node's agent said last, to whomever.
pub(super) fn nodes(said: impl Iterator<Item = Vec<NodeStatus>>) -> Vec<NodeStatus> {
    let mut newest: BTreeMap<String, NodeStatus> = BTreeMap::new();
    for status in said.flatten() {
        // Silences are measured by each server's own clock, so the clocks need not agree.
        let silence = |status: &NodeStatus| status.silent_seconds.unwrap_or(u64::MAX);
        let is_newer = newest
            .get(&status.node)
            .is_none_or(|known| (silence(&status), known.ticks) < (silence(known), status.ticks));
        if is_newer {
            newest.insert(status.node.clone(), status);
        }
    }
    newest.into_values().collect()
}

fn sum(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}

fn values(by: &[Field], fields: &BTreeMap<String, Option<String>>) -> Vec<Option<String>> {
    by.iter().map(|field| fields.get(&field.to_string()).cloned().flatten()).collect()
}

/// As `live::group` puts them.
fn busiest_first(
    (one_key, one): &(Vec<Option<String>>, RateRow),
    (other_key, other): &(Vec<Option<String>>, RateRow),
) -> Ordering {
    let total = |row: &RateRow| {
        sum(row.bytes_sent_per_second, row.bytes_received_per_second).unwrap_or(-1.0)
    };
    total(other)
        .total_cmp(&total(one))
        .then_with(|| other.connections.cmp(&one.connections))
        .then_with(|| one_key.cmp(other_key))
}

/// As `live::page` puts them.
fn compare(sort: ConnectionSort, one: &ConnectionRow, other: &ConnectionRow) -> Ordering {
    let sent = |row: &ConnectionRow| row.bytes_sent_per_second;
    let received = |row: &ConnectionRow| row.bytes_received_per_second;
    let both = |row: &ConnectionRow| sum(sent(row), received(row));
    let order = match sort {
        ConnectionSort::Rate => descending(both(one), both(other)),
        ConnectionSort::SentRate => descending(sent(one), sent(other)),
        ConnectionSort::ReceivedRate => descending(received(one), received(other)),
        ConnectionSort::Age => {
            one.start.is_none().cmp(&other.start.is_none()).then(other.start.cmp(&one.start))
        }
        ConnectionSort::Protocol => protocol(one).cmp(&protocol(other)),
        ConnectionSort::State => {
            (one.state.is_none(), &one.state).cmp(&(other.state.is_none(), &other.state))
        }
        ConnectionSort::Port => one.destination.port.cmp(&other.destination.port),
        ConnectionSort::Source => place(&one.source).cmp(&place(&other.source)),
        ConnectionSort::Destination => place(&one.destination).cmp(&place(&other.destination)),
        ConnectionSort::Bytes => Ordering::Equal,
    };
    let bytes = |row: &ConnectionRow| {
        row.bytes_sent.zip(row.bytes_received).map(|(sent, received)| sent.saturating_add(received))
    };
    order
        .then_with(|| bytes(other).cmp(&bytes(one)))
        .then_with(|| one.node.cmp(&other.node))
        .then_with(|| one.id.cmp(&other.id))
}

fn descending(one: Option<f64>, other: Option<f64>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => other.total_cmp(&one),
        (one, other) => other.is_some().cmp(&one.is_some()),
    }
}

fn protocol(row: &ConnectionRow) -> Option<Protocol> {
    Protocol::parse(&row.protocol)
}

fn place(end: &End) -> (&str, Option<IpAddr>, Option<u16>) {
    (&end.name, end.address.parse().ok(), end.port)
}

#[cfg(test)]
mod tests;
