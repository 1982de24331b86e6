//! A bounded memory of dictionary rows.

use std::borrow::Borrow;
use std::hash::Hash;

use hashbrown::{Equivalent, HashMap};

/// Keeps what was used lately. Two generations: what is asked for moves to the young one; when
/// that is full it becomes the old one, and what the old one still held is forgotten. Forgetting is
/// always safe, since the dictionary itself is in the database.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    per_generation: usize,
}

impl<K: Hash + Eq, V: Copy> Cache<K, V> {
    pub(super) fn new(per_generation: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), per_generation }
    }

    pub(super) fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        if let Some(value) = self.young.get(key) {
            return Some(*value);
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value);
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.per_generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Changes what is known of a key that was just asked for.
    pub(super) fn update<Q>(&mut self, key: &Q, value: V)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(known) = self.young.get_mut(key) {
            *known = value;
        }
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let mut cache = Cache::new(10);
        cache.insert(0, 0);
        for key in 1..1_000 {
            cache.insert(key, key);
            assert_eq!(cache.get(&0), Some(0), "asked for every time");
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert_eq!(cache.get(&1), None);
        cache.update(&0, 7);
        assert_eq!(cache.get(&0), Some(7));
    }
}
