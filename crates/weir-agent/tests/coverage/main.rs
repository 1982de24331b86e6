//! Coverage against the real kernel: real traffic through namespaces of each test's own. They need
//! root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(clippy::print_stdout, reason = "the ratios seen are worth reading when a test fails")]

mod space;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use weir_agent::coverage::{Cause, Counted, Coverage, Facts, diagnose};
use weir_agent::interfaces::{InterfaceCounters, Interfaces, Moved};
use weir_conntrack::tracking::Tracking;
use weir_conntrack::{Dump, sysctl};
use weir_flow::BootTime;
use weir_flow::time::SECOND;

use self::space::{Space, ready, run};

/// Bytes of one transfer.
const TRANSFER: usize = 8 << 20;
const NODE: [&str; 2] = ["10.77.1.1", "10.77.2.1"];
const ENDS: [&str; 2] = ["10.77.1.2", "10.77.2.2"];

/// A node with two others, each on a wire of its own. The calling thread is the node.
fn routed() -> [Space; 2] {
    let ends = [Space::new(), Space::new()];
    for (index, end) in ends.iter().enumerate() {
        end.wire(&format!("wire{index}"));
        run(&format!("ip addr add {}/24 dev wire{index}", NODE[index]));
        end.run(&format!("ip addr add {}/24 dev eth0", ENDS[index]));
        end.run(&format!("ip route add default via {}", NODE[index]));
    }
    run("sysctl -qw net.ipv4.ip_forward=1");
    ends
}

/// Sends from one to the other, waits until both have closed.
fn transfer(from: &Space, to: &Space, address: &str) {
    let address = SocketAddr::new(address.parse().unwrap(), 5001);
    let receiver = to.start(move || receive(&TcpListener::bind(address).unwrap()));
    // Until the listener stands a connection is refused.
    from.start(move || send(address)).recv().unwrap();
    assert_eq!(receiver.recv().unwrap(), TRANSFER);
    settle();
}

/// The last acknowledgements run after `close` returns.
fn settle() {
    thread::sleep(Duration::from_millis(100));
}

fn receive(listener: &TcpListener) -> usize {
    let mut stream = listener.accept().unwrap().0;
    let (mut buffer, mut sum) = (vec![0; 1 << 18], 0);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return sum,
            bytes => sum += bytes,
        }
    }
}

fn send(address: SocketAddr) {
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(5));
    let mut attempts = (0..100).filter_map(|_| {
        connect().map_err(|_refused| thread::sleep(Duration::from_millis(20))).ok()
    });
    attempts.next().unwrap().write_all(&vec![7; TRANSFER]).unwrap();
}

/// A transfer within the node.
fn transfer_here(address: &str) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let receiver = thread::spawn(move || receive(&listener));
    send(address);
    assert_eq!(receiver.join().unwrap(), TRANSFER);
    settle();
}

/// What the whole table holds.
fn table() -> Counted {
    let mut dump = Dump::open().unwrap();
    dump.start().unwrap();
    let own: Vec<IpAddr> = NODE.iter().map(|address| address.parse().unwrap()).collect();
    let is_own = |address: IpAddr| address.is_loopback() || own.contains(&address);
    let mut counted = Counted { from_here: Some(0), ..Counted::default() };
    while let Some(chunk) = dump.next_chunk().unwrap() {
        chunk.entries(|sample| {
            let Some(totals) = sample.totals else {
                counted.entries_without_counters += 1;
                return;
            };
            counted.bytes += totals.bytes();
            let mut from_here = 0;
            if is_own(sample.original.source) {
                from_here += totals.sent.bytes;
            }
            if is_own(sample.reply.source) {
                from_here += totals.received.bytes;
            }
            counted.from_here = counted.from_here.map(|sum| sum + from_here);
        });
    }
    counted
}

/// What `traffic` moved and what conntrack counted of it.
struct Seen {
    counted: Counted,
    moved: Moved,
}

impl Seen {
    fn of(traffic: impl FnOnce()) -> Self {
        let mut interfaces = Interfaces::open().unwrap();
        let (before, earlier) = (table(), interfaces.read().unwrap());
        traffic();
        let (after, later) = (table(), interfaces.read().unwrap());
        // As the agent does across its own restart.
        let earlier = InterfaceCounters::from_text(&earlier.to_text()).unwrap();
        let counted = Counted {
            bytes: after.bytes - before.bytes,
            from_here: Some(after.from_here.unwrap() - before.from_here.unwrap()),
            ..after
        };
        let moved = later.difference(&earlier).unwrap();
        assert!(moved.upper_bound_bytes().unwrap() >= counted.bytes);
        Self { counted, moved }
    }

    fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::default();
        coverage.add(BootTime(100 * SECOND), self.counted, &self.moved);
        coverage
    }

    /// The tolerance is for IPv6 neighbour discovery, which is not tracked.
    fn assert_full(&self, what: &str) {
        let ratio = self.coverage().ratio().unwrap();
        println!("{what}: coverage {ratio:.6}, {:?}", self.counted);
        assert!((0.998..=1.002).contains(&ratio), "{what}: {ratio} {:?}", self.moved);
        assert!(!self.coverage().is_low());
    }

    /// Nothing of the transfer was counted; the names of the causes are these.
    fn assert_missed(&self, what: &str, names: &[&str]) -> Vec<Cause> {
        let coverage = self.coverage();
        let ratio = coverage.ratio().unwrap();
        println!("{what}: coverage {ratio:.6}");
        assert!(ratio < 0.01 && coverage.is_low(), "{what}: {ratio} {:?}", self.counted);
        let causes = diagnose(&Facts::gather(self.counted, self.moved.clone()).unwrap());
        let found: Vec<_> = causes.iter().map(Cause::name).collect();
        assert_eq!(found, names, "{what}");
        causes
    }
}

fn count_and_track() {
    Tracking::open().unwrap().install().unwrap();
    assert!(sysctl::enable().refused.is_empty());
}

#[test]
fn routed_traffic_is_covered_when_tracked_and_missed_when_idle() {
    if !ready("routed coverage") {
        return;
    }
    let [pod, outside] = routed();
    assert!(sysctl::enable().refused.is_empty());
    let idle = Seen::of(|| transfer(&pod, &outside, ENDS[1]));
    let causes = idle.assert_missed("idle", &["tracking_idle"]);
    assert_eq!(causes[0].remedy().unwrap(), "weir up --activate-conntrack");

    count_and_track();
    Seen::of(|| transfer(&pod, &outside, ENDS[1])).assert_full("pod to outside");
    Seen::of(|| transfer(&outside, &pod, ENDS[0])).assert_full("outside to pod");
}

#[test]
fn a_node_that_forwards_and_speaks_itself_is_covered() {
    if !ready("mixed coverage") {
        return;
    }
    let [pod, outside] = routed();
    count_and_track();
    let here = Space::current();
    let mixed = Seen::of(|| {
        transfer(&pod, &outside, ENDS[1]);
        transfer(&here, &outside, ENDS[1]);
        transfer(&outside, &here, NODE[1]);
        transfer_here("127.0.0.1");
        transfer_here(NODE[0]);
    });
    mixed.assert_full("forwarded, from here, to here and within");
    let (least, most) = mixed.moved.expected_bounds();
    println!("without a hint: {least}..={most}, guess {}", mixed.moved.expected_l3_bytes());
    assert!((least..=most).contains(&mixed.counted.bytes));
}

#[test]
fn loopback_is_covered_and_accounting_that_is_off_is_named() {
    if !ready("loopback coverage") {
        return;
    }
    Tracking::open().unwrap().install().unwrap();
    run("sysctl -qw net.netfilter.nf_conntrack_acct=0");
    let off = Seen::of(|| transfer_here("127.0.0.1"));
    off.assert_missed("uncounted", &["accounting_off", "entries_without_counters"]);
    count_and_track();
    Seen::of(|| transfer_here("127.0.0.1")).assert_full("loopback");
    Seen::of(|| transfer_here("::1")).assert_full("IPv6 loopback");
}

#[test]
fn rules_that_exempt_are_named_and_their_remedy_helps() {
    if !ready("coverage under notrack") {
        return;
    }
    let [pod, outside] = routed();
    count_and_track();
    run("nft add table inet hole");
    run("nft add chain inet hole pre { type filter hook prerouting priority -300 ; }");
    run("nft add rule inet hole pre tcp dport 5001 notrack");
    run("nft add rule inet hole pre tcp sport 5001 notrack");
    let holed = Seen::of(|| transfer(&pod, &outside, ENDS[1]));
    for _ in 0..2 {
        let causes = holed.assert_missed("exempt", &["notrack_rules"]);
        assert!(causes[0].to_string().contains("inet hole pre"), "{}", causes[0]);
        run(&causes[0].remedy().unwrap());
    }
    Seen::of(|| transfer(&pod, &outside, ENDS[1])).assert_full("no longer exempt");
}

#[test]
fn a_bridge_that_is_not_tracked_is_named_and_its_remedy_helps() {
    if !ready("bridged coverage") {
        return;
    }
    if sysctl::Settings::read().bridged_ipv4.is_none() {
        space::say("SKIPPED: this kernel has no br_netfilter");
        return;
    }
    run("ip link add cni0 type bridge mcast_snooping 0");
    run("ip link set cni0 up");
    run("ip addr add 10.77.0.1/16 dev cni0");
    let pods = [Space::new(), Space::new()];
    for (index, pod) in pods.iter().enumerate() {
        pod.wire(&format!("wire{index}"));
        run(&format!("ip link set wire{index} master cni0"));
        pod.run(&format!("ip addr add {}/16 dev eth0", ENDS[index]));
    }
    count_and_track();
    run("sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0");
    let bridged = Seen::of(|| transfer(&pods[0], &pods[1], ENDS[1]));
    let causes = bridged.assert_missed("bridged", &["bridge_not_tracked"]);
    assert!(causes[0].to_string().contains("(cni0)"), "{}", causes[0]);
    run(&causes[0].remedy().unwrap());
    Seen::of(|| transfer(&pods[0], &pods[1], ENDS[1])).assert_full("bridged and tracked");
}
