//! From the fields that a script gives to a payment's key and content.

use serde_json::Value;

use crate::domain::id::{ForeignId, ForeignIdError};
use crate::domain::operation::Operation;
use crate::domain::payment::Content;
use crate::gateway::{ArgumentError, Prepared};

/// The key a payment has: the script's own, or the derived one, which is then added to the fields.
pub(in crate::runner) fn name_payment(
    arguments: &mut Value,
    derive: impl FnOnce() -> ForeignId,
) -> Result<ForeignId, ArgumentError> {
    let Some(fields) = arguments.as_object_mut() else {
        return Ok(derive());
    };
    match fields.get("foreign_id") {
        None | Some(Value::Null) => {
            let derived = derive();
            fields.insert("foreign_id".into(), Value::String(derived.to_string()));
            Ok(derived)
        }
        Some(given) => {
            let text = given
                .as_str()
                .map_or_else(|| given.to_string(), str::to_owned);
            let foreign_id = text
                .parse()
                .map_err(|error: ForeignIdError| ArgumentError {
                    field: "foreign_id".into(),
                    message: error.to_string(),
                    help: None,
                })?;
            fields.insert("foreign_id".into(), Value::String(text));
            Ok(foreign_id)
        }
    }
}

/// What a prepared request is, for keeping.
pub(in crate::runner) fn content(operation: Operation, prepared: &Prepared) -> Content {
    let body = String::from_utf8_lossy(prepared.body()).into_owned();
    Content::new(operation, body)
}
