//! The travel-rule data: who sends and who receives.
//!
//! Source: the page on user data collection. The EU deployment demands it, sister deployments do
//! not know it, so only the receiver of a withdrawal is required here, as its page says.

use super::super::fields::{Fields, Need};
use super::shapes;

/// The longest text taken where the gateway documents no limit of its own.
const TEXT: usize = 255;

/// Whether a natural person's date of birth must be given: the pages differ by operation.
pub(super) type DateOfBirth = Need;

/// `sender_type` and `sender_data`: both or none.
pub(super) fn sender(fields: &mut Fields<'_>, born: DateOfBirth) {
    fields.choice("sender_type", Need::Optional, &["natural", "legal"]);
    if fields.has("sender_data") && !fields.has("sender_type") {
        fields.refuse("sender_type", "is missing, as `sender_data` is given");
    }
    match fields.text_of("sender_type") {
        Some("natural") => {
            fields.object("sender_data", Need::Required, |data| natural(data, born));
        }
        Some("legal") => fields.object("sender_data", Need::Required, legal),
        Some(_) | None => fields.skip("sender_data"),
    }
}

/// `receiver_type` and, unless the receiver is the company itself, `receiver_data`.
pub(super) fn receiver(fields: &mut Fields<'_>) {
    fields.choice(
        "receiver_type",
        Need::Required,
        &["natural", "legal", "self"],
    );
    match fields.text_of("receiver_type") {
        Some("natural") => {
            fields.object("receiver_data", Need::Required, |data| {
                natural(data, Need::Required);
            });
        }
        Some("legal") => fields.object("receiver_data", Need::Required, legal),
        Some("self") => {
            fields.skip("receiver_data");
            if fields.has("receiver_data") {
                fields.refuse(
                    "receiver_data",
                    "goes with receiver_type natural or legal, not with self",
                );
            }
        }
        Some(_) | None => fields.skip("receiver_data"),
    }
}

fn natural(data: &mut Fields<'_>, born: DateOfBirth) {
    data.text("first_name", Need::Required, TEXT);
    data.text("last_name", Need::Required, TEXT);
    data.checked_text("date_of_birth", born, shapes::date);
    data.checked_text("email", Need::Optional, shapes::email);
}

fn legal(data: &mut Fields<'_>) {
    data.text("legal_name", Need::Required, TEXT);
    data.checked_text("country_of_registration", Need::Required, shapes::country);
    data.checked_text("email", Need::Optional, shapes::email);
}
