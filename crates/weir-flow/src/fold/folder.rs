//! The records of one batch, summed.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::attribution::Attributed;
use crate::endpoint::{Endpoint, Name};
use crate::record::{FlowRecord, RecordFlags};
use crate::view::View;

use super::bound::representatives;
use super::spread::spread;
use super::{Flow, FlowKey, Folded, Level, Measures};

/// External endpoints per batch that are kept exact, unless told otherwise.
pub const DEFAULT_EXTERNAL_LIMIT: usize = 2_048;

/// Sums the records of a batch by flow key. Its buffers are kept from one batch to the next.
#[derive(Debug)]
pub struct Folder {
    external_limit: usize,
    endpoints: Endpoints,
    service_names: Names,
    flows: HashMap<FlowKey, Measures>,
}

impl Default for Folder {
    fn default() -> Self {
        Self::with_external_limit(DEFAULT_EXTERNAL_LIMIT)
    }
}

impl Folder {
    /// A folder that keeps the `limit` largest external endpoints of a batch exact. The others are
    /// folded to their network (/24 or /48, named by the network's address), the smallest of those
    /// to the unspecified address, so that a batch has at most `2 × limit + 2` of them.
    pub fn with_external_limit(limit: usize) -> Self {
        Self {
            external_limit: limit,
            endpoints: Endpoints::default(),
            service_names: Names::default(),
            flows: HashMap::new(),
        }
    }

    /// Adds a record. `wall_offset` is what to add to boot time to get wall time, in nanoseconds.
    ///
    /// The caller has clamped intervals that end in the future.
    pub fn add(&mut self, record: &FlowRecord, wall_offset: i64, ends: &Attributed) {
        let billed = match ends.view {
            View::Counts { transit } => Billed { totals: true, transit },
            View::Transit => Billed { totals: false, transit: true },
            View::Second | View::Foreign | View::Undecided => return,
        };
        // It tells who is there; there is nothing to sum.
        if record.flags.has(RecordFlags::PRESENT) {
            return;
        }
        let key = FlowKey {
            window: 0,
            protocol: record.protocol,
            source: self.endpoints.intern(&ends.source),
            destination: self.endpoints.intern(&ends.destination),
            destination_port: record.destination_port,
            service: record.service,
            service_name: ends.service.as_ref().map(|name| self.service_names.intern(name)),
            class: ends.class,
        };
        let flows = &mut self.flows;
        spread(record, wall_offset, |window, measures| {
            let measures = billed.of(measures);
            if !measures.is_zero() {
                *flows.entry(FlowKey { window, ..key }).or_default() += measures;
            }
        });
    }

    /// Flows of the finest level that were made since [`Folder::finish`].
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// What was added since the last call, at every level.
    pub fn finish(&mut self) -> Folded {
        let (represented_by, folded_keys) =
            representatives(&mut self.endpoints, &self.flows, self.external_limit);
        let mut used = vec![false; self.endpoints.list.len()];
        let mut finest: Vec<Flow> = Vec::with_capacity(self.flows.len());
        for (mut key, measures) in self.flows.drain() {
            key.source = represented_by[key.source as usize];
            key.destination = represented_by[key.destination as usize];
            used[key.source as usize] = true;
            used[key.destination as usize] = true;
            finest.push(Flow { key, measures });
        }
        let (endpoints, renumbered) = self.endpoints.take_used(&used);
        for flow in &mut finest {
            flow.key.source = renumbered[flow.key.source as usize];
            flow.key.destination = renumbered[flow.key.destination as usize];
        }
        merge(&mut finest);
        let minutes = rolled_up(&finest, Level::Minute);
        let hours = rolled_up(&minutes, Level::Hour);
        let service_names = self.service_names.take();
        Folded { endpoints, service_names, levels: [finest, minutes, hours], folded_keys }
    }
}

/// What of a record's counters is summed.
#[derive(Clone, Copy, Debug)]
struct Billed {
    totals: bool,
    transit: bool,
}

impl Billed {
    fn of(self, measures: Measures) -> Measures {
        let bytes = measures.bytes_sent.saturating_add(measures.bytes_received);
        let transit_bytes = if self.transit { bytes } else { 0 };
        let totals = if self.totals { measures } else { Measures::default() };
        Measures { transit_bytes, ..totals }
    }
}

fn rolled_up(finer: &[Flow], level: Level) -> Vec<Flow> {
    let mut flows = finer.to_vec();
    for flow in &mut flows {
        flow.key.window -= flow.key.window % level.seconds();
    }
    merge(&mut flows);
    flows.shrink_to_fit();
    flows
}

/// Sorts by key and sums equal keys.
fn merge(flows: &mut Vec<Flow>) {
    // Stable, because this sort makes use of the sorted runs that the finer windows are.
    flows.sort_by_key(|flow| flow.key);
    flows.dedup_by(|next, kept| {
        let same = next.key == kept.key;
        if same {
            kept.measures += next.measures;
        }
        same
    });
}

/// The names of a batch, each once.
#[derive(Debug, Default)]
struct Names {
    list: Vec<Name>,
    by_value: HashMap<Name, u32>,
}

impl Names {
    fn intern(&mut self, name: &Name) -> u32 {
        if let Some(index) = self.by_value.get(name) {
            return *index;
        }
        let index = u32::try_from(self.list.len()).expect("a batch has fewer than 2^32 names");
        self.list.push(Arc::clone(name));
        self.by_value.insert(Arc::clone(name), index);
        index
    }

    fn take(&mut self) -> Vec<Name> {
        self.by_value.clear();
        std::mem::take(&mut self.list)
    }
}

/// The endpoints of a batch, each once.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    pub(super) list: Vec<Arc<Endpoint>>,
    by_value: HashMap<Arc<Endpoint>, u32>,
    /// Directories hand out the same `Arc` again and again: its address finds it without hashing
    /// its text. Each is held in `held`, so that no address is reused meanwhile.
    by_pointer: HashMap<usize, u32>,
    held: Vec<Arc<Endpoint>>,
}

impl Endpoints {
    fn intern(&mut self, endpoint: &Arc<Endpoint>) -> u32 {
        let pointer = Arc::as_ptr(endpoint).addr();
        if let Some(index) = self.by_pointer.get(&pointer) {
            return *index;
        }
        let index = match self.by_value.get(endpoint) {
            Some(index) => *index,
            None => self.push(Arc::clone(endpoint)),
        };
        self.by_pointer.insert(pointer, index);
        self.held.push(Arc::clone(endpoint));
        index
    }

    pub(super) fn intern_value(&mut self, endpoint: Endpoint) -> u32 {
        match self.by_value.get(&endpoint) {
            Some(index) => *index,
            None => self.push(Arc::new(endpoint)),
        }
    }

    fn push(&mut self, endpoint: Arc<Endpoint>) -> u32 {
        let index = u32::try_from(self.list.len()).expect("a batch has fewer than 2^32 endpoints");
        self.list.push(Arc::clone(&endpoint));
        self.by_value.insert(endpoint, index);
        index
    }

    /// Empties itself; gives the used endpoints, and for each old index the new one.
    fn take_used(&mut self, used: &[bool]) -> (Vec<Arc<Endpoint>>, Vec<u32>) {
        self.by_value.clear();
        self.by_pointer.clear();
        self.held.clear();
        let mut kept = Vec::new();
        let mut renumbered = Vec::with_capacity(self.list.len());
        for (index, endpoint) in self.list.drain(..).enumerate() {
            renumbered.push(u32::try_from(kept.len()).expect("fewer than were in the list"));
            if used.get(index).copied().unwrap_or_default() {
                kept.push(endpoint);
            }
        }
        (kept, renumbered)
    }
}
