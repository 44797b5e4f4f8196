//! Executes one run: from its record and journal to the one commit that ends the execution.
//!
//! # Design
//! The handler has a script's thread to itself while it runs. The commit that ends the execution does
//! not: a task awaits it, and the thread goes on with the next run meanwhile. So many runs end with one
//! sync, and few threads are awake.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::Context;
use super::dispatcher::After;
use super::ending::{Ending, Verdict, conclude, conclude_soon};
use super::events;
use super::execution::Execution;
use super::generations::SetError;
use super::suspension::Suspension;
use super::ticket::Ticket;
use super::unwritten;
use super::waits;
use super::world::World;
use crate::crash_point::CrashPoint;
use crate::domain::handler::Retry;
use crate::domain::run::{Input, JournalEntry, Run, RunEvent, RunState};
use crate::domain::wait::WaitFor;
use crate::scripting::effects::Interrupt;
use crate::scripting::{Ended, ScriptError, ScriptSet};
use crate::store::schema::{EVENTS, PAYMENTS, PLANS, STEPS};
use crate::store::{Changes, CommitError, Order, Range, ReadError};

/// The most steps read back at once.
const ALL_STEPS: usize = usize::MAX;

/// What is to be recorded of an execution.
enum Close {
    /// Nothing.
    Nothing(After),
    /// That it has ended, with everything it has not yet written.
    Ended(Ending),
    /// That it waits, with everything it has not yet written.
    Suspended(Box<Run>, Arc<World>, Box<Suspension>),
}

/// Executes a run, on this thread until its handler has returned.
pub(super) fn execute(context: &Arc<Context>, mut execution: Execution) {
    let close = try_execute(context, execution.ticket()).unwrap_or_else(|error| {
        context.telemetry.store_unreadable(&error);
        Close::Nothing(After::Left)
    });
    match close {
        Close::Nothing(after) => execution.end(after),
        Close::Ended(ending) => {
            execution.leave_thread();
            conclude_soon(context, execution, ending);
        }
        Close::Suspended(run, world, suspension) => {
            execution.leave_thread();
            let context = Arc::clone(context);
            let tokio = context.tokio.clone();
            tokio.spawn(async move {
                execution.end(suspend(&context, run, world, *suspension).await);
            });
        }
    }
}

fn try_execute(context: &Arc<Context>, ticket: &Ticket) -> Result<Close, ReadError> {
    let begun = context.clock.now();
    let fresh = ticket.fresh.as_deref();
    let read = match fresh {
        Some(fresh) => Some(Arc::clone(&fresh.run)),
        None => unwritten::find(context, ticket.run)?.map(|found| Arc::new(found.run)),
    };
    let Some(read) = read.filter(|run| !run.state.is_closed()) else {
        return Ok(Close::Nothing(After::Closed));
    };
    let mut run = Box::new(Run::clone(&read));
    run.started_at = Some(begun);
    if let Ok(due) = run.state.next(RunEvent::Due) {
        run.state = due;
    }
    if context.dispatcher.is_cancelling(run.id) {
        return Ok(Close::Ended(Ending::of_nothing(run, Verdict::cancelled())));
    }
    let (set, retry, timeout) = match find_handler(context, &run) {
        Ok(found) => found,
        Err(SetError::Read(error)) => return Err(error),
        Err(error) => {
            let verdict = Verdict::parked(error.to_string());
            return Ok(Close::Ended(Ending::of_nothing(run, verdict)));
        }
    };
    let input = match fresh {
        Some(fresh) => fresh.event.exact(),
        None => input(context, &run)?.into(),
    };
    let recorded = match fresh.map_or_else(|| journal(context, &run), |_| Ok(Vec::new())) {
        Ok(recorded) => recorded,
        Err(error @ (ReadError::Undecodable { .. } | ReadError::Newer { .. })) => {
            let text = format!("the run's journal cannot be read: {error}");
            let verdict = Verdict::parked(text);
            return Ok(Close::Ended(Ending::of_nothing(run, verdict)));
        }
        Err(error) => return Err(error),
    };
    let limit = timeout.unwrap_or(context.limits.timeout);
    let deadline = Instant::now() + limit;
    let world = Arc::new(World::new(Arc::clone(context), read, recorded, deadline));
    let effects = Arc::clone(&world);
    let executed = catch_unwind(AssertUnwindSafe(|| {
        set.execute(&run.handler, input, effects, deadline.into_std())
    }));
    CrashPoint::HandlerReturned.pass();
    let Ok(ended) = executed else {
        // A bug of ours. What the execution has not yet written is in doubt and is left out; the
        // run must not take its thread or its lane with it.
        let text = "internal error while executing the handler; the log has the details";
        let verdict = Verdict::parked(text.to_owned());
        return Ok(Close::Ended(Ending::of_nothing(run, verdict)));
    };
    Ok(match judge(&run, retry, &world, ended, limit) {
        Judged::Verdict(verdict) => Close::Ended(Ending {
            run,
            world: Some(world),
            verdict,
        }),
        Judged::Suspended(suspension) => Close::Suspended(run, world, suspension),
        Judged::Nothing(after) => Close::Nothing(after),
    })
}

/// The run's journal, as it is on disk.
fn journal(context: &Context, run: &Run) -> Result<Vec<JournalEntry>, ReadError> {
    let range = Range::within(&run.id);
    let chunks = context
        .store
        .scan(&STEPS, &range, ALL_STEPS, Order::Ascending)?;
    Ok(chunks
        .into_iter()
        .flat_map(|(_, entries)| entries)
        .collect())
}

/// The run's script set, and how its handler is tried and for how long it may take.
fn find_handler(
    context: &Context,
    run: &Run,
) -> Result<(Arc<ScriptSet>, Retry, Option<Duration>), SetError> {
    let set = context.generations.pinned(&run.set)?;
    let mut handlers = set.handlers().iter();
    let handler = handlers
        .find(|handler| handler.id == run.handler)
        .ok_or_else(|| SetError::Missing(run.set.clone()))?;
    let (retry, timeout) = (handler.retry, handler.timeout);
    Ok((set, retry, timeout))
}

fn input(context: &Context, run: &Run) -> Result<Value, ReadError> {
    match &run.input {
        Input::Tick(tick) => Ok(tick.clone()),
        Input::Event(key) => match context.store.get(&EVENTS, key)? {
            Some(record) => events::value(&context.store, &record),
            None => Ok(Value::Null),
        },
    }
}

enum Judged {
    Verdict(Verdict),
    /// It waits.
    Suspended(Box<Suspension>),
    /// There is nothing to record.
    Nothing(After),
}

fn judge(run: &Run, retry: Retry, world: &World, ended: Ended, limit: Duration) -> Judged {
    let verdict = match ended {
        Ended::Returned(_) => Verdict::returned(),
        Ended::Failed(error) if is_of_the_world(&error) => {
            world.forget_failed_step();
            Verdict::failed_by_the_world(run, retry, error.diagnostic.to_string())
        }
        Ended::Failed(error) => Verdict::parked(error.diagnostic.to_string()),
        Ended::Interrupted(Interrupt::Deadline) => {
            let text = format!(
                "the handler took longer than its limit of {limit:?}; raise `timeout` in its options, or look for a loop that does not end"
            );
            // A loop that asks for nothing will not end the next time either.
            if world.has_advanced() {
                Verdict::failed_by_the_world(run, retry, text)
            } else {
                Verdict::parked(text)
            }
        }
        Ended::Interrupted(Interrupt::Diverged {
            recorded,
            requested,
        }) => Verdict::parked(format!(
            "the run asks for something else than it did before\n  recorded: {recorded}\n  asked for now: {requested}"
        )),
        Ended::Interrupted(Interrupt::Suspended) => match world.take_suspension() {
            Some(suspension) => return Judged::Suspended(Box::new(suspension)),
            None => return Judged::Nothing(After::Left),
        },
        Ended::Interrupted(Interrupt::OnceLost(reason)) => Verdict::parked(reason),
        Ended::Interrupted(Interrupt::Cancelled) => Verdict::cancelled(),
        Ended::Interrupted(Interrupt::Contended) => return Judged::Nothing(After::AtOnce),
        Ended::Interrupted(Interrupt::Shutdown | Interrupt::Poisoned) => {
            return Judged::Nothing(After::Left);
        }
    };
    Judged::Verdict(verdict)
}

fn is_of_the_world(error: &ScriptError) -> bool {
    error
        .failure
        .as_ref()
        .is_some_and(|failure| failure.code.is_of_the_world())
}

/// Records that the run waits, together with everything it has not yet written.
async fn suspend(
    context: &Context,
    mut run: Box<Run>,
    world: Arc<World>,
    suspension: Suspension,
) -> After {
    if context.dispatcher.is_cancelling(run.id) {
        let ending = Ending {
            run,
            world: Some(world),
            verdict: Verdict::cancelled(),
        };
        return conclude(context, ending).await;
    }
    let running = run.state.next(RunEvent::Started);
    let Ok(state) = running.and_then(|running| running.next(RunEvent::Suspended)) else {
        return After::Closed;
    };
    let Suspension {
        wait,
        watched,
        plan,
    } = suspension;
    let expected = context.waits.expect(&wait.on).await;
    let mut changes = Changes::new();
    if let (WaitFor::Payments { watched: id, .. }, Some(payment)) = (&wait.on, &watched) {
        changes.require_unchanged(&PAYMENTS, id, payment);
    }
    if let (WaitFor::Plan { plan: id }, Some(plan)) = (&wait.on, &plan) {
        changes.require_unchanged(&PLANS, id, plan);
    }
    let happening = context.waits.happening().await;
    let started = world.write(&happening, &mut changes);
    run.state = state;
    run.error = None;
    run.due_at = None;
    run.wait = Some(wait);
    unwritten::put(context, &run, run.keeps_lane_while_waiting(), &mut changes);
    waits::add_rows(&run, &mut changes);
    let committed = context.store.commit(changes).await;
    drop(happening);
    drop(expected);
    match committed {
        Ok(()) => {}
        // The payment has moved, or state was changed by another run: look again.
        Err(CommitError::Refused) => return After::AtOnce,
        Err(error @ CommitError::Unstorable { .. }) => {
            run.state = RunState::Queued;
            let ending = Ending::of_nothing(run, Verdict::parked(error.to_string()));
            return conclude(context, ending).await;
        }
        Err(CommitError::Poisoned) => return After::Left,
    }
    CrashPoint::RunSuspended.pass();
    world.say();
    context.telemetry.run_ended(&run);
    context.dispatcher.enqueue(started);
    look_once_more(context, &run, &world).await;
    After::Waiting
}

/// An event may have been committed while the wait was: whoever is second sees the other.
async fn look_once_more(context: &Context, run: &Run, world: &World) {
    let Some(wait) = &run.wait else { return };
    let woken = match world.has_happened(wait) {
        Ok(true) => waits::wake_one(context, run).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = woken {
        context.telemetry.waits_not_ended(&error.to_string());
    }
}
