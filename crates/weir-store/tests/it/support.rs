//! Batches to commit, and a model that answers queries from memory.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use weir_flow::batch::Gap;
use weir_flow::endpoint::Name;
use weir_flow::filter::FlowView;
use weir_flow::fold::{Flow, FlowKey};
use weir_flow::tuple::Protocol;
use weir_flow::{
    BatchId, Class, Digest, Endpoint, EndpointField, EndpointKind, Epoch, Field, Filter, Folded,
    Level, Measures, Side,
};
use weir_lab::clickhouse::{Database, Engine};
use weir_store::{
    Cell, ClickHouseOptions, ClickHouseStore, CommitBatch, FlowQuery, FlowStore, Measure, Options,
    Order, Outcome, Password, SqliteStore, Table,
};

/// 2026-11-20T12:00:00Z.
pub(crate) const NOON: u64 = 1_795_176_000;
pub(crate) const EPOCH: Epoch = Epoch(7);

/// A store that is gone after the test.
pub(crate) struct TestStore<S> {
    pub(crate) store: S,
    pub(crate) directory: TempDir,
}

pub(crate) fn sqlite(options: Options) -> TestStore<SqliteStore> {
    let directory = TempDir::new().unwrap();
    TestStore { store: SqliteStore::open(directory.path(), options).unwrap(), directory }
}

/// A store in a database that is gone after the test.
pub(crate) struct TestClickHouse {
    pub(crate) store: ClickHouseStore,
    pub(crate) database: Database,
}

/// ClickHouse's engine, or a loud skip.
pub(crate) fn engine(what: &str) -> Option<Engine> {
    Engine::for_test(what).unwrap()
}

/// A store of its own in ClickHouse. Its flows are of any age, so that none may expire.
pub(crate) fn clickhouse(engine: &Engine, options: Options) -> TestClickHouse {
    let database = engine.name();
    let Options { retention, limits } = options;
    let options = ClickHouseOptions { retention, limits, ..clickhouse_options(&database) };
    TestClickHouse { store: ClickHouseStore::open(options).unwrap(), database }
}

/// How a store reaches this database.
pub(crate) fn clickhouse_options(database: &Database) -> ClickHouseOptions {
    let engine = database.engine();
    ClickHouseOptions {
        user: engine.user().map(str::to_owned),
        password: engine.password().map(|password| Password::new(password.to_owned())),
        expire: false,
        // A busy machine is no error.
        timeout: Duration::from_mins(5),
        ..ClickHouseOptions::new(engine.url(), database.name())
    }
}

/// A flow of the finest level, all its words spelled out.
#[derive(Clone, Debug)]
pub(crate) struct Spelled {
    pub(crate) window: u64,
    pub(crate) node: String,
    pub(crate) protocol: Protocol,
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
    pub(crate) destination_port: u16,
    pub(crate) service: Option<(IpAddr, u16)>,
    pub(crate) service_name: Option<Name>,
    pub(crate) class: Class,
    pub(crate) measures: Measures,
}

impl Spelled {
    pub(crate) fn new(window: u64, source: &str, destination: &str, bytes_sent: u64) -> Self {
        Self {
            window,
            node: "n1".to_owned(),
            protocol: Protocol::TCP,
            source: external(source),
            destination: external(destination),
            destination_port: 443,
            service: None,
            service_name: None,
            class: Class::Internet,
            measures: Measures { bytes_sent, ..Measures::default() },
        }
    }

    fn cell(&self, field: Field) -> Cell {
        match field {
            Field::Endpoint(Side::Source, field) => endpoint_cell(&named(&self.source), field),
            Field::Endpoint(Side::Destination, field) => {
                endpoint_cell(&named(&self.destination), field)
            }
            Field::DestinationPort => Cell::Port(self.destination_port),
            Field::Protocol => Cell::Protocol(self.protocol),
            Field::Service => {
                self.service.map_or(Cell::None, |(address, port)| Cell::Service(address, port))
            }
            Field::ServiceName => self.service_name.clone().map_or(Cell::None, Cell::Text),
            Field::Class => Cell::Class(self.class),
            Field::Node => Cell::Text(self.node.as_str().into()),
            Field::IpVersion => Cell::IpVersion(if self.source.address.is_ipv4() { 4 } else { 6 }),
        }
    }

    fn passes(&self, filter: &Filter) -> bool {
        filter.matches(&FlowView {
            source: &named(&self.source),
            destination: &named(&self.destination),
            protocol: self.protocol,
            destination_port: self.destination_port,
            service: self.service,
            service_name: self.service_name.as_deref(),
            class: self.class,
            node: &self.node,
        })
    }
}

/// As a store has it: an empty name is no name.
fn named(endpoint: &Endpoint) -> Arc<Endpoint> {
    Arc::new(endpoint.clone()).without_empty_names()
}

fn endpoint_cell(endpoint: &Endpoint, field: EndpointField) -> Cell {
    match field {
        EndpointField::Kind => Cell::Kind(endpoint.kind),
        EndpointField::Address => Cell::Address(endpoint.address),
        EndpointField::Resolution => endpoint.resolution.map_or(Cell::None, Cell::Resolution),
        EndpointField::Unresolved => endpoint.unresolved.map_or(Cell::None, Cell::Unresolved),
        field => endpoint.text(field).map_or(Cell::None, |text| Cell::Text(text.into())),
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn external(address: &str) -> Endpoint {
    Endpoint::bare(EndpointKind::External, ip(address))
}

pub(crate) fn unit(address: &str, unit: &str) -> Endpoint {
    Endpoint {
        host: Some("box".into()),
        unit: Some(unit.into()),
        ..Endpoint::bare(EndpointKind::Host, ip(address))
    }
}

/// Folds flows of one node.
pub(crate) fn folded(flows: impl IntoIterator<Item: Borrow<Spelled>>) -> Folded {
    let mut endpoints: Vec<Arc<Endpoint>> = Vec::new();
    let mut service_names: Vec<Name> = Vec::new();
    let mut levels: [BTreeMap<FlowKey, Measures>; 3] = Default::default();
    for flow in flows {
        let flow = flow.borrow();
        let mut index = |endpoint: &Endpoint| {
            let found = endpoints.iter().position(|known| **known == *endpoint);
            let index = found.unwrap_or_else(|| {
                endpoints.push(Arc::new(endpoint.clone()));
                endpoints.len() - 1
            });
            u32::try_from(index).unwrap()
        };
        let (source, destination) = (index(&flow.source), index(&flow.destination));
        let service_name = flow.service_name.as_ref().map(|name| {
            let found = service_names.iter().position(|known| known == name);
            let index = found.unwrap_or_else(|| {
                service_names.push(Name::clone(name));
                service_names.len() - 1
            });
            u32::try_from(index).unwrap()
        });
        for (level, sums) in Level::ALL.into_iter().zip(&mut levels) {
            let key = FlowKey {
                window: flow.window - flow.window % level.seconds(),
                protocol: flow.protocol,
                source,
                destination,
                destination_port: flow.destination_port,
                service: flow.service,
                service_name,
                class: flow.class,
            };
            *sums.entry(key).or_default() += flow.measures;
        }
    }
    let levels =
        levels.map(|sums| sums.into_iter().map(|(key, measures)| Flow { key, measures }).collect());
    Folded { endpoints, service_names, levels, folded_keys: 0 }
}

/// Commits one batch.
pub(crate) fn commit(
    store: &dyn FlowStore,
    node: &str,
    sequence: u64,
    flows: &Folded,
    gaps: &[Gap],
) -> Outcome {
    let batch = batch(node, sequence, flows, gaps);
    store.commit(&[batch]).unwrap().pop().unwrap()
}

pub(crate) fn batch<'a>(
    node: &'a str,
    sequence: u64,
    flows: &'a Folded,
    gaps: &'a [Gap],
) -> CommitBatch<'a> {
    let newest = flows.levels[0].iter().map(|flow| flow.key.window.saturating_add(10)).max();
    CommitBatch {
        node,
        id: BatchId { epoch: EPOCH, sequence },
        digest: Digest(sequence.into()),
        end_seconds: newest.unwrap_or(NOON),
        flows,
        gaps,
        counters: &[],
        records: &[],
        wall_offset: 0,
    }
}

/// Commits flows of any nodes, each node in an epoch of its own.
pub(crate) fn commit_all(store: &dyn FlowStore, sequence: u64, flows: &[Spelled]) {
    let mut nodes: BTreeMap<&str, Vec<&Spelled>> = BTreeMap::new();
    for flow in flows {
        nodes.entry(&flow.node).or_default().push(flow);
    }
    let folded: Vec<(&str, Folded)> =
        nodes.into_iter().map(|(node, flows)| (node, folded(flows))).collect();
    let epoch = |node: &str| Epoch(node.bytes().fold(1, |id, byte| id << 8 | u128::from(byte)));
    let batches: Vec<CommitBatch<'_>> = folded
        .iter()
        .map(|(node, flows)| CommitBatch {
            id: BatchId { epoch: epoch(node), sequence },
            ..batch(node, sequence, flows, &[])
        })
        .collect();
    let outcomes = store.commit(&batches).unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Committed), "{outcomes:?}");
}

pub(crate) fn query(range: Range<u64>, by: &str) -> FlowQuery {
    FlowQuery {
        range,
        filter: Filter::All,
        group_by: fields(by),
        bucket_seconds: None,
        measures: vec![Measure::Bytes],
        order: Order::Measure(Measure::Bytes),
        limit: None,
    }
}

pub(crate) fn fields(by: &str) -> Vec<Field> {
    by.split(',').filter(|name| !name.is_empty()).map(|name| Field::parse(name).unwrap()).collect()
}

/// What the table should say, summed one flow after the other.
pub(crate) fn model(flows: &[Spelled], query: &FlowQuery, table: &Table) -> Vec<Vec<Cell>> {
    type Key = (Option<u64>, Vec<Cell>);
    let mut groups: BTreeMap<Key, Measures> = BTreeMap::new();
    for flow in flows {
        if table.covers.contains(&flow.window) && flow.passes(&query.filter) {
            let bucket = table.bucket_seconds.map(|bucket| flow.window - flow.window % bucket);
            let cells = query.group_by.iter().map(|field| flow.cell(*field)).collect();
            *groups.entry((bucket, cells)).or_default() += flow.measures;
        }
    }
    let mut groups: Vec<(Key, Measures)> = groups.into_iter().collect();
    if let Order::Measure(measure) = query.order {
        // Stable: ties stay in the order of their keys.
        groups.sort_by_key(|(_, sums)| std::cmp::Reverse(measure.of(sums)));
    }
    groups.truncate(query.limit.unwrap_or(usize::MAX));
    groups
        .into_iter()
        .map(|((bucket, cells), sums)| {
            let bucket = bucket.map(Cell::Time).into_iter();
            let measures = query.measures.iter().map(|measure| Cell::Sum(measure.of(&sums)));
            bucket.chain(cells).chain(measures).collect()
        })
        .collect()
}

/// Rows as text, for tables whose cells are plain to read.
pub(crate) fn text(table: &Table) -> Vec<String> {
    let row = |row: &Vec<Cell>| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    table.rows.iter().map(row).collect()
}
