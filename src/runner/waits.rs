//! Who waits for what: the rows by which waiting runs are found again, and the one task that wakes
//! them.
//!
//! Whoever commits something that may end waits holds a [`Happening`] meanwhile and notes it in the
//! same commit as news. The task looks into news, due deadlines and the rows, and lets runs go on:
//! durably, in one commit with the news it takes off the list. It never decides that a wait is
//! over: the run looks for itself when it is executed again, and waits on if it was woken for
//! nothing.
//!
//! # Design
//! A wait and what it waits for may be committed at the same moment by different threads. The run
//! first makes its kind of wait known here, then commits its rows, then looks once more; and a
//! [`Happening`] that began before the wait was known has ended by then. So whatever happens is
//! either seen by that last look, or noted as news on the disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, RwLock, RwLockReadGuard};

use super::Context;
use super::dispatcher::{Started, Ticket};
use super::events;
use super::suspension::first_open;
use crate::crash_point::CrashPoint;
use crate::domain::clock::Timestamp;
use crate::domain::id::{ForeignId, RunId};
use crate::domain::payment::Payment;
use crate::domain::run::{Run, RunEvent, RunState};
use crate::domain::wait::{Shape, WaitFor, wanted};
use crate::store::schema::{
    EVENTS, Mark, NEWS, News, OPEN_RUNS, PAYMENTS, RUNS, WAITS_BY_EVENT, WAITS_BY_PAYMENT,
    WAITS_BY_TIME,
};
use crate::store::{Changes, CommitError, Order, Range, ReadError, Store};

/// The most runs woken, and news looked into, in one commit.
const AT_ONCE: usize = 100;

/// How long the task rests after a failure of the store.
const REST: Duration = Duration::from_secs(1);

/// Greater than every digest, which are hexadecimal.
const AFTER_DIGESTS: &str = "~";

/// What is waited for, as far as it must be known before anything happens.
#[derive(Debug)]
pub(super) struct Waits {
    wanted: RwLock<Wanted>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Wanted {
    /// Every shape that has rows, and some that have none any more.
    shapes: BTreeSet<Shape>,
    /// Whether anybody has ever waited for a payment.
    payments: bool,
}

/// Something that may end waits is being committed. Held until that is done.
#[derive(Debug)]
pub(super) struct Happening<'a> {
    wanted: RwLockReadGuard<'a, Wanted>,
    news: &'a Notify,
    noted: AtomicBool,
}

impl Happening<'_> {
    /// Notes an event with what is about to be committed.
    pub(super) fn event(&self, key: &str, kind: &str, changes: &mut Changes) {
        let mut shapes = self.wanted.shapes.iter();
        if shapes.any(|shape| shape.matches_kind(kind)) {
            self.note(&News::Event(key.to_owned()), changes);
        }
    }

    /// Notes what becomes of a payment with what is about to be committed.
    pub(super) fn payment(&self, payment: &Payment, changes: &mut Changes) {
        if self.wanted.payments && payment.state.is_final() {
            self.note(&News::Payment(payment.foreign_id.clone()), changes);
        }
    }

    fn note(&self, news: &News, changes: &mut Changes) {
        changes.put(&NEWS, news, &Mark);
        self.noted.store(true, Ordering::Relaxed);
    }
}

impl Drop for Happening<'_> {
    fn drop(&mut self) {
        if self.noted.load(Ordering::Relaxed) {
            self.news.notify_one();
        }
    }
}

impl Waits {
    /// Knows what is waited for in the store.
    pub(super) fn new(store: &Store) -> Result<Self, ReadError> {
        let mut wanted = Wanted {
            shapes: BTreeSet::new(),
            payments: !store
                .scan(&WAITS_BY_PAYMENT, &Range::all(), 1, Order::Ascending)?
                .is_empty(),
        };
        let mut range = Range::all();
        while let Some(((pattern, paths, _, _), _)) = store
            .scan(&WAITS_BY_EVENT, &range, 1, Order::Ascending)?
            .pop()
        {
            let last = (
                pattern.clone(),
                paths.clone(),
                AFTER_DIGESTS.to_owned(),
                RunId::new(0),
            );
            range = Range::all().after(&last);
            wanted.shapes.insert(Shape { pattern, paths });
        }
        Ok(Self {
            wanted: RwLock::new(wanted),
            news: Notify::new(),
        })
    }

    /// To be held from before the changes are made until they are committed.
    pub(super) async fn happening(&self) -> Happening<'_> {
        self.hold(self.wanted.read().await)
    }

    /// The same, on a script's thread.
    pub(super) fn happening_here(&self) -> Happening<'_> {
        self.hold(self.wanted.blocking_read())
    }

    fn hold<'a>(&'a self, wanted: RwLockReadGuard<'a, Wanted>) -> Happening<'a> {
        Happening {
            wanted,
            news: &self.news,
            noted: AtomicBool::new(false),
        }
    }

    /// Makes a wait known, on a script's thread, before its rows are committed.
    pub(super) fn expect(&self, wait: &WaitFor) {
        match wait {
            WaitFor::Time => {}
            WaitFor::Payments { .. } => {
                if !self.wanted.blocking_read().payments {
                    self.wanted.blocking_write().payments = true;
                }
            }
            WaitFor::Event { trigger, .. } => {
                let shape = Shape::of(trigger);
                if !self.wanted.blocking_read().shapes.contains(&shape) {
                    self.wanted.blocking_write().shapes.insert(shape);
                }
            }
        }
    }

    /// Lets the task look whether a deadline has come.
    pub(super) fn look(&self) {
        self.news.notify_one();
    }
}

/// A row by which a waiting run is found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Row {
    Payment(ForeignId),
    Event(String, String, String),
    Time(Timestamp),
}

impl Row {
    fn put(self, run: RunId, changes: &mut Changes) {
        match self {
            Self::Payment(id) => changes.put(&WAITS_BY_PAYMENT, &(id, run), &Mark),
            Self::Event(pattern, paths, digest) => {
                changes.put(&WAITS_BY_EVENT, &(pattern, paths, digest, run), &Mark);
            }
            Self::Time(at) => changes.put(&WAITS_BY_TIME, &(at, run), &Mark),
        }
    }

    fn remove(self, run: RunId, changes: &mut Changes) {
        match self {
            Self::Payment(id) => changes.remove(&WAITS_BY_PAYMENT, &(id, run)),
            Self::Event(pattern, paths, digest) => {
                changes.remove(&WAITS_BY_EVENT, &(pattern, paths, digest, run));
            }
            Self::Time(at) => changes.remove(&WAITS_BY_TIME, &(at, run)),
        }
    }
}

fn rows(run: &Run) -> Vec<Row> {
    let Some(wait) = &run.wait else {
        return Vec::new();
    };
    let on = match &wait.on {
        WaitFor::Time => None,
        WaitFor::Payments { watched, .. } => Some(Row::Payment(watched.clone())),
        WaitFor::Event { trigger, .. } => {
            let Shape { pattern, paths } = Shape::of(trigger);
            Some(Row::Event(pattern, paths, wanted(trigger)))
        }
    };
    on.into_iter().chain(wait.deadline.map(Row::Time)).collect()
}

/// Adds the rows by which a run that has begun to wait is found.
pub(super) fn add_rows(run: &Run, changes: &mut Changes) {
    for row in rows(run) {
        row.put(run.id, changes);
    }
}

/// Removes the rows of a run that waits no longer.
pub(super) fn remove_rows(run: &Run, changes: &mut Changes) {
    for row in rows(run) {
        row.remove(run.id, changes);
    }
}

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
    loop {
        if let Err(error) = settle(&context).await {
            context.telemetry.waits_not_ended(&error.to_string());
            tokio::time::sleep(REST).await;
        }
        context.waits.news.notified().await;
    }
}

/// Looks into all news and all due deadlines.
async fn settle(context: &Context) -> Result<(), WaitError> {
    loop {
        let news = context
            .store
            .scan(&NEWS, &Range::all(), AT_ONCE, Order::Ascending)?;
        if news.is_empty() {
            break;
        }
        for (news, _) in news {
            settle_news(context, &news).await?;
        }
    }
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
        wake(context, &due, None).await?;
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
            let is_last = found.len() < AT_ONCE;
            wake(context, &found, is_last.then_some(news)).await?;
            if is_last {
                return Ok(());
            }
        },
        News::Event(key) => {
            if let Some(record) = context.store.get(&EVENTS, key)? {
                let event = events::value(&context.store, &record)?;
                let shapes = context.waits.wanted.read().await.shapes.clone();
                let shapes = shapes
                    .into_iter()
                    .filter(|shape| shape.matches_kind(&record.kind));
                for shape in shapes {
                    let Some(digest) = shape.found(&event) else {
                        continue;
                    };
                    let place = (shape.pattern, shape.paths, digest);
                    while wake_waiting_at(context, &place).await? {}
                }
            }
            wake(context, &[], Some(news)).await
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
    wake(context, &found, None).await?;
    Ok(found.len() == AT_ONCE)
}

/// Lets runs go on that were found by a row, and takes `news` off the list, in one commit.
async fn wake(
    context: &Context,
    found: &[(RunId, Row)],
    news: Option<&News>,
) -> Result<(), WaitError> {
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
                started.0.extend(go_on(context, &mut run, &mut changes)?);
            }
        }
        if let Some(news) = news {
            changes.remove(&NEWS, news);
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
fn go_on(
    context: &Context,
    run: &mut Run,
    changes: &mut Changes,
) -> Result<Option<Ticket>, ReadError> {
    remove_rows(run, changes);
    let now = context.clock.now();
    let mut open = None;
    if let Some(wait) = &run.wait
        && wait.deadline.is_none_or(|deadline| deadline > now)
        && let WaitFor::Payments { watched, all } = &wait.on
    {
        open = first_open(context, all, watched)?;
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
        return Ok(None);
    }
    if let Ok(woken) = run.state.next(RunEvent::Woken) {
        run.state = woken;
    }
    changes.put(&OPEN_RUNS, &run.id, &Mark);
    changes.put(&RUNS, &run.id, run);
    Ok(Some(Ticket::of(run)))
}

/// Wakes one run whatever it waits for.
pub(super) async fn wake_one(context: &Context, run: &Run) -> Result<(), WaitError> {
    match rows(run).pop() {
        Some(row) => wake(context, &[(run.id, row)], None).await,
        None => Ok(()),
    }
}
