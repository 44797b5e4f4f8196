//! One attempt: marks the payment as being sent, sends it once, and records what came of it.
//!
//! # Design
//! The mark is made a little ahead of the place among the requests under way, so that no place waits
//! for the disk. What is marked and waits for its place is held as a departure: after a kill, the
//! next process knows that it has not left. After a power cut it does not, and the payment's fate is
//! looked for as that of any other that was marked.

use serde_json::Value;

use super::record::{family, plain};
use super::{PayError, Payments};
use crate::crash_point::CrashPoint;
use crate::domain::approval::is_approved;
use crate::domain::id::ForeignId;
use crate::domain::operation::Operation;
use crate::domain::payment::{Event, Payment, State};
use crate::gateway::{Admission, Disposition, Prepared, Rejection, Turn};
use crate::runner::events;
use crate::runner::replies::{Reply, reply};
use crate::store::schema::{EVENTS, EVENTS_BY_TRANSACTION, PAYMENTS};
use crate::store::{Departure, Order, Range, Versioned};

/// The most events of one transaction that can have arrived before the answer to its request.
const EARLY_EVENTS: usize = 100;

/// What a try to send came to.
pub(super) enum Attempt {
    /// The state has moved on.
    MovedOn,
    /// Money is paused: it is as it was.
    Paused,
    /// It certainly never left.
    NotSent(String),
    /// It was turned away at the door.
    Unauthorised(String),
}

/// What a payment that is marked as being sent has until it leaves.
pub(super) struct Mark {
    prepared: Prepared,
    /// Says that it has not left.
    pub(super) departure: Departure,
}

/// What becomes of a payment that is marked.
enum Marked<'a> {
    /// It leaves now.
    Leaves(Admission<'a>),
    /// It has not left, and will not in this attempt.
    Stays(Attempt),
}

impl Payments {
    /// Records that it is being sent, sends it once, and records what came of it.
    pub(super) async fn send(
        self,
        payment: Versioned<Payment>,
    ) -> Result<(Attempt, Versioned<Payment>), PayError> {
        let id = &payment.value.foreign_id.clone();
        let prepared = intact(&payment.value)?;
        if self.0.people.pauses.stops(&payment.value) {
            return Ok((Attempt::Paused, payment));
        }
        // Only as many are marked as are under way or next.
        let turn = match self.0.gateway.turn().await {
            Ok(turn) => turn,
            Err(refused) => return Ok((Attempt::NotSent(refused.to_string()), payment)),
        };
        let Some(leave) = self.0.people.pauses.may_mark(&payment.value).await else {
            return Ok((Attempt::Paused, payment));
        };
        let attempt = payment.value.attempts.saturating_add(1);
        let departure = self.0.store.hold_departure(&departure_of(id, attempt));
        let marked = self
            .record_after(payment, Event::SendStarted, None, |_| {})
            .await?;
        drop(leave);
        if marked.value.state != State::Sending {
            departure.end();
            // The gateway has reported it meanwhile: somebody has made it, so it must not leave.
            return Ok((Attempt::MovedOn, marked));
        }
        CrashPoint::SendRecorded.pass();
        let mark = Mark {
            prepared,
            departure,
        };
        self.send_marked(marked, mark, turn).await
    }

    /// Marks a payment that is only now decided about; whoever calls commits it. `None` when what
    /// would be sent is not what was decided: then it is not marked.
    pub(super) fn mark(&self, payment: &mut Payment) -> Option<Mark> {
        let prepared = intact(payment).ok()?;
        let now = self.0.clock.now();
        payment.apply(Event::SendStarted, None, now).ok()?;
        let what = departure_of(&payment.foreign_id, payment.attempts);
        Some(Mark {
            prepared,
            departure: self.0.store.hold_departure(&what),
        })
    }

    /// Sends a payment that is marked once, and records what came of it.
    pub(super) async fn send_marked(
        &self,
        marked: Versioned<Payment>,
        mark: Mark,
        turn: Turn<'_>,
    ) -> Result<(Attempt, Versioned<Payment>), PayError> {
        let Mark {
            prepared,
            departure,
        } = mark;
        let admission = match self.depart(&marked, &prepared, &departure).await? {
            Marked::Leaves(admission) => admission,
            Marked::Stays(why) => {
                let outcome = self.stays(marked, why).await?;
                departure.end();
                return Ok(outcome);
            }
        };
        CrashPoint::Departed.pass();
        let disposition = self.0.gateway.send_admitted(admission, &prepared).await;
        drop(turn);
        let outcome = self.record_outcome(marked, disposition).await?;
        CrashPoint::AnswerRecorded.pass();
        departure.end();
        Ok(outcome)
    }

    /// Waits for a place among the requests under way, and notes that the first byte leaves now.
    /// Until that is noted, it certainly has not left: so whatever there is to wait for is waited
    /// for here, and a pause still stops it.
    async fn depart(
        &self,
        marked: &Versioned<Payment>,
        prepared: &Prepared,
        departure: &Departure,
    ) -> Result<Marked<'_>, PayError> {
        let stays = |reason| Ok(Marked::Stays(Attempt::NotSent(reason)));
        let admission = match self.0.gateway.admit(prepared.operation()).await {
            Ok(admission) => admission,
            Err(refused) => return stays(refused.to_string()),
        };
        let Some(_until_noted) = self.0.people.pauses.may_mark(&marked.value).await else {
            return Ok(Marked::Stays(Attempt::Paused));
        };
        // What would come of it could not be recorded; the next start goes on with it.
        if self.0.store.is_poisoned() {
            return Err(PayError::Poisoned);
        }
        let id = &marked.value.foreign_id;
        if !self.0.store.is_unchanged(&PAYMENTS, id, marked)?
            && self.stored(id)?.value.state != State::Sending
        {
            return Ok(Marked::Stays(Attempt::MovedOn));
        }
        match departure.leave() {
            Ok(()) => Ok(Marked::Leaves(admission)),
            Err(error) => stays(format!("it cannot be noted that it leaves: {error}")),
        }
    }

    /// Records that what was marked has not left. Where the gateway has reported it meanwhile, that
    /// stands.
    async fn stays(
        &self,
        marked: Versioned<Payment>,
        why: Attempt,
    ) -> Result<(Attempt, Versioned<Payment>), PayError> {
        let note = match &why {
            Attempt::MovedOn => return Ok((why, self.stored(&marked.value.foreign_id)?)),
            Attempt::NotSent(reason) | Attempt::Unauthorised(reason) => reason.clone(),
            Attempt::Paused => "money was paused before it left".to_owned(),
        };
        let after = self
            .record_after(marked, Event::NotSent, Some(note), |_| {})
            .await?;
        Ok((why, after))
    }

    /// Records that a payment that was marked by an earlier process has not left, if that is so.
    pub(super) async fn undo_mark(&self, payment: Payment) -> Result<Payment, PayError> {
        let what = departure_of(&payment.foreign_id, payment.attempts);
        if payment.state != State::Sending || !self.0.store.never_left(&what) {
            return Ok(payment);
        }
        let note = "the daemon was stopped before its first byte left".to_owned();
        let id = &payment.foreign_id;
        let after = self.record(id, Event::NotSent, Some(note), |_| {}).await?;
        self.0.store.forget_departure(&what);
        Ok(after)
    }

    async fn record_outcome(
        &self,
        marked: Versioned<Payment>,
        disposition: Disposition,
    ) -> Result<(Attempt, Versioned<Payment>), PayError> {
        CrashPoint::AnswerReceived.pass();
        let reply = reply(&disposition);
        let outcome = match disposition {
            Disposition::NotSent { reason } => {
                let after = self
                    .record_after(marked, Event::NotSent, Some(reason.clone()), |_| {})
                    .await?;
                (Attempt::NotSent(reason), after)
            }
            Disposition::Rejected(rejection) if is_at_the_door(&rejection) => {
                let reason = rejection.message.clone();
                let after = self
                    .record_after(marked, Event::NotSent, Some(reason.clone()), |payment| {
                        reply.note(payment);
                    })
                    .await?;
                (Attempt::Unauthorised(reason), after)
            }
            Disposition::Rejected(rejection) => (
                Attempt::MovedOn,
                self.rejected(marked, rejection, &reply).await?,
            ),
            Disposition::Accepted(data) => {
                let after = self.accepted(marked, &data, &reply).await?;
                (Attempt::MovedOn, after)
            }
            Disposition::Unknown { reason, .. } => {
                let note = Some(lost_note(marked.value.content.operation, &reason));
                let after = self
                    .record_after(marked, Event::AnswerLost, note, |payment| {
                        reply.note(payment);
                    })
                    .await?;
                (Attempt::MovedOn, after)
            }
        };
        Ok(outcome)
    }

    /// The gateway said no. To a first request that is the end; to one that was sent again it says
    /// nothing about those before it, which may have been executed and not be visible yet.
    async fn rejected(
        &self,
        sent: Versioned<Payment>,
        rejection: Rejection,
        reply: &Reply,
    ) -> Result<Versioned<Payment>, PayError> {
        if rejection.is_foreign_id_taken() {
            let note = Some(rejection.message);
            return self
                .record_after(sent, Event::KeyTaken, note, |payment| reply.note(payment))
                .await;
        }
        if sent.value.resends == 0 {
            let note = Some(rejection.message.clone());
            return self
                .record_after(sent, Event::Rejected, note, |payment| {
                    payment.error = Some(rejection.message.clone());
                    payment.errors = rejection.errors.clone();
                    reply.note(payment);
                })
                .await;
        }
        let note = format!(
            "sent again, it was refused: {}; that says nothing about the request before",
            rejection.message
        );
        let after = self
            .record_after(sent, Event::AnswerLost, Some(note), |payment| {
                reply.note(payment);
            })
            .await?;
        if after.value.state != State::Unknown {
            return Ok(after);
        }
        let note = "a refused request cannot be sent again, and whether the one before it was executed is not known".to_owned();
        self.record_after(after, Event::GaveUp, Some(note), |_| {})
            .await
    }

    async fn accepted(
        &self,
        marked: Versioned<Payment>,
        data: &Value,
        reply: &Reply,
    ) -> Result<Versioned<Payment>, PayError> {
        let gateway_id = data.get("id").map(plain);
        let payment = self
            .record_after(marked, Event::Accepted, None, |payment| {
                payment.gateway_id.clone_from(&gateway_id);
                payment.answer = Some(data.clone());
                reply.note(payment);
            })
            .await?;
        // A callback that carries no key of ours may have been faster than this answer.
        match gateway_id {
            Some(gateway_id) => self.catch_up(payment, &gateway_id).await,
            None => Ok(payment),
        }
    }

    /// Applies the events that arrived before the gateway's id of the payment was known.
    async fn catch_up(
        &self,
        mut payment: Versioned<Payment>,
        gateway_id: &str,
    ) -> Result<Versioned<Payment>, PayError> {
        let prefix = (
            family(payment.value.content.operation).to_owned(),
            gateway_id.to_owned(),
        );
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
                let report = events::value(&self.0.store, &event)?;
                let id = &payment.value.foreign_id;
                self.record_report(id, &report, "callback").await?;
                payment = self.stored(id)?;
            }
        }
        Ok(payment)
    }
}

/// The name of one attempt's departure: no two attempts of a payment have the same number.
fn departure_of(id: &ForeignId, attempt: u32) -> String {
    format!("{attempt}:{id}")
}

/// The bytes to send, after making sure that they are still what was decided.
fn intact(payment: &Payment) -> Result<Prepared, PayError> {
    let damaged = || PayError::Damaged(payment.foreign_id.clone());
    if payment.content.fingerprint() != payment.fingerprint || !is_approved(payment) {
        return Err(damaged());
    }
    let prepared = Prepared::from_stored(
        payment.content.operation,
        payment.content.body().as_bytes().to_vec(),
    )
    .map_err(|_| damaged())?;
    if prepared.foreign_id().as_ref() != Some(&payment.foreign_id) {
        return Err(damaged());
    }
    Ok(prepared)
}

/// The note of a lost answer: what can still tell of the payment, where look-ups cannot.
pub(super) fn lost_note(operation: Operation, reason: &str) -> String {
    match operation {
        Operation::CreateInvoice | Operation::CreatePaymentRequest => format!(
            "{reason}; the gateway has no look-up for {}s: only a callback can tell",
            family(operation).replace('_', " ")
        ),
        Operation::ExchangeFixed | Operation::ExchangeNow => format!(
            "{reason}; without its answer an exchange has no id, and neither look-ups nor callbacks are known to carry its key"
        ),
        Operation::Withdraw
        | Operation::WithdrawInstant
        | Operation::Ping
        | Operation::ListAccounts
        | Operation::ListCurrencies
        | Operation::ListPairs
        | Operation::ListRates
        | Operation::TakeAddress
        | Operation::CalculateExchange
        | Operation::TransactionInfo => reason.to_owned(),
    }
}

/// Signature, key and address checks come before anything else at the gateway: a request that
/// fails them was not looked at.
pub(super) fn is_at_the_door(rejection: &Rejection) -> bool {
    rejection.status == 403
}
