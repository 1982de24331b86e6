//! Times and durations as people write them.

use std::time::Duration;

use jiff::Timestamp;
use weir_flow::WallTime;

/// Why a text is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// It is not a duration.
    #[error("{what}; a duration is numbers with the units s, m, h, d: 30s, 10m, 2h30m, 1d")]
    Duration {
        /// What is wrong with it.
        what: String,
    },
    /// It is longer than anything sensible.
    #[error("longer than 100 years")]
    TooLong,
    /// It is not a point in time.
    #[error(
        "{what}; valid are now, a duration ago (10m, 2h30m, 1d) and RFC 3339 (2026-01-31T08:00:00Z)"
    )]
    Moment {
        /// What is wrong with it.
        what: String,
    },
    /// It lies before 1970.
    #[error("times before 1970 have no flows")]
    Before1970,
}

/// A point in time, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// That long before now.
    Ago(Duration),
    /// Seconds since 1970.
    At(u64),
}

impl Moment {
    /// Reads `now`, `10m` (ten minutes ago) or an RFC 3339 time.
    pub fn parse(text: &str) -> Result<Self, MomentError> {
        if text == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        let wrong = |what: String| MomentError::Moment { what };
        // Only a date begins with four digits and a hyphen; say what is wrong with it as such.
        if text.as_bytes().get(4) == Some(&b'-') {
            let time: Timestamp =
                text.parse().map_err(|error| wrong(format!("not an RFC 3339 time: {error}")))?;
            return u64::try_from(time.as_second()).map(Self::At).or(Err(MomentError::Before1970));
        }
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(wrong("not a time".to_owned()));
        }
        Ok(Self::Ago(duration(text)?))
    }

    /// Where a range that ends then ends, not included: the second that runs now belongs to it.
    pub fn end(self, now_seconds: u64) -> u64 {
        match self {
            Self::Ago(Duration::ZERO) => now_seconds + 1,
            other => other.seconds(now_seconds),
        }
    }

    /// Seconds since 1970, given what time it is.
    pub fn seconds(self, now_seconds: u64) -> u64 {
        match self {
            Self::Ago(ago) => now_seconds.saturating_sub(ago.as_secs()),
            Self::At(at) => at,
        }
    }
}

/// Reads a duration longer than zero: `5s`, `10m`, `2h30m`, `1d`.
pub fn duration(text: &str) -> Result<Duration, MomentError> {
    let wrong = |what: String| MomentError::Duration { what };
    let mut rest = text;
    let mut seconds: u64 = 0;
    let mut last_unit = u64::MAX;
    if rest.is_empty() {
        return Err(wrong("empty".to_owned()));
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(wrong(format!("a number is missing before {after:?}")));
        }
        let number: u64 =
            number.parse().map_err(|_overflow| wrong(format!("{number} is too large")))?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (name, after) = after.split_at(letters);
        let unit = match name {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "" => return Err(wrong(format!("{number} has no unit"))),
            other => return Err(wrong(format!("unknown unit {other:?}"))),
        };
        if unit >= last_unit {
            return Err(wrong("units go from large to small, each once".to_owned()));
        }
        last_unit = unit;
        seconds = number
            .checked_mul(unit)
            .and_then(|more| seconds.checked_add(more))
            // A century: beyond it a slip of the finger, and far from where arithmetic overflows.
            .filter(|sum| *sum <= 36_525 * 86_400)
            .ok_or(MomentError::TooLong)?;
        rest = after;
    }
    if seconds == 0 {
        return Err(wrong("must be longer than 0".to_owned()));
    }
    Ok(Duration::from_secs(seconds))
}

/// Reads an RFC 3339 time, to the second; `None` where it is none or before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    text.parse::<Timestamp>().ok().and_then(|time| u64::try_from(time.as_second()).ok())
}

/// RFC 3339 in UTC, whole seconds.
pub fn rfc3339(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

/// RFC 3339 in UTC, to the millisecond.
pub fn rfc3339_millis(time: WallTime) -> String {
    let millis = i64::try_from(time.0 / 1_000_000).unwrap_or(i64::MAX);
    let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
    format!("{time:.3}")
}

/// Now, in seconds since 1970.
pub fn now_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// A length of time for people: the two largest units, where they are not 0.
pub fn human(seconds: u64) -> String {
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
            let error = duration(text).unwrap_err().to_string();
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
    fn a_range_until_now_holds_the_second_that_runs() {
        assert_eq!(Moment::parse("now").unwrap().end(100), 101);
        assert_eq!(Moment::parse("10s").unwrap().end(100), 90);
        assert_eq!(Moment::At(7).end(100), 7);
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
            let error = Moment::parse(text).unwrap_err().to_string();
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
