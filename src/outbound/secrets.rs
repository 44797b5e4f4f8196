//! Puts secrets where a script refers to them: in header values and in the userinfo of URLs.
//!
//! A script holds a reference, not the value: a mark, the secret's name, and the mark again. The
//! value appears here for the first time, in the request that is sent, and nowhere else; errors
//! name the secret and never quote the text around it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::http::HttpError;
use crate::domain::secret::Secret;

/// What stands before and after the name of a secret.
pub(super) const MARK: char = '\u{1}';

/// Replaces every reference in `text` by what `write` makes of the secret.
///
/// # Errors
/// [`HttpError::UnknownSecret`], or [`HttpError::Invalid`] for a mark that is not closed.
pub(super) fn resolve(
    text: &str,
    secrets: &BTreeMap<String, Secret>,
    write: impl Fn(&Secret) -> String,
) -> Result<String, HttpError> {
    let mut resolved = String::new();
    let mut parts = text.split(MARK);
    resolved.push_str(parts.next().unwrap_or_default());
    while let Some(name) = parts.next() {
        let rest = parts.next().ok_or_else(|| {
            HttpError::Invalid("a reference to a secret is torn apart".to_owned())
        })?;
        let secret = secrets
            .get(name)
            .ok_or_else(|| HttpError::UnknownSecret(name.chars().take(60).collect()))?;
        resolved.push_str(&write(secret));
        resolved.push_str(rest);
    }
    Ok(resolved)
}

/// Whether a JSON value refers to a secret anywhere, where none may stand.
pub(super) fn refers(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(MARK),
        Value::Array(items) => items.iter().any(refers),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains(MARK) || refers(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolved(text: &str) -> Result<String, HttpError> {
        let secrets = BTreeMap::from([("KEY".to_owned(), Secret::new("s3cret"))]);
        resolve(text, &secrets, |secret| secret.expose().to_owned())
    }

    #[test]
    fn references_are_replaced_and_everything_else_stays() {
        assert_eq!(resolved("Bearer \u{1}KEY\u{1}!").unwrap(), "Bearer s3cret!");
        assert_eq!(
            resolved("\u{1}KEY\u{1}\u{1}KEY\u{1}").unwrap(),
            "s3crets3cret"
        );
        assert_eq!(resolved("KEY").unwrap(), "KEY");
    }

    #[test]
    fn unknown_and_torn_references_are_refused() {
        assert!(matches!(
            resolved("\u{1}OTHER\u{1}"),
            Err(HttpError::UnknownSecret(name)) if name == "OTHER"
        ));
        for text in ["\u{1}", "\u{1}KEY", "a\u{1}KEY\u{1}b\u{1}"] {
            assert!(
                matches!(resolved(text), Err(HttpError::Invalid(_))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn references_are_found_at_every_depth_of_a_body() {
        assert!(refers(&json!({"a": [1, {"b": "x\u{1}KEY\u{1}"}]})));
        assert!(refers(&json!({"\u{1}KEY\u{1}": 1})));
        assert!(!refers(&json!({"a": [1, "KEY", null, true]})));
    }
}
