//! Finds the slots that are due at a wake-up and decides what becomes of them.
//!
//! Reads no store and no clock and starts nothing: the runner passes in what it knows of each
//! schedule, makes the decisions durable, and only then runs them. A slot that has a record is
//! never planned again, whatever the clock does, because only slots after the last record are
//! looked for. After a clock that ran ahead is set right, a schedule therefore stays silent until
//! the last recorded slot has passed again; the jump is logged.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;

use crate::domain::clock::Timestamp;
use crate::domain::handler::{Missed, ScheduleTrigger};
use crate::domain::id::HandlerId;
use crate::domain::schedule::{Ahead, Schedule, SkipReason, Slots, Verdict, decide, jitter_delay};
use crate::telemetry::Telemetry;

/// How late a slot may be noticed and still count as in time.
pub const LATE_AFTER: Duration = Duration::from_mins(1);

/// The most slots of one schedule that get a durable record each. Of more, the oldest, all of them
/// missed, are recorded as one stretch.
pub const MAX_SLOTS: usize = 1000;

/// The most slots of one plan when all are to run, since slots with runs make much larger commits.
/// None is left out: the next plan goes on with the rest.
pub const MAX_RUNS: usize = 250;

/// A difference between the machine's clock and the monotonic one that is worth a warning.
const JUMP: TimeDelta = TimeDelta::minutes(1);

/// One schedule and what the runner knows of it.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// Whose schedule.
    pub handler: &'a HandlerId,
    /// The schedule and its policies.
    pub trigger: &'a ScheduleTrigger,
    /// The last slot that has a record; without one, the instant the schedule was first seen.
    pub after: Timestamp,
    /// The run of an earlier slot that has not ended, or waits in the queue.
    pub ahead: Ahead,
}

/// What to do about one schedule at this wake-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whose schedule.
    pub handler: HandlerId,
    /// What was left out, see [`MAX_SLOTS`].
    pub omitted: Option<Omitted>,
    /// The due slots in ascending order.
    pub slots: Vec<PlannedSlot>,
    /// Whether later slots are due too, and the last run of this plan is a late one that they
    /// wait for; see [`Ahead::CatchUp`].
    pub catching_up: bool,
}

/// Slots that are skipped as one stretch: every one in (`after`, `until`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Omitted {
    /// The instant before the first.
    pub after: Timestamp,
    /// The end.
    pub until: Timestamp,
    /// Why.
    pub reason: SkipReason,
}

/// One due slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedSlot {
    /// The instant that was due; the run's identity.
    pub slot: Timestamp,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The earliest instant a run may start: the slot plus its jitter.
    pub not_before: Timestamp,
}

/// Plans wake-ups. Keeps nothing but the last clock readings and, for speed, when each schedule is
/// due next.
#[derive(Debug)]
pub struct Planner {
    telemetry: Telemetry,
    clocks: Option<(Timestamp, Instant)>,
    due: BTreeMap<HandlerId, Due>,
}

/// When a schedule is due next, as long as schedule and last slot stay what they are.
#[derive(Debug)]
struct Due {
    schedule: Schedule,
    after: Timestamp,
    next: Option<Timestamp>,
}

impl Planner {
    /// Makes a planner that has seen no clock yet.
    #[must_use]
    pub const fn new(telemetry: Telemetry) -> Self {
        Self {
            telemetry,
            clocks: None,
            due: BTreeMap::new(),
        }
    }

    /// Decides about every slot that is due at `now`; schedules without one are left out. `read_at`
    /// is when `now` was read, on the monotonic clock.
    pub fn plan<'a>(
        &mut self,
        now: Timestamp,
        read_at: Instant,
        expectations: impl IntoIterator<Item = Expectation<'a>>,
    ) -> Vec<Plan> {
        self.watch_the_clock(now, read_at);
        let mut known = std::mem::take(&mut self.due);
        let mut plans = Vec::new();
        for expectation in expectations {
            let due = known
                .remove(expectation.handler)
                .filter(|due| due.is_of(&expectation))
                .unwrap_or_else(|| Due::of(&expectation));
            if due.next.is_some_and(|next| next <= now) {
                plans.push(self.decide(now, &expectation));
            }
            self.due.insert(expectation.handler.clone(), due);
        }
        plans
    }

    /// The plan for slots of a schedule that nothing could fire: all in (`after`, `until`] are
    /// skipped for that reason.
    #[must_use]
    pub fn pass_over(
        &self,
        handler: &HandlerId,
        schedule: &Schedule,
        after: Timestamp,
        until: Timestamp,
        reason: SkipReason,
    ) -> Plan {
        let found = schedule.slots(after, until, MAX_SLOTS);
        let skipped = |slot| PlannedSlot {
            slot,
            verdict: Verdict::Skip(reason),
            not_before: slot,
        };
        Plan {
            handler: handler.clone(),
            omitted: self.omitted(handler, &found, reason),
            slots: found.instants.into_iter().map(skipped).collect(),
            catching_up: false,
        }
    }

    fn decide(&self, now: Timestamp, expectation: &Expectation<'_>) -> Plan {
        let Expectation {
            handler,
            trigger,
            after,
            ahead,
        } = *expectation;
        let (found, more) = if trigger.missed == Missed::All {
            let (instants, more) = trigger.schedule.oldest(after, now, MAX_RUNS);
            let omitted = None;
            (Slots { instants, omitted }, more)
        } else {
            (trigger.schedule.slots(after, now, MAX_SLOTS), false)
        };
        let decisions = decide(
            &found.instants,
            now,
            trigger.missed,
            trigger.overlap,
            ahead,
            LATE_AFTER,
        );
        let last_start = decisions
            .iter()
            .rev()
            .find_map(|decision| decision.verdict.starts());
        let slots = decisions
            .into_iter()
            .map(|decision| PlannedSlot {
                slot: decision.slot,
                verdict: decision.verdict,
                not_before: decision.slot + jitter_delay(handler, decision.slot, trigger.jitter),
            })
            .collect();
        Plan {
            handler: handler.clone(),
            omitted: self.omitted(handler, &found, SkipReason::Missed),
            slots,
            catching_up: more && last_start.unwrap_or(ahead == Ahead::CatchUp),
        }
    }

    fn omitted(&self, handler: &HandlerId, found: &Slots, reason: SkipReason) -> Option<Omitted> {
        let (after, until) = found.omitted?;
        self.telemetry.slots_omitted(handler, after, until);
        Some(Omitted {
            after,
            until,
            reason,
        })
    }

    fn watch_the_clock(&mut self, now: Timestamp, read_at: Instant) {
        if let Some((before, read_before)) = self.clocks {
            let elapsed = read_at.saturating_duration_since(read_before);
            let jump = now - before - TimeDelta::from_std(elapsed).unwrap_or(TimeDelta::MAX);
            if jump.abs() > JUMP {
                self.telemetry.clock_jumped(jump);
            }
        }
        self.clocks = Some((now, read_at));
    }
}

impl Due {
    fn of(expectation: &Expectation<'_>) -> Self {
        let schedule = expectation.trigger.schedule.clone();
        Self {
            next: schedule.next_after(expectation.after),
            after: expectation.after,
            schedule,
        }
    }

    fn is_of(&self, expectation: &Expectation<'_>) -> bool {
        self.after == expectation.after && self.schedule == expectation.trigger.schedule
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::handler::Overlap;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn trigger(cron: &str, zone: &str, missed: Missed) -> ScheduleTrigger {
        ScheduleTrigger {
            schedule: Schedule::parse(cron, zone).unwrap(),
            missed,
            overlap: Overlap::Skip,
            jitter: Duration::ZERO,
        }
    }

    fn handler() -> HandlerId {
        HandlerId {
            script: "payouts".into(),
            name: "payroll".into(),
        }
    }

    const IN_TIME: Verdict = Verdict::Run { late: false };

    /// A planner whose runner records every decision at once, and its two clocks.
    struct World {
        planner: Planner,
        trigger: ScheduleTrigger,
        after: Timestamp,
        monotonic: Instant,
    }

    impl World {
        fn new(trigger: ScheduleTrigger, after: &str) -> Self {
            Self {
                planner: Planner::new(Telemetry::default()),
                trigger,
                after: at(after),
                monotonic: Instant::now(),
            }
        }

        /// Wakes the planner a second later on the monotonic clock, at `now` on the other.
        fn wake(&mut self, now: &str) -> Vec<(Timestamp, Verdict)> {
            self.monotonic += Duration::from_secs(1);
            let handler = handler();
            let expectation = Expectation {
                handler: &handler,
                trigger: &self.trigger,
                after: self.after,
                ahead: Ahead::Nothing,
            };
            let plans = self.planner.plan(at(now), self.monotonic, [expectation]);
            let slots: Vec<PlannedSlot> = plans.into_iter().flat_map(|plan| plan.slots).collect();
            if let Some(last) = slots.last() {
                assert!(last.slot > self.after);
                self.after = last.slot;
            }
            slots
                .into_iter()
                .map(|planned| (planned.slot, planned.verdict))
                .collect()
        }

        fn jumps(&self) -> u64 {
            let metrics = self.planner.telemetry.metrics();
            metrics.clock_jumps_total.get()
        }
    }

    #[test]
    fn a_slot_is_planned_once_it_is_due_and_never_again() {
        let mut world = World::new(
            trigger("0 9 * * *", "Europe/Berlin", Missed::Skip),
            "2026-11-22T07:00:00Z",
        );
        assert_eq!(world.wake("2026-11-22T07:59:59.9Z"), []);
        assert_eq!(
            world.wake("2026-11-22T08:00:00.4Z"),
            [(at("2026-11-22T08:00:00Z"), IN_TIME)]
        );
        assert_eq!(world.wake("2026-11-22T08:00:01.4Z"), []);
        assert_eq!(world.jumps(), 0);
    }

    #[test]
    fn a_clock_set_back_fires_nothing_twice() {
        let mut world = World::new(
            trigger("0 * * * *", "UTC", Missed::All),
            "2026-11-22T09:30:00Z",
        );
        assert_eq!(world.wake("2026-11-22T09:59:59.5Z"), []);
        assert_eq!(world.wake("2026-11-22T10:00:00.5Z").len(), 1);
        assert_eq!(world.jumps(), 0);
        assert_eq!(world.wake("2026-11-22T09:00:01.5Z"), []);
        assert_eq!(world.jumps(), 1);
        assert_eq!(world.wake("2026-11-22T09:00:02.5Z"), []);
        assert_eq!(world.wake("2026-11-22T10:00:00.5Z"), []);
        assert_eq!(
            world.wake("2026-11-22T11:00:00.5Z"),
            [(at("2026-11-22T11:00:00Z"), IN_TIME)]
        );
    }

    #[test]
    fn a_clock_set_forward_misses_slots_and_fires_the_current_one_once() {
        let mut world = World::new(
            trigger("0 * * * *", "UTC", Missed::Skip),
            "2026-11-22T09:30:00Z",
        );
        assert_eq!(world.wake("2026-11-22T09:30:01Z"), []);
        let skipped = Verdict::Skip(SkipReason::Missed);
        assert_eq!(
            world.wake("2026-11-22T12:00:30Z"),
            [
                (at("2026-11-22T10:00:00Z"), skipped),
                (at("2026-11-22T11:00:00Z"), skipped),
                (at("2026-11-22T12:00:00Z"), IN_TIME),
            ]
        );
        assert_eq!(world.jumps(), 1);
        assert_eq!(world.wake("2026-11-22T12:00:31Z"), []);
    }

    #[test]
    fn both_daylight_saving_switches_fire_a_daily_schedule_once() {
        for (zone, day, slot) in [
            ("Europe/Berlin", "2026-03-29", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2026-10-25", "2026-10-25T00:30:00Z"),
            ("America/New_York", "2026-03-08", "2026-03-08T07:00:00Z"),
            ("America/New_York", "2026-11-01", "2026-11-01T07:30:00Z"),
        ] {
            let mut world = World::new(
                trigger("30 2 * * *", zone, Missed::Skip),
                &format!("{day}T00:00:00Z"),
            );
            let mut fired = Vec::new();
            for minute in 0..23 * 60 {
                let now = at(&format!("{day}T00:00:30Z")) + TimeDelta::minutes(minute);
                fired.extend(world.wake(&now.to_rfc3339()));
            }
            assert_eq!(fired, [(at(slot), IN_TIME)], "{zone} {day}");
        }
    }

    #[test]
    fn a_changed_schedule_is_planned_by_its_new_times() {
        let mut world = World::new(
            trigger("0 12 * * *", "UTC", Missed::Skip),
            "2026-11-22T09:00:00Z",
        );
        assert_eq!(world.wake("2026-11-22T09:59:59Z"), []);
        world.trigger = trigger("0 10 * * *", "UTC", Missed::Skip);
        assert_eq!(
            world.wake("2026-11-22T10:00:00Z"),
            [(at("2026-11-22T10:00:00Z"), IN_TIME)]
        );
    }

    #[test]
    fn all_missed_slots_are_planned_oldest_first_in_several_plans() {
        let trigger = trigger("* * * * *", "UTC", Missed::All);
        let handler = handler();
        let mut planner = Planner::new(Telemetry::default());
        let now = at("2026-11-22T09:00:00Z");
        let mut after = at("2026-11-22T00:00:00Z");
        let mut ahead = Ahead::Nothing;
        let mut verdicts = Vec::new();
        let mut lengths = Vec::new();
        for more in [true, true, false] {
            let expectation = Expectation {
                handler: &handler,
                trigger: &trigger,
                after,
                ahead,
            };
            let [plan] = planner
                .plan(now, Instant::now(), [expectation])
                .try_into()
                .unwrap();
            assert_eq!((plan.omitted, plan.catching_up), (None, more));
            after = plan.slots.last().unwrap().slot;
            ahead = Ahead::CatchUp;
            lengths.push(plan.slots.len());
            verdicts.extend(plan.slots.iter().map(|planned| planned.verdict));
        }
        assert_eq!(lengths, [MAX_RUNS, MAX_RUNS, 40]);
        assert_eq!(after, now);
        assert_eq!(verdicts[0], Verdict::Run { late: true });
        // The grace of a minute: the last two are in time, and wait as well.
        let (late, in_time) = verdicts[1..].split_at(verdicts.len() - 3);
        assert!(
            late.iter()
                .all(|verdict| *verdict == Verdict::Queue { late: true })
        );
        let waiting = Verdict::Queue { late: false };
        let open = Verdict::Skip(SkipReason::Overlap);
        assert_eq!(in_time, [waiting, open]);
    }

    #[test]
    fn what_nothing_could_fire_is_passed_over() {
        let planner = Planner::new(Telemetry::default());
        let schedule = Schedule::parse("* * * * *", "UTC").unwrap();
        let (after, until) = (at("2026-11-22T00:00:00Z"), at("2026-11-23T00:00:00Z"));
        let reason = SkipReason::NeverLoaded;
        let plan = planner.pass_over(&handler(), &schedule, after, until, reason);
        let omitted = plan.omitted.unwrap();
        assert_eq!((omitted.after, omitted.reason), (after, reason));
        assert_eq!(plan.slots.len(), MAX_SLOTS);
        assert!(plan.slots[0].slot > omitted.until);
        let skipped = Verdict::Skip(reason);
        assert!(plan.slots.iter().all(|planned| planned.verdict == skipped));
    }

    #[test]
    fn a_month_of_missed_seconds_is_planned_in_bounded_space() {
        let mut trigger = trigger("* * * * * *", "UTC", Missed::Last);
        trigger.jitter = Duration::from_secs(5);
        let handler = handler();
        let expectation = Expectation {
            handler: &handler,
            trigger: &trigger,
            after: at("2026-01-01T00:00:00Z"),
            ahead: Ahead::Nothing,
        };
        let telemetry = Telemetry::default();
        let mut planner = Planner::new(telemetry.clone());
        let now = at("2026-02-01T00:00:00Z");
        let plans = planner.plan(now, Instant::now(), [expectation]);
        let [plan] = plans.as_slice() else {
            panic!("{} plans", plans.len());
        };
        assert_eq!(plan.slots.len(), MAX_SLOTS);
        assert_eq!(
            plan.omitted,
            Some(Omitted {
                after: expectation.after,
                until: now - TimeDelta::seconds(1000),
                reason: SkipReason::Missed
            })
        );
        for planned in &plan.slots {
            let delay = planned.not_before - planned.slot;
            assert!((TimeDelta::zero()..=TimeDelta::seconds(5)).contains(&delay));
        }
        assert_eq!(telemetry.metrics().slots_omitted_total.get(), 1);
    }
}
