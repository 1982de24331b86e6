//! Numbers for people.

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Bytes with a binary unit and three significant digits: `999 B`, `1.46 KiB`, `12.0 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // The largest unit of which there is at least one, 1024^(index + 1).
    let index = (bytes.ilog2() / 10 - 1) as usize;
    match (rounded(bytes, index, 100), rounded(bytes, index, 10), rounded(bytes, index, 1)) {
        (hundredths, ..) if hundredths < 1_000 => {
            format!("{}.{:02} {}", hundredths / 100, hundredths % 100, UNITS[index])
        }
        (_, tenths, _) if tenths < 1_000 => {
            format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[index])
        }
        // All but one of the next unit.
        (_, _, 1024) if index + 1 < UNITS.len() => format!("1.00 {}", UNITS[index + 1]),
        (_, _, whole) => format!("{whole} {}", UNITS[index]),
    }
}

/// Parts of a unit, rounded to nearest.
fn rounded(bytes: u64, index: usize, parts: u128) -> u128 {
    let unit = 1_u128 << (10 * (index + 1));
    (u128::from(bytes) * parts + unit / 2) / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_the_right_unit() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1500, "1.46 KiB"),
            (10_235, "10.0 KiB"),
            (15_000, "14.6 KiB"),
            (102_300, "99.9 KiB"),
            (102_350, "100 KiB"),
            (150_000, "146 KiB"),
            (1_048_570, "1.00 MiB"),
            (1_048_576, "1.00 MiB"),
            (12_884_901_888, "12.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), text, "{number}");
        }
    }
}
