//! What an execution has done but not yet written: journal entries, state, recorded `once` values
//! and emitted events. Written in one commit with the next outside step or with the run's end, so
//! that a run that is tried again never does any of it twice.

use std::collections::{BTreeMap, HashMap};

use rust_decimal::Decimal;
use serde_json::Value;

use crate::domain::clock::Timestamp;
use crate::domain::id::RunId;
use crate::domain::money::{decimal_from_json, json_from_decimal};
use crate::domain::run::{JournalEntry, Run, Steps};
use crate::scripting::effects::{Code, Failure, LogLevel, StateAccess};
use crate::store::schema::{ONCE, ONCE_CLAIMS, STATE, STEPS};
use crate::store::{Changes, Order, Range, ReadError, Store, Versioned};
use crate::telemetry::Telemetry;

/// The most bytes that a key of state and its value as JSON have. Less than what a record holds.
const MOST_BYTES: usize = 30 * 1024;

/// The most keys that `state::list` answers.
const LIST_LIMIT: usize = 10_000;

/// The most bytes of several journal entries in one record.
const CHUNK: usize = 16 * 1024;

/// The most bytes of summaries of entries that are kept in the run's record. Four times as much,
/// which is what they take at the most, are half of what a record holds.
const FEW: usize = 4 * 1024;

/// The bytes of summaries after which a buffer is written. Twice as much, which is what they take at
/// the most, is well below what one commit holds.
const HEAVY: usize = 512 * 1024;

/// A key of the `once` tables: script and key.
pub(super) type OnceKey = (String, String);

/// A key of the state table: space and key.
type StateKey = (String, String);

/// A custom event that a script emitted.
#[derive(Debug, Clone)]
pub(super) struct Emission {
    /// The event's permanent key.
    pub(super) key: String,
    /// Its name.
    pub(super) kind: String,
    /// What handlers get.
    pub(super) value: Value,
    /// When it happens; `None` for now.
    pub(super) at: Option<Timestamp>,
}

/// A line that a script logged.
#[derive(Debug, Clone)]
pub(super) struct LogLine {
    pub(super) level: LogLevel,
    pub(super) text: String,
    pub(super) fields: Value,
}

/// What is not yet written.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    entries: Vec<(u64, JournalEntry)>,
    written: BTreeMap<StateKey, Option<Value>>,
    read: HashMap<StateKey, Option<Versioned<Value>>>,
    once: Vec<(OnceKey, Value)>,
    /// `once` closures that were begun, with the claim that was found.
    claimed: Vec<(OnceKey, Option<Versioned<RunId>>)>,
    emitted: Vec<Emission>,
    logged: Vec<LogLine>,
    /// Bytes of the entries' summaries.
    summaries: usize,
}

impl Buffer {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many steps are not yet written.
    pub(super) const fn unwritten(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is so much to write that one commit would soon not hold it.
    pub(super) const fn is_heavy(&self) -> bool {
        self.summaries >= HEAVY
    }

    pub(super) fn push(&mut self, step: u64, entry: JournalEntry) {
        let bytes = entry.request.summary.len();
        self.summaries = self.summaries.saturating_add(bytes);
        self.entries.push((step, entry));
    }

    /// Forgets the last entry if it is that of `step`.
    pub(super) fn forget(&mut self, step: u64) {
        if self.entries.last().is_some_and(|(last, _)| *last == step) {
            self.entries.pop();
        }
    }

    /// Claims a closure for this run. `found` is the claim of another run that has ended.
    pub(super) fn claim_once(&mut self, scope: OnceKey, found: Option<Versioned<RunId>>) {
        self.claimed.push((scope, found));
    }

    pub(super) fn record_once(&mut self, script: String, key: String, value: Value) {
        self.once.push(((script, key), value));
    }

    pub(super) fn emit(&mut self, emission: Emission) {
        self.emitted.push(emission);
    }

    pub(super) fn log(&mut self, line: LogLine) {
        self.logged.push(line);
    }

    /// Writes the logged lines to the log. Called once what they belong to is durable, so that an
    /// execution that starts again does not say everything twice.
    pub(super) fn say(&self, run: &Run, telemetry: &Telemetry) {
        for line in &self.logged {
            let level = match line.level {
                LogLevel::Debug => tracing::Level::DEBUG,
                LogLevel::Info => tracing::Level::INFO,
                LogLevel::Warn => tracing::Level::WARN,
                LogLevel::Error => tracing::Level::ERROR,
            };
            telemetry.script_logged(run, level, &line.text, &line.fields);
        }
    }

    /// The emitted events; the caller adds what they start to the same commit.
    pub(super) fn emitted(&self) -> &[Emission] {
        &self.emitted
    }

    /// Reads or changes state as this execution sees it: what it wrote itself, over the store.
    pub(super) fn access(
        &mut self,
        store: &Store,
        space: &str,
        access: StateAccess,
    ) -> Result<Value, AccessError> {
        let at = |key: String| (space.to_owned(), key);
        match access {
            StateAccess::Get { key } => {
                let found = self.current(store, &at(key))?;
                Ok(found.map_or(Value::Null, |value| Value::Array(vec![value])))
            }
            StateAccess::Set { key, value } => {
                let bytes = key.len().saturating_add(value.to_string().len());
                if bytes > MOST_BYTES {
                    let text = format!(
                        "the value for `{}` has {bytes} bytes, at most {MOST_BYTES} can be kept under one key",
                        key.chars().take(60).collect::<String>()
                    );
                    return Err(AccessError::Script(Failure::new(
                        Code::InvalidArgument,
                        text,
                    )));
                }
                self.written.insert(at(key), Some(value));
                Ok(Value::Null)
            }
            StateAccess::Remove { key } => {
                let key = at(key);
                let was = self.current(store, &key)?.is_some();
                self.written.insert(key, None);
                Ok(Value::Bool(was))
            }
            StateAccess::Add { key, number } => {
                let key = at(key);
                let sum = add(self.current(store, &key)?.as_ref(), &number, &key.1)?;
                self.written.insert(key, Some(sum.clone()));
                Ok(sum)
            }
            StateAccess::List { prefix } => {
                let mut found: BTreeMap<String, Value> = store
                    .scan(
                        &STATE,
                        &Range::within(&space.to_owned()).starting_with(&prefix),
                        LIST_LIMIT,
                        Order::Ascending,
                    )?
                    .into_iter()
                    .map(|((_, key), value)| (key, value))
                    .collect();
                for ((_, key), value) in self
                    .written
                    .iter()
                    .filter(|((of, key), _)| of == space && key.starts_with(&prefix))
                {
                    match value {
                        Some(value) => found.insert(key.clone(), value.clone()),
                        None => found.remove(key),
                    };
                }
                Ok(Value::Object(found.into_iter().collect()))
            }
        }
    }

    fn current(&mut self, store: &Store, key: &StateKey) -> Result<Option<Value>, ReadError> {
        if let Some(written) = self.written.get(key) {
            return Ok(written.clone());
        }
        let stored = store.get_versioned(&STATE, key)?;
        let value = stored.as_ref().map(|stored| stored.value.clone());
        self.read.insert(key.clone(), stored);
        Ok(value)
    }

    /// Takes the entries out, if one record holds them all and a run too.
    pub(super) fn take_few(&mut self) -> Option<Steps> {
        if self.summaries > FEW {
            return None;
        }
        let first = match chunks(&self.entries).as_slice() {
            [(first, _)] => *first,
            [] | [_, _, ..] => return None,
        };
        let entries = std::mem::take(&mut self.entries);
        Some(Steps {
            first,
            entries: entries.into_iter().map(|(_, entry)| entry).collect(),
        })
    }

    /// Adds everything to `changes`. The commit is refused when state that was read here and then
    /// written, or a closure that was begun here, has been changed by another run meanwhile; the
    /// execution must then start again.
    pub(super) fn write(&self, run: RunId, changes: &mut Changes) {
        for (first, entries) in chunks(&self.entries) {
            changes.put_as(&STEPS, &(run, first), &entries);
        }
        for (key, value) in &self.written {
            match self.read.get(key) {
                Some(Some(stored)) => changes.require_unchanged(&STATE, key, stored),
                Some(None) => changes.require_absent(&STATE, key),
                None => {}
            }
            match value {
                Some(value) => changes.put(&STATE, key, value),
                None => changes.remove(&STATE, key),
            }
        }
        for (key, found) in &self.claimed {
            match found {
                Some(found) => changes.require_unchanged(&ONCE_CLAIMS, key, found),
                None => changes.require_absent(&ONCE_CLAIMS, key),
            }
            changes.put(&ONCE_CLAIMS, key, &run);
        }
        for (key, value) in &self.once {
            changes.put(&ONCE, key, value);
            changes.remove(&ONCE_CLAIMS, key);
        }
    }
}

/// Journal entries in as few records as hold them, each with the number of its first step.
fn chunks(entries: &[(u64, JournalEntry)]) -> Vec<(u64, Vec<&JournalEntry>)> {
    if let [(step, entry)] = entries {
        return vec![(*step, vec![entry])];
    }
    let mut chunks: Vec<(u64, Vec<&JournalEntry>)> = Vec::new();
    let mut filled = 0;
    for (step, entry) in entries {
        let bytes = serde_json::to_string(entry).map_or(CHUNK, |json| json.len());
        match chunks.last_mut() {
            Some((_, chunk)) if bytes.saturating_add(filled) <= CHUNK => {
                chunk.push(entry);
                filled = filled.saturating_add(bytes);
            }
            Some(_) | None => {
                chunks.push((*step, vec![entry]));
                filled = bytes;
            }
        }
    }
    chunks
}

/// Why state could not be accessed.
#[derive(Debug)]
pub(super) enum AccessError {
    /// The script asked for something impossible.
    Script(Failure),
    /// The store holds something unreadable.
    Read(ReadError),
}

impl From<ReadError> for AccessError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// The sum of a stored number, 0 when there is none, and another one. Two integers make an
/// integer, everything else an exact decimal.
fn add(stored: Option<&Value>, number: &Value, key: &str) -> Result<Value, AccessError> {
    let refuse =
        |message: String| AccessError::Script(Failure::new(Code::InvalidArgument, message));
    let zero = Value::from(0);
    let stored = stored.unwrap_or(&zero);
    let numeric = |value: &Value| value.is_number();
    if !numeric(stored) {
        return Err(refuse(format!(
            "the state under `{key}` is no number: {stored}"
        )));
    }
    if !numeric(number) {
        return Err(refuse(format!(
            "`{number}` is no number that could be added to `{key}`"
        )));
    }
    if let (Some(left), Some(right)) = (stored.as_i64(), number.as_i64())
        && let Some(sum) = left.checked_add(right)
    {
        return Ok(Value::from(sum));
    }
    let exact = |value: &Value| decimal_from_json(value).map_err(|error| refuse(error.to_string()));
    let sum: Option<Decimal> = exact(stored)?.checked_add(exact(number)?);
    sum.map(json_from_decimal)
        .ok_or_else(|| refuse(format!("the sum under `{key}` is too large")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::{Asked, Outcome};

    fn number(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    fn buffer(summaries: &[usize]) -> Buffer {
        let mut buffer = Buffer::default();
        for (step, length) in (3..).zip(summaries) {
            let entry = JournalEntry {
                request: Asked::new("log", &"\u{1}".repeat(*length)),
                outcome: Outcome::Value(Value::Null),
                site: "x.rhai:1".to_owned(),
                at: Timestamp::UNIX_EPOCH,
            };
            buffer.push(step, entry);
        }
        buffer
    }

    #[test]
    fn a_few_steps_fit_into_the_record_of_their_run_and_many_stay() {
        let mut few = buffer(&[30, 40]);
        let taken = few.take_few().unwrap();
        assert_eq!((taken.first, taken.entries.len()), (3, 2));
        assert!(few.is_empty());
        for stay in [&[][..], &[5_000], &[10; 2_000], &[2_000, 2_000]] {
            let mut buffer = buffer(stay);
            assert!(buffer.take_few().is_none());
            assert_eq!(buffer.unwritten(), stay.len());
        }
    }

    #[test]
    fn sums_are_exact_and_integers_stay_integers() {
        assert_eq!(add(None, &number("2"), "k").unwrap(), number("2"));
        assert_eq!(
            add(Some(&number("1")), &number("2"), "k").unwrap(),
            number("3")
        );
        assert_eq!(
            add(Some(&number("0.1")), &number("0.2"), "k").unwrap(),
            number("0.3")
        );
        assert_eq!(
            add(Some(&number("1")), &number("0.50"), "k").unwrap(),
            number("1.50")
        );
        assert!(add(Some(&Value::from("x")), &number("1"), "k").is_err());
        assert!(add(None, &Value::from("1"), "k").is_err());
    }
}
