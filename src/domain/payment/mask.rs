//! Masks personal data in what is shown of payments. Pure.
//!
//! Personal are the people behind a payment: names, dates of birth, e-mail addresses, documents,
//! postal addresses, and the merchant's reference of the customer. A crypto address is shown,
//! because where the money went is what the reader wants to know.

use serde_json::Value;

/// Fields whose whole content is about a person, wherever they stand.
const PERSONAL: [&str; 18] = [
    "sender_data",
    "receiver_data",
    "end_user_reference",
    "email",
    "email_user",
    "user_email",
    "first_name",
    "last_name",
    "middle_name",
    "full_name",
    "legal_name",
    "date_of_birth",
    "place_of_birth",
    "phone",
    "postal_address",
    "street",
    "document_number",
    "ip",
];

/// What stands in the place of a value.
const MASK: &str = "***";

/// The same with every personal value masked. The fields stay, so that one sees what was sent.
#[must_use]
pub fn masked(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let shown = if PERSONAL.contains(&name.as_str()) {
                    hidden(value)
                } else {
                    masked(value)
                };
                (name.clone(), shown)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// The same for a text that holds JSON; one that does not is masked whole.
#[must_use]
pub fn masked_json(text: &str) -> String {
    serde_json::from_str::<Value>(text).map_or_else(|_| MASK.into(), |it| masked(&it).to_string())
}

fn hidden(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), hidden(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(hidden).collect(),
        Value::Null => Value::Null,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => MASK.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_are_masked_wherever_they_stand_and_money_is_not() {
        let body = json!({
            "amount": "1.5", "address": "tb1q", "end_user_reference": "customer-1",
            "receiver_data": {"first_name": "Ada", "aliases": ["A", 1], "tax": null},
            "crypto_address": {"user_email": "ada@shop.example", "currency": "BTC"},
        });
        assert_eq!(
            masked(&body),
            json!({
                "amount": "1.5", "address": "tb1q", "end_user_reference": "***",
                "receiver_data": {"first_name": "***", "aliases": ["***", "***"], "tax": null},
                "crypto_address": {"user_email": "***", "currency": "BTC"},
            })
        );
        assert_eq!(masked_json("no JSON, Ada"), "***");
    }
}
