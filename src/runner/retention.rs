//! Deletes what is older than is kept: runs that have ended with their journals, records of slots,
//! script sets that no run is pinned to any more, and long contents that nothing names any more.
//!
//! What protects against doing anything twice is never touched: payments, events, `once`, state,
//! and runs that are open or parked. One pass reads every run once, newest first, in small pieces
//! with pauses; it may end at any moment, and the next one does what it has left.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Context;
use super::handle::Handle;
use super::unwritten;
use crate::domain::clock::Timestamp;
use crate::domain::id::{HandlerId, RunId, SetHash};
use crate::domain::run::{Run, RunState};
use crate::store::schema::{
    CURRENT_SET, OPEN_PAYMENTS, PAYMENTS, RUNS, SCHEDULES, SETS, SLOTS, STEPS, UnwrittenRuns,
};
use crate::store::{
    Changes, CommitError, Key, Order, Range, ReadError, Record, Store, Table, Unreferenced,
};

/// Rows read at a time; after as many, others have their turn.
const PIECE: usize = 500;

/// Rows after which a commit is made.
const ROWS: usize = 500;

/// The pause between two pieces.
const PAUSE: Duration = Duration::from_millis(50);

/// What one pass has deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TidiedUp {
    /// Runs, with their journals.
    pub runs: u64,
    /// Records of slots.
    pub slots: u64,
    /// Script sets.
    pub sets: u64,
    /// Long contents: sources of scripts, results of steps, bodies of events.
    pub blobs: u64,
    /// Records that could not be read. They stay, and so do script sets, which they may name.
    pub unreadable: u64,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("the daemon is stopping")]
    Stopping,
    #[error("the pass was interrupted")]
    Interrupted,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("a long content cannot be deleted: {0}")]
    Blobs(#[from] std::io::Error),
}

impl Handle {
    /// Deletes what is older than is kept. What was deleted stays so if this ends early, or the
    /// future is dropped; the next call goes on.
    pub async fn tidy_up(&self) -> TidiedUp {
        let mut done = TidiedUp::default();
        let end = self.pass(&mut done).await;
        let telemetry = &self.context.telemetry;
        let deleted = [
            ("runs", done.runs),
            ("slots", done.slots),
            ("sets", done.sets),
            ("blobs", done.blobs),
        ];
        telemetry.tidied_up(&deleted, done.unreadable);
        match end {
            Ok(()) | Err(Unfinished::Stopping) => {}
            Err(error) => telemetry.not_tidied_up(&error),
        }
        done
    }

    async fn pass(&self, done: &mut TidiedUp) -> Result<(), Unfinished> {
        let mut pass = Pass::new(Arc::clone(&self.context));
        loop {
            let piece = tokio::task::spawn_blocking(move || {
                let more = pass.piece();
                (pass, more)
            });
            let (after, more) = piece.await.map_err(|_| Unfinished::Interrupted)?;
            *done = after.done;
            if !more? {
                return Ok(());
            }
            pass = after;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What a pass is about to do.
#[derive(Debug)]
enum Next {
    /// Find out what must stay.
    Begin,
    /// Runs that were accepted before this one.
    Runs(Option<RunId>),
    /// The schedules after this one.
    Slots(Option<HandlerId>),
    Sets,
    /// Long contents that nothing named so far.
    Blobs(Unreferenced),
}

/// One pass.
struct Pass {
    context: Arc<Context>,
    next: Next,
    /// What ended before this is too old.
    limit: Timestamp,
    /// What the last note says of runs that a start would take for missing.
    note: Option<UnwrittenRuns>,
    /// Runs that an open payment came from.
    paying: BTreeSet<RunId>,
    /// Closed runs that were found so far.
    closed: u64,
    /// Script sets that may be deleted unless a run names them.
    sets: BTreeSet<SetHash>,
    done: TidiedUp,
}

impl Pass {
    fn new(context: Arc<Context>) -> Self {
        let keep = chrono::TimeDelta::from_std(context.history.keep).unwrap_or_default();
        let now = context.clock.now();
        Self {
            next: Next::Begin,
            limit: now
                .checked_sub_signed(keep)
                .unwrap_or(Timestamp::UNIX_EPOCH),
            context,
            note: None,
            paying: BTreeSet::new(),
            closed: 0,
            sets: BTreeSet::new(),
            done: TidiedUp::default(),
        }
    }

    /// Does the next piece. Answers whether there is more.
    fn piece(&mut self) -> Result<bool, Unfinished> {
        if self.context.dispatcher.is_stopping() {
            return Err(Unfinished::Stopping);
        }
        self.next = match std::mem::replace(&mut self.next, Next::Sets) {
            Next::Begin => {
                self.begin()?;
                Next::Runs(None)
            }
            Next::Runs(last) => match self.runs(last.as_ref())? {
                Some(last) => Next::Runs(Some(last)),
                None => Next::Slots(None),
            },
            Next::Slots(last) => match self.slots(last.as_ref())? {
                Some(last) => Next::Slots(Some(last)),
                None => Next::Sets,
            },
            Next::Sets => {
                self.delete_sets()?;
                Next::Blobs(self.context.store.unreferenced_blobs(self.yesterday())?)
            }
            Next::Blobs(mut blobs) => {
                if !self.context.store.keep_referenced(&mut blobs)? {
                    self.done.blobs = self.context.store.delete_unreferenced(blobs)?;
                    return Ok(false);
                }
                Next::Blobs(blobs)
            }
        };
        Ok(true)
    }

    /// A closed run makes no payment any more, and a new run starts on a set that is not among
    /// these: so what is found here stays true during the pass.
    fn begin(&mut self) -> Result<(), Unfinished> {
        let context = Arc::clone(&self.context);
        context.tokio.block_on(unwritten::note(&context));
        self.note = unwritten::last_note(&context.store)?;
        for id in all_keys(&context.store, &OPEN_PAYMENTS)? {
            if let Some(payment) = context.store.get(&PAYMENTS, &id)? {
                self.paying.insert(payment.origin.run);
            }
        }
        let current = context.store.get(&CURRENT_SET, &String::new())?;
        self.sets = all_keys(&context.store, &SETS)?
            .into_iter()
            .filter(|set| Some(set) != current.as_ref() && context.generations.is_left(set))
            .collect();
        for run in context.unwritten.all() {
            self.sets.remove(&run.set);
        }
        Ok(())
    }

    /// What was put before this is in a record by now, if it ever will be.
    fn yesterday(&self) -> SystemTime {
        let day = chrono::TimeDelta::days(1);
        let now = self.context.clock.now();
        now.checked_sub_signed(day)
            .unwrap_or(Timestamp::UNIX_EPOCH)
            .into()
    }

    /// Goes through a piece of the runs before `last`. Answers the last one seen, `None` at the
    /// end.
    fn runs(&mut self, last: Option<&RunId>) -> Result<Option<RunId>, Unfinished> {
        let context = Arc::clone(&self.context);
        let range = after(last);
        let keys = context
            .store
            .keys(&RUNS, &range, PIECE, Order::Descending)?;
        let mut batch = Batch::new(&context);
        for id in &keys {
            let found = match context.store.get_versioned(&RUNS, id) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(ReadError::Undecodable { .. } | ReadError::Newer { .. }) => {
                    self.done.unreadable = self.done.unreadable.saturating_add(1);
                    continue;
                }
                Err(error @ (ReadError::Blob { .. } | ReadError::Index(_))) => {
                    return Err(error.into());
                }
            };
            let run = &found.value;
            if run.state.is_closed() {
                self.closed = self.closed.saturating_add(1);
            }
            if self.is_over(run) {
                batch.remove_journal(run.id)?;
                batch.changes.require_unchanged(&RUNS, &run.id, &found);
                batch.changes.remove(&RUNS, &run.id);
                self.done.runs = self.done.runs.saturating_add(batch.counted(1)?);
            } else {
                self.sets.remove(&run.set);
            }
        }
        self.done.runs = self.done.runs.saturating_add(batch.commit()?);
        Ok(if keys.len() < PIECE {
            None
        } else {
            keys.into_iter().next_back()
        })
    }

    /// Whether a run is to be deleted.
    fn is_over(&self, run: &Run) -> bool {
        let has_ended = matches!(run.state, RunState::Succeeded | RunState::Cancelled);
        let is_old = run.ended_at.is_some_and(|ended| ended < self.limit);
        let is_too_many = self.closed > self.context.history.keep_most;
        let is_vouched_for = self
            .note
            .as_ref()
            .is_some_and(|note| !note.may_lack(run.id));
        has_ended && (is_old || is_too_many) && is_vouched_for && !self.paying.contains(&run.id)
    }

    /// Deletes old slots of the next schedule. A slot that its schedule has not passed yet would
    /// fire without its record, so it stays. Answers the schedule, `None` at the end.
    fn slots(&mut self, last: Option<&HandlerId>) -> Result<Option<HandlerId>, Unfinished> {
        let context = Arc::clone(&self.context);
        let store = &context.store;
        let range = after(last);
        let mut found = store.scan(&SCHEDULES, &range, 1, Order::Ascending)?;
        let Some((schedule, record)) = found.pop() else {
            return Ok(None);
        };
        let (settled, limit) = (record.settled_until, self.limit);
        let is_past = |slot: Timestamp| slot <= settled && slot < limit;
        let mut batch = Batch::new(&context);
        let mut last = None;
        loop {
            let range = Range::within(&schedule);
            let range = match &last {
                Some(last) => range.after(last),
                None => range,
            };
            let slots = store.scan(&SLOTS, &range, PIECE, Order::Ascending)?;
            let old = slots.iter().take_while(|((_, slot), _)| is_past(*slot));
            for (key, _) in old.filter(|(_, slot)| slot.at < self.limit) {
                batch.changes.remove(&SLOTS, key);
                self.done.slots = self.done.slots.saturating_add(batch.counted(1)?);
            }
            let reaches_end = slots.last().is_none_or(|((_, slot), _)| !is_past(*slot));
            if reaches_end || slots.len() < PIECE {
                break;
            }
            last = slots.into_iter().next_back().map(|(key, _)| key);
        }
        self.done.slots = self.done.slots.saturating_add(batch.commit()?);
        Ok(Some(schedule))
    }

    /// Deletes the script sets that no run is pinned to. Nothing is known of runs that cannot be
    /// read, so with those all sets stay.
    fn delete_sets(&mut self) -> Result<(), Unfinished> {
        if self.done.unreadable > 0 {
            return Ok(());
        }
        let context = Arc::clone(&self.context);
        let store = &context.store;
        for set in std::mem::take(&mut self.sets) {
            // A set that comes into use again meanwhile changes both records.
            let current = store.get_versioned(&CURRENT_SET, &String::new())?;
            let record = store.get_versioned(&SETS, &set)?;
            let (Some(current), Some(record)) = (current, record) else {
                continue;
            };
            if current.value == set || !context.generations.is_left(&set) {
                continue;
            }
            let mut batch = Batch::new(&context);
            let changes = &mut batch.changes;
            changes.require_unchanged(&CURRENT_SET, &String::new(), &current);
            changes.require_unchanged(&SETS, &set, &record);
            changes.remove(&SETS, &set);
            batch.things = 1;
            self.done.sets = self.done.sets.saturating_add(batch.commit()?);
        }
        Ok(())
    }
}

/// Deletions that are collected for one commit.
struct Batch<'a> {
    context: &'a Context,
    changes: Changes,
    rows: usize,
    /// The runs, slots or sets that the changes delete.
    things: u64,
    /// Those that are deleted and not yet answered.
    committed: u64,
}

impl<'a> Batch<'a> {
    fn new(context: &'a Context) -> Self {
        Self {
            context,
            changes: Changes::new(),
            rows: 0,
            things: 0,
            committed: 0,
        }
    }

    /// Removes a journal. A long one takes several commits; the run goes with the last.
    fn remove_journal(&mut self, run: RunId) -> Result<(), Unfinished> {
        loop {
            let range = Range::within(&run);
            let store = &self.context.store;
            let steps = store.keys(&STEPS, &range, ROWS, Order::Ascending)?;
            for step in &steps {
                self.changes.remove(&STEPS, step);
            }
            self.rows = self.rows.saturating_add(steps.len());
            if steps.len() < ROWS {
                return Ok(());
            }
            self.committed = self.committed.saturating_add(self.commit()?);
        }
    }

    /// One more thing is deleted, in so many rows. Answers how many things were committed.
    fn counted(&mut self, rows: usize) -> Result<u64, Unfinished> {
        self.rows = self.rows.saturating_add(rows);
        self.things = self.things.saturating_add(1);
        let committed = std::mem::take(&mut self.committed);
        if self.rows < ROWS {
            return Ok(committed);
        }
        Ok(committed.saturating_add(self.commit()?))
    }

    /// Answers how many things were deleted, on disk.
    fn commit(&mut self) -> Result<u64, Unfinished> {
        let changes = std::mem::take(&mut self.changes);
        let things = std::mem::take(&mut self.things);
        self.rows = 0;
        let committed = self.context.store.commit(changes);
        match self.context.tokio.block_on(committed) {
            Ok(()) => Ok(things),
            // Something has changed meanwhile: the next pass looks at it.
            Err(CommitError::Refused) => Ok(0),
            Err(error @ (CommitError::Unstorable { .. } | CommitError::Poisoned)) => {
                Err(error.into())
            }
        }
    }
}

/// What comes after a key, or everything.
fn after<K: Key>(last: Option<&K>) -> Range<K> {
    match last {
        Some(last) => Range::all().after(last),
        None => Range::all(),
    }
}

/// Every key of a small table.
fn all_keys<K: Key, V: Record>(store: &Store, table: &Table<K, V>) -> Result<Vec<K>, ReadError> {
    store.keys(table, &Range::all(), usize::MAX, Order::Ascending)
}
