//! What a node says of addresses is believed only as far as they can be its own.

use std::net::IpAddr;

use weir_flow::cluster::{Bounds, Cluster, Config, LocalFact, NodeFacts, Pod, Uid, Update};
use weir_flow::{Home, Homes as _, Name, WallTime};

const AT: WallTime = WallTime(5_000_000_000);

fn node(name: &str, address: &str, network: &str) -> Update {
    Update::Node(NodeFacts {
        name: name.into(),
        addresses: vec![address.parse().unwrap()],
        pod_networks: vec![network.parse().unwrap()],
        zone: None,
        region: None,
        cloud: None,
        since: WallTime(0),
    })
}

fn says(node: &str, own: bool, address: &str) -> Update {
    let fact = LocalFact { address: address.parse().unwrap(), from: WallTime(0), to: None };
    Update::LocalAll { node: Name::from(node), own, facts: vec![fact], at: AT }
}

#[test]
fn another_node_s_pod_network_cannot_be_announced_away() {
    let mut cluster = Cluster::new(Config::default());
    cluster.apply(node("one", "172.18.0.11", "10.244.1.0/24"));
    cluster.apply(node("two", "172.18.0.12", "10.244.2.0/24"));
    cluster.apply(Update::Synced { at: WallTime(1) });
    // The bridge's address, as the node that has it says, and as another one says.
    cluster.apply(says("one", true, "10.244.1.1"));
    cluster.apply(says("two", true, "10.244.1.1"));
    cluster.apply(says("two", false, "10.244.1.9"));
    cluster.apply(says("two", true, "172.18.0.11"));
    for address in ["10.244.1.1", "10.244.1.9", "172.18.0.11"] {
        let address: IpAddr = address.parse().unwrap();
        for observer in ["one", "two"] {
            let seen = cluster.as_seen_by(observer, 0);
            assert_eq!(seen.home(address, AT), Home::Node("one"), "{address} for {observer}");
        }
    }
    assert_eq!(cluster.counts().refused, 1, "a pod's address; the bridge's is only not heeded");
}

#[test]
fn a_network_that_pods_do_not_keep_to_tells_no_node() {
    let mut cluster = Cluster::new(Config::default());
    cluster.apply(node("one", "172.18.0.11", "10.244.1.0/24"));
    cluster.apply(node("two", "172.18.0.12", "10.244.2.0/24"));
    cluster.apply(Update::Pod(Pod {
        uid: Uid(1),
        namespace: "shop".into(),
        name: "web".into(),
        node: Some("two".into()),
        addresses: vec!["10.244.1.64".parse().unwrap()],
        host_network: false,
        workload: None,
        app: None,
        labels: None,
        from: Bounds::exactly(WallTime(1)),
        ended: None,
        probe_ports: Vec::new(),
        runs_agent: false,
    }));
    cluster.apply(Update::Synced { at: WallTime(2) });
    // The tunnel device of node two has an address of the block that its pods are given.
    cluster.apply(says("two", true, "10.244.1.65"));
    let home = |address: &str| {
        let seen = cluster.as_seen_by("one", 0);
        format!("{:?}", seen.home(address.parse().unwrap(), AT))
    };
    assert_eq!(home("10.244.1.64"), "Node(\"two\")");
    assert_eq!(home("10.244.1.65"), "Node(\"two\")");
    assert_eq!(home("10.244.1.66"), "Unknown", "some pod's, nobody can say whose");
    assert_eq!(home("10.244.2.66"), "Node(\"two\")", "that network is not contradicted");
}
