//! Invoices.

use super::super::fields::{Fields, Need};
use super::{parties, shapes};

pub(super) fn create(fields: &mut Fields<'_>) {
    fields.flag("timer", Need::Required);
    fields.text("title", Need::Required, 50);
    fields.text("description", Need::Optional, 1000);
    fields.currency("currency", Need::Required);
    fields.currency("sender_currency", Need::Optional);
    fields.amount("amount", Need::Required);
    fields.foreign_id(Need::Required);
    fields.text("end_user_reference", Need::Required, 255);
    fields.checked_text("url_success", Need::Required, shapes::https_url);
    fields.checked_text("url_failed", Need::Required, shapes::https_url);
    fields.checked_text("email_user", Need::Required, shapes::email);
    fields.choice(
        "type",
        Need::Optional,
        &["fill_or_kill", "good_until_expired"],
    );
    parties::sender(fields, Need::Required);
}
