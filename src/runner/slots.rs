//! Slots of schedules: each gets its record and its run in one commit, and then never fires again.
//!
//! Knows where each schedule stands, across reloads and restarts; the planner decides about slots
//! and the [`ledger`](super::ledger) writes them down. Woken once a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio::time::Instant;

use super::Context;
use super::ledger::Page;
use crate::domain::clock::{Timestamp, shown};
use crate::domain::handler::{Overlap, ScheduleTrigger, Trigger};
use crate::domain::id::{Firing, HandlerId};
use crate::domain::run::{Input, Lane, Run};
use crate::domain::schedule::{Ahead, Schedule, SkipReason, Start, Verdict};
use crate::scripting::ScriptSet;
use crate::store::schema::{SCHEDULES, ScheduleRecord};
use crate::store::{Changes, CommitError, Order, Range, ReadError};
use crate::telemetry::Telemetry;
use crate::triggers::planner::{Expectation, Plan, PlannedSlot, Planner};

/// How often one wake-up goes on with schedules that have more slots due than fit one commit; the
/// next wake-up goes on with the rest.
const ROUNDS: usize = 4;

/// What is known of the schedules of the current set.
#[derive(Debug)]
pub(super) struct Slots {
    state: Mutex<State>,
    /// Held while slots are settled: two at once would count what is skipped wrongly.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    planner: Planner,
    /// The set that `standing` is of.
    set: Option<Arc<ScriptSet>>,
    /// As in the store.
    standing: BTreeMap<HandlerId, ScheduleRecord>,
}

/// Why slots could not be recorded.
#[derive(Debug, thiserror::Error)]
pub(super) enum SlotError {
    /// The store cannot write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store cannot read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The daemon ends; the slots are found again at the next start.
    #[error("the slots of a stretch were not counted")]
    Uncounted,
}

impl Slots {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Self {
            state: Mutex::new(State {
                planner: Planner::new(telemetry),
                set: None,
                standing: BTreeMap::new(),
            }),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Fires every slot that is due. Called once a second.
    pub(super) async fn wake(&self, context: &Context) -> Result<(), SlotError> {
        let _turn = self.turn.lock().await;
        let set = context.generations.current();
        let now = context.clock.now();
        self.take_up(context, &set, now).await?;
        for _ in 0..ROUNDS {
            let plans = self.plan(context, &set, now, |_, _| true);
            if plans.is_empty() {
                break;
            }
            let mut settled = Ok(());
            for plan in plans {
                // One schedule that cannot be settled holds up no other.
                let one = self.settle(context, &set, plan, now).await;
                settled = settled.and(one);
            }
            settled?;
        }
        Ok(())
    }

    /// After a reload or a start: brings the ledger of every schedule up to now, and finds out
    /// where the schedules of the new set stand.
    ///
    /// # Design
    ///
    /// - Slots due before a reload was noticed are fired on the scripts in use until then.
    /// - A schedule that went on as it was before a downtime has missed its slots: its policy
    ///   decides, at the next wake-up.
    /// - One that was changed or removed while the daemon was down has missed them too, but what
    ///   does not exist any more is never run: they are skipped.
    /// - Slots between the time at which a schedule left the set and the time at which it came
    ///   back are skipped as never loaded.
    ///
    /// Every part of this is safe to do again when it was done in part.
    async fn take_up(
        &self,
        context: &Context,
        set: &Arc<ScriptSet>,
        now: Timestamp,
    ) -> Result<(), SlotError> {
        let before = self.state().set.clone();
        if before
            .as_ref()
            .is_some_and(|before| before.hash() == set.hash())
        {
            return Ok(());
        }
        if let Some(before) = before {
            let ends = |id: &HandlerId, trigger: &ScheduleTrigger| {
                schedule(set, id).is_none_or(|now| now.schedule != trigger.schedule)
            };
            for plan in self.plan(context, &before, now, ends) {
                self.settle(context, &before, plan, now).await?;
            }
        }
        let mut standing = BTreeMap::new();
        let mut changes = Changes::new();
        for (id, known) in
            context
                .store
                .scan(&SCHEDULES, &Range::all(), usize::MAX, Order::Ascending)?
        {
            let trigger = schedule(set, &id);
            let after = self
                .brought_up(context, &id, known.clone(), trigger, now)
                .await?;
            if after != known {
                changes.put(&SCHEDULES, &id, &after);
            }
            if trigger.is_some() {
                standing.insert(id, after);
            }
        }
        for (id, trigger) in schedules(set) {
            if !standing.contains_key(id) {
                let new = new_record(trigger, now);
                changes.put(&SCHEDULES, id, &new);
                standing.insert(id.clone(), new);
            }
        }
        if !changes.is_empty() {
            context.store.commit(changes).await?;
        }
        let mut state = self.state();
        state.standing = standing;
        state.set = Some(Arc::clone(set));
        Ok(())
    }

    /// Where a known schedule stands now that `trigger` is what its script says of it.
    async fn brought_up(
        &self,
        context: &Context,
        id: &HandlerId,
        known: ScheduleRecord,
        trigger: Option<&ScheduleTrigger>,
        now: Timestamp,
    ) -> Result<ScheduleRecord, SlotError> {
        let text = trigger.map(|trigger| trigger.schedule.to_string());
        let is_same = text.as_ref().is_none_or(|text| *text == known.schedule);
        let reason = match (known.left_at, &text) {
            (None, Some(_)) if is_same => return Ok(known),
            (Some(_), None) => return Ok(known),
            (None, _) => SkipReason::Missed,
            (Some(_), Some(_)) => SkipReason::NeverLoaded,
        };
        let mut after = self.pass_over(context, id, known, now, reason).await?;
        after.catching_up = false;
        after.left_at = text.is_none().then_some(now);
        // A new schedule begins now, also when the clock was ahead and is set right; the one that
        // goes on never returns to slots that have their records.
        after.settled_until = if is_same {
            after.settled_until.max(now)
        } else {
            now
        };
        if let Some(text) = text {
            after.schedule = text;
        }
        Ok(after)
    }

    /// Skips every slot of a schedule up to now. On disk when this returns.
    async fn pass_over(
        &self,
        context: &Context,
        id: &HandlerId,
        mut standing: ScheduleRecord,
        now: Timestamp,
        reason: SkipReason,
    ) -> Result<ScheduleRecord, SlotError> {
        // A text that cannot be read is of another version of Bursar: nothing can be expected.
        let Some(schedule) = Schedule::of_text(&standing.schedule) else {
            return Ok(standing);
        };
        loop {
            let since = standing.settled_until;
            let plan = self
                .state()
                .planner
                .pass_over(id, &schedule, since, now, reason);
            if plan.slots.is_empty() {
                return Ok(standing);
            }
            let page = Page::open(context, id, standing, now)?;
            standing = write(page, &schedule, &plan, |_, _, _| None).await?;
        }
    }

    /// What to do about the schedules of a set that are `wanted`.
    fn plan(
        &self,
        context: &Context,
        set: &ScriptSet,
        now: Timestamp,
        wanted: impl Fn(&HandlerId, &ScheduleTrigger) -> bool,
    ) -> Vec<Plan> {
        let mut state = self.state();
        let State {
            planner, standing, ..
        } = &mut *state;
        let expectations = schedules(set).filter_map(|(handler, trigger)| {
            let standing = standing.get(handler)?;
            let open = context.dispatcher.has_open_run(handler);
            wanted(handler, trigger).then_some(Expectation {
                handler,
                trigger,
                after: standing.settled_until,
                ahead: match (open, standing.catching_up) {
                    (false, _) => Ahead::Nothing,
                    (true, false) => Ahead::Run,
                    (true, true) => Ahead::CatchUp,
                },
            })
        });
        planner.plan(now, Instant::now(), expectations)
    }

    /// Records what becomes of the slots of one schedule, together with the runs they start.
    async fn settle(
        &self,
        context: &Context,
        set: &ScriptSet,
        plan: Plan,
        now: Timestamp,
    ) -> Result<(), SlotError> {
        let standing = self.state().standing.get(&plan.handler).cloned();
        let (Some(trigger), Some(mut standing)) = (schedule(set, &plan.handler), standing) else {
            return Ok(());
        };
        standing.catching_up = plan.catching_up;
        let page = Page::open(context, &plan.handler, standing, now)?;
        let start = |planned: &PlannedSlot, late, missed_before| {
            let start = Start {
                late,
                missed_before,
            };
            Some(make_run(
                context,
                set,
                &plan.handler,
                trigger,
                planned,
                start,
            ))
        };
        let standing = write(page, &trigger.schedule, &plan, start).await?;
        self.state().standing.insert(plan.handler, standing);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a plan down. `start` makes the run of a slot, knowing whether it is late and how many
/// slots were skipped before it. On disk when this returns.
async fn write(
    mut page: Page<'_>,
    schedule: &Schedule,
    plan: &Plan,
    start: impl Fn(&PlannedSlot, bool, u64) -> Option<Run>,
) -> Result<ScheduleRecord, SlotError> {
    if let Some(omitted) = plan.omitted
        && !page.omitted(schedule, omitted).await?
    {
        // The rest is planned anew, from there on.
        return page.commit().await;
    }
    for planned in &plan.slots {
        if page.has(planned.slot)? {
            page.standing.settled_until = planned.slot;
            continue;
        }
        match planned.verdict {
            Verdict::Skip(reason) => page.skipped(planned.slot, reason),
            Verdict::Run { late } | Verdict::Queue { late } => {
                if let Some(run) = start(planned, late, page.standing.skipped) {
                    page.ran(planned.slot, late, run);
                }
            }
        }
    }
    page.commit().await
}

fn new_record(trigger: &ScheduleTrigger, now: Timestamp) -> ScheduleRecord {
    ScheduleRecord {
        schedule: trigger.schedule.to_string(),
        settled_until: now,
        skipped: 0,
        catching_up: false,
        left_at: None,
    }
}

/// The schedules of a set.
pub(super) fn schedules(set: &ScriptSet) -> impl Iterator<Item = (&HandlerId, &ScheduleTrigger)> {
    set.handlers()
        .iter()
        .filter_map(|handler| match &handler.trigger {
            Trigger::Schedule(trigger) => Some((&handler.id, trigger)),
            Trigger::Event(_) => None,
        })
}

/// The schedule of that handler in a set.
fn schedule<'a>(set: &'a ScriptSet, wanted: &HandlerId) -> Option<&'a ScheduleTrigger> {
    let (_, trigger) = schedules(set).find(|(id, _)| *id == wanted)?;
    Some(trigger)
}

/// What a handler is given for a slot.
pub(super) fn tick(
    trigger: &ScheduleTrigger,
    handler: &HandlerId,
    slot: Timestamp,
    fired_at: Timestamp,
    start: Start,
) -> serde_json::Value {
    json!({
        "name": handler.name,
        "scheduled_at": shown(slot),
        "date": trigger.schedule.date(slot),
        "fired_at": shown(fired_at),
        "late": start.late,
        "missed": start.missed_before,
    })
}

fn make_run(
    context: &Context,
    set: &ScriptSet,
    handler: &HandlerId,
    trigger: &ScheduleTrigger,
    planned: &PlannedSlot,
    start: Start,
) -> Run {
    let now = context.clock.now();
    let mut run = Run::queued(
        handler.clone(),
        Firing::Slot(planned.slot),
        Input::Tick(tick(trigger, handler, planned.slot, now, start)),
        set.hash().clone(),
        context.firings.next_order(),
        now,
    );
    let jitter = (planned.not_before > now).then_some(planned.not_before);
    let turn = start.late.then(|| context.catch_up.place(now)).flatten();
    run.due_at = jitter.max(turn);
    // Slots that wait for each other share a lane, and so do those they wait for.
    let queued = matches!(planned.verdict, Verdict::Queue { .. });
    let shares = queued || trigger.overlap != Overlap::Allow;
    run.lane = shares.then(|| Lane::Schedule(handler.clone()));
    run
}
