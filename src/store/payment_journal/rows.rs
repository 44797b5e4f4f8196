//! What the index holds of a payment: the one place that derives it, for live changes and for a
//! rebuild from the payment journal alike.
//!
//! # Design
//! Only what follows from the payment itself belongs here. Runs that wait for it and alerts about
//! it belong to the moment of the change. Whatever a payment takes of the policy's limits follows
//! from it too: rows that keep such sums are to be written here as well, so that a rebuild has them.

use crate::domain::payment::Payment;
use crate::store::Changes;
use crate::store::schema::{Mark, OPEN_PAYMENTS, PAYMENTS, PAYMENTS_BY_ID, PAYMENTS_BY_TIME};

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
    let id = &payment.foreign_id;
    changes.put(&PAYMENTS, id, payment);
    if rows == Rows::New {
        changes.put(&PAYMENTS_BY_TIME, &(payment.created_at, id.clone()), &Mark);
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
