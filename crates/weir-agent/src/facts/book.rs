//! The book of addresses: who holds each now, what came and went, and what was not told yet.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use hashbrown::HashMap;
use weir_flow::WallTime;
use weir_proto::Fact;

use super::{FactCounts, News, SINCE_BEFORE};

/// Addresses there at a time. A node has a few hundred pods.
const PRESENT_MAX: usize = 8_192;
/// Addresses that are gone and still told of: the longest outage's churn, within reason.
const PAST_MAX: usize = 16_384;
/// Changes that can be told one by one; whoever is further behind is told everything.
const LOG_MAX: usize = 4_096;

/// An address of the node itself, or one routed to a pod or container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) address: IpAddr,
    pub(super) own: bool,
}

/// By what an address is there: this interface, and for a route this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Holder {
    pub(super) interface: u32,
    pub(super) table: u32,
}

#[derive(Debug)]
struct Present {
    from: WallTime,
    /// Never empty.
    holders: Vec<Holder>,
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Book {
    present: HashMap<Key, Present>,
    past: VecDeque<Fact>,
    /// Changes, the first of which has the number `log_begins`.
    log: VecDeque<Fact>,
    log_begins: u64,
    counts: FactCounts,
}

impl Book {
    /// A holder of an address came at `at`.
    pub(super) fn came(&mut self, key: Key, holder: Holder, at: WallTime) {
        if let Some(present) = self.present.get_mut(&key) {
            if !present.holders.contains(&holder) {
                present.holders.push(holder);
            }
            return;
        }
        if self.present.len() >= PRESENT_MAX {
            self.counts.dropped += 1;
            return;
        }
        self.present.insert(key, Present { from: at, holders: vec![holder] });
        self.tell(Fact { address: key.address, own: key.own, from: at, to: None });
    }

    /// A holder of an address went at `at`.
    pub(super) fn went(&mut self, key: Key, holder: Holder, at: WallTime) {
        let Some(present) = self.present.get_mut(&key) else { return };
        present.holders.retain(|known| *known != holder);
        if present.holders.is_empty() {
            self.end(key, at);
        }
    }

    /// An interface is gone or down, and every route by it with it, which the kernel does not say
    /// for IPv4.
    pub(super) fn interface_went(&mut self, interface: u32, routes_only: bool, at: WallTime) {
        let mut ended = Vec::new();
        for (key, present) in &mut self.present {
            if routes_only && key.own {
                continue;
            }
            present.holders.retain(|holder| holder.interface != interface);
            if present.holders.is_empty() {
                ended.push(*key);
            }
        }
        ended.sort_unstable();
        for key in ended {
            self.end(key, at);
        }
    }

    /// Everything was read anew. What came or went unheard did so between `before` and `at`: it is
    /// told as the longest time it may have been there.
    pub(super) fn replace(
        &mut self,
        read: &BTreeMap<Key, Vec<Holder>>,
        before: WallTime,
        at: WallTime,
    ) {
        let mut gone: Vec<Key> =
            self.present.keys().filter(|key| !read.contains_key(key)).copied().collect();
        gone.sort_unstable();
        for key in gone {
            self.end(key, at);
        }
        for (key, holders) in read {
            for holder in holders {
                self.came(*key, *holder, before);
            }
            if let Some(present) = self.present.get_mut(key) {
                present.holders.clone_from(holders);
            }
        }
    }

    /// Takes over since when an address is there from somebody who saw it come.
    pub(super) fn remember(&mut self, fact: &Fact) {
        let key = Key { address: fact.address, own: fact.own };
        if let Some(present) = self.present.get_mut(&key).filter(|p| p.from == SINCE_BEFORE) {
            present.from = fact.from;
            self.tell(Fact { to: None, ..*fact });
        }
    }

    pub(super) fn all(&self) -> News {
        let mut present: Vec<Fact> = self.present_facts().collect();
        present.sort_unstable_by_key(|fact| (fact.own, fact.address));
        let facts = self.past.iter().copied().chain(present).collect();
        News { complete: true, facts, cursor: self.cursor() }
    }

    pub(super) fn since(&self, cursor: u64) -> Option<News> {
        if cursor == self.cursor() {
            return None;
        }
        if cursor < self.log_begins || cursor > self.cursor() {
            return Some(self.all());
        }
        let told = usize::try_from(cursor - self.log_begins).unwrap_or(usize::MAX);
        let facts = self.log.iter().skip(told).copied().collect();
        Some(News { complete: false, facts, cursor: self.cursor() })
    }

    pub(super) fn present_facts(&self) -> impl Iterator<Item = Fact> {
        self.present.iter().map(|(key, present)| Fact {
            address: key.address,
            own: key.own,
            from: present.from,
            to: None,
        })
    }

    pub(super) fn counts(&self) -> FactCounts {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let own = self.present.keys().filter(|key| key.own).count();
        FactCounts {
            own: count(own),
            routed: count(self.present.len() - own),
            past: count(self.past.len()),
            ..self.counts
        }
    }

    pub(super) fn was_overrun(&mut self) {
        self.counts.overruns += 1;
    }

    pub(super) fn could_not_read(&mut self, messages: u64) {
        self.counts.unreadable += messages;
    }

    fn end(&mut self, key: Key, at: WallTime) {
        let Some(Present { from, .. }) = self.present.remove(&key) else { return };
        let to = Some(at.max(from));
        let fact = Fact { address: key.address, own: key.own, from, to };
        if self.past.len() >= PAST_MAX {
            self.past.pop_front();
            self.counts.dropped += 1;
        }
        self.past.push_back(fact);
        self.tell(fact);
    }

    fn tell(&mut self, fact: Fact) {
        self.counts.changes += 1;
        if self.log.len() >= LOG_MAX {
            self.log.pop_front();
            self.log_begins += 1;
        }
        self.log.push_back(fact);
    }

    fn cursor(&self) -> u64 {
        self.log_begins + u64::try_from(self.log.len()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VETH: Holder = Holder { interface: 7, table: 254 };

    fn key(last: u8) -> Key {
        Key { address: IpAddr::from([10, 0, 0, last]), own: false }
    }

    fn fact(last: u8, from: u64, to: Option<u64>) -> Fact {
        let Key { address, own } = key(last);
        Fact { address, own, from: WallTime(from), to: to.map(WallTime) }
    }

    #[test]
    fn an_address_is_there_as_long_as_something_holds_it() {
        let mut book = Book::default();
        let other = Holder { interface: 8, ..VETH };
        book.came(key(1), VETH, WallTime(5));
        book.came(key(1), other, WallTime(6));
        book.went(key(1), VETH, WallTime(7));
        assert_eq!(book.all().facts, [fact(1, 5, None)]);
        book.went(key(1), other, WallTime(9));
        book.went(key(1), other, WallTime(10));
        book.came(key(1), VETH, WallTime(11));
        assert_eq!(book.all().facts, [fact(1, 5, Some(9)), fact(1, 11, None)]);
    }

    #[test]
    fn an_interface_takes_its_routes_along_and_its_own_addresses_only_for_good() {
        let mut book = Book::default();
        let own = Key { own: true, ..key(9) };
        book.came(key(1), VETH, WallTime(5));
        book.came(own, VETH, WallTime(5));
        book.interface_went(7, true, WallTime(6));
        assert_eq!(book.counts().own, 1);
        assert_eq!(book.counts().past, 1);
        book.interface_went(7, false, WallTime(8));
        assert_eq!(book.counts().own, 0);
    }

    #[test]
    fn news_are_told_once_and_everything_to_who_missed_too_much() {
        let mut book = Book::default();
        let first = book.all();
        assert_eq!((first.complete, first.facts.len()), (true, 0));
        assert_eq!(book.since(first.cursor), None);
        book.came(key(1), VETH, WallTime(5));
        book.went(key(1), VETH, WallTime(6));
        let news = book.since(first.cursor).unwrap();
        assert_eq!(
            (news.complete, news.facts),
            (false, vec![fact(1, 5, None), fact(1, 5, Some(6))])
        );
        for round in 0..LOG_MAX as u64 {
            book.came(key(2), VETH, WallTime(10 + round));
            book.went(key(2), VETH, WallTime(10 + round));
        }
        let news = book.since(first.cursor).unwrap();
        assert!(news.complete);
        assert_eq!(news.facts.len(), LOG_MAX + 1);
        assert_eq!(book.since(u64::MAX).map(|news| news.complete), Some(true));
    }

    #[test]
    fn what_changed_unheard_is_told_as_the_longest_time_it_may_have_been() {
        let mut book = Book::default();
        book.came(key(1), VETH, WallTime(5));
        book.came(key(2), VETH, WallTime(5));
        let read = BTreeMap::from([(key(2), vec![VETH]), (key(3), vec![VETH])]);
        book.replace(&read, WallTime(8), WallTime(9));
        let expected = [fact(1, 5, Some(9)), fact(2, 5, None), fact(3, 8, None)];
        assert_eq!(book.all().facts, expected);
    }

    #[test]
    fn what_an_agent_before_saw_come_is_known_since_then() {
        let mut book = Book::default();
        book.came(key(1), VETH, SINCE_BEFORE);
        book.came(key(2), VETH, WallTime(5));
        book.remember(&fact(1, 3, None));
        book.remember(&fact(2, 3, None));
        book.remember(&fact(3, 3, None));
        assert_eq!(book.all().facts, [fact(1, 3, None), fact(2, 5, None)]);
    }

    #[test]
    fn everything_is_bounded_and_what_is_lost_is_counted() {
        let mut book = Book::default();
        let key = |number: u32| Key { address: IpAddr::from(number.to_be_bytes()), own: false };
        let most = u32::try_from(PRESENT_MAX).unwrap();
        (0..most + 3).for_each(|number| book.came(key(number), VETH, WallTime(1)));
        assert_eq!((book.counts().routed, book.counts().dropped), (u64::from(most), 3));
        for round in 0..3 {
            (0..most).for_each(|number| book.came(key(number), VETH, WallTime(2 + round)));
            book.interface_went(7, true, WallTime(2 + round));
        }
        assert_eq!(book.counts().past, PAST_MAX as u64);
        assert_eq!(book.counts().dropped, 3 + u64::from(most) * 3 - PAST_MAX as u64);
    }
}
