use proptest::prelude::*;

use super::links::LinkCounters;
use super::*;

const ETHERNET: u16 = 1;
const LOOPBACK: u16 = 772;

/// An interface that received so many packets and bytes, and sent none.
fn link(index: u32, kind: &str, master: Option<u32>, received: (u64, u64)) -> Link {
    Link {
        index,
        name: format!("{kind}{index}"),
        hardware: ETHERNET,
        master,
        kind: kind.to_owned(),
        counters: LinkCounters {
            received_packets: received.0,
            received_bytes: received.1,
            ..LinkCounters::default()
        },
    }
}

fn loopback(packets: u64, bytes: u64) -> Link {
    let mut loopback = link(1, "", None, (packets, bytes));
    loopback.hardware = LOOPBACK;
    loopback.counters.sent_packets = packets;
    loopback.counters.sent_bytes = bytes;
    loopback
}

fn stack(received: u64, sent: u64, delivered: u64, forwarded: u64) -> Stack {
    Stack {
        received_octets: received,
        sent_octets: sent,
        delivered_packets: delivered,
        forwarded_packets: forwarded,
        forwarded_twice: false,
    }
}

fn moved(stack: &Stack, links: &[Link]) -> Moved {
    Moved::new(stack, links, 0, 0)
}

/// Figures of real transfers of 20 MiB on Linux 6.18, and what conntrack counted in each.
#[test]
fn the_estimate_is_what_conntrack_counted() {
    let check = |name: &str, moved: &Moved, conntrack: u64| {
        let expected = moved.expected_l3_bytes();
        assert!(expected.abs_diff(conntrack) < conntrack / 1_000, "{name}: {expected} {conntrack}");
        assert_eq!(moved.bypassed, 0, "{name}");
    };
    let looped = moved(&stack(21_006_324, 20_994_936, 669, 0), &[loopback(669, 21_006_324)]);
    check("loopback", &looped, 20_994_936);

    let out = [link(2, "veth", None, (101, 6_674))];
    check("to outside", &moved(&stack(5_260, 20_989_832, 101, 0), &out), 20_995_092);

    let routed = [link(2, "veth", None, (334, 22_028)), link(3, "veth", None, (469, 21_002_482))];
    check("routed", &moved(&stack(21_013_136, 21_013_136, 0, 800), &routed), 21_013_136);

    let mut ports = vec![
        link(2, "bridge", None, (7, 444)),
        link(3, "veth", Some(2), (423, 21_520_754)),
        link(4, "veth", Some(2), (227, 15_390)),
    ];
    let bridged = moved(&stack(0, 0, 0, 0), &ports);
    check("bridged", &bridged, 21_526_572);
    assert_eq!(bridged.bridges.len(), 1);
    assert!(bridged.interfaces.is_empty());

    // What a bridge passes up is not bridged.
    ports = vec![link(2, "bridge", None, (115, 5_988)), link(3, "veth", Some(2), (115, 7_598))];
    let to_pod = moved(&stack(5_988, 20_990_820, 115, 0), &ports);
    check("from here to a bridged pod", &to_pod, 20_996_808);
    assert_eq!(to_pod.bridged, 0);
}

#[test]
fn older_kernels_put_forwarded_octets_in_twice() {
    let routed = Stack { forwarded_twice: true, ..stack(1_000_000, 2_000_000, 0, 800) };
    let moved = moved(&routed, &[link(2, "veth", None, (800, 1_011_200))]);
    assert_eq!(moved.expected_bounds(), (1_000_000, 1_000_000));
}

#[test]
fn a_datapath_past_the_ip_stack_is_seen_and_headers_are_not_one() {
    let card = |bytes| [link(2, "", None, (1_000, bytes))];
    let seen = stack(1_000_000, 0, 1_000, 0);
    // Headers that GRO removes.
    assert_eq!(moved(&seen, &card(1_014_000 + 60_000)).bypassed, 0);
    let past = moved(&seen, &card(1_014_000 + 5_000_000));
    assert_eq!(past.bypassed, 5_000_000);
    assert_eq!(past.expected_l3_bytes(), 6_000_000);
    assert_eq!(past.interfaces, [("2".to_owned(), 6_000_000)]);
    // The same packets on a VLAN of that card are not more packets.
    let mut stacked = card(1_014_000 + 5_000_000).to_vec();
    stacked.push(link(3, "vlan", None, (1_000, 1_014_000)));
    assert_eq!(moved(&seen, &stacked).bypassed, 5_000_000);
}

fn counters(boot: &str, received: u64, links: Vec<Link>) -> InterfaceCounters {
    let stack = stack(received, 0, received / 100, 0);
    InterfaceCounters { boot: boot.to_owned(), stack, links, unread: 0 }
}

#[test]
fn only_what_is_comparable_is_compared() {
    let one = |packets| vec![link(2, "veth", None, (packets, packets * 114))];
    let earlier = counters("a", 1_000, one(10));
    let later = counters("a", 3_000, one(30));
    let moved = later.difference(&earlier).unwrap();
    assert_eq!(moved.expected_l3_bytes(), 2_000);
    assert_eq!(moved.upper_bound_bytes(), Some(20 * 114));

    // Another boot; an interface's counters went backwards; the stack's did.
    assert_eq!(counters("b", 3_000, one(30)).difference(&earlier), None);
    assert_eq!(counters("a", 3_000, one(9)).difference(&earlier), None);
    assert_eq!(counters("a", 999, one(30)).difference(&earlier), None);

    // A new interface began at zero; one that is gone took its last bytes with it.
    let mut two = one(30);
    two.push(link(3, "veth", None, (1, 114)));
    let grown = counters("a", 3_000, two).difference(&later).unwrap();
    assert_eq!(grown.upper_bound_bytes(), Some(114));
    let other = vec![link(3, "veth", None, (1, 114))];
    let gone = counters("a", 3_000, other).difference(&later).unwrap();
    assert_eq!(gone.upper_bound_bytes(), None);
    assert_eq!(counters("a", 3_000, vec![]).difference(&later).unwrap().upper_bound_bytes(), None);
}

#[test]
fn the_kernels_tables_are_read_by_name() {
    let snmp = "Ip: Forwarding InDelivers ForwDatagrams OutTransmits\nIp: 1 5 7 9\nIcmp: InMsgs\n";
    let netstat = "TcpExt: A\nTcpExt: 1\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 100 200\n";
    let six = "Ip6InDelivers  \t1\nIp6InOctets \t10\nIp6OutOctets 20\nIp6OutForwDatagrams\t2\n";
    let expected = stack(110, 220, 6, 9);
    assert_eq!(Stack::parse(snmp, netstat, six), Ok(expected));
    assert_eq!(Stack::parse(snmp, netstat, "").unwrap().received_octets, 100);
    let older = snmp.replace("OutTransmits", "OutDiscards");
    assert!(Stack::parse(&older, netstat, six).unwrap().forwarded_twice);
    assert_eq!(Stack::parse(snmp, "", six), Err("InOctets"));
    assert_eq!(Stack::parse("Ip:\n", netstat, six), Err("InDelivers"));
}

#[test]
fn this_machine_can_be_read() {
    let mut interfaces = Interfaces::open().unwrap();
    let counters = interfaces.read().unwrap();
    assert!(counters.links.iter().any(Link::is_loopback), "{counters:?}");
    assert_eq!(counters.unread, 0);
    assert_eq!(InterfaceCounters::from_text(&counters.to_text()).as_ref(), Ok(&counters));
}

#[test]
fn damaged_text_is_refused_by_line() {
    let good =
        counters("a", 3_000, vec![loopback(1, 2), link(2, "veth", Some(9), (3, 4))]).to_text();
    let line = |text: &str| InterfaceCounters::from_text(text).unwrap_err().line;
    assert_eq!(line(""), 1);
    assert_eq!(line(&good.replace(" counters 1", " counters 2")), 1);
    assert_eq!(line(good.lines().next().unwrap()), 2);
    assert_eq!(line(&good.replace("3000 ", "-3 ")), 3);
    assert_eq!(line(&good.replace("2 1 9", "1 1 9")), 5);
    assert_eq!(line(&good.replace(" veth veth2", "")), 5);
}

/// Packets of one way through the machine: their number and octets, within what packets can be.
fn way() -> impl Strategy<Value = (u64, u64)> {
    (0_u64..10_000, 20_u64..65_000).prop_map(|(packets, size)| (packets, packets * size))
}

proptest! {
    #[test]
    fn bounds_hold_the_truth_and_a_hint_finds_it(
        forwarded in way(), delivered in way(), sent in way(), looped in way(), twice: bool,
    ) {
        let times = if twice { 2 } else { 1 };
        let seen = Stack {
            received_octets: forwarded.1 + delivered.1 + looped.1,
            sent_octets: forwarded.1 * times + sent.1 + looped.1,
            delivered_packets: delivered.0 + looped.0,
            forwarded_packets: forwarded.0,
            forwarded_twice: twice,
        };
        let moved = moved(&seen, &[loopback(looped.0, looped.1)]);
        let truth = forwarded.1 + delivered.1 + sent.1 + looped.1;
        let (least, most) = moved.expected_bounds();
        prop_assert!((least..=most).contains(&truth), "{truth} in {least}..={most}");
        prop_assert!((least..=most).contains(&moved.expected_l3_bytes()));
        prop_assert_eq!(moved.expected_with(sent.1 + looped.1), truth);
        if forwarded.0 == 0 || delivered.0 == 0 {
            prop_assert_eq!(moved.expected_l3_bytes(), truth);
        }
    }

    #[test]
    fn no_text_breaks_the_reader(text: String, cut in 0_usize..400) {
        let _unused = InterfaceCounters::from_text(&text);
        let good = counters("a", 3, vec![loopback(1, 2), link(2, "", None, (3, 4))]).to_text();
        let _unused = InterfaceCounters::from_text(good.get(..cut).unwrap_or(&good));
    }
}
