//! What the kernel tells of addresses, and when.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tempfile::TempDir;
use weir_agent::clock;
use weir_agent::facts::{self, Facts, SINCE_BEFORE};
use weir_proto::Fact;

use crate::space::{Space, ready, run};
use crate::until;

/// A watch in this namespace, until it is dropped.
struct Watch {
    facts: Facts,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn new(saved: &Path) -> Self {
        let (facts, stopping) = (Facts::default(), Arc::default());
        let thread = Some(facts::watch(&facts, saved, &stopping).unwrap());
        Self { facts, stopping, thread }
    }

    fn of(&self, address: &str) -> Vec<Fact> {
        let address: IpAddr = address.parse().unwrap();
        let mut all = self.facts.all().facts;
        all.retain(|fact| fact.address == address);
        all
    }

    fn is_there(&self, address: &str) -> bool {
        self.of(address).last().is_some_and(|fact| fact.to.is_none())
    }

    fn wait(&self, address: &str, there: bool) {
        until(&format!("{address} there: {there}"), || self.is_there(address) == there);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn routes_to_pods_come_and_go_with_exact_times() {
    if !ready("facts") {
        return;
    }
    let saved = TempDir::new().unwrap();
    let pod = Space::new();
    pod.wire("pod0");
    run("ip addr add 10.77.0.1/24 dev pod0");
    run("ip route add 10.77.9.1/32 dev pod0");
    let watch = Watch::new(&saved.path().join("addresses"));
    let [before] = watch.of("10.77.9.1")[..] else { panic!("it is there") };
    assert_eq!((before.from, before.to, before.own), (SINCE_BEFORE, None, false));
    assert!(watch.of("10.77.0.1")[0].own);
    assert!(watch.of("127.0.0.1").is_empty() && watch.of("10.77.0.0").is_empty());

    for (address, family) in [("10.77.9.2", "-4"), ("fd00:77::2", "-6")] {
        let earlier = clock::wall();
        run(&format!("ip {family} route add {address} dev pod0"));
        watch.wait(address, true);
        let later = clock::wall();
        run(&format!("ip {family} route del {address} dev pod0"));
        watch.wait(address, false);
        let last = clock::wall();
        let [fact] = watch.of(address)[..] else { panic!("{:?}", watch.of(address)) };
        assert!(earlier <= fact.from && fact.from <= later, "{fact:?}");
        assert!(later <= fact.to.unwrap() && fact.to.unwrap() <= last, "{fact:?}");
    }
}

#[test]
fn what_leads_elsewhere_is_no_pod_of_this_node() {
    if !ready("facts") {
        return;
    }
    let saved = TempDir::new().unwrap();
    let pod = Space::new();
    pod.wire("pod0");
    run("ip addr add 10.77.0.1/24 dev pod0");
    run("ip link add uplink type bridge");
    run("ip link set uplink up");
    let watch = Watch::new(&saved.path().join("addresses"));
    run("ip route add 10.77.9.3/32 via 10.77.0.2");
    run("ip route add 10.77.9.4/32 dev uplink");
    run("ip route add blackhole 10.77.9.5/32");
    run("ip route add 10.77.8.0/24 dev pod0");
    run("ip route add 10.77.9.6/32 dev pod0");
    watch.wait("10.77.9.6", true);
    for address in ["10.77.9.3", "10.77.9.4", "10.77.9.5", "10.77.8.0"] {
        assert!(watch.of(address).is_empty(), "{address}");
    }
}

#[test]
fn a_pod_whose_device_vanishes_takes_its_address_along() {
    if !ready("facts") {
        return;
    }
    let saved = TempDir::new().unwrap();
    let watch = Watch::new(&saved.path().join("addresses"));
    for round in 0..3 {
        let pod = Space::new();
        pod.wire("pod0");
        run("ip route add 10.77.9.7/32 dev pod0");
        run("ip -6 route add fd00:77::7/128 dev pod0");
        watch.wait("10.77.9.7", true);
        watch.wait("fd00:77::7", true);
        run(if round == 1 { "ip link set pod0 down" } else { "ip link del pod0" });
        watch.wait("10.77.9.7", false);
        watch.wait("fd00:77::7", false);
        run("ip link del pod0 2>/dev/null || true");
    }
    let times = watch.of("10.77.9.7");
    assert_eq!(times.len(), 3);
    assert!(times.windows(2).all(|two| two[0].to.unwrap() <= two[1].from), "{times:?}");
}

#[test]
fn the_next_agent_of_this_boot_knows_since_when() {
    if !ready("facts") {
        return;
    }
    let saved = TempDir::new().unwrap();
    let saved = saved.path().join("addresses");
    let pod = Space::new();
    pod.wire("pod0");
    let since = {
        let watch = Watch::new(&saved);
        run("ip route add 10.77.9.8/32 dev pod0");
        watch.wait("10.77.9.8", true);
        watch.of("10.77.9.8")[0].from
    };
    let watch = Watch::new(&saved);
    assert_eq!(watch.of("10.77.9.8")[0].from, since);
    drop(watch);
    std::fs::write(&saved, "00000000000000000000000000000000\nrouted 10.77.9.8 5\n").unwrap();
    assert_eq!(Watch::new(&saved).of("10.77.9.8")[0].from, SINCE_BEFORE, "another boot's word");
}

#[test]
fn a_flood_of_changes_ends_in_the_right_picture() {
    if !ready("facts") {
        return;
    }
    let saved = TempDir::new().unwrap();
    let pod = Space::new();
    pod.wire("pod0");
    let watch = Watch::new(&saved.path().join("addresses"));
    let mut batch = String::new();
    for number in 0..4_000 {
        let (high, low) = (number / 250, number % 250);
        writeln!(batch, "route add 10.78.{high}.{low}/32 dev pod0").unwrap();
    }
    let file = saved.path().join("batch");
    std::fs::write(&file, batch).unwrap();
    run(&format!("ip -batch {}", file.display()));
    until("all are there", || watch.facts.counts().routed == 4_000);
    run("ip link del pod0");
    until("all are gone", || watch.facts.counts().routed == 0);
    assert_eq!(watch.facts.counts().past, 4_000);
}
