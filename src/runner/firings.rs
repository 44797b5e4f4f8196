//! From something that happened to the runs it starts: in the same commit that records it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::buffer::Emission;
use super::events::{Given, keep_here};
use super::generations::Generations;
use super::ticket::{Started, Ticket};
use super::unwritten::{Unwritten, last_note};
use super::waits::Happening;
use crate::domain::clock::Clock;
use crate::domain::handler::Trigger;
use crate::domain::id::{Firing, HandlerId, RunId, SetHash, TransactionKey};
use crate::domain::run::{Input, Lane, Run};
use crate::store::schema::{
    Begun, DELAYED_EVENTS, DelayedEvent, EVENTS, EVENTS_BY_ORDER, EventContent, EventRecord, Mark,
    OPEN_RUNS, RUNS,
};
use crate::store::{Changes, Order, Range, ReadError, Store};

/// Makes runs of firings.
#[derive(Debug)]
pub(super) struct Firings {
    generations: Arc<Generations>,
    unwritten: Arc<Unwritten>,
    clock: Arc<dyn Clock>,
    /// The last number given to a run.
    order: AtomicU64,
}

impl Firings {
    /// Goes on numbering after the runs and events in the store.
    pub(super) fn new(
        store: &Store,
        generations: Arc<Generations>,
        unwritten: Arc<Unwritten>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ReadError> {
        let run = store.keys(&RUNS, &Range::all(), 1, Order::Descending)?;
        let event = store.keys(&EVENTS_BY_ORDER, &Range::all(), 1, Order::Descending)?;
        let run = run.first().map_or(0, |id| id.order());
        let event = event.first().map_or(0, |(order, _)| *order);
        let noted = last_note(store)?.map_or(0, |note| note.until);
        let order = run.max(event).max(noted);
        Ok(Self {
            generations,
            unwritten,
            clock,
            order: AtomicU64::new(order),
        })
    }

    /// The next number in the order in which things are accepted: above every one before it, also
    /// when the clock is set back.
    pub(super) fn next_order(&self) -> u64 {
        let now = u64::try_from(self.clock.now().timestamp_millis()).unwrap_or(0) << 16;
        let step = |last: u64| Some(now.max(last.saturating_add(1)));
        let before = self
            .order
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, step)
            .unwrap_or(0);
        now.max(before.saturating_add(1))
    }

    /// The last number that was given to anything.
    pub(super) fn last_order(&self) -> u64 {
        self.order.load(Ordering::SeqCst)
    }

    /// Goes on numbering after that place.
    pub(super) fn go_on_after(&self, place: u64) {
        self.order.fetch_max(place, Ordering::SeqCst);
    }

    /// Adds the event and a run of every handler that it starts, and requires that it is new. `record`
    /// is the event but for its place and its runs; `event` is made only when a handler wants to see
    /// it. Answers the whole record and the runs' tickets.
    pub(super) fn event(
        &self,
        key: &str,
        mut record: EventRecord,
        event: &Arc<Given>,
        transaction: Option<&TransactionKey>,
        happening: &Happening<'_>,
        changes: &mut Changes,
    ) -> (EventRecord, Vec<Ticket>) {
        record.order = happening.number(|| self.next_order());
        happening.event(key, &record.kind, changes);
        let set = self.generations.current();
        let mut tickets = Vec::new();
        let mut all_written = true;
        for handler in set.handlers() {
            let Trigger::Event(trigger) = &handler.trigger else {
                continue;
            };
            if !trigger.matches_kind(&record.kind) || !trigger.accepts(|| event.seen()) {
                continue;
            }
            let run = RunId::new(self.next_order());
            let run = queued_run(run, &handler.id, key, &record, set.hash(), transaction);
            let run = Arc::new(run);
            // Scripts emit many events in one commit, whose runs would take all the room there is.
            let place = transaction.and_then(|_| self.unwritten.begin(record.order, &run));
            if place.is_none() {
                add_run(&run, changes);
            }
            all_written &= place.is_none();
            record.runs.push(run.id);
            tickets.push(Ticket::fresh(run, event, place));
        }
        record.begun = transaction.filter(|_| !all_written).map(|of| Begun {
            handlers: tickets.iter().map(|run| run.handler.clone()).collect(),
            set: set.hash().clone(),
            of: of.clone(),
        });
        let place = (record.order, key.to_owned());
        changes.put(&EVENTS_BY_ORDER, &place, &record.kind);
        let (_, key) = place;
        changes.require_absent(&EVENTS, &key);
        changes.put(&EVENTS, &key, &record);
        (record, tickets)
    }

    /// Adds custom events, and the runs of those that happen at once.
    pub(super) fn emitted(
        &self,
        emissions: &[Emission],
        happening: &Happening<'_>,
        changes: &mut Changes,
    ) -> Started {
        let mut started = Started::default();
        for emission in emissions {
            if let Some(at) = emission.at {
                let later = DelayedEvent {
                    kind: emission.kind.clone(),
                    value: emission.value.clone(),
                };
                changes.put(&DELAYED_EVENTS, &(at, emission.key.clone()), &later);
            } else {
                let Emission {
                    key, kind, value, ..
                } = emission;
                let tickets = self.custom(key, kind, value, happening, changes);
                started.0.extend(tickets);
            }
        }
        started
    }

    /// Adds a custom event that happens now, with its runs. Answers the tickets of the runs.
    pub(super) fn custom(
        &self,
        key: &str,
        kind: &str,
        value: &Value,
        happening: &Happening<'_>,
        changes: &mut Changes,
    ) -> Vec<Ticket> {
        let content = EventContent::Custom(keep_here(&value.to_string()));
        let record = EventRecord::of(kind, content, self.clock.now());
        let event = Arc::new(Given::Value(value.clone()));
        let (_, tickets) = self.event(key, record, &event, None, happening, changes);
        tickets
    }
}

/// The runs of an event as they were queued; none if they were written with it.
pub(super) fn queued_runs(key: &str, mut event: EventRecord) -> Vec<Run> {
    let Some(begun) = event.begun.take() else {
        return Vec::new();
    };
    let Begun { handlers, set, of } = begun;
    let handlers = event.runs.iter().zip(handlers);
    handlers
        .map(|(run, handler)| queued_run(*run, &handler, key, &event, &set, Some(&of)))
        .collect()
}

/// The run of a handler that an event starts.
fn queued_run(
    id: RunId,
    handler: &HandlerId,
    key: &str,
    event: &EventRecord,
    set: &SetHash,
    transaction: Option<&TransactionKey>,
) -> Run {
    let mut run = Run::queued(
        handler.clone(),
        Firing::Event(key.to_owned()),
        Input::Event(key.to_owned()),
        set.clone(),
        id.order(),
        event.received_at,
    );
    run.lane = transaction.map(|transaction| Lane::Transaction {
        script: handler.script.clone(),
        of: transaction.clone(),
    });
    run
}

/// Writes a new run with its index row.
pub(super) fn add_run(run: &Run, changes: &mut Changes) {
    changes.require_absent(&RUNS, &run.id);
    changes.put(&RUNS, &run.id, run);
    changes.put(&OPEN_RUNS, &run.id, &Mark);
}
