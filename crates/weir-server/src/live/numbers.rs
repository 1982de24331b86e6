//! Values that many connections share, by numbers.
//!
//! Connections are many, their ends and the values of their fields are few. Summing and ordering
//! go by numbers; a text is made once for each value, not for each connection.

use std::hash::Hash;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// Values of type `T`, which are found at places of type `P`.
#[derive(Debug)]
pub(super) struct Numbers<P, T> {
    by_place: HashMap<P, u32>,
    by_value: HashMap<T, u32>,
}

impl<P, T> Default for Numbers<P, T> {
    fn default() -> Self {
        Self { by_place: HashMap::new(), by_value: HashMap::new() }
    }
}

impl<P: Eq + Hash, T: Eq + Hash + Ord> Numbers<P, T> {
    /// The number of the value at `place`, which `value` makes. Equal values have equal numbers,
    /// and one place has one value.
    pub(super) fn number(&mut self, place: P, value: impl FnOnce() -> T) -> u32 {
        match self.by_place.entry(place) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let next = u32::try_from(self.by_value.len());
                let next = next.expect("fewer values than connections, which memory bounds");
                *new.insert(*self.by_value.entry(value()).or_insert(next))
            }
        }
    }

    /// The values in their order, and the place in it of each number.
    pub(super) fn sorted(self) -> (Vec<T>, Vec<u32>) {
        let mut values: Vec<(T, u32)> = self.by_value.into_iter().collect();
        values.sort_unstable();
        let mut ranks = vec![0; values.len()];
        for (rank, (_, number)) in (0..).zip(&values) {
            ranks[*number as usize] = rank;
        }
        (values.into_iter().map(|(value, _)| value).collect(), ranks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_number_wherever_it_is_and_ranks_are_its_order() {
        let mut numbers = Numbers::default();
        let values = ["pear", "apple", "pear", "fig"];
        let given: Vec<u32> =
            (0..).zip(values).map(|(place, value)| numbers.number(place, || value)).collect();
        assert_eq!(given, [0, 1, 0, 2]);
        assert_eq!(numbers.number(1, || unreachable!("it is known")), 1);
        assert_eq!(numbers.sorted(), (vec!["apple", "fig", "pear"], vec![2, 0, 1]));
    }
}
