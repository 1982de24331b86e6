//! `weir query status`: what weir says of itself, and what its store holds.

use std::io::{self, Write};

use serde_json::Value;
use weir_flow::batch::GapReason;
use weir_server::answer::{
    Answers as _, Gap, KubenetmonStatus, NodeCounter, NodeStatus, OtherView, PeerState, PeerStatus,
    State, Status, StoreLevel, StoreStatus, StoreTrouble,
};
use weir_server::moment;

use super::local;
use crate::args::StatusArgs;
use crate::location::Location;
use crate::remote::Remote;
use crate::render::{self, Shown, Style, bytes};

/// Prints the status.
pub(super) fn run(args: &StatusArgs, location: Location) -> anyhow::Result<()> {
    let StatusArgs { since, output } = args;
    let now = moment::now_seconds();
    // One second more than now, so that a gap declared this second is in it.
    let range = since.seconds(now)..now + 1;
    let status = match location {
        Location::Directory(directory) => local::status(&directory, range)?,
        Location::Url(base) => Remote::new(base).status(range)?,
    };
    render::print_object(&status, output.output, |out, style| for_people(&status, style, out))?;
    Ok(())
}

/// What of a node is said first, in this order; the rest follows by name.
const FIRST: [&str; 5] = ["state", "reason", "source", "accounting", "coverage"];
/// What has a place of its own.
const APART: [&str; 3] = ["node", "causes", "views"];

fn for_people(status: &Status, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let Status {
        version,
        data_dir,
        since,
        until: _,
        nodes,
        peers,
        store,
        store_error,
        kubenetmon,
        gaps,
        counters,
    } = status;
    let mut say = |name: &str, value: &str| writeln!(out, "{name:<20} {}", Shown(value));
    say("version", version)?;
    if let Some(directory) = data_dir {
        say("data dir", directory)?;
    }
    for node in nodes {
        node_for_people(node, style, out)?;
    }
    peers_for_people(peers, style, out)?;
    if let Some(reported) = kubenetmon {
        kubenetmon_for_people(reported, style, out)?;
    }
    if let Some(store) = store {
        store_for_people(store, style, out)?;
    }
    if let Some(trouble) = store_error {
        trouble_for_people(trouble, style, out)?;
    }
    if store.is_none() && store_error.is_some() {
        // Nobody could be asked, which is not nothing.
        return writeln!(out, "\ngaps and counters     ?");
    }
    let range = format!("since {}", Shown(since));
    gaps_for_people(gaps, nodes.len() > 1, &range, style, out)?;
    counters_for_people(counters, &range, style, out)
}

fn node_for_people(node: &NodeStatus, style: Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{}", style.bold(format!("node {}", Shown(&node.node))))?;
    let Value::Object(fields) = serde_json::to_value(node)? else {
        return Ok(());
    };
    let rest = fields.keys().map(String::as_str);
    let rest = rest.filter(|name| !FIRST.contains(name) && !APART.contains(name));
    for name in FIRST.into_iter().chain(rest) {
        let value = &fields[name];
        // Before the first reading nothing was counted, which is not 0.
        if value.is_null() || (value.is_number() && node.ticks == 0) {
            continue;
        }
        let label = name.replace('_', " ");
        if name == "state" && node.state != State::Reading {
            writeln!(out, "  {label:<22} {}", style.warning(text(value)))?;
        } else {
            writeln!(out, "  {label:<22} {}", text(value))?;
        }
    }
    node.causes.iter().try_for_each(|cause| {
        let line = format!("{}: {}", Shown(&cause.name), Shown(&cause.text));
        writeln!(out, "  {:<22} {}", "cause", style.warning(line))
    })?;
    node.views.iter().try_for_each(|view| view_for_people(view, out))
}

/// What kubenetmon's agents reported, and what of it was lost here.
fn kubenetmon_for_people(
    reported: &KubenetmonStatus,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let KubenetmonStatus {
        promise: _,
        connections,
        observations,
        malformed,
        ignored,
        dropped,
        rows,
        error,
    } = reported;
    let title = "kubenetmon's agents (best effort, in its table alone)";
    writeln!(out, "\n{}", style.bold(title))?;
    for (label, count) in [
        ("connections", connections),
        ("observations", observations),
        ("malformed", malformed),
        ("no place in the table", ignored),
        ("dropped", dropped),
        ("rows", rows),
    ] {
        writeln!(out, "  {label:<22} {count}")?;
    }
    error.iter().try_for_each(|error| {
        writeln!(out, "  {:<22} {}", "error", style.warning(Shown(error).to_string()))
    })
}

/// The other servers, and what may be missing without them.
fn peers_for_people(peers: &[PeerStatus], style: Style, out: &mut dyn Write) -> io::Result<()> {
    if peers.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", style.bold("other servers"))?;
    for peer in peers {
        let PeerStatus { address, state, reason, milliseconds, nodes } = peer;
        let nodes = nodes.map_or_else(|| "?".to_owned(), |nodes| nodes.to_string());
        let time = milliseconds.map_or_else(String::new, |time| format!(" in {time} ms"));
        let said = format!("{}{time}, {nodes} nodes", state.name());
        let said = if *state == PeerState::Ok { said } else { style.warning(said) };
        writeln!(out, "  {:<22} {said}", Shown(address).to_string())?;
        if let Some(reason) = reason {
            writeln!(out, "    {}", style.dim(Shown(reason)))?;
        }
    }
    Ok(())
}

/// The same traffic as this node counted it and as the other one saw it, to the byte.
fn view_for_people(view: &OtherView, out: &mut dyn Write) -> io::Result<()> {
    let OtherView { node, counted_packets, counted_bytes, seen_packets, seen_bytes } = view;
    writeln!(
        out,
        "  {:<22} counted {counted_bytes} bytes in {counted_packets} packets; {} saw {seen_bytes} \
         in {seen_packets}",
        "two views",
        Shown(node),
    )
}

/// A plain value.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => Shown(text).to_string(),
        other => other.to_string(),
    }
}

fn trouble_for_people(trouble: &StoreTrouble, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let StoreTrouble { since, reason, error, failures } = trouble;
    let line = format!("{} since {}; failed tries: {failures}", Shown(reason), Shown(since));
    writeln!(out, "\n{:<20} {}", "store fails", style.warning(line))?;
    writeln!(out, "{:<20} {}", "", style.warning(Shown(error)))?;
    writeln!(out, "{:<20} agents keep their batches until it is back", "")
}

fn store_for_people(store: &StoreStatus, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let StoreStatus {
        engine,
        schema_version: _,
        batches,
        file_bytes,
        reusable_bytes,
        free_disk_bytes,
        endpoints,
        edges,
        levels,
    } = store;
    writeln!(out, "\n{}", style.bold("store"))?;
    let free = free_disk_bytes.map_or_else(|| "?".to_owned(), bytes);
    for (label, value) in [
        ("file", bytes(*file_bytes)),
        ("of that, reusable", bytes(*reusable_bytes)),
        ("free on the disk", free),
        ("batches", batches.to_string()),
        ("endpoints", endpoints.map_or_else(String::new, |count| count.to_string())),
        ("edges", edges.map_or_else(String::new, |count| count.to_string())),
        ("engine", Shown(engine).to_string()),
    ] {
        if !value.is_empty() {
            writeln!(out, "  {label:<20} {value}")?;
        }
    }
    writeln!(out, "  {}", style.bold("WINDOW  KEPT       ROWS  OLDEST                NEWEST"))?;
    for level in levels {
        let StoreLevel { window_seconds, retention_seconds, rows, oldest, newest } = level;
        let time = |time: &Option<String>| Shown(time.as_deref().unwrap_or("?")).to_string();
        writeln!(
            out,
            "  {:<6}  {:<4}  {rows:>9}  {:<20}  {}",
            moment::human(*window_seconds),
            moment::human(*retention_seconds),
            time(oldest),
            time(newest),
        )?;
    }
    Ok(())
}

fn gaps_for_people(
    gaps: &[Gap],
    of_several: bool,
    range: &str,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    if gaps.is_empty() {
        return writeln!(out, "\n{} none {}", style.bold("declared gaps"), style.dim(range));
    }
    let heading = format!("declared gaps: {}", gaps.len());
    writeln!(out, "\n{} {}", style.warning(heading), style.dim(range))?;
    for gap in gaps {
        let Gap { node, reason, from, to, connections, records, bytes: lost, bytes_bound } = gap;
        let missing = match bytes_bound {
            Some(bound) => format!("at most {} more", bytes(*bound)),
            None => "more than that is not known".to_owned(),
        };
        // A machine need not be told its own name each time.
        let place = if of_several { format!("{}  ", Shown(node)) } else { String::new() };
        writeln!(
            out,
            "  {place}{} to {}  {:<14} {connections} connections, {records} records, {} lost for sure, \
             {missing}",
            Shown(from),
            Shown(to),
            Shown(reason).to_string(),
            bytes(*lost),
        )?;
        if let Some(meaning) = meaning(reason) {
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
        GapReason::Undecided => {
            "an address inside the cluster stayed unknown; bytes are not billed"
        }
        GapReason::SpoolTooOld => "the spool was too old and was started anew",
    })
}

fn counters_for_people(
    counters: &[NodeCounter],
    range: &str,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    if counters.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{} {}", style.bold("counters"), style.dim(range))?;
    counters.iter().try_for_each(|NodeCounter { node, name, value }| {
        let (node, name) = (Shown(node).to_string(), Shown(name).to_string());
        writeln!(out, "  {node:<12} {name:<28} {value}")
    })
}
