use std::sync::Arc;

use weir_flow::attribution::Attributed;
use weir_flow::frame::Header;
use weir_flow::time::SECOND;
use weir_flow::{
    BatchId, BootTime, Class, ConnectionState, Counters, Digest, Endpoint, EndpointKind, Epoch,
    FlowRecord, RecordFlags, Totals, View, WallTime,
};

use super::*;
use crate::Live;
use crate::answer::State;

const NOW: WallTime = WallTime(20 * SECOND);

/// Numbers that look random and are always the same.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % bound
    }
}

fn header(epoch: u128, sequence: u64) -> Header {
    Header {
        id: BatchId { epoch: Epoch(epoch), sequence },
        hour: 0,
        wall_offset_nanos: 0,
        sealed_at: BootTime((10 + sequence) * SECOND),
        boot: 0,
        records: 0,
        digest: Digest(0),
    }
}

/// One with few distinct values, so that there are many ties.
fn record(draw: &mut Draw, number: u64, sequence: u64) -> FlowRecord {
    let small = |draw: &mut Draw| u16::try_from(draw.below(3)).unwrap();
    let protocols = [Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol(47)];
    let (at, bytes) = (10 + sequence, 1_000 * draw.below(4));
    let flags = [RecordFlags::default(), RecordFlags::UNCOUNTED, RecordFlags::CLOSED];
    FlowRecord {
        connection: number,
        zone: 0,
        protocol: protocols[usize::try_from(draw.below(4)).unwrap()],
        source: [10, 0, 0, u8::try_from(draw.below(3)).unwrap()].into(),
        source_port: small(draw),
        destination: [10, 0, 1, u8::try_from(draw.below(3)).unwrap()].into(),
        destination_port: small(draw),
        service: None,
        translated_source: None,
        start: (draw.below(4) > 0).then(|| WallTime(SECOND + draw.below(5) * 400_000)),
        interval_from: BootTime((at - 1) * SECOND),
        interval_to: BootTime(at * SECOND),
        from: Totals::default(),
        to: Totals { sent: Counters { packets: 1, bytes }, received: Counters::default() },
        state: ConnectionState::from_code(u8::try_from(draw.below(30)).unwrap()),
        flags: flags[usize::try_from(draw.below(3)).unwrap()],
    }
}

/// One table with everything, and the same nodes spread over three.
fn tables(draw: &mut Draw) -> (Live, [Live; 3]) {
    let (whole, parts) = (Live::default(), [(); 3].map(|()| Live::default()));
    for node in 0..5_u64 {
        let part = &parts[usize::try_from(draw.below(3)).unwrap()];
        for sequence in 1..=3 {
            let records: Vec<FlowRecord> =
                (0..15).map(|number| record(draw, number, sequence)).collect();
            for live in [&whole, part] {
                let name = ["a", "a-b", "b.c", "b", "c"][usize::try_from(node).unwrap()];
                let mut batch = live.take(name, &header(node.into(), sequence), 0).unwrap();
                for record in &records {
                    batch.record(record, &ends(record));
                }
                batch.finish_tick();
            }
        }
    }
    (whole, parts)
}

fn ends(record: &FlowRecord) -> Attributed {
    let bare = |address| Arc::new(Endpoint::bare(EndpointKind::Local, address));
    Attributed {
        source: bare(record.source),
        destination: bare(record.destination),
        class: Class::SameNode,
        service: None,
        view: View::ONLY,
    }
}

#[test]
fn several_servers_pages_are_the_pages_of_one() {
    for seed in 0..20 {
        let (whole, parts) = tables(&mut Draw(seed));
        for sort in ConnectionSort::ALL {
            for (offset, limit) in [(0, 1), (0, 200), (3, 10), (40, 7), (100, 5)] {
                let question = ConnectionsQuestion { sort, offset, limit, ..Default::default() };
                let all =
                    ConnectionsQuestion { offset: 0, limit: offset + limit, ..question.clone() };
                let answers = parts.iter().map(|live| live.connections(&all, NOW));
                let merged = connections(&question, answers);
                assert_eq!(merged, whole.connections(&question, NOW), "{seed} {sort:?} {offset}");
            }
        }
    }
}

#[test]
fn several_servers_rates_are_the_rates_of_one() {
    let by = ["node", "protocol", "source.address", "destination.port"];
    for seed in 0..20 {
        let (whole, parts) = tables(&mut Draw(seed));
        for fields in 0..16_usize {
            let chosen = by.iter().enumerate().filter(|(place, _)| fields >> place & 1 == 1);
            let by: Vec<Field> = chosen.map(|(_, name)| Field::parse(name).unwrap()).collect();
            for limit in [1, 4, 1_000] {
                let question = RatesQuestion { by: by.clone(), limit, ..Default::default() };
                let all = RatesQuestion { limit: 1_000, ..question.clone() };
                let merged = rates(&question, parts.iter().map(|live| live.rates(&all, NOW)));
                assert_eq!(merged, whole.rates(&question, NOW), "{seed} {by:?} {limit}");
            }
        }
    }
}

#[test]
fn a_node_is_as_whoever_heard_it_last_says() {
    let said = |node: &str, silent_seconds, ticks, state| NodeStatus {
        node: node.to_owned(),
        silent_seconds,
        ticks,
        state,
        ..NodeStatus::default()
    };
    let one = vec![
        said("n1", Some(600), 9, State::Stalled),
        said("n2", Some(1), 5, State::Reading),
        said("n3", None, 5, State::Reading),
    ];
    let other = vec![
        said("n1", Some(2), 3, State::Reading),
        said("n2", Some(1), 6, State::Reading),
        said("n3", Some(700), 1, State::Stalled),
        said("n4", Some(700), 1, State::Stalled),
    ];
    for answers in [[one.clone(), other.clone()], [other, one]] {
        let merged = nodes(answers.into_iter());
        let told: Vec<_> = merged.iter().map(|said| (said.node.as_str(), said.ticks)).collect();
        assert_eq!(told, [("n1", 3), ("n2", 6), ("n3", 1), ("n4", 1)]);
    }
}
