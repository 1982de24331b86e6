//! Who had one address when: what the API told, narrowed by what nodes saw.
//!
//! The API tells in whole seconds and late; a node sees its addresses come and go as it happens,
//! but not whose they are. An address has one holder at a time and each of its holders on a node is
//! one of the intervals seen there, so the two are matched: a holder that fits only one interval
//! has it, and no other holder can have it any more.

use std::sync::Arc;

use crate::endpoint::{Endpoint, EndpointKind, Name, Resolution, Unresolved};
use crate::time::WallTime;

use super::networks::Key;
use super::told::{Bounds, LocalFact, Uid};

/// The end of all times.
pub(super) const NEVER: WallTime = WallTime(u64::MAX);
/// The beginning of an interval that began before anybody looked.
pub(super) const SINCE_BEFORE: WallTime = WallTime(0);

/// The stretch of time in which a connection began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) first: WallTime,
    pub(super) last: WallTime,
}

impl Span {
    pub(super) fn new(at: WallTime, latest: WallTime, skew_nanos: u64) -> Self {
        Self {
            first: WallTime(at.0.saturating_sub(skew_nanos)),
            last: WallTime(latest.0.max(at.0).saturating_add(skew_nanos)),
        }
    }
}

/// Somebody had the address, between these bounds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    from: Bounds,
    to: Bounds,
    /// The latest end of this one and of all that began before it.
    latest_so_far: WallTime,
    /// [`EndpointKind::Unknown`] where only the node is known.
    who: Arc<Endpoint>,
    is_node: bool,
}

impl Held {
    fn new(from: Bounds, to: Bounds, who: Arc<Endpoint>) -> Self {
        Self { from, to, latest_so_far: to.latest, is_node: who.kind == EndpointKind::Node, who }
    }

    fn who(&self) -> Who<'_> {
        Who { endpoint: &self.who, is_node: self.is_node }
    }

    fn possible(&self, span: Span) -> bool {
        self.from.earliest <= span.last && span.first <= self.to.latest
    }

    fn definite(&self, span: Span) -> bool {
        self.from.latest <= span.first && span.last <= self.to.earliest
    }
}

/// A holder, and what is asked of every holder: asking the endpoint itself would fetch it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub(super) endpoint: &'a Arc<Endpoint>,
    pub(super) is_node: bool,
}

/// What the book says of an address at a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// It has never heard of the address.
    Unheard,
    /// It knows holders of other times.
    Nobody,
    /// It was this one.
    One(Who<'a>),
    /// It was one of these, not all of whom were possible.
    Several(&'a [Held], Span),
}

impl<'a> Found<'a> {
    /// All that may have been the holder.
    pub(super) fn possible(self) -> impl Iterator<Item = &'a Endpoint> {
        let (one, several) = match self {
            Self::Unheard | Self::Nobody => (None, None),
            Self::One(who) => (Some(who.endpoint), None),
            Self::Several(all, span) => (None, Some((all, span))),
        };
        let several = several.into_iter().flat_map(|(all, span)| {
            all.iter().filter(move |held| held.possible(span)).map(|held| &held.who)
        });
        one.into_iter().chain(several).map(|who| &**who)
    }
}

/// A holder as the API told of it.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) uid: Uid,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) probe_ports: Box<[u16]>,
    pub(super) from: Bounds,
    pub(super) to: Option<Bounds>,
    /// False for what was only remembered from before a restart.
    pub(super) confirmed: bool,
}

impl Claim {
    /// Who is not known to have ended may have ended as soon as it began: news of it come late.
    fn until(&self) -> Bounds {
        self.to.unwrap_or(Bounds { earliest: self.from.earliest, latest: NEVER })
    }
}

/// An interval in which a node saw the address.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) node: Name,
    /// As it was told, which is how it is known again.
    told: LocalFact,
    from: Bounds,
    to: Option<Bounds>,
    /// It was surely there then.
    there: WallTime,
}

impl Fact {
    fn until(&self) -> Bounds {
        self.to.unwrap_or(Bounds { earliest: self.there, latest: NEVER })
    }
}

/// How far clocks and messages are trusted, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    /// How late an agent notices a change of its addresses.
    pub(super) fact_lag: u64,
    /// How far the clocks of nodes and the API may be apart.
    pub(super) clock_slack: u64,
    /// How long after a pod's end its node may keep the address.
    pub(super) teardown: u64,
}

/// The history of one address.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    concluded: Concluded,
    past: Box<Past>,
}

/// Who had the address, as far as all that was told allows.
#[derive(Debug, Default)]
enum Concluded {
    #[default]
    Nobody,
    /// There has been only one: most addresses need no second look.
    Only { earliest: WallTime, latest: WallTime, who: Arc<Endpoint>, is_node: bool },
    /// In the order of their beginnings.
    Many(Box<[Held]>),
}

#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) claims: Vec<Claim>,
    pub(super) facts: Vec<Fact>,
}

impl Timeline {
    #[inline]
    pub(super) fn look(&self, span: Span) -> Found<'_> {
        match &self.concluded {
            Concluded::Only { earliest, latest, who: endpoint, is_node }
                if *earliest <= span.last && span.first <= *latest =>
            {
                Found::One(Who { endpoint, is_node: *is_node })
            }
            Concluded::Only { .. } | Concluded::Nobody => Found::Nobody,
            Concluded::Many(held) => among(held, span),
        }
    }

    pub(super) fn past(&self) -> &Past {
        &self.past
    }

    /// Changes what was told and draws the conclusions again.
    pub(super) fn change<T>(
        &mut self,
        key: Key,
        trust: Trust,
        change: impl FnOnce(&mut Past) -> T,
    ) -> T {
        let result = change(&mut self.past);
        let mut held = self.past.conclude(key, trust);
        self.concluded = match held.as_mut_slice() {
            [] => Concluded::Nobody,
            [only] => Concluded::Only {
                earliest: only.from.earliest,
                latest: only.to.latest,
                is_node: only.is_node,
                who: Arc::clone(&only.who),
            },
            many => {
                many.sort_by_key(|held| held.from.earliest);
                let mut latest = WallTime(0);
                for held in many {
                    latest = latest.max(held.to.latest);
                    held.latest_so_far = latest;
                }
                Concluded::Many(held.into_boxed_slice())
            }
        };
        result
    }

    pub(super) fn is_empty(&self) -> bool {
        self.past.claims.is_empty() && self.past.facts.is_empty()
    }
}

/// Who of several had it.
fn among(held: &[Held], span: Span) -> Found<'_> {
    let begun = held.partition_point(|held| held.from.earliest <= span.last);
    let begun = &held[..begun];
    let over = begun.iter().rev().take_while(|held| held.latest_so_far >= span.first).count();
    let near = &begun[begun.len() - over..];
    let mut possible = near.iter().filter(|held| held.possible(span));
    let Some(first) = possible.next() else { return Found::Nobody };
    if possible.next().is_none() {
        return Found::One(first.who());
    }
    // Only one has it at a time: who surely had it all the while was alone.
    let mut sure = near.iter().filter(|held| held.definite(span));
    match (sure.next(), sure.next()) {
        (Some(sure), None) => Found::One(sure.who()),
        _ => Found::Several(near, span),
    }
}

impl Past {
    /// Takes in an interval that a node saw. `looked`: it looked then, so what is open was there.
    /// True when it is news.
    ///
    /// A node's intervals lie one after the other, and only the last one may be open.
    pub(super) fn see(
        &mut self,
        node: &Name,
        told: LocalFact,
        looked: Option<WallTime>,
        lag: u64,
    ) -> bool {
        let open = self.facts.iter_mut().find(|fact| fact.node == *node && fact.to.is_none());
        if let Some(open) = open {
            let told_again = open.told.from == told.from;
            if told.to.is_none() && told.from <= open.from.latest {
                open.there = looked.map_or(open.there, |looked| open.there.max(looked));
            }
            // Nobody had seen it come, and now somebody says since when it is there.
            let since = open.from.earliest..=open.from.latest;
            let refined = told.from != SINCE_BEFORE && told.to.is_none();
            if refined && !told_again && since.contains(&told.from) {
                open.told.from = told.from;
                open.from = late(told.from, lag);
                return true;
            }
            if told_again {
                return self.close(node, told, lag);
            }
        }
        let past = |fact: &Fact| fact.node == *node && fact.told.from == told.from;
        let anew = told.from == SINCE_BEFORE && told.to.is_none();
        // What begins within an interval that is over by now is that interval, told late.
        let over = |fact: &Fact| {
            let ended = fact.told.to.is_some_and(|to| told.from < to);
            told.to.is_none() && fact.node == *node && fact.told.from <= told.from && ended
        };
        if !anew && self.facts.iter().any(|fact| past(fact) || over(fact)) {
            return false;
        }
        let mut from = late(told.from, lag);
        if told.from == SINCE_BEFORE {
            from.latest = told.to.or(looked).unwrap_or(NEVER);
        }
        let before = self.facts.iter().filter(|fact| fact.node == *node);
        let before = before.filter(|fact| fact.from.latest < from.latest);
        match before.max_by_key(|fact| fact.from.latest) {
            // Nobody saw when the first one began.
            None => from.earliest = SINCE_BEFORE,
            Some(Fact { to: Some(to), .. }) if told.from == SINCE_BEFORE => {
                from.earliest = to.earliest.min(from.latest);
            }
            Some(Fact { to: Some(_), .. }) => {}
            // Nobody saw the end of the one before: the agent began to look anew, and this may
            // well be the same one.
            Some(Fact { to: None, from: began, .. }) => {
                from.earliest = began.earliest;
                self.facts.retain(|fact| fact.node != *node || fact.to.is_some());
            }
        }
        let to = told.to.map(|at| late(at, lag));
        self.facts.reserve_exact(1);
        let there = looked.filter(|_| to.is_none()).unwrap_or_default().max(from.latest);
        self.facts.push(Fact { node: Name::clone(node), told, from, to, there });
        self.begin_after(node, from, to);
        true
    }

    /// The open interval has ended, where it has.
    fn close(&mut self, node: &Name, told: LocalFact, lag: u64) -> bool {
        let mut of_node = self.facts.iter_mut().filter(|fact| fact.node == *node);
        let Some(open) = of_node.find(|fact| fact.to.is_none()) else { return false };
        let Some(at) = told.to else { return false };
        open.told.to = Some(at);
        open.to = Some(late(at, lag));
        let (from, to) = (open.from, open.to);
        self.begin_after(node, from, to);
        true
    }

    /// An interval has ended: those seen later began after that.
    fn begin_after(&mut self, node: &Name, from: Bounds, to: Option<Bounds>) {
        let Some(to) = to else { return };
        let of_node = self.facts.iter_mut().filter(|fact| fact.node == *node);
        for later in of_node.filter(|fact| fact.from.latest > from.latest) {
            later.from.earliest = later.from.earliest.max(to.earliest).min(later.from.latest);
        }
    }

    /// An interval that is open as far as was told, but that the node does not see.
    pub(super) fn unseen(&self, node: &str, seen: impl Fn(WallTime) -> bool) -> Option<LocalFact> {
        let open = self.facts.iter().find(|fact| &*fact.node == node && fact.to.is_none())?;
        (!seen(open.told.from)).then_some(open.told)
    }

    /// The end of the open interval went unseen, and it is over at `at`.
    pub(super) fn vanish(&mut self, node: &str, at: WallTime) {
        let fact = self.facts.iter_mut().find(|fact| &*fact.node == node && fact.to.is_none());
        if let Some(fact) = fact {
            fact.told.to = Some(at);
            fact.to = Some(Bounds::between(fact.there, at));
        }
    }

    /// Lets go of the intervals seen longest ago; tells how many.
    pub(super) fn keep_latest_facts(&mut self, most: usize) -> u32 {
        let mut gone = 0;
        while self.facts.len() > most {
            let oldest = self.facts.iter().enumerate().min_by_key(|(_, fact)| fact.from.latest);
            let Some((at, _)) = oldest else { break };
            self.facts.remove(at);
            gone += 1;
        }
        gone
    }

    pub(super) fn reaches_before(&self, horizon: WallTime) -> bool {
        let ended = |to: Option<Bounds>| to.is_some_and(|to| to.latest < horizon);
        self.claims.iter().any(|claim| ended(claim.to)) || self.facts.iter().any(|f| ended(f.to))
    }

    /// Lets go of the oldest holder that has ended, and of what nodes saw before that. False when
    /// all are there still.
    pub(super) fn let_go_of_oldest(&mut self) -> bool {
        let ended = self.claims.iter().enumerate().filter_map(|(at, c)| Some((c.to?, at)));
        let Some((end, at)) = ended.min_by_key(|(to, _)| to.latest) else { return false };
        self.claims.remove(at);
        self.facts.retain(|fact| fact.to.is_none_or(|to| to.latest > end.latest));
        true
    }

    /// Lets go of all that ended before `horizon`.
    pub(super) fn forget_before(&mut self, horizon: WallTime) {
        let lasts = |to: Option<Bounds>| to.is_none_or(|to| to.latest >= horizon);
        self.claims.retain(|claim| lasts(claim.to));
        self.facts.retain(|fact| lasts(fact.to));
    }

    fn conclude(&self, key: Key, trust: Trust) -> Vec<Held> {
        let as_told =
            |claim: &Claim| Held::new(claim.from, claim.until(), Arc::clone(&claim.endpoint));
        if self.facts.is_empty() {
            return self.claims.iter().map(as_told).collect();
        }
        let matched = match_up(&self.claims, &self.facts, trust);
        let mut concluded = Vec::with_capacity(self.claims.len());
        for (at, claim) in self.claims.iter().enumerate() {
            let Some(fact) = matched.fact_of[at].map(|fact| &self.facts[fact]) else {
                concluded.push(as_told(claim));
                continue;
            };
            let others = self.claims.iter().enumerate().filter(|(other, _)| *other != at);
            let decided = others.into_iter().any(|(_, other)| {
                claim.from.earliest <= other.until().latest
                    && other.from.earliest <= claim.until().latest
            });
            let from = claim.from.narrowed_by(fact.from);
            let to = claim.until().narrowed_by(fact.until());
            concluded.push(Held::new(from, to, by(&claim.endpoint, decided)));
        }
        for (at, fact) in self.facts.iter().enumerate() {
            let own = |claim: &Claim| {
                claim.endpoint.kind == EndpointKind::Node
                    && claim.endpoint.node.as_deref() == Some(&*fact.node)
            };
            if !matched.owned[at] && !self.claims.iter().any(own) {
                let who = Arc::new(stranger(key, &fact.node));
                concluded.push(Held::new(fact.from, fact.until(), who));
            }
        }
        concluded
    }
}

/// An instant that was noticed up to `lag` late.
fn late(at: WallTime, lag: u64) -> Bounds {
    Bounds { earliest: WallTime(at.0.saturating_sub(lag)), latest: at }
}

/// The endpoint, marked as one that a node's agent decided about where it did.
fn by(endpoint: &Arc<Endpoint>, decided: bool) -> Arc<Endpoint> {
    if !decided || endpoint.resolution != Some(Resolution::Directory) {
        return Arc::clone(endpoint);
    }
    Arc::new(Endpoint { resolution: Some(Resolution::LocalFacts), ..Endpoint::clone(endpoint) })
}

/// Somebody of whom only the node is known.
fn stranger(key: Key, node: &Name) -> Endpoint {
    Endpoint {
        node: Some(Name::clone(node)),
        resolution: Some(Resolution::LocalFacts),
        unresolved: Some(Unresolved::NotInDirectory),
        ..Endpoint::bare(EndpointKind::Unknown, key.address())
    }
}

struct Matched {
    /// For each claim the interval that is its own.
    fact_of: Vec<Option<usize>>,
    /// For each interval whether a claim has it for sure, or several want it.
    owned: Vec<bool>,
}

/// Which interval belongs to which holder, as far as it is certain.
fn match_up(claims: &[Claim], facts: &[Fact], trust: Trust) -> Matched {
    let torn_down = |claim: &Claim| {
        let until = claim.until().widened(trust.clock_slack);
        Bounds { latest: WallTime(until.latest.0.saturating_add(trust.teardown)), ..until }
    };
    let fits = |claim: &Claim, fact: &Fact| {
        claim.endpoint.node.as_deref() == Some(&*fact.node)
            && claim.endpoint.kind == EndpointKind::Pod
            && claim.from.widened(trust.clock_slack).meets(fact.from)
            && torn_down(claim).meets(fact.until())
    };
    let wanted_by = |claim: &Claim| -> Vec<usize> {
        (0..facts.len()).filter(|at| fits(claim, &facts[*at])).collect()
    };
    let mut wants: Vec<Vec<usize>> = claims.iter().map(wanted_by).collect();
    let mut fact_of = vec![None; claims.len()];
    let mut owned = vec![false; facts.len()];
    loop {
        let sole = |fact: usize| wants.iter().filter(|want| want.as_slice() == [fact]).count() == 1;
        let certain = wants.iter().enumerate().find_map(|(claim, want)| match want.as_slice() {
            [fact] if fact_of[claim].is_none() && sole(*fact) => Some((claim, *fact)),
            _ => None,
        });
        let Some((claim, fact)) = certain else { break };
        fact_of[claim] = Some(fact);
        owned[fact] = true;
        for (other, want) in wants.iter_mut().enumerate() {
            if other != claim {
                want.retain(|wanted| *wanted != fact);
            }
        }
    }
    // Two that can have nothing but this interval: one of them has it, but not a stranger.
    for (fact, owned) in owned.iter_mut().enumerate() {
        *owned |= wants.iter().any(|want| want.as_slice() == [fact]);
    }
    Matched { fact_of, owned }
}
