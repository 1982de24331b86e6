//! What messages say, checked: a malformed one never gets further than this.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use weir_flow::{Epoch, WallTime};

use crate::limits::{FACTS_MAX, NAME_BYTES_MAX, VERSION_BYTES_MAX};
use crate::pb;

/// A message holds something that no side of ours says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// An identity of another length.
    #[error("{what} has {bytes} bytes where 16 are needed")]
    Identity {
        /// Which.
        what: &'static str,
        /// How many there are.
        bytes: usize,
    },
    /// A text longer than allowed.
    #[error("{what} of {bytes} bytes is longer than the {limit} allowed")]
    Long {
        /// Which.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many of something.
    #[error("{count} {what} are more than the {limit} allowed in one message")]
    Many {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// An address that is neither IPv4 nor IPv6.
    #[error("an address has {bytes} bytes where 4 or 16 are needed")]
    Address {
        /// How many there are.
        bytes: usize,
    },
    /// A fact that ends before it begins.
    #[error("the address {address} is said to have gone before it came")]
    Backwards {
        /// Whose.
        address: IpAddr,
    },
}

/// What an agent says of itself when it begins to speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The versions of the protocol it speaks.
    pub versions: RangeInclusive<u32>,
    /// Its own version.
    pub version: String,
    /// The node it believes to run on.
    pub node: String,
    /// Its spool's epoch.
    pub epoch: Epoch,
    /// When the epoch was made.
    pub epoch_born: WallTime,
    /// The boot it runs in.
    pub boot: u128,
    /// Its clock.
    pub now: WallTime,
}

impl TryFrom<&pb::Hello> for Greeting {
    type Error = Malformed;

    fn try_from(hello: &pb::Hello) -> Result<Self, Malformed> {
        Ok(Self {
            versions: hello.protocol_min..=hello.protocol_max,
            version: bounded("version", &hello.version, VERSION_BYTES_MAX)?,
            node: bounded("node", &hello.node, NAME_BYTES_MAX)?,
            epoch: Epoch(id_from_bytes("epoch", &hello.epoch)?),
            epoch_born: WallTime(hello.epoch_born_nanos),
            boot: id_from_bytes("boot", &hello.boot)?,
            now: WallTime(hello.now_nanos),
        })
    }
}

impl From<&Greeting> for pb::Hello {
    fn from(greeting: &Greeting) -> Self {
        Self {
            protocol_min: *greeting.versions.start(),
            protocol_max: *greeting.versions.end(),
            version: greeting.version.clone(),
            node: greeting.node.clone(),
            epoch: greeting.epoch.0.to_be_bytes().to_vec(),
            epoch_born_nanos: greeting.epoch_born.0,
            boot: greeting.boot.to_be_bytes().to_vec(),
            now_nanos: greeting.now.0,
        }
    }
}

/// One address, and when a node had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The address.
    pub address: IpAddr,
    /// Since when.
    pub from: WallTime,
    /// Until when; `None` while it is there.
    pub to: Option<WallTime>,
    /// True for the node's own address, false for one that is routed to a pod or container on it.
    pub own: bool,
}

impl Fact {
    /// The facts of a message.
    pub fn all(message: &pb::Facts) -> Result<Vec<Self>, Malformed> {
        let count = message.facts.len();
        if count > FACTS_MAX {
            return Err(Malformed::Many { what: "facts", count, limit: FACTS_MAX });
        }
        message.facts.iter().map(Self::try_from).collect()
    }

    /// The messages that carry these facts. Where they are the `complete` picture, an empty one is
    /// a message too.
    pub fn messages(facts: &[Self], complete: bool) -> impl Iterator<Item = pb::Facts> {
        let last = facts.len().div_ceil(FACTS_MAX).saturating_sub(1);
        let none = pb::Facts { complete, facts: vec![], more: false };
        let empty = (complete && facts.is_empty()).then_some(none);
        let chunks = facts.chunks(FACTS_MAX).enumerate().map(move |(number, facts)| pb::Facts {
            complete,
            facts: facts.iter().map(pb::Fact::from).collect(),
            more: number < last,
        });
        empty.into_iter().chain(chunks)
    }
}

impl TryFrom<&pb::Fact> for Fact {
    type Error = Malformed;

    fn try_from(fact: &pb::Fact) -> Result<Self, Malformed> {
        let address = address(&fact.address)?;
        if fact.to_nanos.is_some_and(|to| to < fact.from_nanos) {
            return Err(Malformed::Backwards { address });
        }
        let (from, to) = (WallTime(fact.from_nanos), fact.to_nanos.map(WallTime));
        Ok(Self { address, from, to, own: fact.own })
    }
}

impl From<&Fact> for pb::Fact {
    fn from(fact: &Fact) -> Self {
        let address = match fact.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let to_nanos = fact.to.map(|to| to.0);
        Self { address, from_nanos: fact.from.0, to_nanos, own: fact.own }
    }
}

/// The difference of an agent's clock from the server's, as a ping tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Nanoseconds the agent's clock is ahead; behind where negative.
    pub ahead_nanos: i64,
    /// The true difference lies within this many nanoseconds of it: half the way there and back.
    /// `None` where the message does not tell how long the way was.
    pub half_width_nanos: Option<u64>,
}

impl Measured {
    /// What a clock reading says that arrives at `now`, before any ping went there and back.
    pub fn from_hello(agent: WallTime, now: WallTime) -> Self {
        Self { ahead_nanos: difference(agent, now), half_width_nanos: None }
    }

    /// What a ping says that arrives at `now`.
    pub fn from_ping(ping: &pb::Ping, now: WallTime) -> Self {
        let agent = WallTime(ping.now_nanos);
        let sent = now.0.checked_sub(ping.held_nanos);
        let away = sent.and_then(|sent| sent.checked_sub(ping.heard_nanos));
        // A way of more than a minute is no way: the echo is wrong, or our own clock stepped.
        let away = away.filter(|away| ping.heard_nanos != 0 && *away < 60_000_000_000);
        let Some(away) = away else { return Self::from_hello(agent, now) };
        // The reading was taken about half the way ago.
        let half = away / 2;
        let ahead_nanos = difference(WallTime(agent.0.saturating_add(half)), now);
        Self { ahead_nanos, half_width_nanos: Some(away.div_ceil(2)) }
    }

    /// By how much a question about a time of the agent's clock must be widened.
    pub fn bound_nanos(self) -> u64 {
        self.ahead_nanos.unsigned_abs().saturating_add(self.half_width_nanos.unwrap_or(0))
    }
}

/// 16 bytes, big endian.
pub fn id_from_bytes(what: &'static str, bytes: &[u8]) -> Result<u128, Malformed> {
    let array: Result<[u8; 16], _> = bytes.try_into();
    array
        .map(u128::from_be_bytes)
        .map_err(|_other_length| Malformed::Identity { what, bytes: bytes.len() })
}

/// At most this many bytes of a text, whole characters.
pub fn shortened(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn bounded(what: &'static str, text: &str, limit: usize) -> Result<String, Malformed> {
    if text.len() > limit {
        return Err(Malformed::Long { what, bytes: text.len(), limit });
    }
    Ok(text.to_owned())
}

fn address(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(octets));
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(octets) => Ok(IpAddr::from(octets).to_canonical()),
        Err(_other_length) => Err(Malformed::Address { bytes: bytes.len() }),
    }
}

fn difference(one: WallTime, other: WallTime) -> i64 {
    let apart = i64::try_from(one.0.abs_diff(other.0)).unwrap_or(i64::MAX);
    if one >= other { apart } else { -apart }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        Greeting {
            versions: 1..=2,
            version: "0.1.0".to_owned(),
            node: "n1".to_owned(),
            epoch: Epoch(1 << 127 | 5),
            epoch_born: WallTime(3),
            boot: 4,
            now: WallTime(5),
        }
    }

    #[test]
    fn a_greeting_says_the_same_on_the_other_side() {
        assert_eq!(Greeting::try_from(&pb::Hello::from(&greeting())), Ok(greeting()));
    }

    #[test]
    fn what_no_agent_says_is_refused_by_name() {
        let hello = pb::Hello::from(&greeting());
        for (hello, reason) in [
            (pb::Hello::default(), "epoch has 0 bytes where 16 are needed"),
            (pb::Hello { boot: vec![0; 17], ..hello.clone() }, "boot has 17 bytes"),
            (pb::Hello { node: "n".repeat(254), ..hello.clone() }, "node of 254 bytes is longer"),
            (pb::Hello { version: "v".repeat(65), ..hello }, "version of 65 bytes"),
        ] {
            let error = Greeting::try_from(&hello).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn facts_cross_in_messages_of_bounded_length() {
        let fact = |number: u32| Fact {
            address: IpAddr::from(number.to_be_bytes()),
            from: WallTime(u64::from(number)),
            to: (number.is_multiple_of(2)).then_some(WallTime(1 << 40)),
            own: number.is_multiple_of(3),
        };
        let facts: Vec<Fact> = (0..5_000).map(fact).collect();
        let messages: Vec<pb::Facts> = Fact::messages(&facts, true).collect();
        let flags = messages.iter().map(|m| (m.complete, m.more));
        assert_eq!(flags.collect::<Vec<_>>(), [(true, true), (true, false)]);
        let back = messages.iter().map(|m| Fact::all(m).unwrap());
        assert_eq!(back.flatten().collect::<Vec<_>>(), facts);
        assert_eq!(Fact::messages(&[], true).count(), 1);
        assert_eq!(Fact::messages(&[], false).count(), 0);
    }

    #[test]
    fn facts_that_cannot_be_are_refused() {
        let fact =
            pb::Fact { address: vec![10, 0, 0, 1], from_nanos: 5, to_nanos: None, own: true };
        let all =
            |facts: Vec<pb::Fact>| Fact::all(&pb::Facts { complete: true, facts, more: false });
        assert!(all(vec![fact.clone()]).is_ok());
        for (facts, reason) in [
            (vec![pb::Fact { address: vec![1; 5], ..fact.clone() }], "address has 5 bytes"),
            (vec![pb::Fact { to_nanos: Some(4), ..fact.clone() }], "10.0.0.1 is said to have gone"),
            (vec![fact; FACTS_MAX + 1], "4097 facts are more than the 4096"),
        ] {
            let error = all(facts).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_ping_tells_the_difference_within_half_its_way() {
        // The server said 1000; 40 later the agent had it, held it 500, and 60 later it is back.
        // Its clock is 10_000 ahead.
        let ping = pb::Ping { now_nanos: 11_540, heard_nanos: 1_000, held_nanos: 500 };
        let measured = Measured::from_ping(&ping, WallTime(1_600));
        assert_eq!(measured, Measured { ahead_nanos: 9_990, half_width_nanos: Some(50) });
        assert_eq!(measured.bound_nanos(), 10_040);
        for (heard_nanos, held_nanos) in [(0, 0), (2_000, 0), (1_000, u64::MAX)] {
            let ping = pb::Ping { now_nanos: 1_500, heard_nanos, held_nanos };
            let measured = Measured::from_ping(&ping, WallTime(1_600));
            assert_eq!(measured, Measured { ahead_nanos: -100, half_width_nanos: None });
        }
        let far = Measured::from_hello(WallTime(u64::MAX), WallTime(0));
        assert_eq!(far.ahead_nanos, i64::MAX);
    }

    #[test]
    fn a_text_is_shortened_at_a_character() {
        assert_eq!((shortened("aé", 2), shortened("aé", 3), shortened("", 9)), ("a", "aé", ""));
    }
}
