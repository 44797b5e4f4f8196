//! What is known of the waits before anything happens: which kinds of events are waited for at all,
//! and which events are being committed this moment.
//!
//! Whoever commits something that may end waits holds a [`Happening`] meanwhile. Knows nothing of
//! single runs: those are found by their rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, RwLock, RwLockReadGuard};

use super::kinds::Kinds;
use crate::domain::handler::EventTrigger;
use crate::domain::id::RunId;
use crate::domain::payment::Payment;
use crate::domain::wait::{Shape, WaitFor};
use crate::store::schema::{EVENTS_BY_ORDER, Mark, NEWS, News, WAITS_BY_EVENT, WAITS_BY_PAYMENT};
use crate::store::{Changes, Order, Range, ReadError, Store};

/// How many shapes are known before those that have no rows any more are looked for.
const MANY_SHAPES: usize = 1_000;

/// Greater than every digest, which are hexadecimal.
const AFTER_DIGESTS: &str = "~";

/// What is waited for, as far as it must be known before anything happens.
#[derive(Debug)]
pub(in crate::runner) struct Waits {
    pub(super) wanted: RwLock<Wanted>,
    /// Places in the order of acceptance of events that are being committed.
    under_way: Mutex<BTreeSet<u64>>,
    kinds: Mutex<Kinds>,
    pub(super) news: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Every shape that has rows, and some that have none any more.
    shapes: BTreeMap<Shape, Arc<Expected>>,
    /// With so many shapes, those without rows are looked for.
    many: usize,
    /// Whether anybody has ever waited for a payment.
    payments: bool,
}

/// Keeps a shape known while rows of it may be about to be committed.
#[derive(Debug, Default)]
pub(in crate::runner) struct Expected;

impl Wanted {
    /// The known shapes that an event of that kind may have.
    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Shape> {
        let patterns = Shape::patterns_for(kind).into_iter();
        patterns.flat_map(|pattern| {
            let first = Shape {
                pattern: pattern.clone(),
                paths: String::new(),
            };
            let known = self.shapes.range(first..).map(|(shape, _)| shape);
            known.take_while(move |shape| shape.pattern == pattern)
        })
    }
}

/// Something that may end waits is being committed. Held until that is done.
#[derive(Debug)]
pub(in crate::runner) struct Happening<'a> {
    wanted: RwLockReadGuard<'a, Wanted>,
    waits: &'a Waits,
    numbers: Mutex<Vec<u64>>,
    noted: AtomicBool,
}

impl Happening<'_> {
    /// The place of an event that is about to be committed in the order of acceptance: the `next`.
    pub(in crate::runner) fn number(&self, next: impl FnOnce() -> u64) -> u64 {
        let mut under_way = self.waits.under_way();
        let number = next();
        under_way.insert(number);
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.push(number);
        number
    }

    /// Notes the event that was given its place last with what is about to be committed.
    pub(in crate::runner) fn event(&self, key: &str, kind: &str, changes: &mut Changes) {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = numbers.last() {
            self.waits.kinds().add(kind, *place);
        }
        if !self.wanted.shapes.is_empty() && self.wanted.of_kind(kind).next().is_some() {
            self.note(&News::Event(key.to_owned()), changes);
        }
    }

    /// Notes what becomes of a payment with what is about to be committed.
    pub(in crate::runner) fn payment(&self, payment: &Payment, changes: &mut Changes) {
        if self.wanted.payments && payment.state.is_final() {
            self.note(&News::Payment(payment.foreign_id.clone()), changes);
        }
    }

    /// Notes that a batch is decided with what is about to be committed.
    pub(in crate::runner) fn plan(&self, id: &str, changes: &mut Changes) {
        self.note(&News::Plan(id.to_owned()), changes);
    }

    fn note(&self, news: &News, changes: &mut Changes) {
        changes.put(&NEWS, news, &Mark);
        self.noted.store(true, Ordering::Relaxed);
    }
}

impl Drop for Happening<'_> {
    fn drop(&mut self) {
        let numbers = self.numbers.get_mut();
        let numbers = numbers.unwrap_or_else(PoisonError::into_inner);
        if !numbers.is_empty() {
            let mut under_way = self.waits.under_way();
            for number in numbers {
                under_way.remove(number);
            }
        }
        if self.noted.load(Ordering::Relaxed) {
            self.waits.news.notify_one();
        }
    }
}

impl Waits {
    /// Knows what is waited for in the store.
    pub(in crate::runner) fn new(store: &Store) -> Result<Self, ReadError> {
        let mut wanted = Wanted {
            shapes: BTreeMap::new(),
            many: MANY_SHAPES,
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
            wanted.shapes.entry(Shape { pattern, paths }).or_default();
        }
        Ok(Self {
            wanted: RwLock::new(wanted),
            under_way: Mutex::default(),
            kinds: Mutex::new(Kinds::new(last_event(store)?)),
            news: Notify::new(),
        })
    }

    fn kinds(&self) -> MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The places after `from` at which events were accepted that may end a wait for `trigger`, in
    /// order; `None` when they are not all known, and must be looked for in the store.
    pub(in crate::runner) fn places_after(
        &self,
        from: u64,
        trigger: &EventTrigger,
    ) -> Option<Vec<u64>> {
        self.kinds().after(from, trigger)
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the order of acceptance: every event up to it is in the store, or never will be.
    /// `latest` answers one that no number given before is behind.
    pub(in crate::runner) fn complete_until(&self, latest: impl FnOnce() -> u64) -> u64 {
        let under_way = self.under_way();
        match under_way.first() {
            Some(first) => first.saturating_sub(1),
            None => latest(),
        }
    }

    /// To be held from before the changes are made until they are committed.
    pub(in crate::runner) async fn happening(&self) -> Happening<'_> {
        self.hold(self.wanted.read().await)
    }

    /// The same, on a script's thread.
    pub(in crate::runner) fn happening_here(&self) -> Happening<'_> {
        self.hold(self.wanted.blocking_read())
    }

    fn hold<'a>(&'a self, wanted: RwLockReadGuard<'a, Wanted>) -> Happening<'a> {
        Happening {
            wanted,
            waits: self,
            numbers: Mutex::default(),
            noted: AtomicBool::new(false),
        }
    }

    /// Makes a wait known before its rows are committed. The answer is to be kept until they are.
    pub(in crate::runner) async fn expect(&self, wait: &WaitFor) -> Option<Arc<Expected>> {
        match wait {
            WaitFor::Time | WaitFor::Plan { .. } => None,
            WaitFor::Payments { .. } => {
                if !self.wanted.read().await.payments {
                    self.wanted.write().await.payments = true;
                }
                None
            }
            WaitFor::Event { trigger, .. } => {
                let shape = Shape::of(trigger);
                if let Some(expected) = self.wanted.read().await.shapes.get(&shape) {
                    return Some(Arc::clone(expected));
                }
                let mut wanted = self.wanted.write().await;
                Some(Arc::clone(wanted.shapes.entry(shape).or_default()))
            }
        }
    }

    /// Forgets shapes that have no rows any more: scripts may put ids into the names of events.
    pub(super) async fn forget_unused(&self, store: &Store) -> Result<(), ReadError> {
        let wanted = self.wanted.read().await;
        if wanted.shapes.len() <= wanted.many {
            return Ok(());
        }
        let mut unused = Vec::new();
        for shape in wanted.shapes.keys() {
            if !has_rows(store, shape)? {
                unused.push(shape.clone());
            }
        }
        drop(wanted);
        let mut wanted = self.wanted.write().await;
        for shape in unused {
            // Who expects rows says so before they are committed, and none is about to now.
            let expected = wanted.shapes.get(&shape).map_or(0, Arc::strong_count);
            if expected == 1 && !has_rows(store, &shape)? {
                wanted.shapes.remove(&shape);
            }
        }
        wanted.many = wanted.shapes.len().saturating_mul(2).max(MANY_SHAPES);
        Ok(())
    }

    /// Lets the task look whether a deadline has come.
    pub(in crate::runner) fn look(&self) {
        self.news.notify_one();
    }
}

/// The place of the last event in the store.
fn last_event(store: &Store) -> Result<u64, ReadError> {
    let last = store.keys(&EVENTS_BY_ORDER, &Range::all(), 1, Order::Descending)?;
    Ok(last.first().map_or(0, |(place, _)| *place))
}

fn has_rows(store: &Store, shape: &Shape) -> Result<bool, ReadError> {
    let range = Range::within(&(shape.pattern.clone(), shape.paths.clone()));
    let rows = store.scan(&WAITS_BY_EVENT, &range, 1, Order::Ascending)?;
    Ok(!rows.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Options;
    use crate::telemetry::Telemetry;

    fn wait(pattern: &str) -> (WaitFor, (String, String, String, RunId)) {
        let trigger = EventTrigger {
            pattern: pattern.to_owned(),
            filter: [("id".to_owned(), json!(1))].into(),
        };
        let shape = Shape::of(&trigger);
        let digest = crate::domain::wait::wanted(&trigger);
        let row = (shape.pattern, shape.paths, digest, RunId::new(0));
        let searched = 0;
        (WaitFor::Event { trigger, searched }, row)
    }

    #[test]
    fn only_what_is_waited_for_or_about_to_be_is_remembered() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            cache_bytes: 1024 * 1024,
            segment_bytes: 1024 * 1024,
        };
        let _inside = runtime.enter();
        let store = Store::open(folder.path(), &options, &Telemetry::default()).unwrap();
        let waits = Waits::new(&store).unwrap();
        let (with_rows, row) = wait("with.rows");
        let mut changes = Changes::new();
        changes.put(&WAITS_BY_EVENT, &row, &Mark);
        runtime.block_on(store.commit(changes)).unwrap();
        let expect = |wait: &WaitFor| runtime.block_on(waits.expect(wait));
        drop(expect(&with_rows));
        let about_to = expect(&wait("about.to").0);
        for number in 0..MANY_SHAPES {
            drop(expect(&wait(&format!("order.{number}")).0));
        }
        runtime.block_on(waits.forget_unused(&store)).unwrap();
        let known = |kind: &str| waits.wanted.blocking_read().of_kind(kind).count();
        assert_eq!(known("with.rows"), 1);
        assert_eq!(known("about.to"), 1);
        assert_eq!(known("order.7"), 0);
        assert_eq!(waits.wanted.blocking_read().shapes.len(), 2);
        drop(about_to);
        // What is known after a start is what has rows.
        let waits = Waits::new(&store).unwrap();
        assert_eq!(waits.wanted.blocking_read().shapes.len(), 1);
    }

    #[test]
    fn what_is_searched_ends_before_the_first_event_that_is_being_committed() {
        let waits = Waits {
            wanted: RwLock::default(),
            under_way: Mutex::default(),
            kinds: Mutex::new(Kinds::new(0)),
            news: Notify::new(),
        };
        let (first, second) = (waits.happening_here(), waits.happening_here());
        assert_eq!(first.number(|| 10), 10);
        assert_eq!(second.number(|| 20), 20);
        assert_eq!(waits.complete_until(|| 30), 9);
        drop(first);
        assert_eq!(waits.complete_until(|| 40), 19);
        drop(second);
        assert_eq!(waits.complete_until(|| 50), 50);
    }
}
