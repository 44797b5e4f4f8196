//! Takes callbacks in: verified, deduplicated for ever, and on disk — with the runs they start
//! and what they say about our payments — before anybody answers 200.

use std::sync::Arc;

use crate::crash_point::CrashPoint;
use crate::domain::callback::{Callback, EventKey, Source};
use crate::domain::id::ForeignId;
use crate::domain::payment::{Event, IllegalTransition, Likeness, Payment, Reported, likeness};
use crate::store::schema::{
    EVENTS, EVENTS_BY_PAYMENT, EVENTS_BY_TRANSACTION, EventContent, EventRecord, PAYMENTS,
    PAYMENTS_BY_ID, RECONCILED,
};
use crate::store::{Changes, CommitError, ReadError, Versioned};
use crate::triggers::intake::Verdict;

use super::Context;
use super::events::{self, Given};
use super::payments::{family, foreign_note, put, silent, take_over};
use super::reconciled;
use super::ticket::{Started, Ticket};
use super::waits::Happening;

/// How a callback is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// On disk: 200.
    Accepted,
    /// On disk since an earlier delivery: 200.
    Duplicate,
    /// Signed, but unreadable; on disk: 200.
    Unreadable,
    /// Not from the gateway; nothing is kept: 403.
    Forged,
    /// It could not be made durable; the gateway must send it again: 503.
    TryLater,
}

/// Runs that may be open at once before callbacks are put off.
const MOST_OPEN_RUNS: usize = 100_000;

/// A payment as a callback changes it.
struct Changed {
    before: Versioned<Payment>,
    after: Payment,
    alarm: Option<IllegalTransition>,
}

/// What a callback is about.
enum About {
    /// A payment of ours.
    Payment(Box<Changed>),
    /// Something else under the key of that payment; why it is not the payment.
    Stranger(ForeignId, String),
    /// Nothing that is known here.
    Nothing,
}

impl About {
    fn payment(&self) -> Option<&Changed> {
        match self {
            Self::Payment(changed) => Some(changed),
            Self::Stranger(..) | Self::Nothing => None,
        }
    }
}

/// Takes one callback in.
pub(super) async fn accept(
    context: &Context,
    key: Option<&str>,
    signature: Option<&str>,
    body: &[u8],
) -> Answer {
    let answer = match context.verifier.verify(key, signature, body) {
        Verdict::Forged(reason) => {
            context.telemetry.callback_forged(&reason);
            return Answer::Forged;
        }
        _ if context.dispatcher.open_runs() >= MOST_OPEN_RUNS => Ok(Answer::TryLater),
        Verdict::Genuine(callback) => genuine(context, &Arc::new(callback)).await,
        Verdict::Unreadable(reason) => {
            context.telemetry.callback_unreadable(&reason);
            unreadable(context, body).await
        }
    };
    answer.unwrap_or_else(|refusal| {
        context.telemetry.callback_refused(&refusal);
        Answer::TryLater
    })
}

/// Why a callback could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The store cannot write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store cannot read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

async fn genuine(context: &Context, callback: &Arc<Callback>) -> Result<Answer, Refusal> {
    let transaction = callback.transaction();
    // Deliveries about one transaction are taken in one after the other: their order counts.
    let _one_at_a_time = context.transaction_locks.lock(transaction).await;
    context.dispatcher.give_way().await;
    let text = events::keep(&context.store, callback.text()).await?;
    let mut kept = EventContent::Callback(text);
    loop {
        let about = find_payment(context, callback)?;
        let payment = about.payment();
        let mut commit = Changes::new();
        let happening = context.waits.happening().await;
        let (record, tickets) = take(context, callback, kept, payment, &happening, &mut commit);
        match context.store.commit(commit).await {
            Ok(()) => {}
            // Either it was taken before, or somebody else changed the payment meanwhile. Asking
            // first would cost every callback what only the repeated ones need.
            Err(CommitError::Refused) => {
                if !is_known(context, payment, callback)? {
                    kept = record.content;
                    continue;
                }
                context.telemetry.callback_duplicate(&record.kind);
                return Ok(Answer::Duplicate);
            }
            Err(error) => return Err(error.into()),
        }
        drop(happening);
        CrashPoint::CallbackRecorded.pass();
        context
            .telemetry
            .callback_accepted(&record.kind, tickets.len());
        let settled = match payment {
            Some(payment) => {
                announce(context, payment);
                Ok(())
            }
            None if may_be_a_payment(callback) => settle_race(context, callback).await,
            None => Ok(()),
        };
        // Whatever comes of that: the event is on disk, and would be a duplicate the next time.
        context.dispatcher.enqueue(Started(tickets));
        return settled.map(|()| Answer::Accepted);
    }
}

/// Whether the event is in the store: from an earlier delivery, or found by a look-up.
fn is_known(
    context: &Context,
    payment: Option<&Changed>,
    callback: &Callback,
) -> Result<bool, ReadError> {
    let found = match payment {
        Some(payment) => {
            let place = reconciled::place(&payment.after, callback);
            context.store.get(&RECONCILED, &place)?.is_some()
        }
        None => false,
    };
    let key = callback.event_key().as_str().to_owned();
    Ok(found || context.store.get(&EVENTS, &key)?.is_some())
}

/// Adds the event, the runs it starts and what it says about a payment to `commit`. Answers the
/// event's record and the tickets of the runs.
fn take(
    context: &Context,
    callback: &Arc<Callback>,
    kept: EventContent,
    payment: Option<&Changed>,
    happening: &Happening<'_>,
    commit: &mut Changes,
) -> (EventRecord, Vec<Ticket>) {
    let transaction = callback.transaction();
    let key = callback.event_key().as_str();
    let received_at = context.clock.now();
    let event = Given::of_callback(callback, received_at, Source::Callback);
    let record = EventRecord {
        payment: payment.map(|payment| payment.after.foreign_id.clone()),
        ..EventRecord::of(&callback.kind(), kept, received_at)
    };
    let (record, tickets) =
        context
            .firings
            .event(key, record, &event, Some(transaction), happening, commit);
    let order = record.order;
    if let Some(payment) = payment {
        let id = &payment.after.foreign_id;
        // A look-up may have been faster, and may have shown it in other words.
        commit.require_absent(&RECONCILED, &reconciled::place(&payment.after, callback));
        commit.put(&EVENTS_BY_PAYMENT, &(id.clone(), order), &key.to_owned());
        commit.require_unchanged(&PAYMENTS, id, &payment.before);
        // What could not happen changes nothing.
        if payment.alarm.is_none() {
            let before = payment.before.value.state;
            let mut after = payment.after.clone();
            put(commit, before, &mut after, &context.policy, happening);
        }
    } else if may_be_a_payment(callback) {
        let place = (
            transaction.family().to_owned(),
            transaction.id.clone(),
            order,
        );
        commit.put(&EVENTS_BY_TRANSACTION, &place, &key.to_owned());
    }
    (record, tickets)
}

/// Whether the callback's transaction can be one that we asked for. Deposits come by themselves.
fn may_be_a_payment(callback: &Callback) -> bool {
    callback.transaction().family() != "deposit"
}

fn announce(context: &Context, changed: &Changed) {
    if let Some(alarm) = &changed.alarm {
        context.telemetry.payment_alarm(&changed.after, alarm);
    } else if changed.before.value.state != changed.after.state {
        context.telemetry.payment_moved(&changed.after);
    }
}

/// What the callback is about: a payment, moved on by it, when nothing in the callback contradicts
/// what was asked for. A key alone is no proof.
fn find_payment(context: &Context, callback: &Callback) -> Result<About, ReadError> {
    if !may_be_a_payment(callback) {
        return Ok(About::Nothing);
    }
    let Some(id) = payment_id(context, callback)? else {
        return Ok(About::Nothing);
    };
    let Some(before) = context.store.get_versioned(&PAYMENTS, &id)? else {
        return Ok(About::Nothing);
    };
    if family(before.value.content.operation) != callback.transaction().family() {
        return Ok(About::Nothing);
    }
    let shown = callback.event(context.clock.now(), Source::Callback).into();
    let difference = match likeness(&before.value.content, &shown) {
        Likeness::Foreign(difference) => Some(difference),
        Likeness::Possible if before.value.key_taken => Some(silent()),
        Likeness::Possible | Likeness::Proven => None,
    };
    if let Some(difference) = difference {
        return Ok(About::Stranger(id, foreign_note(&difference)));
    }
    let mut after = before.value.clone();
    let event = Event::Reported(Reported::from_word(callback.status()));
    let note = Some(format!("callback: {}", callback.status()));
    let alarm = after.apply(event, note, context.clock.now()).err();
    if alarm.is_none() {
        take_over(&mut after, &shown);
    }
    Ok(About::Payment(Box::new(Changed {
        before,
        after,
        alarm,
    })))
}

/// The key of the payment that the callback is about: its own, or the one that the gateway's id
/// stands for.
fn payment_id(context: &Context, callback: &Callback) -> Result<Option<ForeignId>, ReadError> {
    if let Some(id) = callback.foreign_id().and_then(|text| text.parse().ok()) {
        return Ok(Some(id));
    }
    let transaction = callback.transaction();
    let key = (transaction.family().to_owned(), transaction.id.clone());
    context.store.get(&PAYMENTS_BY_ID, &key)
}

/// A callback without our key may have come in while the answer to its request was being recorded.
/// The money path looks for such callbacks after it has recorded the id; this looks for the id
/// after the callback is recorded: whoever is second sees the other.
async fn settle_race(context: &Context, callback: &Callback) -> Result<(), Refusal> {
    let changed = match find_payment(context, callback)? {
        About::Payment(changed) => changed,
        About::Stranger(id, why) => {
            context.telemetry.payment_is_not_meant(&id, &why);
            return Ok(());
        }
        About::Nothing => return Ok(()),
    };
    let id = &changed.after.foreign_id;
    let report = callback.event(context.clock.now(), Source::Callback).into();
    if let Err(error) = context
        .payments
        .record_report(id, &report, "callback")
        .await
    {
        context.telemetry.payment_stuck(id, &error.to_string());
    }
    Ok(())
}

async fn unreadable(context: &Context, body: &[u8]) -> Result<Answer, Refusal> {
    let key = EventKey::of_unreadable(body).as_str().to_owned();
    if context.store.get(&EVENTS, &key)?.is_some() {
        context.telemetry.callback_duplicate("unreadable");
        return Ok(Answer::Duplicate);
    }
    let text = String::from_utf8(body.to_vec()).unwrap_or_else(|_| hex::encode(body));
    let kept = EventContent::Unreadable(events::keep(&context.store, &text).await?);
    let happening = context.waits.happening().await;
    let record = EventRecord::of("unreadable", kept, context.clock.now());
    let event = events::value(&context.store, &record)?;
    let event = Arc::new(Given::Value(event));
    let mut changes = Changes::new();
    let (_, tickets) = context
        .firings
        .event(&key, record, &event, None, &happening, &mut changes);
    match context.store.commit(changes).await {
        Ok(()) => {
            context.dispatcher.enqueue(Started(tickets));
            Ok(Answer::Unreadable)
        }
        Err(CommitError::Refused) => Ok(Answer::Duplicate),
        Err(error) => Err(error.into()),
    }
}
