//! Exchanges between the merchant's balances.
//!
//! An exchange's callback carries no `foreign_id`; it is found again by the `id` of the answer.

use super::super::fields::{Fields, Need};

/// Asks for a quote, which holds for a minute.
pub(super) fn calculate(fields: &mut Fields<'_>) {
    pair_and_amount(fields);
}

/// Takes a quote: price and amount must be those quoted.
pub(super) fn fixed(fields: &mut Fields<'_>) {
    pair_and_amount(fields);
    fields.price("price", Need::Required);
    fields.foreign_id(Need::Required);
}

/// Exchanges at whatever the price is.
pub(super) fn now(fields: &mut Fields<'_>) {
    pair_and_amount(fields);
    fields.foreign_id(Need::Required);
}

fn pair_and_amount(fields: &mut Fields<'_>) {
    fields.currency("sender_currency", Need::Required);
    fields.currency("receiver_currency", Need::Required);
    fields.amount("sender_amount", Need::Optional);
    fields.amount("receiver_amount", Need::Optional);
    fields.exactly_one("sender_amount", "receiver_amount");
}
