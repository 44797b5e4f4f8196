//! The money path: the only code in the crate that makes money move.
//!
//! A payment goes through [`next_step`] and [`next`](crate::domain::payment::next) one step at a
//! time, and every change is on disk before the next step begins. The first byte of a request
//! leaves only after two things are durable: the intent, with the exact bytes that will be sent, and
//! the mark that it is being sent, in one commit where it has its turn (`begin`). So a restart knows of
//! every payment whether it certainly never left — then it may be sent — or may have left — then it is
//! looked up. A note that outlives the process, though not the system, tells which of the marked ones
//! had not begun (`attempt`). A payment leaves once more only when [`Patience`] ends in a resend, which
//! the operator must have allowed.
//!
//! Called by steps of runs ([`Payments::pay`]), by callbacks ([`Payments::record_report`]) and by the
//! sweep after a restart ([`Payments::resume`], [`Payments::look_up`]): all through the same loop.

mod approval;
mod attempt;
mod begin;
mod look_up;
mod record;
mod request;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockWriteGuard, RwLock, mpsc};

use super::dispatcher::Dispatcher;
use super::firings::Firings;
use super::key_locks::KeyLocks;
use super::policy::Guard;
use super::waits::Waits;
use crate::domain::approval::Approval;
use crate::domain::clock::Clock;
use crate::domain::id::ForeignId;
use crate::domain::payment::{
    Content, Difference, Event, NextStep, Origin, Patience, Payment, State, next_step,
};
use crate::gateway::Client;
use crate::store::schema::PAYMENTS;
use crate::store::{ReadError, Store, Versioned};
use crate::telemetry::Telemetry;

use attempt::{Attempt, lost_note};

pub(super) use approval::People;
pub(super) use look_up::{foreign_note, silent};
pub(super) use record::{can_be_looked_up, family, put, take_over};
pub(super) use request::{content, name_payment};

/// How often, and after how long, a request that certainly never left is sent again while the
/// script waits. After that the run is retried, and with it the payment.
const NOT_SENT_DELAYS: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// A payment to watch, and the state it was in.
pub(super) type Watched = (ForeignId, State);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct PaymentRequest {
    /// The key.
    pub foreign_id: ForeignId,
    /// The operation and the exact bytes.
    pub content: Content,
    /// Who asks.
    pub origin: Origin,
    /// How many payments are asked for together, from 1.
    pub batch: usize,
    /// The batch plan it was approved with, and by whom.
    pub plan: Option<String>,
    /// The approvals of the plan, of this very content.
    pub approvals: Vec<Approval>,
}

/// Why a payment could not be taken on or carried on.
#[derive(Debug, thiserror::Error)]
pub enum PayError {
    /// The key stands for another payment. Nothing was sent; the script must choose another key.
    #[error(
        "`{foreign_id}` is already the key of another payment: its `{}` is {}, not {}",
        difference.field, difference.recorded, difference.now
    )]
    Conflict {
        /// The key.
        foreign_id: ForeignId,
        /// The first field that differs.
        difference: Difference,
    },
    /// Our policy, or a person, refused it. Nothing was sent, and nothing will be under this key.
    #[error("{text}")]
    Refused {
        /// The rule or limit, or who refused it.
        by: String,
        /// What it said.
        text: String,
    },
    /// The gateway could not be reached; the payment certainly was not sent. Try again later.
    #[error("the gateway cannot be reached: {0}")]
    Unavailable(String),
    /// The gateway refuses this account's requests as such; the payment was not looked at. A
    /// person must check key, secret and the list of allowed addresses.
    #[error("the gateway refuses the account's requests: {0}")]
    Unauthorised(String),
    /// The record cannot be stored: the request is too large. Nothing was sent.
    #[error("{0}")]
    TooLarge(String),
    /// The store takes no more writes.
    #[error("the store is poisoned")]
    Poisoned,
    /// The store holds something unreadable. A person must look.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What the store holds is not what was decided. Nothing was sent; a person must look.
    #[error("payment `{0}` is damaged in the store: its content does not match its fingerprint")]
    Damaged(ForeignId),
}

/// The money path. Cheap to clone.
#[derive(Clone)]
pub struct Payments(Arc<Inner>);

impl std::fmt::Debug for Payments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Payments")
    }
}

struct Inner {
    store: Store,
    gateway: Client,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    /// One task at a time works on a payment.
    locks: KeyLocks<ForeignId>,
    /// Held by every attempt from before its mark until its outcome is on disk.
    attempts: Arc<RwLock<()>>,
    /// Tells the sweep which payments to watch.
    watch: mpsc::UnboundedSender<Watched>,
    /// Runs that wait for payments.
    waits: Arc<Waits>,
    /// Makes runs of what look-ups find, and of alerts.
    firings: Arc<Firings>,
    /// Executes these runs.
    dispatcher: Arc<Dispatcher>,
    /// What the operator has decided about payments of unknown fate.
    patience: Patience,
    people: People,
    policy: Arc<Guard>,
}

/// What the money path works with.
pub(super) struct PaymentsParts {
    pub(super) store: Store,
    pub(super) gateway: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) telemetry: Telemetry,
    /// Payments whose fate is open are announced here.
    pub(super) watch: mpsc::UnboundedSender<Watched>,
    /// Final ones are news to those who wait for them.
    pub(super) waits: Arc<Waits>,
    /// Those who decide about payments.
    pub(super) people: People,
    pub(super) firings: Arc<Firings>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) patience: Patience,
    pub(super) policy: Arc<Guard>,
}

/// No attempt begins while this is held.
#[derive(Debug)]
pub struct Quiet {
    _attempts: OwnedRwLockWriteGuard<()>,
}

impl Payments {
    /// The money path over a store and a gateway.
    pub(super) fn new(parts: PaymentsParts) -> Self {
        Self(Arc::new(Inner {
            store: parts.store,
            gateway: parts.gateway,
            clock: parts.clock,
            telemetry: parts.telemetry,
            locks: KeyLocks::default(),
            attempts: Arc::default(),
            watch: parts.watch,
            waits: parts.waits,
            firings: parts.firings,
            dispatcher: parts.dispatcher,
            patience: parts.patience,
            people: parts.people,
            policy: parts.policy,
        }))
    }

    /// The payment of that key.
    ///
    /// # Errors
    /// When the store holds something unreadable.
    pub fn find(&self, foreign_id: &ForeignId) -> Result<Option<Payment>, ReadError> {
        self.0.store.get(&PAYMENTS, foreign_id)
    }

    /// Makes sure that the payment exists and brings it as far as it goes without waiting for a
    /// callback. The same key with the same content answers the recorded payment without another
    /// request.
    ///
    /// Dropping the future never tears an attempt, but leaves what comes after it to the sweep and
    /// the next start.
    ///
    /// # Errors
    /// See [`PayError`]. After [`PayError::Unavailable`] the payment is `intended`; asking again
    /// goes on with it, and so does the sweep.
    pub async fn pay(&self, request: PaymentRequest) -> Result<Payment, PayError> {
        let _one_at_a_time = self.0.locks.lock(&request.foreign_id).await;
        if let Some(payment) = self.find(&request.foreign_id)? {
            return self.pay_again(payment, &request).await;
        }
        let (came_to, begun) = self.under_way(|payments| payments.begin(request)).await?;
        match refusal(&begun.value) {
            Some(refused) => Err(refused),
            None => self.go_on(came_to, begun).await,
        }
    }

    /// The key is known: the same payment goes on from where it stands, another one is refused.
    async fn pay_again(
        &self,
        payment: Payment,
        request: &PaymentRequest,
    ) -> Result<Payment, PayError> {
        if let Some(difference) = payment.content.difference(&request.content) {
            return Err(PayError::Conflict {
                foreign_id: payment.foreign_id,
                difference,
            });
        }
        match payment.state {
            State::Intended => self.resume_locked(payment).await,
            State::Refused => match refusal(&payment) {
                Some(refused) => Err(refused),
                None => Ok(payment),
            },
            State::Planned
            | State::AwaitingApproval
            | State::Sending
            | State::Accepted
            | State::Pending
            | State::Confirmed
            | State::Declined
            | State::Cancelled
            | State::Rejected
            | State::Unknown
            | State::Held => Ok(payment),
        }
    }

    /// Carries an open payment on after a restart: looks it up first, and sends it only when it
    /// certainly never left.
    ///
    /// # Errors
    /// See [`PayError`].
    pub async fn resume(&self, foreign_id: &ForeignId) -> Result<Option<Payment>, PayError> {
        let _one_at_a_time = self.0.locks.lock(foreign_id).await;
        match self.find(foreign_id)? {
            None => Ok(None),
            Some(payment) => self.resume_locked(payment).await.map(Some),
        }
    }

    async fn resume_locked(&self, payment: Payment) -> Result<Payment, PayError> {
        let payment = self.undo_mark(payment).await?;
        let stopped = payment.state == State::Intended && self.0.people.pauses.stops(&payment);
        if payment.state == State::AwaitingApproval || stopped {
            return Ok(payment);
        }
        let payment = if can_be_looked_up(payment.content.operation) {
            self.look_up_locked(payment).await?
        } else if payment.state == State::Sending {
            let lost = "the daemon stopped while it was being sent";
            let note = Some(lost_note(payment.content.operation, lost));
            self.record(&payment.foreign_id, Event::AnswerLost, note, |_| {})
                .await?
        } else {
            payment
        };
        if payment.state == State::Intended {
            self.drive(self.stored(&payment.foreign_id)?).await
        } else {
            Ok(payment)
        }
    }

    /// Performs steps until somebody else has to do something.
    async fn drive(&self, payment: Versioned<Payment>) -> Result<Payment, PayError> {
        self.go_on(Attempt::MovedOn, payment).await
    }

    /// The same after a try to send that came to this.
    async fn go_on(
        &self,
        mut came_to: Attempt,
        mut payment: Versioned<Payment>,
    ) -> Result<Payment, PayError> {
        let mut delays = NOT_SENT_DELAYS.into_iter();
        loop {
            match (came_to, delays.next()) {
                (Attempt::MovedOn, _) => {}
                // It goes on when people let it.
                (Attempt::Paused, _) => return Ok(payment.value),
                (Attempt::NotSent(_), Some(delay)) => tokio::time::sleep(delay).await,
                // Whether or not its run asks again, an intent is carried out.
                (Attempt::NotSent(reason), None) => {
                    self.watch(&payment.value);
                    return Err(PayError::Unavailable(reason));
                }
                (Attempt::Unauthorised(reason), _) => {
                    self.watch(&payment.value);
                    return Err(PayError::Unauthorised(reason));
                }
            }
            match next_step(payment.value.state) {
                NextStep::Send => {
                    (came_to, payment) = self.under_way(|payments| payments.send(payment)).await?;
                }
                NextStep::LookUp => {
                    let payment = payment.value;
                    self.watch(&payment);
                    if !can_be_looked_up(payment.content.operation) {
                        return Ok(payment);
                    }
                    // Seldom, and large: not a part of what every payment carries around.
                    let look_up = Box::pin(self.look_up_locked(payment.clone()));
                    return match look_up.await {
                        // Nothing is known yet; the sweep goes on asking.
                        Err(PayError::Unavailable(_) | PayError::Unauthorised(_)) => Ok(payment),
                        looked_up => looked_up,
                    };
                }
                NextStep::WaitForCallback | NextStep::WaitForPerson => {
                    self.watch(&payment.value);
                    return Ok(payment.value);
                }
                NextStep::Decide | NextStep::WaitForApproval | NextStep::Done => {
                    return Ok(payment.value);
                }
            }
        }
    }

    /// Sends once, in a task of its own: whoever waits for it may go away, the attempt runs to its
    /// end.
    async fn under_way<F>(
        &self,
        attempt: impl FnOnce(Self) -> F,
    ) -> Result<(Attempt, Versioned<Payment>), PayError>
    where
        F: Future<Output = Result<(Attempt, Versioned<Payment>), PayError>> + Send + 'static,
    {
        let under_way = Arc::clone(&self.0.attempts).read_owned();
        // It is large, and handed on several times until it runs.
        let attempt = Box::pin(attempt(self.clone()));
        let attempt = tokio::spawn(async move {
            let _under_way = under_way.await;
            attempt.await
        });
        // It fails only with the runtime, or by a bug; in both cases the store knows what may have
        // left, and nothing more may be sent.
        attempt.await.unwrap_or(Err(PayError::Poisoned))
    }

    /// Lets attempts under way end and begins no other. Waits at most for `patience`; `None` when
    /// some were still under way then.
    pub async fn quiet(&self, patience: Duration) -> Option<Quiet> {
        let attempts = Arc::clone(&self.0.attempts).write_owned();
        let held = tokio::time::timeout(patience, attempts).await.ok()?;
        Some(Quiet { _attempts: held })
    }

    fn watch(&self, payment: &Payment) {
        // Nobody listens any more while the daemon stops; the next start finds it in the store.
        drop(
            self.0
                .watch
                .send((payment.foreign_id.clone(), payment.state)),
        );
    }
}

/// Why a refused payment cannot be made; `None` for any other.
fn refusal(payment: &Payment) -> Option<PayError> {
    (payment.state == State::Refused).then(|| PayError::Refused {
        by: payment
            .decision
            .as_ref()
            .map_or_else(String::new, |decision| decision.by.clone()),
        text: payment
            .error
            .clone()
            .unwrap_or_else(|| "the payment was refused".into()),
    })
}
