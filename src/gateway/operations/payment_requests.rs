//! Payment requests, which live beside the v2 API and name currencies by `iso` and network.

use super::super::fields::{Fields, Need};
use super::{parties, shapes};

pub(super) fn create(fields: &mut Fields<'_>) {
    fields.amount("amount", Need::Required);
    fields.object("currency", Need::Required, currency);
    fields.object("payment_currency", Need::Optional, currency);
    fields.whole("life_time_duration", Need::Optional);
    fields.whole("life_time_datetime", Need::Optional);
    if fields.has("life_time_duration") && fields.has("life_time_datetime") {
        fields.refuse(
            "life_time_duration",
            "and `life_time_datetime` exclude each other, give one of them",
        );
    }
    fields.foreign_id(Need::Optional);
    fields.text("end_user_reference", Need::Optional, 255);
    fields.checked_text("end_user_email", Need::Optional, shapes::email);
    fields.text("description", Need::Optional, 1000);
    for url in ["url_store", "url_success", "url_failed"] {
        fields.checked_text(url, Need::Optional, shapes::https_url);
    }
    // Optional in this operation's page, required in all others.
    parties::sender(fields, Need::Optional);
}

fn currency(fields: &mut Fields<'_>) {
    fields.currency("iso", Need::Required);
    fields.text("network_name", Need::Optional, 255);
}
