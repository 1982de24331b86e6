//! From edges and totals to the groups of a query.

use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, Statement};
use weir_flow::endpoint::{EndpointKind, Resolution, Unresolved};
use weir_flow::{EndpointField, Field, Side};

use super::facts::{TotalKey, address_of, class_of, protocol_of};
use super::lists::endpoint_column;
use crate::Cell;

/// A cell, once per query.
type Atom = u32;

/// The groups met so far, and how to find the group of a fact.
pub(super) struct Groups<'c> {
    connection: &'c Connection,
    fields: Vec<Field>,
    cells: Interner<Cell>,
    keys: Interner<Box<[Atom]>>,
    /// Endpoint fields that are asked for, of either side.
    endpoint_fields: Vec<EndpointField>,
    find_endpoint: Option<Statement<'c>>,
    /// The atoms of `endpoint_fields`, by endpoint.
    endpoints: HashMap<i64, Box<[Atom]>>,
    /// Address and name of each service.
    services: HashMap<i64, (Atom, Atom)>,
    nodes: HashMap<i64, Atom>,
}

/// A row of the edge dictionary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) id: i64,
    source: i64,
    destination: i64,
    destination_port: i64,
    protocol: i64,
    service: i64,
    class: i64,
    node: i64,
    ip_version: i64,
}

impl Edge {
    pub(super) const COLUMNS: &'static str =
        "id, source, destination, destination_port, protocol, service, class, node, ip_version";

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let number = |column| -> rusqlite::Result<i64> { Ok(row.get_ref(column)?.as_i64()?) };
        Ok(Self {
            id: number(0)?,
            source: number(1)?,
            destination: number(2)?,
            destination_port: number(3)?,
            protocol: number(4)?,
            service: number(5)?,
            class: number(6)?,
            node: number(7)?,
            ip_version: number(8)?,
        })
    }
}

impl<'c> Groups<'c> {
    pub(super) fn new(connection: &'c Connection, fields: &[Field]) -> rusqlite::Result<Self> {
        let mut endpoint_fields: Vec<EndpointField> = fields
            .iter()
            .filter_map(|field| match field {
                Field::Endpoint(_, field) => Some(*field),
                _ => None,
            })
            .collect();
        endpoint_fields.sort_unstable();
        endpoint_fields.dedup();
        let columns: Vec<&str> =
            endpoint_fields.iter().map(|field| endpoint_column(*field)).collect();
        let find_endpoint =
            match columns.as_slice() {
                [] => None,
                columns => Some(connection.prepare(&format!(
                    "SELECT {} FROM endpoint WHERE id = ?1",
                    columns.join(", ")
                ))?),
            };
        Ok(Self {
            connection,
            fields: fields.to_vec(),
            cells: Interner::default(),
            keys: Interner::default(),
            endpoint_fields,
            find_endpoint,
            endpoints: HashMap::new(),
            services: HashMap::new(),
            nodes: HashMap::new(),
        })
    }

    /// The group of an edge.
    pub(super) fn of_edge(&mut self, edge: &Edge) -> rusqlite::Result<u32> {
        let mut key = Vec::with_capacity(self.fields.len());
        for index in 0..self.fields.len() {
            key.push(match self.fields[index] {
                Field::Endpoint(Side::Source, field) => self.endpoint(edge.source, field)?,
                Field::Endpoint(Side::Destination, field) => {
                    self.endpoint(edge.destination, field)?
                }
                Field::DestinationPort => {
                    let port = u16::try_from(edge.destination_port).unwrap_or_default();
                    self.cells.of(Cell::Port(port))
                }
                Field::Protocol => self.cells.of(Cell::Protocol(protocol_of(edge.protocol))),
                Field::Class => self.cells.of(Cell::Class(class_of(edge.class))),
                Field::IpVersion => {
                    let version = u8::try_from(edge.ip_version).unwrap_or_default();
                    self.cells.of(Cell::IpVersion(version))
                }
                Field::Service => self.service(edge.service)?.0,
                Field::ServiceName => self.service(edge.service)?.1,
                Field::Node => self.node(edge.node)?,
            });
        }
        Ok(self.keys.of(key.into_boxed_slice()))
    }

    /// The group of a total. Fields that totals are not kept by do not come here.
    pub(super) fn of_total(&mut self, total: TotalKey) -> rusqlite::Result<u32> {
        let mut key = Vec::with_capacity(self.fields.len());
        for index in 0..self.fields.len() {
            key.push(match self.fields[index] {
                Field::Protocol => self.cells.of(Cell::Protocol(total.protocol())),
                Field::Class => self.cells.of(Cell::Class(total.class())),
                Field::IpVersion => self.cells.of(Cell::IpVersion(total.ip_version())),
                Field::Node => self.node(total.node())?,
                _ => self.cells.of(Cell::None),
            });
        }
        Ok(self.keys.of(key.into_boxed_slice()))
    }

    /// The cells of a group, one per field.
    pub(super) fn cells(&self, group: u32) -> impl Iterator<Item = Cell> {
        self.key(group).iter().map(|atom| self.cells.values[*atom as usize].clone())
    }

    /// The atoms of a group, one per field.
    pub(super) fn key(&self, group: u32) -> &[Atom] {
        &self.keys.values[group as usize]
    }

    /// By atom, its place among all cells in order: keys compare as their ranks do.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let cells = &self.cells.values;
        let mut order: Vec<Atom> = (0..).take(cells.len()).collect();
        order.sort_unstable_by(|left, right| cells[*left as usize].cmp(&cells[*right as usize]));
        let mut ranks = vec![0; cells.len()];
        for (rank, atom) in (0..).zip(order) {
            ranks[atom as usize] = rank;
        }
        ranks
    }

    fn endpoint(&mut self, id: i64, field: EndpointField) -> rusqlite::Result<Atom> {
        let index = self.endpoint_fields.iter().position(|asked| *asked == field);
        let index = index.expect("all fields of the query were gathered");
        if let Some(atoms) = self.endpoints.get(&id) {
            return Ok(atoms[index]);
        }
        let Self { find_endpoint, endpoint_fields, cells, .. } = self;
        let find = find_endpoint.as_mut().expect("prepared when an endpoint field is asked for");
        let found = find
            .query_row([id], |row| {
                let cell = |(column, field): (usize, &EndpointField)| {
                    Ok(cells.of(endpoint_cell(*field, row.get_ref(column)?)?))
                };
                endpoint_fields.iter().enumerate().map(cell).collect::<rusqlite::Result<_>>()
            })
            .optional()?;
        let atoms: Box<[Atom]> = match found {
            Some(atoms) => atoms,
            None => endpoint_fields.iter().map(|_| cells.of(Cell::None)).collect(),
        };
        let atom = atoms[index];
        self.endpoints.insert(id, atoms);
        Ok(atom)
    }

    fn service(&mut self, id: i64) -> rusqlite::Result<(Atom, Atom)> {
        if let Some(atoms) = self.services.get(&id) {
            return Ok(*atoms);
        }
        let (address, name) = self
            .connection
            .prepare_cached("SELECT address, port, name FROM service WHERE id = ?1")?
            .query_row([id], |row| {
                let port = row.get(1)?;
                let address = address_of(row.get_ref(0)?.as_blob()?);
                let name: Arc<str> = row.get(2)?;
                let name = if name.is_empty() { Cell::None } else { Cell::Text(name) };
                Ok((address.map_or(Cell::None, |address| Cell::Service(address, port)), name))
            })
            .optional()?
            .unwrap_or((Cell::None, Cell::None));
        let atoms = (self.cells.of(address), self.cells.of(name));
        self.services.insert(id, atoms);
        Ok(atoms)
    }

    fn node(&mut self, id: i64) -> rusqlite::Result<Atom> {
        if let Some(atom) = self.nodes.get(&id) {
            return Ok(*atom);
        }
        let cell = self
            .connection
            .prepare_cached("SELECT name FROM node WHERE id = ?1")?
            .query_row([id], |row| Ok(Cell::Text(row.get(0)?)))
            .optional()?
            .unwrap_or(Cell::None);
        let atom = self.cells.of(cell);
        self.nodes.insert(id, atom);
        Ok(atom)
    }
}

fn endpoint_cell(field: EndpointField, value: ValueRef<'_>) -> rusqlite::Result<Cell> {
    let code = || {
        let number = value.as_i64()?;
        u8::try_from(number).map_err(|_beyond| FromSqlError::OutOfRange(number))
    };
    Ok(match (field, value) {
        (_, ValueRef::Null) => Cell::None,
        (EndpointField::Kind, _) => {
            Cell::Kind(EndpointKind::from_code(code()?).unwrap_or_default())
        }
        (EndpointField::Resolution, _) => {
            Resolution::from_code(code()?).map_or(Cell::None, Cell::Resolution)
        }
        (EndpointField::Unresolved, _) => {
            Unresolved::from_code(code()?).map_or(Cell::None, Cell::Unresolved)
        }
        (EndpointField::Address, _) => {
            address_of(value.as_blob()?).map_or(Cell::None, Cell::Address)
        }
        _ => Cell::Text(Arc::from(value.as_str()?)),
    })
}

/// Numbers for values, in the order in which they are met.
#[derive(Debug)]
struct Interner<T> {
    numbers: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Interner<T> {
    fn of(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = u32::try_from(self.values.len()).expect("a query's limits are below 2^32");
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }
}
