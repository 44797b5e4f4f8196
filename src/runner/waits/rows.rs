//! The rows by which a waiting run is found again: by its payment, its event, its batch, its deadline.
//!
//! Written in the commit by which the run begins to wait, removed in the one by which it goes on.

use crate::domain::clock::Timestamp;
use crate::domain::id::{ForeignId, RunId};
use crate::domain::run::Run;
use crate::domain::wait::{Shape, WaitFor, wanted};
use crate::store::Changes;
use crate::store::schema::{Mark, WAITS_BY_EVENT, WAITS_BY_PAYMENT, WAITS_BY_PLAN, WAITS_BY_TIME};

/// A row by which a waiting run is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    Payment(ForeignId),
    Event(String, String, String),
    Plan(String),
    Time(Timestamp),
}

impl Row {
    pub(super) fn put(self, run: RunId, changes: &mut Changes) {
        match self {
            Self::Payment(id) => changes.put(&WAITS_BY_PAYMENT, &(id, run), &Mark),
            Self::Event(pattern, paths, digest) => {
                changes.put(&WAITS_BY_EVENT, &(pattern, paths, digest, run), &Mark);
            }
            Self::Plan(plan) => changes.put(&WAITS_BY_PLAN, &(plan, run), &Mark),
            Self::Time(at) => changes.put(&WAITS_BY_TIME, &(at, run), &Mark),
        }
    }

    pub(super) fn remove(self, run: RunId, changes: &mut Changes) {
        match self {
            Self::Payment(id) => changes.remove(&WAITS_BY_PAYMENT, &(id, run)),
            Self::Event(pattern, paths, digest) => {
                changes.remove(&WAITS_BY_EVENT, &(pattern, paths, digest, run));
            }
            Self::Plan(plan) => changes.remove(&WAITS_BY_PLAN, &(plan, run)),
            Self::Time(at) => changes.remove(&WAITS_BY_TIME, &(at, run)),
        }
    }
}

pub(super) fn rows(run: &Run) -> Vec<Row> {
    let Some(wait) = &run.wait else {
        return Vec::new();
    };
    let on = match &wait.on {
        WaitFor::Time => None,
        WaitFor::Payments { watched, .. } => Some(Row::Payment(watched.clone())),
        WaitFor::Plan { plan } => Some(Row::Plan(plan.clone())),
        WaitFor::Event { trigger, .. } => {
            let Shape { pattern, paths } = Shape::of(trigger);
            Some(Row::Event(pattern, paths, wanted(trigger)))
        }
    };
    on.into_iter().chain(wait.deadline.map(Row::Time)).collect()
}

/// Adds the rows by which a run that has begun to wait is found.
pub(in crate::runner) fn add_rows(run: &Run, changes: &mut Changes) {
    for row in rows(run) {
        row.put(run.id, changes);
    }
}

/// Removes the rows of a run that waits no longer.
pub(in crate::runner) fn remove_rows(run: &Run, changes: &mut Changes) {
    for row in rows(run) {
        row.remove(run.id, changes);
    }
}
