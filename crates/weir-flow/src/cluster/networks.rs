//! Addresses as keys, and which of many networks holds one.

use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashMap;

use crate::ranges::Prefix;

/// An address in the form that the book is kept by: IPv4 as IPv4-mapped IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(u128);

impl Key {
    pub(super) fn of(address: IpAddr) -> Self {
        let v6 = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self(v6.to_bits())
    }

    pub(super) fn address(self) -> IpAddr {
        Ipv6Addr::from_bits(self.0).to_canonical()
    }

    /// Its last byte: neighbours differ in it.
    pub(super) fn last_byte(self) -> u8 {
        let [.., last] = self.0.to_be_bytes();
        last
    }

    fn is_v4(self) -> bool {
        self.0 >> 32 == 0xffff
    }

    /// With all but the first `length` of 128 bits cleared.
    fn masked(self, length: u8) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or_default();
        Self(self.0 & mask)
    }
}

/// Networks, each with a value; the longest that holds an address answers.
#[derive(Debug)]
pub(super) struct Networks<T> {
    four: Vec<Length<T>>,
    six: Vec<Length<T>>,
}

/// The networks of one length. A cluster's networks are of one or two lengths, so that one or two
/// look-ups answer.
#[derive(Debug)]
struct Length<T> {
    /// Of 128, IPv4 counted as IPv4-mapped.
    bits: u8,
    networks: HashMap<Key, T>,
}

impl<T> Default for Networks<T> {
    fn default() -> Self {
        Self { four: Vec::new(), six: Vec::new() }
    }
}

impl<T> Networks<T> {
    pub(super) fn insert(&mut self, prefix: Prefix, value: T) {
        let (family, bits) = match prefix.address() {
            IpAddr::V4(_) => (&mut self.four, prefix.length() + 96),
            IpAddr::V6(_) => (&mut self.six, prefix.length()),
        };
        let at = match family.binary_search_by(|known| bits.cmp(&known.bits)) {
            Ok(at) => at,
            Err(at) => {
                family.insert(at, Length { bits, networks: HashMap::new() });
                at
            }
        };
        family[at].networks.insert(Key::of(prefix.address()), value);
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let family = if key.is_v4() { &self.four } else { &self.six };
        family.iter().find_map(|length| length.networks.get(&key.masked(length.bits)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.four.is_empty() && self.six.is_empty()
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for length in self.four.iter_mut().chain(&mut self.six) {
            length.networks.retain(|_, value| keep(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::of(text.parse().unwrap())
    }

    #[test]
    fn the_longest_network_answers() {
        let mut networks = Networks::default();
        for (prefix, name) in [
            ("10.0.0.0/8", "wide"),
            ("10.244.1.0/24", "one"),
            ("10.244.2.0/24", "two"),
            ("fd00::/64", "six"),
            ("::/0", "all"),
        ] {
            networks.insert(prefix.parse().unwrap(), name);
        }
        for (address, name) in [
            ("10.244.1.9", Some("one")),
            ("::ffff:10.244.2.9", Some("two")),
            ("10.244.3.9", Some("wide")),
            ("fd00::9", Some("six")),
            ("fd01::9", Some("all")),
            ("11.0.0.1", None),
        ] {
            assert_eq!(networks.get(key(address)).copied(), name, "{address}");
        }
        networks.retain(|name| *name != "one");
        assert_eq!(networks.get(key("10.244.1.9")), Some(&"wide"));
    }

    #[test]
    fn a_key_gives_its_address_back() {
        for text in ["10.0.0.1", "::", "fd00::1", "255.255.255.255"] {
            assert_eq!(key(text).address().to_string(), text);
        }
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
    }
}
