//! What has been paid, and is about to be, as the limits of a policy count it.
//!
//! Everything that counts is added here before it is committed and taken back when no money moved.
//! Sums are kept per limit, since each counts other payments; how far back they reach follows from
//! the limit's period. Where payments are kept for ever is the caller's.

use std::collections::BTreeMap;
use std::ops::Bound;

use chrono::{DateTime, TimeDelta};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::decision::Proposal;
use super::rules::{By, Limit, Per, Policy, canonical};
use super::timeline::Timeline;
use crate::domain::clock::Timestamp;
use crate::domain::id::{ForeignId, HandlerId};
use crate::domain::money::{Amount, MAX_DECIMALS};
use crate::domain::operation::Operation;

/// A payment as it is kept for counting: everything that any limit could ask about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The operation.
    pub operation: Operation,
    /// The currency that leaves the account.
    pub currency: String,
    /// How much; `None` when it was not known.
    pub amount: Option<Amount>,
    /// Where it goes.
    pub address: Option<String>,
    /// Who asked.
    pub handler: HandlerId,
    /// How many were asked for together.
    pub batch: usize,
    /// When the address had first been paid, as it was known at the decision.
    pub first_paid: Option<Timestamp>,
}

impl Spent {
    /// What is kept of a payment whose address was first paid then.
    #[must_use]
    pub fn of(proposal: &Proposal, first_paid: Option<Timestamp>) -> Self {
        Self {
            operation: proposal.operation,
            currency: proposal.currency.clone(),
            amount: known(proposal.amount),
            address: proposal.address.clone(),
            handler: proposal.handler.clone(),
            batch: proposal.batch,
            first_paid,
        }
    }

    /// The proposal that it was, under its key.
    #[must_use]
    pub fn proposal(&self, at: Timestamp, foreign_id: ForeignId) -> Proposal {
        Proposal {
            foreign_id,
            operation: self.operation,
            currency: self.currency.clone(),
            amount: self.amount.map(Amount::value),
            address: self.address.clone(),
            handler: self.handler.clone(),
            batch: self.batch,
            at,
        }
    }
}

/// An amount that can be counted exactly.
pub(super) fn known(amount: Option<Decimal>) -> Option<Amount> {
    amount.and_then(|amount| Amount::new(amount).ok())
}

/// The sums of every limit of one policy.
#[derive(Debug, Clone, Default)]
pub struct Sums(Vec<Counter>);

/// The sums of one limit.
#[derive(Debug, Clone)]
struct Counter {
    /// How far back its period can reach, in milliseconds.
    reach: i64,
    /// Instants are counted as multiples of this, in milliseconds.
    grain: i64,
    /// Nothing before this instant is here.
    known_from: i64,
    /// By script or address, and currency.
    scopes: BTreeMap<String, BTreeMap<String, Timeline>>,
    /// The scope that was last rid of what is too old to count.
    swept: String,
}

impl Counter {
    /// The sums of a limit; `None` for one that adds nothing up.
    fn new(limit: &Limit, known_from: i64) -> Self {
        let day = TimeDelta::days(1);
        // A day more than the longest period there can be: clocks are set back a little, now and
        // then.
        let (reach, grain) = match limit.per {
            Per::Payment => (TimeDelta::zero(), 1),
            // Periods of the calendar begin on a whole minute, in every zone.
            Per::Day => (day * 3, 60_000),
            Per::Week => (day * 9, 60_000),
            Per::Month => (day * 33, 60_000),
            Per::Rolling(length) => (length + day, 1),
        };
        Self {
            reach: reach.num_milliseconds(),
            grain,
            known_from,
            scopes: BTreeMap::new(),
            swept: String::new(),
        }
    }

    fn add(&mut self, scope: String, currency: &str, at: i64, units: i128) {
        if at < self.known_from {
            return;
        }
        let at = at.saturating_sub(at.rem_euclid(self.grain));
        let currencies = self.scopes.entry(scope).or_default();
        match currencies.get_mut(currency) {
            Some(timeline) => timeline.add(at, units),
            None => currencies
                .entry(currency.to_owned())
                .or_default()
                .add(at, units),
        }
    }

    /// Takes it that it is `now`: what is too old to count from then on may go.
    fn forget(&mut self, now: i64) {
        self.known_from = self.known_from.max(now.saturating_sub(self.reach));
        self.sweep();
    }

    /// Rids one scope of what is too old: as often as something is added, so that memory follows
    /// what counts, and no single payment pays for all of it.
    fn sweep(&mut self) {
        let from = Bound::Excluded(self.swept.as_str());
        let next = self.scopes.range::<str, _>((from, Bound::Unbounded)).next();
        let Some(scope) = next
            .or_else(|| self.scopes.first_key_value())
            .map(|(scope, _)| scope.clone())
        else {
            return;
        };
        if let Some(currencies) = self.scopes.get_mut(&scope) {
            currencies.retain(|_, timeline| {
                timeline.forget_before(self.known_from);
                !timeline.is_empty()
            });
            if currencies.is_empty() {
                self.scopes.remove(&scope);
            }
        }
        self.swept = scope;
    }
}

impl Sums {
    /// Nothing is counted yet; what is added must be complete from `known_from` on.
    #[must_use]
    pub fn new(policy: &Policy, known_from: Timestamp) -> Self {
        let from = known_from.timestamp_millis();
        let limits = policy.limits.iter();
        Self(limits.map(|limit| Counter::new(limit, from)).collect())
    }

    /// How far back a policy's sums reach, for somebody who asks at `now`.
    #[must_use]
    pub fn needed_from(policy: &Policy, now: Timestamp) -> Timestamp {
        let reaches = policy
            .limits
            .iter()
            .map(|limit| Counter::new(limit, 0).reach);
        let reach = TimeDelta::milliseconds(reaches.max().unwrap_or(0));
        now.checked_sub_signed(reach)
            .unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Whether everything that counts for a payment at `at` is here. If not (the clock was set
    /// back by more than a day), the sums must be made anew.
    #[must_use]
    pub fn reach(&self, policy: &Policy, at: Timestamp) -> bool {
        let counters = policy.limits.iter().zip(&self.0);
        counters.into_iter().all(|(limit, counter)| {
            limit
                .per
                .begins(at, policy.zone)
                .is_none_or(|start| counter.known_from <= start.timestamp_millis())
        })
    }

    /// Counts a payment from here on, which is made now: what is too old to count beside it may be
    /// forgotten.
    pub fn add(&mut self, policy: &Policy, payment: &Proposal, first_paid: Option<Timestamp>) {
        self.change(policy, payment, first_paid, 1);
        let now = payment.at.timestamp_millis();
        for (_, counter) in self.counters(policy, payment, first_paid) {
            counter.forget(now);
        }
    }

    /// Counts a payment that was made at another time, which may be later than now if the clock was set
    /// back: nothing is forgotten for it.
    pub fn count(&mut self, policy: &Policy, payment: &Proposal, first_paid: Option<Timestamp>) {
        self.change(policy, payment, first_paid, 1);
    }

    /// Counts a payment no longer. It must have been added, with the same facts.
    pub fn take_back(
        &mut self,
        policy: &Policy,
        payment: &Proposal,
        first_paid: Option<Timestamp>,
    ) {
        self.change(policy, payment, first_paid, -1);
    }

    fn change(
        &mut self,
        policy: &Policy,
        payment: &Proposal,
        first_paid: Option<Timestamp>,
        sign: i128,
    ) {
        let Some(amount) = known(payment.amount) else {
            return;
        };
        let units = units(amount).saturating_mul(sign);
        let at = payment.at.timestamp_millis();
        for (scope, counter) in self.counters(policy, payment, first_paid) {
            counter.add(scope, &payment.currency, at, units);
        }
    }

    /// The sums that a payment counts for, and under which scope.
    fn counters<'a>(
        &'a mut self,
        policy: &'a Policy,
        payment: &'a Proposal,
        first_paid: Option<Timestamp>,
    ) -> impl Iterator<Item = (String, &'a mut Counter)> {
        let both = policy.limits.iter().zip(&mut self.0);
        both.filter_map(move |(limit, counter)| {
            let counts =
                limit.per != Per::Payment && limit.of.count(payment, first_paid, policy.zone);
            counts.then(|| Some((scope(limit.by, payment)?, counter)))?
        })
    }

    /// What the limit of that number has counted since `start` in the scope, by currency. `None`
    /// for a sum that is beyond all reason.
    pub(super) fn spent(
        &self,
        limit: usize,
        scope: &str,
        start: Timestamp,
    ) -> Option<Vec<(&str, Decimal)>> {
        let Some(currencies) = self.0.get(limit).and_then(|one| one.scopes.get(scope)) else {
            return Some(Vec::new());
        };
        let mut sums = Vec::new();
        for (currency, timeline) in currencies {
            let units = timeline.since(start.timestamp_millis());
            if units != 0 {
                let sum = Decimal::try_from_i128_with_scale(units, MAX_DECIMALS).ok()?;
                sums.push((currency.as_str(), sum.normalize()));
            }
        }
        Some(sums)
    }
}

/// Whose sum a payment counts to; `None` when the limit does not speak of it.
pub(super) fn scope(by: By, payment: &Proposal) -> Option<String> {
    match by {
        By::All => Some(String::new()),
        By::Script => Some(payment.handler.script.clone()),
        By::Address => payment.address.as_deref().map(canonical),
    }
}

/// An amount in the smallest unit there is.
fn units(amount: Amount) -> i128 {
    let value = amount.value();
    let missing = MAX_DECIMALS.saturating_sub(value.scale());
    value.mantissa().saturating_mul(10_i128.pow(missing))
}
