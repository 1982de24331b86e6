//! An API that does not do what it should. Metering goes on, and the state says what is wrong.

use std::time::{Duration, Instant};

use serde_json::json;
use weir_lab::kube::{self, Fault};

use crate::support::{Followed, api, api_with_nodes, follow, followed, ip, now, pod, with};

fn resource(name: &str) -> String {
    name.to_owned()
}

/// True when the pods that are there are named.
fn knows(address: &'static str, name: &'static str) -> impl Fn(&Followed) -> bool {
    move |it| it.name(address, now()) == name
}

#[test]
fn without_streaming_lists_pages_do() {
    let api = api_with_nodes();
    api.fault(Fault::NoWatchList);
    for number in 0..1_201 {
        let address = format!("10.244.{}.{}", 1 + number / 250, 1 + number % 250);
        api.put(pod(&format!("p-{number}"), &address)).unwrap();
    }
    let followed = followed(api);
    assert_eq!(followed.status("pods").objects, Some(1_201));
    assert_eq!(followed.name("10.244.5.201", now()), "pod/shop/p-1200");
    assert!(followed.api.asked("pods").lists >= 3);
    // And the watch goes on from there.
    followed.api.put(pod("later", "10.244.9.1")).unwrap();
    followed.until("a later pod", knows("10.244.9.1", "pod/shop/later"));
}

#[test]
fn a_streaming_list_that_never_ends_is_given_up_for_pages() {
    let api = api_with_nodes();
    api.fault(Fault::NoBookmarks);
    api.put(pod("a", "10.244.1.1")).unwrap();
    let followed = followed(api);
    assert!(followed.api.asked("pods").lists >= 1);
    assert_eq!(followed.name("10.244.1.1", now()), "pod/shop/a");
}

#[test]
fn one_forbidden_resource_is_named_with_what_to_do_and_hinders_no_other() {
    let api = api_with_nodes();
    api.fault(Fault::Forbidden { resource: resource("replicasets") });
    let owner = crate::support::owned_by("ReplicaSet", "api-7d9", "x");
    api.put(with(pod("a", "10.244.1.1"), &owner)).unwrap();
    let followed = follow(api, None);
    followed.until("pods and nodes are listed", |it| it.watched.heard().borrow().is_synced);
    followed.until("the refusal", |it| it.watched.resources().len() == 6);
    let status = followed.status("replicasets");
    let error = status.error.unwrap();
    assert!(!status.is_synced && status.objects.is_none());
    for part in ["apiGroups [\"apps\"]", "resources [\"replicasets\"]", "\"list\", \"watch\""] {
        assert!(error.contains(part), "{error}");
    }
    assert!(followed.status("pods").error.is_none());
    // Nobody can tell whether the owner exists: the pod's word stands.
    let workload = followed.who("10.244.1.1", now()).workload();
    assert_eq!(workload.as_deref(), Some("shop/ReplicaSet/api-7d9"));
    followed.api.heal();
    followed.until("it is allowed", |it| it.status("replicasets").is_synced);
    assert_eq!(followed.status("replicasets").error, None);
}

#[test]
fn forgotten_history_is_listed_again_and_what_vanished_is_gone() {
    let api = api_with_nodes();
    api.put(pod("stays", "10.244.1.1")).unwrap();
    api.put(pod("goes", "10.244.1.2")).unwrap();
    let followed = followed(api);
    let lists = followed.status("pods").lists;
    let seen = now();
    // Unwatched while it happens.
    followed.api.fault(Fault::Refused);
    followed.until("the failure", |it| it.status("pods").error.is_some());
    followed.api.delete("Pod", "shop", "goes").unwrap();
    followed.api.fault(Fault::Gone { resource: resource("pods") });
    followed.api.heal();
    followed.until("another list", |it| it.status("pods").lists > lists);
    assert_eq!(followed.status("pods").objects, Some(1));
    assert_eq!(followed.name("10.244.1.1", now()), "pod/shop/stays");
    assert_eq!(followed.name("10.244.1.2", seen), "pod/shop/goes");
    let later = weir_flow::WallTime(now().0 + 60_000_000_000);
    assert_eq!(followed.name("10.244.1.2", later), "NotInDirectory");
}

#[test]
fn a_watch_that_stands_still_is_noticed() {
    let api = api_with_nodes();
    let followed = followed(api);
    let watches = followed.api.asked("pods").watches;
    followed.api.fault(Fault::Stalled { resource: resource("pods") });
    followed.api.put(pod("a", "10.244.1.1")).unwrap();
    // Whoever gave the silent watch up asks for another.
    let deadline = Instant::now() + Duration::from_secs(20);
    while followed.api.asked("pods").watches == watches && Instant::now() < deadline {
        std::thread::yield_now();
    }
    followed.api.heal();
    followed.until("the pod", knows("10.244.1.1", "pod/shop/a"));
}

#[test]
fn what_is_no_object_spoils_nothing_else() {
    let api = api_with_nodes();
    for odd in [
        json!({ "kind": "Pod", "metadata": { "name": "empty", "namespace": "shop" } }),
        json!({ "kind": "Pod", "metadata": { "name": "odd", "namespace": "shop", "labels": 7,
            "ownerReferences": "none" }, "spec": ["x"], "status": "Running" }),
        json!({ "kind": "Pod", "metadata": { "name": "x".repeat(2_000), "namespace": "shop" } }),
        json!({ "kind": "Pod", "metadata": { "name": "addresses", "namespace": "shop" },
            "status": { "podIP": {}, "podIPs": [{ "ip": "10.244.1" }, { "ip": null }, 5] } }),
        json!({ "kind": "Node", "metadata": { "name": "odd" }, "spec": { "podCIDRs": ["10/99"] },
            "status": { "addresses": [{ "address": "" }, 1] } }),
        json!({ "kind": "Service", "metadata": { "name": "odd", "namespace": "shop" },
            "spec": { "ports": [{ "port": 0 }, { "port": 99_999, "protocol": "X" }] } }),
    ] {
        api.put(odd).unwrap();
    }
    api.put(pod("a", "10.244.1.1")).unwrap();
    let followed = followed(api);
    assert_eq!(followed.name("10.244.1.1", now()), "pod/shop/a");
    assert_eq!(followed.watched.odd_objects(), 1);
    followed.api.fault(Fault::Garbage { resource: resource("pods") });
    followed.api.put(pod("b", "10.244.1.2")).unwrap();
    followed.until("the next pod", knows("10.244.1.2", "pod/shop/b"));
}

#[test]
fn an_api_that_cannot_be_reached_at_start_is_tried_again() {
    let api = api_with_nodes();
    api.put(pod("a", "10.244.1.1")).unwrap();
    api.fault(Fault::Refused);
    let followed = follow(api, None);
    followed.until("failures", |it| {
        it.watched.resources().iter().any(|it| it.resource == "pods" && it.failures > 1)
    });
    assert_eq!(followed.name("10.244.1.1", now()), "DirectoryUnavailable");
    followed.api.heal();
    followed.until("the pod", knows("10.244.1.1", "pod/shop/a"));
    followed.until("the failure is over", |it| it.status("pods").error.is_none());
}

#[test]
fn unknown_credentials_are_said_to_be() {
    let api = api();
    api.fault(Fault::Unauthorized);
    let followed = follow(api, None);
    followed.until("the refusal", |it| {
        it.watched.resources().iter().any(|it| it.resource == "pods" && it.error.is_some())
    });
    let error = followed.status("pods").error.unwrap();
    assert!(error.contains("does not know weir's credentials"), "{error}");
}

#[test]
fn a_slow_api_is_waited_for() {
    let api = api_with_nodes();
    api.put(pod("a", "10.244.1.1")).unwrap();
    api.fault(Fault::Slow { delay: Duration::from_millis(200) });
    let followed = followed(api);
    assert_eq!(followed.name("10.244.1.1", now()), "pod/shop/a");
}

#[test]
fn two_live_pods_with_one_address_are_ambiguous() {
    let api = api_with_nodes();
    api.put(pod("a", "10.244.1.1")).unwrap();
    api.put(pod("b", "10.244.1.1")).unwrap();
    api.put(kube::pod("shop", "c", "n1", &[ip("10.244.1.3")], crate::support::ago(5))).unwrap();
    let followed = followed(api);
    assert_eq!(followed.name("10.244.1.1", now()), "Ambiguous");
    assert_eq!(followed.name("10.244.1.3", now()), "pod/shop/c");
}
