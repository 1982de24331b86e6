//! kubenetmon's table, written besides: two rows of every record that has a place there.
//!
//! A batch's rows go in before the batch itself, under tokens of their own, so that a batch that is
//! committed has its rows and one that is sent again adds none. Rows that come another way
//! ([`crate::KubenetmonSink`]) have only the token that is given with them.

mod encode;
mod table;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use weir_flow::Name;
use weir_flow::kubenetmon::{Counts, Ends, Observation, Row, Settings};

use super::commit::{Insert, Place, insert_all, settings};
use super::connection::{Connection, Format, Statement};
use super::ddl::Ddl;
use super::migrate::texts;
use super::options::{ClickHouseOptions, KubenetmonTable};
use super::refusal::{ACCESS_DENIED, code_of};
use crate::{CommitBatch, Result, StoreError};

/// Records or rows in one insert. It depends on nothing that may be otherwise when the same batch
/// comes again, so that the same token always stands for the same records.
const CHUNK: usize = 50_000;

/// The table, ready to be written.
#[derive(Debug)]
pub(super) struct Kubenetmon {
    table: KubenetmonTable,
    insert: String,
    counts: Mutex<Counts>,
}

impl Kubenetmon {
    /// Finds the table, made where the options allow it; `None` where it is not asked for.
    pub(super) fn open(
        connection: &Connection,
        options: &ClickHouseOptions,
    ) -> Result<Option<Self>> {
        let Some(table) = options.kubenetmon.clone() else { return Ok(None) };
        prepare(connection, options, &table, options.migrate)?;
        let columns: Vec<&str> = table::written().collect();
        let insert = format!(
            "INSERT INTO {} ({}) FORMAT RowBinary",
            table::named(&table),
            columns.join(", ")
        );
        Ok(Some(Self { table, insert, counts: Mutex::default() }))
    }

    /// Writes the rows of these batches.
    pub(super) fn commit(
        &self,
        place: &Place<'_>,
        batches: &[CommitBatch<'_>],
        take: &[usize],
    ) -> Result<()> {
        let mut counts = Counts::default();
        let mut inserts = Vec::new();
        for &at in take {
            let batch = &batches[at];
            for (chunk, rows) in rows_of(batch, &self.table.settings, &mut counts).enumerate() {
                let token = format!("{:032x}-{}-{chunk}", batch.id.epoch.0, batch.id.sequence);
                if !rows.is_empty() {
                    inserts.push(Insert { at, token, rows });
                }
            }
        }
        self.send(place, inserts)?;
        self.count(&counts);
        Ok(())
    }

    /// Writes rows that came another way.
    pub(super) fn insert(
        &self,
        place: &Place<'_>,
        rows: &[Row],
        token: Option<&str>,
    ) -> Result<()> {
        // Without one, equal blocks would be taken for the same.
        let token = token.map_or_else(unheard, str::to_owned);
        let inserts = rows.chunks(CHUNK).enumerate().map(|(at, rows)| {
            let mut encoded = Vec::with_capacity(rows.len() * encode::ROW_BYTES);
            for row in rows {
                encode::put(&mut encoded, row);
            }
            Insert { at, token: format!("{token}-{at}"), rows: encoded.into() }
        });
        self.send(place, inserts.collect())
    }

    /// What became of the records of committed batches.
    pub(super) fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, place: &Place<'_>, inserts: Vec<Insert>) -> Result<()> {
        if inserts.is_empty() {
            return Ok(());
        }
        let (connection, width) = (place.connection.clone(), place.width());
        let (sql, settings) = (self.insert.as_str().into(), settings(place));
        let done = place.connection.wait(async move {
            Ok(insert_all(&connection, sql, inserts, &settings, width).await)
        })?;
        done.into_iter().try_for_each(|(_, result)| result)
    }

    fn count(&self, more: &Counts) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) += *more;
    }
}

/// A token that nothing else has.
fn unheard() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{:016x}-{now:x}", RandomState::new().build_hasher().finish())
}

/// A batch's rows, a chunk of its records at a time.
fn rows_of<'a>(
    batch: &'a CommitBatch<'_>,
    settings: &'a Settings,
    counts: &'a mut Counts,
) -> impl Iterator<Item = Bytes> {
    let node = Name::from(batch.node);
    batch.records.chunks(CHUNK).map(move |records| {
        let mut encoded = Vec::with_capacity(records.len() * encode::ROW_BYTES);
        for (record, ends) in records {
            let row = Observation::of_record(record, ends, &node, batch.wall_offset)
                .and_then(|observation| Row::of(&observation, &Ends::of(ends), settings));
            counts.add(&row);
            if let Ok(row) = row {
                encode::put(&mut encoded, &row);
            }
        }
        encoded.into()
    })
}

/// Makes the table where it is missing, checks it where it is there, and lets it remember tokens;
/// changes nothing unless it may.
pub(super) fn prepare(
    connection: &Connection,
    options: &ClickHouseOptions,
    table: &KubenetmonTable,
    may_change: bool,
) -> Result<()> {
    let on_cluster = Ddl { options }.on_cluster();
    let run = |operation, sql: String| connection.run(Statement::new(operation, sql).outside());
    let mut columns = columns(connection, table)?;
    if columns.is_empty() {
        if !may_change {
            return Err(unusable(
                table,
                "it is missing: run `weir server migrate` with a user who may make tables",
            ));
        }
        run("make kubenetmon's database", table::database(table, &on_cluster))?;
        run("make kubenetmon's table", table::create(table, options, &on_cluster))?;
        columns = self::columns(connection, table)?;
    }
    if let Some(obstacle) = table::obstacle(&columns) {
        return Err(unusable(table, obstacle));
    }
    let (engine, definition) = engine(connection, table)?;
    let engine = (engine.as_str(), definition.as_str());
    // The rows of other agents take their part of it, too.
    let window = options.deduplication_window.saturating_mul(2).max(1);
    let change = table::remember(table, &on_cluster, engine, window);
    let name = format!("{}.{}", table.database, table.table);
    match change.filter(|_| may_change) {
        Some(change) => match run("let kubenetmon's table remember tokens", change.clone()) {
            Ok(()) => {
                tracing::info!(
                    table = name,
                    window,
                    "kubenetmon's table remembers the blocks it was sent: a batch that is sent again adds nothing"
                );
            }
            Err(error) if code_of(&error) == Some(ACCESS_DENIED) => warn(&name, &change, engine),
            Err(error) => return Err(error),
        },
        None if !table::remembers(engine) => warn(&name, "", engine),
        None => {}
    }
    Ok(())
}

/// Its rows are no part of what counts once: that is said, and it goes on.
fn warn(table: &str, change: &str, engine: (&str, &str)) {
    if table::remembers(engine) {
        return;
    }
    let change = if change.is_empty() { "none for this engine" } else { change };
    tracing::warn!(
        table,
        change,
        "kubenetmon's table does not remember what it was sent: its rows double where a batch has to be sent again"
    );
}

fn unusable(table: &KubenetmonTable, detail: impl Into<String>) -> StoreError {
    let table = format!("{}.{}", table.database, table.table);
    StoreError::ClickHouseTable { table, detail: detail.into() }
}

/// Names and types of its columns; none where there is no such table.
fn columns(connection: &Connection, table: &KubenetmonTable) -> Result<Vec<(String, String)>> {
    let sql = "SELECT name, type FROM system.columns \
               WHERE database = {database:String} AND table = {table:String} ORDER BY position";
    let rows = look(connection, table, sql)?;
    Ok(rows.into_iter().map(|[name, kind]| (name, kind)).collect())
}

/// Its engine, and all that is said with it.
fn engine(connection: &Connection, table: &KubenetmonTable) -> Result<(String, String)> {
    let sql = "SELECT engine, engine_full FROM system.tables \
               WHERE database = {database:String} AND name = {table:String}";
    let found = look(connection, table, sql)?.into_iter().next();
    found.map(|[engine, definition]| (engine, definition)).ok_or_else(|| {
        unusable(table, "it is gone again: see whether somebody else works on it, then start again")
    })
}

fn look(connection: &Connection, table: &KubenetmonTable, sql: &str) -> Result<Vec<[String; 2]>> {
    let operation = "look at kubenetmon's table";
    let statement = Statement::new(operation, sql)
        .outside()
        .text("database", table.database.as_str())
        .text("table", table.table.as_str());
    let answer = connection.rows(statement, Format::JsonCompactEachRow)?;
    texts(connection, operation, &answer)?
        .into_iter()
        .map(|row| {
            <[String; 2]>::try_from(row)
                .map_err(|_other| connection.unreadable(operation, "rows of another shape"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rows say of a cluster.
    pub(super) fn settings() -> Settings {
        Settings {
            environment: "development".into(),
            cloud: "aws".into(),
            region: "us-west-2".into(),
            cluster: "cluster".into(),
            ignore_udp: true,
            flags: Vec::new(),
        }
    }
}
