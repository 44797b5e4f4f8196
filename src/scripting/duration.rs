//! Durations as scripts write them: `"90m"`, `"12h"`, `"1h30m"`.

use std::time::Duration;

/// Units with their milliseconds, longest name first so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Reads a duration: whole numbers with the units `ms`, `s`, `m`, `h`, `d`, `w`, one or several.
///
/// # Errors
/// What is wrong and how to write it, as one fragment.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let refuse = || {
        let shown: String = text.chars().take(60).collect();
        format!(
            "`{shown}` is not a duration (write it like \"90m\", \"12h\", \"1d\" or \"1h30m\"; \
             units are ms, s, m, h, d and w)"
        )
    };
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(refuse)?;
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = UNITS
            .iter()
            .find_map(|(name, unit)| tail.strip_prefix(name).map(|tail| (unit, tail)))
            .ok_or_else(refuse)?;
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*unit))
            .and_then(|part| total.checked_add(part))
            .ok_or_else(refuse)?;
        rest = tail;
    }
    Ok(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("90m", 5_400_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("2w", 1_209_600_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)));
        }
    }

    #[test]
    fn everything_else_is_refused_with_an_example() {
        for text in [
            "",
            "90",
            "m",
            "1.5h",
            "-1h",
            "1 h",
            "1y",
            "h1",
            "99999999999999999999s",
            "99999999999999999w",
        ] {
            assert!(parse(text).unwrap_err().contains("\"90m\""), "{text}");
        }
    }
}
