//! The queries of the page about moving: on tables as they are then, they give what they promise.

use std::fs;

use weir_lab::clickhouse::Engine;
use weir_store::FlowStore as _;

use crate::scenarios::store;
use crate::support::{now, settings};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/migrate-from-kubenetmon.md");
const SWITCH: &str = "2026-12-01 00:00:00";

#[test]
fn the_page_s_queries_give_each_byte_once_before_and_after_the_switch() {
    let Some(engine) = Engine::for_test("the queries about moving").unwrap() else { return };
    let database = engine.database().unwrap();
    let store = store(&database, "network_flows_0", &settings());
    assert!(store.wants_records());
    let switch = now() / 3_600 * 3_600;
    // Two nodes see a and b; c and d are on one node; somebody outside speaks with e. kubenetmon's
    // rows of the hour before, in pairs: what went out, and what came in.
    for (local, local_node, remote, remote_node, out, back) in [
        ("a", "n1", "b", "n2", 100, 40),
        ("b", "n2", "a", "n1", 40, 100),
        ("c", "n1", "d", "n1", 7, 5),
        ("e", "n1", "", "", 3, 9),
    ] {
        for (direction, bytes) in [("out", out), ("in", back)] {
            let namespace = if remote.is_empty() { "" } else { "ns" };
            let insert = format!(
                "INSERT INTO network_flows_0 (date, intervalStartTime, intervalSeconds, direction, \
                 localNode, localNamespace, localPod, remoteNode, remoteNamespace, remotePod, bytes) \
                 SELECT toDate(t, 'UTC'), t, 60, '{direction}', '{local_node}', 'ns', '{local}', \
                 '{remote_node}', '{namespace}', '{remote}', {bytes} \
                 FROM (SELECT toDateTime({}, 'UTC') AS t)",
                switch - 60
            );
            database.run(&insert).unwrap();
        }
    }
    for (class, protocol, sent) in
        [("cross_zone", 6, 1_000), ("transport", 6, 77), ("same_node", 17, 5)]
    {
        let insert = format!(
            "INSERT INTO flow_1h (window, node, protocol, class, src_namespace, src_pod, \
             dst_namespace, dst_pod, bytes_sent, bytes_received) \
             VALUES ({switch}, 'n1', {protocol}, '{class}', 'ns', 'a', 'ns', 'b', {sent}, 400)"
        );
        database.run(&insert).unwrap();
    }
    let [recent, united] = &queries(database.name(), switch)[..] else { panic!("two queries") };
    let recent = database.run(recent).unwrap();
    assert!(recent.lines().count() <= 4, "{recent}");
    let united = database.run(&format!("{united} FORMAT TabSeparated")).unwrap();
    let told: Vec<String> =
        united.lines().map(|line| line.split('\t').skip(1).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "ns a ns b 100",
        "ns b ns a 40",
        "  ns e 9",
        "ns c ns d 7",
        "ns d ns c 5",
        "ns e   3",
        "ns a ns b 1000",
        "ns b ns a 400",
    ];
    assert_eq!(told, expected, "{united}");
}

fn queries(database: &str, switch: u64) -> Vec<String> {
    let page = fs::read_to_string(PAGE).unwrap();
    let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let here = |sql: &str| {
        sql.replace("default.network_flows_0", &format!("{database}.network_flows_0"))
            .replace("weir_shop.", &format!("{database}."))
            .replace(&format!("'{SWITCH}'"), &switch.to_string())
    };
    blocks.map(here).collect()
}
