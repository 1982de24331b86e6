//! One connection as every node on its way sees it: it counts once.

use super::*;
use crate::counters::Totals;
use crate::record::RecordFlags;
use crate::state::ConnectionState;
use crate::time::BootTime;
use crate::tuple::Protocol;

/// Nodes `a` (10.1.0.0/16), `b` (10.2.0.0/16), `c` (10.3.0.0/16); their own addresses are
/// 10.0.0.1, 10.0.0.2 and 10.0.0.3. Node `d` (10.4.0.0/16, 10.0.0.4) has no agent.
struct Nodes;

impl Homes for Nodes {
    fn home(&self, address: IpAddr, _: WallTime) -> Home<'_> {
        let IpAddr::V4(v4) = address else { return Home::Outside };
        let node = |number| match number {
            1 => Home::Node("a"),
            2 => Home::Node("b"),
            3 => Home::Node("c"),
            4 => Home::Node("d"),
            _ => Home::Unknown,
        };
        match v4.octets() {
            [10, 0, 0, last] => node(last),
            [10, 96, ..] | [127, ..] => Home::Observer,
            [10, second, ..] => node(second),
            _ => Home::Outside,
        }
    }

    fn enrolled(&self, node: &str, _: WallTime) -> bool {
        node != "d"
    }
}

/// `SOURCE > DESTINATION`, then `via SERVICE` and `as TRANSLATED` where they differ.
fn of(observer: &str, text: &str) -> View {
    let mut words = text.split_whitespace();
    let mut address = || words.next().map(|word| word.parse::<IpAddr>().unwrap());
    let source = address().unwrap();
    let destination = address().unwrap();
    let (mut service, mut translated_source) = (None, None);
    while let Some(word) = words.next() {
        let address = (words.next().unwrap().parse().unwrap(), 80);
        match word {
            "via" => service = Some(address),
            _ => translated_source = Some(address),
        }
    }
    let record = FlowRecord {
        connection: 1,
        zone: 0,
        protocol: Protocol::TCP,
        source,
        source_port: 40_000,
        destination,
        destination_port: 8_080,
        service,
        translated_source,
        start: None,
        interval_from: BootTime(1),
        interval_to: BootTime(2),
        from: Totals::default(),
        to: Totals::default(),
        state: ConnectionState::default(),
        flags: RecordFlags::default(),
    };
    view(&record, WallTime(1), observer, &Nodes)
}

const COUNTS: View = View::Counts { transit: false };

#[test]
fn between_two_nodes_the_source_s_node_counts() {
    assert_eq!(of("a", "10.1.0.5 10.2.0.5"), COUNTS);
    assert_eq!(of("b", "10.1.0.5 10.2.0.5"), View::Second);
    assert_eq!(of("c", "10.1.0.5 10.2.0.5"), View::Foreign);
}

#[test]
fn within_a_node_and_to_the_outside_there_is_one_view() {
    assert_eq!(of("a", "10.1.0.5 10.1.0.6"), COUNTS);
    assert_eq!(of("a", "127.0.0.1 127.0.0.1"), COUNTS);
    assert_eq!(of("a", "10.1.0.5 8.8.8.8 as 10.0.0.1"), COUNTS);
    assert_eq!(of("a", "10.0.0.1 8.8.8.8"), COUNTS);
    assert_eq!(of("a", "8.8.8.8 10.1.0.5 via 10.0.0.1"), COUNTS);
}

#[test]
fn a_service_of_another_node_counts_at_the_source() {
    assert_eq!(of("a", "10.1.0.5 10.2.0.5 via 10.96.0.1"), COUNTS);
    assert_eq!(of("a", "10.1.0.5 10.2.0.5 via 10.96.0.1 as 10.0.0.1"), COUNTS);
    // What the backend's node sees of it, without and with the source's address translated.
    assert_eq!(of("b", "10.1.0.5 10.2.0.5"), View::Second);
    assert_eq!(of("b", "10.0.0.1 10.2.0.5"), View::Second);
}

#[test]
fn from_the_outside_through_a_third_node_its_record_counts_and_is_transit() {
    let through = "8.8.8.8 10.3.0.5 via 10.0.0.2 as 10.0.0.2";
    assert_eq!(of("b", through), View::Counts { transit: true });
    assert_eq!(of("c", "10.0.0.2 10.3.0.5"), View::Second);
    // Sent on under the address of whoever dialled: the backend's node knows both ends.
    assert_eq!(of("b", "8.8.8.8 10.3.0.5 via 10.0.0.2"), View::Second);
    assert_eq!(of("c", "8.8.8.8 10.3.0.5"), COUNTS);
}

#[test]
fn a_pod_through_another_node_s_port_counts_at_home_and_passes_as_transit() {
    assert_eq!(of("a", "10.1.0.5 10.0.0.2"), COUNTS);
    assert_eq!(of("b", "10.1.0.5 10.3.0.5 via 10.0.0.2 as 10.0.0.2"), View::Transit);
    assert_eq!(of("b", "10.1.0.5 10.2.0.5 via 10.0.0.2 as 10.0.0.2"), View::Second);
    assert_eq!(of("c", "10.0.0.2 10.3.0.5"), View::Second);
}

#[test]
fn a_node_without_an_agent_leaves_the_count_to_the_other_end() {
    assert_eq!(of("a", "10.4.0.5 10.1.0.5"), COUNTS);
    assert_eq!(of("a", "10.1.0.5 10.4.0.5"), COUNTS);
    assert_eq!(
        of("b", "10.4.0.5 10.3.0.5 via 10.0.0.2 as 10.0.0.2"),
        View::Counts { transit: true }
    );
}

#[test]
fn an_egress_gateway_does_not_count_what_the_source_s_node_counts() {
    assert_eq!(of("b", "10.1.0.5 8.8.8.8 as 10.0.0.2"), View::Second);
    assert_eq!(of("b", "10.4.0.5 8.8.8.8 as 10.0.0.2"), COUNTS);
}

#[test]
fn who_is_unknown_inside_the_cluster_decides_nothing_yet() {
    assert_eq!(of("a", "10.9.0.5 10.1.0.5"), View::Undecided);
    assert_eq!(of("a", "8.8.8.8 10.9.0.5"), View::Undecided);
    // Counted at the source's node, whoever the destination is.
    assert_eq!(of("a", "10.1.0.5 10.9.0.5"), COUNTS);
    assert_eq!(of("b", "10.1.0.5 10.9.0.5"), View::Second);
}
