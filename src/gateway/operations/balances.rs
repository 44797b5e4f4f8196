//! Currencies and the pairs between them. (`accounts/list` has no fields.)

use super::super::fields::{Fields, Need};

pub(super) fn currencies(fields: &mut Fields<'_>) {
    fields.flag("visible", Need::Optional);
}

pub(super) fn pairs(fields: &mut Fields<'_>) {
    fields.currency("currency_from", Need::Optional);
    fields.currency("currency_to", Need::Optional);
}
