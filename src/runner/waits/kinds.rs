//! Where in the order of acceptance the latest events of each kind stand, so that a run that looks
//! for one reads those, not everything that happened since it began.
//!
//! Only in memory: of what was accepted before the process started it knows nothing, and says so.

use std::collections::{BTreeMap, VecDeque};

use crate::domain::handler::EventTrigger;

/// Places known of each kind.
const PLACES: usize = 64;

/// Kinds known. Scripts may put ids into the names of events; with more, all are forgotten.
const MANY_KINDS: usize = 10_000;

/// The latest events of each kind.
#[derive(Debug)]
pub(super) struct Kinds {
    /// Every event after this place is known, or was pushed out by later ones of its kind.
    since: u64,
    latest: u64,
    of_kind: BTreeMap<String, Latest>,
}

/// The latest events of one kind.
#[derive(Debug, Default)]
struct Latest {
    places: VecDeque<u64>,
    /// The last place that was pushed out.
    forgotten: u64,
}

impl Kinds {
    /// Nothing is known of the events up to a place.
    pub(super) const fn new(since: u64) -> Self {
        Self {
            since,
            latest: since,
            of_kind: BTreeMap::new(),
        }
    }

    /// An event is about to be committed at a place, which comes after all before it.
    pub(super) fn add(&mut self, kind: &str, place: u64) {
        if !self.of_kind.contains_key(kind) {
            if self.of_kind.len() >= MANY_KINDS {
                self.of_kind.clear();
                self.since = self.latest;
            }
            self.of_kind.insert(kind.to_owned(), Latest::default());
        }
        self.latest = self.latest.max(place);
        let Some(latest) = self.of_kind.get_mut(kind) else {
            return;
        };
        if latest.places.len() >= PLACES
            && let Some(oldest) = latest.places.pop_front()
        {
            latest.forgotten = oldest;
        }
        latest.places.push_back(place);
    }

    /// The places after `from` at which events were accepted that may start what `trigger` says,
    /// in order; `None` when they are not all known.
    pub(super) fn after(&self, from: u64, trigger: &EventTrigger) -> Option<Vec<u64>> {
        if from < self.since {
            return None;
        }
        let matching = self
            .of_kind
            .iter()
            .filter(|(kind, _)| trigger.matches_kind(kind));
        let mut found = Vec::new();
        for (_, latest) in matching {
            if from < latest.forgotten {
                return None;
            }
            found.extend(latest.places.iter().filter(|place| **place > from));
        }
        found.sort_unstable();
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(pattern: &str) -> EventTrigger {
        EventTrigger {
            pattern: pattern.to_owned(),
            filter: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_known_is_known_whole_or_not_at_all() {
        let mut kinds = Kinds::new(100);
        assert_eq!(kinds.after(99, &trigger("bell")), None);
        assert_eq!(kinds.after(100, &trigger("bell")), Some(vec![]));
        kinds.add("invoice.failed", 101);
        kinds.add("bell", 102);
        kinds.add("invoice.confirmed", 103);
        assert_eq!(kinds.after(100, &trigger("bell")), Some(vec![102]));
        assert_eq!(kinds.after(102, &trigger("bell")), Some(vec![]));
        let both = kinds.after(100, &trigger("invoice.*"));
        assert_eq!(both, Some(vec![101, 103]));
        for place in 200..265 {
            kinds.add("bell", place);
        }
        assert_eq!(kinds.after(102, &trigger("*")), None, "200 was pushed out");
        assert_eq!(kinds.after(200, &trigger("bell")).unwrap().len(), 64);
        assert_eq!(kinds.after(100, &trigger("invoice.*")), both);
    }

    #[test]
    fn too_many_kinds_are_forgotten_together() {
        let mut kinds = Kinds::new(0);
        for place in 1..=10_000 {
            kinds.add(&format!("order.{place}"), place);
        }
        assert_eq!(kinds.after(0, &trigger("order.1")), Some(vec![1]));
        kinds.add("bell", 10_001);
        assert_eq!(kinds.after(0, &trigger("order.1")), None);
        assert_eq!(kinds.after(10_000, &trigger("*")), Some(vec![10_001]));
    }
}
