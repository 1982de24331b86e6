//! The table itself: what each record changes in it.

use std::net::IpAddr;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Place;
use weir_flow::attribution::Attributed;
use weir_flow::frame::Header;
use weir_flow::time::SECOND;
use weir_flow::{
    BootTime, ConnectionState, Endpoint, FlowRecord, Protocol, RecordFlags, Totals, WallTime,
};

use super::hold::Hold;
use super::node::{Begun, Node};

/// How long a connection that ended stays to be seen.
const LINGER: u64 = 10 * SECOND;
/// Nodes that are told apart; batches of more are not shown live.
const NODES_MAX: usize = 1 << 14;

/// Epoch and connection.
pub(super) type Key = (u128, u64);

#[derive(Debug)]
pub(super) struct Table {
    limit: usize,
    pub(super) nodes: Vec<Node>,
    pub(super) connections: HashMap<Key, Live>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) node: usize,
    pub(super) protocol: Protocol,
    pub(super) ends: Attributed,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    state: ConnectionState,
    pub(super) picked_up: bool,
    pub(super) service: Option<Box<(IpAddr, u16)>>,
    pub(super) translated_source: Option<Box<(IpAddr, u16)>>,
    pub(super) start: Option<WallTime>,
    /// Since it began; `None`: nobody counts.
    pub(super) totals: Option<Totals>,
    /// The tick that told of it first.
    met_in: BootTime,
    /// The tick that told of it last.
    told_in: BootTime,
    /// How fast it was in the tick in which it last moved, and in the one before that: while a tick
    /// is being taken, the one before it is shown.
    last: Movement,
    before: Movement,
    /// When it last moved, as far as that was seen.
    pub(super) moved_at: Option<WallTime>,
    pub(super) ended: Option<WallTime>,
}

/// Bytes per second, sent and received, in a tick.
#[derive(Clone, Copy, Debug, Default)]
struct Movement {
    tick: BootTime,
    rate: [f64; 2],
}

impl Live {
    /// Bytes per second, sent and received, in the node's newest tick; `None`: not measured.
    pub(super) fn rate(&self, node: &Node, now: WallTime) -> Option<[f64; 2]> {
        self.totals?;
        let newest = node.measured(now)?;
        if self.met_in > newest {
            return None;
        }
        let moved = [self.last, self.before].into_iter().find(|moved| moved.tick == newest);
        Some(moved.map_or([0.0; 2], |moved| moved.rate))
    }

    pub(super) fn source(&self) -> &Endpoint {
        &self.ends.source
    }

    pub(super) fn destination(&self) -> &Endpoint {
        &self.ends.destination
    }

    /// The state's name; an end outlives whatever the kernel said last. Of a connection without
    /// counters only its beginning and its end are told.
    pub(super) fn state(&self) -> Option<&'static str> {
        if self.ended.is_some() {
            return Some("ended");
        }
        self.totals.and_then(|_| self.state.name())
    }
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, nodes: Vec::new(), connections: HashMap::new() }
    }

    /// Begins a batch; the node's place, and whether the batch is older than what is known. `None`
    /// where it tells nothing new.
    pub(super) fn begin(
        &mut self,
        name: &str,
        header: &Header,
        offset: i64,
    ) -> Option<(usize, bool)> {
        let place = match self.nodes.iter().position(|node| *node.name == *name) {
            Some(place) => place,
            None if self.nodes.len() < NODES_MAX => {
                self.nodes.push(Node::new(name, header));
                self.nodes.len() - 1
            }
            None => return None,
        };
        match self.nodes[place].begin(header, offset) {
            Begun::No => return None,
            Begun::Late => return Some((place, true)),
            Begun::Yes => {}
            Begun::Anew => self.clear(place),
        }
        self.bury(place);
        if let Some(before) = self.nodes[place].given_up() {
            // Some of those that nothing was heard of since have ended in what is missing.
            self.connections.retain(|_, live| {
                live.node != place || live.told_in > before || live.ended.is_some()
            });
        }
        Some((place, false))
    }

    /// What is held of every node.
    pub(super) fn holds(&self) -> Vec<Hold> {
        self.nodes.iter().filter_map(Node::hold_of).collect()
    }

    /// Another server has newer batches of the node than this one.
    pub(super) fn let_go(&mut self, than: &Hold) {
        let held = |node: &Node| node.hold_of().is_some_and(|hold| than.is_newer_than(&hold));
        let place = self.nodes.iter().position(|node| *node.name == *than.node);
        if let Some(place) = place.filter(|place| held(&self.nodes[*place])) {
            self.clear(place);
            self.nodes[place].let_go();
        }
    }

    /// The batch's tick is whole.
    pub(super) fn finish(&mut self, place: usize) {
        self.nodes[place].finish();
    }

    /// Forgets a node's connections: of some it will not hear how they ended.
    pub(super) fn clear(&mut self, place: usize) {
        self.connections.retain(|_, live| live.node != place);
        self.nodes[place].ended.clear();
    }

    pub(super) fn forget(&mut self, key: Key) {
        if self.connections.get(&key).is_some_and(|live| live.ended.is_none()) {
            self.connections.remove(&key);
        }
    }

    pub(super) fn record(
        &mut self,
        key: Key,
        place: usize,
        offset: i64,
        record: &FlowRecord,
        ends: &Attributed,
    ) {
        let is_full = self.connections.len() >= self.limit;
        if is_full && !self.connections.contains_key(&key) && !self.make_room() {
            self.nodes[place].leaving_out += 1;
            return;
        }
        let (tick, since_before) = self.nodes[place].of_record();
        let live = match self.connections.entry(key) {
            Place::Occupied(known) => known.into_mut(),
            Place::Vacant(new) => new.insert(Live::new(place, record, ends, tick)),
        };
        let at = record.interval_to.to_wall(offset);
        live.take(record, ends, tick, since_before, at);
        if record.flags.has(RecordFlags::CLOSED) && live.ended.is_none() {
            live.ended = Some(at);
            self.nodes[place].ended.push_back((tick, key));
        }
    }

    /// Removes a connection that ended; false where none has.
    fn make_room(&mut self) -> bool {
        let first = self.nodes.iter_mut().find_map(|node| node.ended.pop_front());
        first.is_some_and(|(_, key)| self.connections.remove(&key).is_some())
    }

    /// Removes what ended long enough ago.
    fn bury(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let (tick, _) = node.of_record();
        while let Some((ended, key)) = node.ended.front().copied() {
            // One that ended in an earlier boot lies ahead, and is old.
            if ended <= tick && ended.0.saturating_add(LINGER) > tick.0 {
                return;
            }
            node.ended.pop_front();
            self.connections.remove(&key);
        }
    }
}

impl Live {
    fn new(node: usize, record: &FlowRecord, ends: &Attributed, tick: BootTime) -> Self {
        Self {
            node,
            protocol: record.protocol,
            ends: ends.clone(),
            source_port: record.source_port,
            destination_port: record.destination_port,
            state: record.state,
            picked_up: false,
            service: record.service.map(Box::new),
            translated_source: record.translated_source.map(Box::new),
            start: record.start,
            totals: None,
            met_in: tick,
            told_in: tick,
            last: Movement::default(),
            before: Movement::default(),
            moved_at: None,
            ended: None,
        }
    }

    fn take(
        &mut self,
        record: &FlowRecord,
        ends: &Attributed,
        tick: BootTime,
        since_before: u64,
        at: WallTime,
    ) {
        self.told_in = tick;
        self.totals = (!record.flags.has(RecordFlags::UNCOUNTED)).then_some(record.to);
        self.state = record.state;
        self.picked_up = record.flags.has(RecordFlags::PICKED_UP);
        if self.source().unresolved.is_some() || self.destination().unresolved.is_some() {
            self.ends = ends.clone();
        }
        let delta = record.delta();
        if delta == Totals::default() {
            return;
        }
        // A connection that lived shorter than the tick moved nothing in the rest of it.
        let length = record.interval_to.0.saturating_sub(record.interval_from.0);
        let over = seconds(length.max(since_before)).max(1e-3);
        let rate = [per_second(delta.sent.bytes, over), per_second(delta.received.bytes, over)];
        if self.last.tick == tick {
            self.last.rate = [self.last.rate[0] + rate[0], self.last.rate[1] + rate[1]];
        } else {
            self.before = std::mem::replace(&mut self.last, Movement { tick, rate });
        }
        self.moved_at = Some(at);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is rounded anyway")]
fn per_second(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / seconds
}

#[expect(clippy::cast_precision_loss, reason = "microseconds are exact for centuries")]
pub(super) fn seconds(nanos: u64) -> f64 {
    (nanos / 1_000) as f64 / 1e6
}
