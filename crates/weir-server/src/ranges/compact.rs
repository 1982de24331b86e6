//! Lists in a compact form: the copy inside the binary and the cache on disk.
//!
//! ```text
//! magic "weir ranges 1\n"
//! number of editions, then of each:
//!   provider (1 byte), day (10 bytes, or 10 spaces), note (length, text)
//!   number of names, then each (length, text), ascending
//!   number of meanings, then each (region, service: numbers of names), ascending
//!   number of IPv4 prefixes, then each; number of IPv6 prefixes, then each:
//!     prefix length (1 byte), the bytes of the address that the prefix covers, meaning
//! XXH3-64 of all before, little-endian
//! ```
//! Numbers are varints (7 bits a byte, low ones first). The same lists give the same bytes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::civil::Date;
use thiserror::Error;
use weir_flow::endpoint::Name;
use weir_flow::ranges::{List, Listed, Prefix, Provider};
use xxhash_rust::xxh3::xxh3_64;

use super::published::{MAX_NAME_BYTES, MAX_PREFIXES};

const MAGIC: &[u8] = b"weir ranges 1\n";
const DIGEST_BYTES: usize = 8;
const DAY_BYTES: usize = 10;
const MAX_NOTE_BYTES: usize = 200;

/// One provider's list as of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edition {
    /// What was published.
    pub list: List,
    /// The day it was made, where that is known.
    pub as_of: Option<Date>,
    /// What whoever made this copy has to say about it; empty for the published file itself.
    pub note: String,
}

/// Why bytes are not lists.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompactError {
    /// They do not begin as lists do, or are of another version.
    #[error("not a file of ranges that this version of weir wrote")]
    Foreign,
    /// The digest does not match.
    #[error("damaged: its digest does not match")]
    Damaged,
    /// The digest matches and the content still makes no sense.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Puts editions into compact form.
pub fn encode(editions: &[Edition]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    number(&mut out, editions.len());
    for edition in editions {
        encode_edition(&mut out, edition);
    }
    let digest = xxh3_64(&out);
    out.extend_from_slice(&digest.to_le_bytes());
    out
}

fn encode_edition(out: &mut Vec<u8>, edition: &Edition) {
    let entries = edition.list.entries();
    out.push(code(edition.list.provider));
    let day = edition.as_of.map_or_else(String::new, |day| day.to_string());
    out.extend_from_slice(format!("{day:DAY_BYTES$}").as_bytes());
    text(out, &edition.note[..edition.note.floor_char_boundary(MAX_NOTE_BYTES)]);

    let names: BTreeSet<&Name> =
        entries.iter().flat_map(|listed| [&listed.region, &listed.service]).collect();
    let names: Vec<&Name> = names.into_iter().collect();
    number(out, names.len());
    for name in &names {
        text(out, name);
    }
    let place = |name: &Name| names.binary_search(&name).expect("every name was collected above");

    let meaning = |listed: &Listed| (place(&listed.region), place(&listed.service));
    let meanings: BTreeSet<(usize, usize)> = entries.iter().map(meaning).collect();
    let meanings: Vec<(usize, usize)> = meanings.into_iter().collect();
    number(out, meanings.len());
    for (region, service) in &meanings {
        number(out, *region);
        number(out, *service);
    }

    // Addresses sort IPv4 first.
    let split = entries.partition_point(|listed| listed.prefix.address().is_ipv4());
    let (v4, v6) = entries.split_at(split);
    for family in [v4, v6] {
        number(out, family.len());
        for listed in family {
            let length = listed.prefix.length();
            out.push(length);
            let covered = usize::from(length.div_ceil(8));
            match listed.prefix.address() {
                IpAddr::V4(address) => out.extend_from_slice(&address.octets()[..covered]),
                IpAddr::V6(address) => out.extend_from_slice(&address.octets()[..covered]),
            }
            let meaning = meanings.binary_search(&meaning(listed));
            number(out, meaning.expect("every meaning was collected above"));
        }
    }
}

/// Reads editions out of compact form.
pub fn decode(bytes: &[u8]) -> Result<Vec<Edition>, CompactError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(CompactError::Foreign)?;
    let (body, digest) = body.split_last_chunk::<DIGEST_BYTES>().ok_or(CompactError::Damaged)?;
    let digested = &bytes[..bytes.len() - DIGEST_BYTES];
    if xxh3_64(digested) != u64::from_le_bytes(*digest) {
        return Err(CompactError::Damaged);
    }
    decode_body(body)
}

/// Reads what stands between the magic and the digest.
pub fn decode_body(body: &[u8]) -> Result<Vec<Edition>, CompactError> {
    let mut reader = Reader(body);
    let count = reader.number(Provider::ALL.len(), "more editions than providers")?;
    let mut editions = Vec::with_capacity(count);
    for _ in 0..count {
        editions.push(decode_edition(&mut reader)?);
    }
    if reader.0.is_empty() { Ok(editions) } else { Err(CompactError::Malformed("more than lists")) }
}

fn decode_edition(reader: &mut Reader<'_>) -> Result<Edition, CompactError> {
    let [code] = *reader.take(1)? else { return Err(ENDED) };
    let provider = Provider::ALL.get(usize::from(code));
    let provider = *provider.ok_or(CompactError::Malformed("an unknown provider"))?;
    let day = str::from_utf8(reader.take(DAY_BYTES)?).unwrap_or_default().trim_end();
    let as_of = match day {
        "" => None,
        day => Some(day.parse().or(Err(CompactError::Malformed("a day that is none")))?),
    };
    let note = reader.text(MAX_NOTE_BYTES)?.to_owned();

    let count = reader.number(MAX_PREFIXES, "too many names")?;
    let mut names: Vec<Name> = Vec::new();
    for _ in 0..count {
        names.push(reader.text(MAX_NAME_BYTES)?.into());
    }
    let count = reader.number(MAX_PREFIXES, "too many meanings")?;
    let mut meanings = Vec::new();
    for _ in 0..count {
        let mut name = || {
            let place = reader.number(names.len(), NO_NAME)?;
            names.get(place).cloned().ok_or(CompactError::Malformed(NO_NAME))
        };
        meanings.push((name()?, name()?));
    }
    let mut listed = Vec::new();
    for is_ipv4 in [true, false] {
        let count = reader.number(MAX_PREFIXES, "too many prefixes")?;
        for _ in 0..count {
            let prefix = reader.prefix(is_ipv4)?;
            let place = reader.number(meanings.len(), NO_MEANING)?;
            let (region, service) =
                meanings.get(place).cloned().ok_or(CompactError::Malformed(NO_MEANING))?;
            listed.push(Listed { prefix, region, service });
        }
    }
    Ok(Edition { list: List::new(provider, listed), as_of, note })
}

const ENDED: CompactError = CompactError::Malformed("it ends within a list");
const NO_NAME: &str = "a name that is not there";
const NO_MEANING: &str = "a meaning that is not there";

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], CompactError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ENDED)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number up to `most`.
    fn number(&mut self, most: usize, beyond: &'static str) -> Result<usize, CompactError> {
        let mut value = 0;
        // Three bytes hold more than any number here may be.
        for shift in [0, 7, 14] {
            let [byte] = *self.take(1)? else { return Err(ENDED) };
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if value <= most {
                    Ok(value)
                } else {
                    Err(CompactError::Malformed(beyond))
                };
            }
        }
        Err(CompactError::Malformed(beyond))
    }

    fn text(&mut self, most: usize) -> Result<&'a str, CompactError> {
        let length = self.number(most, "a text too long")?;
        str::from_utf8(self.take(length)?).or(Err(CompactError::Malformed("a text not in UTF-8")))
    }

    fn prefix(&mut self, is_ipv4: bool) -> Result<Prefix, CompactError> {
        let [length] = *self.take(1)? else { return Err(ENDED) };
        let covered = self.take(usize::from(length.div_ceil(8)))?;
        let address: Option<IpAddr> = if is_ipv4 {
            padded(covered).map(|octets| Ipv4Addr::from_octets(octets).into())
        } else {
            padded(covered).map(|octets| Ipv6Addr::from_octets(octets).into())
        };
        address
            .and_then(|address| Prefix::new(address, length))
            .ok_or(CompactError::Malformed("a prefix longer than an address"))
    }
}

fn padded<const N: usize>(covered: &[u8]) -> Option<[u8; N]> {
    let mut octets = [0; N];
    octets.get_mut(..covered.len())?.copy_from_slice(covered);
    Some(octets)
}

fn code(provider: Provider) -> u8 {
    let place = Provider::ALL.iter().position(|other| *other == provider);
    u8::try_from(place.expect("ALL has every provider")).expect("there are four providers")
}

fn number(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits"));
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::published::parse;
    use super::*;

    fn editions() -> Vec<Edition> {
        let files: [(Provider, &[u8], &str); 2] = [
            (
                Provider::Aws,
                br#"{"createDate": "2026-01-31-00-00-00", "prefixes": [
                    {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "S3"},
                    {"ip_prefix": "0.0.0.0/0"}, {"ip_prefix": "1.2.3.4/32", "service": "EC2"},
                    {"ip_prefix": "::/0"}, {"ip_prefix": "2600::1/128", "region": "x"}]}"#,
                "",
            ),
            (Provider::Google, b"{}", "made by hand"),
        ];
        let edition = |(provider, file, note): (Provider, &[u8], &str)| {
            let published = parse(provider, file);
            Edition { list: published.list, as_of: published.as_of, note: note.to_owned() }
        };
        files.into_iter().map(edition).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for editions in [editions(), Vec::new()] {
            let bytes = encode(&editions);
            assert_eq!(decode(&bytes).as_ref(), Ok(&editions));
            assert_eq!(encode(&decode(&bytes).unwrap()), bytes);
        }
        assert_eq!(editions()[0].list.entries().len(), 5);
    }

    #[test]
    fn every_damage_is_found_and_no_bytes_break_the_reader() {
        let bytes = encode(&editions());
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
            let mut other = bytes.clone();
            other[at] ^= 1 << (at % 8);
            assert!(decode(&other).is_err(), "changed at {at}");
            // Behind a digest that matches, bytes may mean something else, or nothing.
            let body = &bytes[MAGIC.len()..bytes.len() - DIGEST_BYTES];
            if let Some(byte) = other.get(MAGIC.len() + at.min(body.len())) {
                let mut body = body.to_vec();
                if let Some(place) = body.get_mut(at) {
                    *place = *byte;
                }
                drop(decode_body(&body));
                drop(decode_body(&body[..at.min(body.len())]));
            }
        }
        assert_eq!(decode(b"weir ranges 2\n........"), Err(CompactError::Foreign));
        assert_eq!(decode(MAGIC), Err(CompactError::Damaged));
    }
}
