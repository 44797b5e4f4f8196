//! The story of one payment: what fired, which script asked at which line, what policy and people
//! said, what was sent, what came back, what was heard of it since. For `bursar why`. Reads only.
//!
//! Personal data are masked; what retention has removed meanwhile is said to be no longer kept.

use serde_json::{Map, Value, json};

use super::events;
use super::handle::Handle;
use super::unwritten::find;
use super::views::{ViewError, payment_row};
use crate::domain::clock::shown;
use crate::domain::diagnostic::closest;
use crate::domain::id::{Firing, ForeignId, SetHash};
use crate::domain::payment::{Event, Payment, StoryLine, masked, masked_json};
use crate::domain::run::{Input, Run};
use crate::store::schema::{
    EVENTS, EVENTS_BY_PAYMENT, EVENTS_BY_TRANSACTION, EventRecord, PAYMENTS, SETS,
};
use crate::store::{Order, Range, ReadError, Store};

/// The most events of one payment that are shown.
const MOST_EVENTS: usize = 200;
/// Keys that are looked at to find similar ones.
const NEIGHBOURS: usize = 200;
/// The most similar keys that are named.
const MOST_SIMILAR: usize = 5;

impl Handle {
    /// The story of one payment.
    ///
    /// # Errors
    /// When there is none of that key; names similar ones. When the store cannot be read.
    pub fn why(&self, id: &str) -> Result<Value, ViewError> {
        let store = &self.context.store;
        let foreign_id: Option<ForeignId> = id.parse().ok();
        let payment = match &foreign_id {
            Some(foreign_id) => store.get(&PAYMENTS, foreign_id)?,
            None => None,
        };
        let Some(payment) = payment else {
            return Err(ViewError::Unknown {
                id: id.to_owned(),
                similar: similar(store, id)?,
            });
        };
        let run = match find(&self.context, payment.origin.run) {
            Err(ReadError::Undecodable { .. } | ReadError::Newer { .. }) => None,
            found => found?.map(|found| found.run),
        };
        let mut why = Map::new();
        why.insert("payment".into(), payment_row(&payment));
        why.insert("trigger".into(), trigger(store, run.as_ref())?);
        why.insert("run".into(), run_row(&payment, run.as_ref()));
        why.insert("script".into(), script(store, &payment)?);
        why.insert("arguments".into(), masked(payment.content.fields()));
        why.insert("policy".into(), json!(payment.decision));
        why.insert("approvals".into(), approvals(&payment));
        why.insert("attempts".into(), attempts(&payment));
        why.insert("look_ups".into(), look_ups(&payment));
        why.insert("callbacks".into(), callbacks(store, &payment)?);
        why.insert("story".into(), payment.story.iter().map(line).collect());
        Ok(why.into())
    }
}

/// Keys that are like one that there is not: those that begin the same, the most alike first.
fn similar(store: &Store, id: &str) -> Result<Vec<String>, ReadError> {
    let mut cut = id.len();
    loop {
        while !id.is_char_boundary(cut) {
            cut -= 1;
        }
        let beginning = id.get(..cut).unwrap_or_default();
        let range = Range::all().starting_with(beginning);
        let keys = store.keys(&PAYMENTS, &range, NEIGHBOURS, Order::Ascending)?;
        if !keys.is_empty() || cut == 0 {
            let mut rest: Vec<&str> = keys.iter().map(ForeignId::as_str).collect();
            let mut similar = Vec::new();
            while similar.len() < MOST_SIMILAR
                && let Some(next) = closest(id, rest.iter().copied())
            {
                similar.push(next.to_owned());
                rest.retain(|key| *key != next);
            }
            return Ok(similar);
        }
        cut -= 1;
    }
}

/// Similar keys, as the end of the sentence that there is no such payment.
pub(super) fn among(similar: &[String]) -> String {
    if similar.is_empty() {
        return String::new();
    }
    let similar: Vec<String> = similar.iter().map(|key| format!("`{key}`")).collect();
    format!("; there is {}", similar.join(", "))
}

/// What fired: a slot, an event or a person.
fn trigger(store: &Store, run: Option<&Run>) -> Result<Value, ReadError> {
    let Some(run) = run else {
        return Ok(Value::Null);
    };
    let mut trigger = match &run.firing {
        Firing::Slot(slot) => json!({"kind": "schedule", "slot": shown(*slot)}),
        Firing::Manual { slot, .. } => json!({"kind": "by hand", "slot": shown(*slot)}),
        Firing::Event(key) => {
            let event = store.get(&EVENTS, key)?;
            match event {
                Some(event) => json!({"kind": "event", "event": event_row(store, key, &event)?}),
                None => json!({"kind": "event", "event": {"id": key}}),
            }
        }
    };
    if let (Some(trigger), Input::Tick(tick)) = (trigger.as_object_mut(), &run.input) {
        trigger.insert("tick".into(), tick.clone());
    }
    Ok(trigger)
}

fn run_row(payment: &Payment, run: Option<&Run>) -> Value {
    json!({
        "id": payment.origin.run,
        "step": payment.origin.step,
        "handler": payment.origin.handler.to_string(),
        "state": run.map(|run| run.state),
        "accepted_at": run.map(|run| shown(run.created_at)),
        "kept": run.is_some(),
    })
}

/// Where in which version of the script it was asked for, and that line of it.
fn script(store: &Store, payment: &Payment) -> Result<Value, ReadError> {
    let origin = &payment.origin;
    let set: Option<SetHash> = serde_json::from_value(json!(origin.set)).ok();
    let record = match &set {
        Some(set) => store.get(&SETS, set)?,
        None => None,
    };
    let source = record.as_ref().and_then(|set| set.files.get(&origin.file));
    let source = source.map(|hash| store.get_blob(hash)).transpose()?;
    let line = source.and_then(|bytes| {
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().nth(origin.line.checked_sub(1)?)?;
        Some(line.trim().to_owned())
    });
    Ok(json!({
        "set": origin.set,
        "file": origin.file,
        "line": origin.line,
        "source": line,
    }))
}

/// Who approved it, as far as the payment says.
fn approvals(payment: &Payment) -> Value {
    let fields = serde_json::to_value(payment).unwrap_or_default();
    fields
        .get("approvals")
        .cloned()
        .unwrap_or_else(|| json!([]))
}

/// Every time that it was sent: the request, and what came of it.
fn attempts(payment: &Payment) -> Value {
    let request = json!({
        "operation": payment.content.operation,
        "body": masked_json(payment.content.body()),
    });
    let lines = payment.story.iter().enumerate();
    lines
        .filter(|(_, line)| line.event == Event::SendStarted)
        .map(|(at, sent)| {
            let outcome = payment.story.get(at + 1..).unwrap_or_default();
            let outcome = outcome.iter().find(|line| is_outcome(line.event));
            json!({
                "at": shown(sent.at),
                "request": request,
                "outcome": outcome.map(line),
            })
        })
        .collect()
}

/// Whether an attempt ends with this event.
const fn is_outcome(event: Event) -> bool {
    match event {
        Event::NotSent
        | Event::Accepted
        | Event::Rejected
        | Event::KeyTaken
        | Event::AnswerLost
        | Event::SendStarted => true,
        Event::Allowed
        | Event::ApprovalNeeded
        | Event::Approved
        | Event::Refused
        | Event::Reported(_)
        | Event::NotFound
        | Event::NotOurs
        | Event::Resend
        | Event::GaveUp
        | Event::SaidSent
        | Event::SaidNotSent => false,
    }
}

fn look_ups(payment: &Payment) -> Value {
    let is_look_up = |line: &&StoryLine| {
        let noted = line.note.as_deref().unwrap_or_default();
        line.event == Event::NotFound || noted.starts_with("look-up")
    };
    payment.story.iter().filter(is_look_up).map(line).collect()
}

/// What the gateway reported by itself.
fn callbacks(store: &Store, payment: &Payment) -> Result<Value, ReadError> {
    let own = Range::within(&payment.foreign_id);
    let mut keys: Vec<String> = store
        .scan(&EVENTS_BY_PAYMENT, &own, MOST_EVENTS, Order::Ascending)?
        .into_iter()
        .map(|(_, key)| key)
        .collect();
    if let Some(id) = &payment.gateway_id {
        let family = payment.content.operation.family().to_owned();
        let early = Range::within(&(family, id.clone()));
        let early = store.scan(
            &EVENTS_BY_TRANSACTION,
            &early,
            MOST_EVENTS,
            Order::Ascending,
        )?;
        keys.splice(..0, early.into_iter().map(|(_, key)| key));
    }
    let mut rows = Vec::new();
    for key in keys {
        if let Some(event) = store.get(&EVENTS, &key)? {
            rows.push(event_row(store, &key, &event)?);
        }
    }
    Ok(rows.into())
}

fn event_row(store: &Store, key: &str, event: &EventRecord) -> Result<Value, ReadError> {
    Ok(json!({
        "id": key,
        "kind": event.kind,
        "received_at": shown(event.received_at),
        "content": masked(&events::value(store, event)?),
    }))
}

fn line(line: &StoryLine) -> Value {
    json!({
        "at": shown(line.at),
        "event": line.event,
        "state": line.state,
        "note": line.note,
        "reply": line.reply,
    })
}
