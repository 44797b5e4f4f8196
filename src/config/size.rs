//! A number of bytes: `512B`, `256KiB`, `64MiB`, `1GiB`.

use std::ops::RangeInclusive;

use super::refusal::Refusal;

const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads a whole number with a unit, in bytes, that must lie in `range`. Decimal units (`KB`) are
/// refused, because half of those who write them mean the binary ones.
pub fn parse(text: &str, range: &RangeInclusive<u64>) -> Result<u64, Refusal> {
    let syntax = || {
        Refusal::new(format!(
            "`{text}` is not a size, such as \"256KiB\" or \"64MiB\" (B, KiB, MiB, GiB)"
        ))
    };
    let (digits, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .ok_or_else(syntax)?,
    );
    let length = UNITS
        .iter()
        .find_map(|(name, length)| (*name == unit).then_some(*length))
        .ok_or_else(syntax)?;
    if digits.is_empty() {
        return Err(syntax());
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(length))
        .filter(|bytes| range.contains(bytes))
        .ok_or_else(|| {
            Refusal::new(format!(
                "`{text}` is out of range: {} to {}",
                format(*range.start()),
                format(*range.end())
            ))
        })
}

/// Writes `bytes` in the largest unit that shows them exactly.
fn format(bytes: u64) -> String {
    UNITS
        .iter()
        .find(|(_, length)| bytes != 0 && bytes.is_multiple_of(*length))
        .map_or_else(
            || format!("{bytes}B"),
            |(unit, length)| format!("{}{unit}", bytes / length),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_a_binary_unit() {
        let range = 1_024..=64 << 20;
        let syntax = |text: &str| {
            Err(format!(
                "`{text}` is not a size, such as \"256KiB\" or \"64MiB\" (B, KiB, MiB, GiB)"
            ))
        };
        for (text, expected) in [
            ("1KiB", Ok(1_024)),
            ("2048B", Ok(2_048)),
            ("64MiB", Ok(67_108_864)),
            ("1B", Err("`1B` is out of range: 1KiB to 64MiB".to_owned())),
            (
                "1GiB",
                Err("`1GiB` is out of range: 1KiB to 64MiB".to_owned()),
            ),
            (
                "99999999999GiB",
                Err("`99999999999GiB` is out of range: 1KiB to 64MiB".to_owned()),
            ),
            ("", syntax("")),
            ("1024", syntax("1024")),
            ("1KB", syntax("1KB")),
            ("1 KiB", syntax("1 KiB")),
            ("-1KiB", syntax("-1KiB")),
            ("1.5MiB", syntax("1.5MiB")),
            ("MiB", syntax("MiB")),
        ] {
            assert_eq!(
                parse(text, &range).map_err(|refusal| refusal.to_string()),
                expected,
                "{text}"
            );
        }
    }
}
