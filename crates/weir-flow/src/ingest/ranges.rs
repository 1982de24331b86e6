//! Which numbers of an epoch are committed: a low-water mark and a few ranges above it.

/// How many ranges may stand above the low-water mark.
pub const MAX_RANGES: usize = 64;

/// A set of batch numbers, kept as disjoint ranges with holes between them. The range that begins
/// at 1 is the low-water mark; at most [`MAX_RANGES`] stand above it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First and last number of each range, ascending, neither overlapping nor touching.
    spans: Vec<(u64, u64)>,
}

/// What inserting a number did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is new, and the set has room.
    New,
    /// It was there.
    Known,
    /// It would make one range too many; the set is unchanged.
    NoRoom,
}

impl Ranges {
    /// Every number up to this one is committed; 0 where none is.
    pub fn low_water(&self) -> u64 {
        match self.spans.first() {
            Some(&(1, last)) => last,
            _ => 0,
        }
    }

    /// First and last number of each range, ascending, the low-water mark's included.
    pub fn spans(&self) -> &[(u64, u64)] {
        &self.spans
    }

    /// True when the number is committed.
    pub fn contains(&self, number: u64) -> bool {
        self.spans.iter().any(|&(first, last)| first <= number && number <= last)
    }

    /// True when nothing is committed.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Adds a range read back from a store. Ranges come ascending and disjoint.
    pub fn push(&mut self, first: u64, last: u64) {
        self.spans.push((first, last));
    }

    /// All numbers of both, however many holes there are.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<(u64, u64)> = self.spans.iter().chain(&other.spans).copied().collect();
        all.sort_unstable();
        let mut spans: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match spans.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => spans.push((first, last)),
            }
        }
        Self { spans }
    }

    /// What [`Ranges::insert`] would do.
    pub fn would_insert(&self, number: u64) -> Inserted {
        // 65 ranges at most: a copy costs less than a second way to decide.
        self.clone().insert(number)
    }

    /// Adds a number, if there is room.
    pub fn insert(&mut self, number: u64) -> Inserted {
        let at = self.spans.partition_point(|&(first, _)| first <= number);
        if at > 0 && number <= self.spans[at - 1].1 {
            return Inserted::Known;
        }
        let follows = at > 0 && self.spans[at - 1].1 + 1 == number;
        let precedes = self.spans.get(at).is_some_and(|&(first, _)| number + 1 == first);
        match (follows, precedes) {
            (true, true) => {
                self.spans[at - 1].1 = self.spans[at].1;
                self.spans.remove(at);
            }
            (true, false) => self.spans[at - 1].1 = number,
            (false, true) => self.spans[at].0 = number,
            (false, false) => {
                let above = self.spans.len() - usize::from(self.low_water() > 0);
                if above >= MAX_RANGES && number != 1 {
                    return Inserted::NoRoom;
                }
                self.spans.insert(at, (number, number));
            }
        }
        Inserted::New
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set_until_it_is_full(numbers in prop::collection::vec(1_u64..200, 0..300)) {
            let mut set = BTreeSet::new();
            let mut ranges = Ranges::default();
            for number in numbers {
                match ranges.insert(number) {
                    Inserted::New => prop_assert!(set.insert(number)),
                    Inserted::Known => prop_assert!(set.contains(&number)),
                    Inserted::NoRoom => prop_assert!(!set.contains(&number)),
                }
                prop_assert!((0..202).all(|n| ranges.contains(n) == set.contains(&n)));
                prop_assert!(ranges.spans().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                prop_assert!(ranges.spans().len() <= MAX_RANGES + 1);
            }
        }
    }

    proptest! {
        #[test]
        fn a_union_has_the_numbers_of_both(
            left in prop::collection::vec(1_u64..100, 0..60),
            right in prop::collection::vec(1_u64..100, 0..60),
        ) {
            let ranges = |numbers: &[u64]| {
                let mut ranges = Ranges::default();
                for number in numbers {
                    ranges.insert(*number);
                }
                ranges
            };
            let (left, right) = (ranges(&left), ranges(&right));
            let both = left.union(&right);
            prop_assert!(
                (0..102).all(|n| both.contains(n) == (left.contains(n) || right.contains(n)))
            );
            prop_assert!(both.spans().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }

    #[test]
    fn the_65th_hole_has_no_room_and_filling_one_makes_room() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.insert(1), Inserted::New);
        for i in 0..MAX_RANGES as u64 {
            assert_eq!(ranges.insert(3 + 2 * i), Inserted::New);
        }
        assert_eq!(ranges.insert(1_000), Inserted::NoRoom);
        assert!(!ranges.contains(1_000));
        assert_eq!(ranges.insert(2), Inserted::New);
        assert_eq!(ranges.low_water(), 3);
        assert_eq!(ranges.insert(1_000), Inserted::New);
    }
}
