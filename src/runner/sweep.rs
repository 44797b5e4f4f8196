//! Asks the gateway about payments whose fate is open: after a restart about all of them, later
//! about each with growing delays, until a callback or an answer settles it.
//!
//! It decides when to ask; what an answer means is decided on the money path.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Context;
use super::payments::{PayError, Watched, can_be_looked_up};
use crate::domain::id::ForeignId;
use crate::domain::payment::{Payment, State};
use crate::domain::retry::delay;
use crate::store::schema::OPEN_PAYMENTS;
use crate::store::{Order, Range, ReadError};

/// The first and the longest delay between look-ups of a payment nobody knows the fate of.
const UNKNOWN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// The same for a payment that the gateway has taken; its callback is expected.
const EXPECTED: (Duration, Duration) = (Duration::from_mins(5), Duration::from_mins(15));

/// Look-ups at once. The rest of the gateway's capacity belongs to the scripts.
const AT_ONCE: usize = 4;

/// When to ask about which payment.
#[derive(Debug, Default)]
struct Agenda {
    due: BTreeSet<(Instant, ForeignId)>,
    /// When each payment is due, and how often it has been asked about.
    known: HashMap<ForeignId, (Instant, u32)>,
}

impl Agenda {
    fn add(&mut self, id: ForeignId, at: Instant, asked: u32) {
        if let Some((before, _)) = self.known.insert(id.clone(), (at, asked)) {
            self.due.remove(&(before, id.clone()));
        }
        self.due.insert((at, id));
    }

    fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn take(&mut self, now: Instant) -> Option<(ForeignId, u32)> {
        if self.due.first()?.0 > now {
            return None;
        }
        let (_, id) = self.due.pop_first()?;
        let (_, asked) = self.known.remove(&id)?;
        Some((id, asked))
    }
}

/// Watches the payments that are sent to `watch`. Runs until it is dropped, and its look-ups end
/// with it.
pub(super) async fn run(context: Arc<Context>, mut watch: mpsc::UnboundedReceiver<Watched>) {
    let mut agenda = Agenda::default();
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    if let Err(error) = resume_all(&context, &gate, &mut asking) {
        context.telemetry.store_unreadable(&error);
    }
    loop {
        let wake = agenda
            .next()
            .unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            watched = watch.recv() => match watched {
                Some((id, state)) if !agenda.known.contains_key(&id) => {
                    let (first, _) = delays(state).unwrap_or(EXPECTED);
                    agenda.add(id, Instant::now() + first, 0);
                }
                Some(_) => {}
                None => return,
            },
            Some(answered) = asking.join_next() => {
                if let Ok(Some((id, asked, payment))) = answered
                    && let Some(delay) = next_delay(&id, asked, payment.as_ref())
                {
                    agenda.add(id, Instant::now() + delay, asked);
                }
            }
        }
        while let Some((id, asked)) = agenda.take(Instant::now()) {
            asking.spawn(ask(
                Arc::clone(&context),
                Arc::clone(&gate),
                id,
                asked,
                false,
            ));
        }
    }
}

/// After a start: every open payment goes on from its record.
fn resume_all(
    context: &Arc<Context>,
    gate: &Arc<Semaphore>,
    asking: &mut JoinSet<Answered>,
) -> Result<(), ReadError> {
    let open = context
        .store
        .scan(&OPEN_PAYMENTS, &Range::all(), usize::MAX, Order::Ascending)?;
    if !open.is_empty() {
        context.telemetry.payments_resumed(open.len());
    }
    for (id, _) in open {
        asking.spawn(ask(Arc::clone(context), Arc::clone(gate), id, 0, true));
    }
    Ok(())
}

/// A payment, how often it has been asked about, and how it stands; nothing when nobody can tell.
type Answered = Option<(ForeignId, u32, Option<Payment>)>;

async fn ask(
    context: Arc<Context>,
    gate: Arc<Semaphore>,
    id: ForeignId,
    asked: u32,
    resume: bool,
) -> Answered {
    let _place = gate.acquire_owned().await.ok()?;
    let outcome = if resume {
        context.payments.resume(&id).await
    } else {
        ask_once(&context, &id).await
    };
    let payment = match outcome {
        Ok(payment) => payment,
        Err(PayError::Unavailable(_) | PayError::Unauthorised(_)) => {
            context.payments.find(&id).ok().flatten()
        }
        Err(error) => {
            context.telemetry.payment_stuck(&id, &error.to_string());
            return None;
        }
    };
    Some((id, asked.saturating_add(1), payment))
}

/// Looks a payment up, unless it has been settled meanwhile.
async fn ask_once(context: &Context, id: &ForeignId) -> Result<Option<Payment>, PayError> {
    match context.payments.find(id)? {
        Some(payment) if payment.state == State::Intended => context.payments.resume(id).await,
        Some(payment) if !payment.state.is_final() => {
            let looked_up = context.payments.look_up(id).await;
            // Whether or not the gateway answered, there is an end to not knowing.
            match context.payments.lose_patience(id).await? {
                Some(held) => Ok(Some(held)),
                None => looked_up,
            }
        }
        settled => Ok(settled),
    }
}

/// How long to wait before asking about a payment again; `None` when there is nothing to ask.
fn next_delay(id: &ForeignId, asked: u32, payment: Option<&Payment>) -> Option<Duration> {
    let payment = payment?;
    // What cannot be looked up is still sent when it never was, and given up in time.
    let goes_on = matches!(payment.state, State::Intended | State::Unknown);
    if !can_be_looked_up(payment.content.operation) && !goes_on {
        return None;
    }
    let (first, max) = delays(payment.state)?;
    Some(delay(first, max, asked, id.as_str()))
}

/// The first and the longest delay between look-ups of a payment in this state; `None` when there
/// is nothing to ask.
const fn delays(state: State) -> Option<(Duration, Duration)> {
    match state {
        State::Unknown | State::Sending | State::Intended => Some(UNKNOWN),
        State::Accepted | State::Pending | State::Held => Some(EXPECTED),
        State::Planned
        | State::AwaitingApproval
        | State::Confirmed
        | State::Declined
        | State::Cancelled
        | State::Rejected
        | State::Refused => None,
    }
}
