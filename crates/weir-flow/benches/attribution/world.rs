//! A made-up cluster: 300 nodes in three zones, 100 pods on each, 5,000 services, and the clouds'
//! ranges.

use std::net::{IpAddr, Ipv4Addr};

use weir_flow::cluster::{
    Bounds, Cluster, Config, LocalFact, NodeFacts, Pod, Region, ServiceFacts, Uid, Update,
};
use weir_flow::time::SECOND;
use weir_flow::{Name, Protocol, WallTime};

pub(crate) const NODES: u32 = 300;
pub(crate) const PODS_PER_NODE: u32 = 100;
pub(crate) const SERVICES: u32 = 5_000;
const WORKLOADS: u32 = 3_000;

/// Small, and the same on every machine.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap_or_default() % below
    }
}

pub(crate) fn at(seconds: u64) -> WallTime {
    WallTime(seconds * SECOND)
}

pub(crate) fn node_name(node: u32) -> String {
    format!("ip-10-0-{}-{}.eu-central-1.compute.internal", node / 250, node % 250)
}

pub(crate) fn node_address(node: u32) -> IpAddr {
    Ipv4Addr::from(0xc0a8_0000 + node + 1).into()
}

/// Each node's pods are in a network of 256 addresses.
pub(crate) fn pod_address(node: u32, pod: u32) -> IpAddr {
    Ipv4Addr::from(0x0a40_0000 + node * 256 + pod + 2).into()
}

pub(crate) fn service_address(service: u32) -> IpAddr {
    Ipv4Addr::from(0xac14_0000 + service).into()
}

/// The nodes and services, but no pod yet.
pub(crate) fn without_pods() -> Cluster {
    let mut book = Cluster::new(Config {
        region: Region { cloud: Some("aws".into()), region: Some("eu-central-1".into()) },
        ..Config::default()
    });
    let zones = ["a", "b", "c"].map(|zone| Name::from(format!("eu-central-1{zone}")));
    for node in 0..NODES {
        let name = Name::from(node_name(node));
        let network = format!("{}/24", pod_address(node, 0));
        book.apply(Update::Node(NodeFacts {
            name: Name::clone(&name),
            addresses: vec![node_address(node)],
            pod_networks: vec![network.parse().expect("a network")],
            zone: zones.get(node as usize % 3).cloned(),
            region: Some("eu-central-1".into()),
            cloud: Some("aws".into()),
            since: at(0),
        }));
        book.apply(Update::Enrolled { node: name, from: at(0) });
    }
    for service in 0..SERVICES {
        book.apply(Update::Service(ServiceFacts {
            namespace: format!("namespace-{}", service % 200).into(),
            name: format!("service-{service}").into(),
            addresses: vec![service_address(service)],
            ports: vec![(Protocol::TCP, 80)],
            node_ports: Vec::new(),
            since: at(0),
        }));
    }
    book
}

/// 30,000 pods as a watcher tells of them, their names shared, and what the agents see of them.
pub(crate) fn add_pods(book: &mut Cluster) {
    let shared = |count: u32, text: &str| -> Vec<Name> {
        (0..count).map(|number| format!("{text}-{number}").into()).collect()
    };
    let namespaces = shared(200, "namespace");
    let workloads = shared(WORKLOADS, "workload");
    let labels = shared(WORKLOADS, "app.kubernetes.io/name=workload,team=payments,tier=backend");
    let kind = Name::from("Deployment");
    for node in 0..NODES {
        let node_name = Name::from(node_name(node));
        let mut facts = Vec::new();
        for pod in 0..PODS_PER_NODE {
            let number = node * PODS_PER_NODE + pod;
            let workload = (number % WORKLOADS) as usize;
            book.apply(Update::Pod(Pod {
                uid: Uid(u128::from(number) << 64 | 7),
                namespace: Name::clone(&namespaces[workload % 200]),
                name: format!("workload-{workload}-7d9f8b6c5d-{number:05}").into(),
                node: Some(Name::clone(&node_name)),
                addresses: vec![pod_address(node, pod)],
                host_network: false,
                workload: Some((Name::clone(&kind), Name::clone(&workloads[workload]))),
                app: Some(Name::clone(&workloads[workload])),
                labels: Some(Name::clone(&labels[workload])),
                from: Bounds::between(at(10), at(12)),
                ended: None,
                probe_ports: vec![8_080],
                runs_agent: false,
            }));
            facts.push(LocalFact { address: pod_address(node, pod), from: at(11), to: None });
        }
        book.apply(Update::Local { node: node_name, own: false, facts });
    }
    book.apply(Update::Synced { at: at(20) });
    // Whoever keeps them has taken them.
    drop(book.take_changes());
}
