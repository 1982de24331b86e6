//! One agent per node: of two spools of one node the later born is alive.
//!
//! Two agents of one node read the same counters, and their batches bear different epochs, so
//! nothing else would notice that every byte is there twice. What the older one sealed before the
//! younger was born is its backlog, and taken; what it sealed later is refused.

use hashbrown::HashMap;
use weir_flow::{Epoch, Name, WallTime};
use weir_store::{FlowStore, Memory, StoreError};

/// Under what births are kept.
const KEY: &[u8] = b"fence/";
/// For how long.
const KEPT_SECONDS: u64 = 365 * 86_400;
/// Births read at a time.
const PAGE: usize = 1_000;
/// Epochs remembered per node. A node has one, and another after its spool was lost.
const EPOCHS_MAX: usize = 32;

/// Which epoch of each node is alive.
#[derive(Debug, Default)]
pub(super) struct Fence {
    nodes: HashMap<Name, Vec<Born>>,
    owners: HashMap<Epoch, Name>,
}

#[derive(Clone, Copy, Debug)]
struct Born {
    epoch: Epoch,
    at: WallTime,
}

impl Fence {
    /// As it was before a restart: the births that were kept, and the epochs whose batches are
    /// committed already, with the node that spoke in each.
    pub(super) fn restore(
        store: &dyn FlowStore,
        epochs: impl IntoIterator<Item = (Epoch, Name)>,
    ) -> Result<Self, StoreError> {
        let mut fence = Self { nodes: HashMap::new(), owners: epochs.into_iter().collect() };
        fence.learn(births(store)?);
        Ok(fence)
    }

    /// Takes in births that were kept, by whomever.
    pub(super) fn learn(&mut self, births: Vec<Birth>) {
        for Birth { node, epoch, at } in births {
            // Another node's by now: what is committed says whose it is.
            drop(self.greets(&node, epoch, at, at));
        }
    }

    /// An agent begins to speak. True when its epoch is new here, and its birth is to be kept; the
    /// node that owns its epoch, where that is another one.
    ///
    /// A birth in the future counts as now: a wrong clock must not shut out every later agent.
    pub(super) fn greets(
        &mut self,
        node: &Name,
        epoch: Epoch,
        born: WallTime,
        now: WallTime,
    ) -> Result<bool, Name> {
        match self.owners.get(&epoch) {
            Some(owner) if owner != node => return Err(Name::clone(owner)),
            Some(_) => {}
            None => drop(self.owners.insert(epoch, Name::clone(node))),
        }
        let epochs = self.nodes.entry(Name::clone(node)).or_default();
        if epochs.iter().any(|known| known.epoch == epoch) {
            return Ok(false);
        }
        let at = born.min(now);
        let place = epochs.partition_point(|known| (known.at, known.epoch) < (at, epoch));
        epochs.insert(place, Born { epoch, at });
        if epochs.len() > EPOCHS_MAX {
            let oldest = epochs.remove(0);
            self.owners.remove(&oldest.epoch);
        }
        Ok(true)
    }

    /// When a younger epoch of this node was born, where `epoch` is not its youngest. What was
    /// sealed after that is refused.
    pub(super) fn fenced_at(&self, node: &str, epoch: Epoch) -> Option<WallTime> {
        let epochs = self.nodes.get(node)?;
        match epochs.iter().position(|known| known.epoch == epoch) {
            Some(place) => epochs.get(place + 1).map(|younger| younger.at),
            // So old that it is forgotten.
            None => epochs.first().map(|younger| younger.at),
        }
    }
}

/// An epoch, the node it began on, and when.
#[derive(Clone, Debug)]
pub(super) struct Birth {
    node: Name,
    epoch: Epoch,
    at: WallTime,
}

/// All births that are kept.
pub(super) fn births(store: &dyn FlowStore) -> Result<Vec<Birth>, StoreError> {
    let (mut births, mut after) = (Vec::new(), Vec::new());
    loop {
        let kept = store.remembered(KEY, &after, PAGE)?;
        let Some(last) = kept.last() else { return Ok(births) };
        after.clone_from(&last.key);
        births.extend(kept.iter().filter_map(birth_of));
    }
}

/// A birth, as it is kept over restarts.
pub(super) fn kept(node: &str, epoch: Epoch, born: WallTime, now: WallTime) -> Memory {
    let key = [KEY, &epoch.0.to_be_bytes()].concat();
    let value = [&born.0.min(now.0).to_be_bytes()[..], node.as_bytes()].concat();
    Memory { key, value, until_seconds: now.seconds() + KEPT_SECONDS }
}

fn birth_of(memory: &Memory) -> Option<Birth> {
    let epoch = memory.key.strip_prefix(KEY)?.try_into().ok()?;
    let (born, node) = memory.value.split_first_chunk()?;
    let node = std::str::from_utf8(node).ok()?.into();
    let (epoch, at) = (Epoch(u128::from_be_bytes(epoch)), WallTime(u64::from_be_bytes(*born)));
    Some(Birth { node, epoch, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_000);

    fn fence(epochs: &[(&str, u128, u64)]) -> Fence {
        let mut fence = Fence::default();
        for (node, epoch, born) in epochs {
            fence.greets(&(*node).into(), Epoch(*epoch), WallTime(*born), NOW).unwrap();
        }
        fence
    }

    #[test]
    fn the_later_born_wins_whoever_speaks_first() {
        for order in [[("n1", 1, 10), ("n1", 2, 20)], [("n1", 2, 20), ("n1", 1, 10)]] {
            let fence = fence(&order);
            assert_eq!(fence.fenced_at("n1", Epoch(1)), Some(WallTime(20)), "{order:?}");
            assert_eq!(fence.fenced_at("n1", Epoch(2)), None, "{order:?}");
        }
    }

    #[test]
    fn each_epoch_ends_where_the_next_one_begins() {
        let fence = fence(&[("n1", 1, 10), ("n1", 3, 30), ("n1", 2, 20), ("n2", 9, 99)]);
        assert_eq!(fence.fenced_at("n1", Epoch(1)), Some(WallTime(20)));
        assert_eq!(fence.fenced_at("n1", Epoch(2)), Some(WallTime(30)));
        assert_eq!(fence.fenced_at("n2", Epoch(9)), None);
    }

    #[test]
    fn a_birth_in_the_future_shuts_nobody_out_for_long() {
        let mut fence = fence(&[("n1", 1, 5_000)]);
        fence.greets(&"n1".into(), Epoch(2), WallTime(1_500), WallTime(1_500)).unwrap();
        assert_eq!(fence.fenced_at("n1", Epoch(1)), Some(WallTime(1_500)));
        assert_eq!(fence.fenced_at("n1", Epoch(2)), None);
    }

    #[test]
    fn an_epoch_belongs_to_the_node_it_began_on() {
        let owners = [(Epoch(7), "n1".into())].into();
        let mut fence = Fence { owners, ..Fence::default() };
        let mut greets = |node: &str, epoch| fence.greets(&node.into(), Epoch(epoch), NOW, NOW);
        assert_eq!(greets("n2", 7), Err("n1".into()));
        assert_eq!(greets("n1", 7), Ok(true));
        assert_eq!(greets("n1", 7), Ok(false));
        assert_eq!(greets("n1", 8), Ok(true));
        assert_eq!(greets("n2", 8), Err("n1".into()));
    }

    #[test]
    fn births_outlive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let options = weir_store::Options::default();
        let store = weir_store::SqliteStore::open(directory.path(), options).unwrap();
        let births = [("n1", 1, 10), ("n1", 2, 20), ("n2", 3, 5)]
            .map(|(node, epoch, born)| kept(node, Epoch(epoch), WallTime(born), NOW));
        store.remember(&births).unwrap();
        let fence = Fence::restore(&store, []).unwrap();
        assert_eq!(fence.fenced_at("n1", Epoch(1)), Some(WallTime(20)));
        assert_eq!(fence.fenced_at("n1", Epoch(2)), None);
        assert_eq!(fence.fenced_at("n2", Epoch(3)), None);
    }

    #[test]
    fn what_another_server_was_told_is_learned_again_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let options = weir_store::Options::default();
        let store = weir_store::SqliteStore::open(directory.path(), options).unwrap();
        let mut fence = fence(&[("n1", 1, 10)]);
        store.remember(&[kept("n1", Epoch(2), WallTime(20), NOW)]).unwrap();
        assert_eq!(fence.fenced_at("n1", Epoch(1)), None);
        for _ in 0..2 {
            fence.learn(births(&store).unwrap());
            assert_eq!(fence.fenced_at("n1", Epoch(1)), Some(WallTime(20)));
        }
        assert_eq!(fence.greets(&"n2".into(), Epoch(2), NOW, NOW), Err("n1".into()));
    }

    #[test]
    fn epochs_of_a_node_are_bounded() {
        let epochs: Vec<_> = (0..100_u128)
            .map(|number| ("n1", number, 10 + u64::try_from(number).unwrap()))
            .collect();
        let fence = fence(&epochs);
        assert_eq!(fence.nodes["n1"].len(), EPOCHS_MAX);
        assert_eq!(fence.fenced_at("n1", Epoch(3)), Some(WallTime(10 + 68)), "forgotten");
        assert_eq!(fence.fenced_at("n1", Epoch(99)), None);
    }
}
