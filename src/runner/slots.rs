//! Slots of schedules: each gets its record and its run in one commit, and then never fires again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::json;
use tokio::time::Instant;

use super::Context;
use super::dispatcher::{Started, Ticket};
use super::firings::add_run;
use crate::crash_point::CrashPoint;
use crate::domain::clock::{Timestamp, shown};
use crate::domain::handler::{Overlap, ScheduleTrigger, Trigger};
use crate::domain::id::{Firing, HandlerId, SetHash};
use crate::domain::run::{Input, Lane, Run};
use crate::domain::schedule::{Start, Verdict};
use crate::scripting::ScriptSet;
use crate::store::schema::{SCHEDULES, SLOTS, ScheduleRecord, SlotRecord};
use crate::store::{Changes, CommitError, ReadError};
use crate::telemetry::Telemetry;
use crate::triggers::planner::{Expectation, Plan, PlannedSlot, Planner};

/// What is known of the schedules of the current set.
#[derive(Debug)]
pub(super) struct Slots(Mutex<State>);

#[derive(Debug)]
struct State {
    planner: Planner,
    /// The set that `settled` is of.
    set: Option<SetHash>,
    settled: BTreeMap<HandlerId, Settled>,
}

/// Where a schedule stands.
#[derive(Debug, Clone, Copy)]
struct Settled {
    until: Timestamp,
    /// Slots skipped since the last one that ran.
    skipped: u64,
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
}

impl Slots {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Self(Mutex::new(State {
            planner: Planner::new(telemetry),
            set: None,
            settled: BTreeMap::new(),
        }))
    }

    /// Fires every slot that is due. Called once a second, by one task.
    pub(super) async fn wake(&self, context: &Context) -> Result<(), SlotError> {
        let set = context.generations.current();
        let now = context.clock.now();
        if let Some(first_seen) = self.take_up(context, &set, now)? {
            context.store.commit(first_seen).await?;
        }
        let mut settled = Ok(());
        for plan in self.plan(context, &set, now) {
            // One schedule that cannot be settled holds up no other.
            let one = self.settle(context, &set, plan, now).await;
            settled = settled.and(one);
        }
        settled
    }

    /// After a reload or a start: finds out where each schedule stands. Answers records for the
    /// schedules that were never seen before: they begin now.
    fn take_up(
        &self,
        context: &Context,
        set: &ScriptSet,
        now: Timestamp,
    ) -> Result<Option<Changes>, ReadError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.set.as_ref() == Some(set.hash()) {
            return Ok(None);
        }
        let mut settled = BTreeMap::new();
        let mut changes = Changes::new();
        for (id, trigger) in schedules(set) {
            let text = trigger.schedule.to_string();
            let known = context
                .store
                .get(&SCHEDULES, id)?
                .filter(|record| record.schedule == text);
            let until = known.as_ref().map_or(now, |record| record.settled_until);
            if known.is_none() {
                let record = ScheduleRecord {
                    schedule: text,
                    settled_until: now,
                };
                changes.put(&SCHEDULES, id, &record);
            }
            let skipped = state.settled.get(id).map_or(0, |known| known.skipped);
            settled.insert(id.clone(), Settled { until, skipped });
        }
        state.settled = settled;
        state.set = Some(set.hash().clone());
        Ok((!changes.is_empty()).then_some(changes))
    }

    fn plan(&self, context: &Context, set: &ScriptSet, now: Timestamp) -> Vec<Plan> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State {
            planner, settled, ..
        } = &mut *state;
        let expectations = schedules(set).filter_map(|(handler, trigger)| {
            let settled = settled.get(handler)?;
            Some(Expectation {
                handler,
                trigger,
                after: settled.until,
                previous_run_open: context.dispatcher.has_open_run(handler),
                skipped_before: settled.skipped,
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
        let Some((_, trigger)) = schedules(set).find(|(id, _)| **id == plan.handler) else {
            return Ok(());
        };
        let mut changes = Changes::new();
        let (mut runs, mut settled) = (Vec::new(), Vec::new());
        let mut skipped = self.skipped(&plan.handler);
        let mut until = plan.omitted.map_or(now, |(_, until)| until);
        for planned in &plan.slots {
            until = planned.slot;
            let key = (plan.handler.clone(), planned.slot);
            // The schedule was changed, or its clock set back: a slot that has a record is over.
            if context.store.get(&SLOTS, &key)?.is_some() {
                continue;
            }
            settled.push(*planned);
            let run = start(planned).map(|(start, queued)| {
                make_run(context, set, &plan.handler, trigger, planned, start, queued)
            });
            skipped = if run.is_some() {
                0
            } else {
                skipped.saturating_add(1)
            };
            changes.require_absent(&SLOTS, &key);
            changes.put(&SLOTS, &key, &slot_record(planned, run.as_ref(), now));
            if let Some(run) = run {
                add_run(&run, &mut changes);
                runs.push(run);
            }
        }
        let record = ScheduleRecord {
            schedule: trigger.schedule.to_string(),
            settled_until: until,
        };
        changes.put(&SCHEDULES, &plan.handler, &record);
        context.store.commit(changes).await?;
        CrashPoint::SlotRecorded.pass();
        for planned in settled {
            let record = verdict_word(planned.verdict);
            context
                .telemetry
                .slot_settled(&plan.handler, planned.slot, record);
        }
        self.remember(&plan.handler, Settled { until, skipped });
        context
            .dispatcher
            .enqueue(Started(runs.iter().map(Ticket::of).collect()));
        Ok(())
    }

    fn skipped(&self, handler: &HandlerId) -> u64 {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.settled.get(handler).map_or(0, |known| known.skipped)
    }

    fn remember(&self, handler: &HandlerId, settled: Settled) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.settled.insert(handler.clone(), settled);
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

const fn start(planned: &PlannedSlot) -> Option<(Start, bool)> {
    match planned.verdict {
        Verdict::Run(start) => Some((start, false)),
        Verdict::Queue(start) => Some((start, true)),
        Verdict::Skip(_) => None,
    }
}

fn make_run(
    context: &Context,
    set: &ScriptSet,
    handler: &HandlerId,
    trigger: &ScheduleTrigger,
    planned: &PlannedSlot,
    start: Start,
    queued: bool,
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
    run.due_at = (planned.not_before > now).then_some(planned.not_before);
    // Slots that wait for each other share a lane, and so do those they wait for.
    let shares = queued || trigger.overlap != Overlap::Allow;
    run.lane = shares.then(|| Lane::Schedule(handler.clone()));
    run
}

fn slot_record(planned: &PlannedSlot, run: Option<&Run>, at: Timestamp) -> SlotRecord {
    SlotRecord {
        verdict: verdict_word(planned.verdict).to_owned(),
        reason: match planned.verdict {
            Verdict::Skip(reason) => Some(reason.as_str().to_owned()),
            Verdict::Run(_) | Verdict::Queue(_) => None,
        },
        run: run.map(|run| run.id),
        at,
    }
}

const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Run(start) | Verdict::Queue(start) if start.late => "late",
        Verdict::Run(_) | Verdict::Queue(_) => "ran",
        Verdict::Skip(_) => "skipped",
    }
}
