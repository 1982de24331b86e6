//! The door for kubenetmon's agents, opened on the server's store and directory.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use weir_agent::clock;
use weir_flow::kubenetmon::{Counts as Labelled, Ignored, Row};
use weir_server::Directories;
use weir_server::cluster::Watched;
use weir_server::health::Exposition;
use weir_server::kubenetmon::{self, Counts, Dropped, Limits, Malformed, Running};
use weir_server::query::Board;
use weir_store::{FlowStore, KubenetmonSink};

use super::config::KubenetmonDoor;
use crate::say::say;

/// The table that a store writes besides.
struct Table(Arc<dyn FlowStore>);

impl KubenetmonSink for Table {
    fn insert_kubenetmon(&self, rows: &[Row], token: Option<&str>) -> weir_store::Result<()> {
        let sink = self.0.kubenetmon().expect("whoever opened the door saw that there is a table");
        sink.insert_kubenetmon(rows, token)
    }
}

/// Opens the door where one was asked for, and shows its figures on the board.
pub(super) fn open(
    door: Option<&KubenetmonDoor>,
    store: &Arc<dyn FlowStore>,
    watched: &Arc<Watched>,
    board: &Board,
) -> anyhow::Result<Option<Running>> {
    let Some(door) = door else { return Ok(None) };
    ensure!(store.kubenetmon().is_some(), "this store does not write kubenetmon's table");
    let running = kubenetmon::start(kubenetmon::Options {
        address: door.address,
        sink: Arc::new(Table(Arc::clone(store))),
        directories: Arc::clone(watched) as Arc<dyn Directories>,
        clock: Arc::new(clock::wall),
        settings: door.settings.clone(),
        batch_rows: door.batch_rows,
        batch_time: door.batch_time,
        connection_age: door.connection_age,
        limits: Limits::default(),
    })
    .context("open the door for kubenetmon's agents (--kubenetmon-listen)")?;
    board.set_kubenetmon(running.counts());
    say(&format!("kubenetmon's agents report to {}, best effort", running.address));
    Ok(Some(running))
}

/// What became of weir's own records in kubenetmon's table, for machines.
pub(super) fn expose_own(counts: &Labelled, exposition: &mut Exposition) {
    exposition.counter(
        "weir_kubenetmon_records_total",
        "Records of committed batches that became rows of kubenetmon's table, two each.",
        counts.labelled,
    );
    exposition.counters(
        "weir_kubenetmon_ignored_records_total",
        "Records of committed batches for which kubenetmon's table has no place, by reason. They are \
         among weir's own flows all the same.",
        "reason",
        Ignored::ALL.map(|reason| (reason.name(), counts.of(reason))),
    );
}

/// What became of what kubenetmon's agents reported, for machines.
pub(super) fn expose(counts: &Counts, exposition: &mut Exposition) {
    exposition.counter(
        "weir_kubenetmon_observations_total",
        "Observations that kubenetmon's agents reported. Best effort: in no figure of weir's own.",
        counts.received(),
    );
    exposition.counters(
        "weir_kubenetmon_malformed_total",
        "Observations of kubenetmon's agents in which something was wrong, by what.",
        "what",
        Malformed::ALL.map(|what| (what.name(), counts.malformed(what))),
    );
    let labelled = counts.labelled();
    exposition.counter(
        "weir_kubenetmon_labelled_total",
        "Observations of kubenetmon's agents that became rows, two each.",
        labelled.labelled,
    );
    exposition.counters(
        "weir_kubenetmon_ignored_total",
        "Observations of kubenetmon's agents for which its table has no place, by reason.",
        "reason",
        Ignored::ALL.map(|reason| (reason.name(), labelled.of(reason))),
    );
    exposition.counters(
        "weir_kubenetmon_dropped_total",
        "Observations of kubenetmon's agents that were lost here, by reason.",
        "reason",
        Dropped::ALL.map(|why| (why.name(), counts.dropped(why))),
    );
    exposition.counter(
        "weir_kubenetmon_rows_total",
        "Rows of kubenetmon's agents that its table took.",
        counts.rows(),
    );
    exposition.counter(
        "weir_kubenetmon_inserts_total",
        "Inserts of such rows that its table took.",
        counts.inserts(),
    );
    exposition.counter(
        "weir_kubenetmon_insert_retries_total",
        "Inserts of such rows that were tried again.",
        counts.retries(),
    );
    exposition.counter(
        "weir_kubenetmon_streams_total",
        "Calls of kubenetmon's agents.",
        counts.streams(),
    );
    exposition.counter(
        "weir_kubenetmon_turned_away_total",
        "Connections of kubenetmon's agents that were not taken because there were too many.",
        counts.turned_away(),
    );
}
