//! The plain live table of `weir up`: who talked most in the last minute, and how weir is.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use weir_agent::AgentStatus;
use weir_flow::{EndpointField, Field, Filter, Side};
use weir_store::{FlowQuery, FlowStore as _, Measure, Order, SqliteStore};

use crate::render::{self, Style, bytes};
use weir_server::answer::Report;
use weir_server::moment;

/// Rows of the table.
const ROWS: usize = 15;

/// Draws on a thread of its own: a terminal that is stopped, or a pager, must not stop the meter.
#[derive(Clone, Debug)]
pub(super) struct Screen(Sender<AgentStatus>);

impl Screen {
    /// On a terminal the table is redrawn in place, else (or if `plain`) printed again.
    pub(super) fn new(store: Arc<SqliteStore>, plain: bool, interval: Duration) -> Self {
        let (pictures, to_draw) = crossbeam_channel::bounded(1);
        let pen = Pen::new(store, plain, interval);
        // Not waited for at the end: it may be stuck in a terminal.
        thread::spawn(move || {
            for status in to_draw {
                // Whoever reads stdout may have gone; metering goes on.
                drop(pen.draw(&status));
            }
        });
        Self(pictures)
    }

    /// Shows a status; skipped while the one before is still being drawn.
    pub(super) fn show(&self, status: AgentStatus) {
        drop(self.0.try_send(status));
    }
}

struct Pen {
    store: Arc<SqliteStore>,
    in_place: bool,
    style: Style,
    span_seconds: u64,
}

impl Pen {
    fn new(store: Arc<SqliteStore>, plain: bool, interval: Duration) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let style = Style::choose(is_terminal, std::env::var_os("NO_COLOR").as_deref());
        // Long enough to hold a few ticks.
        let span_seconds = (interval.as_secs() * 3).max(60);
        Self { store, in_place: is_terminal && !plain, style, span_seconds }
    }

    fn draw(&self, status: &AgentStatus) -> io::Result<()> {
        let mut text = Vec::new();
        if self.in_place {
            // Without wrapping: rows too wide for the terminal would scroll the picture away.
            text.extend_from_slice(b"\x1b[?7l\x1b[H\x1b[J");
        }
        self.write_status(status, &mut text)?;
        self.write_table(&mut text)?;
        text.extend_from_slice(if self.in_place { b"\x1b[?7h" } else { b"\n" });
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()
    }

    fn write_status(&self, status: &AgentStatus, out: &mut Vec<u8>) -> io::Result<()> {
        let coverage = match status.coverage {
            Some(coverage) => format!("{:.0} %", coverage * 100.0),
            None => "unknown (little moved)".to_owned(),
        };
        let line = format!(
            "weir · {} · {} connections · {} counted since start · coverage {coverage} · every {:.0} s",
            status.source,
            status.connections,
            bytes(status.billed_bytes),
            status.interval.as_secs_f64(),
        );
        writeln!(out, "{}", self.style.bold(line))?;
        let mut warn = |text: String| writeln!(out, "{}", self.style.warning(text));
        if status.lost_events > 0 {
            warn(format!(
                "{} DESTROY events were lost by the kernel; declared as a gap",
                status.lost_events
            ))?;
        }
        if status.ledger.uncounted_entries > 0 {
            warn(format!(
                "{} connections carry no counters: their bytes are unknown",
                status.ledger.uncounted_entries
            ))?;
        }
        for (_, cause) in &status.causes {
            warn(format!("coverage is low: {cause}"))?;
        }
        if let Some(reason) = &status.waiting_because {
            warn(format!(
                "{} batches wait in the spool: {}",
                status.undelivered,
                render::Shown(reason)
            ))?;
        }
        Ok(())
    }

    fn write_table(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let until = moment::now_seconds() + 1;
        let name = |side| Field::Endpoint(side, EndpointField::Name);
        let query = FlowQuery {
            range: until.saturating_sub(self.span_seconds)..until,
            filter: Filter::All,
            group_by: vec![
                name(Side::Source),
                name(Side::Destination),
                Field::DestinationPort,
                Field::Protocol,
            ],
            bucket_seconds: None,
            measures: Measure::ALL.to_vec(),
            order: Order::Measure(Measure::Bytes),
            limit: Some(ROWS),
        };
        match self.store.query(&query) {
            Ok(table) => render::write_table(&Report::from_table(&table), self.style, out),
            Err(error) => writeln!(out, "{}", self.style.warning(error)),
        }
    }
}
