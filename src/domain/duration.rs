//! How people write durations, in the configuration and in scripts: `30s`, `1h30m`, `2d`.
//!
//! Only the grammar; which durations make sense is for whoever reads one to say.

use std::time::Duration;

/// Units from the largest to the smallest, with their length in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Why a text is not a duration. The text says what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Something else than numbers with units.
    #[error("`{0}` is not a duration, such as \"250ms\", \"30s\", \"15m\", \"1h30m\" or \"2d\"")]
    Syntax(String),
    /// A number without a unit: seconds and milliseconds are too easily mixed up to guess.
    #[error("`{0}` has no unit: write \"{0}s\" for seconds, \"{0}m\" for minutes (d, h, m, s, ms)")]
    NoUnit(String),
    /// A unit given twice, or after a smaller one.
    #[error("`{0}` must name each unit once, the largest first, as in \"1d12h30m\"")]
    Order(String),
    /// Longer than can be counted.
    #[error("`{0}` is longer than any duration that can be counted")]
    TooLong(String),
}

/// Reads one or more whole numbers with a unit each (`d`, `h`, `m`, `s`, `ms`), the largest unit
/// first, without spaces. `0s` is a duration.
///
/// # Errors
/// [`DurationError`], to be shown to whoever wrote the text.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let shown = || text.chars().take(40).collect::<String>();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DurationError::NoUnit(shown()));
    }
    let mut units = UNITS.iter();
    let mut total = 0_u64;
    let mut rest = text;
    loop {
        let (digits, unit, after) =
            first_part(rest).ok_or_else(|| DurationError::Syntax(shown()))?;
        let length = UNITS
            .iter()
            .find_map(|(name, length)| (*name == unit).then_some(*length))
            .ok_or_else(|| DurationError::Syntax(shown()))?;
        if !units.any(|(name, _)| *name == unit) {
            return Err(DurationError::Order(shown()));
        }
        total = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(length))
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| DurationError::TooLong(shown()))?;
        if after.is_empty() {
            return Ok(Duration::from_millis(total));
        }
        rest = after;
    }
}

/// Writes `duration` so that [`parse`] reads it back, down to milliseconds: `1h30m`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, length) in UNITS {
        let number = left / length;
        left %= length;
        if number > 0 {
            text.push_str(&number.to_string());
            text.push_str(unit);
        }
    }
    text
}

/// Digits, unit and what follows them; `None` when the text does not begin with both.
fn first_part(text: &str) -> Option<(&str, &str, &str)> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (unit, after) = rest.split_at(
        rest.find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len()),
    );
    (!digits.is_empty()).then_some((digits, unit, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, seconds, canonical) in [
            ("0s", 0, "0s"),
            ("30s", 30, "30s"),
            ("90m", 5_400, "1h30m"),
            ("12h", 43_200, "12h"),
            ("1d", 86_400, "1d"),
            ("1h30m", 5_400, "1h30m"),
            ("1d2h3m4s", 93_784, "1d2h3m4s"),
            ("0d15m", 900, "15m"),
        ] {
            let duration = parse(text).unwrap();
            assert_eq!(duration, Duration::from_secs(seconds), "{text}");
            assert_eq!(format(duration), canonical);
        }
        assert_eq!(parse("1s250ms").unwrap(), Duration::from_millis(1_250));
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for (text, message) in [
            (
                "",
                "`` is not a duration, such as \"250ms\", \"30s\", \"15m\", \"1h30m\" or \"2d\"",
            ),
            (
                "soon",
                "`soon` is not a duration, such as \"250ms\", \"30s\", \"15m\", \"1h30m\" or \"2d\"",
            ),
            (
                "1.5h",
                "`1.5h` is not a duration, such as \"250ms\", \"30s\", \"15m\", \"1h30m\" or \"2d\"",
            ),
            (
                "-1s",
                "`-1s` is not a duration, such as \"250ms\", \"30s\", \"15m\", \"1h30m\" or \"2d\"",
            ),
            (
                "1h 30m",
                "`1h 30m` is not a duration, such as \"250ms\", \"30s\", \"15m\", \"1h30m\" or \"2d\"",
            ),
            (
                "1h30",
                "`1h30` is not a duration, such as \"250ms\", \"30s\", \"15m\", \"1h30m\" or \"2d\"",
            ),
            (
                "2 weeks",
                "`2 weeks` is not a duration, such as \"250ms\", \"30s\", \"15m\", \"1h30m\" or \"2d\"",
            ),
            (
                "30",
                "`30` has no unit: write \"30s\" for seconds, \"30m\" for minutes (d, h, m, s, ms)",
            ),
            (
                "30m1h",
                "`30m1h` must name each unit once, the largest first, as in \"1d12h30m\"",
            ),
            (
                "1h1h",
                "`1h1h` must name each unit once, the largest first, as in \"1d12h30m\"",
            ),
            (
                "99999999999999999999d",
                "`99999999999999999999d` is longer than any duration that can be counted",
            ),
            (
                "300000000000d",
                "`300000000000d` is longer than any duration that can be counted",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_is_read_back(milliseconds: u64) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[0-9dhms]*") {
            if let Ok(duration) = parse(&text) {
                prop_assert_eq!(parse(&format(duration)), Ok(duration));
            }
        }
    }
}
