//! A comparison as text and as JSON.

use std::net::SocketAddr;

use serde::ser::{SerializeStruct, Serializer};
use serde::{Serialize, ser::SerializeSeq};
use serde_json::{Value, json};
use weir_flow::Totals;

use super::{Comparison, Line, Sums, Verdict};
use crate::text::line;
use crate::truth::Group;

/// The comparison as a table for people.
pub fn table(comparison: &Comparison) -> String {
    let heads = [
        "FLOW",
        "TRUTH SENT",
        "RECEIVED",
        "WEIR SENT",
        "RECEIVED",
        "DIFF SENT",
        "RECEIVED",
        "PKTS SENT",
        "RECEIVED",
        "DECLARED",
        "EXCLUDED",
        "PICKED UP",
        "VERDICT",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(comparison.lines.iter().map(cells));
    rows.push(total_cells(&comparison.total, comparison));
    let mut text = align(&rows);
    for (reason, counters) in &comparison.excluded {
        let reason = json!(reason).as_str().unwrap_or_default().to_owned();
        let (packets, bytes) = (counters.packets, counters.bytes);
        line(&mut text, &format!("excluded: {reason} {packets} packets, {bytes} bytes"));
    }
    for gap in &comparison.gaps {
        let bound = gap
            .bytes_bound
            .map_or_else(|| "without a bound".to_owned(), |b| format!("at most {b}"));
        line(
            &mut text,
            &format!(
                "declared: {} {} connections, {} bytes lost, {bound}",
                gap.reason, gap.connections, gap.bytes
            ),
        );
    }
    for note in &comparison.notes {
        line(&mut text, &format!("note: {note}"));
    }
    text
}

fn cells(line: &Line) -> [String; 13] {
    let unknown = || "-".to_owned();
    let weir = |part: fn(Totals) -> u64| line.weir.map_or_else(unknown, |w| part(w).to_string());
    [
        flow(&line.group),
        line.truth.sent.bytes.to_string(),
        line.truth.received.bytes.to_string(),
        weir(|totals| totals.sent.bytes),
        weir(|totals| totals.received.bytes),
        line.difference.bytes_sent.to_string(),
        line.difference.bytes_received.to_string(),
        line.difference.packets_sent.to_string(),
        line.difference.packets_received.to_string(),
        line.declared_bytes.to_string(),
        line.excluded_bytes.to_string(),
        line.picked_up_bytes.to_string(),
        json!(line.verdict).as_str().unwrap_or_default().to_owned(),
    ]
}

fn total_cells(total: &Sums, comparison: &Comparison) -> [String; 13] {
    let lines = &comparison.lines;
    let verdict = match lines.iter().filter(|line| line.verdict != Verdict::Exact).count() {
        0 => "exact".to_owned(),
        _ if lines.iter().all(|line| line.verdict == Verdict::NotCompared) => String::new(),
        count => format!("{count} of {} differ", lines.len()),
    };
    [
        format!("total of {} flows", lines.len()),
        total.truth.sent.bytes.to_string(),
        total.truth.received.bytes.to_string(),
        total.weir.sent.bytes.to_string(),
        total.weir.received.bytes.to_string(),
        total.difference.bytes_sent.to_string(),
        total.difference.bytes_received.to_string(),
        total.difference.packets_sent.to_string(),
        total.difference.packets_received.to_string(),
        lines.iter().map(|line| line.declared_bytes).sum::<u64>().to_string(),
        comparison.excluded.values().map(|counters| counters.bytes).sum::<u64>().to_string(),
        total.picked_up_bytes.to_string(),
        verdict,
    ]
}

/// `tcp 10.0.0.1 > 10.0.0.2:80 (10.96.0.1:80)`.
fn flow(group: &Group) -> String {
    let destination = if group.protocol.is_icmp() {
        let [kind, code] = group.destination_port.to_be_bytes();
        format!("{} type {kind} code {code}", group.destination)
    } else {
        SocketAddr::new(group.destination, group.destination_port).to_string()
    };
    let service = group.service.map(|service| format!(" ({service})")).unwrap_or_default();
    format!("{} {} > {destination}{service}", group.protocol, group.source)
}

/// The first and the last column to the left, numbers to the right.
fn align(rows: &[[String; 13]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..13).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                12 => cell.clone(),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        line(&mut text, cells.join("  ").trim_end());
    }
    text
}

impl Serialize for Comparison {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Comparison", 7)?;
        object.serialize_field("good", &self.is_good())?;
        object.serialize_field("exact", &self.is_exact())?;
        object.serialize_field("flows", &Lines(&self.lines))?;
        object.serialize_field("total", &total(&self.total))?;
        let excluded: Vec<Value> = self.excluded.iter().map(|(reason, counters)| {
            json!({"reason": reason, "packets": counters.packets, "bytes": counters.bytes})
        }).collect();
        object.serialize_field("excluded", &excluded)?;
        object.serialize_field("declared", &self.gaps)?;
        object.serialize_field("notes", &self.notes)?;
        object.end()
    }
}

struct Lines<'a>(&'a [Line]);

impl Serialize for Lines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for line in self.0 {
            list.serialize_element(&json!({
                "source.address": line.group.source,
                "destination.address": line.group.destination,
                "protocol": line.group.protocol.to_string(),
                "destination.port": line.group.destination_port,
                "service": line.group.service,
                "truth": measures(line.truth),
                "weir": line.weir.map(measures),
                "difference": line.difference,
                "declared_bytes": line.declared_bytes,
                "excluded_bytes": line.excluded_bytes,
                "picked_up_bytes": line.picked_up_bytes,
                "connections": line.connections.0,
                "connections_opened": line.connections.1,
                "verdict": line.verdict,
            }))?;
        }
        list.end()
    }
}

fn total(sums: &Sums) -> Value {
    json!({
        "truth": measures(sums.truth),
        "weir": measures(sums.weir),
        "difference": sums.difference,
        "picked_up_bytes": sums.picked_up_bytes,
    })
}

fn measures(totals: Totals) -> Value {
    json!({
        "bytes_sent": totals.sent.bytes,
        "bytes_received": totals.received.bytes,
        "packets_sent": totals.sent.packets,
        "packets_received": totals.received.packets,
    })
}
