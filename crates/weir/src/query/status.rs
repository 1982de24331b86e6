//! `weir query status`: what weir says of itself, and what its store holds.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value, json};
use weir_flow::batch::GapReason;
use weir_store::{
    CounterSum, FlowStore as _, Health, LevelHealth, Limits, SqliteStore, StoreError, StoredGap,
};

use super::live::{self, Judged, Writer};
use crate::args::StatusArgs;
use crate::render::{self, Shown, Style, bytes};
use weir_server::moment;
use crate::data_dir;

/// Prints the status.
pub(super) fn run(args: StatusArgs) -> anyhow::Result<()> {
    let StatusArgs { data_dir, since, output } = args;
    let directory = data_dir::choose(data_dir.data_dir)?;
    let now = moment::now_seconds();
    // One second more than now, so that a gap declared this second is in it.
    let status = gather(&directory, since.seconds(now)..now + 1, now)?;
    render::print_object(&status, output.output, |out, style| for_people(&status, style, out))?;
    Ok(())
}

fn gather(directory: &Path, range: Range<u64>, now: u64) -> anyhow::Result<Map<String, Value>> {
    let said = live::read(directory)?;
    let store = match SqliteStore::open_read_only(directory, Limits::default()) {
        Ok(store) => Some(store),
        // weir has spoken, so it is only about to make its store.
        Err(StoreError::Missing { .. }) if said.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    let writer = match SqliteStore::writer_of(directory)? {
        None => Writer::Nobody,
        Some(process) => Writer::Process(process.pid.map(u64::from)),
    };

    let mut status = said.unwrap_or_default();
    let Judged { state, reason, silent_seconds } = live::judge(&status, writer, now);
    status.insert("state".into(), state.into());
    if let Some(reason) = reason {
        status.insert("reason".into(), reason.into());
    }
    if let Some(seconds) = silent_seconds {
        status.insert("silent_seconds".into(), seconds.into());
    }
    status.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    status.insert("data_dir".into(), directory.display().to_string().into());
    status.insert("since".into(), moment::rfc3339(range.start).into());
    status.insert("until".into(), moment::rfc3339(range.end).into());
    let (mut gaps, mut counters) = (Vec::new(), Vec::new());
    if let Some(store) = &store {
        gaps = store.gaps(range.clone())?;
        counters = store.counters(range)?;
        let batches: u64 = store.committed()?.iter().map(|epoch| count(epoch.ranges.spans())).sum();
        status.insert("store".into(), health(&store.health()?, batches));
    }
    status.insert("gaps".into(), gaps.iter().map(gap).collect());
    status.insert("counters".into(), counters.iter().map(counter).collect());
    Ok(status)
}

fn count(spans: &[(u64, u64)]) -> u64 {
    spans.iter().map(|(first, last)| last - first + 1).sum()
}

fn health(health: &Health, batches: u64) -> Value {
    let Health {
        engine,
        schema_version,
        levels,
        file_bytes,
        reusable_bytes,
        free_disk_bytes,
        endpoints,
        edges,
    } = health;
    json!({
        "engine": engine,
        "schema_version": schema_version,
        "batches": batches,
        "file_bytes": file_bytes,
        "reusable_bytes": reusable_bytes,
        "free_disk_bytes": free_disk_bytes,
        "endpoints": endpoints,
        "edges": edges,
        "levels": levels.iter().map(level).collect::<Vec<_>>(),
    })
}

fn level(health: &LevelHealth) -> Value {
    let LevelHealth { level, retention_seconds, rows, oldest, newest } = *health;
    json!({
        "window_seconds": level.seconds(),
        "retention_seconds": retention_seconds,
        "rows": rows,
        "oldest": oldest.map(moment::rfc3339),
        "newest": newest.map(moment::rfc3339),
    })
}

fn gap(stored: &StoredGap) -> Value {
    let StoredGap { node, batch: _, gap } = stored;
    json!({
        "node": node,
        "reason": gap.reason.name(),
        "from": moment::rfc3339(gap.from_seconds),
        "to": moment::rfc3339(gap.to_seconds),
        "connections": gap.connections,
        "records": gap.records,
        "bytes": gap.bytes,
        "bytes_bound": gap.bytes_bound,
    })
}

fn counter(sum: &CounterSum) -> Value {
    let CounterSum { node, name, value } = sum;
    json!({ "node": node, "name": name, "value": value })
}

/// What is said first, in this order; the rest of what weir says of itself follows.
const FIRST: [&str; 7] =
    ["state", "reason", "data_dir", "version", "source", "accounting", "coverage"];
/// What has a section of its own.
const SECTIONS: [&str; 5] = ["store", "gaps", "counters", "since", "until"];

fn for_people(status: &Map<String, Value>, style: Style, out: &mut dyn Write) -> io::Result<()> {
    for name in FIRST {
        if let Some(value) = status.get(name) {
            entry(name, value, style, out)?;
        }
    }
    for (name, value) in status {
        let has_place = FIRST.contains(&name.as_str()) || SECTIONS.contains(&name.as_str());
        if !has_place && !value.is_null() {
            entry(name, value, style, out)?;
        }
    }
    if let Some(store) = status.get("store") {
        store_for_people(store, style, out)?;
    }
    let range = format!("since {}", text(&status["since"]));
    gaps_for_people(&status["gaps"], &range, style, out)?;
    counters_for_people(&status["counters"], &range, style, out)
}

/// `name  value`; lists and nested objects indented below their name.
fn entry(name: &str, value: &Value, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let label = Shown(&name.replace('_', " ")).to_string();
    if name == "state" && value != "reading" {
        return writeln!(out, "{label:<20} {}", style.warning(text(value)));
    }
    match value {
        Value::Object(inner) => {
            writeln!(out, "{}", style.bold(label))?;
            inner.iter().try_for_each(|(name, value)| {
                let label = Shown(&name.replace('_', " ")).to_string();
                writeln!(out, "  {label:<16} {}", text(value))
            })
        }
        Value::Array(items) if items.is_empty() => Ok(()),
        Value::Array(items) => {
            writeln!(out, "{}", style.bold(label))?;
            items.iter().try_for_each(|item| writeln!(out, "  {}", text(item)))
        }
        _ => writeln!(out, "{label:<20} {}", text(value)),
    }
}

fn store_for_people(store: &Value, style: Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{}", style.bold("store"))?;
    for (name, label) in [
        ("file_bytes", "file"),
        ("reusable_bytes", "of that, reusable"),
        ("free_disk_bytes", "free on the disk"),
    ] {
        let size = store[name].as_u64().map_or_else(|| "?".to_owned(), bytes);
        writeln!(out, "  {label:<20} {size}")?;
    }
    for name in ["batches", "endpoints", "edges", "engine"] {
        writeln!(out, "  {name:<20} {}", text(&store[name]))?;
    }
    writeln!(out, "  {}", style.bold("WINDOW  KEPT       ROWS  OLDEST                NEWEST"))?;
    for level in store["levels"].as_array().into_iter().flatten() {
        let length = |name: &str| moment::human(level[name].as_u64().unwrap_or(0));
        writeln!(
            out,
            "  {:<6}  {:<4}  {:>9}  {:<20}  {}",
            length("window_seconds"),
            length("retention_seconds"),
            text(&level["rows"]),
            text(&level["oldest"]),
            text(&level["newest"]),
        )?;
    }
    Ok(())
}

fn gaps_for_people(gaps: &Value, range: &str, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let gaps = gaps.as_array().map_or(&[][..], Vec::as_slice);
    if gaps.is_empty() {
        return writeln!(out, "\n{} none {}", style.bold("declared gaps"), style.dim(range));
    }
    let heading = format!("declared gaps: {}", gaps.len());
    writeln!(out, "\n{} {}", style.warning(heading), style.dim(range))?;
    for gap in gaps {
        let missing = match gap["bytes_bound"].as_u64() {
            Some(bound) => format!("at most {} more", bytes(bound)),
            None => "more than that is not known".to_owned(),
        };
        writeln!(
            out,
            "  {} to {}  {:<14} {} connections, {} records, {} lost for sure, {missing}",
            text(&gap["from"]),
            text(&gap["to"]),
            text(&gap["reason"]),
            text(&gap["connections"]),
            text(&gap["records"]),
            bytes(gap["bytes"].as_u64().unwrap_or(0)),
        )?;
        if let Some(meaning) = gap["reason"].as_str().and_then(meaning) {
            writeln!(out, "    {}", style.dim(meaning))?;
        }
    }
    Ok(())
}

/// What a reason means, for people.
fn meaning(reason: &str) -> Option<&'static str> {
    let reason = GapReason::ALL.into_iter().find(|known| known.name() == reason)?;
    Some(match reason {
        GapReason::AgentDown => "weir did not run; connections it knew ended meanwhile",
        GapReason::EventsLost => "the kernel dropped notices of ended connections",
        GapReason::EndedUnseen => "connections ended without a notice from the kernel",
        GapReason::TrackingOff => "the kernel tracked no connections",
        GapReason::SpoolDamaged => "a part of the spool could not be read",
        GapReason::SpoolFull => "the spool was full and dropped its oldest batches",
        GapReason::Refused => "the store refused a batch; it stands in quarantine",
        GapReason::SpoolTooOld => "the spool was too old and was started anew",
    })
}

fn counters_for_people(
    counters: &Value,
    range: &str,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let counters = counters.as_array().map_or(&[][..], Vec::as_slice);
    if counters.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{} {}", style.bold("counters"), style.dim(range))?;
    for counter in counters {
        writeln!(
            out,
            "  {:<12} {:<28} {}",
            text(&counter["node"]),
            text(&counter["name"]),
            text(&counter["value"])
        )?;
    }
    Ok(())
}

/// A value on one line, `?` where there is none; the parts of a list or object one after the other.
fn text(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(": ");
    match value {
        Value::Null => "?".to_owned(),
        Value::String(text) => Shown(text).to_string(),
        Value::Array(parts) => joined(parts.iter().map(text).collect()),
        Value::Object(parts) => joined(parts.values().map(text).collect()),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
