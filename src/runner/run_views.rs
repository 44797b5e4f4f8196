//! What people are shown of runs: lists, one run with its journal, and what its script logged.
//! Reads only.

use std::ops::ControlFlow;

use serde_json::{Map, Value, json};

use super::filter::Filter;
use super::handle::Handle;
use super::unwritten::{self, Found};
use super::views::{ViewError, first_payment, payment_row};
use crate::domain::clock::shown;
use crate::domain::id::{ForeignId, RunId};
use crate::domain::run::{Input, JournalEntry, Outcome, Run};
use crate::domain::wait::{Payments, Wait, WaitFor};
use crate::store::schema::{EVENTS, PAYMENTS, PAYMENTS_BY_TIME, STEPS};
use crate::store::{Order, Range, ReadError, Unreadable};

/// The most payments that are shown of one run; the others are counted.
const MOST_PAYMENTS: usize = 200;

/// The most bytes that are shown of a record that cannot be read.
const MOST_BYTES: usize = 512;

/// Journal records read at a time.
const AT_ONCE: usize = 1_000;

/// One record of a journal, with the number of the first step in it.
type Chunk = (u64, Result<Vec<JournalEntry>, Unreadable>);

impl Handle {
    /// Runs, newest first.
    ///
    /// # Errors
    /// When the store cannot be read, or there is no payment that the filter names.
    pub fn runs(&self, filter: &Filter) -> Result<Value, ViewError> {
        let store = &self.context.store;
        let mut rows = Vec::new();
        let about = match &filter.foreign_id {
            Some(id) => Some(About {
                maker: store
                    .get(&PAYMENTS, id)?
                    .ok_or_else(|| ViewError::NotFound {
                        what: "payment",
                        id: id.to_string(),
                    })?
                    .origin
                    .run,
                id,
            }),
            None => None,
        };
        let end = filter.order_end().map(RunId::new);
        unwritten::newest(&self.context, end, |id| {
            if rows.len() >= filter.limit || filter.order_is_before(id.order()) {
                return Ok(ControlFlow::Break(()));
            }
            match unwritten::find(&self.context, id) {
                Ok(None) => {}
                Ok(Some(Found { run, .. })) => {
                    let state = self.run_state(&run);
                    if filter.admits(state, &run.handler.script, &run.handler.name)
                        && self.is_about(&run, about.as_ref())?
                    {
                        rows.push(run_row(&run, state));
                    }
                }
                // It may be one of those that are wanted, and it must hide no other.
                Err(error @ (ReadError::Undecodable { .. } | ReadError::Newer { .. })) => {
                    rows.push(json!({"id": id, "state": "unreadable", "error": error.to_string()}));
                }
                Err(error @ (ReadError::Blob { .. } | ReadError::Index(_))) => {
                    return Err(error.into());
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Value::Array(rows))
    }

    /// One run with its journal and the payments it made.
    ///
    /// # Errors
    /// When there is none of that id, or the store cannot be read.
    pub fn run(&self, id: &str) -> Result<Value, ViewError> {
        let run = self.find_run(id)?;
        let mut row = run_row(&run, self.run_state(&run));
        let (payments, payments_made) = self.payments_of(&run)?;
        let journal = self.journal(&run)?;
        if let Some(object) = row.as_object_mut() {
            let input = serde_json::to_value(&run.input).unwrap_or(Value::Null);
            let current = self.context.generations.current();
            object.insert("input".into(), input);
            object.insert("started_at".into(), json!(run.started_at.map(shown)));
            object.insert("set_is_current".into(), json!(*current.hash() == run.set));
            object.insert("wait".into(), json!(run.wait.as_ref().map(wait_row)));
            object.insert("payments".into(), Value::Array(payments));
            object.insert("payments_made".into(), json!(payments_made));
            object.insert(
                "journal".into(),
                journal.into_iter().flat_map(step_rows).collect(),
            );
        }
        Ok(row)
    }

    /// The lines that the script of a run logged, in order, as far as its journal goes.
    ///
    /// # Errors
    /// When there is no run of that id, or the store cannot be read.
    pub fn run_logs(&self, id: &str) -> Result<Value, ViewError> {
        let run = self.find_run(id)?;
        let journal = self.journal(&run)?;
        let lines: Vec<Value> = journal.into_iter().flat_map(log_rows).collect();
        Ok(json!({
            "run": run.id,
            "state": self.run_state(&run),
            "lines": lines,
        }))
    }

    fn find_run(&self, id: &str) -> Result<Run, ViewError> {
        let missing = || ViewError::NotFound {
            what: "run",
            id: id.to_owned(),
        };
        let run: RunId = id.parse().map_err(|_| missing())?;
        let found = unwritten::find(&self.context, run)?;
        Ok(found.ok_or_else(missing)?.run)
    }

    pub(super) fn run_state(&self, run: &Run) -> &'static str {
        if self.context.dispatcher.is_executing(run.id) {
            "running"
        } else {
            run.state.as_str()
        }
    }

    fn journal(&self, run: &Run) -> Result<Vec<Chunk>, ReadError> {
        let store = &self.context.store;
        let mut chunks: Vec<Chunk> = Vec::new();
        loop {
            let range = Range::within(&run.id);
            let range = match chunks.last() {
                Some((first, _)) => range.after(&(run.id, *first)),
                None => range,
            };
            let found = store.scan_each(&STEPS, &range, AT_ONCE, Order::Ascending)?;
            let is_all = found.len() < AT_ONCE;
            chunks.extend(
                found
                    .into_iter()
                    .map(|((_, first), entries)| (first, entries)),
            );
            if is_all {
                let last = run.last_steps.clone();
                chunks.extend(last.map(|steps| (steps.first, Ok(steps.entries))));
                return Ok(chunks);
            }
        }
    }

    /// The first payments that a run made, and how many there are. A run makes payments between
    /// its beginning and its end, and payments are in the order of time.
    fn payments_of(&self, run: &Run) -> Result<(Vec<Value>, usize), ReadError> {
        let store = &self.context.store;
        let (mut rows, mut count) = (Vec::new(), 0_usize);
        let mut last = first_payment(run.created_at);
        loop {
            let range = match &last {
                Some(last) => Range::all().after(last),
                None => Range::all(),
            };
            let keys = store.keys(&PAYMENTS_BY_TIME, &range, AT_ONCE, Order::Ascending)?;
            for (at, id) in &keys {
                if run.ended_at.is_some_and(|ended| *at > ended) {
                    return Ok((rows, count));
                }
                let Some(payment) = store.get(&PAYMENTS, id)? else {
                    continue;
                };
                if payment.origin.run == run.id {
                    count = count.saturating_add(1);
                    if rows.len() < MOST_PAYMENTS {
                        rows.push(payment_row(&payment));
                    }
                }
            }
            if keys.len() < AT_ONCE {
                return Ok((rows, count));
            }
            last = keys.into_iter().next_back();
        }
    }

    /// Whether a run made the payment, waits for it, or was started by an event about it.
    fn is_about(&self, run: &Run, about: Option<&About<'_>>) -> Result<bool, ReadError> {
        let Some(About { maker, id }) = about else {
            return Ok(true);
        };
        if run.id == *maker || self.waits_for(run, id)? {
            return Ok(true);
        }
        let Input::Event(key) = &run.input else {
            return Ok(false);
        };
        let event = self.context.store.get(&EVENTS, key)?;
        Ok(event.is_some_and(|event| event.payment.as_ref() == Some(*id)))
    }

    fn waits_for(&self, run: &Run, id: &ForeignId) -> Result<bool, ReadError> {
        let Some(WaitFor::Payments { watched, all }) = run.wait.as_ref().map(|wait| &wait.on)
        else {
            return Ok(false);
        };
        Ok(watched == id
            || match all {
                Payments::Here(all) => all.contains(id),
                Payments::Beside(hash) => {
                    let all = self.context.read_json(hash)?;
                    let all = all.as_array().map_or(&[][..], Vec::as_slice);
                    all.iter().any(|one| one.as_str() == Some(id.as_str()))
                }
            })
    }
}

/// The payment that runs are looked for.
struct About<'a> {
    maker: RunId,
    id: &'a ForeignId,
}

fn run_row(run: &Run, state: &str) -> Value {
    json!({
        "id": run.id,
        "script": run.handler.script,
        "handler": run.handler.name,
        "state": state,
        "firing": run.firing.to_string(),
        "set": run.set.short(),
        "tries": run.tries,
        "created_at": shown(run.created_at),
        "ended_at": run.ended_at.map(shown),
        "due_at": run.due_at.map(shown),
        "error": run.error,
    })
}

fn wait_row(wait: &Wait) -> Value {
    let mut row = match &wait.on {
        WaitFor::Time => json!({"for": "time"}),
        WaitFor::Payments { watched, all } => {
            let all = match all {
                Payments::Here(all) => json!(all),
                Payments::Beside(hash) => json!({ "blob": hash }),
            };
            json!({"for": "payments", "first_open": watched, "payments": all})
        }
        WaitFor::Plan { plan } => json!({"for": "approval", "batch": plan}),
        WaitFor::Event { trigger: event, .. } => {
            json!({"for": "event", "event": event.pattern, "where": event.filter})
        }
    };
    if let Some(object) = row.as_object_mut() {
        object.insert("step".into(), json!(wait.step));
        object.insert("until".into(), json!(wait.deadline.map(shown)));
    }
    row
}

fn step_rows((first, entries): Chunk) -> Vec<Value> {
    match entries {
        Ok(entries) => (first..)
            .zip(&entries)
            .map(|(number, entry)| step_row(number, entry))
            .collect(),
        Err(unreadable) => vec![unreadable_row(first, &unreadable)],
    }
}

/// A record of one or more steps that cannot be read.
fn unreadable_row(first: u64, unreadable: &Unreadable) -> Value {
    let stored = &unreadable.stored;
    let start = stored.get(..MOST_BYTES).unwrap_or(stored);
    json!({
        "step": first,
        "kind": "unreadable",
        "unreadable": unreadable.error.to_string(),
        "stored": hex::encode(start),
        "stored_bytes": unreadable.stored.len(),
    })
}

fn step_row(number: u64, entry: &JournalEntry) -> Value {
    let (outcome, value) = match &entry.outcome {
        Outcome::Value(value) => ("value", value.clone()),
        Outcome::Long(hash) => ("long", json!(hash)),
        Outcome::Failure(failure) => ("failure", failure.clone()),
        Outcome::LongFailure(hash) => ("long_failure", json!(hash)),
    };
    json!({
        "step": number,
        "kind": entry.request.kind,
        "request": entry.request.summary,
        outcome: value,
        "site": entry.site,
        "at": shown(entry.at),
    })
}

fn log_rows((first, entries): Chunk) -> Vec<Value> {
    match entries {
        Ok(entries) => (first..)
            .zip(&entries)
            .filter(|(_, entry)| entry.request.kind == "log")
            .map(|(number, entry)| log_row(number, entry))
            .collect(),
        Err(unreadable) => vec![unreadable_row(first, &unreadable)],
    }
}

fn log_row(number: u64, entry: &JournalEntry) -> Value {
    let summary = &entry.request.summary;
    let whole = serde_json::from_str::<Map<String, Value>>(summary)
        .ok()
        .and_then(|mut request| request.remove("log"));
    let is_cut = whole.is_none();
    let line = whole.unwrap_or_else(|| cut_line(summary));
    let part = |name: &str| line.get(name).cloned().unwrap_or(Value::Null);
    json!({
        "step": number,
        "at": shown(entry.at),
        "level": part("level"),
        "site": entry.site,
        "text": part("text"),
        "fields": part("fields"),
        "cut": is_cut,
    })
}

/// What is left of a line whose JSON was cut.
fn cut_line(summary: &str) -> Value {
    let quoted = |name: &str| {
        let start = format!("\"{name}\":\"");
        summary.split_once(&start).map(|(_, rest)| rest)
    };
    let level = quoted("level").and_then(|rest| rest.split('"').next());
    let text = quoted("text").map_or_else(|| summary.to_owned(), unquoted);
    json!({"level": level, "text": text})
}

/// The text of a JSON string whose opening quote was taken off, and whose end may be missing.
fn unquoted(rest: &str) -> String {
    let quoted = format!("\"{rest}");
    let mut whole = serde_json::Deserializer::from_str(&quoted).into_iter::<String>();
    if let Some(Ok(text)) = whole.next() {
        return text;
    }
    // The cut may have gone through an escape, which has at most twelve characters.
    let ends = rest.char_indices().rev().map(|(at, _)| at);
    std::iter::once(rest.len())
        .chain(ends.take(12))
        .find_map(|end| serde_json::from_str(&format!("\"{}\"", rest.get(..end)?)).ok())
        .unwrap_or_else(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Timestamp;
    use crate::domain::run::Asked;
    use crate::scripting::effects::{LogLevel, Request};

    fn line(text: &str) -> Value {
        let request = Request::Log {
            level: LogLevel::Warn,
            text: text.to_owned(),
            fields: json!({"n": 1}),
        };
        let json = serde_json::to_string(&request).unwrap();
        let entry = JournalEntry {
            request: Asked::new(request.kind(), &json),
            outcome: Outcome::Value(Value::Null),
            site: "x.rhai:1".into(),
            at: Timestamp::UNIX_EPOCH,
        };
        let bytes = serde_json::to_vec(&entry).unwrap().len();
        assert!(bytes < crate::store::MAX_RECORD_BYTES, "{bytes}");
        log_row(0, &entry)
    }

    #[test]
    fn a_logged_line_comes_back_whole_and_a_very_long_one_says_that_it_is_cut() {
        let short = "zürich \"quoted\" \u{1}\n".repeat(100);
        let row = line(&short);
        assert_eq!((&row["text"], &row["cut"]), (&json!(short), &json!(false)));
        assert_eq!(
            (&row["level"], &row["fields"]["n"]),
            (&json!("warn"), &json!(1))
        );
        for pattern in ["x", "😀", "\"", "\\", "\u{1}", "ab\u{7}"] {
            for shift in 0..12 {
                let long = format!("{}{}", "-".repeat(shift), pattern.repeat(9_000));
                let row = line(&long);
                let text = row["text"].as_str().unwrap();
                assert!(long.starts_with(text) && text.len() > 500, "{text}");
                assert_eq!((&row["cut"], &row["level"]), (&json!(true), &json!("warn")));
            }
        }
    }
}
