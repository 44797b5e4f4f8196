//! What the rest of the daemon may do with the runner.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::dispatcher::Dispatcher;
use super::editors::Editors;
use super::ending::Endings;
use super::execution::Execution;
use super::executor;
use super::firings::{Firings, add_run};
use super::generations::{Generations, SetError};
use super::intake::{self, Answer};
use super::key_locks::KeyLocks;
use super::pace::Pace;
use super::pause::Pauses;
use super::payments::{Payments, PaymentsParts, People, Quiet, Watched};
use super::policy::{self, Guard};
use super::reachability::Reachability;
use super::slots::{Slots, schedules, tick};
use super::ticket::{Started, Ticket};
use super::unwritten::{self, Unwritten};
use super::waits::{self, Waits};
use super::{
    Context, Parts, StartError, approvals, balances, delayed, heartbeat, reachability, sweep,
};
use crate::domain::clock::Timestamp;
use crate::domain::diagnostic::Diagnostic;
use crate::domain::id::{Firing, HandlerId, RunId, SetHash};
use crate::domain::run::{Input, Run, RunState};
use crate::domain::schedule::Start;
use crate::scripting::Sources;
use crate::store::schema::{OPEN_RUNS, RUNS};
use crate::store::{BackupError, Changes, CommitError, Copied, Order, Range, ReadError};

/// The runner, as everybody else sees it. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) context: Arc<Context>,
    watched: Arc<Mutex<Option<mpsc::UnboundedReceiver<Watched>>>>,
    /// What goes on by itself: the sweep, and the task that wakes waiting runs.
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
    last_reload: Arc<Mutex<Vec<Diagnostic>>>,
    /// Held from the stop on.
    quiet: Arc<Mutex<Option<Quiet>>>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("runner::Handle")
    }
}

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// The scripts are the ones in use already.
    Unchanged,
    /// The new set is in use.
    Swapped(SetHash),
    /// The old set goes on; these are the mistakes in the new one.
    Refused(Vec<Diagnostic>),
}

/// Why a schedule was not fired by hand.
#[derive(Debug, thiserror::Error)]
pub enum NotFired {
    /// There is no such schedule in the current set.
    #[error("there is no schedule `{name}` in the script `{script}`; {known}")]
    Unknown {
        /// The script asked for.
        script: String,
        /// The name asked for.
        name: String,
        /// Which schedules there are.
        known: String,
    },
    /// The store cannot write.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The script sets, and what starts their handlers.
fn scripts(
    parts: &Parts,
    unwritten: &Arc<Unwritten>,
) -> Result<(Arc<Generations>, Arc<Firings>), StartError> {
    let generations = Generations::new(
        parts.store.clone(),
        parts.limits.clone(),
        parts.names.clone(),
        Arc::clone(&parts.clock),
    );
    let generations = Arc::new(generations.map_err(StartError::Limits)?);
    let clock = Arc::clone(&parts.clock);
    let unwritten = Arc::clone(unwritten);
    let firings = Firings::new(&parts.store, Arc::clone(&generations), unwritten, clock)?;
    Ok((generations, Arc::new(firings)))
}

impl Handle {
    /// Builds the runner, without starting anything. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn build(parts: Parts) -> Result<Self, StartError> {
        let (watch, watched) = mpsc::unbounded_channel();
        let waits = Arc::new(Waits::new(&parts.store)?);
        let unwritten = Arc::new(Unwritten::default());
        let (generations, firings) = scripts(&parts, &unwritten)?;
        let policy = Guard::new(parts.policy, parts.store.clone(), parts.clock.now())?;
        let policy = Arc::new(policy);
        let dispatcher = Dispatcher::new(
            &parts.limits,
            Arc::clone(&unwritten),
            parts.telemetry.clone(),
        );
        let dispatcher = Arc::new(dispatcher);
        let pauses = Arc::new(Pauses::new(&parts.store, parts.telemetry.clone())?);
        let people = People {
            pauses: Arc::clone(&pauses),
            editors: Editors::new(parts.store.clone(), Arc::clone(&generations)),
        };
        let payments = Payments::new(PaymentsParts {
            store: parts.store.clone(),
            gateway: parts.gateway.clone(),
            clock: Arc::clone(&parts.clock),
            telemetry: parts.telemetry.clone(),
            watch,
            waits: Arc::clone(&waits),
            people,
            firings: Arc::clone(&firings),
            dispatcher: Arc::clone(&dispatcher),
            patience: parts.patience,
            policy: Arc::clone(&policy),
        });
        let context = Context {
            tokio: tokio::runtime::Handle::current(),
            store: parts.store,
            gateway: parts.gateway,
            verifier: parts.verifier,
            payments,
            pauses,
            policy,
            http: parts.http,
            files: parts.files,
            clock: parts.clock,
            slots: Slots::new(parts.telemetry.clone()),
            waits,
            catch_up: Pace::new(parts.limits.catch_up_per_second),
            telemetry: parts.telemetry,
            limits: parts.limits,
            max_in_flight: parts.max_in_flight,
            sweep_every: parts.sweep_every,
            balance_check_every: parts.balance_check_every,
            reachability: Reachability::default(),
            reported: AtomicBool::new(false),
            history: parts.history,
            generations,
            firings,
            dispatcher,
            endings: Endings::default(),
            unwritten,
            once_locks: KeyLocks::default(),
            address_locks: KeyLocks::default(),
            transaction_locks: KeyLocks::default(),
            stopping: AtomicBool::new(false),
        };
        Ok(Self {
            context: Arc::new(context),
            watched: Arc::new(Mutex::new(Some(watched))),
            tasks: Arc::default(),
            last_reload: Arc::default(),
            quiet: Arc::default(),
        })
    }

    /// Goes on with everything that is open in the store: runs and payments.
    ///
    /// # Errors
    /// When the store cannot be read, or cannot write; nothing was started.
    pub async fn start(&self) -> Result<(), StartError> {
        let context = &self.context;
        unwritten::write_all(context).await?;
        let now = context.clock.now();
        let mut open = Started::default();
        let runs = context
            .store
            .scan(&OPEN_RUNS, &Range::all(), usize::MAX, Order::Ascending)?;
        for (id, _) in runs {
            let run = match context.store.get(&RUNS, &id) {
                // It stays as it is, for a person to look at, and keeps no other from going on.
                Err(error @ (ReadError::Undecodable { .. } | ReadError::Newer { .. })) => {
                    context.telemetry.store_unreadable(&error);
                    None
                }
                read => read?,
            };
            if let Some(run) = run {
                let is_due =
                    run.state != RunState::Waiting && run.due_at.is_none_or(|at| at <= now);
                let ticket = Ticket::of(&run);
                open.0.push(if is_due {
                    ticket.due_at(context.catch_up.place(now))
                } else {
                    ticket
                });
            }
        }
        if !open.0.is_empty() {
            context.telemetry.runs_resumed(open.0.len());
        }
        context.dispatcher.enqueue(open);
        unwritten::note(context).await;
        // The context holds the dispatcher, so the dispatcher must not hold the context.
        let executing = Arc::downgrade(context);
        context
            .dispatcher
            .start(Arc::new(move |dispatcher, ticket| {
                let execution = Execution::new(dispatcher, ticket);
                if let Some(context) = executing.upgrade() {
                    executor::execute(&context, execution);
                }
            }));
        let watched = self
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(watched) = watched {
            let sweep = sweep::run(Arc::clone(context), watched);
            let waits = waits::run(Arc::clone(context));
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            let balances = balances::run(Arc::clone(context));
            let rates = policy::refresh(Arc::clone(context));
            tasks.extend([
                context.tokio.spawn(sweep),
                context.tokio.spawn(waits),
                context.tokio.spawn(balances),
                context.tokio.spawn(rates),
            ]);
        }
        Ok(())
    }

    /// Takes a callback in; see [`Answer`]. On disk when this returns an answer that is 200.
    pub async fn accept(&self, key: Option<&str>, signature: Option<&str>, body: &[u8]) -> Answer {
        intake::accept(&self.context, key, signature, body).await
    }

    /// Compiles the scripts and, if nothing is wrong with any of them, uses them for everything
    /// that fires from now on. On disk when this returns.
    ///
    /// # Errors
    /// When the store cannot write; the old set goes on.
    pub async fn reload(
        &self,
        sources: Result<Sources, Vec<Diagnostic>>,
    ) -> Result<Reload, CommitError> {
        let generations = &self.context.generations;
        let set = match sources {
            Ok(sources) if self.is_current(&sources) => {
                self.remember_reload(Vec::new());
                return Ok(Reload::Unchanged);
            }
            Ok(sources) => generations.compile(sources),
            Err(errors) => Err(errors),
        };
        match set {
            Ok(set) => {
                let set = generations.adopt(set).await?;
                self.remember_reload(Vec::new());
                self.context
                    .telemetry
                    .scripts_swapped(set.hash(), set.handlers().len());
                Ok(Reload::Swapped(set.hash().clone()))
            }
            Err(errors) => {
                if self.remember_reload(errors.clone()) {
                    self.context.telemetry.reload_refused(&errors);
                }
                Ok(Reload::Refused(errors))
            }
        }
    }

    /// Whether these are the scripts in use.
    #[must_use]
    pub fn is_current(&self, sources: &Sources) -> bool {
        sources.hash() == *self.context.generations.current().hash()
    }

    /// Uses the scripts that were in use when the daemon last ran, because those in the folder
    /// have mistakes. Answers whether there are any.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn go_on_with_last_scripts(&self) -> Result<bool, ReadError> {
        match self.context.generations.restore() {
            Ok(Some(set)) => {
                self.context.telemetry.last_scripts_used(&set);
                Ok(true)
            }
            Ok(None) | Err(SetError::Missing(_) | SetError::Broken { .. }) => Ok(false),
            Err(SetError::Read(error)) => Err(error),
        }
    }

    /// The mistakes in the scripts as they are in the folder now; empty when those are in use.
    #[must_use]
    pub fn reload_errors(&self) -> Vec<Diagnostic> {
        self.last_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Answers whether this is news.
    fn remember_reload(&self, errors: Vec<Diagnostic>) -> bool {
        let mut last = self
            .last_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let news = *last != errors;
        *last = errors;
        news
    }

    /// Fires what is due: slots, delayed events, retries, deadlines of waits. Called once a second.
    pub async fn wake(&self) {
        let context = &self.context;
        context.dispatcher.release_due(context.clock.now());
        context.waits.look();
        if let Err(error) = context.slots.wake(context).await {
            context.telemetry.slots_not_settled(&error.to_string());
        }
        if let Err(error) = delayed::release(context).await {
            context.telemetry.events_not_released(&error.to_string());
        }
        if let Err(error) = approvals::expire(context).await {
            context.telemetry.approvals_not_expired(&error);
        }
        unwritten::note_sometimes(context).await;
        heartbeat::beat(context).await;
        reachability::look(context).await;
    }

    /// Fires a schedule by hand, for `slot` or for now. On disk when this returns.
    ///
    /// # Errors
    /// See [`NotFired`].
    pub async fn trigger(
        &self,
        script: &str,
        name: &str,
        slot: Option<Timestamp>,
    ) -> Result<RunId, NotFired> {
        let context = &self.context;
        let set = context.generations.current();
        let wanted = HandlerId {
            script: script.to_owned(),
            name: name.to_owned(),
        };
        let Some((handler, trigger)) = schedules(&set).find(|(id, _)| **id == wanted) else {
            let known: Vec<_> = schedules(&set)
                .map(|(id, _)| format!("`{} {}`", id.script, id.name))
                .collect();
            return Err(NotFired::Unknown {
                script: wanted.script,
                name: wanted.name,
                known: match known.as_slice() {
                    [] => "no script has a schedule".to_owned(),
                    known => format!("there are {}", known.join(", ")),
                },
            });
        };
        let now = context.clock.now();
        let order = context.firings.next_order();
        let slot = slot.unwrap_or(now);
        let start = Start {
            late: false,
            missed_before: 0,
        };
        let run = Run::queued(
            handler.clone(),
            Firing::Manual {
                slot,
                number: order,
            },
            Input::Tick(tick(trigger, handler, slot, now, start)),
            set.hash().clone(),
            order,
            now,
        );
        let mut changes = Changes::new();
        add_run(&run, &mut changes);
        context.store.commit(changes).await?;
        context.telemetry.fired_by_hand(handler);
        context.dispatcher.enqueue(Started(vec![Ticket::of(&run)]));
        Ok(run.id)
    }

    /// Copies the store to an empty folder while everything goes on. On disk when this returns.
    ///
    /// # Errors
    /// See [`BackupError`]; the store itself is untouched by it.
    pub async fn backup(&self, dir: &Path) -> Result<Copied, BackupError> {
        self.context.store.backup(dir).await
    }

    /// Starts no further run or look-up and waits for those being executed; after `patience` they
    /// end at their next step. Answers whether all ended by themselves. Open runs and payments go
    /// on after the next start.
    pub async fn stop(&self, patience: Duration) -> bool {
        // The next start has less to look through.
        unwritten::note(&self.context).await;
        // A task that is aborted may have committed a run that nobody knows of any more.
        self.context.unwritten.close();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // Its look-ups are asked again, and what is news is news, after the next start.
            task.abort();
            drop(task.await);
        }
        let context = Arc::clone(&self.context);
        let drained = tokio::task::spawn_blocking(move || {
            if context.dispatcher.drain(patience) {
                return true;
            }
            context.stopping.store(true, Ordering::SeqCst);
            context.dispatcher.drain(patience);
            false
        });
        let drained = drained.await.unwrap_or(false);
        // From here on no payment is sent any more, and what was under way is on disk.
        let quiet = self.context.payments.quiet(patience).await;
        let attempts_ended = quiet.is_some();
        *self.quiet.lock().unwrap_or_else(PoisonError::into_inner) = quiet;
        drained && attempts_ended
    }

    /// Whether the store has stopped taking writes.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.context.store.is_poisoned()
    }

    /// Resolves when the store stops taking writes: the daemon must then end.
    pub async fn poisoned(&self) {
        self.context.store.poisoned().await;
    }

    /// Whether every payment that was open at the start has been asked about, and what was missed
    /// in an outage before it has been reported.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.context.reported.load(Ordering::SeqCst)
    }

    /// What time it is for the daemon.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.context.clock.now()
    }
}
