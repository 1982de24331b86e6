//! What is known outlives the server.

use std::sync::Arc;

use tempfile::TempDir;
use weir_flow::WallTime;
use weir_flow::time::SECOND;
use weir_lab::kube::Fault;
use weir_server::wire::{Announce as _, Announcement};
use weir_store::{FlowStore, Options, SqliteStore};

use crate::support::{Followed, api_with_nodes, follow, ip, now, pod};

fn synced(followed: &Followed) {
    followed.until("the first lists", |it| it.watched.heard().borrow().is_synced);
}

#[test]
fn who_had_an_address_before_a_restart_is_known_after_it() {
    let directory = TempDir::new().unwrap();
    let store: Arc<dyn FlowStore> =
        Arc::new(SqliteStore::open(directory.path(), Options::default()).unwrap());
    let api = api_with_nodes();
    api.put(pod("goes", "10.244.1.1")).unwrap();
    api.put(pod("stays", "10.244.1.2")).unwrap();
    let first = follow(api, Some(Arc::clone(&store)));
    synced(&first);
    let seen = WallTime(now().0 - 10 * SECOND);
    let fact = weir_proto::Fact { address: ip("10.1.0.1"), from: seen, to: None, own: true };
    let (node, facts, at) = ("n1".into(), vec![fact], now());
    first.watched.announce(Announcement { node, complete: true, facts, at });
    assert!(first.watched.is_enrolled("n1", now()));
    let (api, _kubeconfig) = first.stop();

    api.delete("Pod", "shop", "goes").unwrap();
    api.fault(Fault::Refused);
    let second = follow(api, Some(store));
    // Before anything is heard of the API.
    assert_eq!(second.name("10.244.1.1", seen), "pod/shop/goes");
    assert_eq!(second.who("10.244.1.1", seen).zone.as_deref(), Some("eu-1a"));
    assert!(second.watched.is_enrolled("n1", now()));
    second.api.heal();
    synced(&second);
    // It went while nobody watched; before that it was there.
    assert_eq!(second.name("10.244.1.1", seen), "pod/shop/goes");
    let later = WallTime(now().0 + 60 * SECOND);
    assert_eq!(second.name("10.244.1.1", later), "NotInDirectory");
    assert_eq!(second.name("10.244.1.2", now()), "pod/shop/stays");
}

#[test]
fn what_is_kept_is_counted() {
    let directory = TempDir::new().unwrap();
    let store: Arc<dyn FlowStore> =
        Arc::new(SqliteStore::open(directory.path(), Options::default()).unwrap());
    let api = api_with_nodes();
    api.put(pod("a", "10.244.1.1")).unwrap();
    let followed = follow(api, Some(Arc::clone(&store)));
    synced(&followed);
    assert_eq!(followed.watched.memory().unwrap().lost, 0);
    drop(followed.stop());
    let kept = store.remembered(b"cluster/", b"", 100).unwrap();
    assert!(kept.len() >= 4, "two nodes, a pod, and how far the book went: {}", kept.len());
}
