//! What the index holds of a payment: the one place that derives it, for live changes and for a
//! rebuild from the payment journal alike.
//!
//! # Design
//! Only what follows from the payment itself belongs here. Runs that wait for it and alerts about
//! it belong to the moment of the change. So do the rows that policy counts by: they are written by
//! whoever asks it, and only a rebuild derives them, from what is certain.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::approval::{deadline, terms};
use crate::domain::clock::Timestamp;
use crate::domain::id::ForeignId;
use crate::domain::operation::Effect;
use crate::domain::payment::{Payment, State};
use crate::domain::policy::{Proposal, Spent, canonical};
use crate::store::Changes;
use crate::store::schema::{
    AWAITED, Awaited, FIRST_PAID, Mark, OPEN_PAYMENTS, PAYMENTS, PAYMENTS_BY_ADDRESS,
    PAYMENTS_BY_ID, PAYMENTS_BY_TIME, SPENT,
};

/// Which rows a payment may have already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// None: the payment is new to the index.
    New,
    /// Those it got when it was new.
    Known,
}

/// Writes the payment and every row that is derived from it.
pub fn put_payment(changes: &mut Changes, payment: &Payment, rows: Rows) {
    changes.put(&PAYMENTS, &payment.foreign_id, payment);
    put_rows(changes, payment, rows);
}

/// Writes every row that is derived from the payment, for whoever writes the payment itself.
pub fn put_rows(changes: &mut Changes, payment: &Payment, rows: Rows) {
    let id = &payment.foreign_id;
    if rows == Rows::New {
        changes.put(&PAYMENTS_BY_TIME, &(payment.created_at, id.clone()), &Mark);
        if let Some(address) = payment
            .content
            .fields()
            .get("address")
            .and_then(Value::as_str)
        {
            let place = (address.to_owned(), payment.created_at, id.clone());
            changes.put(&PAYMENTS_BY_ADDRESS, &place, &Mark);
        }
        if payment.state == State::AwaitingApproval
            && let Some(terms) = terms(payment)
        {
            let row = awaited(id, deadline(payment.created_at, &terms));
            changes.put(&AWAITED, &row, &Awaited::Payment(id.clone()));
        }
    }
    match (payment.state.is_final(), rows) {
        (true, Rows::Known) => changes.remove(&OPEN_PAYMENTS, id),
        (false, Rows::New) => changes.put(&OPEN_PAYMENTS, id, &Mark),
        (true, Rows::New) | (false, Rows::Known) => {}
    }
    if let Some(gateway_id) = &payment.gateway_id {
        let family = payment.content.operation.family().to_owned();
        changes.put(&PAYMENTS_BY_ID, &(family, gateway_id.clone()), id);
    }
}

/// The row of the deadline until which people can approve a payment.
#[must_use]
pub fn awaited(id: &ForeignId, until: Timestamp) -> (Timestamp, String) {
    (until, format!("payment:{id}"))
}

/// Addresses whose rows are written at a time.
const ADDRESSES_AT_ONCE: usize = 1000;

/// What policy counts by, derived from payments alone.
#[derive(Debug, Default)]
pub(super) struct Spending {
    first_paid: BTreeMap<String, Timestamp>,
}

impl Spending {
    /// Writes what a payment takes of the limits: as one to an address that had never been paid,
    /// because what was known of it at the decision is not told. That counts rather too much.
    pub(super) fn add(&mut self, payment: &Payment, changes: &mut Changes) {
        let proposal = Proposal::of(payment, 1);
        let moves_money = payment.content.operation.effect() == Effect::Pay;
        let is_over = payment.state.is_final() && payment.state != State::Confirmed;
        if moves_money && !is_over {
            let key = (proposal.at, payment.foreign_id.clone());
            changes.put(&SPENT, &key, &Spent::of(&proposal, None));
        }
        let confirmed = payment
            .story
            .iter()
            .find(|line| line.state == State::Confirmed);
        if let (Some(address), Some(line)) = (proposal.address, confirmed) {
            let first = self
                .first_paid
                .entry(canonical(&address))
                .or_insert(line.at);
            *first = line.at.min(*first);
        }
    }

    /// When each address was first paid, as many rows at a time as one commit takes.
    pub(super) fn first_paid(&self) -> impl Iterator<Item = Changes> {
        let rows: Vec<_> = self.first_paid.iter().collect();
        let pieces: Vec<Changes> = rows
            .chunks(ADDRESSES_AT_ONCE)
            .map(|piece| {
                let mut changes = Changes::new();
                for (address, at) in piece {
                    changes.put(&FIRST_PAID, address, at);
                }
                changes
            })
            .collect();
        pieces.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{HandlerId, RunId};
    use crate::domain::operation::Operation;
    use crate::domain::payment::{Content, Event, Origin, Reported};

    fn payment(number: usize, address: &str, end: Reported) -> Payment {
        let id = format!("row-{number}");
        let at = Timestamp::from_timestamp(1_790_000_000 + i64::try_from(number).unwrap(), 0);
        let content = Content::new(
            Operation::Withdraw,
            format!(
                r#"{{"foreign_id":"{id}","currency":"BTC","amount":"0.1","address":"{address}"}}"#
            ),
        );
        let origin = Origin {
            run: RunId::new(1),
            handler: HandlerId {
                script: "a".into(),
                name: "go".into(),
            },
            step: 0,
            file: "a.rhai".into(),
            line: 1,
            set: String::new(),
        };
        let mut payment = Payment::planned(id.parse().unwrap(), content, origin, at.unwrap());
        for event in [
            Event::Allowed,
            Event::SendStarted,
            Event::Accepted,
            Event::Reported(end),
        ] {
            payment.apply(event, None, at.unwrap()).unwrap();
        }
        payment
    }

    fn rows(changes: &Changes) -> usize {
        changes.writes.len()
    }

    #[test]
    fn a_rebuild_counts_what_was_spent_and_first_paid_whatever_there_is_of_it() {
        let mut spending = Spending::default();
        let mut spent = Changes::new();
        for number in 0..2_500 {
            spending.add(
                &payment(number, &format!("tb1q{number}"), Reported::Confirmed),
                &mut spent,
            );
        }
        // The first payment counts, and what was not made counts nowhere.
        let earlier = spending.first_paid["tb1q7"];
        spending.add(&payment(2_507, "tb1q7", Reported::Confirmed), &mut spent);
        spending.add(&payment(2_508, "tb1qx", Reported::Cancelled), &mut spent);
        assert_eq!(rows(&spent), 2_501);
        assert_eq!(spending.first_paid["tb1q7"], earlier);
        assert_eq!(spending.first_paid.get("tb1qx"), None);
        let pieces: Vec<usize> = spending
            .first_paid()
            .map(|changes| rows(&changes))
            .collect();
        assert_eq!(pieces, [1000, 1000, 500]);
    }
}
