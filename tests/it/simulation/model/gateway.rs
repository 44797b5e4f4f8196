//! The model's gateway: does what it is asked as often as it is asked, and says so badly.

use std::collections::{BTreeMap, BTreeSet};

use bursar::domain::id::ForeignId;
use bursar::domain::payment::{Event, Reported};

use super::super::chance::Chance;

/// Words for the end of a payment.
const ENDS: [&str; 4] = ["confirmed", "confirmed", "cancelled", "declined"];

/// What it did and has not yet said.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    /// How often each payment was executed.
    pub(super) executed: BTreeMap<ForeignId, usize>,
    pub(super) rejected: BTreeSet<ForeignId>,
    statuses: BTreeMap<ForeignId, &'static str>,
    pub(super) callbacks: Vec<(ForeignId, &'static str)>,
    /// Look-ups find nothing for a while.
    pub(super) is_blind: bool,
    /// Keys that somebody else has used.
    pub(super) strangers: BTreeSet<ForeignId>,
}

impl Gateway {
    /// Takes a request and says what becomes of its answer.
    pub(super) fn send(&mut self, id: &ForeignId, chance: &mut Chance, calm: bool) -> Event {
        let fault = if calm { 9 } else { chance.below(10) };
        match fault {
            0 => return Event::NotSent,
            1 => {
                // One that is sent again may be refused for another reason than its key.
                if !self.executed.contains_key(id) {
                    self.rejected.insert(id.clone());
                }
                return Event::Rejected;
            }
            // It is lost on its way there.
            2 => return Event::AnswerLost,
            _ => {}
        }
        if !calm && !self.executed.contains_key(id) && chance.per_mille(20) {
            self.strangers.insert(id.clone());
        }
        // It refuses a key that it knows: that is what a resend assumes.
        if self.executed.contains_key(id) || self.strangers.contains(id) {
            return match fault {
                3 | 4 => Event::AnswerLost,
                _ => Event::KeyTaken,
            };
        }
        // An earlier request may have been refused, with its answer lost in a crash.
        self.rejected.remove(id);
        *self.executed.entry(id.clone()).or_default() += 1;
        self.statuses.insert(id.clone(), "processing");
        match fault {
            3 | 4 => Event::AnswerLost,
            5 => {
                self.end(id, chance);
                Event::Accepted
            }
            6 => {
                self.callbacks.push((id.clone(), "pending"));
                Event::Accepted
            }
            _ => Event::Accepted,
        }
    }

    /// Asks about a payment; `None` when there is no answer.
    pub(super) fn look_up(
        &mut self,
        id: &ForeignId,
        chance: &mut Chance,
        calm: bool,
    ) -> Option<Event> {
        if !calm && chance.per_mille(200) {
            return None;
        }
        if self.strangers.contains(id) && !self.is_blind {
            return Some(Event::NotOurs);
        }
        match self.statuses.get(id) {
            Some(word) if !self.is_blind => Some(Event::Reported(Reported::from_word(word))),
            Some(_) | None => Some(Event::NotFound),
        }
    }

    /// Whether no request for it has arrived.
    pub(super) fn never_got(&self, id: &ForeignId) -> bool {
        !self.statuses.contains_key(id)
    }

    /// Ends one payment.
    pub(super) fn settle(&mut self, chance: &mut Chance) {
        let open = self.open();
        if !open.is_empty() {
            let id = open[chance.below(open.len())].clone();
            self.end(&id, chance);
        }
    }

    /// Ends all payments.
    pub(super) fn settle_all(&mut self, chance: &mut Chance) {
        for id in self.open() {
            self.end(&id, chance);
        }
    }

    fn open(&self) -> Vec<ForeignId> {
        let open = self
            .statuses
            .iter()
            .filter(|(_, word)| !ENDS.contains(*word));
        open.map(|(id, _)| id.clone()).collect()
    }

    fn end(&mut self, id: &ForeignId, chance: &mut Chance) {
        let word = ENDS[chance.below(ENDS.len())];
        self.statuses.insert(id.clone(), word);
        // Never, once or twice.
        for _ in 0..chance.below(3) {
            self.callbacks.push((id.clone(), word));
        }
    }

    /// Any callback that is under way.
    pub(super) fn callback(&mut self, chance: &mut Chance) -> Option<(ForeignId, &'static str)> {
        if self.callbacks.is_empty() {
            return None;
        }
        let index = chance.below(self.callbacks.len());
        Some(self.callbacks.swap_remove(index))
    }
}
