//! Random flows and queries against the model.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree as _;
use weir_flow::endpoint::{Resolution, Unresolved};
use weir_flow::filter::{Operator, Subject, Test, Value};
use weir_flow::tuple::Protocol;
use weir_flow::{Class, Endpoint, EndpointField, EndpointKind, Field, Filter, Level, Measures};
use weir_store::{FlowQuery, Measure, Order};

use super::answers::HOSTILE;
use super::{HOUR, Open, Opened, opened};
use crate::support::{NOON, Spelled, commit_all, external, fields, ip, model, query, unit};

pub(super) fn every_query_is_answered_as_the_model_does(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let flows = vec(a_flow(), 600).new_tree(&mut runner).unwrap().current();
    for (number, flows) in (1..).zip(flows.chunks(150)) {
        commit_all(&**store, number, flows);
    }
    proptest!(ProptestConfig::with_cases(600), |(query in a_query())| {
        let table = store.query(&query).unwrap();
        prop_assert_eq!(&table.rows, &model(&flows, &query, &table));
        // Everything is still held: the range is rounded to the finest windows.
        if query.range.start < query.range.end {
            let step = if query.bucket_seconds.is_none() { 10 } else { table.window_seconds };
            prop_assert!(table.covers.start <= query.range.start);
            prop_assert!(table.covers.start + step > query.range.start);
            prop_assert!(table.covers.end >= query.range.end);
            prop_assert!(table.covers.end < query.range.end + step);
        }
    });
}

pub(super) fn every_level_is_the_fold_of_the_finest(open: Open<'_>) {
    proptest!(ProptestConfig::with_cases(12), |(flows in vec(a_flow(), 1..60))| {
        let Opened { store, .. } = &opened(open);
        // In several batches, so that rows are added to.
        for (number, flows) in (1..).zip(flows.chunks(10)) {
            commit_all(&**store, number, flows);
        }
        for by in ["class", "source.id,destination.id,service", "source.owner_id,service.name,source.resolution"] {
            for (bucket, level) in [(10, Level::TenSeconds), (60, Level::Minute), (3_600, Level::Hour)] {
                let query = FlowQuery {
                    bucket_seconds: Some(bucket),
                    measures: Measure::ALL.to_vec(),
                    ..query(NOON..NOON + 3 * HOUR, by)
                };
                let table = store.query(&query).unwrap();
                prop_assert_eq!(table.level, level);
                prop_assert_eq!(&table.rows, &model(&flows, &query, &table));
            }
        }
    });
}

/// A handful of endpoints, so that flows meet often.
fn endpoints() -> Vec<Endpoint> {
    let mut named = unit("10.0.0.3", "nginx.service");
    named.executable = Some("Nginx".into());
    let mut container = unit("fd00::3", HOSTILE[1]);
    container.unit = None;
    container.container = Some("0123456789ab".into());
    let mut gone = Endpoint::bare(EndpointKind::Host, ip("10.0.0.3"));
    gone.host = Some("box".into());
    gone.unresolved = Some(Unresolved::SocketGone);
    let mut local = Endpoint::bare(EndpointKind::Local, ip("10.0.1.9"));
    local.unresolved = Some(Unresolved::NoSocket);
    vec![
        named,
        container,
        gone,
        local,
        external("192.0.2.7"),
        external("192.0.3.7"),
        external("2001:db8::7"),
        Endpoint::bare(EndpointKind::Unknown, ip("::")),
        unit("10.0.0.3", HOSTILE[4]),
        pod("10.1.0.9", "web-7d9f-x2x4z"),
        pod("fd00:1::9", "web-7d9f-x2x4z"),
        Endpoint { pod: Some(HOSTILE[2].into()), ..pod("10.1.0.9", "other") },
        Endpoint {
            unresolved: Some(Unresolved::Ambiguous),
            resolution: Some(Resolution::PodNetwork),
            ..pod("10.1.0.9", "other")
        },
    ]
}

fn pod(address: &str, name: &str) -> Endpoint {
    Endpoint {
        namespace: Some("shop".into()),
        pod: Some(name.into()),
        workload_kind: Some("Deployment".into()),
        workload_name: Some("web".into()),
        node: Some("n1".into()),
        zone: Some("z-a".into()),
        app: Some("web".into()),
        labels: Some("app=web,tier=front".into()),
        resolution: Some(Resolution::Directory),
        ..Endpoint::bare(EndpointKind::Pod, ip(address))
    }
}

pub(crate) fn a_flow() -> impl Strategy<Value = Spelled> {
    let service = select(vec![None, Some((ip("10.96.0.1"), 80)), Some((ip("fd96::1"), 80))]);
    let small = || prop_oneof![3 => Just(0_u64), 5 => 0_u64..2_000, 1 => 0_u64..1 << 40];
    (
        (
            0_u64..3 * 360,
            select(vec!["n1", "n2", "name'3"]),
            select(endpoints()),
            select(endpoints()),
        ),
        (select(vec![6_u8, 17, 58]), select(vec![0_u16, 53, 80, 443, 65_535]), service),
        select(Class::ALL.to_vec()),
        proptest::array::uniform10(small()),
    )
        .prop_map(
            |((window, node, source, destination), (protocol, port, service), class, sums)| {
                Spelled {
                    window: NOON + 10 * window,
                    node: node.to_owned(),
                    protocol: Protocol(protocol),
                    source,
                    destination,
                    destination_port: port,
                    service,
                    service_name: service.map(|(address, _)| match address {
                        IpAddr::V4(_) => "shop/web".into(),
                        IpAddr::V6(_) => HOSTILE[3].into(),
                    }),
                    class,
                    measures: Measures {
                        bytes_sent: sums[0],
                        bytes_received: sums[1],
                        packets_sent: sums[2],
                        packets_received: sums[3],
                        connections_opened: sums[4],
                        connections_closed: sums[5],
                        connections_failed: sums[6],
                        connections_unreplied: sums[7],
                        connections_uncounted: sums[8],
                        transit_bytes: sums[9],
                    },
                }
            },
        )
}

fn a_value() -> impl Strategy<Value = Value> {
    let texts =
        ["nginx.service", "nginx", "NGINX", "box", "n1", "192", "", "none", "host/box", "i"];
    let texts: Vec<String> = texts.iter().chain(&HOSTILE).map(|text| (*text).to_owned()).collect();
    let prefixes = ["10.0.0.0", "10.0.0.3", "192.0.2.0", "::", "fd00::3", "2001:db8::"];
    let prefixes: Vec<_> = prefixes.iter().map(|text| ip(text)).collect();
    prop_oneof![
        4 => select(texts).prop_map(Value::Text),
        4 => select(vec![0_u16, 1, 2, 3, 4, 6, 17, 53, 80, 443, 65_535]).prop_map(Value::Number),
        3 => (select(prefixes), 0_u8..=128).prop_map(|(address, length)| {
            Value::Prefix(address, if address.is_ipv4() { length.min(32) } else { length })
        }),
        1 => select(vec![ip("10.96.0.1"), ip("fd96::1")]).prop_map(|a| Value::Service(a, 80)),
        1 => Just(Value::Absent),
    ]
}

fn a_test() -> impl Strategy<Value = Filter> {
    let subject = prop_oneof![
        2 => select(Field::all().collect::<Vec<_>>()).prop_map(Subject::Field),
        1 => select(EndpointField::ALL.to_vec()).prop_map(Subject::Either),
    ];
    let operator = select(vec![
        Operator::In,
        Operator::In,
        Operator::Contains,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Greater,
        Operator::GreaterOrEqual,
    ]);
    (subject, operator, vec(a_value(), 1..4))
        .prop_map(|(subject, operator, values)| Filter::Test(Test { subject, operator, values }))
}

fn a_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![1 => Just(Filter::All), 6 => a_test()].prop_recursive(4, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Filter::And(a.into(), b.into())),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Filter::Or(a.into(), b.into())),
            inner.prop_map(|filter| Filter::Not(filter.into())),
        ]
    })
}

pub(crate) fn a_query() -> impl Strategy<Value = FlowQuery> {
    let measures = subsequence(Measure::ALL.to_vec(), 0..=4);
    let totals = fields("class,node,protocol,ip_version");
    let by = prop_oneof![
        3 => subsequence(Field::all().collect::<Vec<_>>(), 0..=3).prop_shuffle(),
        1 => subsequence(totals, 0..=3),
    ];
    let bucket =
        select(vec![None, None, Some(10), Some(30), Some(60), Some(90), Some(3_600), Some(7)]);
    let order =
        prop_oneof![Just(Order::Keys), select(Measure::ALL.to_vec()).prop_map(Order::Measure)];
    let range = (0_u64..4 * HOUR, 0_u64..4 * HOUR);
    (range, a_filter(), by, bucket, measures, order, proptest::option::of(0_usize..20)).prop_map(
        |((start, length), filter, group_by, bucket_seconds, measures, order, limit)| FlowQuery {
            range: NOON - HOUR / 2 + start..NOON - HOUR / 2 + start + length,
            filter,
            group_by,
            bucket_seconds,
            measures,
            order,
            limit,
        },
    )
}
