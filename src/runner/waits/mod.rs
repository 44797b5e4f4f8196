//! Who waits for what: the rows by which waiting runs are found again, and the one task that wakes
//! them.
//!
//! Whoever commits something that may end waits holds a [`Happening`] meanwhile and notes it in the
//! same commit as news. The task looks into news, due deadlines and the rows, and lets runs go on:
//! durably, before it takes the news off the list. It never decides that a wait is over: the run
//! looks for itself when it is executed again, and waits on if it was woken for nothing.
//!
//! # Design
//! A wait and what it waits for may be committed at the same moment by different threads. The run
//! first makes its kind of wait known here, then commits its rows, then looks once more; and a
//! [`Happening`] that began before the wait was known has ended by then. So whatever happens is
//! either seen by that last look, or noted as news on the disk.

mod kinds;
mod known;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::events;
use super::suspension::first_open;
use super::ticket::{Started, Ticket};
use crate::crash_point::CrashPoint;
use crate::domain::id::RunId;
use crate::domain::run::{Run, RunEvent, RunState};
use crate::domain::wait::{Shape, WaitFor};
use crate::store::schema::{
    EVENTS, EVENTS_BY_ORDER, Mark, NEWS, News, OPEN_RUNS, PAYMENTS, RUNS, WAITS_BY_EVENT,
    WAITS_BY_PAYMENT, WAITS_BY_PLAN, WAITS_BY_TIME,
};
use crate::store::{Changes, CommitError, Order, Range, ReadError};

pub(super) use known::{Happening, Waits};
pub(super) use rows::{add_rows, remove_rows};

use rows::{Row, rows};

/// The most runs woken, and the most news taken off the list, in one commit.
const AT_ONCE: usize = 100;

/// How long the task rests after a failure of the store.
const REST: Duration = Duration::from_secs(1);

/// The events that are looked at again after a start: more than can be committed while one run
/// begins to wait.
const LATEST: usize = 10_000;

/// Why waits could not be ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WaitError {
    /// The store cannot write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store cannot read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Wakes runs until it is dropped.
pub(super) async fn run(context: Arc<Context>) {
    let mut settled = look_again(&context).await;
    loop {
        settled = settled.and(settle(&context).await);
        if let Err(error) = settled {
            context.telemetry.waits_not_ended(&error.to_string());
            tokio::time::sleep(REST).await;
        }
        settled = Ok(());
        context.waits.news.notified().await;
    }
}

/// Takes what was committed last before the process ended for news, since runs that began to wait
/// at that moment may not have come to look once more.
async fn look_again(context: &Context) -> Result<(), WaitError> {
    let store = &context.store;
    let mut outcome = Ok(());
    let latest = store.scan(&EVENTS_BY_ORDER, &Range::all(), LATEST, Order::Descending)?;
    for ((_, key), kind) in latest {
        let is_wanted = context
            .waits
            .wanted
            .read()
            .await
            .of_kind(&kind)
            .next()
            .is_some();
        if is_wanted {
            outcome = outcome.and(settle_news(context, &News::Event(key)).await);
        }
    }
    outcome
}

/// Looks into all news and all due deadlines.
async fn settle(context: &Context) -> Result<(), WaitError> {
    let news = settle_all_news(context).await;
    let deadlines = settle_deadlines(context).await;
    context.waits.forget_unused(&context.store).await?;
    news.and(deadlines)
}

async fn settle_all_news(context: &Context) -> Result<(), WaitError> {
    let mut outcome = Ok(());
    let mut range = Range::all();
    loop {
        let news = context
            .store
            .scan(&NEWS, &range, AT_ONCE, Order::Ascending)?;
        let Some((last, _)) = news.last() else {
            return outcome;
        };
        range = Range::all().after(last);
        let mut changes = Changes::new();
        for (news, _) in news {
            match settle_news(context, &news).await {
                Ok(()) => changes.remove(&NEWS, &news),
                // Nobody else is kept waiting by what cannot be read.
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        context.store.commit(changes).await?;
    }
}

async fn settle_deadlines(context: &Context) -> Result<(), WaitError> {
    loop {
        let now = context.clock.now();
        let due: Vec<_> = context
            .store
            .scan(&WAITS_BY_TIME, &Range::all(), AT_ONCE, Order::Ascending)?
            .into_iter()
            .take_while(|((at, _), _)| *at <= now)
            .map(|((at, run), _)| (run, Row::Time(at)))
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        wake(context, &due).await?;
    }
}

async fn settle_news(context: &Context, news: &News) -> Result<(), WaitError> {
    match news {
        News::Payment(id) => loop {
            let found: Vec<_> = context
                .store
                .scan(
                    &WAITS_BY_PAYMENT,
                    &Range::within(id),
                    AT_ONCE,
                    Order::Ascending,
                )?
                .into_iter()
                .map(|((id, run), _)| (run, Row::Payment(id)))
                .collect();
            wake(context, &found).await?;
            if found.len() < AT_ONCE {
                return Ok(());
            }
        },
        News::Plan(plan) => loop {
            let range = Range::within(plan);
            let rows = context
                .store
                .scan(&WAITS_BY_PLAN, &range, AT_ONCE, Order::Ascending)?;
            let found: Vec<_> = rows
                .into_iter()
                .map(|((plan, run), _)| (run, Row::Plan(plan)))
                .collect();
            wake(context, &found).await?;
            if found.len() < AT_ONCE {
                return Ok(());
            }
        },
        News::Event(key) => {
            let Some(record) = context.store.get(&EVENTS, key)? else {
                return Ok(());
            };
            let event = events::value(&context.store, &record)?;
            let wanted = context.waits.wanted.read().await;
            let shapes: Vec<Shape> = wanted.of_kind(&record.kind).cloned().collect();
            drop(wanted);
            for shape in shapes {
                let Some(digest) = shape.found(&event) else {
                    continue;
                };
                let place = (shape.pattern, shape.paths, digest);
                while wake_waiting_at(context, &place).await? {}
            }
            Ok(())
        }
    }
}

/// Wakes some of those who wait for such an event; false when there are none left.
async fn wake_waiting_at(
    context: &Context,
    place: &(String, String, String),
) -> Result<bool, WaitError> {
    let range = Range::within(place);
    let found: Vec<_> = context
        .store
        .scan(&WAITS_BY_EVENT, &range, AT_ONCE, Order::Ascending)?
        .into_iter()
        .map(|((pattern, paths, digest, run), _)| (run, Row::Event(pattern, paths, digest)))
        .collect();
    wake(context, &found).await?;
    Ok(found.len() == AT_ONCE)
}

/// Lets runs go on that were found by a row, in one commit.
async fn wake(context: &Context, found: &[(RunId, Row)]) -> Result<(), WaitError> {
    loop {
        let mut changes = Changes::new();
        let mut started = Started::default();
        for (id, row) in found {
            row.clone().remove(*id, &mut changes);
            let Some(stored) = context.store.get_versioned(&RUNS, id)? else {
                changes.require_absent(&RUNS, id);
                continue;
            };
            // Also where nothing is done: it may begin to wait again this moment.
            changes.require_unchanged(&RUNS, id, &stored);
            let mut run = stored.value;
            if run.state == RunState::Waiting && rows(&run).contains(row) {
                started.0.extend(go_on(context, &mut run, &mut changes));
            }
        }
        match context.store.commit(changes).await {
            Ok(()) => {}
            Err(CommitError::Refused) => continue,
            Err(error) => return Err(error.into()),
        }
        if !started.0.is_empty() {
            CrashPoint::RunWoken.pass();
            context.telemetry.runs_woken(started.0.len());
        }
        context.dispatcher.enqueue(started);
        return Ok(());
    }
}

/// Wakes a waiting run, or lets it watch the next of its payments that is open.
fn go_on(context: &Context, run: &mut Run, changes: &mut Changes) -> Option<Ticket> {
    remove_rows(run, changes);
    let now = context.clock.now();
    let mut open = None;
    if let Some(wait) = &run.wait
        && wait.deadline.is_none_or(|deadline| deadline > now)
        && let WaitFor::Payments { watched, all } = &wait.on
    {
        // What cannot be read keeps nobody waiting: the run looks at the payments themselves.
        open = first_open(context, all, watched).unwrap_or_default();
    }
    if let Some((id, payment)) = open {
        changes.require_unchanged(&PAYMENTS, &id, &payment);
        if let Some(wait) = &mut run.wait
            && let WaitFor::Payments { watched, .. } = &mut wait.on
        {
            *watched = id;
        }
        add_rows(run, changes);
        changes.put(&RUNS, &run.id, run);
        return None;
    }
    if let Ok(woken) = run.state.next(RunEvent::Woken) {
        run.state = woken;
    }
    changes.put(&OPEN_RUNS, &run.id, &Mark);
    changes.put(&RUNS, &run.id, run);
    Some(Ticket::of(run))
}

/// Wakes one run whatever it waits for.
pub(super) async fn wake_one(context: &Context, run: &Run) -> Result<(), WaitError> {
    match rows(run).pop() {
        Some(row) => wake(context, &[(run.id, row)]).await,
        None => Ok(()),
    }
}
