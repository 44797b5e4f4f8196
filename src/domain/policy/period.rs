//! When the period began in which a limit counts.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, TimeZone};
use chrono_tz::Tz;

use super::rules::Per;
use crate::domain::clock::Timestamp;

/// The longest stretch of local time that a zone has ever left out, and a little more.
const LONGEST_GAP_MINUTES: i64 = 25 * 60;

impl Per {
    /// The first instant that counts for a payment at `at`: everything from there on counts, also
    /// what lies after `at` when the clock was set back. `None` when payments stand alone.
    #[must_use]
    pub fn begins(self, at: Timestamp, zone: Tz) -> Option<Timestamp> {
        let today = at.with_timezone(&zone).date_naive();
        match self {
            Self::Payment => None,
            Self::Day => Some(midnight(today, zone)),
            Self::Week => {
                let back = i64::from(today.weekday().num_days_from_monday());
                let monday = today.checked_sub_signed(TimeDelta::days(back));
                Some(midnight(monday.unwrap_or(today), zone))
            }
            Self::Month => Some(midnight(today.with_day(1).unwrap_or(today), zone)),
            // To the millisecond, as instants are kept; the first one does not count any more.
            Self::Rolling(length) => at
                .checked_sub_signed(length)
                .and_then(|start| start.checked_add_signed(TimeDelta::milliseconds(1)))
                .or(Some(DateTime::UNIX_EPOCH)),
        }
    }

    /// How sums of this period are called in sentences: `today`, `in the last 24h`.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            Self::Payment => "in one payment".into(),
            Self::Day => "today".into(),
            Self::Week => "this week".into(),
            Self::Month => "this month".into(),
            Self::Rolling(length) => {
                let length = length.to_std().unwrap_or_default();
                format!("in the last {}", crate::domain::duration::format(length))
            }
        }
    }
}

/// The first instant of a local day: midnight, or what comes after it where a zone left it out,
/// and the earlier one where it came twice.
fn midnight(day: NaiveDate, zone: Tz) -> Timestamp {
    let start = day.and_time(chrono::NaiveTime::MIN);
    let first = (0..=LONGEST_GAP_MINUTES).find_map(|minutes| {
        let local = start.checked_add_signed(TimeDelta::minutes(minutes))?;
        zone.from_local_datetime(&local).earliest()
    });
    first.map_or_else(|| start.and_utc(), |first| first.to_utc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn begins(per: Per, at: &str, zone: Tz) -> String {
        let at: Timestamp = at.parse().unwrap();
        crate::domain::clock::shown(per.begins(at, zone).unwrap())
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn calendar_periods_begin_at_midnight_in_the_zone() {
        use chrono_tz::{Africa, America, Europe};
        for (per, at, zone, expected) in [
            (
                Per::Day,
                "2026-11-22T09:00:00Z",
                Tz::UTC,
                "2026-11-22T00:00:00.000Z",
            ),
            (
                Per::Week,
                "2026-11-22T09:00:00Z",
                Tz::UTC,
                "2026-11-16T00:00:00.000Z",
            ),
            (
                Per::Month,
                "2026-11-22T09:00:00Z",
                Tz::UTC,
                "2026-11-01T00:00:00.000Z",
            ),
            // After midnight in Berlin, before it in UTC.
            (
                Per::Day,
                "2026-07-01T22:30:00Z",
                Europe::Berlin,
                "2026-07-01T22:00:00.000Z",
            ),
            // The days on which the clocks change have 23 and 25 hours.
            (
                Per::Day,
                "2026-03-29T21:59:00Z",
                Europe::Berlin,
                "2026-03-28T23:00:00.000Z",
            ),
            (
                Per::Day,
                "2026-03-29T22:00:00Z",
                Europe::Berlin,
                "2026-03-29T22:00:00.000Z",
            ),
            (
                Per::Day,
                "2026-10-25T22:59:00Z",
                Europe::Berlin,
                "2026-10-24T22:00:00.000Z",
            ),
            (
                Per::Day,
                "2026-10-25T23:00:00Z",
                Europe::Berlin,
                "2026-10-25T23:00:00.000Z",
            ),
            (
                Per::Month,
                "2026-03-31T21:59:00Z",
                Europe::Berlin,
                "2026-02-28T23:00:00.000Z",
            ),
            // Midnight itself was left out in Cairo, and came twice in Havana.
            (
                Per::Day,
                "2026-04-24T12:00:00Z",
                Africa::Cairo,
                "2026-04-23T22:00:00.000Z",
            ),
            (
                Per::Day,
                "2026-11-01T12:00:00Z",
                America::Havana,
                "2026-11-01T04:00:00.000Z",
            ),
        ] {
            assert_eq!(begins(per, at, zone), expected, "{per:?} {at} {zone}");
        }
    }

    #[test]
    fn a_rolling_period_leaves_out_what_is_exactly_as_old_as_it_is_long() {
        let day = Per::Rolling(TimeDelta::hours(24));
        assert_eq!(
            begins(day, "2026-11-22T09:00:00Z", Tz::UTC),
            "2026-11-21T09:00:00.001Z"
        );
    }

    proptest! {
        #[test]
        fn a_calendar_period_began_and_is_the_same_all_through(
            seconds in 1_600_000_000_i64..2_000_000_000,
            zone in proptest::sample::select(chrono_tz::TZ_VARIANTS.to_vec()),
        ) {
            let at = DateTime::from_timestamp(seconds, 0).unwrap();
            for (per, days) in [(Per::Day, 1), (Per::Week, 7), (Per::Month, 31)] {
                let begin = per.begins(at, zone).unwrap();
                prop_assert!(begin <= at);
                prop_assert!(at - begin < TimeDelta::hours(days * 24 + 2));
                prop_assert_eq!(per.begins(begin, zone).unwrap(), begin);
                let before = begin - TimeDelta::milliseconds(1);
                prop_assert!(per.begins(before, zone).unwrap() < begin);
            }
        }
    }
}
