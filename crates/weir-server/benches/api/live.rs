//! The live connections themselves: a page in every order, sums by name, and their memory.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use weir_flow::attribution::Attributed;
use weir_flow::frame::Header;
use weir_flow::time::SECOND;
use weir_flow::{
    BatchId, BootTime, Class, ConnectionState, Counters, Digest, Endpoint, EndpointKind, Epoch,
    Field, Filter, FlowRecord, Protocol, RecordFlags, Totals, View, WallTime,
};
use weir_lab::figures::{at_most, float, inform, kilobytes, thread_cpu};
use weir_server::Live;
use weir_server::answer::{ConnectionSort, ConnectionsQuestion, RatesQuestion};

const CONNECTIONS: u32 = 100_000;
/// One in so many moves in each reading.
const MOVING: u32 = 10;
const UNITS: u32 = 300;
const PEERS: u32 = 3_000;
/// Two readings, seconds of the node's clock.
const READINGS: [u64; 2] = [10, 12];
const ROUNDS: u32 = 31;
/// A picture's share of a second at sixty a second.
const FRAME_MS: f64 = 16.0;

pub(crate) fn measure() -> Result<()> {
    let table = format!("{}k", CONNECTIONS / 1_000);
    let before = kilobytes(std::process::id(), "VmRSS:")?;
    let live = filled();
    let held = kilobytes(std::process::id(), "VmRSS:")?.saturating_sub(before);
    let each = float(held * 1_024) / f64::from(CONNECTIONS);
    inform(&format!("live_resident_{table}"), each, "bytes/connection");

    let now = WallTime(READINGS[1] * SECOND);
    let ask = |question: &ConnectionsQuestion| {
        timed(|| Ok(live.connections(question, now).connections.len()))
    };
    for sort in ConnectionSort::ALL {
        let question = ConnectionsQuestion { sort, limit: 200, ..Default::default() };
        let name = format!("live_page_{table}_by_{}", sort.name());
        at_most(&name, ask(&question)?, "ms_of_cpu", FRAME_MS);
    }
    let filter = Filter::parse("destination.port = 443 and protocol = tcp")?;
    let question = ConnectionsQuestion { filter, limit: 200, ..Default::default() };
    at_most(&format!("live_page_{table}_filtered"), ask(&question)?, "ms_of_cpu", FRAME_MS);

    for by in ["source.name,destination.name", "source.id,destination.id,destination.port", ""] {
        let fields = by.split(',').filter(|name| !name.is_empty()).map(Field::parse);
        let by: Vec<Field> = fields.collect::<Option<_>>().context("fields that there are")?;
        let name = format!("live_rates_{table}_by_{}_fields", by.len());
        let question = RatesQuestion { by, filter: Filter::All, limit: 200 };
        let took = timed(|| Ok(live.rates(&question, now).rates.len()))?;
        at_most(&name, took, "ms_of_cpu", FRAME_MS);
    }
    Ok(())
}

/// Milliseconds of CPU of an answer that has rows. The kernel's count of them is too coarse for one.
fn timed(ask: impl Fn() -> Result<usize>) -> Result<f64> {
    let before = thread_cpu();
    for _ in 0..ROUNDS {
        ensure!(ask()? > 0, "an answer without rows");
    }
    Ok((thread_cpu() - before) * 1e3 / f64::from(ROUNDS))
}

/// Connections between the units of one machine and others, as two readings tell of them.
fn filled() -> Live {
    let host = |index: u32| {
        Arc::new(Endpoint {
            host: Some("box".into()),
            unit: Some(format!("app-{index}.service").into()),
            ..Endpoint::bare(EndpointKind::Host, Ipv4Addr::new(192, 0, 2, 1).into())
        })
    };
    let peer = |index: u32| {
        Endpoint::bare(EndpointKind::External, Ipv4Addr::from(0xc633_0000 + index * 7).into())
    };
    let units: Vec<_> = (0..UNITS).map(host).collect();
    let peers: Vec<_> = (0..PEERS).map(|index| Arc::new(peer(index))).collect();
    let live = Live::default();
    for (sequence, second) in (1..).zip(READINGS) {
        let Some(mut batch) = live.take("box", &header(sequence, second), 0) else { continue };
        for number in 0..CONNECTIONS {
            let is_first = sequence == 1;
            if !is_first && number % MOVING != 0 {
                continue;
            }
            let spread = number.wrapping_mul(2_654_435_761);
            let ends = Attributed {
                source: Arc::clone(&units[(spread % UNITS) as usize]),
                destination: Arc::clone(&peers[(spread / 7 % PEERS) as usize]),
                class: Class::Internet,
                service: None,
                view: View::ONLY,
            };
            batch.record(&record(number, second, is_first, &ends), &ends);
        }
    }
    live
}

fn header(sequence: u64, second: u64) -> Header {
    Header {
        id: BatchId { epoch: Epoch(1), sequence },
        hour: 0,
        wall_offset_nanos: 0,
        sealed_at: BootTime(second * SECOND),
        boot: 0,
        records: 0,
        digest: Digest(0),
    }
}

fn record(number: u32, second: u64, is_first: bool, ends: &Attributed) -> FlowRecord {
    let counters = |packets: u32, size: u64| {
        let packets = u64::from(packets);
        Counters { packets, bytes: packets * size }
    };
    let from =
        Totals { sent: counters(number % 977, 230), received: counters(number % 991, 1_340) };
    let moved = Totals { sent: counters(12, 230), received: counters(number % 89, 1_340) };
    let mut to = from;
    if !is_first {
        to += moved;
    }
    FlowRecord {
        connection: u64::from(number),
        zone: 0,
        protocol: if number.is_multiple_of(3) { Protocol(17) } else { Protocol::TCP },
        source: ends.source.address,
        source_port: 10_000 + u16::try_from(number % 50_000).unwrap_or_default(),
        destination: ends.destination.address,
        destination_port: [443, 80, 53, 5_432][(number % 4) as usize],
        service: None,
        translated_source: None,
        start: Some(WallTime(u64::from(number) * 1_000)),
        interval_from: BootTime(if is_first { second } else { READINGS[0] } * SECOND),
        interval_to: BootTime(second * SECOND),
        from,
        to,
        state: ConnectionState::from_code(19),
        flags: RecordFlags::PRESENT.without(RecordFlags::when(RecordFlags::PRESENT, !is_first)),
    }
}
