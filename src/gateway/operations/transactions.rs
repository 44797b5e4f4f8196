//! The only look-up there is.

use super::super::fields::{Fields, Need};

/// Exactly one of `id`, `foreign_id` and `txid`.
pub(super) fn info(fields: &mut Fields<'_>) {
    fields.whole("id", Need::Optional);
    fields.foreign_id(Need::Optional);
    fields.text("txid", Need::Optional, 255);
    let given = ["id", "foreign_id", "txid"]
        .into_iter()
        .filter(|field| fields.has(field))
        .count();
    if given != 1 {
        fields.refuse(
            "",
            format!("exactly one of `id`, `foreign_id` and `txid` must be given, not {given}"),
        );
    }
}
