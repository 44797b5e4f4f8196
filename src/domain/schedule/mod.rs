//! Cron expressions in their zones, and the slots they make.
//!
//! A slot is one instant at which a schedule is due. This module computes slots and, in its
//! `decision` part, what becomes of them; it never knows what time it is and never waits.
//! `scripting` parses what scripts register, `triggers` asks for slots and decisions.
//!
//! # Design
//!
//! Croner matches expressions against local times. Mapping local times to instants is done here,
//! because croner's own search leaves the second pass of a repeated hour out when it is asked
//! anew from within the first, and its iterator gives that hour's slots out of order.
//!
//! The rule is that of the traditional cron:
//! - **Times of day** (`30 2 * * *`, `0 9,17 * * *`, `0 9-17 * * *`): neither seconds, minutes nor
//!   hours begin with a star. Each local time fires exactly once a day: in a skipped hour at the
//!   first instant after it, in a repeated hour in the first pass.
//! - **Elapsed time** (`0 * * * *`, `*/15 * * * *`, `*/5 2 * * *`): one of those fields begins with
//!   a star. Every instant whose local time matches is a slot: a skipped hour has none, a repeated
//!   hour has them twice.
//!
//! When days of the month and weekdays are both restricted (neither is exactly `*` or `?`), a day
//! that matches **either** is meant, as in cron: `0 9 1 * MON` is every first and every Monday. A
//! `+` before the weekdays asks for both: `0 9 1 * +MON`.

mod decision;
mod expression;
mod stretch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Offset, SubsecRound, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::Cron;

use super::clock::Timestamp;
use super::id::{HandlerId, digest};

pub use decision::{Ahead, SkipReason, SlotDecision, Start, Verdict, decide};
pub use expression::ScheduleError;
pub use stretch::Stretch;

/// The longest skipped stretch of local time after which a time of day still fires. Longer ones
/// are whole days that a zone left out when it crossed the date line: nobody was there.
const LONGEST_GAP: TimeDelta = TimeDelta::hours(3);

/// Steps in which changes of a zone's offset are searched. No zone changes it twice so fast.
const OFFSET_STEP: TimeDelta = TimeDelta::hours(12);

/// A cron expression in its zone. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schedule {
    expression: String,
    zone: Tz,
    cron: Arc<Cron>,
    elapsed: bool,
}

/// Slots in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slots {
    /// The slots, no more than were asked for; the latest ones when there are more.
    pub instants: Vec<Timestamp>,
    /// Every slot after the first instant and up to the second was left out, because there are
    /// more than were asked for.
    pub omitted: Option<(Timestamp, Timestamp)>,
}

impl Schedule {
    /// Reads an expression of 5 or 6 fields (seconds first, when there are 6) or a nickname such
    /// as `@daily`, and an IANA zone name.
    ///
    /// # Errors
    /// Everything that is wrong, for the author of the schedule; an expression that can never fire
    /// (`0 0 31 2 *`) is wrong too.
    pub fn parse(cron: &str, timezone: &str) -> Result<Self, ScheduleError> {
        let (parsed, zone) = expression::read(cron, timezone)?;
        let schedule = Self {
            expression: cron.split_whitespace().collect::<Vec<_>>().join(" "),
            zone,
            elapsed: expression::follows_elapsed_time(cron),
            cron: Arc::new(parsed),
        };
        if schedule.next_after(DateTime::UNIX_EPOCH).is_none() {
            return Err(ScheduleError::one(format!(
                "`{}` can never fire: no such day exists",
                schedule.expression
            )));
        }
        Ok(schedule)
    }

    /// The first slot after `after`; `None` when there is none before the calendar ends.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.trunc_subsecs(0);
        if self.elapsed {
            self.next_elapsed(after)
        } else {
            self.next_time_of_day(after)
        }
    }

    /// The slots in (`after`, `until`], at most `limit` of them. The work is bounded by `limit`,
    /// not by how many slots there are.
    #[must_use]
    pub fn slots(&self, after: Timestamp, until: Timestamp, limit: usize) -> Slots {
        let all = self.first_slots(after, until, limit.saturating_add(1));
        if all.len() <= limit {
            return Slots {
                instants: all,
                omitted: None,
            };
        }
        // Halves the stretch until what lies after `from` fits: the latest slots matter most.
        let (mut from, mut fits) = (after, until);
        while fits - from > TimeDelta::seconds(1) {
            let middle = (from + (fits - from) / 2).trunc_subsecs(0).max(from);
            if middle == from {
                break;
            }
            if self
                .first_slots(middle, until, limit.saturating_add(1))
                .len()
                > limit
            {
                from = middle;
            } else {
                fits = middle;
            }
        }
        Slots {
            instants: self.first_slots(fits, until, limit),
            omitted: Some((after, fits)),
        }
    }

    /// The slots in (`after`, `until`], oldest first and at most `limit` of them, and whether there
    /// are more.
    #[must_use]
    pub fn oldest(
        &self,
        after: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> (Vec<Timestamp>, bool) {
        let mut slots = self.first_slots(after, until, limit.saturating_add(1));
        let more = slots.len() > limit;
        slots.truncate(limit);
        (slots, more)
    }

    /// The schedule whose text this is, as `to_string` gives it; `None` for what is no such text.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let (expression, zone) = text.rsplit_once(' ')?;
        Self::parse(expression, zone).ok()
    }

    /// The slot's date in the schedule's zone, `YYYY-MM-DD`.
    #[must_use]
    pub fn date(&self, slot: Timestamp) -> String {
        slot.with_timezone(&self.zone)
            .format("%Y-%m-%d")
            .to_string()
    }

    /// The expression as it was written, with single spaces.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone's IANA name.
    #[must_use]
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }

    fn first_slots(&self, after: Timestamp, until: Timestamp, limit: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(after), |slot| self.next_after(*slot))
            .take_while(|slot| *slot <= until)
            .take(limit)
            .collect()
    }

    /// The next instant whose local time matches.
    fn next_elapsed(&self, after: Timestamp) -> Option<Timestamp> {
        let mut from = after;
        let mut inclusive = false;
        loop {
            let offset = self.offset(from);
            let local = self.next_local(from.naive_utc() + offset, inclusive)?;
            let candidate = (local - offset).and_utc();
            let Some(change) = self.offset_change(from, candidate) else {
                return Some(candidate);
            };
            from = change;
            inclusive = true;
        }
    }

    /// The next instant that stands for a matching local time.
    fn next_time_of_day(&self, after: Timestamp) -> Option<Timestamp> {
        let mut local = after.with_timezone(&self.zone).naive_local();
        loop {
            local = self.next_local(local, false)?;
            if let Some(slot) = self.instant_of(local).filter(|slot| *slot > after) {
                return Some(slot);
            }
        }
    }

    /// The one instant at which a time of day fires.
    fn instant_of(&self, local: NaiveDateTime) -> Option<Timestamp> {
        let found = self.zone.from_local_datetime(&local).earliest();
        let zoned = found.or_else(|| {
            GapInfo::new(&local, &self.zone)?
                .end
                .filter(|end| end.naive_local() - local <= LONGEST_GAP)
        })?;
        Some(zoned.with_timezone(&Utc))
    }

    /// The next matching local time, computed as if no clock were ever changed.
    fn next_local(&self, from: NaiveDateTime, inclusive: bool) -> Option<NaiveDateTime> {
        self.cron
            .find_next_occurrence(&from.and_utc(), inclusive)
            .ok()
            .map(|found| found.naive_utc())
    }

    fn offset(&self, at: Timestamp) -> TimeDelta {
        let fixed = self.zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        TimeDelta::seconds(i64::from(fixed.local_minus_utc()))
    }

    /// The first instant in (`from`, `until`] at which the zone's offset differs from that at
    /// `from`, to the second.
    fn offset_change(&self, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let offset = self.offset(from);
        let mut before = from;
        while before < until {
            let mut after = until.min(before + OFFSET_STEP);
            if self.offset(after) == offset {
                before = after;
                continue;
            }
            while after - before > TimeDelta::seconds(1) {
                let middle = (before + (after - before) / 2).trunc_subsecs(0);
                if self.offset(middle) == offset {
                    before = middle;
                } else {
                    after = middle;
                }
            }
            return Some(after);
        }
        None
    }
}

impl PartialEq for Schedule {
    /// The same words in the same zone.
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression && self.zone == other.zone
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.expression, self.zone.name())
    }
}

/// How long the firing of `slot` is put off: between nothing and `jitter`, the same whenever and
/// wherever it is asked, in milliseconds.
#[must_use]
pub fn jitter_delay(handler: &HandlerId, slot: Timestamp, jitter: Duration) -> Duration {
    let Ok(longest) = u64::try_from(jitter.as_millis()) else {
        return jitter;
    };
    let hash = digest(&[
        &handler.script,
        &handler.name,
        &slot.timestamp_millis().to_string(),
    ]);
    let number = hash
        .get(..15)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .expect("a digest has at least 15 hex digits");
    Duration::from_millis(number % longest.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(expression: &str, zone: &str) -> Schedule {
        Schedule::parse(expression, zone).unwrap()
    }

    /// The slots in (from, until] as local times with their offset.
    fn local(expression: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
        let schedule = schedule(expression, zone);
        let slots = schedule.slots(at(from), at(until), 1000);
        assert_eq!(slots.omitted, None);
        slots
            .instants
            .iter()
            .map(|slot| {
                slot.with_timezone(&schedule.zone)
                    .format("%d %H:%M%z")
                    .to_string()
            })
            .collect()
    }

    const BERLIN: &str = "Europe/Berlin";
    const NEW_YORK: &str = "America/New_York";

    #[test]
    fn a_time_of_day_in_the_skipped_hour_fires_once_right_after_it() {
        let spring = |expression| {
            local(
                expression,
                BERLIN,
                "2026-03-27T12:00:00Z",
                "2026-03-30T12:00:00Z",
            )
        };
        assert_eq!(
            spring("30 2 * * *"),
            ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]
        );
        assert_eq!(
            spring("0 2,3 * * *"),
            [
                "28 02:00+0100",
                "28 03:00+0100",
                "29 03:00+0200",
                "30 02:00+0200",
                "30 03:00+0200"
            ]
        );
        assert_eq!(
            spring("0 9 * * *"),
            ["28 09:00+0100", "29 09:00+0200", "30 09:00+0200"]
        );
        assert_eq!(
            local(
                "30 2 * * *",
                NEW_YORK,
                "2026-03-07T12:00:00Z",
                "2026-03-09T12:00:00Z"
            ),
            ["08 03:00-0400", "09 02:30-0400"]
        );
    }

    #[test]
    fn a_time_of_day_in_the_repeated_hour_fires_once_in_the_first_pass() {
        assert_eq!(
            local(
                "30 2 * * *",
                BERLIN,
                "2026-10-24T12:00:00Z",
                "2026-10-26T12:00:00Z"
            ),
            ["25 02:30+0200", "26 02:30+0100"]
        );
        assert_eq!(
            local(
                "0,30 1-2 * * *",
                NEW_YORK,
                "2026-11-01T04:30:00Z",
                "2026-11-01T12:00:00Z"
            ),
            [
                "01 01:00-0400",
                "01 01:30-0400",
                "01 02:00-0500",
                "01 02:30-0500"
            ]
        );
    }

    #[test]
    fn elapsed_time_goes_on_evenly_over_both_switches() {
        assert_eq!(
            local(
                "0 * * * *",
                BERLIN,
                "2026-10-24T23:30:00Z",
                "2026-10-25T02:30:00Z"
            ),
            ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]
        );
        assert_eq!(
            local(
                "*/30 * * * *",
                NEW_YORK,
                "2026-11-01T04:45:00Z",
                "2026-11-01T07:00:00Z"
            ),
            [
                "01 01:00-0400",
                "01 01:30-0400",
                "01 01:00-0500",
                "01 01:30-0500",
                "01 02:00-0500"
            ]
        );
        assert_eq!(
            local(
                "*/30 * * * *",
                BERLIN,
                "2026-03-29T00:15:00Z",
                "2026-03-29T01:30:00Z"
            ),
            ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]
        );
        assert_eq!(
            local(
                "0 * * * *",
                NEW_YORK,
                "2026-03-08T06:00:00Z",
                "2026-03-08T08:00:00Z"
            ),
            ["08 03:00-0400", "08 04:00-0400"]
        );
    }

    #[test]
    fn slots_do_not_depend_on_where_the_search_starts() {
        for expression in [
            "*/7 * * * *",
            "30 2 * * *",
            "0 1-3 * * *",
            "15,45 */2 * * *",
        ] {
            for (zone, day) in [
                (BERLIN, "2026-03-28T20:00:00Z"),
                (BERLIN, "2026-10-24T20:00:00Z"),
                (NEW_YORK, "2026-03-08T03:00:00Z"),
                (NEW_YORK, "2026-11-01T02:00:00Z"),
                ("Australia/Lord_Howe", "2026-04-04T10:00:00Z"),
            ] {
                let schedule = schedule(expression, zone);
                let start = at(day);
                let end = start + TimeDelta::hours(14);
                let all = schedule.slots(start, end, 1000).instants;
                assert!(all.is_sorted_by(|left, right| left < right));
                for minute in (0..14 * 60).step_by(5) {
                    let from = start + TimeDelta::minutes(minute);
                    let expected: Vec<_> =
                        all.iter().copied().filter(|slot| *slot > from).collect();
                    assert_eq!(schedule.slots(from, end, 1000).instants, expected);
                }
            }
        }
    }

    #[test]
    fn a_day_the_zone_left_out_has_no_slots() {
        // Samoa had no 30 December 2011.
        assert_eq!(
            local(
                "0 9 * * *",
                "Pacific/Apia",
                "2011-12-29T00:00:00Z",
                "2011-12-31T12:00:00Z"
            ),
            ["29 09:00-1000", "31 09:00+1400"]
        );
    }

    #[test]
    fn a_schedule_that_can_never_fire_is_refused() {
        for expression in ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
            let error = Schedule::parse(expression, BERLIN).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("`{expression}` can never fire: no such day exists")
            );
        }
        assert_eq!(
            schedule("0 0 29 2 *", "UTC").next_after(at("2025-01-01T00:00:00Z")),
            Some(at("2028-02-29T00:00:00Z"))
        );
    }

    #[test]
    fn days_of_the_month_or_weekdays_match_unless_both_are_asked_for() {
        let days = |expression| {
            local(
                expression,
                "UTC",
                "2026-11-30T12:00:00Z",
                "2026-12-15T00:00:00Z",
            )
            .len()
        };
        assert_eq!(days("0 9 1 * MON"), 3);
        assert_eq!(days("0 9 1 * *"), 1);
        assert_eq!(days("0 9 * * MON"), 2);
        assert_eq!(days("0 9 7 * +MON"), 1);
        assert_eq!(days("0 9 1 * +MON"), 0);
    }

    #[test]
    fn until_belongs_to_the_stretch_and_after_does_not() {
        let hourly = schedule("0 * * * *", "UTC");
        let slots = hourly.slots(at("2026-01-01T01:00:00Z"), at("2026-01-01T03:00:00Z"), 10);
        assert_eq!(
            slots.instants,
            [at("2026-01-01T02:00:00Z"), at("2026-01-01T03:00:00Z")]
        );
        let within = hourly.slots(
            at("2026-01-01T01:00:00.5Z"),
            at("2026-01-01T01:59:59.9Z"),
            10,
        );
        assert_eq!(within, Slots::default());
        let backwards = hourly.slots(at("2026-01-02T00:00:00Z"), at("2026-01-01T00:00:00Z"), 10);
        assert_eq!(backwards, Slots::default());
    }

    #[test]
    fn of_a_pile_of_slots_the_latest_are_kept_and_the_rest_is_owned_up_to() {
        let every_second = schedule("* * * * * *", "UTC");
        let (after, until) = (at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z"));
        let slots = every_second.slots(after, until, 100);
        assert_eq!(slots.instants.len(), 100);
        assert_eq!(slots.instants.last(), Some(&until));
        assert_eq!(slots.omitted, Some((after, at("2026-01-31T23:58:20Z"))));
    }

    #[test]
    fn the_date_of_a_slot_is_that_of_its_zone() {
        let berlin = schedule("30 0 * * *", BERLIN);
        assert_eq!(berlin.date(at("2026-11-21T23:30:00Z")), "2026-11-22");
        assert_eq!(berlin.to_string(), "30 0 * * * Europe/Berlin");
    }

    #[test]
    fn jitter_is_the_same_every_time_and_stays_within_its_bound() {
        let handler = HandlerId {
            script: "payouts".into(),
            name: "payroll".into(),
        };
        let jitter = Duration::from_secs(30);
        let delays: Vec<Duration> = (0..200)
            .map(|minute| at("2026-01-01T00:00:00Z") + TimeDelta::minutes(minute))
            .map(|slot| {
                let delay = jitter_delay(&handler, slot, jitter);
                assert_eq!(delay, jitter_delay(&handler, slot, jitter));
                delay
            })
            .collect();
        assert!(delays.iter().all(|delay| *delay <= jitter));
        assert!(delays.iter().any(|delay| *delay > jitter / 2));
        assert!(delays.iter().any(|delay| *delay < jitter / 2));
        assert_eq!(
            jitter_delay(&handler, at("2026-01-01T00:00:00Z"), Duration::ZERO),
            Duration::ZERO
        );
    }
}
