//! What a run that waits for something finds when it looks: the answer, the end of its time, or
//! that it must wait on.
//!
//! Looking is all that decides whether a wait is over; being woken is only a reason to look.

use chrono::{SubsecRound, TimeDelta};
use serde_json::{Value, json};

use super::Context;
use super::events;
use super::world::{Progress, World};
use crate::domain::clock::Timestamp;
use crate::domain::handler::EventTrigger;
use crate::domain::id::ForeignId;
use crate::domain::payment::Payment;
use crate::domain::plan::Plan;
use crate::domain::wait::{Payments, Settled, Wait, WaitFor};
use crate::scripting::effects::{Awaited, Code, Failure, Interrupt, Stop};
use crate::store::schema::{EVENTS, EVENTS_BY_ORDER, PAYMENTS};
use crate::store::{Order, Range, ReadError, Versioned};

/// Keys of payments whose JSON is longer than this, in bytes, are kept beside the run's record.
const LONG: usize = 4096;

/// How many rows of the index of events are read at a time.
const PAGE: usize = 1000;

/// What an execution that ends here waits for.
#[derive(Debug)]
pub(super) struct Suspension {
    pub(super) wait: Wait,
    /// The payment that is watched, as it was when the run looked.
    pub(super) watched: Option<Box<Versioned<Payment>>>,
    /// The batch whose decision is awaited, as it was when the run looked.
    pub(super) plan: Option<Box<Versioned<Plan>>>,
}

/// What a look found.
enum Look {
    /// The wait is over.
    Answer(Value),
    /// It is not.
    Nothing {
        /// What is waited for.
        on: WaitFor,
        watched: Option<Box<Versioned<Payment>>>,
        /// What is answered if the time is over.
        at_the_end: Result<Value, String>,
    },
}

impl World {
    /// Answers a wait, or suspends the run.
    pub(super) fn answer_wait(
        &self,
        progress: &mut Progress,
        step: u64,
        on: &Awaited,
        timeout_ms: Option<u64>,
    ) -> Result<Value, Stop> {
        let now = self.context.clock.now();
        let begun = self.run.wait.as_ref().filter(|wait| wait.step == step);
        let deadline = match begun {
            Some(wait) => wait.deadline,
            None => timeout_ms.and_then(|timeout| later(now, timeout)),
        };
        match self.look(progress, begun, on)? {
            Look::Answer(value) => Ok(value),
            Look::Nothing { at_the_end, .. } if deadline.is_some_and(|at| at <= now) => {
                at_the_end.map_err(|message| Failure::new(Code::Timeout, message).into())
            }
            Look::Nothing { on, watched, .. } => {
                let wait = Wait { step, on, deadline };
                progress.suspension = Some(Suspension {
                    wait,
                    watched,
                    plan: None,
                });
                Err(Stop::Interrupt(Interrupt::Suspended))
            }
        }
    }

    fn look(&self, progress: &Progress, begun: Option<&Wait>, on: &Awaited) -> Result<Look, Stop> {
        match on {
            Awaited::Time => Ok(Look::Nothing {
                on: WaitFor::Time,
                watched: None,
                at_the_end: Ok(Value::Null),
            }),
            Awaited::Payment { foreign_id } => {
                let payment = self.known_payment(foreign_id)?;
                let id = payment.value.foreign_id.clone();
                if payment.value.state.is_final() {
                    return Ok(Look::Answer(payment.value.view()));
                }
                let state = payment.value.state;
                Ok(Look::Nothing {
                    on: WaitFor::Payments {
                        watched: id.clone(),
                        all: Payments::Here(vec![id]),
                    },
                    watched: Some(Box::new(payment)),
                    at_the_end: Err(format!("the payment `{foreign_id}` is still {state}")),
                })
            }
            Awaited::Payments { foreign_ids } => self.look_at_all(begun, foreign_ids),
            Awaited::Event { event, filter } => {
                let trigger = EventTrigger {
                    pattern: event.clone(),
                    filter: filter.clone(),
                };
                self.look_for_event(progress, begun, trigger)
            }
        }
    }

    fn known_payment(&self, foreign_id: &str) -> Result<Versioned<Payment>, Stop> {
        let missing = || {
            let text = format!("there is no payment `{foreign_id}` to wait for");
            Stop::from(Failure::new(Code::NotFound, text))
        };
        let id: ForeignId = foreign_id.parse().map_err(|_| missing())?;
        self.context
            .store
            .get_versioned(&PAYMENTS, &id)
            .map_err(|error| self.unreadable(&error))?
            .ok_or_else(missing)
    }

    fn look_at_all(&self, begun: Option<&Wait>, foreign_ids: &[String]) -> Result<Look, Stop> {
        let (mut confirmed, mut failed, mut open) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ids, mut watched) = (Vec::new(), None);
        for foreign_id in foreign_ids {
            let payment = self.known_payment(foreign_id)?;
            ids.push(payment.value.foreign_id.clone());
            let view = payment.value.view();
            match Settled::of(payment.value.state) {
                Settled::Confirmed => confirmed.push(view),
                Settled::Failed => failed.push(view),
                Settled::Open => {
                    open.push(view);
                    watched.get_or_insert(payment);
                }
            }
        }
        let answer = json!({ "confirmed": confirmed, "failed": failed, "open": open });
        let Some(payment) = watched else {
            return Ok(Look::Answer(answer));
        };
        let all = match begun.map(|wait| &wait.on) {
            Some(WaitFor::Payments { all, .. }) => all.clone(),
            Some(WaitFor::Time | WaitFor::Event { .. } | WaitFor::Plan { .. }) | None => {
                self.keep_keys(ids)?
            }
        };
        Ok(Look::Nothing {
            on: WaitFor::Payments {
                watched: payment.value.foreign_id.clone(),
                all,
            },
            watched: Some(Box::new(payment)),
            at_the_end: Ok(answer),
        })
    }

    fn keep_keys(&self, ids: Vec<ForeignId>) -> Result<Payments, Stop> {
        Ok(match self.keep_long(&json!(ids), LONG)? {
            Some(hash) => Payments::Beside(hash),
            None => Payments::Here(ids),
        })
    }

    fn look_for_event(
        &self,
        progress: &Progress,
        begun: Option<&Wait>,
        trigger: EventTrigger,
    ) -> Result<Look, Stop> {
        let from = match begun.map(|wait| &wait.on) {
            Some(WaitFor::Event { searched, .. }) => *searched,
            Some(WaitFor::Time | WaitFor::Payments { .. } | WaitFor::Plan { .. }) | None => {
                self.run.id.order()
            }
        };
        let context = &self.context;
        let complete = context
            .waits
            .complete_until(|| context.firings.next_order());
        let found = self
            .find_event(progress, from, &trigger)
            .map_err(|error| self.unreadable(&error))?;
        if let Some((key, event)) = found {
            return Ok(Look::Answer(json!({ "key": key, "event": event })));
        }
        let filter = json!(trigger.filter);
        let text = format!("no event `{}` with {filter} has come", trigger.pattern);
        Ok(Look::Nothing {
            on: WaitFor::Event {
                searched: from.max(complete),
                trigger,
            },
            watched: None,
            at_the_end: Err(text),
        })
    }

    /// The first matching event accepted after `from` that no wait of this run has answered yet.
    fn find_event(
        &self,
        progress: &Progress,
        from: u64,
        trigger: &EventTrigger,
    ) -> Result<Option<(String, Value)>, ReadError> {
        let store = &self.context.store;
        let Some(places) = self.context.waits.places_after(from, trigger) else {
            return self.search_event(progress, from, trigger);
        };
        for place in places {
            let range = Range::within(&place);
            let found = store.scan(&EVENTS_BY_ORDER, &range, 1, Order::Ascending)?;
            for ((_, key), kind) in found {
                if let Some(event) = self.matching(progress, &key, &kind, trigger)? {
                    return Ok(Some((key, event)));
                }
            }
        }
        Ok(None)
    }

    /// The same, among all events accepted after `from`.
    fn search_event(
        &self,
        progress: &Progress,
        from: u64,
        trigger: &EventTrigger,
    ) -> Result<Option<(String, Value)>, ReadError> {
        let store = &self.context.store;
        let mut last = (from, String::new());
        loop {
            let range = Range::all().after(&last);
            let page = store.scan(&EVENTS_BY_ORDER, &range, PAGE, Order::Ascending)?;
            let is_last = page.len() < PAGE;
            for (place, kind) in page {
                if let Some(event) = self.matching(progress, &place.1, &kind, trigger)? {
                    return Ok(Some((place.1, event)));
                }
                last = place;
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// The event, if it is what is looked for.
    fn matching(
        &self,
        progress: &Progress,
        key: &String,
        kind: &str,
        trigger: &EventTrigger,
    ) -> Result<Option<Value>, ReadError> {
        let store = &self.context.store;
        if !trigger.matches_kind(kind) || progress.answered_events.contains(key) {
            return Ok(None);
        }
        let Some(record) = store.get(&EVENTS, key)? else {
            return Ok(None);
        };
        let event = events::value(store, &record)?;
        Ok(trigger.matches(kind, &event).then_some(event))
    }

    /// Whether an event that ends the wait was committed while the wait was.
    pub(super) fn has_happened(&self, wait: &Wait) -> Result<bool, ReadError> {
        match &wait.on {
            WaitFor::Time | WaitFor::Payments { .. } | WaitFor::Plan { .. } => Ok(false),
            WaitFor::Event { trigger, searched } => {
                let found = self.find_event(&self.progress(), *searched, trigger)?;
                Ok(found.is_some())
            }
        }
    }
}

/// The first payment that is not final, from `watched` on, as it is in the store.
pub(super) fn first_open(
    context: &Context,
    all: &Payments,
    watched: &ForeignId,
) -> Result<Option<(ForeignId, Versioned<Payment>)>, ReadError> {
    let ids = match all {
        Payments::Here(ids) => ids.clone(),
        Payments::Beside(hash) => {
            serde_json::from_value(context.read_json(hash)?).unwrap_or_default()
        }
    };
    for id in ids.into_iter().skip_while(|id| id != watched) {
        if let Some(payment) = context.store.get_versioned(&PAYMENTS, &id)?
            && !payment.value.state.is_final()
        {
            return Ok(Some((id, payment)));
        }
    }
    Ok(None)
}

/// To the millisecond, as the store keeps instants; `None` when that is beyond all time.
fn later(now: Timestamp, milliseconds: u64) -> Option<Timestamp> {
    let length = TimeDelta::try_milliseconds(i64::try_from(milliseconds).ok()?)?;
    Some(now.checked_add_signed(length)?.trunc_subsecs(3))
}
