//! kubenetmon's table, written besides weir's own on the real engine.

use std::time::{SystemTime, UNIX_EPOCH};

use weir_flow::attribution::Attributed;
use weir_flow::counters::Totals;
use weir_flow::fold::Folder;
use weir_flow::kubenetmon::{Counts, Ends, Ignored, Observation, Row, Settings};
use weir_flow::time::SECOND;
use weir_flow::tuple::Protocol;
use weir_flow::{
    BatchId, BootTime, Class, Counters, Digest, Endpoint, EndpointKind, Epoch, FlowRecord, Name,
    RecordFlags, View,
};
use weir_lab::clickhouse::Database;
use weir_store::{
    ClickHouseOptions, ClickHouseStore, CommitBatch, FlowStore, KubenetmonSink, KubenetmonTable,
    Outcome, StoreError,
};

use crate::support::{clickhouse_options, engine};

/// Questions, with their SQL.
const QUESTIONS: &str = include_str!("../../../../docs/five-questions.md");

/// The table as kubenetmon publishes it, and the window.
const PUBLISHED: &str = include_str!("kubenetmon/network_flows_0.sql");
/// Old and new side by side.
const HISTORY: &str = include_str!("../../../../docs/sql/history.sql");

fn settings() -> Settings {
    Settings {
        environment: "development".into(),
        cloud: "aws".into(),
        region: "us-west-2".into(),
        cluster: "cluster".into(),
        ignore_udp: true,
        flags: vec![("203.0.113.0/24".parse().unwrap(), "NAT_GATEWAY".into())],
    }
}

/// Both kinds of tables in one database.
fn options(database: &Database) -> ClickHouseOptions {
    ClickHouseOptions {
        kubenetmon: Some(KubenetmonTable {
            database: database.name().to_owned(),
            table: "network_flows_0".to_owned(),
            settings: settings(),
        }),
        ..clickhouse_options(database)
    }
}

fn open(database: &Database) -> ClickHouseStore {
    ClickHouseStore::open(options(database)).unwrap()
}

/// The beginning of a minute ago, so that nothing of it has expired.
fn minute() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    now / 60 * 60 - 60
}

fn pod(name: &str, node: &str, zone: &str, address: &str) -> Endpoint {
    Endpoint {
        namespace: Some("shop".into()),
        pod: Some(name.into()),
        node: Some(node.into()),
        zone: Some(zone.into()),
        app: Some(format!("app-{name}").into()),
        labels: Some(format!("control-plane-id=id-{name}").into()),
        ..Endpoint::bare(EndpointKind::Pod, address.parse().unwrap())
    }
}

fn outside(address: &str) -> Endpoint {
    Endpoint::bare(EndpointKind::External, address.parse().unwrap())
}

/// A connection with its first hundred packets out and its first two hundred back.
fn record(
    source: &Endpoint,
    destination: &Endpoint,
    view: View,
    bytes: (u64, u64),
) -> (FlowRecord, Attributed) {
    let end = minute() + 30;
    let record = FlowRecord {
        connection: 1,
        zone: 0,
        protocol: Protocol::TCP,
        source: source.address,
        source_port: 40_000,
        destination: destination.address,
        destination_port: 8_080,
        service: None,
        translated_source: None,
        start: None,
        interval_from: BootTime((end - 10) * SECOND),
        interval_to: BootTime(end * SECOND),
        from: Totals::default(),
        to: Totals {
            sent: Counters { packets: 100, bytes: bytes.0 },
            received: Counters { packets: 200, bytes: bytes.1 },
        },
        state: weir_flow::ConnectionState::default(),
        flags: RecordFlags::default(),
    };
    let named = Attributed {
        source: source.clone().into(),
        destination: destination.clone().into(),
        class: weir_flow::class::classify(source, destination),
        service: None,
        view,
    };
    (record, named)
}

fn commit(
    store: &dyn FlowStore,
    node: &str,
    epoch: u128,
    records: &[(FlowRecord, Attributed)],
) -> Outcome {
    let mut folder = Folder::default();
    for (record, ends) in records {
        folder.add(record, 0, ends);
    }
    let flows = folder.finish();
    let batch = CommitBatch {
        node,
        id: BatchId { epoch: Epoch(epoch), sequence: 1 },
        digest: Digest(epoch),
        end_seconds: minute() + 30,
        flows: &flows,
        gaps: &[],
        counters: &[],
        records,
        wall_offset: 0,
    };
    store.commit(&[batch]).unwrap().remove(0)
}

/// What two nodes see of a connection between them, of one inside a node, and of others.
fn two_nodes() -> [Vec<(FlowRecord, Attributed)>; 2] {
    let web = pod("web", "n1", "a", "10.1.0.1");
    let cache = pod("cache", "n1", "a", "10.1.0.2");
    let data = pod("data", "n2", "b", "10.2.0.1");
    let v6 = Endpoint { address: "fd00::1".parse().unwrap(), ..web.clone() };
    let node = Endpoint { node: Some("n1".into()), ..outside("192.168.0.1") };
    let node = Endpoint { kind: EndpointKind::Node, ..node };
    let mut udp = record(&web, &data, View::ONLY, (7, 7));
    udp.0.protocol = Protocol::UDP;
    let mut present = record(&web, &data, View::ONLY, (1_000_000, 1));
    present.0.flags = RecordFlags::PRESENT;
    let first = vec![
        record(&web, &data, View::ONLY, (1_000, 5_000)),
        record(&web, &cache, View::ONLY, (300, 600)),
        record(&web, &outside("203.0.113.9"), View::ONLY, (40, 4_000)),
        udp,
        present,
        record(&v6, &outside("2001:db8::1"), View::ONLY, (1, 1)),
        record(&node, &data, View::ONLY, (1, 1)),
    ];
    [first, vec![record(&web, &data, View::Second, (1_000, 5_000))]]
}

#[test]
fn the_table_is_as_kubenetmon_publishes_it_and_remembers_tokens() {
    let Some(engine) = engine("kubenetmon's table") else { return };
    let database = engine.name();
    let _store = open(&database);
    let made = database.run("SHOW CREATE TABLE network_flows_0 FORMAT TSVRaw").unwrap();
    assert_eq!(made.replace(database.name(), "DATABASE").trim(), PUBLISHED.trim());
}

#[test]
fn every_record_makes_two_rows_and_a_batch_sent_twice_makes_no_more() {
    let Some(engine) = engine("kubenetmon's rows") else { return };
    let database = engine.name();
    let store = open(&database);
    assert!(store.wants_records());
    let [first, second] = two_nodes();
    assert_eq!(commit(&store, "n1", 1, &first), Outcome::Committed);
    assert_eq!(commit(&store, "n2", 2, &second), Outcome::Committed);
    assert_eq!(commit(&store, "n1", 1, &first), Outcome::AlreadyCommitted);

    let rows = database
        .run(
            "SELECT direction, localPod, localNode, localPort, remotePod, toString(remoteIPv4), \
             remotePort, connectionClass, toString(connectionFlags), sum(bytes), sum(packets) \
             FROM network_flows_0 GROUP BY ALL ORDER BY ALL",
        )
        .unwrap();
    let expected = "\
out\tdata\tn2\t8080\tweb\t10.1.0.1\t40000\tINTRA_VPC\t{}\t5000\t200
out\tweb\tn1\t40000\t\t203.0.113.9\t8080\tPUBLIC_INTERNET\t{'NAT_GATEWAY':true}\t40\t100
out\tweb\tn1\t40000\tcache\t10.1.0.2\t8080\tINTRA_VPC\t{}\t300\t100
out\tweb\tn1\t40000\tdata\t10.2.0.1\t8080\tINTRA_VPC\t{}\t1000\t100
in\tdata\tn2\t8080\tweb\t10.1.0.1\t40000\tINTRA_VPC\t{}\t1000\t100
in\tweb\tn1\t40000\t\t203.0.113.9\t8080\tPUBLIC_INTERNET\t{'NAT_GATEWAY':true}\t4000\t200
in\tweb\tn1\t40000\tcache\t10.1.0.2\t8080\tINTRA_VPC\t{}\t600\t200
in\tweb\tn1\t40000\tdata\t10.2.0.1\t8080\tINTRA_VPC\t{}\t5000\t200";
    assert_eq!(rows.trim().replace("\\'", "'"), expected);

    let counts = store.kubenetmon_counts();
    let mut should = Counts { labelled: 4, ..Counts::default() };
    for reason in [Ignored::Udp, Ignored::NoTraffic, Ignored::Ipv6, Ignored::Node] {
        should.ignored[reason as usize] = 1;
    }
    assert_eq!(counts, should);
}

#[test]
fn every_column_is_what_the_cluster_says() {
    let Some(engine) = engine("kubenetmon's columns") else { return };
    let database = engine.name();
    let store = open(&database);
    let [_, second] = two_nodes();
    commit(&store, "n2", 2, &second);
    let row = database
        .run(
            "SELECT * EXCEPT (date, intervalStartTime, bytes, packets), \
             date = toDate(intervalStartTime, 'UTC'), toUnixTimestamp(intervalStartTime) \
             FROM network_flows_0 WHERE direction = 'out'",
        )
        .unwrap();
    let expected = format!(
        "60\tdevelopment\ttcp\tINTRA_VPC\t{{}}\tout\taws\tus-west-2\tcluster\t\tb\tn2\tid-data\tshop\
         \tdata\t10.2.0.1\t8080\tapp-data\taws\tus-west-2\tUNKNOWN\t\ta\tn1\tid-web\tshop\tweb\
         \t10.1.0.1\t40000\tapp-web\t\t1\t{}",
        minute()
    );
    assert_eq!(row.trim_end_matches('\n'), expected);
}

#[test]
fn its_usual_query_gives_the_sums() {
    let Some(engine) = engine("kubenetmon's query") else { return };
    let database = engine.name();
    let store = open(&database);
    let [first, second] = two_nodes();
    commit(&store, "n1", 1, &first);
    commit(&store, "n2", 2, &second);
    let sums = database
        .run(
            "SELECT localPod, remotePod, connectionClass, formatReadableSize(sum(bytes)) \
             FROM network_flows_0 \
             WHERE direction = 'out' AND intervalStartTime > now() - INTERVAL 10 MINUTE \
             GROUP BY localPod, remotePod, connectionClass ORDER BY sum(bytes) DESC",
        )
        .unwrap();
    let expected = "\
data\tweb\tINTRA_VPC\t4.88 KiB
web\tdata\tINTRA_VPC\t1000.00 B
web\tcache\tINTRA_VPC\t300.00 B
web\t\tPUBLIC_INTERNET\t40.00 B";
    assert_eq!(sums.trim(), expected);
}

/// A row of a connection from `web` to the internet.
fn row() -> Row {
    let (record, ends) =
        record(&pod("web", "n1", "a", "10.1.0.1"), &outside("8.8.8.8"), View::ONLY, (5, 6));
    let node = Name::from("n1");
    let observation = Observation::of_record(&record, &ends, &node, 0).unwrap();
    Row::of(&observation, &Ends::of(&ends), &settings()).unwrap()
}

#[test]
fn rows_that_come_another_way_have_the_token_that_is_given_with_them() {
    let Some(engine) = engine("rows of kubenetmon's own agents") else { return };
    let database = engine.name();
    let store = open(&database);
    let sink = store.kubenetmon().unwrap();
    let sum = || database.run("SELECT sum(bytes) FROM network_flows_0").unwrap().trim().to_owned();
    sink.insert_kubenetmon(&[row(), row()], Some("a")).unwrap();
    sink.insert_kubenetmon(&[row(), row()], Some("a")).unwrap();
    assert_eq!(sum(), "22", "the same token counts once");
    let count = database.run("SELECT count() FROM network_flows_0").unwrap();
    assert_eq!(count.trim(), "2", "rows of one key are one at once");
    sink.insert_kubenetmon(&[row()], Some("b")).unwrap();
    assert_eq!(sum(), "33");
    for _ in 0..2 {
        sink.insert_kubenetmon(&[row()], None).unwrap();
    }
    assert_eq!(sum(), "55", "without a token every row counts");
    sink.insert_kubenetmon(&[], None).unwrap();
}

#[test]
fn flags_are_written_as_kubenetmon_writes_them() {
    let Some(engine) = engine("kubenetmon's flags") else { return };
    let database = engine.name();
    let store = open(&database);
    let flags = vec![("".into(), false), ("TEST_FLAG".into(), true)];
    store.insert_kubenetmon(&[Row { flags, ..row() }], None).unwrap();
    store.insert_kubenetmon(&[row()], None).unwrap();
    let sql =
        "SELECT DISTINCT toString(connectionFlags) FROM network_flows_0 ORDER BY 1 FORMAT TSVRaw";
    assert_eq!(database.run(sql).unwrap().trim(), "{'':false,'TEST_FLAG':true}\n{}");
}

#[test]
fn a_table_that_is_there_is_taken_as_it_is_where_rows_fit() {
    let Some(engine) = engine("a table kubenetmon made") else { return };
    let database = engine.database().unwrap();
    let made = |text: &str| {
        let text = text
            .replace("DATABASE.", "")
            .replace(", non_replicated_deduplication_window = 20000", "");
        database.run("DROP TABLE IF EXISTS network_flows_0 SYNC").unwrap();
        database.run(&text).unwrap();
    };
    // Kept for longer, in other words, with a column more.
    let other = PUBLISHED
        .replace("toIntervalDay(90)", "toIntervalDay(365)")
        .replace("`localNode` String", "`localNode` LowCardinality(String)")
        .replace("`intervalStartTime` DateTime ", "`intervalStartTime` DateTime('UTC') ")
        .replace("`packets` UInt64", "`team` String, `packets` UInt64");
    made(&other);
    let store = open(&database);
    store.insert_kubenetmon(&[row()], None).unwrap();
    let full = "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'network_flows_0'";
    let full = database.run(full).unwrap();
    assert!(full.contains("toIntervalDay(365)"), "{full}");
    assert!(full.contains("non_replicated_deduplication_window = 20000"), "{full}");
    let sum = database.run("SELECT sum(bytes) FROM network_flows_0").unwrap();
    assert_eq!(sum.trim(), "11");

    for (wrong, right, says) in [
        ("`bytes` Int64", "`bytes` UInt64", "its column bytes is Int64 and not UInt64"),
        ("`wire` UInt64", "`packets` UInt64", "it has no column packets"),
    ] {
        made(&PUBLISHED.replace(right, wrong).replace("(bytes, packets)", "bytes"));
        match ClickHouseStore::open(options(&database)) {
            Err(error @ StoreError::ClickHouseTable { .. }) => {
                let text = error.to_string();
                assert!(text.contains(says) && text.contains("network_flows_0"), "{text}");
            }
            other => panic!("{says}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_table_is_not_made_where_nothing_may_be() {
    let Some(engine) = engine("kubenetmon's table missing") else { return };
    let database = engine.name();
    drop(ClickHouseStore::open(clickhouse_options(&database)).unwrap());
    let options = ClickHouseOptions { migrate: false, ..options(&database) };
    let error = ClickHouseStore::open(options.clone()).unwrap_err().to_string();
    assert!(error.contains("weir server migrate"), "{error}");
    ClickHouseStore::migrate(&options).unwrap();
    ClickHouseStore::open(options).unwrap();
}

#[test]
fn old_and_new_stand_side_by_side_each_byte_once() {
    let Some(engine) = engine("kubenetmon's history beside weir's") else { return };
    let database = engine.name();
    let store = open(&database);
    let [first, second] = two_nodes();
    commit(&store, "n1", 1, &first);
    commit(&store, "n2", 2, &second);
    let since = minute() - 600;
    let sums = |change: u64| {
        let sql = HISTORY
            .replace("default.network_flows_0", "network_flows_0")
            .replace("weir.flow_1m", "flow_1m")
            .replace("{since:DateTime}", &format!("toDateTime({since})"))
            .replace("{until:DateTime}", &format!("toDateTime({})", minute() + 600))
            .replace("{change:DateTime}", &format!("toDateTime({change})"));
        let sql = format!(
            "SELECT sender, receiver, class, bytes, packets, meter FROM ({sql}) \
             WHERE class != 'UNKNOWN' ORDER BY ALL"
        );
        database.run(&sql).unwrap()
    };
    let by = |meter: &str| {
        format!(
            "external/203.0.113.9\tpod/shop/web\tPUBLIC_INTERNET\t4000\t200\t{meter}\n\
             pod/shop/cache\tpod/shop/web\tINTRA_VPC\t600\t200\t{meter}\n\
             pod/shop/data\tpod/shop/web\tINTRA_VPC\t5000\t200\t{meter}\n\
             pod/shop/web\texternal/203.0.113.9\tPUBLIC_INTERNET\t40\t100\t{meter}\n\
             pod/shop/web\tpod/shop/cache\tINTRA_VPC\t300\t100\t{meter}\n\
             pod/shop/web\tpod/shop/data\tINTRA_VPC\t1000\t100\t{meter}\n"
        )
    };
    assert_eq!(sums(minute() + 600), by("kubenetmon"));
    assert_eq!(sums(since), by("weir"));
}

/// What pods do across zones, through a service, and with a bucket.
fn asked_about() -> Vec<(FlowRecord, Attributed)> {
    let web = pod("web", "n1", "a", "10.1.0.1");
    let data = pod("data", "n2", "b", "10.2.0.1");
    let bucket = Endpoint {
        cloud: Some("aws".into()),
        region: Some("us-west-2".into()),
        cloud_service: Some("s3".into()),
        range: Some("pictures".into()),
        ..outside("203.0.113.9")
    };
    let (mut across, mut ends) = record(&web, &data, View::ONLY, (1_000, 5_000));
    across.destination_port = 7_000;
    across.service = Some(("10.96.0.1".parse().unwrap(), 7_000));
    across.flags = RecordFlags::OPENED;
    ends.service = Some("shop/cart".into());
    ends.class = Class::CrossZone;
    let (mut put, named) = record(&web, &bucket, View::ONLY, (40, 4_000));
    put.flags = RecordFlags::OPENED;
    vec![(across, ends), (put, named)]
}

#[test]
fn the_five_questions_have_answers() {
    let Some(engine) = engine("the five questions") else { return };
    let database = engine.name();
    let store = open(&database);
    commit(&store, "n1", 1, &asked_about());
    for sql in [
        "CREATE TABLE instance (type String, gbit_per_second Float64) ENGINE = MergeTree ORDER BY type",
        "CREATE TABLE node_instance (name String, type String) ENGINE = MergeTree ORDER BY name",
        "INSERT INTO instance VALUES ('m5.large', 0.75)",
        "INSERT INTO node_instance VALUES ('n1', 'm5.large')",
    ] {
        database.run(sql).unwrap();
    }
    let questions: Vec<&str> = QUESTIONS
        .split("```sql\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(sql, _)| sql))
        .collect();
    assert_eq!(questions.len(), 10, "two for each question");
    for sql in questions {
        let sql = sql.replace("weir.", "").replace("default.", "");
        let answer = database.run(&sql).unwrap();
        assert!(!answer.trim().is_empty(), "nothing answers {sql}");
    }
}
