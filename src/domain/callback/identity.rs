//! What makes a callback this callback: the few fields that identify its event, read from a body
//! without the rest of it where that comes to the same.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::EventKey;
use crate::domain::id::digest;
use crate::domain::money::decimal_from_json;

/// The most opening brackets of a body whose few identifying fields are read without the rest.
/// Fewer than the deepest nesting that a whole reading takes.
const MAX_BRACKETS: usize = 100;

/// The fields of a body that identify its event. Absent and null are the same.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Named {
    pub(super) kind: Option<Value>,
    pub(super) status: Option<Value>,
    pub(super) id: Option<Value>,
    pub(super) payment_request_id: Option<Value>,
    pub(super) foreign_id: Option<Value>,
    /// What part-payments change: what is left to pay, and what came in.
    progress: [Option<Value>; 2],
    legs: Vec<Leg>,
}

/// What identifies one leg of a transaction.
#[derive(Debug, Default, PartialEq)]
struct Leg {
    id: Option<Value>,
    txid: Option<Value>,
    amount: Option<Value>,
    amount_to: Option<Value>,
}

/// The same as it stands in a body.
#[derive(Deserialize)]
struct RawNamed<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    payment_request_id: Option<&'a RawValue>,
    foreign_id: Option<&'a RawValue>,
    currency_sent: Option<&'a RawValue>,
    transactions: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct RawSent<'a> {
    #[serde(borrow)]
    remaining_amount: Option<&'a RawValue>,
    received_amount: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawLeg<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    txid: Option<&'a RawValue>,
    amount: Option<&'a RawValue>,
    amount_to: Option<&'a RawValue>,
}

impl Named {
    /// Reads a body that is shaped as the gateway's are, without reading the rest. `None` when it
    /// is not, or when a whole reading could come to another result.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let brackets = text
            .bytes()
            .filter(|byte| matches!(byte, b'{' | b'['))
            .count();
        if brackets > MAX_BRACKETS || text.contains('\\') {
            return None;
        }
        let raw: RawNamed<'_> = object(text)?;
        let progress = match raw.currency_sent {
            None => [None, None],
            Some(sent) => {
                let sent: RawSent<'_> = object(sent.get())?;
                [read(sent.remaining_amount), read(sent.received_amount)]
            }
        };
        let leg = |leg: &RawValue| {
            let leg: RawLeg<'_> = object(leg.get())?;
            Some(Leg {
                id: read(leg.id),
                txid: read(leg.txid),
                amount: read(leg.amount),
                amount_to: read(leg.amount_to),
            })
        };
        let legs = raw.transactions.unwrap_or_default();
        Some(Self {
            kind: read(raw.kind),
            status: read(raw.status),
            id: read(raw.id),
            payment_request_id: read(raw.payment_request_id),
            foreign_id: read(raw.foreign_id),
            progress,
            legs: legs.into_iter().map(leg).collect::<Option<_>>()?,
        })
    }

    /// Takes them from a body that has been read.
    pub(super) fn of_fields(body: &Map<String, Value>) -> Self {
        let given = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
        let sent = body.get("currency_sent");
        let legs = body.get("transactions").and_then(Value::as_array);
        let leg = |leg: &Value| Leg {
            id: given(leg.get("id")),
            txid: given(leg.get("txid")),
            amount: given(leg.get("amount")),
            amount_to: given(leg.get("amount_to")),
        };
        Self {
            kind: given(body.get("type")),
            status: given(body.get("status")),
            id: given(body.get("id")),
            payment_request_id: given(body.get("payment_request_id")),
            foreign_id: given(body.get("foreign_id")),
            progress: ["remaining_amount", "received_amount"]
                .map(|name| given(sent.and_then(|sent| sent.get(name)))),
            legs: legs.into_iter().flatten().map(leg).collect(),
        }
    }

    /// The permanent key: transaction, status and what part-payments change.
    pub(super) fn event_key(&self, kind: &str, id: &str, status: &str) -> EventKey {
        let mut legs: Vec<String> = self.legs.iter().map(Leg::identity).collect();
        legs.sort_unstable();
        let progress = self
            .progress
            .each_ref()
            .map(|value| amount_text(value.as_ref()));
        let mut parts: Vec<&str> = vec![kind, id, status];
        parts.extend(progress.iter().map(String::as_str));
        parts.extend(legs.iter().map(String::as_str));
        EventKey(format!("callback:{kind}.{status}:{id}:{}", digest(&parts)))
    }
}

impl Leg {
    /// What tells it from another. The id comes first because `txid` is null until the leg is
    /// broadcast.
    fn identity(&self) -> String {
        let id = [&self.id, &self.txid]
            .into_iter()
            .find_map(|id| text_of(id.as_ref()?))
            .unwrap_or_default();
        digest(&[
            &id,
            &amount_text(self.amount.as_ref()),
            &amount_text(self.amount_to.as_ref()),
        ])
    }
}

/// A JSON object, and nothing else that could be taken for one.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    let is_object = text.trim_ascii_start().starts_with('{');
    is_object.then(|| serde_json::from_str(text).ok())?
}

fn read(raw: Option<&RawValue>) -> Option<Value> {
    serde_json::from_str(raw?.get()).ok()
}

/// The text of an id, which the gateway writes as a string or a number.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The same text for equal amounts, however they are written.
fn amount_text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(value) => decimal_from_json(value).map_or_else(
            |_| value.to_string(),
            |amount| amount.normalize().to_string(),
        ),
    }
}
