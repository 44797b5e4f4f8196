//! What people may do with a run: let a parked one go on, and end one that has not ended.
//!
//! Neither undoes anything: what the run's journal holds has happened, and payments it has made go
//! on by themselves. Called for the admin API.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::handle::Handle;
use super::holds::{Held, Hold};
use super::ticket::{Started, Ticket};
use super::unwritten::{Found, find};
use super::waits::remove_rows;
use crate::domain::handler::Trigger;
use crate::domain::id::RunId;
use crate::domain::run::{Input, Run, RunEvent, RunState};
use crate::store::schema::{Mark, OPEN_RUNS, RUNS};
use crate::store::{Changes, CommitError, ReadError};

/// How long a cancelled run that is being executed may take to come to its next step before the
/// person is answered.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether it has.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a run stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum NotChanged {
    /// There is no such run.
    #[error("there is no run `{0}`; `bursar runs list` shows those there are")]
    NotFound(String),
    /// Only parked runs are retried.
    #[error("the run {run} is {state}: only a parked run can be retried{}", retry_advice(*.state))]
    NotParked {
        /// Which run.
        run: RunId,
        /// Its state.
        state: RunState,
    },
    /// The current scripts have no such handler.
    #[error(
        "the run {run} cannot go on with the scripts in use: {reason}; retry it without `--latest`, or put the handler back"
    )]
    NoHandler {
        /// Which run.
        run: RunId,
        /// What is missing.
        reason: String,
    },
    /// It has ended.
    #[error("the run {run} is {state}: it has ended, and there is nothing to cancel")]
    Ended {
        /// Which run.
        run: RunId,
        /// Its state.
        state: RunState,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping; try again once it has started")]
    Stopping,
    /// The store cannot write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a person may do instead.
const fn retry_advice(state: RunState) -> &'static str {
    match state {
        RunState::Queued | RunState::Running | RunState::Waiting | RunState::Retrying => {
            ", and this one goes on by itself"
        }
        RunState::Parked | RunState::Succeeded | RunState::Cancelled => "",
    }
}

impl Handle {
    /// Lets a parked run go on from its journal, on its own scripts or on the `latest` ones. On
    /// disk when this returns the run as it is then. The future must not be dropped early.
    ///
    /// # Errors
    /// See [`NotChanged`]; but for a poisoned store, the run is as it was.
    pub async fn retry(&self, id: &str, latest: bool) -> Result<Run, NotChanged> {
        let context = &self.context;
        loop {
            let found = self.find(id)?;
            let mut run = found.run.clone();
            run.state = run
                .state
                .next(RunEvent::Retried)
                .map_err(|_| NotChanged::NotParked {
                    run: run.id,
                    state: self.shown_state(&run),
                })?;
            if context.dispatcher.is_stopping() {
                return Err(NotChanged::Stopping);
            }
            if context.store.is_poisoned() {
                return Err(CommitError::Poisoned.into());
            }
            if context.dispatcher.knows(run.id) {
                // The execution that parked it is just ending, or somebody else holds it.
                sleep(PAUSE).await;
                continue;
            }
            if latest {
                self.move_to_latest(&mut run)?;
            }
            run.tries = 0;
            run.due_at = None;
            run.error = None;
            run.ended_at = None;
            let mut changes = Changes::new();
            found.require_unchanged(&mut changes);
            changes.put(&RUNS, &run.id, &run);
            changes.put(&OPEN_RUNS, &run.id, &Mark);
            match context.store.commit(changes).await {
                Ok(()) => {
                    context.telemetry.run_retried(&run);
                    let started = Started(vec![Ticket::of(&run)]);
                    context.dispatcher.enqueue(started);
                    return Ok(run);
                }
                Err(CommitError::Refused) => {}
                Err(error @ (CommitError::Unstorable { .. } | CommitError::Poisoned)) => {
                    return Err(error.into());
                }
            }
        }
    }

    /// Ends a run. One that is being executed ends at its next step; if it does not come there
    /// soon, the run is answered as it is, and a stop of the daemon before that step would let it
    /// go on after the next start. Every other one is cancelled on disk when this returns. The
    /// future must not be dropped early.
    ///
    /// # Errors
    /// See [`NotChanged`]; but for a poisoned store, the run is as it was.
    pub async fn cancel(&self, id: &str) -> Result<Run, NotChanged> {
        let dispatcher = &self.context.dispatcher;
        let give_up = Instant::now() + PATIENCE;
        let mut asked = false;
        loop {
            let mut run = self.find(id)?.run;
            if asked && run.state == RunState::Cancelled {
                return Ok(run);
            }
            cancelled(&run)?;
            match dispatcher.hold(&run) {
                Hold::Held(held) => return self.cancel_held(id, &held).await,
                Hold::Executing if Instant::now() >= give_up => {
                    run.state = RunState::Running;
                    return Ok(run);
                }
                Hold::Executing => asked = true,
                Hold::Taken if dispatcher.is_stopping() => return Err(NotChanged::Stopping),
                Hold::Taken => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// Ends a run that nothing executes.
    async fn cancel_held(&self, id: &str, held: &Held) -> Result<Run, NotChanged> {
        let context = &self.context;
        let ended = loop {
            let found = self.find(id)?;
            let state = match cancelled(&found.run) {
                Ok(state) => state,
                Err(ended) => break Err(ended),
            };
            let mut changes = Changes::new();
            found.require_unchanged(&mut changes);
            let run = found.run;
            changes.remove(&OPEN_RUNS, &run.id);
            remove_rows(&run, &mut changes);
            let ended = Run {
                state,
                due_at: None,
                wait: None,
                ended_at: Some(context.clock.now()),
                ..run
            };
            changes.put(&RUNS, &ended.id, &ended);
            match context.store.commit(changes).await {
                Ok(()) => break Ok(ended),
                Err(CommitError::Refused) => {}
                // It stays held until the next start.
                Err(error @ (CommitError::Unstorable { .. } | CommitError::Poisoned)) => {
                    return Err(error.into());
                }
            }
        };
        context.dispatcher.drop_held(held);
        if let Ok(run) = &ended {
            context.telemetry.run_cancelled(run);
        }
        ended
    }

    fn find(&self, id: &str) -> Result<Found, NotChanged> {
        let missing = || NotChanged::NotFound(id.to_owned());
        let run: RunId = id.parse().map_err(|_| missing())?;
        find(&self.context, run)?.ok_or_else(missing)
    }

    fn shown_state(&self, run: &Run) -> RunState {
        if self.context.dispatcher.is_executing(run.id) {
            RunState::Running
        } else {
            run.state
        }
    }

    /// Pins a run to the scripts in use, which must have its handler.
    fn move_to_latest(&self, run: &mut Run) -> Result<(), NotChanged> {
        let set = self.context.generations.current();
        let refused = |reason: String| NotChanged::NoHandler {
            run: run.id,
            reason,
        };
        let handler = set.handlers().iter().find(|known| known.id == run.handler);
        let handler = handler.ok_or_else(|| {
            refused(format!(
                "there is no handler `{}` in the script `{}` any more",
                run.handler.name, run.handler.script
            ))
        })?;
        match (&run.input, &handler.trigger) {
            (Input::Tick(_), Trigger::Schedule(_)) | (Input::Event(_), Trigger::Event(_)) => {}
            (Input::Tick(_), Trigger::Event(_)) => {
                return Err(refused(format!(
                    "`{}` is no schedule any more",
                    run.handler
                )));
            }
            (Input::Event(_), Trigger::Schedule(_)) => {
                return Err(refused(format!("`{}` is a schedule now", run.handler)));
            }
        }
        run.set = set.hash().clone();
        Ok(())
    }
}

/// The state of a run after it was cancelled.
fn cancelled(run: &Run) -> Result<RunState, NotChanged> {
    let ended = |_| NotChanged::Ended {
        run: run.id,
        state: run.state,
    };
    run.state.next(RunEvent::Cancelled).map_err(ended)
}
