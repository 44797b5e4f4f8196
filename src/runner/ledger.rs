//! The slot ledger: what became of slots, each written once, with the runs and the alert that
//! belong to it in the same commit.
//!
//! Decides nothing: which slots are due and what becomes of them is the planner's part. A slot
//! that has a record, of its own or inside of a stretch, gets no other one.

use serde_json::{Map, json};

use super::Context;
use super::alerts::{Alert, raise};
use super::firings::add_run;
use super::slots::SlotError;
use super::ticket::{Started, Ticket};
use super::waits::Happening;
use crate::crash_point::CrashPoint;
use crate::domain::clock::{Timestamp, shown};
use crate::domain::id::HandlerId;
use crate::domain::run::Run;
use crate::domain::schedule::{Schedule, SkipReason, Stretch};
use crate::store::schema::{SCHEDULES, SLOTS, ScheduleRecord, SlotRecord};
use crate::store::{Changes, Order, Range, ReadError};
use crate::triggers::planner::Omitted;

/// What one commit adds to the ledger, about one schedule.
pub(super) struct Page<'a> {
    context: &'a Context,
    handler: &'a HandlerId,
    /// Where the schedule stands after this page.
    pub(super) standing: ScheduleRecord,
    now: Timestamp,
    /// No slot after this one has a record.
    last_recorded: Option<Timestamp>,
    changes: Changes,
    runs: Vec<Run>,
    /// What is told once the page is on disk.
    lines: Vec<(Stretch, &'static str)>,
    alerted: Option<(SkipReason, Stretch)>,
}

impl<'a> Page<'a> {
    /// An empty page for a schedule that stands so.
    pub(super) fn open(
        context: &'a Context,
        handler: &'a HandlerId,
        standing: ScheduleRecord,
        now: Timestamp,
    ) -> Result<Self, ReadError> {
        let all = Range::within(handler);
        let last = context.store.scan(&SLOTS, &all, 1, Order::Descending)?;
        Ok(Self {
            context,
            handler,
            standing,
            now,
            last_recorded: last.first().map(|((_, slot), _)| *slot),
            changes: Changes::new(),
            runs: Vec::new(),
            lines: Vec::new(),
            alerted: None,
        })
    }

    /// Whether the slot has a record. The schedule was changed and its clock set back, if it has.
    pub(super) fn has(&self, slot: Timestamp) -> Result<bool, ReadError> {
        let before = slot - chrono::TimeDelta::milliseconds(1);
        let next = self.next_recorded(before)?;
        Ok(next.is_some_and(|(first, _)| first <= slot))
    }

    /// The first record after that instant: its first and its last slot.
    fn next_recorded(&self, after: Timestamp) -> Result<Option<(Timestamp, Timestamp)>, ReadError> {
        if self.last_recorded.is_none_or(|last| last <= after) {
            return Ok(None);
        }
        let later = Range::within(self.handler).after(&(self.handler.clone(), after));
        let store = &self.context.store;
        let next = store.scan(&SLOTS, &later, 1, Order::Ascending)?;
        Ok(next.first().map(|((_, slot), record)| {
            let first = record.stretch.map_or(*slot, |stretch| stretch.first);
            (first, *slot)
        }))
    }

    /// Adds a slot that starts `run`.
    pub(super) fn ran(&mut self, slot: Timestamp, late: bool, run: Run) {
        let word = if late { "late" } else { "ran" };
        let record = SlotRecord {
            verdict: word.to_owned(),
            reason: None,
            run: Some(run.id),
            at: self.now,
            stretch: None,
        };
        self.put(one(slot), word, &record);
        add_run(&run, &mut self.changes);
        self.runs.push(run);
        self.standing.skipped = 0;
    }

    /// Adds a slot that is skipped.
    pub(super) fn skipped(&mut self, slot: Timestamp, reason: SkipReason) {
        self.skip(one(slot), reason);
    }

    /// Adds slots that are skipped as one stretch, up to the first of them that has a record.
    /// Answers whether these are all.
    pub(super) async fn omitted(
        &mut self,
        schedule: &Schedule,
        omitted: Omitted,
    ) -> Result<bool, SlotError> {
        let recorded = self
            .next_recorded(omitted.after)?
            .filter(|(first, _)| *first <= omitted.until);
        let until = recorded.map_or(omitted.until, |(first, _)| {
            first - chrono::TimeDelta::seconds(1)
        });
        let schedule = schedule.clone();
        let counted = self
            .context
            .tokio
            .spawn_blocking(move || schedule.stretch(omitted.after, until));
        if let Some(stretch) = counted.await.map_err(|_| SlotError::Uncounted)? {
            self.skip(stretch, omitted.reason);
        }
        self.standing.settled_until = recorded.map_or(omitted.until, |(_, last)| last);
        Ok(recorded.is_none())
    }

    fn skip(&mut self, slots: Stretch, reason: SkipReason) {
        let record = SlotRecord {
            verdict: "skipped".to_owned(),
            reason: Some(reason.as_str().to_owned()),
            run: None,
            at: self.now,
            stretch: (slots.count > 1).then_some(slots),
        };
        self.put(slots, "skipped", &record);
        self.standing.skipped = self.standing.skipped.saturating_add(slots.count);
        // Slots skipped in favour of a run that goes on are a schedule's everyday life.
        let alarming = match reason {
            SkipReason::Missed | SkipReason::NeverLoaded => true,
            SkipReason::Overlap | SkipReason::Paused => false,
        };
        if alarming {
            let before = self.alerted.map(|(_, before)| before);
            let all = Stretch {
                first: before.map_or(slots.first, |before| before.first),
                last: slots.last,
                count: before
                    .map_or(0, |before| before.count)
                    .saturating_add(slots.count),
            };
            self.alerted = Some((reason, all));
        }
    }

    fn put(&mut self, slots: Stretch, word: &'static str, record: &SlotRecord) {
        let key = (self.handler.clone(), slots.last);
        self.changes.require_absent(&SLOTS, &key);
        self.changes.put(&SLOTS, &key, record);
        self.lines.push((slots, word));
        self.standing.settled_until = slots.last;
    }

    /// Makes the page durable and lets its runs begin. Answers where the schedule stands.
    pub(super) async fn commit(mut self) -> Result<ScheduleRecord, SlotError> {
        let (context, handler) = (self.context, self.handler);
        let happening = context.waits.happening().await;
        let alerted = self.alert(&happening);
        self.changes.put(&SCHEDULES, handler, &self.standing);
        context.store.commit(self.changes).await?;
        drop(happening);
        CrashPoint::SlotRecorded.pass();
        for (slots, word) in self.lines {
            let telemetry = &context.telemetry;
            telemetry.slots_settled(handler, slots.last, slots.count, word);
        }
        let started = Started(self.runs.iter().map(Ticket::of).collect());
        context.dispatcher.enqueue(started);
        context.dispatcher.enqueue(alerted);
        Ok(self.standing)
    }

    /// One alert for all slots of this page that nothing could fire.
    fn alert(&mut self, happening: &Happening<'_>) -> Started {
        let Some((reason, slots)) = self.alerted else {
            return Started::default();
        };
        let fields = Map::from_iter([
            ("script".to_owned(), json!(self.handler.script)),
            ("schedule".to_owned(), json!(self.handler.name)),
            ("reason".to_owned(), json!(reason.as_str())),
            ("slot".to_owned(), json!(shown(slots.last))),
            ("first".to_owned(), json!(shown(slots.first))),
            ("count".to_owned(), json!(slots.count)),
        ]);
        let alert = Alert {
            what: "slot_skipped",
            about: format!("{}:{}", self.handler, slots.last.timestamp_millis()),
            at: self.now,
            cause: None,
            fields,
        };
        raise(&self.context.firings, alert, happening, &mut self.changes)
    }
}

const fn one(slot: Timestamp) -> Stretch {
    Stretch {
        first: slot,
        last: slot,
        count: 1,
    }
}
