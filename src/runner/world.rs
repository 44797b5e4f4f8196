//! The world as one execution of a run sees it: every step is answered from the journal, or
//! performed and recorded.
//!
//! Called by scripts through [`Effects`], on the script's own thread, one step at a time. What a
//! step does is in `steps`; this file decides whether it is done, and when it is written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::time::Instant;

use super::Context;
use super::buffer::Buffer;
use super::once::OnceScope;
use super::suspension::Suspension;
use super::ticket::Started;
use super::waits::Happening;
use crate::crash_point::CrashPoint;
use crate::domain::idempotency::Position;
use crate::domain::run::{Asked, JournalEntry, Outcome, Replay, Run, Steps, replay};
use crate::scripting::effects::{Awaited, Code, Effects, Failure, Interrupt, Request, Site, Stop};
use crate::store::{Changes, CommitError, ReadError};

/// Values whose JSON is longer than this, in bytes, are kept beside the journal, by content.
const LONG: usize = 4096;

/// The most steps of one run. Its journal is read whole whenever it is tried again.
const MOST_STEPS: u64 = 100_000;

/// The most steps that wait to be written; with more of them, one commit would not hold them.
const MOST_UNWRITTEN: usize = 1_000;

/// One execution of a run.
pub(super) struct World {
    pub(super) context: Arc<Context>,
    pub(super) run: Arc<Run>,
    pub(super) deadline: Instant,
    /// The journal as it was when this execution began.
    recorded: Vec<JournalEntry>,
    progress: Mutex<Progress>,
}

/// How far this execution is.
#[derive(Default)]
pub(super) struct Progress {
    /// The number of the next step.
    step: u64,
    pub(super) buffer: Buffer,
    /// The `once` closures it is in, outermost first.
    pub(super) once: Vec<OnceScope>,
    /// The last step, when it failed and is not yet written.
    failed: Option<u64>,
    /// What the execution waits for, when it ends for that.
    pub(super) suspension: Option<Suspension>,
    /// The keys of the events that waits of this run have answered.
    pub(super) answered_events: BTreeSet<String>,
}

impl World {
    /// An execution of `run`, whose journal is `recorded`.
    pub(super) fn new(
        context: Arc<Context>,
        run: Arc<Run>,
        recorded: Vec<JournalEntry>,
        deadline: Instant,
    ) -> Self {
        Self {
            context,
            run,
            deadline,
            recorded,
            progress: Mutex::default(),
        }
    }

    /// Where in the run the step with that number stands, for keys derived from it.
    pub(super) fn position<'a>(
        &'a self,
        progress: &'a Progress,
        step: u64,
        row: usize,
    ) -> Position<'a> {
        match progress.once.last() {
            None => Position::Step {
                handler: &self.run.handler,
                firing: &self.run.firing,
                step,
                row,
            },
            Some(scope) => Position::Once {
                script: &self.run.handler.script,
                key: &scope.key,
                step: step.saturating_sub(scope.first_step),
                row,
            },
        }
    }

    /// Whether this execution has got further than any before it.
    pub(super) fn has_advanced(&self) -> bool {
        self.progress().step > self.recorded.len() as u64
    }

    /// Forgets the last step if it failed: it will be performed anew when the run is tried again.
    pub(super) fn forget_failed_step(&self) {
        let mut progress = self.progress();
        if let Some(step) = progress.failed.take() {
            progress.buffer.forget(step);
        }
    }

    /// Takes out the steps that are not yet written, if the run's own record holds them.
    pub(super) fn take_few_steps(&self) -> Option<Steps> {
        self.progress().buffer.take_few()
    }

    /// Adds what is not yet written to the commit that ends this execution. Answers the runs that
    /// emitted events start.
    pub(super) fn write(&self, happening: &Happening<'_>, changes: &mut Changes) -> Started {
        let progress = self.progress();
        progress.buffer.write(self.run.id, changes);
        self.context
            .firings
            .emitted(progress.buffer.emitted(), happening, changes)
    }

    /// Says what was logged since the last commit, once the commit that ended the execution is
    /// durable.
    pub(super) fn say(&self) {
        self.progress()
            .buffer
            .say(&self.run, &self.context.telemetry);
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the execution that has ended waits for.
    pub(super) fn take_suspension(&self) -> Option<Suspension> {
        self.progress().suspension.take()
    }

    /// Makes everything that has happened so far durable.
    pub(super) fn flush(&self, progress: &mut Progress) -> Result<(), Stop> {
        if progress.buffer.is_empty() {
            return Ok(());
        }
        let mut changes = Changes::new();
        progress.buffer.write(self.run.id, &mut changes);
        let happening = self.context.waits.happening_here();
        let started =
            self.context
                .firings
                .emitted(progress.buffer.emitted(), &happening, &mut changes);
        self.commit(changes)?;
        drop(happening);
        let written = std::mem::take(&mut progress.buffer);
        written.say(&self.run, &self.context.telemetry);
        progress.failed = None;
        self.context.dispatcher.enqueue(started);
        Ok(())
    }

    /// Commits, and says what a refusal means for this execution.
    pub(super) fn commit(&self, changes: Changes) -> Result<(), Stop> {
        let committed = self.context.store.commit(changes);
        self.context
            .tokio
            .block_on(committed)
            .map_err(|error| match error {
                CommitError::Refused => Stop::Interrupt(Interrupt::Contended),
                CommitError::Unstorable { .. } => {
                    Failure::new(Code::InvalidArgument, error.to_string()).into()
                }
                CommitError::Poisoned => Stop::Interrupt(Interrupt::Poisoned),
            })
    }

    /// The store cannot be read: nothing may go on, and it is said once, here.
    pub(super) fn unreadable(&self, error: &ReadError) -> Stop {
        self.context.telemetry.store_unreadable(error);
        Stop::Interrupt(Interrupt::Poisoned)
    }

    fn answer(&self, outcome: &Outcome) -> Result<Value, Stop> {
        let long = |hash: &str| {
            let read = self.context.read_json(hash);
            read.map_err(|error| self.unreadable(&error))
        };
        match outcome {
            Outcome::Value(value) => Ok(value.clone()),
            Outcome::Long(hash) => long(hash),
            Outcome::Failure(failure) => Err(failed(failure.clone())),
            Outcome::LongFailure(hash) => Err(failed(long(hash)?)),
        }
    }

    /// What the journal keeps of an answer.
    fn keep(&self, value: &Value) -> Result<Outcome, Stop> {
        Ok(match self.keep_long(value, LONG)? {
            None => Outcome::Value(value.clone()),
            Some(hash) => Outcome::Long(hash),
        })
    }

    fn keep_failure(&self, failure: &Failure) -> Result<Outcome, Stop> {
        let failure =
            serde_json::to_value(failure).map_err(|_| Stop::Interrupt(Interrupt::Poisoned))?;
        Ok(match self.keep_long(&failure, LONG)? {
            None => Outcome::Failure(failure),
            Some(hash) => Outcome::LongFailure(hash),
        })
    }

    /// Puts a value whose JSON is longer than that beside the index and answers its hash.
    pub(super) fn keep_long(&self, value: &Value, longest: usize) -> Result<Option<String>, Stop> {
        let json = value.to_string();
        if json.len() <= longest {
            return Ok(None);
        }
        let kept = self.context.store.put_blob(json.into_bytes());
        match self.context.tokio.block_on(kept) {
            Ok(hash) => Ok(Some(hash.to_string())),
            Err(_) => Err(Stop::Interrupt(Interrupt::Poisoned)),
        }
    }

    fn perform_new(
        &self,
        progress: &mut Progress,
        step: u64,
        request: Request,
        asked: Asked,
        site: &Site,
    ) -> Result<Value, Stop> {
        World::check_once(progress)?;
        let writes_outside = request.writes_outside();
        if writes_outside {
            // What the script has decided so far must be settled before the world changes.
            self.flush(progress)?;
        }
        let durable_at_once = writes_outside || request.is_outside();
        let ends_once = matches!(request, Request::OnceEnd { .. });
        let answer = self.step(progress, step, request, site);
        let outcome = match &answer {
            Ok(value) => self.keep(value)?,
            Err(Stop::Failure(failure)) => self.keep_failure(failure)?,
            Err(Stop::Interrupt(interrupt)) => return Err(Stop::Interrupt(interrupt.clone())),
        };
        progress.buffer.push(
            step,
            JournalEntry {
                request: asked,
                outcome,
                site: format!("{}:{}", site.file, site.line),
                at: self.context.clock.now(),
            },
        );
        match &answer {
            // A failure of the world is written with whatever comes next; if nothing does, the
            // step is performed anew when the run is tried again.
            Err(Stop::Failure(failure)) if failure.code.is_of_the_world() => {
                progress.failed = Some(step);
            }
            _ if durable_at_once
                || ends_once
                || progress.buffer.unwritten() >= MOST_UNWRITTEN
                || progress.buffer.is_heavy() =>
            {
                self.flush(progress)?;
                CrashPoint::StepRecorded.pass();
            }
            _ => progress.failed = None,
        }
        if ends_once {
            progress.once.pop();
        }
        answer
    }
}

impl Effects for World {
    fn perform(&self, request: Request, site: &Site) -> Result<Value, Stop> {
        if self.context.dispatcher.is_cancelling(self.run.id) {
            return Err(Stop::Interrupt(Interrupt::Cancelled));
        }
        if self.context.is_stopping() {
            return Err(Stop::Interrupt(Interrupt::Shutdown));
        }
        let mut progress = self.progress();
        let step = progress.step;
        if step >= MOST_STEPS {
            let text = format!(
                "the run has taken {MOST_STEPS} steps, the most one may take; spread the work over several events with `emit`"
            );
            return Err(Failure::new(Code::NotAllowed, text).into());
        }
        progress.step = step.saturating_add(1);
        let json = serde_json::to_string(&request)
            .map_err(|error| Failure::new(Code::InvalidArgument, error.to_string()))?;
        let asked = Asked::new(request.kind(), &json);
        let entry = usize::try_from(step)
            .ok()
            .and_then(|at| self.recorded.get(at));
        let waits_for_event = matches!(
            request,
            Request::Wait {
                on: Awaited::Event { .. },
                ..
            }
        );
        let answer = match replay(entry, &asked) {
            Replay::New => self.perform_new(&mut progress, step, request, asked, site),
            Replay::Recorded(outcome) => {
                let outcome = outcome.clone();
                self.reenter_once(&mut progress, step, &request, &outcome)?;
                self.answer(&outcome)
            }
            Replay::Diverged { recorded } => Err(Stop::Interrupt(Interrupt::Diverged {
                recorded: format!("{} {}", recorded.kind, recorded.summary),
                requested: format!("{} {}", asked.kind, asked.summary),
            })),
        };
        if waits_for_event && let Ok(event) = &answer {
            let key = event.get("key").and_then(Value::as_str).unwrap_or("");
            progress.answered_events.insert(key.to_owned());
        }
        answer
    }

    fn once_failed(&self) {
        self.leave_once();
    }
}

/// A recorded error, as the script gets it again.
fn failed(failure: Value) -> Stop {
    serde_json::from_value::<Failure>(failure)
        .map_or(Stop::Interrupt(Interrupt::Poisoned), Stop::Failure)
}
