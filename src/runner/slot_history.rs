//! The history of a schedule's slots, for the admin API and the command line. Reads only.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::handle::Handle;
use super::slots::schedules;
use super::views::ViewError;
use crate::domain::clock::{Timestamp, shown};
use crate::domain::diagnostic::closest;
use crate::domain::id::HandlerId;
use crate::store::schema::{SCHEDULES, SLOTS, SlotRecord};
use crate::store::{Order, Range, ReadError};

impl Handle {
    /// What became of the slots of one schedule, newest first; slots skipped as one stretch are one
    /// row. `name` is `script/name`, or the name alone when no other schedule has it. Schedules
    /// whose script is not in use any more are found as well.
    ///
    /// # Errors
    /// When no schedule, or more than one, has that name, or the store cannot be read.
    pub fn slot_history(&self, name: &str, limit: usize) -> Result<Value, ViewError> {
        let handler = named(name, &self.known_schedules()?)?;
        let store = &self.context.store;
        let all = Range::within(&handler);
        let rows = store.scan(&SLOTS, &all, limit, Order::Descending)?;
        let rows = rows.iter().map(|((_, slot), record)| row(*slot, record));
        let rows: Vec<Value> = rows.collect();
        let left_at = store.get(&SCHEDULES, &handler)?;
        let left_at = left_at.and_then(|record| record.left_at);
        Ok(json!({
            "script": handler.script,
            "name": handler.name,
            "left_at": left_at.map(shown),
            "slots": rows,
        }))
    }

    /// Every schedule that is in use or ever was.
    fn known_schedules(&self) -> Result<BTreeSet<HandlerId>, ReadError> {
        let set = self.context.generations.current();
        let store = &self.context.store;
        let mut known: BTreeSet<_> = schedules(&set).map(|(id, _)| id.clone()).collect();
        let seen = store.scan(&SCHEDULES, &Range::all(), usize::MAX, Order::Ascending)?;
        known.extend(seen.into_iter().map(|(id, _)| id));
        Ok(known)
    }
}

fn named(name: &str, known: &BTreeSet<HandlerId>) -> Result<HandlerId, ViewError> {
    if let Some(exact) = known.iter().find(|id| id.to_string() == name) {
        return Ok(exact.clone());
    }
    let found: Vec<_> = known.iter().filter(|id| id.name == name).collect();
    let quoted = |ids: &[&HandlerId]| {
        let ids: Vec<_> = ids.iter().map(|id| format!("`{id}`")).collect();
        ids.join(", ")
    };
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let all: Vec<String> = known.iter().map(ToString::to_string).collect();
            let help = match closest(name, all.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if all.is_empty() => "no script ever had one".to_owned(),
                None => format!("there are {}", quoted(&known.iter().collect::<Vec<_>>())),
            };
            Err(ViewError::Schedule(format!(
                "there is no schedule `{name}`; {help}"
            )))
        }
        several => Err(ViewError::Schedule(format!(
            "several schedules are called `{name}`; name one of {}",
            quoted(several)
        ))),
    }
}

fn row(slot: Timestamp, record: &SlotRecord) -> Value {
    let stretch = record.stretch;
    json!({
        "slot": shown(slot),
        "first": shown(stretch.map_or(slot, |stretch| stretch.first)),
        "count": stretch.map_or(1, |stretch| stretch.count),
        "record": record.verdict,
        "reason": record.reason,
        "run": record.run,
        "at": shown(record.at),
    })
}
