//! The screen of a cluster: a shop on three nodes in two zones, of which one agent is silent.

use weir_server::answer::{PeerState, PeerStatus};

use super::*;

fn node(name: &str, state: State) -> NodeStatus {
    NodeStatus {
        node: name.to_owned(),
        state,
        source: "conntrack".to_owned(),
        accounting: Some(true),
        agent_version: Some("0.1.0".to_owned()),
        ..NodeStatus::default()
    }
}

fn status() -> Status {
    let silent = NodeStatus { silent_seconds: Some(90), ..node("node-c", State::Stalled) };
    let late = NodeStatus { lag_seconds: Some(75.0), ..node("node-b", State::Reading) };
    Status { nodes: vec![node("node-a", State::Reading), late, silent], ..Status::default() }
}

fn pod(workload: &str, pod: &str, address: &str, port: u16, place: (&str, &str)) -> End {
    End {
        id: format!("pod/shop/{pod}"),
        name: pod.to_owned(),
        kind: "pod".to_owned(),
        address: address.to_owned(),
        port: Some(port),
        namespace: Some("shop".to_owned()),
        workload: Some(format!("shop/{workload}")),
        node: Some(place.0.to_owned()),
        zone: Some(place.1.to_owned()),
        app: Some(pod.split('-').next().unwrap().to_owned()),
        resolution: Some("directory".to_owned()),
        ..End::default()
    }
}

fn row(id: &str, source: End, destination: End, class: &str, rate: f64) -> ConnectionRow {
    ConnectionRow {
        id: format!("node-a/{id}"),
        node: "node-a".to_owned(),
        protocol: "tcp".to_owned(),
        state: Some("ESTABLISHED".to_owned()),
        source,
        destination,
        class: class.to_owned(),
        bytes_sent: Some(40_000),
        bytes_received: Some(9_000_000),
        bytes_sent_per_second: Some(rate / 100.0),
        bytes_received_per_second: Some(rate),
        age_seconds: Some(300.0),
        ..ConnectionRow::default()
    }
}

fn connections() -> Connections {
    const FRONTEND: &str = "frontend-6f9d8c7b54-x2x4q";
    let frontend =
        || pod("Deployment/frontend", FRONTEND, "10.244.1.7", 41_000, ("node-a", "zone-1"));
    let redis = pod("StatefulSet/redis", "redis-0", "10.244.2.9", 6_379, ("node-b", "zone-2"));
    let dialled = ConnectionRow {
        service: Some("10.96.0.20:6379".to_owned()),
        service_name: Some("shop/redis".to_owned()),
        ..row("1", frontend(), redis, "cross_zone", 2_000_000.0)
    };
    let api =
        pod("Deployment/api", "api-7c5b9d-9k2lm", "fd00:10::2:4", 8_080, ("node-c", "zone-1"));
    let payment = End {
        id: "external/203.0.113.9".to_owned(),
        name: "203.0.113.9".to_owned(),
        kind: "external".to_owned(),
        address: "203.0.113.9".to_owned(),
        port: Some(443),
        cloud: Some("aws".to_owned()),
        region: Some("eu-central-1".to_owned()),
        cloud_service: Some("ec2".to_owned()),
        resolution: Some("cloud_range".to_owned()),
        ..End::default()
    };
    let kubelet = End {
        id: "node/node-a".to_owned(),
        name: "node-a".to_owned(),
        kind: "node".to_owned(),
        address: "172.18.0.2".to_owned(),
        port: Some(10_250),
        zone: Some("zone-1".to_owned()),
        ..End::default()
    };
    let unknown = End {
        name: "10.244.2.77".to_owned(),
        kind: "unknown".to_owned(),
        address: "10.244.2.77".to_owned(),
        port: Some(8_080),
        unresolved: Some("ambiguous".to_owned()),
        ..End::default()
    };
    let rows = vec![
        dialled,
        row("2", frontend(), api, "same_zone", 800_000.0),
        row("3", frontend(), payment, "inter_region", 5_000.0),
        row("4", kubelet, frontend(), "same_node", 120.0),
        row("5", frontend(), unknown, "unknown", 0.0),
    ];
    Connections {
        at: Some("2026-01-31T08:00:00Z".to_owned()),
        interval_seconds: Some(2.0),
        known: 5,
        matching: 5,
        connections: rows,
        ..Connections::default()
    }
}

fn answer(app: &mut App) {
    app.fresh(Answer::Status(Box::new(status())));
    app.fresh(Answer::Nodes(rates(&[
        (&[("node", Some("node-a"))], 4, 28_051.0, 2_805_120.0),
        (&[("node", Some("node-b"))], 1, 0.0, 0.0),
    ])));
    let wants = app.wants();
    app.fresh(Answer::Connections(wants.connections, connections()));
    let owners = |source, destination| {
        [("source.owner_id", Some(source)), ("destination.owner_id", Some(destination))]
    };
    let frontend = "workload/shop/Deployment/frontend";
    app.fresh(Answer::Rates(
        wants.rates,
        rates(&[
            (&owners(frontend, "workload/shop/StatefulSet/redis"), 1, 20_000.0, 2_000_000.0),
            (&owners(frontend, "workload/shop/Deployment/api"), 1, 8_000.0, 800_000.0),
            (&owners(frontend, "external/203.0.113.9"), 1, 50.0, 5_000.0),
        ]),
    ));
}

fn full(width: u16, height: u16) -> App {
    let mut app = empty(width, height);
    answer(&mut app);
    // The first answer said that it is a cluster: now its questions are answered.
    answer(&mut app);
    app
}

#[test]
fn a_wide_screen_has_workloads_classes_zones_and_all_agents() {
    insta::assert_snapshot!(unicode(&full(180, 34)));
}

#[test]
fn a_usual_screen_keeps_names_and_classes() {
    insta::assert_snapshot!(unicode(&full(100, 26)));
}

#[test]
fn groups_go_through_what_a_cluster_has() {
    let mut app = full(100, 26);
    let mut seen = Vec::new();
    for _ in crate::top::live::talkers::cluster_presets() {
        seen.push(app.by().iter().map(Field::to_string).collect::<Vec<_>>().join(" "));
        press(&mut app, "g");
    }
    insta::assert_snapshot!(seen.join("\n"));
    press(&mut app, "n");
    assert_eq!(app.by()[0].to_string(), "source.address", "addresses in the place of owners");
}

#[test]
fn what_somebody_chose_stays_when_it_turns_out_to_be_a_cluster() {
    let mut app = empty(100, 26);
    press(&mut app, "gg");
    let chosen = app.by();
    answer(&mut app);
    assert_eq!(app.by(), chosen);
    press(&mut app, "g");
    assert_eq!(app.by().len(), 2, "the cluster's own groups follow");
}

#[test]
fn one_machine_stays_one_machine() {
    let app = super::full(100, 26);
    assert!(!app.is_cluster());
    assert!(!unicode(&app).contains("CLASS"));
}

#[test]
fn servers_that_did_not_answer_are_said_to_be_missing() {
    let mut app = full(100, 26);
    let peer = |address: &str, state, reason: Option<&str>| PeerStatus {
        address: address.to_owned(),
        state,
        reason: reason.map(str::to_owned),
        ..PeerStatus::default()
    };
    let peers = vec![
        peer("10.0.0.7:8884", PeerState::Ok, None),
        peer("10.0.0.8:8884", PeerState::OtherVersion, Some("it is\u{1b}[31m older")),
    ];
    app.fresh(Answer::Status(Box::new(Status { peers, ..status() })));
    let lines = crate::top::live::banners::banners(&app);
    let line = lines.iter().find(|line| line.contains("other servers")).unwrap();
    assert_eq!(
        line,
        "1 of 2 other servers did not answer, what their agents see now is missing here; \
         10.0.0.8:8884 is other version: it is\\u{1b}[31m older"
    );
}
