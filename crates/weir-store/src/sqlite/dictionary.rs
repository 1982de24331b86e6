//! Endpoints, services, nodes and edges become small numbers, once.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params, params_from_iter};
use weir_flow::endpoint::{Endpoint, Name, Resolution, Unresolved};

use super::cache::Cache;
use super::facts::{EdgeKey, address_bytes};

/// Endpoints remembered per generation: some 200 bytes each.
const ENDPOINTS: usize = 50_000;
/// Edges remembered per generation: 64 bytes each.
const EDGES: usize = 250_000;
/// Services remembered per generation.
const SERVICES: usize = 10_000;

/// A dictionary row as it is remembered.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: i64,
    /// The row's `last`: the latest hour known to refer to it.
    last: i64,
}

/// What the writer remembers of the dictionaries.
#[derive(Debug)]
pub(super) struct Memory {
    endpoints: Cache<Arc<Endpoint>, Known>,
    services: Cache<(IpAddr, u16, Name), Known>,
    edges: Cache<EdgeKey, Known>,
    /// Not bounded by a rule of its own: a row per machine of the cluster.
    nodes: HashMap<Box<str>, i64>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            endpoints: Cache::new(ENDPOINTS),
            services: Cache::new(SERVICES),
            edges: Cache::new(EDGES),
            nodes: HashMap::new(),
        }
    }

    /// Forgets everything: needed whenever rows may have gone, by a roll-back or by pruning.
    pub(super) fn clear(&mut self) {
        self.endpoints.clear();
        self.services.clear();
        self.edges.clear();
        self.nodes.clear();
    }
}

/// The dictionaries, within one transaction.
pub(super) struct Dictionary<'a> {
    memory: &'a mut Memory,
    connection: &'a Connection,
    find_edge: CachedStatement<'a>,
    add_edge: CachedStatement<'a>,
    touch_edge: CachedStatement<'a>,
}

impl<'a> Dictionary<'a> {
    pub(super) fn new(
        memory: &'a mut Memory,
        connection: &'a Connection,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            memory,
            connection,
            find_edge: connection.prepare_cached(
                "SELECT id, last FROM edge WHERE source = ?1 AND destination = ?2 \
                 AND destination_port = ?3 AND protocol = ?4 AND service = ?5 AND class = ?6 \
                 AND node = ?7",
            )?,
            add_edge: connection.prepare_cached(
                "INSERT INTO edge (source, destination, destination_port, protocol, service, \
                 class, node, ip_version, last) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?,
            touch_edge: connection.prepare_cached("UPDATE edge SET last = ?2 WHERE id = ?1")?,
        })
    }

    pub(super) fn node(&mut self, name: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.memory.nodes.get(name) {
            return Ok(*id);
        }
        let known = self
            .connection
            .prepare_cached("SELECT id FROM node WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => self
                .connection
                .prepare_cached("INSERT INTO node (name) VALUES (?1)")?
                .insert([name])?,
        };
        self.memory.nodes.insert(name.into(), id);
        Ok(id)
    }

    /// The endpoint's id; facts of no later hour than `hour` will refer to it.
    pub(super) fn endpoint(
        &mut self,
        endpoint: &Arc<Endpoint>,
        hour: i64,
    ) -> rusqlite::Result<i64> {
        let known = if let Some(known) = self.memory.endpoints.get(endpoint) {
            known
        } else {
            let known = match find_endpoint(self.connection, endpoint)? {
                Some(known) => known,
                None => Known { id: add_endpoint(self.connection, endpoint, hour)?, last: hour },
            };
            self.memory.endpoints.insert(Arc::clone(endpoint), known);
            known
        };
        if known.last < hour {
            self.connection
                .prepare_cached("UPDATE endpoint SET last = ?2 WHERE id = ?1")?
                .execute([known.id, hour])?;
            self.memory.endpoints.update(endpoint, Known { last: hour, ..known });
        }
        Ok(known.id)
    }

    /// The service's id; facts of no later hour than `hour` will refer to it. `name` is empty where
    /// it is not known.
    pub(super) fn service(
        &mut self,
        service: Option<(IpAddr, u16)>,
        name: &Name,
        hour: i64,
    ) -> rusqlite::Result<i64> {
        let Some((address, port)) = service else { return Ok(0) };
        let service = (address, port, Arc::clone(name));
        let known = if let Some(known) = self.memory.services.get(&service) {
            known
        } else {
            let known = self.find_or_add_service(&service, hour)?;
            self.memory.services.insert(service.clone(), known);
            known
        };
        if known.last < hour {
            self.connection
                .prepare_cached("UPDATE service SET last = ?2 WHERE id = ?1")?
                .execute([known.id, hour])?;
            self.memory.services.update(&service, Known { last: hour, ..known });
        }
        Ok(known.id)
    }

    fn find_or_add_service(
        &self,
        (address, port, name): &(IpAddr, u16, Name),
        hour: i64,
    ) -> rusqlite::Result<Known> {
        let (address, name) = (address_bytes(*address), &**name);
        let known = self
            .connection
            .prepare_cached(
                "SELECT id, last FROM service WHERE address = ?1 AND port = ?2 AND name = ?3",
            )?
            .query_row(params![address, port, name], |row| {
                Ok(Known { id: row.get(0)?, last: row.get(1)? })
            })
            .optional()?;
        match known {
            Some(known) => Ok(known),
            None => Ok(Known {
                id: self
                    .connection
                    .prepare_cached(
                        "INSERT INTO service (address, port, name, last) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .insert(params![address, port, name, hour])?,
                last: hour,
            }),
        }
    }

    /// The edge's id; a fact of `hour` will refer to it.
    pub(super) fn edge(
        &mut self,
        key: &EdgeKey,
        ip_version: u8,
        hour: i64,
    ) -> rusqlite::Result<i64> {
        let known = if let Some(known) = self.memory.edges.get(key) {
            known
        } else {
            let known = self.find_or_add_edge(key, ip_version, hour)?;
            self.memory.edges.insert(*key, known);
            known
        };
        if known.last < hour {
            self.touch_edge.execute([known.id, hour])?;
            self.memory.edges.update(key, Known { last: hour, ..known });
        }
        Ok(known.id)
    }

    fn find_or_add_edge(
        &mut self,
        key: &EdgeKey,
        ip_version: u8,
        hour: i64,
    ) -> rusqlite::Result<Known> {
        let EdgeKey { source, destination, service, node, destination_port, protocol, class } =
            *key;
        let known = self
            .find_edge
            .query_row(
                params![source, destination, destination_port, protocol, service, class, node],
                |row| Ok(Known { id: row.get(0)?, last: row.get(1)? }),
            )
            .optional()?;
        match known {
            Some(known) => Ok(known),
            None => Ok(Known {
                id: self.add_edge.insert(params![
                    source,
                    destination,
                    destination_port,
                    protocol,
                    service,
                    class,
                    node,
                    ip_version,
                    hour
                ])?,
                last: hour,
            }),
        }
    }
}

/// What makes an endpoint, in the order of [`identity`].
const IDENTITY: [&str; 21] = [
    "address",
    "kind",
    "host",
    "unit",
    "container",
    "executable",
    "namespace",
    "pod",
    "service",
    "workload_kind",
    "workload_name",
    "node",
    "zone",
    "region",
    "app",
    "labels",
    "cloud",
    "cloud_service",
    "range_name",
    "resolution",
    "unresolved",
];

fn identity(endpoint: &Endpoint) -> [Value; IDENTITY.len()] {
    let text = |name: &Option<Name>| name.as_deref().map(str::to_owned).into();
    let number = |code: Option<u8>| code.map(i64::from).into();
    [
        address_bytes(endpoint.address).into(),
        i64::from(endpoint.kind.code()).into(),
        text(&endpoint.host),
        text(&endpoint.unit),
        text(&endpoint.container),
        text(&endpoint.executable),
        text(&endpoint.namespace),
        text(&endpoint.pod),
        text(&endpoint.service),
        text(&endpoint.workload_kind),
        text(&endpoint.workload_name),
        text(&endpoint.node),
        text(&endpoint.zone),
        text(&endpoint.region),
        text(&endpoint.app),
        text(&endpoint.labels),
        text(&endpoint.cloud),
        text(&endpoint.cloud_service),
        text(&endpoint.range),
        number(endpoint.resolution.map(Resolution::code)),
        number(endpoint.unresolved.map(Unresolved::code)),
    ]
}

fn find_endpoint(connection: &Connection, endpoint: &Endpoint) -> rusqlite::Result<Option<Known>> {
    let tests: Vec<String> =
        (1..).zip(IDENTITY).map(|(number, column)| format!("{column} IS ?{number}")).collect();
    connection
        .prepare_cached(&format!("SELECT id, last FROM endpoint WHERE {}", tests.join(" AND ")))?
        .query_row(params_from_iter(identity(endpoint)), |row| {
            Ok(Known { id: row.get(0)?, last: row.get(1)? })
        })
        .optional()
}

fn add_endpoint(connection: &Connection, endpoint: &Endpoint, hour: i64) -> rusqlite::Result<i64> {
    let derived: [Value; 5] = [
        endpoint.name().into(),
        endpoint.id().into(),
        endpoint.workload().into(),
        endpoint.owner_id().into(),
        hour.into(),
    ];
    let places: Vec<String> =
        (1..=IDENTITY.len() + derived.len()).map(|number| format!("?{number}")).collect();
    connection
        .prepare_cached(&format!(
            "INSERT INTO endpoint ({}, name, entity, workload, owner, last) VALUES ({})",
            IDENTITY.join(", "),
            places.join(", ")
        ))?
        .insert(params_from_iter(identity(endpoint).into_iter().chain(derived)))
}
