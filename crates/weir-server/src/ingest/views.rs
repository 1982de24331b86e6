//! The same bytes as two nodes saw them, side by side.
//!
//! What the node that counts a connection saw leave for another node is held against what that
//! other node saw of it. Both count packets as they enter, so the difference is explained by
//! packets cut or joined on the way (each has a header of its own) and by packets dropped.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use weir_flow::attribution::Attributed;
use weir_flow::{Name, Totals, View};

/// Pairs of nodes kept at most; those beyond are counted, not compared.
const PAIRS_MAX: usize = 1 << 16;

/// What two nodes saw of the traffic between them, since this server began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// As the node of the source, or the node it passed through, counted it.
    pub counted: Totals,
    /// As the node of the destination saw it.
    pub second: Totals,
}

/// All pairs: from which node, to which node.
#[derive(Clone, Debug, Default)]
pub struct Views {
    pairs: BTreeMap<(Name, Name), Pair>,
    left_out: u64,
}

impl Views {
    /// Every pair, by the names of its nodes.
    pub fn pairs(&self) -> impl Iterator<Item = (&Name, &Name, &Pair)> {
        self.pairs.iter().map(|((from, to), pair)| (from, to, pair))
    }

    /// Times that a pair could not be kept because there are too many.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Adds what a batch of `observer` told.
    pub(super) fn add(&mut self, observer: &Name, batch: BatchViews) {
        for (_, (node, seen)) in batch.by_node {
            let Seen { sent_on, arrived } = seen;
            if sent_on != Totals::default() {
                self.pair(observer, &node, |pair| plus(&mut pair.counted, sent_on));
            }
            if arrived != Totals::default() {
                self.pair(&node, observer, |pair| plus(&mut pair.second, arrived));
            }
        }
    }

    fn pair(&mut self, from: &Name, to: &Name, change: impl FnOnce(&mut Pair)) {
        let key = (Name::clone(from), Name::clone(to));
        let is_full = self.pairs.len() >= PAIRS_MAX;
        if is_full && !self.pairs.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        change(self.pairs.entry(key).or_default());
    }
}

/// What one batch tells of other nodes, by the address of the name that the directory hands out.
#[derive(Debug, Default)]
pub(super) struct BatchViews {
    by_node: HashMap<usize, (Name, Seen)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Counted here, on its way to that node.
    sent_on: Totals,
    /// Counted there, seen here.
    arrived: Totals,
}

impl BatchViews {
    pub(super) fn add(&mut self, observer: &str, delta: Totals, ends: &Attributed) {
        let (sends_on, arrives) = match ends.view {
            View::Counts { .. } => (true, false),
            View::Transit => (true, true),
            View::Second => (false, true),
            View::Foreign | View::Undecided => return,
        };
        let elsewhere = |node: &Option<Name>| node.clone().filter(|node| **node != *observer);
        if sends_on && let Some(node) = elsewhere(&ends.destination.node) {
            plus(&mut self.of(node).sent_on, delta);
        }
        if arrives && let Some(node) = elsewhere(&ends.source.node) {
            plus(&mut self.of(node).arrived, delta);
        }
    }

    fn of(&mut self, node: Name) -> &mut Seen {
        let place = Name::as_ptr(&node).cast::<u8>().addr();
        &mut self.by_node.entry(place).or_insert_with(|| (node, Seen::default())).1
    }
}

fn plus(sum: &mut Totals, delta: Totals) {
    for (sum, delta) in [(&mut sum.sent, delta.sent), (&mut sum.received, delta.received)] {
        sum.packets = sum.packets.saturating_add(delta.packets);
        sum.bytes = sum.bytes.saturating_add(delta.bytes);
    }
}
