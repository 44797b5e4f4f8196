//! Records how executions ended, each together with everything it has not yet written.
//!
//! # Design
//! What ends while others wait to be recorded is recorded with them: one task, one message to the
//! store's writer and one answer for all. Each is still made or refused for itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, json};

use super::Context;
use super::alerts::{Alert, raise};
use super::dispatcher::After;
use super::execution::Execution;
use super::ticket::Started;
use super::unwritten;
use super::waits::Happening;
use super::world::World;
use crate::domain::clock::Timestamp;
use crate::domain::handler::Retry;
use crate::domain::retry::delay;
use crate::domain::run::{Input, Run, RunEvent, RunState};
use crate::store::schema::EVENTS;
use crate::store::{Changes, CommitError};

/// The most characters of an error in an alert; the run has it whole.
const LONGEST_ERROR: usize = 4_000;

/// How an execution ended, decided.
pub(super) struct Verdict {
    event: RunEvent,
    error: Option<String>,
    /// Delay before the next try.
    again_after: Option<Duration>,
}

/// The end of an execution, of which nothing is recorded yet.
pub(super) struct Ending {
    pub(super) run: Box<Run>,
    /// What it has not yet written; `None` if it has come to nothing.
    pub(super) world: Option<Arc<World>>,
    pub(super) verdict: Verdict,
}

/// Executions that have ended and wait for a task that records it.
#[derive(Default)]
pub(super) struct Endings(Mutex<Vec<(Execution, Ending)>>);

impl Endings {
    /// Answers whether no task is about to come for those that are there.
    fn add(&self, execution: Execution, ending: Ending) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((execution, ending));
        waiting.len() == 1
    }

    fn take(&self) -> Vec<(Execution, Ending)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ending {
    /// An execution that has come to nothing ends so.
    pub(super) const fn of_nothing(run: Box<Run>, verdict: Verdict) -> Self {
        Self {
            run,
            world: None,
            verdict,
        }
    }
}

impl Verdict {
    pub(super) const fn returned() -> Self {
        Self {
            event: RunEvent::Returned,
            error: None,
            again_after: None,
        }
    }

    pub(super) fn parked(error: String) -> Self {
        Self {
            event: RunEvent::Failed,
            error: Some(error),
            again_after: None,
        }
    }

    pub(super) const fn cancelled() -> Self {
        Self {
            event: RunEvent::Cancelled,
            error: None,
            again_after: None,
        }
    }

    pub(super) fn failed_by_the_world(run: &Run, retry: Retry, error: String) -> Self {
        let tries = run.tries.saturating_add(1);
        if tries >= retry.attempts {
            return Self::parked(error);
        }
        Self {
            event: RunEvent::WorldFailed,
            error: Some(error),
            again_after: Some(delay(retry.first, retry.max, tries, &run.id.to_string())),
        }
    }
}

/// An end that is about to be committed.
struct Recorded {
    run: Box<Run>,
    world: Option<Arc<World>>,
    /// Runs that begin with it: by emitted events, and by an alert.
    started: [Started; 2],
}

/// Records, soon, how the execution ended, and ends it.
pub(super) fn conclude_soon(context: &Arc<Context>, execution: Execution, ending: Ending) {
    if context.endings.add(execution, ending) {
        let context = Arc::clone(context);
        let tokio = context.tokio.clone();
        tokio.spawn(async move {
            let (executions, endings): (Vec<_>, _) = context.endings.take().into_iter().unzip();
            let afters = conclude_each(&context, endings).await;
            for (execution, after) in executions.into_iter().zip(afters) {
                execution.end(after);
            }
        });
    }
}

/// Records how the execution ended.
pub(super) async fn conclude(context: &Context, ending: Ending) -> After {
    let afters = conclude_each(context, vec![ending]).await;
    afters.into_iter().next().unwrap_or(After::Left)
}

async fn conclude_each(context: &Context, endings: Vec<Ending>) -> Vec<After> {
    let now = context.clock.now();
    let happening = context.waits.happening().await;
    let mut changes = Vec::with_capacity(endings.len());
    let mut recorded = Vec::with_capacity(endings.len());
    for ending in endings {
        let written = record(context, ending, now, &happening);
        recorded.push(written.map(|(end, written)| {
            changes.push(written);
            end
        }));
    }
    let mut outcomes = context.store.commit_each(changes).await.into_iter();
    drop(happening);
    let mut afters = Vec::with_capacity(recorded.len());
    for end in recorded {
        let Some(end) = end else {
            afters.push(After::Closed);
            continue;
        };
        let outcome = outcomes.next().unwrap_or(Err(CommitError::Poisoned));
        afters.push(settle(context, end, outcome).await);
    }
    afters
}

/// The record of an end, and what is to be committed with it; `None` if the run is over already.
fn record(
    context: &Context,
    ending: Ending,
    now: Timestamp,
    happening: &Happening<'_>,
) -> Option<(Recorded, Changes)> {
    let Ending {
        mut run,
        world,
        verdict,
    } = ending;
    let running = run.state.next(RunEvent::Started).ok()?;
    run.state = running.next(verdict.event).ok()?;
    run.error = verdict.error;
    run.wait = None;
    if verdict.event == RunEvent::WorldFailed {
        run.tries = run.tries.saturating_add(1);
    }
    run.due_at = verdict
        .again_after
        .and_then(|delay| now.checked_add_signed(chrono::TimeDelta::from_std(delay).ok()?));
    if run.state.is_closed() {
        run.ended_at = Some(now);
    }
    // Nobody tries a run again that has succeeded, so nothing but the run needs to know them.
    if run.state == RunState::Succeeded {
        run.last_steps = world.as_ref().and_then(|world| world.take_few_steps());
    }
    let mut changes = Changes::new();
    let emitted = world
        .as_ref()
        .map(|world| world.write(happening, &mut changes));
    unwritten::put(context, &run, !run.state.is_closed(), &mut changes);
    let alerted = alert(context, &run, happening, &mut changes);
    let started = [emitted.unwrap_or_default(), alerted];
    let end = Recorded {
        run,
        world,
        started,
    };
    Some((end, changes))
}

/// What becomes of a run now that its end is committed, or is not.
async fn settle(context: &Context, end: Recorded, outcome: Result<(), CommitError>) -> After {
    let Recorded {
        mut run,
        world,
        started,
    } = end;
    match outcome {
        Ok(()) => {
            if let Some(world) = world {
                world.say();
            }
            context.telemetry.run_ended(&run);
            for started in started {
                context.dispatcher.enqueue(started);
            }
            run.due_at.map_or(After::Closed, After::Again)
        }
        Err(CommitError::Refused) => After::AtOnce,
        Err(error @ CommitError::Unstorable { .. }) if world.is_some() => {
            run.state = RunState::Queued;
            run.ended_at = None;
            run.last_steps = None;
            let ending = Ending::of_nothing(run, Verdict::parked(error.to_string()));
            Box::pin(conclude(context, ending)).await
        }
        Err(CommitError::Unstorable { .. } | CommitError::Poisoned) => After::Left,
    }
}

/// A run that is parked waits for a person, who ought to know.
fn alert(
    context: &Context,
    run: &Run,
    happening: &Happening<'_>,
    changes: &mut Changes,
) -> Started {
    if run.state != RunState::Parked {
        return Started::default();
    }
    let cause = match &run.input {
        Input::Tick(_) => None,
        Input::Event(key) => context.store.get(&EVENTS, key).ok().flatten(),
    };
    let error: String = run
        .error
        .iter()
        .flat_map(|error| error.chars())
        .take(LONGEST_ERROR)
        .collect();
    let fields = Map::from_iter([
        ("run".to_owned(), json!(run.id)),
        ("script".to_owned(), json!(run.handler.script)),
        ("handler".to_owned(), json!(run.handler.name)),
        ("firing".to_owned(), json!(run.firing.to_string())),
        ("error".to_owned(), json!(error)),
    ]);
    let alert = Alert {
        what: "run_parked",
        // A run can be parked again after a person has let it go on.
        about: format!("{}:{}", run.id, context.firings.next_order()),
        at: context.clock.now(),
        cause: cause.as_ref().map(|event| event.kind.as_str()),
        fields,
    };
    raise(&context.firings, alert, happening, changes)
}
