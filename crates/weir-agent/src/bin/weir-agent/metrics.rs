//! What Prometheus reads: counts since the start, in base units.

use std::fmt::{Display, Write as _};

use weir_agent::facts::{FactCounts, Facts};
use weir_agent::wire::{WireStatus, WireWatch};

use crate::health::{Accounting, Phase, State};

/// The page for Prometheus.
pub(crate) fn render(state: &State) -> String {
    let mut page = Page(String::new());
    agent(&mut page, state);
    spool(&mut page, state);
    wire(&mut page, &state.wire.as_ref().map(WireWatch::get).unwrap_or_default());
    facts(&mut page, &state.facts.as_ref().map(Facts::counts).unwrap_or_default());
    page.0
}

fn agent(page: &mut Page, state: &State) {
    let status = &state.status;
    page.gauge("build_info", "Which agent this is.", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let reading = u8::from(state.phase == Phase::Reading);
    page.gauge("reading", "1 while the kernel is read.", &[], reading);
    match state.accounting {
        // Unknown is no number.
        Accounting::Unknown => {}
        Accounting::Works => page.gauge("accounting", "1 where the kernel counts.", &[], 1),
        Accounting::Off(_) => page.gauge("accounting", "1 where the kernel counts.", &[], 0),
    }
    page.counter("ticks", "Readings of the kernel.", status.ticks);
    let last = status.last_tick.0 / 1_000_000_000;
    if last > 0 {
        page.gauge("last_tick_timestamp_seconds", "When the last reading ended.", &[], last);
    }
    let cpu = status.tick_cpu.as_secs_f64();
    page.gauge("tick_cpu_seconds", "CPU time the last reading took.", &[], cpu);
    let interval = status.interval.as_secs_f64();
    page.gauge(
        "interval_seconds",
        "Time between two readings, as the budget has it.",
        &[],
        interval,
    );
    page.gauge("connections", "Connections in the table.", &[], status.connections);
    page.counter("records", "Flow records sealed.", status.records);
    page.counter("billed_bytes", "Bytes counted.", status.billed_bytes);
    page.counter("destroy_events", "Notices of ended connections.", status.events);
    page.counter("lost_events", "Notices the kernel dropped.", status.lost_events);
    page.counter("malformed_messages", "Messages that could not be read.", status.malformed);
    page.counter("ended_unseen", "Connections that ended without a notice.", status.ended_unseen);
    let zeroings = status.ledger.foreign_zeroings;
    page.counter("foreign_zeroings", "Counters that somebody else zeroed.", zeroings);
    let uncounted = status.ledger.uncounted_entries;
    page.counter("uncounted_entries", "Entries met without counters.", uncounted);
    if let Some(coverage) = status.coverage {
        let help = "Share of what the interfaces moved that was counted.";
        page.gauge("accounting_coverage_ratio", help, &[], coverage);
    }
}

fn spool(page: &mut Page, state: &State) {
    let status = &state.status;
    page.gauge("spool_bytes", "Bytes in the spool.", &[], status.spool_bytes);
    page.gauge("spool_limit_bytes", "Bytes it may hold.", &[], state.spool_limit);
    page.gauge("undelivered_batches", "Batches without an answer.", &[], status.undelivered);
    let help = "Batches dropped and declared because the spool or the disk was full.";
    page.counter("dropped_batches", help, status.dropped);
}

fn wire(page: &mut Page, wire: &WireStatus) {
    page.gauge(
        "connected",
        "1 while a stream to the server stands.",
        &[],
        u8::from(wire.connected),
    );
    page.counter("streams", "Streams that stood.", wire.connections);
    page.counter("stream_failures", "Attempts that failed and streams that broke.", wire.failures);
    page.counter("sent_batches", "Batches sent.", wire.sent_batches);
    page.counter("sent_frame_bytes", "Bytes of their frames.", wire.frame_bytes);
    page.counter("sent_wire_bytes", "The same, compressed.", wire.wire_bytes);
    let outcomes = [
        ("committed", wire.committed),
        ("known_at_connect", wire.settled),
        ("retry", wire.retried),
        ("refused", wire.refused),
        ("unknown", wire.unknown_answers),
    ];
    let help = "Answers to batches; unknown ones were about batches not in flight.";
    page.family("answers_total", "counter", help);
    for (outcome, count) in outcomes {
        page.sample("answers_total", &[("outcome", outcome)], count);
    }
    let help = "Messages of the server's that this agent does not know.";
    page.counter("unknown_messages", help, wire.unknown_messages);
    page.counter("facts_sent", "Addresses announced.", wire.facts_sent);
}

fn facts(page: &mut Page, facts: &FactCounts) {
    let help = "Addresses known on this node.";
    page.family("addresses", "gauge", help);
    for (kind, count) in [("own", facts.own), ("routed", facts.routed), ("past", facts.past)] {
        page.sample("addresses", &[("kind", kind)], count);
    }
    page.counter("address_changes", "Changes of addresses seen.", facts.changes);
    page.counter("address_overruns", "Times the kernel dropped changes.", facts.overruns);
    page.counter("address_facts_dropped", "Addresses not kept for want of room.", facts.dropped);
}

/// A page in the making. Every name begins with `weir_agent_`.
struct Page(String);

impl Page {
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let name = format!("{name}_total");
        self.family(&name, "counter", help);
        self.sample(&name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, labels, value);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP weir_agent_{name} {help}"));
        self.line(format_args!("# TYPE weir_agent_{name} {kind}"));
    }

    /// Labels are ours, and need no escapes.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let labels = labels.join(",");
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        self.line(format_args!("weir_agent_{name}{labels} {value}"));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{text}").expect("a string has room");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_family_is_described_once_and_counters_end_in_total() {
        let state = State { accounting: Accounting::Works, ..State::default() };
        let page = render(&state);
        let mut described = HashSet::new();
        for line in page.lines() {
            let mut words = line.split(' ');
            if line.starts_with("# TYPE") {
                let (name, kind) = (words.nth(2).unwrap(), words.next().unwrap());
                assert!(described.insert(name.to_owned()), "{name} twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else if !line.starts_with('#') {
                let name = words.next().unwrap().split('{').next().unwrap();
                assert!(described.contains(name), "{line}");
                assert!(words.next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(page.contains("weir_agent_answers_total{outcome=\"committed\"} 0\n"), "{page}");
        assert!(!render(&State::default()).contains("accounting "), "unknown is no number");
    }
}
