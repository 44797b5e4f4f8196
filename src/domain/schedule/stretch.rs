//! Many slots at once: how many there are between two instants, without going through all of them.
//!
//! Used where slots are recorded as one stretch because there are too many for a record each.

use chrono::{Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use serde::{Deserialize, Serialize};

use super::{LONGEST_GAP, Schedule};
use crate::domain::clock::Timestamp;

/// Slots of one schedule that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The first slot.
    pub first: Timestamp,
    /// The last slot; the first one when there is one only.
    pub last: Timestamp,
    /// How many slots there are, first and last included.
    pub count: u64,
}

/// A day of 24 hours before which and in which the clock was not changed.
struct Day {
    first: Timestamp,
    next: Timestamp,
}

impl Schedule {
    /// The slots in (`after`, `until`] as one stretch; `None` when there is none.
    ///
    /// # Design
    ///
    /// Days in which the clock is not changed have the same number of slots each, or none: they are
    /// gone through once. So a year of seconds costs a few days of seconds.
    #[must_use]
    pub fn stretch(&self, after: Timestamp, until: Timestamp) -> Option<Stretch> {
        let first = self.next_after(after).filter(|slot| *slot <= until)?;
        let last = *self.slots(after, until, 1).instants.last()?;
        let mut count = 0_u64;
        let mut per_day = None;
        let (mut from, mut next) = (after, Some(first));
        while let Some(slot) = next.filter(|slot| *slot <= until) {
            let day = self
                .even_day(slot)
                .filter(|day| from < day.first && day.next <= until);
            let (end, inside) = day.map_or((slot, 1), |day| {
                let end = day.next - TimeDelta::seconds(1);
                let inside = per_day.get_or_insert_with(|| self.gone_through(day.first, end));
                (end, *inside)
            });
            count = count.saturating_add(inside);
            from = end;
            next = self.next_after(from);
        }
        Some(Stretch { first, last, count })
    }

    /// How many slots there are in [`first`, `last`], one by one.
    fn gone_through(&self, first: Timestamp, last: Timestamp) -> u64 {
        let before = first - TimeDelta::seconds(1);
        let slots = std::iter::successors(self.next_after(before), |slot| self.next_after(*slot));
        let count = slots.take_while(|slot| *slot <= last).count();
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// The day that the slot is in, if it is one like all others.
    fn even_day(&self, slot: Timestamp) -> Option<Day> {
        let date = slot.with_timezone(&self.zone).date_naive();
        let first = self.midnight(date)?;
        let next = self.midnight(date.checked_add_days(Days::new(1))?)?;
        // A time of day in an hour that was skipped right before midnight fires on this day.
        let unchanged = self.offset(first - LONGEST_GAP) == self.offset(first)
            && next - first == TimeDelta::days(1);
        unchanged.then_some(Day { first, next })
    }

    fn midnight(&self, date: NaiveDate) -> Option<Timestamp> {
        let local = date.and_time(NaiveTime::MIN);
        let zoned = self.zone.from_local_datetime(&local).single()?;
        Some(zoned.with_timezone(&Utc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_stretch_counts_as_many_slots_as_there_are() {
        for (expression, zone) in [
            ("0 * * * *", "UTC"),
            ("*/7 9-17 * * MON-FRI", "Europe/Berlin"),
            ("30 2 * * *", "Europe/Berlin"),
            ("0,30 1-2 * * *", "America/New_York"),
            ("30 */5 1,15 * *", "Australia/Lord_Howe"),
            ("0 0,12 * * *", "America/Havana"),
            ("15 23,0 * * *", "America/Nuuk"),
            ("@daily", "Pacific/Apia"),
        ] {
            let schedule = Schedule::parse(expression, zone).unwrap();
            for (after, until) in [
                ("2025-12-30T11:13:00Z", "2026-12-30T11:13:00Z"),
                ("2026-03-28T23:00:00Z", "2026-03-30T00:00:00Z"),
                ("2026-10-24T10:00:00.5Z", "2026-11-02T09:59:59.5Z"),
                ("2011-12-20T00:00:00Z", "2012-01-10T00:00:00Z"),
            ] {
                let (after, until) = (at(after), at(until));
                let (all, more) = schedule.oldest(after, until, 100_000);
                assert!(!more);
                let expected = all.first().map(|first| Stretch {
                    first: *first,
                    last: *all.last().unwrap(),
                    count: u64::try_from(all.len()).unwrap(),
                });
                let found = schedule.stretch(after, until);
                assert_eq!(found, expected, "{schedule} {after} {until}");
            }
        }
    }

    #[test]
    fn a_year_of_seconds_is_counted_and_an_empty_stretch_is_none() {
        let schedule = Schedule::parse("* * * * * *", "Europe/Berlin").unwrap();
        let (after, until) = (at("2025-01-01T12:00:00Z"), at("2026-01-01T12:00:00Z"));
        let stretch = schedule.stretch(after, until).unwrap();
        assert_eq!(stretch.count, 365 * 86_400);
        assert_eq!(stretch.last, until);
        assert_eq!(schedule.stretch(until, until), None);
        let yearly = Schedule::parse("0 0 1 7 *", "UTC").unwrap();
        assert_eq!(yearly.stretch(at("2026-07-01T00:00:00Z"), until), None);
    }

    #[test]
    fn a_schedule_is_found_again_by_its_text() {
        for (expression, zone) in [("0 9 * * MON-FRI", "Europe/Berlin"), ("@daily", "UTC")] {
            let schedule = Schedule::parse(expression, zone).unwrap();
            assert_eq!(Schedule::of_text(&schedule.to_string()), Some(schedule));
        }
        for text in ["", "UTC", "nonsense UTC", "@daily Nowhere/Land"] {
            assert_eq!(Schedule::of_text(text), None);
        }
    }
}
