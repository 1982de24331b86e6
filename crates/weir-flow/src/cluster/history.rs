//! The interval index: for every address who had it, from when to when.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::endpoint::{Endpoint, Name};
use crate::time::WallTime;

use super::networks::Key;
use super::timeline::{Claim, Found, NEVER, Past, Span, Timeline, Trust};
use super::told::{Bounds, LocalFact, Uid};

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Holders of all addresses.
    pub(super) holders: usize,
    /// Holders of one address, and intervals seen of it.
    pub(super) per_address: usize,
    /// Intervals seen of all addresses.
    pub(super) facts: usize,
}

/// What became of history for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Holders forgotten to make room for later ones.
    pub(super) evicted: u64,
    /// Holders and intervals not taken, because there was no room and nothing to forget.
    pub(super) refused: u64,
}

#[derive(Debug)]
pub(super) struct History {
    timelines: HashMap<Key, Timeline>,
    /// Which addresses a pod or node has a part in.
    addresses_of: HashMap<Uid, Box<[Key]>>,
    /// Who has ended, in the order of being told so.
    ended: VecDeque<(Key, Uid)>,
    holders: usize,
    facts: usize,
    room: Room,
    trust: Trust,
    losses: Losses,
}

/// Somebody who has addresses.
pub(super) struct Holder {
    pub(super) uid: Uid,
    pub(super) from: Bounds,
    pub(super) to: Option<Bounds>,
    pub(super) probe_ports: Box<[u16]>,
    pub(super) confirmed: bool,
}

impl History {
    pub(super) fn new(room: Room, trust: Trust) -> Self {
        Self {
            timelines: HashMap::new(),
            addresses_of: HashMap::new(),
            ended: VecDeque::new(),
            holders: 0,
            facts: 0,
            room,
            trust,
            losses: Losses::default(),
        }
    }

    #[inline]
    pub(super) fn look(&self, key: Key, span: Span) -> Found<'_> {
        self.timelines.get(&key).map_or(Found::Unheard, |timeline| timeline.look(span))
    }

    /// The ports at which the holder, found by its endpoint, is probed.
    pub(super) fn probe_ports(&self, key: Key, who: &Endpoint) -> &[u16] {
        let claims = self.timelines.get(&key).map(|timeline| timeline.past().claims.as_slice());
        let same = |claim: &&Claim| {
            (&claim.endpoint.namespace, &claim.endpoint.pod) == (&who.namespace, &who.pod)
        };
        let claim = claims.unwrap_or_default().iter().rev().find(same);
        claim.map(|claim| &*claim.probe_ports).unwrap_or_default()
    }

    /// Takes in a holder's present addresses; those it had besides are let go at `now`. Gives the
    /// addresses for which this is news.
    pub(super) fn hold(
        &mut self,
        holder: &Holder,
        endpoints: &[Arc<Endpoint>],
        now: WallTime,
    ) -> Vec<IpAddr> {
        let mut news = Vec::new();
        let keys: Box<[Key]> = endpoints.iter().map(|end| Key::of(end.address)).collect();
        if let Some(known) = self.addresses_of.get(&holder.uid).cloned() {
            for gone in known.iter().filter(|key| !keys.contains(key)) {
                if self.end_one(*gone, holder.uid, |from| Bounds::between(from.earliest, now)) {
                    news.push(gone.address());
                }
            }
        }
        for (key, endpoint) in keys.iter().zip(endpoints) {
            if self.hold_one(*key, holder, endpoint) {
                news.push(key.address());
            }
        }
        self.addresses_of.insert(holder.uid, keys);
        news
    }

    /// Takes in one address of a holder beside those it is known to have.
    pub(super) fn hold_also(&mut self, holder: &Holder, endpoint: &Arc<Endpoint>) {
        let key = Key::of(endpoint.address);
        self.hold_one(key, holder, endpoint);
        let known = self.addresses_of.entry(holder.uid).or_default();
        if !known.contains(&key) {
            *known = known.iter().copied().chain([key]).collect();
        }
    }

    fn hold_one(&mut self, key: Key, holder: &Holder, endpoint: &Arc<Endpoint>) -> bool {
        let known = self.timelines.get_mut(&key);
        let known = known.filter(|line| line.past().claims.iter().any(|c| c.uid == holder.uid));
        if let Some(timeline) = known {
            let claims = &timeline.past().claims;
            let same = |claim: &Claim| {
                claim.uid == holder.uid
                    && (claim.from, claim.to) == (holder.from, holder.to)
                    && claim.probe_ports == holder.probe_ports
                    && claim.endpoint == *endpoint
                    && claim.confirmed == holder.confirmed
            };
            if claims.iter().any(same) {
                return false;
            }
            timeline.change(key, self.trust, |past| {
                let claim = past.claims.iter_mut().find(|claim| claim.uid == holder.uid);
                if let Some(claim) = claim {
                    (claim.from, claim.to) = (holder.from, holder.to);
                    claim.probe_ports.clone_from(&holder.probe_ports);
                    claim.confirmed = holder.confirmed;
                    claim.endpoint = Arc::clone(endpoint);
                }
            });
        } else {
            if !self.make_room(key) {
                self.losses.refused += 1;
                return false;
            }
            let claim = Claim {
                uid: holder.uid,
                endpoint: Arc::clone(endpoint),
                probe_ports: holder.probe_ports.clone(),
                from: holder.from,
                to: holder.to,
                confirmed: holder.confirmed,
            };
            self.timelines.entry(key).or_default().change(key, self.trust, |past| {
                past.claims.reserve_exact(1);
                past.claims.push(claim);
            });
            self.holders += 1;
        }
        if holder.to.is_some() {
            self.ended.push_back((key, holder.uid));
        }
        true
    }

    /// Makes room for one more holder of this address.
    fn make_room(&mut self, key: Key) -> bool {
        let here = self.timelines.get(&key).map_or(0, |line| line.past().claims.len());
        if here >= self.room.per_address && !self.evict(key, None) {
            return false;
        }
        // Whoever was let go elsewhere, or told of again, is passed over.
        while self.holders >= self.room.holders {
            let Some((key, uid)) = self.ended.pop_front() else { return false };
            self.evict(key, Some(uid));
        }
        if self.ended.len() > 2 * self.room.holders {
            self.forget_ended();
        }
        true
    }

    /// Lets go of the oldest holder of an address that has ended; of `uid` only, where given.
    fn evict(&mut self, key: Key, uid: Option<Uid>) -> bool {
        let Some(timeline) = self.timelines.get_mut(&key) else { return false };
        let due = |claim: &Claim| claim.to.is_some() && uid.is_none_or(|uid| uid == claim.uid);
        if !timeline.past().claims.iter().any(due) {
            return false;
        }
        let (claims, facts) = (timeline.past().claims.len(), timeline.past().facts.len());
        timeline.change(key, self.trust, Past::let_go_of_oldest);
        self.losses.evicted += 1;
        self.holders -= claims - timeline.past().claims.len();
        self.facts -= facts - timeline.past().facts.len();
        if timeline.is_empty() {
            self.timelines.remove(&key);
        }
        true
    }

    /// A holder has let go of all its addresses. Gives those for which this is news.
    pub(super) fn end(&mut self, uid: Uid, at: Bounds) -> Vec<IpAddr> {
        let known = self.addresses_of.remove(&uid).unwrap_or_default();
        let ended = known.iter().filter(|key| self.end_one(**key, uid, |_| at));
        ended.map(|key| key.address()).collect()
    }

    /// False when it had ended already: the first word on its end is the nearest.
    fn end_one(&mut self, key: Key, uid: Uid, at: impl Fn(Bounds) -> Bounds) -> bool {
        let Some(timeline) = self.timelines.get_mut(&key) else { return false };
        let unended =
            |claim: &Claim| claim.uid == uid && claim.to.is_none_or(|to| to.latest == NEVER);
        if !timeline.past().claims.iter().any(unended) {
            return false;
        }
        timeline.change(key, self.trust, |past| {
            for claim in past.claims.iter_mut().filter(|claim| unended(claim)) {
                let at = at(claim.from);
                claim.to = Some(claim.to.map_or(at, |told| told.narrowed_by(at)));
            }
        });
        self.ended.push_back((key, uid));
        true
    }

    /// Takes in what a node saw of one address, and when it looked. True when it is news.
    pub(super) fn see(&mut self, node: &Name, fact: LocalFact, looked: Option<WallTime>) -> bool {
        let key = Key::of(fact.address);
        let timeline = self.timelines.entry(key).or_default();
        let before = timeline.past().facts.len();
        if self.facts >= self.room.facts && before == 0 {
            self.losses.refused += 1;
            if timeline.is_empty() {
                self.timelines.remove(&key);
            }
            return false;
        }
        let (lag, most) = (self.trust.fact_lag, self.room.per_address);
        let (news, evicted) = timeline.change(key, self.trust, |past| {
            (past.see(node, fact, looked, lag), past.keep_latest_facts(most))
        });
        self.losses.evicted += u64::from(evicted);
        self.facts = self.facts + timeline.past().facts.len() - before;
        news
    }

    /// A node looked at `at` and saw only these: the others disappeared unseen. Gives those. An
    /// address that is there under another beginning may be there all the while.
    pub(super) fn vanished(
        &mut self,
        node: &str,
        seen: &[LocalFact],
        at: WallTime,
    ) -> Vec<LocalFact> {
        let known = |fact: &LocalFact| (Key::of(fact.address), fact.from);
        let told: HashSet<(Key, WallTime)> = seen.iter().map(known).collect();
        let open = seen.iter().filter(|fact| fact.to.is_none());
        let there: HashSet<Key> = open.map(|fact| Key::of(fact.address)).collect();
        let mut gone = Vec::new();
        for (key, timeline) in &mut self.timelines {
            let unseen = timeline.past().unseen(node, |from| told.contains(&(*key, from)));
            if let Some(unseen) = unseen.filter(|_| !there.contains(key)) {
                timeline.change(*key, self.trust, |past| past.vanish(node, at));
                gone.push(LocalFact { to: Some(at), ..unseen });
            }
        }
        gone
    }

    /// Who was only remembered and has not been told of by `at` has ended since `alive`.
    pub(super) fn end_unconfirmed(&mut self, alive: WallTime, at: WallTime) -> Vec<(Key, Uid)> {
        let left = |claim: &Claim| !claim.confirmed && claim.to.is_none();
        let mut ended = Vec::new();
        for (key, timeline) in &mut self.timelines {
            if !timeline.past().claims.iter().any(left) {
                continue;
            }
            timeline.change(*key, self.trust, |past| {
                for claim in past.claims.iter_mut().filter(|claim| left(claim)) {
                    claim.to = Some(Bounds::between(claim.from.earliest.max(alive).min(at), at));
                    ended.push((*key, claim.uid));
                }
            });
        }
        self.ended.extend(&ended);
        ended
    }

    /// Makes the endpoints at these addresses anew.
    pub(super) fn rename(&mut self, keys: &[Key], anew: impl Fn(&Endpoint) -> Option<Endpoint>) {
        for key in keys {
            let Some(timeline) = self.timelines.get_mut(key) else { continue };
            timeline.change(*key, self.trust, |past| {
                for claim in &mut past.claims {
                    if let Some(endpoint) = anew(&claim.endpoint) {
                        claim.endpoint = Arc::new(endpoint);
                    }
                }
            });
        }
    }

    /// The addresses that somebody has, or had, on this node.
    pub(super) fn on_node(&self, node: &str) -> Vec<Key> {
        let there = |claim: &Claim| claim.endpoint.node.as_deref() == Some(node);
        let timelines = self.timelines.iter();
        timelines
            .filter(|(_, line)| line.past().claims.iter().any(there))
            .map(|(k, _)| *k)
            .collect()
    }

    pub(super) fn forget_before(&mut self, horizon: WallTime) {
        let (mut holders, mut facts) = (0, 0);
        let trust = self.trust;
        self.timelines.retain(|key, timeline| {
            if timeline.past().reaches_before(horizon) {
                timeline.change(*key, trust, |past| past.forget_before(horizon));
            }
            holders += timeline.past().claims.len();
            facts += timeline.past().facts.len();
            !timeline.is_empty()
        });
        (self.holders, self.facts) = (holders, facts);
        self.forget_ended();
    }

    /// Drops notes on the ended that are gone.
    fn forget_ended(&mut self) {
        let timelines = &self.timelines;
        self.ended.retain(|(key, uid)| {
            let line = timelines.get(key);
            line.is_some_and(|line| line.past().claims.iter().any(|claim| claim.uid == *uid))
        });
    }

    /// Holders' parts in addresses, as they were told.
    pub(super) fn claims(&self, key: Key) -> &[Claim] {
        self.timelines.get(&key).map(|line| line.past().claims.as_slice()).unwrap_or_default()
    }

    pub(super) fn addresses(&self) -> usize {
        self.timelines.len()
    }

    pub(super) fn holders(&self) -> usize {
        self.holders
    }

    pub(super) fn facts(&self) -> usize {
        self.facts
    }

    pub(super) fn losses(&self) -> Losses {
        self.losses
    }
}
