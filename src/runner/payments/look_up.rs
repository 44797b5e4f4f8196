//! Asks the gateway about one payment, and says what its answer means: whether what it shows is
//! ours, whether its end is news to handlers, and what is done when nobody has known the fate of a
//! payment for too long. When to ask is the sweep's.

use serde_json::{Value, json};

use super::attempt::is_at_the_door;
use super::record::{family, store_stop, take_over};
use super::{PayError, Payments, can_be_looked_up, put};
use crate::domain::callback::Callback;
use crate::domain::id::ForeignId;
use crate::domain::operation::Operation;
use crate::domain::payment::{
    AtTheEnd, Difference, Event, Likeness, Payment, Reported, State, likeness,
};
use crate::gateway::{Disposition, prepare};
use crate::runner::reconciled::{self, Found};
use crate::store::schema::{EVENTS, EVENTS_BY_TRANSACTION, PAYMENTS};
use crate::store::{Changes, CommitError, Order, Range};

/// The most events of exchanges that are read to name those that may be a lost one.
const CANDIDATES: usize = 10_000;

/// The most that are named.
const NAMED: usize = 5;

impl Payments {
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

    /// Ends the search for the fate of a payment when it has lasted too long: sends it again where
    /// that is allowed and can be safe, else hands it to a person. Answers it if so. A held payment
    /// is still looked up and still listens to callbacks.
    ///
    /// # Errors
    /// See [`PayError`].
    pub async fn lose_patience(&self, foreign_id: &ForeignId) -> Result<Option<Payment>, PayError> {
        let _one_at_a_time = self.0.locks.lock(foreign_id).await;
        let Some(payment) = self.find(foreign_id)? else {
            return Ok(None);
        };
        match self.0.patience.at_the_end(&payment, self.0.clock.now()) {
            None => Ok(None),
            Some(AtTheEnd::Hold(why)) => {
                let note = self.why_held(&payment, why)?;
                let held = self.record(foreign_id, Event::GaveUp, Some(note), |_| {});
                held.await.map(Some)
            }
            Some(AtTheEnd::Resend) => {
                let note = "the gateway keeps saying that it does not have it; it is sent again, under the same key and with the same bytes".to_owned();
                let again = self
                    .record(foreign_id, Event::Resend, Some(note), |_| {})
                    .await?;
                self.drive(self.stored(&again.foreign_id)?).await.map(Some)
            }
        }
    }

    /// Asks about a payment whose lock the caller holds.
    pub(super) async fn look_up_locked(&self, payment: Payment) -> Result<Payment, PayError> {
        let prepared = prepare(Operation::TransactionInfo, &subject(&payment))
            .map_err(|_| PayError::Damaged(payment.foreign_id.clone()))?;
        match self.0.gateway.send(&prepared).await {
            Disposition::Accepted(info) => self.found(payment, info).await,
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

    /// The look-up has found something: it is taken over when it is ours.
    async fn found(&self, payment: Payment, info: Value) -> Result<Payment, PayError> {
        let likeness = likeness(&payment.content, &info);
        let is_exchange = family(payment.content.operation) == "exchange";
        match likeness {
            // Its key may stand for something else among withdrawals, or for an exchange that
            // does not show it: only what is certainly ours is found.
            Likeness::Foreign(_) | Likeness::Possible
                if is_exchange && payment.gateway_id.is_none() =>
            {
                self.record(&payment.foreign_id, Event::NotFound, None, |_| {})
                    .await
            }
            Likeness::Foreign(difference) => self.not_ours(&payment, &difference).await,
            Likeness::Possible if payment.key_taken => self.not_ours(&payment, &silent()).await,
            Likeness::Possible | Likeness::Proven => self.report_found(payment, info).await,
        }
    }

    /// Hands a payment whose key stands for another transaction to a person; that one is left
    /// alone. What the gateway has taken from us under this key stays as it is, and is an alarm.
    pub(super) async fn not_ours(
        &self,
        payment: &Payment,
        difference: &Difference,
    ) -> Result<Payment, PayError> {
        if payment.state == State::Held
            && payment.story.last().map(|line| line.event) == Some(Event::NotOurs)
        {
            return Ok(payment.clone());
        }
        let note = foreign_note(difference);
        self.record(&payment.foreign_id, Event::NotOurs, Some(note), |_| {})
            .await
    }

    /// Records what a look-up reports. When that is the end of the payment, it becomes an event
    /// with its runs in the same commit, as its callback would: that one will be a duplicate.
    async fn report_found(&self, payment: Payment, info: Value) -> Result<Payment, PayError> {
        let word = info.get("status").and_then(Value::as_str).unwrap_or("");
        let event = Event::Reported(Reported::from_word(word));
        let note = Some(format!("look-up: {word}"));
        let callback = Callback::parse(info.to_string().as_bytes()).ok();
        let mut found = match callback {
            Some(callback) => Some(
                Found::keep(&self.0.store, callback, &info)
                    .await
                    .map_err(|error| store_stop(&error))?,
            ),
            None => None,
        };
        loop {
            let stored = self.stored(&payment.foreign_id)?;
            let mut moved = stored.value.clone();
            if let Err(illegal) = moved.apply(event, note.clone(), self.0.clock.now()) {
                self.0.telemetry.payment_alarm(&moved, &illegal);
                return Ok(moved);
            }
            take_over(&mut moved, &info);
            let mut changes = Changes::new();
            let happening = self.0.waits.happening().await;
            changes.require_unchanged(&PAYMENTS, &payment.foreign_id, &stored);
            let before = stored.value.state;
            put(&mut changes, before, &mut moved, &self.0.policy, &happening);
            let is_news = moved.state.is_final() && !before.is_final();
            let started = found.as_ref().filter(|_| is_news).map(|found| {
                reconciled::add(&self.0.firings, found, &moved, &happening, &mut changes)
            });
            match self.0.store.commit(changes).await {
                Ok(()) => {
                    if let (Some(found), Some(started)) = (&found, started) {
                        self.0.telemetry.event_reconciled(&found.kind(), &moved);
                        self.0.dispatcher.enqueue(started);
                    }
                    self.moved(&stored.value, &moved);
                    return Ok(moved);
                }
                Err(CommitError::Refused) => {
                    // Its callback was taken in before anybody knew that it is about this payment.
                    if let Some(known) = &found
                        && self.0.store.get(&EVENTS, &known.key())?.is_some()
                    {
                        found = None;
                    }
                }
                Err(error) => return Err(store_stop(&error)),
            }
        }
    }

    /// Why a payment is held, in one text. For an exchange it names the callbacks about exchanges
    /// of the same amount that belong to no payment: one of them may be this one, but nothing says
    /// so, and a person must compare.
    fn why_held(&self, payment: &Payment, why: &str) -> Result<String, PayError> {
        let family = family(payment.content.operation);
        let mut note = format!("its fate has been unknown for too long; {why}");
        if family != "exchange" {
            return Ok(note);
        }
        let prefix = Range::within(&family.to_owned());
        let parked = self.0.store.scan(
            &EVENTS_BY_TRANSACTION,
            &prefix,
            CANDIDATES,
            Order::Descending,
        )?;
        let mut candidates: Vec<String> = Vec::new();
        for ((_, id, _), key) in parked {
            let Some(event) = self.0.store.get(&EVENTS, &key)? else {
                continue;
            };
            if event.payment.is_none() && event.received_at >= payment.created_at {
                let shown = crate::runner::events::value(&self.0.store, &event)?;
                if likeness(&payment.content, &shown) == Likeness::Proven
                    && !candidates.contains(&id)
                {
                    candidates.push(id);
                }
            }
        }
        candidates.truncate(NAMED);
        if !candidates.is_empty() {
            note.push_str(
                "; callbacks came about exchanges of the same amount, of which one may be this: ",
            );
            note.push_str(&candidates.join(", "));
        }
        Ok(note)
    }
}

/// What is asked about: a withdrawal by its key, as documented. An exchange by the gateway's id
/// once that is known; that its key finds it is not documented, but asking harms nobody.
fn subject(payment: &Payment) -> Value {
    let id = payment
        .gateway_id
        .as_ref()
        .filter(|_| family(payment.content.operation) == "exchange")
        .and_then(|id| id.parse::<u64>().ok());
    match id {
        Some(id) => json!({ "id": id }),
        None => json!({ "foreign_id": payment.foreign_id }),
    }
}

/// The difference of a transaction that shows too little to prove that it is ours.
pub(in crate::runner) fn silent() -> Difference {
    Difference {
        field: "document".into(),
        recorded: "one with an amount and a destination".into(),
        now: "one that does not show them".into(),
    }
}

/// The note of a transaction that is not ours.
pub(in crate::runner) fn foreign_note(difference: &Difference) -> String {
    format!(
        "the gateway has another transaction under this key: its {} is {}, ours is {}",
        difference.field, difference.now, difference.recorded
    )
}
