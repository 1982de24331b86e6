//! What a query is answered with.

use weir_flow::endpoint::Unresolved;
use weir_flow::filter::{Operator, Subject, Test, Value};
use weir_flow::tuple::Protocol;
use weir_flow::{Class, Filter, Folded, Level, Measures};
use weir_store::{FlowQuery, Measure, Options, Order, Outcome, StoreError};

use super::{HOUR, Open, Opened, opened, total};
use crate::support::{NOON, Spelled, commit, commit_all, fields, ip, model, query, text, unit};

pub(super) fn an_empty_store_answers_with_nothing(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let table = store.query(&query(NOON..NOON + HOUR, "source.name")).unwrap();
    assert_eq!(table.rows, Vec::<Vec<_>>::new());
    assert_eq!(table.covers, NOON..NOON + HOUR);
    assert!(!table.more);
    assert_eq!(store.query(&query(NOON..NOON, "")).unwrap().rows.len(), 0);
    assert_eq!(store.committed().unwrap(), []);
    assert_eq!(store.gaps(0..u64::MAX).unwrap(), []);
    assert_eq!(store.counters(0..u64::MAX).unwrap(), []);
    assert_eq!(store.values(fields("source.unit")[0], "", 10).unwrap(), Vec::<String>::new());
    assert_eq!(store.commit(&[]).unwrap(), []);
    // An empty batch takes its number.
    assert_eq!(commit(&**store, "n1", 1, &Folded::default(), &[]), Outcome::Committed);
    assert_eq!(commit(&**store, "n1", 1, &Folded::default(), &[]), Outcome::AlreadyCommitted);
    assert_eq!(store.query(&query(0..u64::MAX, "")).unwrap().rows.len(), 0);
    let health = store.health().unwrap();
    assert!(health.levels.iter().all(|level| level.rows == 0 && level.oldest.is_none()));
}

pub(super) fn sums_are_by_group_and_ties_by_key(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let flows = [
        Spelled::new(NOON, "10.0.0.2", "10.0.0.9", 5),
        Spelled::new(NOON + 10, "10.0.0.1", "10.0.0.9", 5),
        Spelled::new(NOON + 20, "10.0.0.3", "10.0.0.9", 3),
        Spelled::new(NOON + 30, "10.0.0.3", "10.0.0.9", 4),
    ];
    commit_all(&**store, 1, &flows);
    let ask = |order| {
        let query = FlowQuery { order, ..query(NOON..NOON + 40, "source.address") };
        text(&store.query(&query).unwrap())
    };
    assert_eq!(ask(Order::Measure(Measure::Bytes)), ["10.0.0.3 7", "10.0.0.1 5", "10.0.0.2 5"]);
    assert_eq!(ask(Order::Keys), ["10.0.0.1 5", "10.0.0.2 5", "10.0.0.3 7"]);
    // A measure that is not shown orders too: here all are 0, so the keys decide.
    assert_eq!(ask(Order::Measure(Measure::Packets)), ["10.0.0.1 5", "10.0.0.2 5", "10.0.0.3 7"]);
    assert_eq!(text(&store.query(&query(NOON..NOON + 40, "")).unwrap()), ["17"]);
    // Half-open, and rounded outward to the finest windows.
    let table = store.query(&query(NOON + 11..NOON + 20, "")).unwrap();
    assert_eq!((text(&table), table.covers), (vec!["5".to_owned()], NOON + 10..NOON + 20));
    assert_eq!(table.level, Level::TenSeconds);
}

pub(super) fn all_measures_are_kept(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let mut flow = Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 0);
    flow.measures = Measures {
        bytes_sent: 1,
        bytes_received: 20,
        packets_sent: 300,
        packets_received: 4_000,
        connections_opened: 50_000,
        connections_closed: 600_000,
        connections_failed: 7_000_000,
        connections_unreplied: 80_000_000,
        connections_uncounted: 900_000_000,
        transit_bytes: 10_000_000_000,
    };
    commit_all(&**store, 1, &[flow.clone()]);
    commit_all(&**store, 2, &[flow]);
    let query = FlowQuery { measures: Measure::ALL.to_vec(), ..query(NOON..NOON + 1, "") };
    assert_eq!(
        text(&store.query(&query).unwrap()),
        ["42 2 40 8600 600 8000 100000 1200000 14000000 160000000 1800000000 20000000000"]
    );
}

pub(super) fn a_limit_cuts_and_says_so(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let flows: Vec<_> = (1..=20)
        .map(|i| Spelled::new(NOON, &format!("10.0.0.{i}"), "10.0.1.1", 100 - i / 2))
        .collect();
    commit_all(&**store, 1, &flows);
    for limit in [0, 1, 2, 19, 20, 21] {
        let query = FlowQuery { limit: Some(limit), ..query(NOON..NOON + 10, "source.address") };
        let table = store.query(&query).unwrap();
        assert_eq!(table.rows, model(&flows, &query, &table), "limit {limit}");
        assert_eq!(table.more, limit < 20, "limit {limit}");
    }
}

pub(super) fn buckets_are_aligned(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let flows: Vec<_> =
        (0..30).map(|i| Spelled::new(NOON + 10 * i, "10.0.0.1", "10.0.0.2", 1)).collect();
    commit_all(&**store, 1, &flows);
    let ask = |range, bucket| {
        let query =
            FlowQuery { bucket_seconds: Some(bucket), order: Order::Keys, ..query(range, "class") };
        let table = store.query(&query).unwrap();
        assert_eq!(table.rows, model(&flows, &query, &table));
        table
    };
    let table = ask(NOON..NOON + 120, 60);
    assert_eq!(text(&table), [format!("{NOON} internet 6"), format!("{} internet 6", NOON + 60)]);
    assert_eq!(table.level, Level::Minute);
    // Ends that are not whole minutes come from the finer level, and are not widened.
    let table = ask(NOON + 30..NOON + 150, 60);
    assert_eq!(
        text(&table),
        [
            format!("{NOON} internet 3"),
            format!("{} internet 6", NOON + 60),
            format!("{} internet 3", NOON + 120),
        ]
    );
    assert_eq!((table.covers, table.window_seconds), (NOON + 30..NOON + 150, 10));
    // A bucket that is no multiple of any window grows.
    assert_eq!(ask(NOON..NOON + 60, 25).bucket_seconds, Some(30));
    assert_eq!(ask(NOON..NOON + HOUR, 20).level, Level::TenSeconds);
}

pub(super) fn either_means_one_side_and_not_means_neither(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let mut flows = vec![
        Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 1),
        Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 10),
        Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 100),
        Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 1_000),
    ];
    flows[1].source = unit("10.0.0.3", "nginx.service");
    flows[2].destination = unit("10.0.0.3", "nginx.service");
    flows[3].source = unit("10.0.0.3", "nginx.service");
    flows[3].destination = unit("10.0.0.3", "sshd.service");
    commit_all(&**store, 1, &flows);
    for (filter, expected) in [
        ("unit = nginx.service", "1110"),
        ("not unit = nginx.service", "1"),
        ("unit != sshd.service", "111"),
        ("source.unit != nginx.service", "101"),
        ("unit = none", "111"),
        ("not unit = none", "1000"),
        ("unit ~ NGINX and not unit ~ ssh", "110"),
        ("unit in (nginx.service, sshd.service) and unit = sshd.service", "1000"),
    ] {
        let query =
            FlowQuery { filter: Filter::parse(filter).unwrap(), ..query(NOON..NOON + 1, "") };
        assert_eq!(text(&store.query(&query).unwrap()), [expected], "{filter}");
    }
}

pub(super) fn prefixes_keep_to_their_family(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let addresses =
        ["10.1.2.3", "10.1.3.0", "11.0.0.0", "0.0.0.0", "255.255.255.255", "::", "::a01:203"];
    let more = ["fd00::1", "fdff::1", "fe00::", "::ffff:10.1.2.3", "ffff:ffff::"];
    let flows: Vec<Spelled> = addresses
        .iter()
        .chain(&more)
        .zip(0..)
        .map(|(address, bit)| Spelled::new(NOON, address, "192.0.2.1", 1 << bit))
        .collect();
    commit_all(&**store, 1, &flows);
    for prefix in [
        "10.0.0.0/8",
        "10.1.2.0/23",
        "10.1.2.0/24",
        "10.1.2.3",
        "0.0.0.0/0",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "255.255.255.255",
        "::/0",
        "::/96",
        "fd00::/8",
        "fc00::/7",
        "fd00::/9",
        "::",
        "::ffff:0:0/96",
        "10.1.2.2/31",
        "::a01:202/127",
    ] {
        let filter = Filter::parse(&format!("source.address = {prefix}")).unwrap();
        let query = FlowQuery { filter, ..query(NOON..NOON + 1, "source.address") };
        let table = store.query(&query).unwrap();
        assert_eq!(table.rows, model(&flows, &query, &table), "{prefix}");
        let v4 = prefix.contains('.');
        let same = |row: &String| row.contains(':') != v4;
        assert!(text(&table).iter().all(same), "{prefix}");
    }
}

/// Names nobody should have, and somebody will.
pub(crate) const HOSTILE: [&str; 10] = [
    "",
    "x'; DROP TABLE edge; --",
    "\"quoted\" \\ % _ * ?",
    "nul\0inside",
    "\u{1b}[31mred\u{7}\n\r\t",
    "ünïcödé 名前 🦀",
    "UPPER lower İıſK",
    "\u{202e}right to left",
    "\u{10ffff}\u{fffd}",
    "?1 :name @p $q",
];

pub(super) fn hostile_names_are_names(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let flows: Vec<Spelled> = HOSTILE
        .iter()
        .zip(0..)
        .map(|(name, bit)| {
            let mut flow = Spelled::new(NOON, "10.0.0.1", "10.0.0.2", 1 << bit);
            flow.source = unit("10.0.0.3", name);
            flow
        })
        .collect();
    commit_all(&**store, 1, &flows);
    for operator in [Operator::In, Operator::Contains] {
        for name in HOSTILE {
            let filter = Filter::Test(Test {
                subject: Subject::Field(fields("source.unit")[0]),
                operator,
                values: vec![Value::Text((*name).to_owned())],
            });
            let query = FlowQuery { filter, ..query(NOON..NOON + 1, "source.unit,source.id") };
            let table = store.query(&query).unwrap();
            assert_eq!(table.rows, model(&flows, &query, &table), "{operator:?} {name:?}");
        }
    }
    let mut expected: Vec<String> = HOSTILE.iter().map(|name| (*name).to_owned()).collect();
    expected.retain(|name| !name.is_empty());
    expected.sort();
    assert_eq!(store.values(fields("source.unit")[0], "", 100).unwrap(), expected);
}

pub(super) fn values_are_listed(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let mut flows = vec![
        Spelled::new(NOON, "10.0.0.1", "192.0.2.7", 1),
        Spelled::new(NOON, "9.0.0.1", "fd00::1", 1),
        Spelled::new(NOON, "10.0.0.1", "192.0.2.7", 1),
    ];
    flows[0].source = unit("10.0.0.3", "nginx.service");
    flows[1].source = unit("10.0.0.3", "ntpd.service");
    flows[2].destination = unit("10.0.0.3", "sshd.service");
    flows[2].destination_port = 22;
    flows[2].service = Some((ip("10.96.0.1"), 2_222));
    flows[2].destination.unresolved = Some(Unresolved::SocketGone);
    flows[2].class = Class::SameNode;
    flows[2].protocol = Protocol::UDP;
    "n2".clone_into(&mut flows[2].node);
    commit_all(&**store, 1, &flows);
    let values =
        |field: &str, prefix: &str| store.values(fields(field)[0], prefix, 100).unwrap().join(" ");
    for (field, prefix, expected) in [
        ("source.unit", "n", "nginx.service ntpd.service"),
        ("source.unit", "ng", "nginx.service"),
        ("source.unit", "N", ""),
        ("source.unit", "s", ""),
        ("destination.unit", "", "sshd.service"),
        ("source.name", "", "10.0.0.1 nginx.service ntpd.service"),
        ("source.id", "host/", "host/box/nginx.service host/box/ntpd.service"),
        ("source.kind", "", "host external"),
        ("destination.address", "", "10.0.0.3 192.0.2.7 fd00::1"),
        ("destination.address", "1", "10.0.0.3 192.0.2.7"),
        ("destination.unresolved", "", "socket_gone"),
        ("source.container", "", ""),
        ("destination.port", "", "22 443"),
        ("destination.port", "4", "443"),
        ("protocol", "", "tcp udp"),
        ("protocol", "u", "udp"),
        ("class", "", "same_node internet"),
        ("node", "", "n1 n2"),
        ("service", "", "10.96.0.1:2222"),
        ("ip_version", "", "4"),
    ] {
        assert_eq!(values(field, prefix), expected, "{field} {prefix:?}");
    }
    assert_eq!(store.values(fields("source.unit")[0], "n", 1).unwrap(), ["nginx.service"]);
    assert_eq!(store.values(fields("protocol")[0], "", 0).unwrap(), Vec::<String>::new());
}

pub(super) fn sums_stay_at_the_largest_number(open: Open<'_>) {
    let Opened { store, .. } = &opened(open);
    let largest = i64::MAX.unsigned_abs();
    let flow = |bytes| Spelled::new(NOON, "10.0.0.1", "10.0.0.2", bytes);
    commit_all(&**store, 1, &[flow(largest - 1)]);
    assert_eq!(total(&**store), largest - 1);
    for number in 2..5 {
        commit_all(&**store, number, &[flow(u64::MAX)]);
        assert!(total(&**store) >= largest, "it never wraps");
    }
    // Sums over stored sums have a wider range, and an end of their own.
    let more: Vec<_> = (1..4)
        .map(|i| {
            let mut flow = flow(u64::MAX);
            flow.window += i * 10;
            flow
        })
        .collect();
    commit_all(&**store, 5, &more[..1]);
    let range = NOON + 10..NOON + 20;
    assert_eq!(
        text(&store.query(&query(range, "source.name")).unwrap())[0],
        format!("10.0.0.1 {largest}")
    );
    commit_all(&**store, 6, &more[1..2]);
    commit_all(&**store, 7, &more[2..]);
    let range = NOON..NOON + 40;
    assert_eq!(
        text(&store.query(&query(range, "source.name")).unwrap())[0],
        format!("10.0.0.1 {}", u64::MAX)
    );
}

pub(super) fn too_many_groups_are_an_error(open: Open<'_>) {
    let mut options = Options::default();
    options.limits.query_groups = 10;
    let Opened { store, .. } = &open(options);
    let flows: Vec<_> = (0..11)
        .map(|i| Spelled::new(NOON + 10 * i, &format!("10.0.0.{i}"), "10.1.0.0", 1))
        .collect();
    commit_all(&**store, 1, &flows);
    let ask = |range, by| store.query(&query(range, by));
    assert!(ask(NOON..NOON + 100, "source.name").is_ok());
    let error = ask(NOON..NOON + 110, "source.name").unwrap_err();
    assert!(matches!(error, StoreError::TooManyGroups { limit: 10 }), "{error}");
    assert!(ask(NOON..NOON + 110, "destination.name").is_ok());
}
