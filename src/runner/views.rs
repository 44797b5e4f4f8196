//! What people are shown: payments, callbacks, schedules and scripts as JSON, for the admin API
//! and the command line. Reads only. Runs are shown by `run_views`.

use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::approvals;
use super::events;
use super::filter::{Filter, newest};
use super::handle::Handle;
use super::slots::schedules;
use super::why::among;
use crate::domain::clock::{Timestamp, shown};
use crate::domain::handler::{Handler, Trigger};
use crate::domain::id::{ForeignId, HandlerId};
use crate::domain::payment::Payment;
use crate::store::schema::{
    EVENTS, EVENTS_BY_ORDER, EventRecord, PAYMENTS, PAYMENTS_BY_TIME, SLOTS,
};
use crate::store::{Order, Range, ReadError};

/// Why something cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// There is no such thing.
    #[error("there is no {what} `{id}`")]
    NotFound {
        /// `run`, `payment`, `callback`.
        what: &'static str,
        /// What was asked for.
        id: String,
    },
    /// There is no such payment.
    #[error("there is no payment `{id}`{}", among(similar))]
    Unknown {
        /// What was asked for.
        id: String,
        /// Keys that there are and that are like it.
        similar: Vec<String>,
    },
    /// No schedule has that name, or several have it; says which there are.
    #[error("{0}")]
    Schedule(String),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Handle {
    /// Payments, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn payments(&self, filter: &Filter) -> Result<Value, ViewError> {
        let store = &self.context.store;
        let mut rows = Vec::new();
        let end = filter.until.and_then(first_payment);
        newest(store, &PAYMENTS_BY_TIME, end, |(at, id)| {
            if rows.len() >= filter.limit || filter.since.is_some_and(|since| *at < since) {
                return Ok(ControlFlow::Break(()));
            }
            if let Some(payment) = store.get(&PAYMENTS, id)? {
                let HandlerId { script, name } = &payment.origin.handler;
                if filter.admits(payment.state.as_str(), script, name) {
                    rows.push(self.with_pause(payment_row(&payment), &payment));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Value::Array(rows))
    }

    /// One payment with its story.
    ///
    /// # Errors
    /// When there is none of that key, or the store cannot be read.
    pub fn payment(&self, id: &str) -> Result<Value, ViewError> {
        let missing = || ViewError::NotFound {
            what: "payment",
            id: id.to_owned(),
        };
        let foreign_id: ForeignId = id.parse().map_err(|_| missing())?;
        let payment = self
            .context
            .store
            .get(&PAYMENTS, &foreign_id)?
            .ok_or_else(missing)?;
        let mut row = self.with_pause(payment_row(&payment), &payment);
        if let Some(object) = row.as_object_mut() {
            object.insert("run".into(), json!(payment.origin.run));
            let place = format!("{}:{}", payment.origin.file, payment.origin.line);
            object.insert("place".into(), json!(place));
            object.insert("fingerprint".into(), json!(payment.fingerprint));
            object.insert("story".into(), story(&payment));
            approvals::describe(&payment, object);
        }
        Ok(row)
    }

    /// Events, newest first: callbacks and custom ones.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn callbacks(&self, filter: &Filter) -> Result<Value, ViewError> {
        let store = &self.context.store;
        let mut rows = Vec::new();
        let end = filter.order_end().map(|order| (order, String::new()));
        newest(store, &EVENTS_BY_ORDER, end, |(order, key)| {
            if rows.len() >= filter.limit || filter.order_is_before(*order) {
                return Ok(ControlFlow::Break(()));
            }
            if let Some(record) = store.get(&EVENTS, key)?
                && filter.admits(&record.kind, "", "")
            {
                rows.push(event_row(key, &record));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Value::Array(rows))
    }

    /// One event with what handlers got.
    ///
    /// # Errors
    /// When there is none of that key, or the store cannot be read.
    pub fn callback(&self, key: &str) -> Result<Value, ViewError> {
        let store = &self.context.store;
        let record = store
            .get(&EVENTS, &key.to_owned())?
            .ok_or_else(|| ViewError::NotFound {
                what: "callback",
                id: key.to_owned(),
            })?;
        let mut row = event_row(key, &record);
        if let Some(object) = row.as_object_mut() {
            object.insert("event".into(), events::value(store, &record)?);
        }
        Ok(row)
    }

    /// The schedules of the current set, with their next slots and what became of the last ones.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn schedules(&self) -> Result<Value, ViewError> {
        let set = self.context.generations.current();
        let now = self.context.clock.now();
        let mut rows = Vec::new();
        for (id, trigger) in schedules(&set) {
            let next: Vec<String> = std::iter::successors(trigger.schedule.next_after(now), |at| {
                trigger.schedule.next_after(*at)
            })
            .take(3)
            .map(shown)
            .collect();
            let last = self
                .context
                .store
                .scan(&SLOTS, &Range::within(id), 5, Order::Descending)?;
            let last: Vec<Value> = last
                .into_iter()
                .map(|((_, slot), record)| {
                    json!({"slot": shown(slot), "record": record.verdict, "reason": record.reason, "run": record.run})
                })
                .collect();
            rows.push(json!({
                "script": id.script,
                "name": id.name,
                "cron": trigger.schedule.expression(),
                "timezone": trigger.schedule.zone(),
                "next": next,
                "last": last,
            }));
        }
        Ok(Value::Array(rows))
    }

    /// The scripts in use, and the mistakes in the folder if those are not the ones in use.
    #[must_use]
    pub fn scripts(&self) -> Value {
        let set = self.context.generations.current();
        let scripts: Vec<Value> = set
            .scripts()
            .iter()
            .map(|script| {
                let handlers: Vec<Value> = set
                    .handlers()
                    .iter()
                    .filter(|handler| script.handlers.contains(&handler.id))
                    .map(handler_row)
                    .collect();
                json!({"file": script.path, "about": script.doc, "handlers": handlers})
            })
            .collect();
        let errors: Vec<Value> = self
            .reload_errors()
            .iter()
            .map(|error| {
                json!({"where": error.location(), "what": error.message, "help": error.help, "text": error.to_string()})
            })
            .collect();
        json!({"set": set.hash().as_str(), "scripts": scripts, "errors": errors})
    }

    /// Counts for the overview: open runs, handlers, whether scripts and store are well. Costs the same
    /// however much there is.
    #[must_use]
    pub fn overview(&self) -> Value {
        let set = self.context.generations.current();
        json!({
            "now": shown(self.context.clock.now()),
            "set": set.hash().short(),
            "handlers": set.handlers().len(),
            "open_runs": self.context.dispatcher.open_runs(),
            "reload_errors": self.reload_errors().len(),
            "store": if self.is_poisoned() { "poisoned" } else { "ok" },
        })
    }
}

/// The first key that a payment decided at that instant can have.
pub(super) fn first_payment(at: Timestamp) -> Option<(Timestamp, ForeignId)> {
    Some((at, " ".parse().ok()?))
}

pub(super) fn payment_row(payment: &Payment) -> Value {
    let mut row = payment.view();
    if let Some(object) = row.as_object_mut() {
        object.insert("script".into(), json!(payment.origin.handler.script));
        object.insert("handler".into(), json!(payment.origin.handler.name));
        object.insert("attempts".into(), json!(payment.attempts));
        object.insert("created_at".into(), json!(shown(payment.created_at)));
        object.insert("updated_at".into(), json!(shown(payment.updated_at)));
    }
    row
}

fn story(payment: &Payment) -> Value {
    payment
        .story
        .iter()
        .map(|line| {
            json!({"at": shown(line.at), "event": line.event, "state": line.state, "note": line.note})
        })
        .collect()
}

fn event_row(key: &str, record: &EventRecord) -> Value {
    json!({
        "id": key,
        "kind": record.kind,
        "received_at": shown(record.received_at),
        "payment": record.payment,
        "runs": record.runs,
    })
}

fn handler_row(handler: &Handler) -> Value {
    let on = match &handler.trigger {
        Trigger::Schedule(schedule) => schedule.schedule.to_string(),
        Trigger::Event(event) => event.pattern.clone(),
    };
    json!({"name": handler.id.name, "on": on, "line": handler.line})
}
