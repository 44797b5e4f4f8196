//! Payments that nobody has asked for yet, as people write them down to see what policy would say,
//! and what it says in a form that can be shown.

use serde_json::{Map, Value, json};

use super::decision::{Decision, Proposal, Verdict};
use super::rules::Policy;
use crate::domain::clock::{Timestamp, shown};
use crate::domain::diagnostic::closest;
use crate::domain::id::HandlerId;
use crate::domain::money::{decimal_from_json, json_from_decimal};
use crate::domain::operation::{Effect, Operation};

/// What may be given: the fields of payments, and what a daemon would know by itself.
const FIELDS: [&str; 22] = [
    "foreign_id",
    "currency",
    "amount",
    "convert_to",
    "amount_to",
    "address",
    "tag",
    "end_user_reference",
    "sender_type",
    "sender_data",
    "receiver_type",
    "receiver_data",
    "sender_currency",
    "sender_amount",
    "receiver_currency",
    "receiver_amount",
    "price",
    "callback_url",
    "script",
    "handler",
    "kind",
    "at",
];

/// Reads one payment, or a list of payments that are asked for together.
///
/// # Errors
/// Every mistake, with the number of its payment.
pub fn proposed(value: &Value, now: Timestamp) -> Result<Vec<Proposal>, Vec<String>> {
    let rows = match value {
        Value::Array(rows) => rows.as_slice(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            std::slice::from_ref(value)
        }
    };
    if rows.is_empty() {
        return Err(vec!["there is no payment in it".into()]);
    }
    let (mut proposals, mut mistakes) = (Vec::with_capacity(rows.len()), Vec::new());
    for (number, row) in rows.iter().enumerate() {
        let mut wrong = Vec::new();
        let read = one(row, number, rows.len(), now, &mut wrong);
        proposals.extend(read);
        let numbered = wrong.into_iter();
        mistakes.extend(numbered.map(|text| format!("payment {}: {text}", number + 1)));
    }
    if mistakes.is_empty() {
        Ok(proposals)
    } else {
        Err(mistakes)
    }
}

fn one(
    row: &Value,
    number: usize,
    batch: usize,
    now: Timestamp,
    wrong: &mut Vec<String>,
) -> Option<Proposal> {
    let Some(fields) = row.as_object() else {
        wrong.push("it is no object such as {\"currency\": \"BTC\", \"amount\": \"0.1\"}".into());
        return None;
    };
    for name in fields
        .keys()
        .filter(|name| !FIELDS.contains(&name.as_str()))
    {
        let meant = closest(name, FIELDS).map(|meant| format!("; did you mean `{meant}`?"));
        wrong.push(format!(
            "unknown field `{name}`{}",
            meant.unwrap_or_default()
        ));
    }
    let foreign_id = text(fields, "foreign_id", wrong);
    let foreign_id = foreign_id.unwrap_or_else(|| format!("payment-{}", number + 1));
    let foreign_id = parsed("foreign_id", &foreign_id, wrong);
    let kind = text(fields, "kind", wrong).unwrap_or_else(|| "withdraw".into());
    let operation = Operation::by_name(&kind).filter(|one| one.effect() == Effect::Pay);
    if operation.is_none() {
        wrong.push(format!("`kind`: `{kind}` is no kind of payment"));
    }
    let currency =
        text(fields, "currency", wrong).or_else(|| text(fields, "sender_currency", wrong));
    if currency.is_none() {
        wrong.push("it has no `currency`".into());
    }
    let amount = fields.get("amount").or_else(|| fields.get("sender_amount"));
    let amount = amount.and_then(|amount| {
        let read = decimal_from_json(amount);
        read.map_err(|error| wrong.push(format!("`amount`: {error}")))
            .ok()
    });
    let to = ["amount", "amount_to", "sender_amount", "receiver_amount"];
    if !to.iter().any(|name| fields.contains_key(*name)) {
        wrong.push("it has no `amount`".into());
    }
    let at = text(fields, "at", wrong);
    let at = at.map_or(Some(now), |at| parsed("at", &at, wrong));
    let mut name = |field: &str, otherwise: &str| {
        text(fields, field, wrong).unwrap_or_else(|| otherwise.to_owned())
    };
    let handler = HandlerId {
        script: name("script", "script"),
        name: name("handler", "handler"),
    };
    Some(Proposal {
        foreign_id: foreign_id?,
        operation: operation?,
        currency: currency?,
        amount,
        address: text(fields, "address", wrong),
        handler,
        batch,
        at: at?,
    })
}

fn text(fields: &Map<String, Value>, name: &str, wrong: &mut Vec<String>) -> Option<String> {
    match fields.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            wrong.push(format!("`{name}` must be text"));
            None
        }
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: &str,
    wrong: &mut Vec<String>,
) -> Option<T> {
    text.parse()
        .map_err(|error: T::Err| wrong.push(format!("`{name}`: `{text}`: {error}")))
        .ok()
}

/// A decision with its reasons, and the rules that were not looked at because one before them
/// decided.
#[must_use]
pub fn explained(policy: &Policy, payment: &Proposal, decision: &Decision) -> Value {
    let looked_at: Vec<Value> = decision
        .reasons
        .iter()
        .map(|reason| json!({"name": reason.name, "matches": reason.matches, "text": reason.text}))
        .collect();
    let seen = |name: &str| decision.reasons.iter().any(|reason| reason.name == name);
    let rest = policy.rules.iter().map(|rule| rule.name.as_str());
    let rest: Vec<&str> = rest.filter(|name| !seen(name)).collect();
    let (verdict, terms) = match decision.verdict {
        Verdict::Allow => ("allow", Value::Null),
        Verdict::Refuse => ("refuse", Value::Null),
        Verdict::Approve(terms) => ("approve", json!(terms)),
    };
    json!({
        "foreign_id": payment.foreign_id,
        "kind": payment.operation.name(),
        "currency": payment.currency,
        "amount": payment.amount.map(json_from_decimal),
        "address": payment.address,
        "script": payment.handler.script,
        "handler": payment.handler.name,
        "at": shown(payment.at),
        "verdict": verdict,
        "by": decision.by,
        "because": decision.because(),
        "approval": terms,
        "looked_at": looked_at,
        "not_looked_at": rest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payments_are_read_with_what_they_leave_out() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let read = proposed(
            &json!([
                {"currency": "BTC", "amount": "0.1", "address": "tb1q"},
                {"foreign_id": "x", "currency": "ETH", "amount_to": 5, "convert_to": "EUR",
                 "script": "payroll", "handler": "monthly", "at": "2026-11-21T09:00:00Z"},
                {"kind": "exchange_now", "sender_currency": "BTC", "sender_amount": 1},
            ]),
            now,
        )
        .unwrap();
        assert_eq!(read[0].foreign_id.as_str(), "payment-1");
        assert_eq!((read[0].at, read[0].batch), (now, 3));
        assert_eq!(read[1].amount, None);
        assert_eq!(read[1].handler.to_string(), "payroll/monthly");
        assert_eq!(read[2].currency, "BTC");
        assert_eq!(read[2].amount.unwrap().to_string(), "1");
    }

    #[test]
    fn all_mistakes_are_told_with_the_number_of_their_payment() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let wrong = proposed(
            &json!([
                {"curency": "BTC", "amount": "ten", "at": "soon"},
                7,
                {"currency": "BTC", "kind": "list_rates", "foreign_id": "", "script": 1},
            ]),
            now,
        );
        insta::assert_snapshot!(wrong.unwrap_err().join("\n"));
        assert!(proposed(&json!([]), now).is_err());
    }
}
