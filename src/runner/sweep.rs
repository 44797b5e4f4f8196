//! Asks the gateway about payments whose fate is open: about all of them after a start and every
//! few minutes, and in between about those whose fate is unknown, with growing delays, until a
//! callback or an answer settles them. After a long outage it reports what it found.
//!
//! It decides when to ask; what an answer means is decided on the money path. Payments that wait
//! for approval are not at the gateway and are left alone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::payments::{PayError, Watched, can_be_looked_up};
use super::{Context, heartbeat};
use crate::domain::id::ForeignId;
use crate::domain::payment::{Payment, State};
use crate::domain::retry::delay;
use crate::store::schema::OPEN_PAYMENTS;
use crate::store::{Order, Range, ReadError};

/// The first and the longest delay between look-ups of a payment nobody knows the fate of.
const UNKNOWN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// Look-ups at once. The rest of the gateway's capacity belongs to the scripts.
const AT_ONCE: usize = 4;

/// The least time from one look-up to the next: no limit is published for them, so that thousands
/// of open payments must not become a flood.
const APART: Duration = Duration::from_millis(40);

/// The same while scripts have all the gateway's capacity under way: they go first, but not for
/// ever.
const APART_WHEN_BUSY: Duration = Duration::from_secs(1);

/// When to ask about which payment.
#[derive(Debug, Default)]
struct Agenda {
    due: BTreeSet<(Instant, ForeignId)>,
    known: HashMap<ForeignId, Entry>,
}

/// One payment to ask about.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Instant,
    /// How often it has been asked about.
    asked: u32,
    /// Whether it has not been touched since the start.
    resume: bool,
}

impl Agenda {
    fn add(&mut self, id: ForeignId, entry: Entry) {
        if let Some(before) = self.known.insert(id.clone(), entry) {
            self.due.remove(&(before.at, id.clone()));
        }
        self.due.insert((entry.at, id));
    }

    fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn take(&mut self, now: Instant) -> Option<(ForeignId, Entry)> {
        if self.due.first()?.0 > now {
            return None;
        }
        let (_, id) = self.due.pop_first()?;
        let entry = self.known.remove(&id)?;
        Some((id, entry))
    }
}

/// The sweep at work.
struct Sweep {
    context: Arc<Context>,
    agenda: Agenda,
    asking: JoinSet<Answered>,
    /// Those that are being asked about.
    asked_now: HashSet<ForeignId>,
    last_asked: Instant,
    sweeps_at: Instant,
    /// What is found about the payments that were open at the start.
    first_round: Option<heartbeat::FirstRound>,
}

/// A payment, how often it has been asked about, and how it stands; nothing when nobody can tell.
struct Answered {
    id: ForeignId,
    asked: u32,
    payment: Option<Payment>,
    /// Whether the gateway has said something about it.
    is_answer: bool,
}

/// Watches the payments that are sent to `watch`. Runs until it is dropped, and its look-ups end
/// with it.
pub(super) async fn run(context: Arc<Context>, mut watch: mpsc::UnboundedReceiver<Watched>) {
    let mut sweep = Sweep::begin(context);
    loop {
        let now = Instant::now();
        let free_at = sweep.ask_what_is_due(now);
        sweep.end_first_round().await;
        let wake = [free_at, Some(sweep.sweeps_at), sweep.agenda.next()];
        // While all places are taken, only an answer makes room.
        let wake = wake.into_iter().flatten().filter(|at| *at > now).min();
        tokio::select! {
            () = tokio::time::sleep_until(wake.unwrap_or(sweep.sweeps_at)) => {}
            watched = watch.recv() => match watched {
                Some((id, state)) => sweep.watch(id, state),
                None => return,
            },
            Some(answered) = sweep.asking.join_next() => match answered {
                Ok(answered) => sweep.answered(answered),
                // It can only have been a bug; the next sweep asks again.
                Err(_) => sweep.asked_now.clear(),
            },
        }
        if Instant::now() >= sweep.sweeps_at {
            sweep.all();
        }
    }
}

impl Sweep {
    /// After a start: every open payment goes on from its record.
    fn begin(context: Arc<Context>) -> Self {
        let now = Instant::now();
        let mut sweep = Self {
            sweeps_at: now + context.sweep_every,
            agenda: Agenda::default(),
            asking: JoinSet::new(),
            asked_now: HashSet::new(),
            last_asked: now.checked_sub(APART_WHEN_BUSY).unwrap_or(now),
            first_round: None,
            context,
        };
        let open = sweep.open().unwrap_or_default();
        if !open.is_empty() {
            sweep.context.telemetry.payments_resumed(open.len());
        }
        for id in &open {
            let entry = Entry {
                at: now,
                asked: 0,
                resume: true,
            };
            sweep.agenda.add(id.clone(), entry);
        }
        sweep.first_round = heartbeat::FirstRound::of(&sweep.context, open);
        sweep
    }

    /// The payments that are not final; `None` when the store cannot say.
    fn open(&self) -> Option<Vec<ForeignId>> {
        let read = || -> Result<Vec<ForeignId>, ReadError> {
            let range = Range::all();
            let store = &self.context.store;
            store.keys(&OPEN_PAYMENTS, &range, usize::MAX, Order::Ascending)
        };
        read()
            .inspect_err(|error| self.context.telemetry.store_unreadable(error))
            .ok()
    }

    /// Every few minutes: all open payments that are not on the agenda anyway.
    fn all(&mut self) {
        let now = Instant::now();
        self.sweeps_at = now + self.context.sweep_every;
        for id in self.open().unwrap_or_default() {
            if !self.agenda.known.contains_key(&id) && !self.asked_now.contains(&id) {
                let entry = Entry {
                    at: now,
                    asked: 0,
                    resume: false,
                };
                self.agenda.add(id, entry);
            }
        }
    }

    fn watch(&mut self, id: ForeignId, state: State) {
        if let Some((first, _)) = delays(state)
            && !self.agenda.known.contains_key(&id)
        {
            let entry = Entry {
                at: Instant::now() + first,
                asked: 0,
                resume: false,
            };
            self.agenda.add(id, entry);
        }
    }

    /// Asks about what is due, as fast as it may be. Answers when it may ask again.
    fn ask_what_is_due(&mut self, now: Instant) -> Option<Instant> {
        if self.asking.len() >= AT_ONCE || self.agenda.next().is_none_or(|at| at > now) {
            return None;
        }
        let is_busy = self.context.gateway.is_busy();
        let apart = if is_busy { APART_WHEN_BUSY } else { APART };
        let free_at = self.last_asked + apart;
        if free_at > now {
            // Capacity may become free any moment.
            return Some(free_at.min(now + APART));
        }
        if let Some((id, entry)) = self.agenda.take(now) {
            self.last_asked = now;
            self.asked_now.insert(id.clone());
            self.asking.spawn(ask(Arc::clone(&self.context), id, entry));
        }
        Some(now + APART)
    }

    fn answered(&mut self, answered: Answered) {
        let Answered {
            id,
            asked,
            payment,
            is_answer,
        } = answered;
        self.asked_now.remove(&id);
        if let Some(round) = &mut self.first_round {
            round.answered(&id, payment.as_ref(), is_answer);
        }
        let again = payment.and_then(|payment| delays(payment.state));
        if let Some((first, max)) = again {
            let entry = Entry {
                at: Instant::now() + delay(first, max, asked, id.as_str()),
                asked,
                resume: false,
            };
            self.agenda.add(id, entry);
        }
    }

    /// When everything has been asked about once after a start, reports what was missed.
    async fn end_first_round(&mut self) {
        if self
            .first_round
            .as_ref()
            .is_some_and(heartbeat::FirstRound::is_over)
            && let Some(round) = self.first_round.take()
        {
            round.report(&self.context).await;
        }
    }
}

async fn ask(context: Arc<Context>, id: ForeignId, entry: Entry) -> Answered {
    let asked = entry.asked.saturating_add(1);
    let outcome = if entry.resume {
        context.payments.resume(&id).await
    } else {
        ask_once(&context, &id).await
    };
    let (payment, is_answer) = match outcome {
        Ok(payment) => (payment, true),
        Err(PayError::Unavailable(_) | PayError::Unauthorised(_)) => {
            (context.payments.find(&id).ok().flatten(), false)
        }
        Err(error) => {
            context.telemetry.payment_stuck(&id, &error.to_string());
            (None, false)
        }
    };
    Answered {
        id,
        asked,
        payment,
        is_answer,
    }
}

/// Looks a payment up, unless it has been settled meanwhile or is not at the gateway.
async fn ask_once(context: &Context, id: &ForeignId) -> Result<Option<Payment>, PayError> {
    let Some(payment) = context.payments.find(id)? else {
        return Ok(None);
    };
    match payment.state {
        State::Intended => context.payments.resume(id).await,
        State::Unknown => {
            let looked_up = context.payments.look_up(id).await;
            // Whether or not the gateway answered, there is an end to not knowing.
            match context.payments.lose_patience(id).await? {
                Some(moved_on) => Ok(Some(moved_on)),
                None => looked_up,
            }
        }
        State::Accepted | State::Pending | State::Held
            if can_be_looked_up(payment.content.operation) =>
        {
            context.payments.look_up(id).await
        }
        // One that is being sent has somebody who waits for its answer.
        State::Accepted
        | State::Pending
        | State::Held
        | State::Sending
        | State::Planned
        | State::AwaitingApproval
        | State::Confirmed
        | State::Declined
        | State::Cancelled
        | State::Rejected
        | State::Refused => Ok(Some(payment)),
    }
}

/// The first and the longest delay between look-ups of a payment in this state; `None` when the
/// next sweep is early enough.
const fn delays(state: State) -> Option<(Duration, Duration)> {
    match state {
        State::Unknown | State::Sending | State::Intended => Some(UNKNOWN),
        State::Accepted
        | State::Pending
        | State::Held
        | State::Planned
        | State::AwaitingApproval
        | State::Confirmed
        | State::Declined
        | State::Cancelled
        | State::Rejected
        | State::Refused => None,
    }
}
