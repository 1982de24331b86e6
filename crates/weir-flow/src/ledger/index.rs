//! Small maps joined with the whole table in one scan.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use super::FINALS_LIMIT;

/// A small map asked once for every slot of the table: a bitmap answers "no" from the cache.
#[derive(Debug)]
pub(super) struct Index<T> {
    bits: Vec<u64>,
    map: HashMap<u64, T, KeyHash>,
}

impl<T> Index<T> {
    /// Bits of the bitmap: at most an eighth of them is set by [`FINALS_LIMIT`] keys.
    const BITS: usize = FINALS_LIMIT * 8;

    pub(super) fn with_capacity(entries: usize) -> Self {
        let map = HashMap::with_capacity_and_hasher(entries, KeyHash::default());
        Self { bits: vec![0; Self::BITS / 64], map }
    }

    fn place(key: u64) -> (usize, u64) {
        let bit = usize::try_from(key).unwrap_or(0) % Self::BITS;
        (bit / 64, 1 << (bit % 64))
    }

    pub(super) fn insert(&mut self, key: u64, value: T) {
        let (word, bit) = Self::place(key);
        self.bits[word] |= bit;
        self.map.insert(key, value);
    }

    pub(super) fn entry(&mut self, key: u64) -> &mut T
    where
        T: Default,
    {
        let (word, bit) = Self::place(key);
        self.bits[word] |= bit;
        self.map.entry(key).or_default()
    }

    #[inline]
    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let (word, bit) = Self::place(key);
        if self.bits[word] & bit == 0 { None } else { self.map.remove(&key) }
    }

    #[inline]
    pub(super) fn get(&self, key: u64) -> Option<&T> {
        let (word, bit) = Self::place(key);
        if self.bits[word] & bit == 0 { None } else { self.map.get(&key) }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (u64, T)> {
        self.map.into_iter()
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = T> {
        self.map.into_values()
    }
}

/// Keys are hashes already, under secret seeds.
pub(super) type KeyHash = BuildHasherDefault<PassThrough>;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed so");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn write_usize(&mut self, key: usize) {
        self.0 = u64::try_from(key).unwrap_or(0);
    }
}
