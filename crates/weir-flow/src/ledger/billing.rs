//! From a sample to a record: which end is which, what was dialled, how it ended.

use super::SlotFlags;
use crate::counters::Totals;
use crate::record::{FlowRecord, RecordFlags};
use crate::sample::{Sample, TcpState};
use crate::state::ConnectionState;
use crate::time::BootTime;
use crate::tuple::Protocol;

pub(super) fn record(
    key: u64,
    sample: &Sample,
    flags: SlotFlags,
    (from, to): (Totals, Totals),
    (interval_from, interval_to): (BootTime, BootTime),
) -> FlowRecord {
    let Sample { original, reply, .. } = sample;
    let mut record = FlowRecord {
        connection: key,
        zone: sample.zone,
        protocol: original.protocol,
        source: original.source,
        source_port: original.source_port,
        destination: reply.source,
        destination_port: reply.source_port,
        service: None,
        translated_source: None,
        start: sample.start,
        interval_from: interval_from.min(interval_to),
        interval_to,
        from,
        to,
        state: ConnectionState::of(sample),
        flags: RecordFlags::default()
            .with(RecordFlags::UNCOUNTED.when(flags.has(SlotFlags::UNCOUNTED)))
            .with(RecordFlags::PICKED_UP.when(flags.has(SlotFlags::PICKED_UP))),
    };
    let icmp = original.protocol.is_icmp();
    if icmp {
        record.destination_port = original.destination_port;
    }
    if flags.has(SlotFlags::TURNED) {
        record.flags = record.flags.with(RecordFlags::TURNED);
        (record.source, record.destination) = (reply.source, original.source);
        (record.source_port, record.destination_port) = (reply.source_port, original.source_port);
        (record.from, record.to) = (from.turned(), to.turned());
        return record;
    }
    let dialled = (original.destination, original.destination_port);
    let backend = (reply.source, if icmp { dialled.1 } else { reply.source_port });
    record.service = (dialled != backend).then_some(dialled);
    let opener = (original.source, original.source_port);
    let seen_as = (reply.destination, if icmp { opener.1 } else { reply.destination_port });
    record.translated_source = (opener != seen_as).then_some(seen_as);
    record
}

/// How a connection ended, from its DESTROY event.
pub(super) fn ending(sample: &Sample) -> RecordFlags {
    let replied = sample.status.seen_reply();
    let reset = sample.tcp.is_some_and(|tcp| tcp.state == TcpState::CLOSE);
    let tcp = sample.original.protocol == Protocol::TCP;
    let failed = tcp && (!replied || (reset && !sample.status.assured()));
    RecordFlags::CLOSED
        .with(RecordFlags::FAILED.when(failed))
        .with(RecordFlags::UNREPLIED.when(!tcp && !replied))
}
