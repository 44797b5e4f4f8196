//! Tickets: what stands in the dispatcher's queues for a run.

use std::sync::Arc;

use super::events::Given;
use super::unwritten::Place;
use crate::domain::clock::Timestamp;
use crate::domain::id::{HandlerId, RunId};
use crate::domain::run::{Lane, Run, RunState};

/// What the dispatcher needs to know of a run.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    pub(super) run: RunId,
    pub(super) handler: HandlerId,
    pub(super) lane: Option<Lane>,
    pub(super) due_at: Option<Timestamp>,
    /// It waits, and keeps its lane meanwhile.
    pub(super) waits: bool,
    /// It goes on after a wait for which it had left its lane.
    pub(super) comes_back: bool,
    /// What would have to be read of the store, of a run that was never executed.
    pub(super) fresh: Option<Arc<Fresh>>,
    /// Of a run that is not written, until it is queued.
    pub(super) place: Option<Arc<Place>>,
}

/// A run that has just been accepted, and the event it is given.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) run: Arc<Run>,
    pub(super) event: Arc<Given>,
}

impl Ticket {
    pub(super) fn of(run: &Run) -> Self {
        Self {
            run: run.id,
            handler: run.handler.clone(),
            lane: run.lane.clone(),
            due_at: run.due_at,
            waits: run.state == RunState::Waiting,
            comes_back: run.state == RunState::Queued
                && run.wait.is_some()
                && !run.keeps_lane_while_waiting(),
            fresh: None,
            place: None,
        }
    }

    /// The ticket of a run that has just been accepted.
    pub(super) fn fresh(run: Arc<Run>, event: &Arc<Given>, place: Option<Place>) -> Self {
        let ticket = Self::of(&run);
        let event = Arc::clone(event);
        Self {
            fresh: Some(Arc::new(Fresh { run, event })),
            place: place.map(Arc::new),
            ..ticket
        }
    }

    /// The ticket of the same run for another execution: what was read before may have changed.
    pub(super) fn again(&self) -> Self {
        Self {
            fresh: None,
            ..self.clone()
        }
    }

    /// The same run, executed at that time, or as soon as its turn comes.
    pub(super) const fn due_at(mut self, at: Option<Timestamp>) -> Self {
        self.due_at = at;
        self
    }
}

/// Runs that a commit starts. They are handed to the dispatcher once it is durable.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Started(pub(super) Vec<Ticket>);
