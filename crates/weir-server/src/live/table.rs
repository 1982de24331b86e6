//! The table itself: what each record changes in it.

use std::collections::VecDeque;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Place;
use weir_flow::attribution::Attributed;
use weir_flow::frame::Header;
use weir_flow::time::SECOND;
use weir_flow::{
    BatchId, ConnectionState, Endpoint, FlowRecord, Protocol, RecordFlags, Totals, WallTime,
};

use std::net::IpAddr;

/// How long a connection that ended stays to be seen.
const LINGER: u64 = 10 * SECOND;
/// Nodes that are told apart; batches of more are not shown live.
const NODES_MAX: usize = 1 << 14;
/// A tick is over, whatever was heard, when this many more should have come.
const SILENT_TICKS: u64 = 4;
/// And this long has passed.
const SILENT: u64 = 15 * SECOND;

/// Epoch and connection.
pub(super) type Key = (u128, u64);

#[derive(Debug)]
pub(super) struct Table {
    limit: usize,
    pub(super) nodes: Vec<Node>,
    pub(super) connections: HashMap<Key, Live>,
    /// Connections that ended, in the order of their ends.
    ended: VecDeque<(WallTime, Key)>,
    pub(super) left_out: u64,
}

/// An observer.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: Box<str>,
    epoch: u128,
    last: Option<BatchId>,
    /// When the newest tick was read, and the one before it (0: there was none).
    pub(super) tick: WallTime,
    pub(super) tick_before: WallTime,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) node: usize,
    pub(super) protocol: Protocol,
    pub(super) ends: Attributed,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) state: ConnectionState,
    pub(super) picked_up: bool,
    pub(super) service: Option<Box<(IpAddr, u16)>>,
    pub(super) translated_source: Option<Box<(IpAddr, u16)>>,
    pub(super) start: Option<WallTime>,
    /// Since it began; `None`: nobody counts.
    pub(super) totals: Option<Totals>,
    /// The tick in which it last moved, and how fast then, bytes per second sent and received.
    moved_in: WallTime,
    rate: [f64; 2],
    /// When it last moved, or was first met.
    pub(super) moved_at: WallTime,
    pub(super) ended: Option<WallTime>,
}

impl Node {
    /// Time between the two newest ticks, seconds.
    pub(super) fn interval_seconds(&self) -> Option<f64> {
        (self.tick_before.0 > 0).then(|| seconds(self.tick.0.saturating_sub(self.tick_before.0)))
    }

    /// True when it has not been heard of for so long that its rates say nothing about now.
    pub(super) fn is_silent(&self, now: WallTime) -> bool {
        let interval = self.tick.0.saturating_sub(self.tick_before.0);
        let interval = if self.tick_before.0 > 0 { interval } else { 0 };
        now.0.saturating_sub(self.tick.0) > interval.saturating_mul(SILENT_TICKS).max(SILENT)
    }
}

impl Live {
    /// Bytes per second, sent and received, in the node's newest tick; `None`: not measured.
    pub(super) fn rate(&self, node: &Node, now: WallTime) -> Option<[f64; 2]> {
        self.totals?;
        if node.tick_before.0 == 0 || node.is_silent(now) {
            return None;
        }
        Some(if self.moved_in == node.tick { self.rate } else { [0.0; 2] })
    }

    pub(super) fn source(&self) -> &Endpoint {
        &self.ends.source
    }

    pub(super) fn destination(&self) -> &Endpoint {
        &self.ends.destination
    }

    /// The state's name; an end outlives whatever the kernel said last.
    pub(super) fn state(&self) -> Option<&'static str> {
        if self.ended.is_some() { Some("ended") } else { self.state.name() }
    }
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            nodes: Vec::new(),
            connections: HashMap::new(),
            ended: VecDeque::new(),
            left_out: 0,
        }
    }

    /// Begins a batch; the node's place, or `None` where the batch tells nothing new.
    pub(super) fn begin(&mut self, name: &str, header: &Header, offset: i64) -> Option<usize> {
        let epoch = header.id.epoch.0;
        let place = match self.nodes.iter().position(|node| *node.name == *name) {
            Some(place) => place,
            None if self.nodes.len() < NODES_MAX => {
                self.nodes.push(Node {
                    name: name.into(),
                    epoch,
                    last: None,
                    tick: WallTime(0),
                    tick_before: WallTime(0),
                });
                self.nodes.len() - 1
            }
            None => return None,
        };
        let tick = header.sealed_at.to_wall(offset);
        let node = &mut self.nodes[place];
        if node.last == Some(header.id) {
            return None;
        }
        if node.epoch != epoch {
            // Connections of the epoch before will not be heard of again under those keys.
            node.epoch = epoch;
            (node.tick, node.tick_before) = (WallTime(0), WallTime(0));
            self.connections.retain(|_, live| live.node != place);
        }
        let node = &mut self.nodes[place];
        // Two offsets of one clock differ by less than this; what is older is a backlog.
        if tick.0.saturating_add(SECOND / 10) < node.tick.0 {
            return None;
        }
        node.last = Some(header.id);
        if tick.0 > node.tick.0.saturating_add(SECOND / 10) {
            (node.tick_before, node.tick) = (node.tick, tick);
            self.bury(tick);
        }
        Some(place)
    }

    /// Connections that ended and are still there.
    pub(super) fn ended(&self) -> usize {
        self.ended.len()
    }

    pub(super) fn forget(&mut self, key: Key) {
        self.connections.remove(&key);
    }

    pub(super) fn record(
        &mut self,
        key: Key,
        place: usize,
        offset: i64,
        record: &FlowRecord,
        ends: &Attributed,
    ) {
        let Node { tick, tick_before, .. } = self.nodes[place];
        let at = record.interval_to.to_wall(offset);
        let has = |flag| record.flags.has(flag);
        if self.connections.len() >= self.limit
            && !self.connections.contains_key(&key)
            && !self.make_room()
        {
            self.left_out += 1;
            return;
        }
        let live = match self.connections.entry(key) {
            Place::Occupied(known) => known.into_mut(),
            Place::Vacant(new) => new.insert(Live::new(place, record, ends, at)),
        };
        let counted = !has(RecordFlags::UNCOUNTED);
        live.totals = counted.then_some(record.to);
        live.state = record.state;
        live.picked_up = has(RecordFlags::PICKED_UP);
        if live.source().unresolved.is_some() || live.destination().unresolved.is_some() {
            live.ends = ends.clone();
        }
        let delta = record.delta();
        if delta != Totals::default() {
            let length = record.interval_to.0.saturating_sub(record.interval_from.0);
            let between = if tick_before.0 > 0 { tick.0.saturating_sub(tick_before.0) } else { 0 };
            // A connection that lived shorter than the tick moved nothing in the rest of it.
            let over = seconds(length.max(between)).max(1e-3);
            let rate = [per_second(delta.sent.bytes, over), per_second(delta.received.bytes, over)];
            if live.moved_in == tick {
                live.rate = [live.rate[0] + rate[0], live.rate[1] + rate[1]];
            } else {
                (live.moved_in, live.rate) = (tick, rate);
            }
            live.moved_at = at;
        }
        if has(RecordFlags::CLOSED) && live.ended.is_none() {
            live.ended = Some(at);
            self.ended.push_back((tick, key));
        }
    }

    /// Removes the connection that ended first; false where none has.
    fn make_room(&mut self) -> bool {
        while let Some((_, key)) = self.ended.pop_front() {
            if self.connections.remove(&key).is_some() {
                return true;
            }
        }
        false
    }

    /// Removes what ended long enough before `tick`.
    fn bury(&mut self, tick: WallTime) {
        while let Some((ended, key)) = self.ended.front().copied() {
            if ended.0.saturating_add(LINGER) > tick.0 {
                return;
            }
            self.ended.pop_front();
            self.connections.remove(&key);
        }
    }
}

impl Live {
    fn new(node: usize, record: &FlowRecord, ends: &Attributed, at: WallTime) -> Self {
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
            moved_in: WallTime(0),
            rate: [0.0; 2],
            moved_at: record.start.unwrap_or(at).min(at),
            ended: None,
        }
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
