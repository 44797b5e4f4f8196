//! Asks policy about payments on the money path. What policy says is `domain::policy`'s; this is
//! where it learns what has been spent and where its reservations are kept.
//!
//! # Design
//!
//! What counts is in the store: one row per payment, written in the commit of its intent and
//! removed in the commit that makes it final without money having moved. The sums of limits are in
//! memory, made from those rows at the start. A decision adds to them before its commit is made, so
//! that of many payments at the same time none takes what another one has taken already; whoever
//! commits says what came of it. What is given back is believed only once the row is gone.

mod people;
mod rates;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{SubsecRound, TimeDelta};

use crate::domain::clock::Timestamp;
use crate::domain::id::ForeignId;
use crate::domain::payment::{Payment, State};
use crate::domain::policy::{
    Decision, Facts, Policy, Proposal, Rates, Spent, Sums, Verdict, canonical, decide,
};
use crate::store::schema::{FIRST_PAID, SPENT};
use crate::store::{Changes, Order, Range, ReadError, Store};

pub(super) use rates::{learn, refresh};

/// How many rows are read at a time when sums are made anew.
const PAGE: usize = 1_000;

/// How often a payment that is being given back is looked for in vain. After that it counts until
/// the sums are made anew.
const MOST_LOOKS: u32 = 10_000;

/// The policy in force, and what counts against its limits. Shared by everything on the money path.
#[derive(Debug)]
pub(super) struct Guard {
    store: Store,
    state: Mutex<Counted>,
}

/// What counts, as it is in the store and as it will be.
#[derive(Debug, Clone)]
struct Counted {
    policy: Arc<Policy>,
    sums: Sums,
    rates: Rates,
    /// Decided, and not yet known to be on disk.
    reserved: BTreeMap<ForeignId, Taken>,
    /// To be taken back as soon as the row is gone.
    returning: BTreeMap<ForeignId, Returning>,
}

/// What a payment takes of the limits.
#[derive(Debug, Clone)]
struct Taken {
    payment: Proposal,
    first_paid: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct Returning {
    taken: Taken,
    looks: u32,
}

impl Guard {
    /// A policy over what the store says was spent, as it counts at `now`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn new(policy: Policy, store: Store, now: Timestamp) -> Result<Self, ReadError> {
        let mut counted = Counted {
            policy: Arc::new(policy),
            sums: Sums::default(),
            rates: Rates::default(),
            reserved: BTreeMap::new(),
            returning: BTreeMap::new(),
        };
        counted.count_anew(&store, now)?;
        Ok(Self {
            store,
            state: Mutex::new(counted),
        })
    }

    /// Decides about a payment. What an allowed payment, or one that people may allow, takes of the
    /// limits is reserved from here on, and for ever when `changes` are committed. Whoever commits
    /// them calls [`Self::committed`] or [`Self::not_committed`] afterwards; where it is not known
    /// what came of the commit, neither.
    ///
    /// # Errors
    /// When the store cannot be read. Nothing is reserved then.
    pub(super) fn decide(
        &self,
        proposal: &Proposal,
        changes: &mut Changes,
    ) -> Result<Decision, ReadError> {
        let mut counted = self.counted();
        let (decision, first_paid) = counted.decide(&self.store, proposal)?;
        if decision.verdict != Verdict::Refuse {
            let spent = Spent::of(proposal, first_paid);
            let taken = Taken {
                payment: proposal.clone(),
                first_paid,
            };
            let id = &proposal.foreign_id;
            changes.put(&SPENT, &(proposal.at, id.clone()), &spent);
            counted.add(&taken);
            counted.reserved.insert(id.clone(), taken);
        }
        Ok(decision)
    }

    /// What a payment took is on disk.
    pub(super) fn committed(&self, foreign_id: &ForeignId) {
        self.counted().reserved.remove(foreign_id);
    }

    /// What a payment took is not on disk, and will never be.
    pub(super) fn not_committed(&self, foreign_id: &ForeignId) {
        let mut counted = self.counted();
        if let Some(taken) = counted.reserved.remove(foreign_id) {
            counted.take_back(&taken);
        }
    }

    /// What would be decided about these payments if they were asked for in this order, each
    /// counting for those behind it. Nothing is reserved.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn foresee(
        &self,
        proposals: &[Proposal],
    ) -> Result<(Arc<Policy>, Vec<Decision>), ReadError> {
        // On a copy: instants far from now would make the sums in use forget what counts today.
        let mut scratch = self.counted().clone();
        let mut decisions = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            let (decision, first_paid) = scratch.decide(&self.store, proposal)?;
            if decision.verdict != Verdict::Refuse {
                let payment = proposal.clone();
                scratch.add(&Taken {
                    payment,
                    first_paid,
                });
            }
            decisions.push(decision);
        }
        Ok((scratch.policy, decisions))
    }

    /// Notes the end of a payment in the commit that makes it final: what it took of the limits is
    /// given back when no money moved, and its address counts as paid when it did.
    pub(super) fn ended(&self, payment: &Payment, changes: &mut Changes) {
        if payment.state == State::Confirmed {
            self.note_paid(payment, changes);
        } else if payment.state.is_final() {
            self.release(payment, changes);
        }
    }

    fn release(&self, payment: &Payment, changes: &mut Changes) {
        let at = payment.created_at.trunc_subsecs(3);
        let key = (at, payment.foreign_id.clone());
        let mut counted = self.counted();
        // What cannot be read goes on counting until the sums are made anew: rather too much.
        if let Ok(Some(spent)) = self.store.get(&SPENT, &key) {
            let taken = Taken {
                first_paid: spent.first_paid,
                payment: spent.proposal(at, key.1.clone()),
            };
            let returning = Returning { taken, looks: 0 };
            counted.returning.entry(key.1.clone()).or_insert(returning);
        }
        changes.remove(&SPENT, &key);
    }

    fn note_paid(&self, payment: &Payment, changes: &mut Changes) {
        let fields = payment.content.fields();
        let Some(address) = fields.get("address").and_then(|address| address.as_str()) else {
            return;
        };
        let address = canonical(address);
        // An address that cannot be read stays one that was never paid.
        if let Ok(None) = self.store.get(&FIRST_PAID, &address) {
            changes.put(&FIRST_PAID, &address, &payment.updated_at);
        }
    }

    /// Decides by another policy from here on. What was spent counts for its limits too.
    ///
    /// # Errors
    /// When the store cannot be read; the old policy goes on.
    pub(super) fn replace(&self, policy: Policy, now: Timestamp) -> Result<(), ReadError> {
        let mut counted = self.counted();
        let old = std::mem::replace(&mut counted.policy, Arc::new(policy));
        if counted.policy.limits == old.limits && counted.policy.zone == old.zone {
            return Ok(());
        }
        counted.count_anew(&self.store, now).inspect_err(|_unread| {
            counted.policy = old;
        })
    }

    /// The policy in force.
    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.counted().policy)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn decide(
        &mut self,
        store: &Store,
        proposal: &Proposal,
    ) -> Result<(Decision, Option<Timestamp>), ReadError> {
        self.take_back_returned(store);
        if !self.sums.reach(&self.policy, proposal.at) {
            self.count_anew(store, proposal.at)?;
        }
        let first_paid = match &proposal.address {
            Some(address) => store.get(&FIRST_PAID, &canonical(address))?,
            None => None,
        };
        let facts = Facts {
            sums: &self.sums,
            first_paid,
            rates: &self.rates,
        };
        Ok((decide(&self.policy, proposal, &facts), first_paid))
    }

    fn add(&mut self, taken: &Taken) {
        self.sums
            .add(&self.policy, &taken.payment, taken.first_paid);
    }

    fn take_back(&mut self, taken: &Taken) {
        self.sums
            .take_back(&self.policy, &taken.payment, taken.first_paid);
    }

    /// Takes back what is no longer in the store. What cannot be read goes on counting.
    fn take_back_returned(&mut self, store: &Store) {
        let mut still = BTreeMap::new();
        for (id, mut returning) in std::mem::take(&mut self.returning) {
            let key = (returning.taken.payment.at, id.clone());
            let there = store.get(&SPENT, &key).map(|row| row.is_some());
            match there {
                Ok(false) => self.take_back(&returning.taken),
                Ok(true) if returning.looks >= MOST_LOOKS => {}
                Ok(true) | Err(_) => {
                    returning.looks = returning.looks.saturating_add(1);
                    still.insert(id, returning);
                }
            }
        }
        self.returning = still;
    }

    /// Makes the sums of the policy in force from what is in the store and what is reserved.
    fn count_anew(&mut self, store: &Store, now: Timestamp) -> Result<(), ReadError> {
        let from = Sums::needed_from(&self.policy, now).trunc_subsecs(3);
        let mut sums = Sums::new(&self.policy, from);
        let mut seen = Vec::new();
        if !self.policy.limits.is_empty() {
            let before = from - TimeDelta::milliseconds(1);
            let mut last = "~".parse().ok().map(|id: ForeignId| (before, id));
            loop {
                let range = last
                    .as_ref()
                    .map_or_else(Range::all, |last| Range::all().after(last));
                let rows = store.scan(&SPENT, &range, PAGE, Order::Ascending)?;
                let is_last = rows.len() < PAGE;
                for ((at, id), spent) in rows {
                    if self.returning.contains_key(&id) {
                        seen.push(id.clone());
                    }
                    if !self.reserved.contains_key(&id) {
                        let payment = spent.proposal(at, id.clone());
                        sums.count(&self.policy, &payment, spent.first_paid);
                    }
                    last = Some((at, id));
                }
                if is_last {
                    break;
                }
            }
        }
        for taken in self.reserved.values() {
            sums.count(&self.policy, &taken.payment, taken.first_paid);
        }
        // What was given back meanwhile was not counted any more.
        self.returning.retain(|id, _| seen.contains(id));
        self.sums = sums;
        Ok(())
    }
}
