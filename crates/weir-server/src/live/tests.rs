use std::sync::Arc;

use weir_flow::attribution::Attributed;
use weir_flow::frame::Header;
use weir_flow::time::SECOND;
use weir_flow::{
    BatchId, BootTime, Class, ConnectionState, Counters, Digest, Endpoint, EndpointField,
    EndpointKind, Epoch, Field, Filter, FlowRecord, Protocol, RecordFlags, Side, Totals, View,
    WallTime,
};

use super::*;
use crate::answer::{ConnectionRow, ConnectionSort};

const NODE: &str = "box";

/// A batch read `tick` seconds after 1970.
fn header(sequence: u64, tick: u64) -> Header {
    Header {
        id: BatchId { epoch: Epoch(1), sequence },
        hour: 0,
        wall_offset_nanos: 0,
        sealed_at: BootTime(tick * SECOND),
        boot: 0,
        records: 0,
        digest: Digest(0),
    }
}

fn totals(sent: u64, received: u64) -> Totals {
    let counters = |bytes| Counters { packets: bytes / 100, bytes };
    Totals { sent: counters(sent), received: counters(received) }
}

/// Connection `number`: `from` to `to` bytes sent, in these seconds.
fn record(number: u64, interval: (u64, u64), from: u64, to: u64) -> FlowRecord {
    FlowRecord {
        connection: number,
        zone: 0,
        protocol: Protocol::TCP,
        source: [10, 0, 0, 1].into(),
        source_port: 40_000 + u16::try_from(number).unwrap(),
        destination: [10, 0, 0, 2].into(),
        destination_port: 443,
        service: None,
        translated_source: None,
        start: Some(WallTime(SECOND)),
        interval_from: BootTime(interval.0 * SECOND),
        interval_to: BootTime(interval.1 * SECOND),
        from: totals(from, 0),
        to: totals(to, 0),
        state: ConnectionState::from_code(19),
        flags: RecordFlags::default(),
    }
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

fn take(live: &Live, header: &Header, records: &[FlowRecord]) -> bool {
    let Some(mut batch) = live.take(NODE, header, 0) else { return false };
    for record in records {
        batch.record(record, &ends(record));
    }
    batch.finish_tick();
    true
}

fn ask(live: &Live, now: u64, question: ConnectionsQuestion) -> Connections {
    live.connections(&ConnectionsQuestion { limit: 100, ..question }, WallTime(now * SECOND))
}

fn rows(live: &Live, now: u64) -> Vec<ConnectionRow> {
    ask(live, now, ConnectionsQuestion::default()).connections
}

#[test]
fn a_rate_is_what_moved_over_the_measured_time() {
    let live = Live::default();
    take(&live, &header(1, 10), &[record(1, (10, 10), 500, 500)]);
    assert_eq!(rows(&live, 10)[0].bytes_sent_per_second, None, "one reading measures nothing");

    take(&live, &header(2, 14), &[record(1, (10, 14), 500, 4_500)]);
    let answer = ask(&live, 14, ConnectionsQuestion::default());
    assert_eq!(answer.interval_seconds, Some(4.0));
    assert_eq!(answer.connections[0].bytes_sent_per_second, Some(1_000.0));
    assert_eq!(answer.connections[0].bytes_sent, Some(4_500));
    assert_eq!(answer.bytes_per_second, Some(1_000.0));

    // Not told of in the next tick: it moved nothing in it.
    take(&live, &header(3, 16), &[]);
    let row = &rows(&live, 18)[0];
    assert_eq!((row.bytes_sent_per_second, row.idle_seconds), (Some(0.0), Some(4.0)));
}

#[test]
fn a_short_life_moved_nothing_in_the_rest_of_its_tick() {
    let live = Live::default();
    take(&live, &header(1, 10), &[]);
    let short = RecordFlags::OPENED.with(RecordFlags::CLOSED);
    take(&live, &header(2, 20), &[FlowRecord { flags: short, ..record(1, (12, 13), 0, 1_000) }]);
    let row = &rows(&live, 20)[0];
    assert_eq!(row.bytes_sent_per_second, Some(100.0));
    assert_eq!(row.state.as_deref(), Some("ended"));
}

#[test]
fn a_tick_in_several_batches_is_one_tick_and_none_is_taken_twice() {
    let live = Live::default();
    take(&live, &header(1, 10), &[]);
    assert!(take(&live, &header(2, 12), &[record(1, (10, 12), 0, 200)]));
    assert!(take(&live, &header(3, 12), &[record(2, (10, 12), 0, 400)]));
    assert!(!take(&live, &header(3, 12), &[record(2, (10, 12), 0, 400)]), "asked for again");
    let answer = ask(&live, 12, ConnectionsQuestion::default());
    assert_eq!(answer.bytes_per_second, Some(300.0));
    take(&live, &header(4, 11), &[record(1, (10, 11), 0, 1)]);
    assert_eq!(ask(&live, 12, ConnectionsQuestion::default()), answer, "a backlog is not now");
}

#[test]
fn what_ended_in_a_batch_that_comes_late_is_gone() {
    let live = Live::default();
    let all: Vec<FlowRecord> = (1..=3).map(|number| record(number, (9, 10), 0, 1)).collect();
    take(&live, &header(1, 10), &all);
    take(&live, &header(3, 14), &[record(3, (10, 14), 1, 2)]);
    let closed = FlowRecord { flags: RecordFlags::CLOSED, ..record(1, (10, 12), 1, 2) };
    take(&live, &header(2, 12), &[closed]);
    let numbers: Vec<String> = rows(&live, 14).into_iter().map(|row| row.id).collect();
    assert_eq!(numbers.len(), 2, "{numbers:?}");
    // Nothing is missing: nothing is given up.
    take(&live, &header(4, 60), &[]);
    assert_eq!(rows(&live, 60).len(), 2);
}

#[test]
fn what_was_not_heard_of_since_batches_went_elsewhere_is_given_up() {
    let live = Live::default();
    let all: Vec<FlowRecord> = (1..=3).map(|number| record(number, (9, 10), 0, 1)).collect();
    take(&live, &header(1, 10), &all);
    take(&live, &header(9, 20), &[record(3, (10, 20), 1, 2)]);
    assert_eq!(rows(&live, 20).len(), 3, "they may be late");
    take(&live, &header(10, 41), &[]);
    assert_eq!(rows(&live, 41).len(), 1);
}

#[test]
fn a_node_that_another_server_hears_is_let_go_until_it_is_back() {
    let live = Live::default();
    take(&live, &header(1, 10), &[record(1, (9, 10), 0, 1)]);
    let hold = live.holds().remove(0);
    assert_eq!((hold.first, hold.last, hold.read_at), (1, 1, 10 * SECOND));
    let newer = Hold { last: 2, ..hold.clone() };
    assert!(newer.is_newer_than(&hold) && !newer.is_level_with(&hold));
    live.let_go(&hold);
    assert_eq!(rows(&live, 10).len(), 1, "it has the same");
    live.let_go(&newer);
    assert_eq!((rows(&live, 10).len(), live.holds()), (0, vec![]));
    take(&live, &header(3, 14), &[record(1, (12, 14), 5, 6)]);
    assert_eq!((rows(&live, 14).len(), live.holds()[0].first), (1, 3));
    let hidden = Hidden::from_iter([NODE.to_owned()]);
    let question = ConnectionsQuestion { limit: 9, ..ConnectionsQuestion::default() };
    let (answer, _) = live.connections_without(&hidden, &question, WallTime(14 * SECOND));
    assert_eq!((answer.known, answer.matching, answer.at), (0, 0, None));
}

#[test]
fn what_ended_lingers_and_goes_and_what_is_forgotten_goes_at_once() {
    let live = Live::default();
    take(&live, &header(1, 10), &[record(1, (9, 10), 0, 1), record(2, (9, 10), 0, 1)]);
    let closed = FlowRecord { flags: RecordFlags::CLOSED, ..record(1, (10, 12), 1, 2) };
    take(&live, &header(2, 12), &[closed]);
    assert_eq!(rows(&live, 12).len(), 2);
    let mut batch = live.take(NODE, &header(3, 14), 0).unwrap();
    batch.forget(2);
    batch.finish_tick();
    drop(batch);
    assert_eq!(rows(&live, 14).len(), 1);
    take(&live, &header(4, 22), &[]);
    assert_eq!(rows(&live, 22).len(), 0);
}

#[test]
fn one_too_many_is_left_out_and_counted_unless_an_ended_one_makes_room() {
    let live = Live::with_limit(2);
    let three = [1, 2, 3].map(|number| record(number, (9, 10), 0, number));
    take(&live, &header(1, 10), &three);
    let answer = ask(&live, 10, ConnectionsQuestion::default());
    assert_eq!((answer.known, answer.left_out), (2, 1));

    let closed = FlowRecord { flags: RecordFlags::CLOSED, ..record(1, (10, 12), 1, 2) };
    take(&live, &header(2, 12), &[closed, record(3, (10, 12), 3, 4)]);
    let answer = ask(&live, 12, ConnectionsQuestion::default());
    assert_eq!((answer.known, answer.left_out), (2, 0));
    assert!(answer.connections.iter().all(|row| row.state.as_deref() == Some("ESTABLISHED")));
}

#[test]
fn nothing_uncounted_is_zero() {
    let live = Live::default();
    take(&live, &header(1, 10), &[]);
    let uncounted = FlowRecord { flags: RecordFlags::UNCOUNTED, ..record(1, (10, 12), 0, 0) };
    take(&live, &header(2, 12), &[uncounted]);
    let row = &rows(&live, 12)[0];
    assert_eq!((row.bytes_sent, row.bytes_sent_per_second), (None, None));
    assert_eq!((&row.state, row.idle_seconds), (&None, None), "only its beginning is told");
    assert_eq!(ask(&live, 12, ConnectionsQuestion::default()).bytes_per_second, None);
    let by = vec![Field::DestinationPort];
    let rates =
        live.rates(&RatesQuestion { by, limit: 9, ..RatesQuestion::default() }, WallTime(0));
    assert_eq!((rates.rates[0].connections, rates.rates[0].connections_uncounted), (1, 1));
    assert_eq!(rates.rates[0].bytes_sent_per_second, None);
}

#[test]
fn a_silent_node_has_no_rates() {
    let live = Live::default();
    take(&live, &header(1, 10), &[]);
    take(&live, &header(2, 12), &[record(1, (10, 12), 0, 200)]);
    assert_eq!(rows(&live, 26)[0].bytes_sent_per_second, Some(100.0));
    assert_eq!(rows(&live, 40)[0].bytes_sent_per_second, None);
}

#[test]
fn a_new_epoch_begins_anew() {
    let live = Live::default();
    take(&live, &header(1, 10), &[record(1, (9, 10), 0, 1)]);
    let mut anew = header(1, 12);
    anew.id.epoch = Epoch(2);
    take(&live, &anew, &[record(2, (12, 12), 5, 5)]);
    let rows = rows(&live, 12);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].bytes_sent_per_second, None);
}

#[test]
fn every_order_pages_without_losing_or_repeating_one() {
    let live = Live::default();
    take(&live, &header(1, 10), &[]);
    let records: Vec<FlowRecord> =
        (0..3_000).map(|number| record(number, (10, 12), 0, number % 7 * 100)).collect();
    take(&live, &header(2, 12), &records);
    for sort in ConnectionSort::ALL {
        let page = |offset, limit| {
            let question = ConnectionsQuestion { sort, offset, limit, ..Default::default() };
            live.connections(&question, WallTime(12 * SECOND)).connections
        };
        let whole = page(0, 5_000);
        let pieces: Vec<_> = (0..12).flat_map(|part| page(part * 250, 250)).collect();
        assert_eq!(whole.len(), 3_000);
        assert!(whole == pieces, "{}", sort.name());
        assert_eq!((page(3_000, 5), page(0, 0)), (vec![], vec![]));
    }
    let by_rate = ask(&live, 12, ConnectionsQuestion::default()).connections;
    assert!(by_rate.is_sorted_by(|a, b| a.bytes_sent_per_second >= b.bytes_sent_per_second));
}

#[test]
fn filters_states_and_groups_choose_and_sum() {
    let live = Live::default();
    take(&live, &header(1, 10), &[]);
    let other = FlowRecord {
        destination_port: 53,
        protocol: Protocol::UDP,
        state: ConnectionState::REPLIED,
        ..record(3, (10, 12), 0, 50)
    };
    let records = [record(1, (10, 12), 0, 100), record(2, (10, 12), 0, 300), other];
    take(&live, &header(2, 12), &records);

    let filtered = |filter: &str, state: Option<&str>| {
        let filter = Filter::parse(filter).unwrap();
        let state = state.map(str::to_owned);
        ask(&live, 12, ConnectionsQuestion { filter, state, ..Default::default() }).matching
    };
    assert_eq!(filtered("port = 443", None), 2);
    assert_eq!(filtered("", Some("established")), 2);
    assert_eq!(filtered("port = 443", Some("replied")), 0);

    let by = vec![Field::DestinationPort, Field::Service];
    let question = RatesQuestion { by, limit: 9, ..RatesQuestion::default() };
    let rates = live.rates(&question, WallTime(12 * SECOND)).rates;
    let sums: Vec<_> = rates
        .iter()
        .map(|row| (row.fields["destination.port"].as_deref(), row.connections))
        .collect();
    assert_eq!(sums, [(Some("443"), 2), (Some("53"), 1)]);
    assert_eq!(rates[0].fields["service"], None);
    assert_eq!(rates[0].bytes_sent_per_second, Some(200.0));
}

#[test]
fn equal_ends_are_one_group_and_groups_are_cut_in_their_order() {
    let live = Live::default();
    take(&live, &header(1, 10), &[]);
    // Each record has endpoints of its own, equal or not.
    let records: Vec<FlowRecord> = (0..9)
        .map(|number| {
            let source = [10, 0, 0, u8::try_from(9 - number % 3).unwrap()].into();
            FlowRecord { source, ..record(number, (10, 12), 0, 100) }
        })
        .collect();
    take(&live, &header(2, 12), &records);
    let by = [Field::Endpoint(Side::Source, EndpointField::Name), Field::IpVersion];
    let rates = |limit| {
        let question = RatesQuestion { by: by.to_vec(), limit, ..RatesQuestion::default() };
        live.rates(&question, WallTime(12 * SECOND))
    };
    let names = |rates: &Rates| -> Vec<Option<String>> {
        rates.rates.iter().map(|row| row.fields["source.name"].clone()).collect()
    };
    let all = rates(9);
    let expected = ["10.0.0.7", "10.0.0.8", "10.0.0.9"].map(|name| Some(name.to_owned()));
    assert_eq!((names(&all), all.more), (expected.to_vec(), false));
    assert!(all.rates.iter().all(|row| row.connections == 3));
    let cut = rates(2);
    assert_eq!((names(&cut), cut.more), (expected[..2].to_vec(), true));

    let question = ConnectionsQuestion { sort: ConnectionSort::Source, ..Default::default() };
    let rows = ask(&live, 12, question).connections;
    let places: Vec<_> = rows.iter().map(|row| (&row.source.name, row.source.port)).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn a_tick_is_shown_when_it_is_whole() {
    let live = Live::default();
    take(&live, &header(1, 10), &[]);
    take(&live, &header(2, 12), &[record(1, (10, 12), 0, 200), record(2, (10, 12), 0, 400)]);
    // The next tick comes in two batches; between them nothing of it is shown.
    let mut first = live.take(NODE, &header(3, 14), 0).unwrap();
    let more = record(1, (12, 14), 200, 1_200);
    first.record(&more, &ends(&more));
    drop(first);
    let answer = ask(&live, 14, ConnectionsQuestion::default());
    assert_eq!(answer.bytes_per_second, Some(300.0));
    take(&live, &header(4, 14), &[record(2, (12, 14), 400, 600)]);
    let answer = ask(&live, 14, ConnectionsQuestion::default());
    assert_eq!(answer.bytes_per_second, Some(600.0));
}

#[test]
fn a_wall_clock_that_is_set_neither_stops_it_nor_bends_a_rate() {
    let live = Live::default();
    let hour = 3_600;
    let at = |sequence, tick, offset: i64, records: &[FlowRecord]| {
        let mut batch = live.take(NODE, &header(sequence, tick), offset).unwrap();
        for record in records {
            batch.record(record, &ends(record));
        }
        batch.finish_tick();
    };
    let offset = |hours: i64| hours * i64::try_from(hour * SECOND).unwrap();
    at(1, 10, offset(2), &[]);
    at(2, 12, offset(2), &[record(1, (10, 12), 0, 200)]);
    for (sequence, hours) in [(3, 1), (4, 5)] {
        let tick = sequence * 2 + 8;
        let moved = record(1, (tick - 2, tick), 200 * sequence, 200 * sequence + 600);
        at(sequence, tick, offset(hours), &[moved]);
        let now = u64::try_from(hours).unwrap() * hour + tick;
        let answer = ask(&live, now, ConnectionsQuestion::default());
        assert_eq!(answer.bytes_per_second, Some(300.0), "{hours} h");
        assert_eq!(answer.interval_seconds, Some(2.0));
    }
}

#[test]
fn after_batches_were_lost_nothing_is_shown_that_may_have_ended_in_them() {
    let live = Live::default();
    take(&live, &header(1, 10), &[record(1, (9, 10), 0, 1), record(2, (9, 10), 0, 1)]);
    live.take(NODE, &header(5, 20), 0).unwrap().missing();
    take(&live, &header(6, 22), &[record(2, (10, 22), 1, 5)]);
    assert_eq!(rows(&live, 22).len(), 1);
}
