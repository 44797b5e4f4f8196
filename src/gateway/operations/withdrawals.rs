//! Withdrawals, ordinary and instant, with and without conversion.

use super::super::fields::{Fields, Need};
use super::parties;

/// `amount` is in `currency`, `amount_to` in `convert_to`; both are without fees.
pub(super) fn crypto(fields: &mut Fields<'_>) {
    source(fields);
    fields.amount("amount", Need::Optional);
    fields.amount("amount_to", Need::Optional);
    fields.exactly_one("amount", "amount_to");
    if fields.has("amount_to") && !fields.has("convert_to") {
        fields.refuse("amount_to", "needs a `convert_to`, the currency it is in");
    }
    fields.tag("tag");
    identities(fields);
}

/// The fields are those of an ordinary withdrawal: the page says that some names differ, but the
/// names could not be read. What is certain is that only the sender's amount can be given. None of
/// its currencies (BTC, BCH, LTC, DOGE) has tags.
pub(super) fn instant(fields: &mut Fields<'_>) {
    source(fields);
    fields.amount("amount", Need::Required);
    identities(fields);
}

fn source(fields: &mut Fields<'_>) {
    fields.currency("currency", Need::Required);
    fields.currency("convert_to", Need::Optional);
    fields.text("address", Need::Required, 255);
}

fn identities(fields: &mut Fields<'_>) {
    fields.foreign_id(Need::Required);
    fields.text("end_user_reference", Need::Required, 255);
    parties::sender(fields, Need::Required);
    parties::receiver(fields);
}
