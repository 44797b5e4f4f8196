//! Writes what happened to a payment: the event goes through the state machine, and the result is
//! on disk when this returns.

use serde_json::Value;

use super::{PayError, Payments};
use crate::domain::id::ForeignId;
use crate::domain::operation::Operation;
use crate::domain::payment::{Event, Payment, Reported, State, tell};
use crate::runner::alerts::about_payment;
use crate::runner::policy::Guard;
use crate::runner::waits::Happening;
use crate::store::schema::PAYMENTS;
use crate::store::{Changes, CommitError, Rows, Versioned, put_rows};

impl Payments {
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

    /// Says what has become of a payment, once that is on disk.
    pub(super) fn moved(&self, before: &Payment, after: &Payment) {
        if before.state != after.state {
            self.0.telemetry.payment_moved(after);
        }
        if is_now_held(before, after) {
            self.0.telemetry.payment_held(after);
        }
    }

    /// Applies `event` to the payment as it is in the store now, and commits. Whoever else changes
    /// it meanwhile (a callback) wins, and the event is applied to the result. Where it cannot
    /// happen any more, that is an alarm and the payment is answered as it stands: whoever acts on
    /// the event having happened must look at the state.
    pub(super) async fn record(
        &self,
        foreign_id: &ForeignId,
        event: Event,
        note: Option<String>,
        change: impl Fn(&mut Payment),
    ) -> Result<Payment, PayError> {
        let stored = self.stored(foreign_id)?;
        let recorded = self.record_after(stored, event, note, change).await?;
        Ok(recorded.value)
    }

    /// The same for a payment that was just read or written: it is read again only if somebody else
    /// has changed it since. Answers what is in the store then.
    pub(super) async fn record_after(
        &self,
        mut stored: Versioned<Payment>,
        event: Event,
        note: Option<String>,
        change: impl Fn(&mut Payment),
    ) -> Result<Versioned<Payment>, PayError> {
        let foreign_id = stored.value.foreign_id.clone();
        loop {
            let mut payment = stored.value.clone();
            if let Err(illegal) = payment.apply(event, note.clone(), self.0.clock.now()) {
                let store = &self.0.store;
                if store.is_unchanged(&PAYMENTS, &foreign_id, &stored)? {
                    self.0.telemetry.payment_alarm(&payment, &illegal);
                    return Ok(stored);
                }
                stored = self.stored(&foreign_id)?;
                continue;
            }
            change(&mut payment);
            let mut changes = Changes::new();
            let happening = self.0.waits.happening().await;
            changes.require_unchanged(&PAYMENTS, &foreign_id, &stored);
            let (before, policy) = (stored.value.state, &self.0.policy);
            put(&mut changes, before, &mut payment, policy, &happening);
            let firings = &self.0.firings;
            let started = is_now_held(&stored.value, &payment).then(|| {
                about_payment(firings, "payment_held", &payment, &happening, &mut changes)
            });
            let recorded = changes.versioned(&PAYMENTS, &foreign_id, payment);
            match self.0.store.commit(changes).await {
                Ok(()) => {
                    self.moved(&stored.value, &recorded.value);
                    self.0.dispatcher.enqueue(started.unwrap_or_default());
                    return Ok(recorded);
                }
                Err(CommitError::Refused) => stored = self.stored(&foreign_id)?,
                Err(error) => return Err(store_stop(&error)),
            }
        }
    }

    /// The payment of that key, which there is.
    pub(super) fn stored(&self, foreign_id: &ForeignId) -> Result<Versioned<Payment>, PayError> {
        let stored = self.0.store.get_versioned(&PAYMENTS, foreign_id)?;
        stored.ok_or_else(|| PayError::Damaged(foreign_id.clone()))
    }
}

/// Whether a person must decide about the payment from now on.
fn is_now_held(before: &Payment, after: &Payment) -> bool {
    before.state != after.state && after.state == State::Held
}

/// Writes a payment that was in the state `before`: its record and index rows, its lines in the
/// payment journal, what its end means for policy, and what it may be news of. Every change of a
/// payment is written here. `payment` is afterwards as it will be read.
pub(in crate::runner) fn put(
    changes: &mut Changes,
    before: State,
    payment: &mut Payment,
    policy: &Guard,
    happening: &Happening<'_>,
) {
    happening.payment(payment, changes);
    if payment.state.is_final() && !before.is_final() {
        policy.ended(payment, changes);
    }
    let rows = if payment.told == 0 {
        Rows::New
    } else {
        Rows::Known
    };
    match tell(payment) {
        Ok(told) => {
            told.lines.iter().for_each(|line| changes.tell(line));
            changes.put_as(&PAYMENTS, &payment.foreign_id, &told.payment);
        }
        Err(error) => return changes.refuse(PAYMENTS.prefix(), &error.to_string()),
    }
    put_rows(changes, payment, rows);
}

/// Takes over what a report says besides the status.
pub(in crate::runner) fn take_over(payment: &mut Payment, report: &Value) {
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

/// See [`Operation::family`].
pub(in crate::runner) const fn family(operation: Operation) -> &'static str {
    operation.family()
}

/// Whether `transactions/info` is documented, or likely, to know what the operation makes.
/// Invoices and payment requests are not said to be reachable there.
pub(in crate::runner) const fn can_be_looked_up(operation: Operation) -> bool {
    !matches!(
        operation,
        Operation::CreateInvoice | Operation::CreatePaymentRequest
    )
}

pub(super) fn store_stop(error: &CommitError) -> PayError {
    match error {
        CommitError::Unstorable { .. } => PayError::TooLarge(error.to_string()),
        CommitError::Refused | CommitError::Poisoned => PayError::Poisoned,
    }
}

/// An id as text, whether it came as a number or a string.
pub(super) fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
