//! Runs that the store does not have yet, but for the callbacks that start them.
//!
//! Most runs that callbacks start are over after their first execution. To write each of them before
//! it, open, and again after it, ended, would be most of what a callback's handling writes; so such a
//! run is written when an execution of it has ended, and until then the record of its event stands for
//! it. Now and then it is noted in the store up to which place of the order accepted every event's
//! runs are written, but for those that the note names; a start reads the events behind that place
//! and writes the runs that are missing.
//!
//! # Design
//! A run is known here from before its event is committed until its own record is on disk; so a note
//! may name runs that are written, and never leaves out one that is not. What is written may be
//! deleted when it is old, and must not be taken for missing then: a run that the last note does not
//! vouch for is not deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::filter;
use super::firings::{add_run, queued_runs};
use super::views::ViewError;
use super::{Context, StartError};
use crate::domain::id::RunId;
use crate::domain::run::Run;
use crate::store::schema::{
    EVENTS, EVENTS_BY_ORDER, Mark, OPEN_RUNS, RUNS, UNWRITTEN, UnwrittenRuns,
};
use crate::store::{Changes, Order, Range, ReadError, Store, Versioned};

/// The most unwritten runs. With more of them the next ones wait for long, and a note would not fit
/// into a record.
const MOST: usize = 500;

/// How many runs begin between two notes at least. A start reads the events of as many, or a few more.
const APART: usize = 1_000;

/// Runs that a start writes in one commit.
const AT_ONCE: usize = 500;

/// The runs that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    state: Mutex<State>,
    /// Held while a note is made: what a later one vouches for, an earlier one must not take back.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    runs: BTreeMap<RunId, Known>,
    /// Whether there is a note since the start. Until then every run is written at once.
    is_noted: bool,
    /// How many unwritten runs have begun since the last one.
    begun: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Known {
    run: Arc<Run>,
    /// The place of its event.
    event: u64,
    /// Whether its event is on disk, and the dispatcher says when the run is.
    is_queued: bool,
}

/// A run whose event is about to be committed without it. It is forgotten when this is dropped, unless
/// the dispatcher has it by then.
#[derive(Debug)]
pub(super) struct Place {
    unwritten: Arc<Unwritten>,
    run: RunId,
}

impl Unwritten {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Knows a run of the event at that place. Without a [`Place`] the run must be written with it.
    pub(super) fn begin(self: &Arc<Self>, event: u64, run: &Arc<Run>) -> Option<Place> {
        let mut state = self.state();
        if !state.is_noted || state.is_closed || state.runs.len() >= MOST {
            return None;
        }
        let known = Known {
            run: Arc::clone(run),
            event,
            is_queued: false,
        };
        state.runs.insert(run.id, known);
        state.begun += 1;
        Some(Place {
            unwritten: Arc::clone(self),
            run: run.id,
        })
    }

    /// Whether the store may not have the run.
    pub(super) fn has(&self, run: RunId) -> bool {
        self.state().runs.contains_key(&run)
    }

    /// All of them, in the order accepted.
    pub(super) fn all(&self) -> Vec<Arc<Run>> {
        let state = self.state();
        let runs = state.runs.values();
        runs.map(|known| Arc::clone(&known.run)).collect()
    }

    /// Takes it that the run is written, on disk.
    pub(super) fn settle(&self, run: RunId) {
        self.state().runs.remove(&run);
    }

    /// From now on nothing is noted any more, and every run is written at once.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
    }

    /// The run as it was queued, if the store may not have it.
    fn get(&self, run: RunId) -> Option<Arc<Run>> {
        let state = self.state();
        let known = state.runs.get(&run).filter(|known| known.is_queued);
        known.map(|known| Arc::clone(&known.run))
    }

    /// Those that are queued and come before `end`, the last accepted first.
    fn newest(&self, end: Option<RunId>) -> Vec<RunId> {
        let state = self.state();
        let known = state.runs.iter().rev();
        known
            .filter(|(run, known)| known.is_queued && end.is_none_or(|end| **run < end))
            .map(|(run, _)| *run)
            .collect()
    }

    /// What may be noted. The runs of every event up to `until` must have begun.
    fn to_note(&self, until: u64) -> Option<UnwrittenRuns> {
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        state.begun = 0;
        let runs = state.runs.iter();
        let before = runs.map(|(run, known)| (known.event, *run)).collect();
        Some(UnwrittenRuns { until, before })
    }
}

impl Place {
    /// Takes it that the dispatcher has the run, and says when it is written.
    pub(super) fn queued(&self) {
        if let Some(known) = self.unwritten.state().runs.get_mut(&self.run) {
            known.is_queued = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.unwritten.state();
        let is_queued = |known: &Known| known.is_queued;
        // Where something has gone wrong, nobody knows whether the event was committed.
        if !state.runs.get(&self.run).is_some_and(is_queued) && !std::thread::panicking() {
            state.runs.remove(&self.run);
        }
    }
}

/// A run, as the store has it or as it was queued.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) run: Run,
    stored: Option<Versioned<Run>>,
}

impl Found {
    /// Requires that the run is still as it was found.
    pub(super) fn require_unchanged(&self, changes: &mut Changes) {
        match &self.stored {
            Some(stored) => changes.require_unchanged(&RUNS, &self.run.id, stored),
            None => changes.require_absent(&RUNS, &self.run.id),
        }
    }
}

/// The run of that id, written or not.
pub(super) fn find(context: &Context, id: RunId) -> Result<Option<Found>, ReadError> {
    // In this order: it may be written in between.
    let unwritten = context.unwritten.get(id);
    Ok(match context.store.get_versioned(&RUNS, &id)? {
        Some(stored) => Some(Found {
            run: stored.value.clone(),
            stored: Some(stored),
        }),
        None => unwritten.map(|run| Found {
            run: Run::clone(&run),
            stored: None,
        }),
    })
}

/// Visits the ids of runs, written or not, the last accepted first, from before `end` until the visitor
/// breaks.
pub(super) fn newest(
    context: &Context,
    end: Option<RunId>,
    mut visit: impl FnMut(RunId) -> Result<ControlFlow<()>, ViewError>,
) -> Result<(), ViewError> {
    // In this order: they may be written in between.
    let mut unwritten = context.unwritten.newest(end).into_iter().peekable();
    let mut flow = ControlFlow::Continue(());
    filter::newest(&context.store, &RUNS, end, |id| {
        while let Some(newer) = unwritten.next_if(|newer| newer > id) {
            flow = visit(newer)?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        unwritten.next_if_eq(id);
        flow = visit(*id)?;
        Ok(flow)
    })?;
    for older in unwritten {
        if flow.is_break() {
            break;
        }
        flow = visit(older)?;
    }
    Ok(())
}

/// Writes a run after an execution, and whether it is among those that will be executed, or that keep
/// their lane.
pub(super) fn put(context: &Context, run: &Run, is_open: bool, changes: &mut Changes) {
    changes.put(&RUNS, &run.id, run);
    match (is_open, context.unwritten.has(run.id)) {
        (true, true) => changes.put(&OPEN_RUNS, &run.id, &Mark),
        (false, false) => changes.remove(&OPEN_RUNS, &run.id),
        // As it was.
        (true, false) | (false, true) => {}
    }
}

/// The last note in the store.
pub(super) fn last_note(store: &Store) -> Result<Option<UnwrittenRuns>, ReadError> {
    store.get(&UNWRITTEN, &String::new())
}

/// Notes which runs are not written, if many have begun since the last time.
pub(super) async fn note_sometimes(context: &Context) {
    let is_due = {
        let state = context.unwritten.state();
        !state.is_noted || state.begun >= APART
    };
    if is_due {
        note(context).await;
    }
}

/// Notes which runs are not written. On disk when this returns, unless it says otherwise.
pub(super) async fn note(context: &Context) {
    let _turn = context.unwritten.turn.lock().await;
    let last = || context.firings.last_order();
    let until = context.waits.complete_until(last);
    let Some(note) = context.unwritten.to_note(until) else {
        return;
    };
    let mut changes = Changes::new();
    changes.put(&UNWRITTEN, &String::new(), &note);
    match context.store.commit(changes).await {
        Ok(()) => context.unwritten.state().is_noted = true,
        Err(error) => context.telemetry.runs_not_noted(&error.to_string()),
    }
}

/// Writes, as open ones, the runs that were not written when the process ended. Called at the start,
/// before any other begins.
pub(super) async fn write_all(context: &Context) -> Result<(), StartError> {
    let Some(note) = last_note(&context.store)? else {
        return Ok(());
    };
    let missing = missing(context, &note)?;
    if let Some(last) = missing.iter().map(|run| run.id.order()).max() {
        context.firings.go_on_after(last);
    }
    for some in missing.chunks(AT_ONCE) {
        let mut changes = Changes::new();
        for run in some {
            add_run(run, &mut changes);
        }
        context.store.commit(changes).await?;
    }
    Ok(())
}

/// The runs that the store does not have.
fn missing(context: &Context, note: &UnwrittenRuns) -> Result<Vec<Run>, ReadError> {
    let store = &context.store;
    let named: BTreeSet<RunId> = note.before.iter().map(|(_, run)| *run).collect();
    let mut places: BTreeMap<u64, String> = BTreeMap::new();
    for (event, _) in &note.before {
        let range = Range::within(event);
        places.extend(store.keys(&EVENTS_BY_ORDER, &range, 1, Order::Ascending)?);
    }
    let later = Range::all().after(&(note.until.saturating_add(1), String::new()));
    places.extend(store.keys(&EVENTS_BY_ORDER, &later, usize::MAX, Order::Ascending)?);
    let mut missing = Vec::new();
    for (place, key) in &places {
        let event = match store.get(&EVENTS, key) {
            Err(error @ (ReadError::Undecodable { .. } | ReadError::Newer { .. })) => {
                context.telemetry.store_unreadable(&error);
                // The note stays as it is, so that a start that can read it finds its runs.
                context.unwritten.close();
                continue;
            }
            Ok(None) => continue,
            read => read?,
        };
        for run in event.into_iter().flat_map(|event| queued_runs(key, event)) {
            if *place <= note.until && !named.contains(&run.id) {
                continue;
            }
            match store.get(&RUNS, &run.id) {
                Ok(None) => missing.push(run),
                // One that cannot be read is there.
                Ok(Some(_)) | Err(ReadError::Undecodable { .. } | ReadError::Newer { .. }) => {}
                Err(error @ (ReadError::Blob { .. } | ReadError::Index(_))) => return Err(error),
            }
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::domain::clock::Timestamp;
    use crate::domain::id::{Firing, HandlerId, SetHash};
    use crate::domain::run::Input;
    use crate::store::MAX_RECORD_BYTES;

    fn noted() -> Arc<Unwritten> {
        let unwritten = Unwritten::default();
        unwritten.state().is_noted = true;
        Arc::new(unwritten)
    }

    fn run(order: u64) -> Arc<Run> {
        let handler = HandlerId {
            script: "s".to_owned(),
            name: "h".to_owned(),
        };
        let (firing, input) = (Firing::Event("e".into()), Input::Event("e".into()));
        let (set, at) = (SetHash::of([]), Timestamp::UNIX_EPOCH);
        Arc::new(Run::queued(handler, firing, input, set, order, at))
    }

    fn named(note: Option<UnwrittenRuns>) -> Vec<(u64, u64)> {
        let note = note.expect("a note");
        let named = note.before.into_iter();
        named.map(|(event, run)| (event, run.order())).collect()
    }

    #[test]
    fn every_run_is_written_at_once_until_there_is_a_note_and_while_the_daemon_stops() {
        let unwritten = Arc::new(Unwritten::default());
        assert!(unwritten.begin(1, &run(2)).is_none());
        unwritten.state().is_noted = true;
        let place = unwritten.begin(3, &run(4)).unwrap();
        unwritten.close();
        assert!(unwritten.begin(5, &run(6)).is_none());
        place.queued();
        drop(place);
        assert!(unwritten.to_note(7).is_none());
        assert!(unwritten.has(RunId::new(4)));
    }

    #[test]
    fn a_note_names_what_is_not_written_or_being_committed() {
        let unwritten = noted();
        let begin = |order: u64| unwritten.begin(order, &run(order + 1)).unwrap();
        let [queued, written, refused, committing] = [10, 20, 30, 40].map(begin);
        for place in [&queued, &written] {
            place.queued();
        }
        drop((queued, written, refused));
        unwritten.settle(RunId::new(21));
        let note = unwritten.to_note(50);
        assert_eq!(named(note), [(10, 11), (40, 41)]);
        drop(committing);
        assert_eq!(named(unwritten.to_note(60)), [(10, 11)]);
        assert_eq!(unwritten.newest(None), [RunId::new(11)]);
        assert_eq!(unwritten.newest(Some(RunId::new(11))), []);
    }

    #[test]
    fn a_run_whose_thread_panics_while_its_event_is_committed_stays() {
        let unwritten = noted();
        let place = unwritten.begin(1, &run(2));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _place = place;
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && unwritten.has(RunId::new(2)));
    }

    #[test]
    fn a_long_queue_is_written() {
        let unwritten = noted();
        let begin = |order: u64| unwritten.begin(order, &run(order + 1));
        let places: Vec<_> = (1..=MOST as u64).map(begin).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(begin(1_000_000).is_none());
        // What a note can name fits into a record.
        let longest = UnwrittenRuns {
            until: u64::MAX,
            before: vec![(u64::MAX, RunId::new(u64::MAX)); MOST],
        };
        assert!(serde_json::to_vec(&longest).unwrap().len() < MAX_RECORD_BYTES - 100);
        drop(places);
        assert!(begin(1_000_001).is_some());
    }
}
