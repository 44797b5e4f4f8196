//! The switch that stops money: all of it, or that of one script.
//!
//! A pause is a record in the store, so it outlives every restart. It stops payments between the
//! decision and the mark that they are being sent, and nothing else: callbacks, reads and look-ups
//! go on, and so do requests that were under way. Asked by the money path before each mark; ordered
//! by people through the [`Handle`].
//!
//! # Design
//! Whoever marks a payment holds the gate from the look at the pauses until the mark is on disk,
//! and whoever orders a pause waits until nobody does. So when the order is answered, every mark
//! that was not stopped is on disk, and there will be no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, Semaphore};
use tokio::task::JoinSet;

use super::Context;
use super::handle::Handle;
use crate::domain::clock::shown;
use crate::domain::id::ForeignId;
use crate::domain::pause::{Pause, stops};
use crate::domain::payment::{Payment, State};
use crate::store::schema::{OPEN_PAYMENTS, PAUSES, PAYMENTS};
use crate::store::{Changes, CommitError, Order, Range, ReadError, Store};
use crate::telemetry::Telemetry;

/// The key of the pause of all money.
const ALL: &str = "";

/// The pauses in force.
#[derive(Debug)]
pub(super) struct Pauses {
    in_force: ArcSwap<BTreeMap<String, Pause>>,
    /// Read by whoever marks a payment, written by whoever changes the pauses.
    gate: RwLock<()>,
    telemetry: Telemetry,
}

impl Pauses {
    /// The pauses that are in the store.
    pub(super) fn new(store: &Store, telemetry: Telemetry) -> Result<Self, ReadError> {
        let rows = store.scan(&PAUSES, &Range::all(), usize::MAX, Order::Ascending)?;
        let pauses = Self {
            in_force: ArcSwap::default(),
            gate: RwLock::default(),
            telemetry,
        };
        pauses.put_in_force(rows.into_iter().collect());
        Ok(pauses)
    }

    fn put_in_force(&self, pauses: BTreeMap<String, Pause>) {
        self.telemetry.pauses_in_force(pauses.len());
        self.in_force.store(Arc::new(pauses));
    }

    /// Whether the payment must not be sent now.
    pub(super) fn stops(&self, payment: &Payment) -> bool {
        let in_force = self.in_force.load();
        in_force.keys().any(|scope| stops(scope, payment))
    }

    /// The leave to mark the payment as being sent, to be kept until the mark is on disk; `None`
    /// when it is stopped.
    pub(super) async fn may_mark(&self, payment: &Payment) -> Option<RwLockReadGuard<'_, ()>> {
        let leave = self.gate.read().await;
        (!self.stops(payment)).then_some(leave)
    }
}

/// What became of an order to stop money or to let it go on.
#[derive(Debug)]
pub struct Paused {
    /// Whether anything is different now.
    pub changed: bool,
    /// What there is to say, for people.
    pub note: String,
}

impl Handle {
    /// Stops all money, or that of one script. When this returns, that is on disk, and no payment
    /// of it is marked as being sent any more. What is stopped already stays as it is. The future
    /// must not be dropped early.
    ///
    /// # Errors
    /// When the store cannot write; nothing has changed.
    pub async fn pause(
        &self,
        script: Option<&str>,
        by: &str,
        reason: Option<String>,
    ) -> Result<Paused, CommitError> {
        let context = &self.context;
        let scope = script.unwrap_or(ALL).to_owned();
        let pauses = &context.pauses;
        let _nobody_marks = pauses.gate.write().await;
        let mut in_force = BTreeMap::clone(&pauses.in_force.load());
        if let Some(pause) = in_force.get(&scope) {
            let note = format!("nothing has changed: {}", sentence(&scope, pause));
            return Ok(Paused {
                changed: false,
                note,
            });
        }
        let pause = Pause {
            by: by.to_owned(),
            at: context.clock.now(),
            reason,
        };
        let mut changes = Changes::new();
        changes.put(&PAUSES, &scope, &pause);
        context.store.commit(changes).await?;
        context
            .telemetry
            .money_paused(script, by, pause.reason.as_deref());
        let mut note = sentence(&scope, &pause);
        if !scope.is_empty() && !self.has_script(&scope) {
            note.push_str("; no script of that name is in use now");
        }
        in_force.insert(scope, pause);
        pauses.put_in_force(in_force);
        Ok(Paused {
            changed: true,
            note,
        })
    }

    /// Lets money go on. On disk when this returns; what was stopped is being sent then, each
    /// payment on the money path. The future must not be dropped early.
    ///
    /// # Errors
    /// When the store cannot write; nothing has changed.
    pub async fn resume(&self, script: Option<&str>, by: &str) -> Result<Paused, CommitError> {
        let context = &self.context;
        let scope = script.unwrap_or(ALL).to_owned();
        let pauses = &context.pauses;
        let nobody_marks = pauses.gate.write().await;
        let mut in_force = BTreeMap::clone(&pauses.in_force.load());
        let lifted = in_force.remove(&scope);
        let rest: Vec<String> = in_force
            .iter()
            .map(|(scope, pause)| sentence(scope, pause))
            .collect();
        let goes_on = match script {
            Some(script) => format!("the money of `{script}`"),
            None => "money".to_owned(),
        };
        let mut note = match &lifted {
            Some(_) => format!("{goes_on} goes on"),
            None => format!("nothing has changed: {goes_on} was not paused"),
        };
        if !rest.is_empty() {
            note = format!("{note}; still in force: {}", rest.join("; "));
        }
        let has_lifted = lifted.is_some();
        if has_lifted {
            let mut changes = Changes::new();
            changes.remove(&PAUSES, &scope);
            context.store.commit(changes).await?;
            context.telemetry.money_resumed(script, by);
            pauses.put_in_force(in_force);
        }
        drop(nobody_marks);
        if has_lifted {
            context.tokio.spawn(send_intended(Arc::clone(context)));
        }
        Ok(Paused {
            changed: has_lifted,
            note,
        })
    }

    /// The pauses in force, that of all money first.
    #[must_use]
    pub fn pauses(&self) -> Vec<Value> {
        let in_force = self.context.pauses.in_force.load();
        in_force
            .iter()
            .map(|(scope, pause)| {
                json!({
                    "script": (!scope.is_empty()).then_some(scope),
                    "by": pause.by,
                    "at": shown(pause.at),
                    "reason": pause.reason,
                })
            })
            .collect()
    }

    /// What is paused: `everything`, or scripts by their names.
    #[must_use]
    pub fn paused_scopes(&self) -> Vec<String> {
        let in_force = self.context.pauses.in_force.load();
        let words = in_force.keys().map(|scope| match scope.as_str() {
            ALL => "everything".to_owned(),
            script => script.to_owned(),
        });
        words.collect()
    }

    /// Adds to what is shown of a payment that it is stopped, if it is.
    pub(super) fn with_pause(&self, mut row: Value, payment: &Payment) -> Value {
        let waits_for_sending = payment.state == State::Intended;
        if let Some(object) = row.as_object_mut()
            && waits_for_sending
            && self.context.pauses.stops(payment)
        {
            object.insert("paused".into(), json!(true));
        }
        row
    }

    fn has_script(&self, script: &str) -> bool {
        let set = self.context.generations.current();
        set.handlers()
            .iter()
            .any(|handler| handler.id.script == script)
    }
}

/// `money is paused since 2026-11-22 09:00:00 UTC by ana: the bank called`
fn sentence(scope: &str, pause: &Pause) -> String {
    let what = match scope {
        ALL => "all money is paused".to_owned(),
        script => format!("the money of `{script}` is paused"),
    };
    let since = pause.at.format("%Y-%m-%d %H:%M:%S");
    let why = pause.reason.as_deref();
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    format!("{what} since {since} UTC by {}{why}", pause.by)
}

/// Carries every payment on that is decided and not sent; those that are still stopped stay so.
async fn send_intended(context: Arc<Context>) {
    let store = &context.store;
    let open = store.keys(&OPEN_PAYMENTS, &Range::all(), usize::MAX, Order::Ascending);
    let open: Vec<ForeignId> = match open {
        Ok(open) => open,
        Err(error) => return context.telemetry.store_unreadable(&error),
    };
    let gate = Arc::new(Semaphore::new(
        context.max_in_flight.saturating_mul(2).max(1),
    ));
    let mut tasks = JoinSet::new();
    for id in open {
        match context.store.get(&PAYMENTS, &id) {
            Ok(Some(payment)) if payment.state == State::Intended => {}
            Ok(_) => continue,
            Err(error) => {
                context.telemetry.store_unreadable(&error);
                continue;
            }
        }
        let Ok(place) = Arc::clone(&gate).acquire_owned().await else {
            break;
        };
        let payments = context.payments.clone();
        tasks.spawn(async move {
            payments.carry_on(&id).await;
            drop(place);
        });
    }
    tasks.join_all().await;
}
