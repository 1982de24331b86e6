//! Answering queries: one statement a question, whose rows come summed, in order and cut.

use std::sync::Arc;

use hashbrown::HashMap;
use weir_flow::endpoint::{EndpointKind, Resolution, Unresolved};
use weir_flow::tuple::Protocol;
use weir_flow::{Class, EndpointField, Field, Filter, Level};

use super::connection::{Connection, Format};
use super::filter::{Parameters, condition};
use super::rows::{Malformed, Rows};
use super::schema::{column, flow_table, prefix};
use crate::check::{KeptLevel, LAST_SECOND};
use crate::plan::{HeldLevel, Plan, plan};
use crate::{Cell, Column, FlowQuery, Limits, Measure, Order, Result, StoreError, Table};

/// What is asked of the database; ends a sentence that begins with "cannot".
const OPERATION: &str = "query flows";

pub(super) fn query(
    connection: &Connection,
    levels: &[KeptLevel; 3],
    query: &FlowQuery,
    limits: &Limits,
) -> Result<Table> {
    let question = Question::new(query, levels, limits.query_groups)?;
    if question.plan.segments.is_empty() {
        return Ok(question.nothing(query));
    }
    let statement = question.parameters.statement(OPERATION, &question.sql).within(limits);
    let answer = connection.rows(statement, Format::RowBinary)?;
    question
        .table(query, &answer)
        .map_err(|Malformed| connection.unreadable(OPERATION, "rows of another shape"))?
        .ok_or(StoreError::TooManyGroups { limit: limits.query_groups })
}

/// A question in ClickHouse's words.
#[derive(Debug)]
struct Question {
    sql: String,
    parameters: Parameters,
    /// Rows that are shown of those that come.
    shown: usize,
    /// Nobody asked for fewer rows than there may be groups.
    is_whole: bool,
    plan: Plan,
}

impl Question {
    /// Puts the question into one statement. `groups`: the most it may sum into.
    fn new(query: &FlowQuery, levels: &[KeptLevel; 3], groups: usize) -> Result<Self> {
        let held: Vec<HeldLevel> = levels
            .iter()
            .filter(|kept| kept.retention > 0)
            .map(|kept| HeldLevel { level: kept.level, horizon: kept.horizon })
            .collect();
        let range = query.range.start.min(LAST_SECOND + 1)..query.range.end.min(LAST_SECOND + 1);
        let plan = plan(&range, query.bucket_seconds, &held)
            .ok_or(StoreError::Query { reason: "has no level to read: none is kept" })?;
        let shown = query.limit.unwrap_or(groups).min(groups);
        let is_whole = query.limit.is_none_or(|limit| limit >= groups);
        let mut parameters = Parameters::default();
        let sql = statement(query, &plan, shown, &mut parameters);
        Ok(Self { sql, parameters, shown, is_whole, plan })
    }

    fn nothing(self, query: &FlowQuery) -> Table {
        self.of_rows(query, Vec::new(), false)
    }

    /// The table from the rows that came. `None`: there are more groups than a query may have.
    fn table(
        self,
        query: &FlowQuery,
        answer: &[u8],
    ) -> std::result::Result<Option<Table>, Malformed> {
        let mut texts = Texts::default();
        let mut source = Rows::new(answer);
        let mut rows = Vec::new();
        let mut more = false;
        while !source.is_empty() {
            let row = row(query, &self.plan, &mut source, &mut texts)?;
            more = rows.len() == self.shown;
            if !more {
                rows.push(row);
            }
        }
        if more && self.is_whole {
            return Ok(None);
        }
        Ok(Some(self.of_rows(query, rows, more)))
    }

    fn of_rows(self, query: &FlowQuery, rows: Vec<Vec<Cell>>, more: bool) -> Table {
        let columns = self
            .plan
            .bucket_seconds
            .map(|_| Column::Bucket)
            .into_iter()
            .chain(query.group_by.iter().copied().map(Column::Field))
            .chain(query.measures.iter().copied().map(Column::Measure))
            .collect();
        Table {
            columns,
            rows,
            level: self.plan.level,
            window_seconds: self.plan.window_seconds,
            bucket_seconds: self.plan.bucket_seconds,
            covers: self.plan.covers,
            more,
        }
    }
}

fn statement(query: &FlowQuery, plan: &Plan, shown: usize, parameters: &mut Parameters) -> String {
    let bucket = plan.bucket_seconds.map(|bucket| self::bucket(bucket, parameters));
    let fields = query.group_by.iter().flat_map(|field| key(*field));
    let keys: Vec<String> = bucket.into_iter().chain(fields).collect();
    let sums = query.measures.iter().map(|measure| sum(*measure));
    let columns: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| format!("{key} AS k{index}"))
        .chain(sums.enumerate().map(|(index, sum)| format!("{sum} AS m{index}")))
        .collect();
    // A row without columns would have no bytes.
    let columns = if columns.is_empty() { "toUInt8(1)".to_owned() } else { columns.join(", ") };

    let names: Vec<String> = (0..keys.len()).map(|index| format!("k{index}")).collect();
    let order = match query.order {
        Order::Measure(measure) => Some(format!("{} DESC", sum(measure))),
        Order::Keys => None,
    };
    let order: Vec<String> = order.into_iter().chain(names.iter().cloned()).collect();
    let group = match names.as_slice() {
        // Where nothing is grouped there would be a row of nothing.
        [] => "HAVING count() > 0".to_owned(),
        names => format!("GROUP BY {}", names.join(", ")),
    };
    let order =
        if order.is_empty() { String::new() } else { format!("ORDER BY {}", order.join(", ")) };
    let source = source(query, plan, parameters);
    format!("SELECT {columns} FROM {source} {group} {order} LIMIT {}", shown.saturating_add(1))
}

/// The rows to sum: of one table, or of several one after the other.
fn source(query: &FlowQuery, plan: &Plan, parameters: &mut Parameters) -> String {
    let condition = condition(&query.filter, parameters);
    let condition = match query.filter {
        Filter::All => String::new(),
        _ => format!(" AND {condition}"),
    };
    let parts: Vec<String> = plan
        .segments
        .iter()
        .map(|(level, part)| {
            let mut time = |seconds| {
                let seconds = u32::try_from(seconds).unwrap_or(u32::MAX).to_string();
                format!("toDateTime({}, 'UTC')", parameters.bind("UInt32", seconds))
            };
            let flows_only = if *level == Level::TenSeconds { " AND is_batch = 0" } else { "" };
            format!(
                "{} WHERE window >= {} AND window < {}{flows_only}{condition}",
                flow_table(*level),
                time(part.start),
                time(part.end),
            )
        })
        .collect();
    match parts.as_slice() {
        [one] => one.clone(),
        parts => {
            let columns = needed(query, plan).join(", ");
            let parts: Vec<String> =
                parts.iter().map(|part| format!("SELECT {columns} FROM {part}")).collect();
            format!("({})", parts.join(" UNION ALL "))
        }
    }
}

/// The stored columns that keys and sums are made of.
fn needed(query: &FlowQuery, plan: &Plan) -> Vec<String> {
    let ordered = match query.order {
        Order::Measure(measure) => Some(measure),
        Order::Keys => None,
    };
    let measures = query.measures.iter().copied().chain(ordered);
    let sums = measures.flat_map(stored).map(|sum| (*sum).to_owned());
    let window = plan.bucket_seconds.map(|_| "window".to_owned());
    let mut columns: Vec<String> =
        query.group_by.iter().flat_map(|field| key(*field)).chain(sums).chain(window).collect();
    columns.sort_unstable();
    columns.dedup();
    if columns.is_empty() {
        columns.push("window".to_owned());
    }
    columns
}

fn bucket(seconds: u64, parameters: &mut Parameters) -> String {
    // All times that a column can hold are in the first of longer ones.
    let Ok(seconds) = u32::try_from(seconds) else { return "toUInt32(0)".to_owned() };
    let seconds = parameters.bind("UInt32", seconds.to_string());
    format!("toUInt32(toUInt32(window) - toUInt32(window) % {seconds})")
}

/// The columns that tell the values of a field apart, in the order in which cells are.
pub(super) fn key(field: Field) -> Vec<String> {
    match (column(field), field) {
        (Some(column), _) => vec![column],
        (None, Field::Endpoint(side, _)) => {
            let prefix = prefix(side);
            vec![format!("{prefix}ip_version"), format!("{prefix}address")]
        }
        (None, _) => {
            ["service_version", "service_address", "service_port"].map(str::to_owned).into()
        }
    }
}

/// A sum that stays at the largest number. The engine's own wraps; what is lost by that is seen
/// beside a sum of fractions, whose error is far below 2^63.
fn sum(measure: Measure) -> String {
    let columns = stored(measure);
    let exact = columns.join(" + ");
    let rough: Vec<String> = columns.iter().map(|column| format!("toFloat64({column})")).collect();
    let (exact, rough) = (format!("sum({exact})"), format!("sum({})", rough.join(" + ")));
    format!("if({rough} - {exact} > 9e18, {}, {exact})", u64::MAX)
}

fn stored(measure: Measure) -> &'static [&'static str] {
    match measure {
        Measure::Bytes => &["bytes_sent", "bytes_received"],
        Measure::BytesSent => &["bytes_sent"],
        Measure::BytesReceived => &["bytes_received"],
        Measure::Packets => &["packets_sent", "packets_received"],
        Measure::PacketsSent => &["packets_sent"],
        Measure::PacketsReceived => &["packets_received"],
        Measure::ConnectionsOpened => &["connections_opened"],
        Measure::ConnectionsClosed => &["connections_closed"],
        Measure::ConnectionsFailed => &["connections_failed"],
        Measure::ConnectionsUnreplied => &["connections_unreplied"],
        Measure::ConnectionsUncounted => &["connections_uncounted"],
        Measure::TransitBytes => &["transit_bytes"],
    }
}

/// Texts that many cells share.
#[derive(Debug, Default)]
pub(super) struct Texts<'a>(HashMap<&'a str, Arc<str>>);

impl<'a> Texts<'a> {
    fn cell(&mut self, text: &'a str) -> Cell {
        Cell::Text(Arc::clone(self.0.entry(text).or_insert_with(|| text.into())))
    }

    fn optional(&mut self, text: &'a str) -> Cell {
        if text.is_empty() { Cell::None } else { self.cell(text) }
    }
}

fn row<'a>(
    query: &FlowQuery,
    plan: &Plan,
    source: &mut Rows<'a>,
    texts: &mut Texts<'a>,
) -> std::result::Result<Vec<Cell>, Malformed> {
    let mut cells = Vec::with_capacity(1 + query.group_by.len() + query.measures.len());
    if plan.bucket_seconds.is_some() {
        cells.push(Cell::Time(source.u32()?.into()));
    }
    for field in &query.group_by {
        cells.push(cell(*field, source, texts)?);
    }
    for _ in &query.measures {
        cells.push(Cell::Sum(source.u64()?));
    }
    if cells.is_empty() {
        source.u8()?;
    }
    Ok(cells)
}

/// Reads the columns of [`key`]. What a later weir wrote is unknown here.
pub(super) fn cell<'a>(
    field: Field,
    source: &mut Rows<'a>,
    texts: &mut Texts<'a>,
) -> std::result::Result<Cell, Malformed> {
    Ok(match field {
        Field::DestinationPort => Cell::Port(source.u16()?),
        Field::Protocol => Cell::Protocol(Protocol(source.u8()?)),
        Field::Class => Cell::Class(Class::from_code(source.u8()?).unwrap_or_default()),
        Field::IpVersion => Cell::IpVersion(source.u8()?),
        Field::Node => texts.cell(source.text()?),
        Field::ServiceName => texts.optional(source.text()?),
        Field::Service => {
            let address = source.address()?;
            let port = source.u16()?;
            address.map_or(Cell::None, |address| Cell::Service(address, port))
        }
        Field::Endpoint(_, field) => match field {
            EndpointField::Address => source.address()?.map_or(Cell::None, Cell::Address),
            EndpointField::Kind => {
                Cell::Kind(EndpointKind::from_code(source.u8()?).unwrap_or_default())
            }
            EndpointField::Resolution => {
                let code = source.u8()?.checked_sub(1);
                code.and_then(Resolution::from_code).map_or(Cell::None, Cell::Resolution)
            }
            EndpointField::Unresolved => {
                let code = source.u8()?.checked_sub(1);
                code.and_then(Unresolved::from_code).map_or(Cell::None, Cell::Unresolved)
            }
            _ => texts.optional(source.text()?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(query: &FlowQuery) -> Question {
        let levels = Level::ALL.map(|level| KeptLevel { level, retention: 86_400, horizon: 0 });
        Question::new(query, &levels, 1_000).unwrap()
    }

    fn asked(by: &str, limit: Option<usize>) -> FlowQuery {
        FlowQuery {
            range: 3_600..7_260,
            filter: Filter::parse("source.unit = secret").unwrap(),
            group_by: by.split(',').map(|name| Field::parse(name).unwrap()).collect(),
            bucket_seconds: None,
            measures: vec![Measure::Packets],
            order: Order::Keys,
            limit,
        }
    }

    #[test]
    fn levels_are_summed_together_and_only_their_needed_columns_read() {
        let sql = question(&asked("service,destination.address", Some(5))).sql;
        let columns = "dst_address, dst_ip_version, packets_received, packets_sent, \
                       service_address, service_port, service_version";
        for level in ["flow_1h", "flow_1m"] {
            assert!(sql.contains(&format!("SELECT {columns} FROM {level} WHERE ")), "{sql}");
        }
        assert!(sql.contains("GROUP BY k0, k1, k2, k3, k4 "), "{sql}");
        assert!(sql.ends_with(" ORDER BY k0, k1, k2, k3, k4 LIMIT 6"), "{sql}");
        assert!(!sql.contains("secret"), "{sql}");
    }

    #[test]
    fn an_answer_of_another_shape_is_refused() {
        let query = asked("node", None);
        let row = [&[2][..], b"n1", &7_u64.to_le_bytes()].concat();
        let table = question(&query).table(&query, &row).unwrap().unwrap();
        assert_eq!(table.rows, [[Cell::Text("n1".into()), Cell::Sum(7)]]);
        for end in 1..row.len() {
            assert_eq!(question(&query).table(&query, &row[..end]), Err(Malformed), "{end}");
        }
    }

    #[test]
    fn one_row_more_than_shown_tells_that_there_is_more() {
        let row = [&[1][..], b"n", &7_u64.to_le_bytes()].concat();
        let rows = row.repeat(3);
        let query = asked("node", Some(2));
        let table = question(&query).table(&query, &rows).unwrap().unwrap();
        assert_eq!((table.rows.len(), table.more), (2, true));
        // Nobody asked for fewer than there may be.
        let query = asked("node", None);
        let levels = Level::ALL.map(|level| KeptLevel { level, retention: 1, horizon: 0 });
        let table = Question::new(&query, &levels, 2).unwrap().table(&query, &rows).unwrap();
        assert_eq!(table, None);
    }
}
