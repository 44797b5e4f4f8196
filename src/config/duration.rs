//! A duration in the configuration: the common grammar of `domain::duration`, and a range.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::refusal::Refusal;
use crate::domain::duration;

/// Reads a duration that must lie in `range`.
pub fn parse(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Refusal> {
    let found = duration::parse(text).map_err(|error| Refusal::new(error.to_string()))?;
    if range.contains(&found) {
        return Ok(found);
    }
    Err(Refusal::new(format!(
        "`{text}` is out of range: {} to {}",
        duration::format(*range.start()),
        duration::format(*range.end())
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_within_its_range() {
        let range = Duration::from_secs(1)..=Duration::from_mins(10);
        for (text, expected) in [
            ("1s", Ok(Duration::from_secs(1))),
            ("1m30s", Ok(Duration::from_secs(90))),
            ("10m", Ok(Duration::from_mins(10))),
            ("999ms", Err("`999ms` is out of range: 1s to 10m")),
            ("1d", Err("`1d` is out of range: 1s to 10m")),
            (
                "30",
                Err(
                    "`30` has no unit: write \"30s\" for seconds, \"30m\" for minutes (d, h, m, s, ms)",
                ),
            ),
        ] {
            assert_eq!(
                parse(text, &range).map_err(|refusal| refusal.to_string()),
                expected.map_err(str::to_owned)
            );
        }
    }
}
