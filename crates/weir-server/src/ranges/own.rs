//! The operator's own ranges, as the configuration's `cidrs:` writes them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use weir_flow::Class;
use weir_flow::endpoint::Name;
use weir_flow::ranges::{Prefix, Range, normalise};

/// More own ranges than this are refused.
pub const MAX_OWN_RANGES: usize = 10_000;
/// A longer text is refused.
const MAX_TEXT_BYTES: usize = 128;
/// More flags on one range are refused.
const MAX_FLAGS: usize = 16;

/// One entry of `cidrs:`. What is left out is taken from the published range beneath, if any.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OwnRange {
    /// The block: `10.1.1.16/28`, or one address.
    pub cidr: String,
    /// What to call it: the endpoint becomes `external/NAME`.
    pub name: String,
    /// Its availability zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its cloud (`aws`, `gcp`, `azure`, or a name of your own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<String>,
    /// Its region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The service behind it (`redis`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The class of traffic to it, whatever its address looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What else is to be said of it (`nat_gateway`, `nlb`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// Why `cidrs:` is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OwnRangeError {
    /// One entry makes no sense.
    #[error("cidrs: entry {number} ({cidr:?}): {what}")]
    Entry {
        /// Which entry, counted from 1.
        number: usize,
        /// Its block, as written.
        cidr: String,
        /// What is wrong with it, and what would be right.
        what: String,
    },
    /// There are too many.
    #[error("cidrs: {0} entries; at most {MAX_OWN_RANGES} are read")]
    TooMany(usize),
}

/// Checks all entries of `cidrs:`.
pub fn own_ranges(entries: &[OwnRange]) -> Result<Vec<(Prefix, Range)>, OwnRangeError> {
    if entries.len() > MAX_OWN_RANGES {
        return Err(OwnRangeError::TooMany(entries.len()));
    }
    let mut seen = HashSet::new();
    let checked = entries.iter().zip(1..).map(|(entry, number)| {
        let checked = check(entry).and_then(|(prefix, range)| {
            let twice = || format!("{prefix} stands here twice; keep one of the two");
            if seen.insert(prefix) { Ok((prefix, range)) } else { Err(twice()) }
        });
        let cidr = || entry.cidr.chars().take(MAX_TEXT_BYTES).collect();
        checked.map_err(|what| OwnRangeError::Entry { number, cidr: cidr(), what })
    });
    checked.collect()
}

fn check(entry: &OwnRange) -> Result<(Prefix, Range), String> {
    let OwnRange { cidr, name, zone, cloud, region, service, class, flags } = entry;
    let prefix: Prefix = cidr.parse().map_err(|error| format!("{error}"))?;
    let written = cidr.split_once('/').map_or(cidr.as_str(), |(address, _)| address);
    let written = written.parse().map(Prefix::single);
    if written.is_ok_and(|written| written.address() != prefix.address()) {
        return Err(format!("the address lies within the block; did you mean {prefix}?"));
    }
    if flags.len() > MAX_FLAGS {
        return Err(format!("{} flags; at most {MAX_FLAGS} are read", flags.len()));
    }
    let class = class.as_deref().map(|text| Class::parse(text).ok_or_else(|| unknown(text)));
    let mut flags = flags.iter().map(|flag| sound("flags", flag)).collect::<Result<Vec<_>, _>>()?;
    flags.sort();
    flags.dedup();
    // Compared with what providers publish, so spelled as they are read.
    let published = |field, text: &Option<String>| {
        let text = text.as_deref().map(|text| sound(field, &normalise(text)));
        text.transpose()
    };
    let range = Range {
        cloud: published("cloud", cloud)?,
        region: published("region", region)?,
        service: published("service", service)?,
        name: Some(sound("name", name)?),
        zone: zone.as_deref().map(|text| sound("zone", text)).transpose()?,
        class: class.transpose()?,
        flags: flags.into_boxed_slice(),
    };
    Ok((prefix, range))
}

fn sound(field: &str, text: &str) -> Result<Name, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("{field}: it is empty; write a text or leave it out"));
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("{field}: longer than {MAX_TEXT_BYTES} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{field}: control characters are not allowed"));
    }
    Ok(text.into())
}

fn unknown(class: &str) -> String {
    let valid: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
    format!("class: {class:?} is none; valid are {}", valid.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(cidr: &str) -> OwnRange {
        OwnRange {
            cidr: cidr.to_owned(),
            name: "cache".to_owned(),
            zone: None,
            cloud: None,
            region: None,
            service: None,
            class: None,
            flags: Vec::new(),
        }
    }

    fn refused(entry: OwnRange) -> String {
        own_ranges(&[entry]).unwrap_err().to_string()
    }

    #[test]
    fn an_entry_is_read_with_all_it_says() {
        let full = OwnRange {
            zone: Some("us-west-2a".to_owned()),
            cloud: Some("AWS".to_owned()),
            region: Some("US West 2".to_owned()),
            service: Some("Redis".to_owned()),
            class: Some("cross_zone".to_owned()),
            flags: ["nlb", "nat_gateway", "nlb"].map(str::to_owned).to_vec(),
            ..entry("10.1.1.16/32")
        };
        let range = Range {
            cloud: Some("aws".into()),
            region: Some("uswest2".into()),
            service: Some("redis".into()),
            name: Some("cache".into()),
            zone: Some("us-west-2a".into()),
            class: Some(Class::CrossZone),
            flags: Box::new(["nat_gateway".into(), "nlb".into()]),
        };
        assert_eq!(own_ranges(&[full]), Ok(vec![("10.1.1.16/32".parse().unwrap(), range)]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        for (entry, expected) in [
            (entry("10.1.1.17/28"), "did you mean 10.1.1.16/28?"),
            (entry("ten"), "write ADDRESS/LENGTH"),
            (OwnRange { name: " ".to_owned(), ..entry("::/0") }, "name: it is empty"),
            (OwnRange { zone: Some("\u{1b}[2J".to_owned()), ..entry("::/0") }, "zone: control"),
            (OwnRange { service: Some("x".repeat(129)), ..entry("::/0") }, "service: longer"),
            (OwnRange { class: Some("public".to_owned()), ..entry("::/0") }, "same_zone"),
            (OwnRange { flags: vec!["x".to_owned(); 17], ..entry("::/0") }, "17 flags"),
        ] {
            let message = refused(entry);
            assert!(message.contains(expected) && message.contains("entry 1"), "{message}");
        }
        let twice = [entry("10.0.0.0/8"), entry("::ffff:10.0.0.0/104")];
        let message = own_ranges(&twice).unwrap_err().to_string();
        assert!(message.contains("entry 2") && message.contains("stands here twice"), "{message}");
        let many = vec![entry("10.0.0.0/8"); MAX_OWN_RANGES + 1];
        assert_eq!(own_ranges(&many), Err(OwnRangeError::TooMany(MAX_OWN_RANGES + 1)));
    }
}
