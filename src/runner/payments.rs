//! The money path: the only code in the crate that makes money move.
//!
//! A payment goes through [`next_step`] and [`next`](crate::domain::payment::next) one step at a
//! time, and every change is on disk before the next step begins. The first byte of a request
//! leaves only after two durable records: the intent, with the exact bytes that will be sent, and
//! the mark that it is being sent. So a restart knows of every payment whether it certainly never
//! left — then it may be sent — or may have left — then it is looked up, and never sent again.
//!
//! Called by steps of runs ([`Payments::pay`]), by callbacks ([`Payments::reported`]) and by the
//! sweep after a restart ([`Payments::resume`], [`Payments::look_up`]): all through the same loop.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::key_locks::KeyLocks;
use crate::crash_point::CrashPoint;
use crate::domain::clock::Clock;
use crate::domain::id::ForeignId;
use crate::domain::operation::Operation;
use crate::domain::payment::{
    Content, Difference, Event, NextStep, Origin, Payment, Reported, State, next_step,
};
use crate::gateway::{Client, Disposition, Prepared, Rejection, prepare};
use crate::store::schema::{
    EVENTS, EVENTS_BY_TRANSACTION, Mark, OPEN_PAYMENTS, PAYMENTS, PAYMENTS_BY_ID, PAYMENTS_BY_TIME,
};
use crate::store::{Changes, CommitError, Order, Range, ReadError, Store};
use crate::telemetry::Telemetry;

/// How often, and after how long, a request that certainly never left is sent again while the
/// script waits. After that the run is retried, and with it the payment.
const NOT_SENT_DELAYS: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// The most events of one transaction that can have arrived before the answer to its request.
const EARLY_EVENTS: usize = 100;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct PaymentRequest {
    /// The key.
    pub foreign_id: ForeignId,
    /// The operation and the exact bytes.
    pub content: Content,
    /// Who asks.
    pub origin: Origin,
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
#[derive(Debug, Clone)]
pub struct Payments(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    gateway: Client,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    /// One task at a time works on a payment.
    locks: KeyLocks<ForeignId>,
    /// Tells the sweep which payments to watch.
    watch: mpsc::UnboundedSender<ForeignId>,
}

/// What a try to send came to.
enum Attempt {
    /// The state has moved on.
    MovedOn,
    /// It certainly never left.
    NotSent(String),
    /// It was turned away at the door.
    Unauthorised(String),
}

impl Payments {
    /// The money path over a store and a gateway. Payments whose fate is open are announced on
    /// `watch`.
    pub fn new(
        store: Store,
        gateway: Client,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        watch: mpsc::UnboundedSender<ForeignId>,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            gateway,
            clock,
            telemetry,
            locks: KeyLocks::default(),
            watch,
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
    /// Not cancel safe by itself: callers run it in a task of its own, so that a script's deadline
    /// never tears it.
    ///
    /// # Errors
    /// See [`PayError`]. After [`PayError::Unavailable`] the payment is `intended`, and asking
    /// again goes on with it.
    pub async fn pay(&self, request: PaymentRequest) -> Result<Payment, PayError> {
        let _one_at_a_time = self.0.locks.lock(&request.foreign_id).await;
        if let Some(payment) = self.find(&request.foreign_id)? {
            return self.pay_again(payment, &request).await;
        }
        let mut planned = Payment::planned(
            request.foreign_id.clone(),
            request.content,
            request.origin,
            self.0.clock.now(),
        );
        // The decision, and with it the intent, is one durable commit. Policy has its place here.
        let decided = planned.apply(Event::Allowed, None, self.0.clock.now());
        debug_assert!(decided.is_ok(), "a planned payment can be allowed");
        let mut changes = Changes::new();
        changes.require_absent(&PAYMENTS, &planned.foreign_id);
        changes.put(
            &PAYMENTS_BY_TIME,
            &(planned.created_at, planned.foreign_id.clone()),
            &Mark,
        );
        changes.put(&PAYMENTS, &planned.foreign_id, &planned);
        changes.put(&OPEN_PAYMENTS, &planned.foreign_id, &Mark);
        // The lock makes a refusal impossible within one process, and there is only one.
        self.0
            .store
            .commit(changes)
            .await
            .map_err(|error| store_stop(&error))?;
        self.0.telemetry.payment_moved(&planned);
        CrashPoint::IntentRecorded.pass();
        self.drive(planned).await
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
            State::Planned
            | State::Sending
            | State::Accepted
            | State::Pending
            | State::Confirmed
            | State::Declined
            | State::Cancelled
            | State::Rejected
            | State::Refused
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
        let payment = if can_be_looked_up(payment.content.operation) {
            self.look_up_locked(payment).await?
        } else if payment.state == State::Sending {
            let lost = "the daemon stopped while it was being sent".to_owned();
            self.record(&payment.foreign_id, Event::AnswerLost, Some(lost), |_| {})
                .await?
        } else {
            payment
        };
        if payment.state == State::Intended {
            self.drive(payment).await
        } else {
            Ok(payment)
        }
    }

    /// Asks the gateway about one payment and records what it says.
    ///
    /// # Errors
    /// [`PayError::Unavailable`] when the gateway gave no usable answer: ask again later.
    pub async fn look_up(&self, foreign_id: &ForeignId) -> Result<Option<Payment>, PayError> {
        let _one_at_a_time = self.0.locks.lock(foreign_id).await;
        match self.find(foreign_id)? {
            None => Ok(None),
            Some(payment) if !can_be_looked_up(payment.content.operation) => Ok(Some(payment)),
            Some(payment) => self.look_up_locked(payment).await.map(Some),
        }
    }

    /// Performs steps until somebody else has to do something.
    async fn drive(&self, mut payment: Payment) -> Result<Payment, PayError> {
        let mut delays = NOT_SENT_DELAYS.into_iter();
        loop {
            match next_step(payment.state) {
                NextStep::Send => {
                    let (sent, after) = self.send(&payment).await?;
                    payment = after;
                    match (sent, delays.next()) {
                        (Attempt::MovedOn, _) => {}
                        (Attempt::NotSent(_), Some(delay)) => tokio::time::sleep(delay).await,
                        (Attempt::NotSent(reason), None) => {
                            return Err(PayError::Unavailable(reason));
                        }
                        (Attempt::Unauthorised(reason), _) => {
                            return Err(PayError::Unauthorised(reason));
                        }
                    }
                }
                NextStep::LookUp => {
                    self.watch(&payment);
                    if !can_be_looked_up(payment.content.operation) {
                        return Ok(payment);
                    }
                    return match self.look_up_locked(payment.clone()).await {
                        // Nothing is known yet; the sweep goes on asking.
                        Err(PayError::Unavailable(_) | PayError::Unauthorised(_)) => Ok(payment),
                        looked_up => looked_up,
                    };
                }
                NextStep::WaitForCallback => {
                    self.watch(&payment);
                    return Ok(payment);
                }
                NextStep::Decide | NextStep::WaitForPerson | NextStep::Done => return Ok(payment),
            }
        }
    }

    /// Records that it is being sent, sends it once, and records what came of it.
    async fn send(&self, payment: &Payment) -> Result<(Attempt, Payment), PayError> {
        let id = &payment.foreign_id;
        let prepared = intact(payment)?;
        self.record(id, Event::SendStarted, None, |_| {}).await?;
        CrashPoint::SendRecorded.pass();
        let disposition = self.0.gateway.send(&prepared).await;
        CrashPoint::AnswerReceived.pass();
        let outcome = match disposition {
            Disposition::NotSent { reason } => {
                let after = self
                    .record(id, Event::NotSent, Some(reason.clone()), |_| {})
                    .await?;
                (Attempt::NotSent(reason), after)
            }
            Disposition::Rejected(rejection) if is_at_the_door(&rejection) => {
                let reason = rejection.message.clone();
                let after = self
                    .record(id, Event::NotSent, Some(reason.clone()), |_| {})
                    .await?;
                (Attempt::Unauthorised(reason), after)
            }
            Disposition::Rejected(rejection) => {
                let event = if rejection.is_foreign_id_taken() {
                    Event::KeyTaken
                } else {
                    Event::Rejected
                };
                let after = self
                    .record(id, event, Some(rejection.message.clone()), |payment| {
                        payment.error = Some(rejection.message.clone());
                        payment.errors = rejection.errors.clone();
                    })
                    .await?;
                (Attempt::MovedOn, after)
            }
            Disposition::Accepted(data) => (Attempt::MovedOn, self.accepted(id, &data).await?),
            Disposition::Unknown { reason, .. } => {
                let after = self
                    .record(id, Event::AnswerLost, Some(reason), |_| {})
                    .await?;
                (Attempt::MovedOn, after)
            }
        };
        CrashPoint::AnswerRecorded.pass();
        Ok(outcome)
    }

    async fn accepted(&self, id: &ForeignId, data: &Value) -> Result<Payment, PayError> {
        let gateway_id = data.get("id").map(plain);
        let payment = self
            .record(id, Event::Accepted, None, |payment| {
                payment.gateway_id.clone_from(&gateway_id);
                payment.answer = Some(data.clone());
            })
            .await?;
        // A callback that carries no key of ours may have been faster than this answer.
        match gateway_id {
            Some(gateway_id) => self.catch_up(payment, &gateway_id).await,
            None => Ok(payment),
        }
    }

    /// Applies the events that arrived before the gateway's id of the payment was known.
    async fn catch_up(&self, payment: Payment, gateway_id: &str) -> Result<Payment, PayError> {
        let prefix = (
            family(payment.content.operation).to_owned(),
            gateway_id.to_owned(),
        );
        let mut payment = payment;
        let events = self.0.store.scan(
            &EVENTS_BY_TRANSACTION,
            &Range::within(&prefix),
            EARLY_EVENTS,
            Order::Ascending,
        )?;
        for (_, key) in events {
            let Some(event) = self.0.store.get(&EVENTS, &key)? else {
                continue;
            };
            if event.payment.is_none() {
                let report = super::events::value(&self.0.store, &event)?;
                payment = self
                    .record_report(&payment.foreign_id, &report, "callback")
                    .await?;
            }
        }
        Ok(payment)
    }

    async fn look_up_locked(&self, payment: Payment) -> Result<Payment, PayError> {
        let arguments = json!({ "foreign_id": payment.foreign_id });
        let prepared = prepare(Operation::TransactionInfo, &arguments)
            .map_err(|_| PayError::Damaged(payment.foreign_id.clone()))?;
        match self.0.gateway.send(&prepared).await {
            Disposition::Accepted(info) => {
                self.record_report(&payment.foreign_id, &info, "look-up")
                    .await
            }
            Disposition::Rejected(rejection) if rejection.is_not_found() => {
                self.record(&payment.foreign_id, Event::NotFound, None, |_| {})
                    .await
            }
            Disposition::Rejected(rejection) if is_at_the_door(&rejection) => {
                Err(PayError::Unauthorised(rejection.message))
            }
            Disposition::Rejected(rejection) => Err(PayError::Unavailable(rejection.message)),
            Disposition::NotSent { reason } | Disposition::Unknown { reason, .. } => {
                Err(PayError::Unavailable(reason))
            }
        }
    }

    /// Records what the gateway reports of the payment: a callback, or the answer to a look-up.
    ///
    /// # Errors
    /// See [`PayError`].
    pub async fn record_report(
        &self,
        foreign_id: &ForeignId,
        report: &Value,
        from: &str,
    ) -> Result<Payment, PayError> {
        let word = report.get("status").and_then(Value::as_str).unwrap_or("");
        let event = Event::Reported(Reported::from_word(word));
        self.record(
            foreign_id,
            event,
            Some(format!("{from}: {word}")),
            |payment| {
                take_over(payment, report);
            },
        )
        .await
    }

    /// Applies `event` to the payment as it is in the store now, and commits. Whoever else changes
    /// it meanwhile (a callback) wins, and the event is applied to the result.
    async fn record(
        &self,
        foreign_id: &ForeignId,
        event: Event,
        note: Option<String>,
        change: impl Fn(&mut Payment),
    ) -> Result<Payment, PayError> {
        loop {
            let Some(stored) = self.0.store.get_versioned(&PAYMENTS, foreign_id)? else {
                return Err(PayError::Damaged(foreign_id.clone()));
            };
            let mut payment = stored.value.clone();
            if let Err(illegal) = payment.apply(event, note.clone(), self.0.clock.now()) {
                self.0.telemetry.payment_alarm(&payment, &illegal);
                return Ok(payment);
            }
            change(&mut payment);
            let mut changes = Changes::new();
            changes.require_unchanged(&PAYMENTS, foreign_id, &stored);
            put(&mut changes, &payment);
            match self.0.store.commit(changes).await {
                Ok(()) => {
                    if payment.state != stored.value.state {
                        self.0.telemetry.payment_moved(&payment);
                    }
                    return Ok(payment);
                }
                Err(CommitError::Refused) => {}
                Err(error) => return Err(store_stop(&error)),
            }
        }
    }

    fn watch(&self, payment: &Payment) {
        // Nobody listens any more while the daemon stops; the next start finds it in the store.
        drop(self.0.watch.send(payment.foreign_id.clone()));
    }
}

/// Writes the payment and its index rows.
pub(super) fn put(changes: &mut Changes, payment: &Payment) {
    changes.put(&PAYMENTS, &payment.foreign_id, payment);
    if payment.state.is_final() {
        changes.remove(&OPEN_PAYMENTS, &payment.foreign_id);
    }
    if let Some(id) = &payment.gateway_id {
        changes.put(
            &PAYMENTS_BY_ID,
            &(family(payment.content.operation).to_owned(), id.clone()),
            &payment.foreign_id,
        );
    }
}

/// Takes over what a report says besides the status.
pub(super) fn take_over(payment: &mut Payment, report: &Value) {
    if payment.gateway_id.is_none() {
        payment.gateway_id = report
            .get("id")
            .or_else(|| report.get("payment_request_id"))
            .map(plain);
    }
    let error = report.get("error").and_then(Value::as_str).unwrap_or("");
    if !error.is_empty() {
        payment.error = Some(error.to_owned());
    }
}

/// The family of transactions that an operation makes: the first word of the gateway's types, so
/// that `withdrawal` and `withdrawal_exchange`, which share their ids, are one.
pub(super) const fn family(operation: Operation) -> &'static str {
    match operation {
        Operation::ExchangeFixed | Operation::ExchangeNow | Operation::CalculateExchange => {
            "exchange"
        }
        Operation::CreateInvoice => "invoice",
        Operation::CreatePaymentRequest => "payment_request",
        Operation::TakeAddress => "deposit",
        Operation::Withdraw
        | Operation::WithdrawInstant
        | Operation::Ping
        | Operation::ListAccounts
        | Operation::ListCurrencies
        | Operation::ListPairs
        | Operation::ListRates
        | Operation::TransactionInfo => "withdrawal",
    }
}

/// Whether `transactions/info` is documented, or likely, to know what the operation makes.
/// Invoices and payment requests are not said to be reachable there.
pub(super) const fn can_be_looked_up(operation: Operation) -> bool {
    !matches!(
        operation,
        Operation::CreateInvoice | Operation::CreatePaymentRequest
    )
}

/// The bytes to send, after making sure that they are still what was decided.
fn intact(payment: &Payment) -> Result<Prepared, PayError> {
    let damaged = || PayError::Damaged(payment.foreign_id.clone());
    if payment.content.fingerprint() != payment.fingerprint {
        return Err(damaged());
    }
    let prepared = Prepared::from_stored(
        payment.content.operation,
        payment.content.body.clone().into_bytes(),
    )
    .map_err(|_| damaged())?;
    if prepared.foreign_id().as_ref() != Some(&payment.foreign_id) {
        return Err(damaged());
    }
    Ok(prepared)
}

/// Signature, key and address checks come before anything else at the gateway: a request that
/// fails them was not looked at.
fn is_at_the_door(rejection: &Rejection) -> bool {
    rejection.status == 403
}

fn store_stop(error: &CommitError) -> PayError {
    match error {
        CommitError::Unstorable { .. } => PayError::TooLarge(error.to_string()),
        CommitError::Refused | CommitError::Poisoned => PayError::Poisoned,
    }
}

/// An id as text, whether it came as a number or a string.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
