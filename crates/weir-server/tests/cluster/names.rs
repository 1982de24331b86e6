//! What the API's objects are called.

use serde_json::json;
use weir_flow::{EndpointKind, Resolution};
use weir_lab::kube;

use crate::support::{ago, api_with_nodes, followed, ip, now, owned_by, pod, with};

const RS: &str = "11111111-0000-4000-8000-000000000001";
const JOB: &str = "11111111-0000-4000-8000-000000000002";

#[test]
fn a_pod_is_named_by_all_that_is_known_of_it() {
    let api = api_with_nodes();
    api.put(json!({ "kind": "Namespace", "metadata": { "name": "shop",
        "labels": { "team": "all", "stage": "live", "secret": "x" } } }))
        .unwrap();
    api.put(kube::workload("ReplicaSet", "shop", "api-7d9", RS, Some(("Deployment", "api", "d1"))))
        .unwrap();
    let labels = json!({ "metadata": { "labels": { "app": "api", "team": "red", "other": "y" } } });
    let owner = owned_by("ReplicaSet", "api-7d9", RS);
    api.put(with(with(pod("api-7d9-x", "10.244.1.7"), &labels), &owner)).unwrap();
    let followed = followed(api);
    let endpoint = followed.who("10.244.1.7", now());
    let texts = [
        &endpoint.namespace,
        &endpoint.pod,
        &endpoint.workload_kind,
        &endpoint.workload_name,
        &endpoint.node,
        &endpoint.zone,
        &endpoint.region,
        &endpoint.app,
        &endpoint.labels,
    ];
    let texts: Vec<&str> = texts.into_iter().map(|text| text.as_deref().unwrap_or("?")).collect();
    let expected = [
        "shop",
        "api-7d9-x",
        "Deployment",
        "api",
        "n1",
        "eu-1a",
        "eu-1",
        "api",
        "stage=live,team=red",
    ];
    assert_eq!(texts, expected);
    assert_eq!(endpoint.kind, EndpointKind::Pod);
    assert_eq!(endpoint.resolution, Some(Resolution::Directory));
    assert_eq!(followed.name("10.1.0.2", now()), "node/n2");
}

#[test]
fn owners_are_followed_to_the_workload_and_not_believed_blindly() {
    let api = api_with_nodes();
    api.put(kube::workload("ReplicaSet", "shop", "web-1", RS, Some(("Rollout", "web", "r"))))
        .unwrap();
    api.put(kube::workload("Job", "shop", "night-1", JOB, Some(("CronJob", "night", "c"))))
        .unwrap();
    let foreign =
        kube::workload("ReplicaSet", "bank", "pay-1", "f", Some(("Deployment", "pay", "d")));
    api.put(foreign).unwrap();
    for (address, owner, workload) in [
        ("10.244.1.1", Some(("ReplicaSet", "web-1", RS)), "shop/Rollout/web"),
        ("10.244.1.2", Some(("Job", "night-1", JOB)), "shop/CronJob/night"),
        ("10.244.1.3", Some(("StatefulSet", "db", "s")), "shop/StatefulSet/db"),
        ("10.244.1.4", None, "shop/Pod/p-10.244.1.4"),
        // A static pod's owner is its node.
        ("10.244.1.5", Some(("Node", "n1", "n")), "shop/Pod/p-10.244.1.5"),
        // Owners that do not exist, or are another namespace's.
        ("10.244.1.6", Some(("ReplicaSet", "pay-1", "none")), "shop/Pod/p-10.244.1.6"),
        ("10.244.1.7", Some(("ReplicaSet", "pay-1", "f")), "shop/Pod/p-10.244.1.7"),
    ] {
        let name = format!("p-{address}");
        let owner = owner.map_or_else(|| json!({}), |(kind, name, uid)| owned_by(kind, name, uid));
        api.put(with(pod(&name, address), &owner)).unwrap();
        let annotation = json!({ "metadata": { "annotations": { "expected": workload } } });
        let stored = api.get("Pod", "shop", &name).unwrap();
        api.put(with(with(stored, &annotation), &json!({ "kind": "Pod" }))).unwrap();
    }
    let followed = followed(api);
    for last in 1..=7 {
        let address = format!("10.244.1.{last}");
        let stored = followed.api.get("Pod", "shop", &format!("p-{address}")).unwrap();
        let expected = stored["metadata"]["annotations"]["expected"].as_str();
        assert_eq!(followed.who(&address, now()).workload().as_deref(), expected, "{address}");
    }
}

#[test]
fn an_owner_that_comes_late_still_counts() {
    let followed = followed(api_with_nodes());
    let owner = owned_by("ReplicaSet", "api-7d9", RS);
    followed.api.put(with(pod("api-7d9-x", "10.244.1.7"), &owner)).unwrap();
    let workload = |it: &crate::support::Followed| it.who("10.244.1.7", now()).workload();
    let is = |text: &'static str| {
        move |it: &crate::support::Followed| workload(it).as_deref() == Some(text)
    };
    followed.until("the pod stands for itself", is("shop/Pod/api-7d9-x"));
    let controller = Some(("Deployment", "api", "d1"));
    followed.api.put(kube::workload("ReplicaSet", "shop", "api-7d9", RS, controller)).unwrap();
    followed.until("the owner is known", is("shop/Deployment/api"));
}

#[test]
fn pods_on_their_node_s_network_are_the_node_and_both_families_are_the_pod() {
    let api = api_with_nodes();
    let on_host = json!({ "spec": { "hostNetwork": true } });
    api.put(with(pod("proxy", "10.1.0.1"), &on_host)).unwrap();
    let both = [ip("10.244.1.9"), ip("fd00:1::9")];
    api.put(kube::pod("shop", "dual", "n1", &both, ago(60))).unwrap();
    let followed = followed(api);
    assert_eq!(followed.name("10.1.0.1", now()), "node/n1");
    assert_eq!(followed.name("10.244.1.9", now()), "pod/shop/dual");
    assert_eq!(followed.name("fd00:1::9", now()), "pod/shop/dual");
}

#[test]
fn services_are_known_by_every_address_until_they_are_deleted() {
    let api = api_with_nodes();
    let addresses = [ip("10.96.0.7"), ip("fd00:96::7")];
    let more = json!({ "spec": { "externalIPs": ["198.51.100.7"] },
        "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }, { "hostname": "x" }] } } });
    api.put(with(kube::service("shop", "api", &addresses, 80), &more)).unwrap();
    let headless = json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"] } });
    api.put(with(kube::service("shop", "db", &[], 5432), &headless)).unwrap();
    let followed = followed(api);
    for address in ["10.96.0.7", "fd00:96::7", "198.51.100.7", "203.0.113.7"] {
        assert_eq!(followed.name(address, now()), "service/shop/api", "{address}");
    }
    followed.api.delete("Service", "shop", "api").unwrap();
    followed.until("the service is gone", |it| it.name("10.96.0.7", now()) != "service/shop/api");
}

#[test]
fn only_an_agent_s_pod_with_an_agent_s_account_enrols_its_node() {
    let api = api_with_nodes();
    let agent = json!({
        "metadata": { "namespace": "weir", "labels": { "app.kubernetes.io/name": "weir-agent" } },
        "spec": { "hostNetwork": true, "serviceAccountName": "weir-agent" },
    });
    api.put(with(pod("agent-1", "10.1.0.1"), &agent)).unwrap();
    // Anybody may give a label.
    let pretends = json!({ "metadata": { "namespace": "shop" }, "spec": { "nodeName": "n2" } });
    api.put(with(with(pod("agent-2", "10.1.0.2"), &agent), &pretends)).unwrap();
    let followed = followed(api);
    let enrolled: Vec<_> =
        ["n1", "n2"].into_iter().filter(|node| followed.watched.is_enrolled(node, now())).collect();
    assert_eq!(enrolled, ["n1"]);
}
