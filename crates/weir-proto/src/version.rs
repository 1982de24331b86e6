//! Which version of the protocol two sides speak.

use std::ops::RangeInclusive;

/// The versions this build speaks.
pub const SPOKEN: RangeInclusive<u32> = 1..=1;

/// Two sides have no version in common.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no protocol version in common: the agent speaks {} to {}, the server {} to {}: upgrade the \
     older of them",
    theirs.start(), theirs.end(), ours.start(), ours.end()
)]
pub struct UnknownVersion {
    /// What this side speaks.
    pub ours: RangeInclusive<u32>,
    /// What the other side said.
    pub theirs: RangeInclusive<u32>,
}

/// The newest version both sides speak.
pub fn negotiate(
    ours: &RangeInclusive<u32>,
    theirs: &RangeInclusive<u32>,
) -> Result<u32, UnknownVersion> {
    let newest = *ours.end().min(theirs.end());
    // 0 is what a message without the field says, and no version.
    if newest > 0 && ours.contains(&newest) && theirs.contains(&newest) {
        return Ok(newest);
    }
    Err(UnknownVersion { ours: ours.clone(), theirs: theirs.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        for (ours, theirs, spoken) in [
            (1..=1, 1..=1, Some(1)),
            (1..=3, 2..=9, Some(3)),
            (2..=9, 1..=3, Some(3)),
            (1..=1, 2..=3, None),
            (2..=3, 1..=1, None),
            (1..=1, 0..=0, None),
            (0..=0, 0..=0, None),
            (1..=4, RangeInclusive::new(4, 1), None),
            (1..=1, 1..=u32::MAX, Some(1)),
        ] {
            assert_eq!(negotiate(&ours, &theirs).ok(), spoken, "{ours:?} {theirs:?}");
        }
        let error = negotiate(&(1..=1), &(7..=8)).unwrap_err().to_string();
        assert!(error.contains("the agent speaks 7 to 8, the server 1 to 1"), "{error}");
    }
}
