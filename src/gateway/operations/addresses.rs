//! Deposit addresses.
//!
//! Here `foreign_id` names the customer and may be used again. Whether a second call with the same
//! data gives the same address is not documented, so callers keep what they got.

use super::super::fields::{Fields, Need};
use super::parties;

pub(super) fn take(fields: &mut Fields<'_>) {
    fields.currency("currency", Need::Required);
    fields.currency("convert_to", Need::Optional);
    fields.foreign_id(Need::Required);
    fields.text("end_user_reference", Need::Required, 255);
    parties::sender(fields, Need::Required);
}
