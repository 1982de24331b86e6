//! Whose an address outside the cluster is: ranges that cloud providers publish and ranges that
//! operators name.
//!
//! [`List`] is what one provider published, each prefix once. [`Ranges`] lays the lists and the
//! operator's own ranges over each other, flattened into disjoint ranges, so that a lookup is one
//! binary search. The longest published prefix wins; an operator's range wins over every published
//! one, and what it leaves unsaid is taken from the published range beneath.

mod flatten;
mod list;
mod prefix;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use hashbrown::HashMap;

use self::flatten::{Piece, StepsV4, StepsV6, flatten, overlay};
pub use self::list::{List, Listed, Provider, normalise};
pub use self::prefix::{InvalidPrefix, Prefix};
use crate::class::Class;
use crate::endpoint::Name;

/// What is known of a range of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The provider (`aws`, `gcp`, `azure`), or what the operator calls it.
    pub cloud: Option<Name>,
    /// The provider's region; `global` for addresses that are served near everywhere.
    pub region: Option<Name>,
    /// The provider's service behind it (`s3`, `googleservice`, `azurestorage`).
    pub service: Option<Name>,
    /// The operator's name for it; `None` on a published range.
    pub name: Option<Name>,
    /// The availability zone, where the operator says so.
    pub zone: Option<Name>,
    /// The class of traffic to it, where the operator says so.
    pub class: Option<Class>,
    /// What else the operator says of it (`nat_gateway`, `nlb`), sorted, each once.
    pub flags: Box<[Name]>,
}

/// Which range an address lies in. Built once, then only read.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    known: Box<[Range]>,
    v4: StepsV4,
    v6: StepsV6,
    prefixes: usize,
}

impl Ranges {
    /// Lays published lists over each other, and the operator's own ranges over all of them.
    ///
    /// The same prefix in two lists is the later list's; the same prefix twice among the own
    /// ranges is the later one's.
    pub fn new(lists: &[List], own: &[(Prefix, Range)]) -> Self {
        let mut table = Table::default();
        let mut published = Pieces::default();
        for list in lists {
            let cloud = Name::from(list.provider.cloud());
            for listed in list.entries() {
                published.push(listed.prefix, table.published(&cloud, listed));
            }
        }
        let mut named = Pieces::default();
        for (prefix, range) in own {
            named.push(*prefix, table.add(range.clone()));
        }
        let mut merged = HashMap::new();
        let mut merge = |published: Option<u32>, own: Option<u32>| match (published, own) {
            (Some(beneath), Some(own)) => {
                Some(*merged.entry((beneath, own)).or_insert_with(|| table.merge(beneath, own)))
            }
            (published, own) => own.or(published),
        };
        let v4 = overlay(
            &flatten(published.v4, u128::from(u32::MAX)),
            &flatten(named.v4, u128::from(u32::MAX)),
            &mut merge,
        );
        let v6 =
            overlay(&flatten(published.v6, u128::MAX), &flatten(named.v6, u128::MAX), &mut merge);
        Self {
            v4: StepsV4::new(&v4),
            v6: StepsV6::new(&v6),
            known: table.ranges.into_boxed_slice(),
            prefixes: lists.iter().map(|list| list.entries().len()).sum::<usize>() + own.len(),
        }
    }

    /// The range this address lies in, if any. An IPv4 address mapped into IPv6 is an IPv4 address.
    pub fn lookup(&self, address: IpAddr) -> Option<&Range> {
        let index = match address.to_canonical() {
            IpAddr::V4(address) => self.v4.at(address.to_bits())?,
            IpAddr::V6(address) => self.v6.at(address.to_bits())?,
        };
        self.known.get(index as usize)
    }

    /// How many prefixes it was built from.
    pub fn prefixes(&self) -> usize {
        self.prefixes
    }

    /// True when no address lies in any range.
    pub fn is_empty(&self) -> bool {
        self.prefixes == 0
    }
}

/// The ranges there are, each once as far as they were published.
#[derive(Default)]
struct Table {
    ranges: Vec<Range>,
    known: HashMap<(Name, Name, Name), u32>,
}

impl Table {
    fn published(&mut self, cloud: &Name, listed: &Listed) -> u32 {
        let key = (Name::clone(cloud), Name::clone(&listed.region), Name::clone(&listed.service));
        if let Some(index) = self.known.get(&key) {
            return *index;
        }
        let said = |text: &Name| (!text.is_empty()).then(|| Name::clone(text));
        let index = self.add(Range {
            cloud: Some(Name::clone(cloud)),
            region: said(&listed.region),
            service: said(&listed.service),
            ..Range::default()
        });
        self.known.insert(key, index);
        index
    }

    fn add(&mut self, range: Range) -> u32 {
        let index = u32::try_from(self.ranges.len()).expect("files are bounded far below 2^32");
        self.ranges.push(range);
        index
    }

    /// An operator's range over a published one. Who names another cloud speaks of another place,
    /// so nothing is taken from beneath then.
    fn merge(&mut self, beneath: u32, own: u32) -> u32 {
        let beneath = &self.ranges[beneath as usize];
        let own = &self.ranges[own as usize];
        if own.cloud.is_some() && own.cloud != beneath.cloud {
            return self.add(own.clone());
        }
        let merged = Range {
            cloud: beneath.cloud.clone(),
            region: own.region.clone().or_else(|| beneath.region.clone()),
            service: own.service.clone().or_else(|| beneath.service.clone()),
            ..own.clone()
        };
        self.add(merged)
    }
}

/// Prefixes of both families, as numbers.
#[derive(Default)]
struct Pieces {
    v4: Vec<Piece>,
    v6: Vec<Piece>,
}

impl Pieces {
    fn push(&mut self, prefix: Prefix, value: u32) {
        let (first, last) = prefix.bounds();
        let family = if prefix.address().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        family.push(Piece { first, last, value });
    }
}
