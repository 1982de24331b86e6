//! Who had an address when.

use std::time::Duration;

use serde_json::json;
use weir_flow::WallTime;
use weir_flow::time::SECOND;
use weir_lab::kube::{self, timestamp};
use weir_server::wire::{Announce as _, Announcement};

use crate::support::{Followed, ago, api_with_nodes, followed, ip, now, pod, wall, with};

fn before(time: WallTime, seconds: u64) -> WallTime {
    WallTime(time.0 - seconds * SECOND)
}

#[test]
fn what_a_list_tells_holds_since_the_pod_s_start_and_not_before() {
    let api = api_with_nodes();
    let started = wall(ago(300));
    api.put(kube::pod("shop", "a", "n1", &[ip("10.244.1.1")], ago(300))).unwrap();
    let followed = followed(api);
    assert_eq!(followed.name("10.244.1.1", before(now(), 200)), "pod/shop/a");
    assert_ne!(followed.name("10.244.1.1", before(started, 60)), "pod/shop/a");
}

#[test]
fn a_finished_pod_has_given_its_address_back() {
    let api = api_with_nodes();
    let finished = json!({ "status": { "phase": "Succeeded", "containerStatuses": [
        { "state": { "terminated": { "startedAt": timestamp(ago(90)),
                                     "finishedAt": timestamp(ago(60)) } } },
    ] } });
    let old = kube::pod("shop", "old", "n1", &[ip("10.244.1.1")], ago(100));
    api.put(with(old, &finished)).unwrap();
    api.put(kube::pod("shop", "new", "n1", &[ip("10.244.1.1")], ago(30))).unwrap();
    let followed = followed(api);
    assert_eq!(followed.name("10.244.1.1", wall(ago(75))), "pod/shop/old");
    assert_eq!(followed.name("10.244.1.1", now()), "pod/shop/new");
}

/// Tells what the agent of `n1` saw: when the address came, and when it went.
fn saw(followed: &Followed, address: &str, spans: &[(WallTime, Option<WallTime>)]) {
    let fact = |&(from, to)| weir_proto::Fact { address: ip(address), from, to, own: false };
    followed.watched.announce(Announcement {
        node: "n1".into(),
        complete: false,
        facts: spans.iter().map(fact).collect(),
        at: now(),
    });
}

#[test]
fn an_address_reused_within_a_second_is_told_apart_by_what_the_agent_saw() {
    let followed = followed(api_with_nodes());
    let address = "10.244.1.1";
    // The API's times are the same second; the agent's are exact.
    let start = ago(20);
    let begin = WallTime(wall(start).0 / SECOND * SECOND);
    let at = |millis: u64| WallTime(begin.0 + millis * 1_000_000);
    saw(&followed, address, &[(at(100), Some(at(400))), (at(600), Some(at(10_200)))]);
    for (name, ran) in [("old", 0), ("new", 10)] {
        let finished = json!({ "status": { "phase": "Succeeded", "containerStatuses": [
            { "state": { "terminated": {
                "startedAt": timestamp(start),
                "finishedAt": timestamp(start + Duration::from_secs(ran)),
            } } },
        ] } });
        let pod = kube::pod("shop", name, "n1", &[ip(address)], start);
        followed.api.put(with(pod, &finished)).unwrap();
    }
    followed.until("both pods", |it| it.status("pods").objects == Some(2));
    assert_eq!(followed.name(address, at(250)), "pod/shop/old");
    assert_eq!(followed.name(address, at(800)), "pod/shop/new");
    assert_eq!(followed.name(address, at(9_000)), "pod/shop/new");
}

#[test]
fn a_deleted_pod_had_its_address_until_then() {
    let api = api_with_nodes();
    api.put(pod("a", "10.244.1.1")).unwrap();
    let followed = followed(api);
    let then = before(now(), 10);
    followed.api.delete("Pod", "shop", "a").unwrap();
    followed.until("the deletion", |it| it.status("pods").objects == Some(0));
    assert_eq!(followed.name("10.244.1.1", then), "pod/shop/a");
    let later = WallTime(now().0 + 60 * SECOND);
    assert_eq!(followed.name("10.244.1.1", later), "NotInDirectory");
}
