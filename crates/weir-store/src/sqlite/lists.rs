//! Everything that is read but flows: epochs, gaps, counters, values.

use std::net::SocketAddr;
use std::ops::Range;

use hashbrown::HashMap;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use weir_flow::batch::{Gap, GapReason};
use weir_flow::endpoint::{EndpointKind, Resolution, Unresolved};
use weir_flow::ingest::Ranges;
use weir_flow::{BatchId, Digest, EndpointField, Epoch, Field, Side};

use super::facts::{address_of, class_of, protocol_of, stored};
use crate::{CommittedEpoch, CounterSum, StoredGap};

/// Gaps in one answer.
const GAPS: i64 = 10_000;

/// An epoch as the writer knows it.
#[derive(Clone, Debug)]
pub(super) struct KnownEpoch {
    /// Its row; 0 while it has none.
    pub(super) id: i64,
    pub(super) node: String,
    pub(super) ranges: Ranges,
    /// End of its latest batch, seconds since 1970.
    pub(super) last: u64,
}

impl KnownEpoch {
    pub(super) fn new(node: &str) -> Self {
        Self { id: 0, node: node.to_owned(), ranges: Ranges::default(), last: 0 }
    }

    /// The largest committed number; 0 where there is none.
    pub(super) fn newest(&self) -> u64 {
        self.ranges.spans().last().map_or(0, |&(_, last)| last)
    }
}

pub(super) fn epochs(connection: &Connection) -> rusqlite::Result<HashMap<u128, KnownEpoch>> {
    let mut spans = connection
        .prepare_cached("SELECT first, last FROM committed WHERE epoch = ?1 ORDER BY first")?;
    let mut statement = connection.prepare_cached("SELECT id, epoch, node, last FROM epoch")?;
    let mut rows = statement.query([])?;
    let mut epochs = HashMap::new();
    while let Some(row) = rows.next()? {
        let mut known = KnownEpoch {
            id: row.get(0)?,
            node: row.get(2)?,
            ranges: Ranges::default(),
            last: unsigned(row, 3)?,
        };
        let mut ranges = spans.query([known.id])?;
        while let Some(span) = ranges.next()? {
            known.ranges.push(unsigned(span, 0)?, unsigned(span, 1)?);
        }
        epochs.insert(u128::from_be_bytes(row.get(1)?), known);
    }
    Ok(epochs)
}

/// Writes what changed of an epoch.
pub(super) fn write_epoch(
    connection: &Connection,
    epoch: Epoch,
    before: Option<&KnownEpoch>,
    now: &mut KnownEpoch,
) -> rusqlite::Result<()> {
    if now.id == 0 {
        now.id = connection
            .prepare_cached("INSERT INTO epoch (epoch, node, last) VALUES (?1, ?2, ?3)")?
            .insert(params![epoch.0.to_be_bytes(), now.node, stored(now.last)])?;
    } else {
        connection
            .prepare_cached("UPDATE epoch SET last = ?2 WHERE id = ?1")?
            .execute([now.id, stored(now.last)])?;
    }
    let old = before.map_or(&[][..], |before| before.ranges.spans());
    let new = now.ranges.spans();
    for (first, _) in old.iter().filter(|(first, _)| new.iter().all(|(kept, _)| kept != first)) {
        connection
            .prepare_cached("DELETE FROM committed WHERE epoch = ?1 AND first = ?2")?
            .execute([now.id, stored(*first)])?;
    }
    for (first, last) in new.iter().filter(|span| !old.contains(span)) {
        connection
            .prepare_cached(
                "INSERT INTO committed (epoch, first, last) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET last = excluded.last",
            )?
            .execute([now.id, stored(*first), stored(*last)])?;
    }
    Ok(())
}

/// The digest of a committed batch, where it is still kept.
pub(super) fn digest(
    connection: &Connection,
    epoch: i64,
    sequence: u64,
) -> rusqlite::Result<Option<Digest>> {
    connection
        .prepare_cached("SELECT digest FROM digest WHERE epoch = ?1 AND sequence = ?2")?
        .query_row([epoch, stored(sequence)], |row| Ok(Digest(u128::from_be_bytes(row.get(0)?))))
        .optional()
}

pub(super) fn committed(connection: &Connection) -> rusqlite::Result<Vec<CommittedEpoch>> {
    let mut digests = connection
        .prepare_cached("SELECT sequence, digest FROM digest WHERE epoch = ?1 ORDER BY sequence")?;
    let mut committed = epochs(connection)?
        .into_iter()
        .map(|(epoch, known)| {
            let digests = digests
                .query_map([known.id], |row| {
                    Ok((unsigned(row, 0)?, Digest(u128::from_be_bytes(row.get(1)?))))
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(CommittedEpoch {
                epoch: Epoch(epoch),
                node: known.node,
                ranges: known.ranges,
                digests,
            })
        })
        .collect::<rusqlite::Result<Vec<_>>>()?;
    committed.sort_unstable_by_key(|known| known.epoch);
    Ok(committed)
}

pub(super) fn gaps(
    connection: &Connection,
    range: &Range<u64>,
) -> rusqlite::Result<Vec<StoredGap>> {
    let mut statement = connection.prepare_cached(
        "SELECT node.name, epoch, sequence, reason, from_seconds, to_seconds, connections, \
         records, bytes, bytes_bound FROM gap JOIN node ON node.id = gap.node \
         WHERE to_seconds >= ?1 AND from_seconds < ?2 \
         ORDER BY from_seconds DESC, epoch DESC, sequence DESC, gap.id DESC LIMIT ?3",
    )?;
    let mut gaps = statement
        .query_map([stored(range.start), stored(range.end), GAPS], |row| {
            Ok(StoredGap {
                node: row.get(0)?,
                batch: BatchId {
                    epoch: Epoch(u128::from_be_bytes(row.get(1)?)),
                    sequence: unsigned(row, 2)?,
                },
                gap: Gap {
                    reason: GapReason::from_code(row.get(3)?).unwrap_or_default(),
                    from_seconds: unsigned(row, 4)?,
                    to_seconds: unsigned(row, 5)?,
                    connections: unsigned(row, 6)?,
                    records: unsigned(row, 7)?,
                    bytes: unsigned(row, 8)?,
                    bytes_bound: row
                        .get::<_, Option<i64>>(9)?
                        .map(|bound| u64::try_from(bound).unwrap_or(0)),
                },
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    gaps.reverse();
    Ok(gaps)
}

pub(super) fn counters(
    connection: &Connection,
    range: &Range<u64>,
) -> rusqlite::Result<Vec<CounterSum>> {
    let mut statement = connection.prepare_cached(
        "SELECT node.name, counter.name, value FROM counter JOIN node ON node.id = counter.node \
         WHERE hour >= ?1 AND hour < ?2 ORDER BY 1, 2",
    )?;
    let mut rows =
        statement.query([stored(range.start / 3_600), stored(range.end.div_ceil(3_600))])?;
    let mut sums: Vec<CounterSum> = Vec::new();
    while let Some(row) = rows.next()? {
        let sum = CounterSum { node: row.get(0)?, name: row.get(1)?, value: row.get(2)? };
        match sums.last_mut() {
            Some(last) if (&last.node, &last.name) == (&sum.node, &sum.name) => {
                last.value = last.value.saturating_add(sum.value).max(-i64::MAX);
            }
            _ => sums.push(sum),
        }
    }
    sums.retain(|sum| sum.value != 0);
    Ok(sums)
}

pub(super) fn values(
    connection: &Connection,
    dimension: Field,
    prefix: &str,
    limit: usize,
) -> rusqlite::Result<Vec<String>> {
    let read = ValueReader::of(dimension);
    let mut statement = connection.prepare(&read.sql)?;
    // Where text is stored as it is written, it comes in order and begins at the prefix.
    let start = if read.is_text { prefix } else { "" };
    let mut rows = statement.query([start])?;
    let mut values = Vec::new();
    while values.len() < limit
        && let Some(row) = rows.next()?
    {
        match (read.written)(row)? {
            Some(value) if value.starts_with(prefix) => values.push(value),
            _ if read.is_text => break,
            _ => {}
        }
    }
    Ok(values)
}

/// How the values of a field are read.
struct ValueReader {
    /// One parameter: where text begins. In the order of the answer.
    sql: String,
    is_text: bool,
    written: fn(&Row<'_>) -> rusqlite::Result<Option<String>>,
}

impl ValueReader {
    fn of(field: Field) -> Self {
        let edge = |column: &str| {
            format!("SELECT DISTINCT {column} FROM edge WHERE ?1 = '' ORDER BY {column}")
        };
        match field {
            Field::Endpoint(side, field) => Self::of_endpoint(side, field),
            Field::DestinationPort => Self {
                sql: edge("destination_port"),
                is_text: false,
                written: |row| Ok(Some(row.get::<_, i64>(0)?.to_string())),
            },
            Field::Protocol => Self {
                sql: edge("protocol"),
                is_text: false,
                written: |row| Ok(Some(protocol_of(row.get(0)?).to_string())),
            },
            Field::Class => Self {
                sql: edge("class"),
                is_text: false,
                written: |row| Ok(Some(class_of(row.get(0)?).to_string())),
            },
            Field::IpVersion => Self {
                sql: edge("ip_version"),
                is_text: false,
                written: |row| Ok(Some(row.get::<_, i64>(0)?.to_string())),
            },
            Field::Node => Self {
                sql: "SELECT name FROM node WHERE name >= ?1 ORDER BY name".to_owned(),
                is_text: true,
                written: |row| row.get(0),
            },
            Field::ServiceName => Self {
                sql: "SELECT DISTINCT name FROM service WHERE name >= ?1 AND name != '' \
                      ORDER BY name"
                    .to_owned(),
                is_text: true,
                written: |row| row.get(0),
            },
            Field::Service => Self {
                sql: "SELECT DISTINCT address, port FROM service WHERE ?1 = '' \
                      ORDER BY length(address), address, port"
                    .to_owned(),
                is_text: false,
                written: |row| {
                    let port = row.get(1)?;
                    let address = address_of(row.get_ref(0)?.as_blob()?);
                    Ok(address.map(|address| SocketAddr::new(address, port).to_string()))
                },
            },
        }
    }

    fn of_endpoint(side: Side, field: EndpointField) -> Self {
        let side = match side {
            Side::Source => "source",
            Side::Destination => "destination",
        };
        let column = endpoint_column(field);
        let select = |condition: &str, order: &str| {
            format!(
                "SELECT DISTINCT {column} FROM endpoint WHERE {condition} \
                 AND EXISTS (SELECT 1 FROM edge WHERE edge.{side} = endpoint.id) ORDER BY {order}"
            )
        };
        match field {
            EndpointField::Kind => Self {
                sql: select("?1 = ''", column),
                is_text: false,
                written: |row| {
                    Ok(EndpointKind::from_code(row.get(0)?).map(|kind| kind.name().to_owned()))
                },
            },
            EndpointField::Resolution => Self {
                sql: select("?1 = '' AND resolution IS NOT NULL", column),
                is_text: false,
                written: |row| {
                    Ok(Resolution::from_code(row.get(0)?).map(|how| how.name().to_owned()))
                },
            },
            EndpointField::Unresolved => Self {
                sql: select("?1 = '' AND unresolved IS NOT NULL", column),
                is_text: false,
                written: |row| {
                    Ok(Unresolved::from_code(row.get(0)?).map(|reason| reason.name().to_owned()))
                },
            },
            EndpointField::Address => Self {
                sql: select("?1 = ''", "length(address), address"),
                is_text: false,
                written: |row| {
                    Ok(address_of(row.get_ref(0)?.as_blob()?).map(|address| address.to_string()))
                },
            },
            _ => Self {
                sql: select(&format!("{column} >= ?1"), column),
                is_text: true,
                written: |row| row.get(0),
            },
        }
    }
}

/// The column of the endpoint dictionary that holds a field.
pub(super) fn endpoint_column(field: EndpointField) -> &'static str {
    match field {
        EndpointField::Id => "entity",
        EndpointField::OwnerId => "owner",
        EndpointField::Range => "range_name",
        field => field.name(),
    }
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}
