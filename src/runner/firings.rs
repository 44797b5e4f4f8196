//! From something that happened to the runs it starts: in the same commit that records it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::buffer::Emission;
use super::events::{Given, keep_here};
use super::generations::Generations;
use super::ticket::{Started, Ticket};
use super::waits::Happening;
use crate::domain::clock::Clock;
use crate::domain::handler::Trigger;
use crate::domain::id::{Firing, TransactionKey};
use crate::domain::run::{Input, Lane, Run};
use crate::store::schema::{
    DELAYED_EVENTS, DelayedEvent, EVENTS, EVENTS_BY_ORDER, EventContent, EventRecord, Mark,
    OPEN_RUNS, RUNS,
};
use crate::store::{Changes, Order, Range, ReadError, Store};

/// Makes runs of firings.
#[derive(Debug)]
pub(super) struct Firings {
    generations: Arc<Generations>,
    clock: Arc<dyn Clock>,
    /// The last number given to a run.
    order: AtomicU64,
}

impl Firings {
    /// Goes on numbering after the runs and events in the store.
    pub(super) fn new(
        store: &Store,
        generations: Arc<Generations>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ReadError> {
        let run = store.keys(&RUNS, &Range::all(), 1, Order::Descending)?;
        let event = store.keys(&EVENTS_BY_ORDER, &Range::all(), 1, Order::Descending)?;
        let run = run.first().map_or(0, |id| id.order());
        let order = event.first().map_or(run, |(order, _)| run.max(*order));
        Ok(Self {
            generations,
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

    /// Adds a run of every handler that the event starts. Answers the runs. `event` is made only
    /// when a handler wants to see it.
    pub(super) fn event(
        &self,
        key: &str,
        kind: &str,
        event: &Given,
        transaction: Option<&TransactionKey>,
        happening: &Happening<'_>,
        changes: &mut Changes,
    ) -> Vec<Run> {
        happening.event(key, kind, changes);
        let set = self.generations.current();
        let mut runs = Vec::new();
        for handler in set.handlers() {
            let Trigger::Event(trigger) = &handler.trigger else {
                continue;
            };
            if !trigger.matches_kind(kind) || !trigger.accepts(|| event.seen()) {
                continue;
            }
            let mut run = Run::queued(
                handler.id.clone(),
                Firing::Event(key.to_owned()),
                Input::Event(key.to_owned()),
                set.hash().clone(),
                self.next_order(),
                self.clock.now(),
            );
            run.lane = transaction.map(|transaction| Lane::Transaction {
                script: handler.id.script.clone(),
                of: transaction.clone(),
            });
            add_run(&run, changes);
            runs.push(run);
        }
        runs
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
        let content = keep_here(&value.to_string());
        let event = Arc::new(Given::Value(value.clone()));
        let order = happening.number(|| self.next_order());
        let runs = self.event(key, kind, &event, None, happening, changes);
        let record = EventRecord {
            kind: kind.to_owned(),
            content: EventContent::Custom(content),
            received_at: self.clock.now(),
            order,
            payment: None,
            runs: runs.iter().map(|run| run.id).collect(),
        };
        put_event(key, &record, changes);
        let ticket = |run| Ticket::fresh(run, &event);
        runs.into_iter().map(ticket).collect()
    }
}

/// Writes an event with its index row, and requires that it is new.
pub(super) fn put_event(key: &str, record: &EventRecord, changes: &mut Changes) {
    let place = (record.order, key.to_owned());
    changes.put(&EVENTS_BY_ORDER, &place, &record.kind);
    let (_, key) = place;
    changes.require_absent(&EVENTS, &key);
    changes.put(&EVENTS, &key, record);
}

/// Writes a new run with its index rows.
pub(super) fn add_run(run: &Run, changes: &mut Changes) {
    changes.require_absent(&RUNS, &run.id);
    changes.put(&RUNS, &run.id, run);
    changes.put(&OPEN_RUNS, &run.id, &Mark);
}
