//! Times and durations as people write them.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;

const DURATION_HINT: &str = "a duration is numbers with the units s, m, h, d: 30s, 10m, 2h30m, 1d";
const MOMENT_HINT: &str =
    "valid are now, a duration ago (10m, 2h30m, 1d) and RFC 3339 (2026-01-31T08:00:00Z)";

/// A point in time, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// That long before now.
    Ago(Duration),
    /// Seconds since 1970.
    At(u64),
}

impl Moment {
    /// Reads `now`, `10m` (ten minutes ago) or an RFC 3339 time.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        if text == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        // Only a date begins with four digits and a hyphen; say what is wrong with it as such.
        if text.as_bytes().get(4) == Some(&b'-') {
            let time: Timestamp =
                text.parse().with_context(|| format!("not an RFC 3339 time; {MOMENT_HINT}"))?;
            let seconds = u64::try_from(time.as_second()).ok();
            return seconds.map(Self::At).context("times before 1970 have no flows");
        }
        ensure!(text.starts_with(|c: char| c.is_ascii_digit()), "not a time; {MOMENT_HINT}");
        Ok(Self::Ago(duration(text)?))
    }

    /// Seconds since 1970, given what time it is.
    pub(crate) fn seconds(self, now_seconds: u64) -> u64 {
        match self {
            Self::Ago(ago) => now_seconds.saturating_sub(ago.as_secs()),
            Self::At(at) => at,
        }
    }
}

/// Reads a duration longer than zero: `5s`, `10m`, `2h30m`, `1d`.
pub(crate) fn duration(text: &str) -> anyhow::Result<Duration> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    let mut last_unit = u64::MAX;
    ensure!(!rest.is_empty(), "empty; {DURATION_HINT}");
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        ensure!(!number.is_empty(), "a number is missing before {after:?}; {DURATION_HINT}");
        let number: u64 = number.parse().with_context(|| format!("{number} is too large"))?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (name, after) = after.split_at(letters);
        let unit = match name {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "" => bail!("{number} has no unit; {DURATION_HINT}"),
            other => bail!("unknown unit {other:?}; {DURATION_HINT}"),
        };
        ensure!(unit < last_unit, "units go from large to small, each once; {DURATION_HINT}");
        last_unit = unit;
        seconds = number
            .checked_mul(unit)
            .and_then(|more| seconds.checked_add(more))
            // A century: beyond it a slip of the finger, and far from where arithmetic overflows.
            .filter(|sum| *sum <= 36_525 * 86_400)
            .with_context(|| "longer than 100 years".to_owned())?;
        rest = after;
    }
    ensure!(seconds > 0, "must be longer than 0; {DURATION_HINT}");
    Ok(Duration::from_secs(seconds))
}

/// RFC 3339 in UTC, whole seconds.
pub(crate) fn rfc3339(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

/// Now, in seconds since 1970.
pub(crate) fn now_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// A length of time for people: the two largest units, where they are not 0.
pub(crate) fn human(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    let (large, small) = match seconds {
        86_400.. => ((days, "d"), (hours, "h")),
        3_600.. => ((hours, "h"), (minutes, "m")),
        60.. => ((minutes, "m"), (rest, "s")),
        _ => return format!("{seconds}s"),
    };
    match small {
        (0, _) => format!("{}{}", large.0, large.1),
        (number, unit) => format!("{}{}{number}{unit}", large.0, large.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in
            [("5s", 5), ("10m", 600), ("2h30m", 9_000), ("1d", 86_400), ("1d1s", 86_401)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_duration_is_said() {
        for (text, says) in [
            ("", "empty"),
            ("10", "10 has no unit"),
            ("10x", "unknown unit \"x\""),
            ("m", "a number is missing before \"m\""),
            ("-5m", "a number is missing before \"-5m\""),
            ("5m2h", "from large to small"),
            ("1m1m", "each once"),
            ("0s", "longer than 0"),
            ("99999999999999999999s", "too large"),
            ("9999999999d", "100 years"),
            ("1é", "unknown unit \"é\""),
        ] {
            let error = format!("{:#}", duration(text).unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn moments() {
        let now = 1_769_846_400;
        for (text, seconds) in [
            ("now", now),
            ("10m", now - 600),
            ("2026-01-31T08:00:00Z", now),
            ("2026-01-31T09:00:00+01:00", now),
            ("2026-01-31T08:00:00.9Z", now),
        ] {
            assert_eq!(Moment::parse(text).unwrap().seconds(now), seconds, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_moment_is_said() {
        for (text, says) in [
            ("yesterday", "valid are now, a duration ago"),
            ("", "not a time"),
            ("2026-13-01T00:00:00Z", "not an RFC 3339 time"),
            ("2026-01-31", "RFC 3339 (2026-01-31T08:00:00Z)"),
            ("1969-12-31T23:59:59Z", "before 1970"),
            ("10x", "unknown unit"),
        ] {
            let error = format!("{:#}", Moment::parse(text).unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn lengths_for_people() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (90_061, "1d1h"), (86_405, "1d"), (3_661, "1h1m")]
        {
            assert_eq!(human(seconds), text);
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(rfc3339(1_769_846_400), "2026-01-31T08:00:00Z");
        assert_eq!(rfc3339(u64::MAX), Timestamp::MAX.to_string());
    }
}
