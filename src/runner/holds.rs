//! Holding runs back from execution while a person's decision about them is written.
//!
//! What is held is in no queue, so no thread takes it up, and its lane waits. Whoever holds a run
//! drops it once its end is durable.

use std::sync::Arc;

use super::dispatcher::Dispatcher;
use super::queues::Queues;
use super::ticket::Ticket;
use crate::domain::id::RunId;
use crate::domain::run::Run;

/// What came of trying to hold a run.
#[derive(Debug)]
pub(super) enum Hold {
    /// Nothing executes it until [`Dispatcher::drop_held`].
    Held(Held),
    /// It is being executed, and will end at its next step.
    Executing,
    /// Somebody else holds it.
    Taken,
}

/// A run that is held.
#[derive(Debug)]
pub(super) enum Held {
    /// It was the first of its lane, or has none.
    First(Ticket),
    /// It was behind another one in its lane.
    Behind(Ticket),
    /// It was in no queue; none takes it in while it is held.
    Absent(RunId),
}

impl Dispatcher {
    /// Takes a run out of the queues, or tells its execution to end.
    pub(super) fn hold(&self, run: &Run) -> Hold {
        let mut queues = self.queues();
        if queues.executing.contains(&run.id) {
            queues.cancelling.insert(run.id);
            return Hold::Executing;
        }
        if queues.held.contains(&run.id) {
            return Hold::Taken;
        }
        let held = if queues.known.insert(run.id) {
            Held::Absent(run.id)
        } else if let Some(ticket) = queues.withdraw(run) {
            Held::First(ticket)
        } else if let Some(ticket) = queues.withdraw_behind(run) {
            Held::Behind(ticket)
        } else {
            // It waits for something else than a thread, or an execution has left it.
            Held::First(Ticket::of(run))
        };
        queues.held.insert(run.id);
        Hold::Held(held)
    }

    /// Forgets a run that was held and has ended; its lane goes on.
    pub(super) fn drop_held(self: &Arc<Self>, held: &Held) {
        let mut queues = self.queues();
        let run = match held {
            Held::First(ticket) => {
                queues.close(ticket);
                &ticket.run
            }
            Held::Behind(ticket) => {
                queues.forget(ticket);
                &ticket.run
            }
            Held::Absent(run) => {
                queues.known.remove(run);
                run
            }
        };
        self.unwritten.settle(*run);
        queues.held.remove(run);
        queues.cancelling.remove(run);
        self.staff(&mut queues);
    }

    /// Whether it is queued, executed or held.
    pub(super) fn knows(&self, run: RunId) -> bool {
        self.queues().known.contains(&run)
    }

    /// Whether it starts no further run.
    pub(super) fn is_stopping(&self) -> bool {
        self.queues().stopping
    }

    /// Whether the run is to end at its next step.
    pub(super) fn is_cancelling(&self, run: RunId) -> bool {
        self.queues().cancelling.contains(&run)
    }
}

impl Queues {
    /// Takes out a run that is ready, or will be at a time of its own.
    fn withdraw(&mut self, run: &Run) -> Option<Ticket> {
        if let Some(due) = run.due_at
            && let Some(ticket) = self.later.remove(&(due, run.id))
        {
            return Some(ticket);
        }
        self.withdraw_ready(run)
            .or_else(|| self.withdraw_later(run.id))
    }

    fn withdraw_ready(&mut self, run: &Run) -> Option<Ticket> {
        let handler = &run.handler;
        let ready = self.ready.get_mut(handler)?;
        let at = ready.iter().position(|ticket| ticket.run == run.id)?;
        let ticket = ready.remove(at);
        if ready.is_empty() {
            self.ready.remove(handler);
            self.turns.retain(|turn| turn != handler);
        }
        ticket
    }

    /// Takes out a run whose time is another one than its record said when it was read.
    fn withdraw_later(&mut self, run: RunId) -> Option<Ticket> {
        let key = *self.later.keys().find(|(_, later)| *later == run)?;
        self.later.remove(&key)
    }

    /// Takes out a run that waits for another one of its lane.
    fn withdraw_behind(&mut self, run: &Run) -> Option<Ticket> {
        let behind = self.lanes.get_mut(run.lane.as_ref()?)?;
        let at = behind.iter().position(|ticket| ticket.run == run.id)?;
        behind.remove(at)
    }
}
