//! Makes the amounts in an answer exact numbers, whichever way the gateway wrote them.

use serde_json::Value;

use crate::domain::money::{decimal_from_json, json_from_decimal};

/// The fields that hold amounts, rates or shares, at whatever depth. The documentation shows each
/// of them as a text in one place and as a number in another.
const AMOUNTS: [&str; 18] = [
    "amount",
    "amount_minus_fee",
    "amount_to",
    "balance",
    "deposit_fee_percent",
    "expected_amount",
    "fee_amount",
    "min_amount",
    "min_amount_deposit_with_exchange",
    "minimum_amount",
    "price",
    "rate_from",
    "rate_to",
    "receiver_amount",
    "received_amount",
    "remaining_amount",
    "sender_amount",
    "withdrawal_fee_percent",
];

/// The same answer with every amount as a JSON number that has a point. What is not a decimal
/// stays as it is.
pub(super) fn exact(answer: Value) -> Value {
    match answer {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| {
                    let value = match decimal_from_json(&value) {
                        Ok(amount) if AMOUNTS.contains(&name.as_str()) => json_from_decimal(amount),
                        Ok(_) | Err(_) => exact(value),
                    };
                    (name, value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(exact).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_become_numbers_with_a_point_and_nothing_else_changes() {
        let answer: Value = serde_json::from_str(
            r#"{"id":"12","foreign_id":"7","amount":"0.00020000","sender_amount":1,
                "receiver_amount":null,"status":"12.5","confirmations":"1",
                "fees":[{"amount":1e-8},{"amount":"soon"}],"tag":"100"}"#,
        )
        .unwrap();
        assert_eq!(
            exact(answer).to_string(),
            r#"{"amount":0.00020000,"confirmations":"1","fees":[{"amount":0.00000001},{"amount":"soon"}],"foreign_id":"7","id":"12","receiver_amount":null,"sender_amount":1.0,"status":"12.5","tag":"100"}"#
        );
    }
}
