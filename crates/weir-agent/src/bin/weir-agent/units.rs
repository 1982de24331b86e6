//! Durations, sizes and shares as people write them.

use std::time::Duration;

/// `5s`, `1m30s`, `500ms`, `1.5h`; also as Go prints them.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "a number with a unit: 500ms, 5s, 1m30s, 2h, 1d";
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).ok_or(HINT)?;
        let unit = rest[number..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - number);
        let factor = match &rest[number..number + unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(HINT.to_owned()),
        };
        seconds += rest[..number].parse::<f64>().map_err(|_not_a_number| HINT)? * factor;
        rest = &rest[number + unit..];
    }
    let some = (!text.is_empty()).then_some(seconds).ok_or(HINT)?;
    Duration::try_from_secs_f64(some).map_err(|_too_long| HINT.to_owned())
}

/// `1GiB`, `512MiB`, `100MB`, `4096`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    const HINT: &str = "a number of bytes with or without a unit: 1GiB, 512MiB, 100MB";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_not_a_number| HINT)?;
    let factor = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(HINT.to_owned()),
    };
    number.checked_mul(factor).ok_or_else(|| HINT.to_owned())
}

/// `15%` as 15.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    const HINT: &str = "a percentage from 0% to 100%";
    let number: f64 =
        text.strip_suffix('%').and_then(|number| number.trim().parse().ok()).ok_or(HINT)?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err(HINT.to_owned()) }
}

/// Bytes as people read them.
pub(crate) fn shown_bytes(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(size, _)| bytes >= *size);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(size, name)| {
            let tenths = u128::from(bytes) * 10 / u128::from(size);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("5s", 5_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1.5h", 5_400_000),
            ("300s", 300_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5x", "-5s", "5 s", "1..5s", "99999999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_shares() {
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(bytes("100 MB"), Ok(100_000_000));
        assert_eq!(bytes("0"), Ok(0));
        for text in ["", "GiB", "1gib", "-1", "99999999999TiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!((percent("15%"), percent("0.5 %")), (Ok(15.0), Ok(0.5)));
        assert!(percent("15").is_err() && percent("101%").is_err() && percent("NaN%").is_err());
        assert_eq!(shown_bytes(1_536), "1.5 KiB");
        assert_eq!(shown_bytes(12), "12 B");
    }
}
