//! A block of addresses that share their first bits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// A block of addresses that share their first bits. The bits behind them are zero, and a block of
/// IPv4 addresses mapped into IPv6 is a block of IPv4 addresses: equal blocks are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Not a block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an address block: write ADDRESS/LENGTH, as in 10.0.0.0/8 or fd00::/8")]
pub struct InvalidPrefix;

/// Bits before the IPv4 address in an IPv6 address it is mapped into.
const MAPPED_BITS: u8 = 96;

impl Prefix {
    /// The block of this length around this address; `None` where the length is beyond the family's.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let (address, length) = match address {
            IpAddr::V6(v6) if length <= 128 => match v6.to_ipv4_mapped() {
                Some(v4) if length >= MAPPED_BITS => (IpAddr::V4(v4), length - MAPPED_BITS),
                _ => (address, length),
            },
            _ => (address, length),
        };
        let address = match address {
            IpAddr::V4(v4) if length <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) if length <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
            _ => return None,
        };
        Some(Self { address, length })
    }

    /// The block of this one address.
    pub fn single(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits its addresses share.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// True when the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address.to_canonical(), self.length)
            .is_some_and(|block| block.address == self.address)
    }

    /// Its first and last address as numbers.
    pub(super) fn bounds(&self) -> (u128, u128) {
        let (first, bits) = match self.address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let free = bits - u32::from(self.length);
        (first, first | u128::MAX.checked_shr(128 - free).unwrap_or(0))
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    /// Reads `ADDRESS/LENGTH`, or one address. Bits behind the length are cut off.
    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse().map(Self::single).or(Err(InvalidPrefix));
        };
        // `u8::from_str` would read a sign.
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidPrefix);
        }
        let (Ok(address), Ok(length)) = (address.parse(), length.parse()) else {
            return Err(InvalidPrefix);
        };
        Self::new(address, length).ok_or(InvalidPrefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}
