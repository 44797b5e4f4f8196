//! What makes a callback this callback: the few fields that identify its event, read from a body
//! without the rest of it where that comes to the same.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use rust_decimal::Decimal;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::EventKey;
use crate::domain::id::Digits;
use crate::domain::money::{decimal_from_json, parse_decimal};

/// The most opening brackets of a body whose few identifying fields are read without the rest.
/// Fewer than the deepest nesting that a whole reading takes.
const MAX_BRACKETS: usize = 100;

/// The fields of a body that identify its event. Absent and null are the same.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Named<'a> {
    pub(super) kind: Option<Given<'a>>,
    pub(super) status: Option<Given<'a>>,
    pub(super) id: Option<Given<'a>>,
    pub(super) payment_request_id: Option<Given<'a>>,
    pub(super) foreign_id: Option<Given<'a>>,
    /// What part-payments change: what is left to pay, and what came in.
    progress: [Option<Given<'a>>; 2],
    legs: Vec<Leg<'a>>,
}

/// What identifies one leg of a transaction.
#[derive(Debug, Default, PartialEq)]
struct Leg<'a> {
    id: Option<Given<'a>>,
    txid: Option<Given<'a>>,
    amount: Option<Given<'a>>,
    amount_to: Option<Given<'a>>,
}

/// What a field holds, other than null. Borrowed from the body where it stands there as it is.
#[derive(Debug, PartialEq)]
pub(super) enum Given<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A number, as serde_json writes it.
    Number(Cow<'a, str>),
    /// The JSON of anything else, which is neither an id nor an amount.
    Other(String),
}

/// The same fields as they stand in a body.
#[derive(Deserialize)]
struct RawNamed<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    payment_request_id: Option<&'a RawValue>,
    foreign_id: Option<&'a RawValue>,
    currency_sent: Option<Object<RawSent<'a>>>,
    transactions: Option<Vec<Object<RawLeg<'a>>>>,
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

/// Fields read from a JSON object, and from nothing else that could be taken for one: serde also
/// takes an array for the fields in their order.
struct Object<T>(T);

impl<'a> Named<'a> {
    /// Reads a body that is shaped as the gateway's are, without reading the rest. `None` when it
    /// is not, or when a whole reading could come to another result.
    pub(super) fn of_text(text: &'a str) -> Option<Self> {
        let brackets = text
            .bytes()
            .filter(|byte| matches!(byte, b'{' | b'['))
            .count();
        if brackets > MAX_BRACKETS || text.contains('\\') {
            return None;
        }
        let Object(raw) = serde_json::from_str::<Object<RawNamed<'_>>>(text).ok()?;
        let read = |raw: Option<&'a RawValue>| Given::of_raw(raw?);
        let progress = match raw.currency_sent {
            None => [None, None],
            Some(Object(sent)) => [read(sent.remaining_amount), read(sent.received_amount)],
        };
        let leg = |Object(leg): Object<RawLeg<'a>>| Leg {
            id: read(leg.id),
            txid: read(leg.txid),
            amount: read(leg.amount),
            amount_to: read(leg.amount_to),
        };
        let legs = raw.transactions.unwrap_or_default();
        Some(Self {
            kind: read(raw.kind),
            status: read(raw.status),
            id: read(raw.id),
            payment_request_id: read(raw.payment_request_id),
            foreign_id: read(raw.foreign_id),
            progress,
            legs: legs.into_iter().map(leg).collect(),
        })
    }

    /// Takes them from a body that has been read.
    pub(super) fn of_fields(body: &Map<String, Value>) -> Self {
        let given = |value: Option<&Value>| Given::of_value(value?);
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
        let mut legs: Vec<Digits> = self.legs.iter().map(Leg::identity).collect();
        legs.sort_unstable();
        let progress = self
            .progress
            .each_ref()
            .map(|given| amount_text(given.as_ref()));
        let parts = [kind, id, status]
            .into_iter()
            .chain(progress.iter().map(String::as_str))
            .chain(legs.iter().map(Digits::as_str));
        let digest = Digits::of(parts);
        let key = [
            "callback:",
            kind,
            ".",
            status,
            ":",
            id,
            ":",
            digest.as_str(),
        ];
        EventKey(key.concat())
    }
}

impl Leg<'_> {
    /// What tells it from another. The id comes first because `txid` is null until the leg is
    /// broadcast.
    fn identity(&self) -> Digits {
        let id = [&self.id, &self.txid]
            .into_iter()
            .find_map(|id| id.as_ref()?.id())
            .unwrap_or_default();
        let amount = amount_text(self.amount.as_ref());
        let amount_to = amount_text(self.amount_to.as_ref());
        Digits::of([id, amount.as_str(), amount_to.as_str()])
    }
}

impl<'a> Given<'a> {
    /// Takes it as it stands in a body without escapes; `None` for what cannot be read.
    fn of_raw(raw: &'a RawValue) -> Option<Self> {
        let json = raw.get();
        let quoted = json
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        if let Some(text) = quoted {
            return Some(Self::Text(Cow::Borrowed(text)));
        }
        // A number with an exponent is not written as it was read.
        let is_plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        if json.bytes().all(is_plain) {
            return Some(Self::Number(Cow::Borrowed(json)));
        }
        Self::of_value(&serde_json::from_str(json).ok()?)
    }

    /// Takes it from a body that has been read; `None` for null.
    pub(super) fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(Self::Text(Cow::Owned(text.clone()))),
            Value::Number(number) => Some(Self::Number(Cow::Owned(number.to_string()))),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                Some(Self::Other(value.to_string()))
            }
        }
    }

    /// The text, if it is a string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Other(_) => None,
        }
    }

    /// The text of an id, which the gateway writes as a string or a number.
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text),
            Self::Other(_) => None,
        }
    }

    /// The exact amount, which the gateway writes as a string or a number.
    fn amount(&self) -> Option<Decimal> {
        match self {
            Self::Text(text) => parse_decimal(text).ok(),
            Self::Number(number) => decimal_from_json(&Value::Number(number.parse().ok()?)).ok(),
            Self::Other(_) => None,
        }
    }

    /// It as JSON.
    fn json(&self) -> String {
        match self {
            Self::Text(text) => Value::from(text.as_ref()).to_string(),
            Self::Number(number) => number.to_string(),
            Self::Other(json) => json.clone(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// Reads the fields of an [`Object`].
struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// The same text for equal amounts, however they are written.
fn amount_text(given: Option<&Given<'_>>) -> String {
    given.map_or_else(String::new, |given| match given.amount() {
        Some(amount) => amount.normalize().to_string(),
        None => given.json(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::super::Callback;
    use super::*;

    /// The key of a body, said plainly and at length: keys are stored for ever, so every other way
    /// to them must come to the same.
    fn plain_key(body: &Value) -> String {
        let digest = |parts: &[String]| {
            let mut hasher = Sha256::new();
            for part in parts {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
            hex::encode(hasher.finalize())[..20].to_owned()
        };
        let id = |value: &Value| {
            let text = value.as_str().map(str::to_owned);
            text.or_else(|| value.as_number().map(ToString::to_string))
        };
        let amount = |value: &Value| match decimal_from_json(value) {
            _ if value.is_null() => String::new(),
            Ok(amount) => amount.normalize().to_string(),
            Err(_) => value.to_string(),
        };
        let leg = |leg: &Value| {
            let id = id(&leg["id"]).or_else(|| id(&leg["txid"]));
            digest(&[
                id.unwrap_or_default(),
                amount(&leg["amount"]),
                amount(&leg["amount_to"]),
            ])
        };
        let legs = body["transactions"].as_array();
        let mut legs: Vec<String> = legs.into_iter().flatten().map(leg).collect();
        legs.sort();
        let root = id(&body["id"]).or_else(|| id(&body["payment_request_id"]));
        let [kind, status] = ["type", "status"].map(|name| body[name].as_str().unwrap().to_owned());
        let sent = &body["currency_sent"];
        let mut parts = vec![kind.clone(), root.clone().unwrap(), status.clone()];
        parts.push(amount(&sent["remaining_amount"]));
        parts.push(amount(&sent["received_amount"]));
        parts.extend(legs);
        let digest = digest(&parts);
        format!("callback:{kind}.{status}:{}:{digest}", root.unwrap())
    }

    /// JSON as it may stand in a field.
    fn field() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "null",
            "true",
            "0",
            "-0",
            "7",
            "1504",
            "-3.50",
            "0.10",
            "12345678901234567890123",
            "0.12345678901234567890123456789012",
            "1e-8",
            "1E5",
            "1.50e+2",
            "1e400",
            r#""""#,
            r#""7""#,
            r#""0.10""#,
            r#""0.1""#,
            r#""-3.5000""#,
            r#""1e5""#,
            r#""much""#,
            r#""Müller\u007f""#,
            r#""a \"b\"""#,
            r#""\u0041\n""#,
            "\"\u{7f}\"",
            "[]",
            "[ 1 , 2.0 ]",
            r#"{"b": 1E5, "a": "x", "b": 2}"#,
        ])
    }

    fn fields(names: [&'static str; 4]) -> impl Strategy<Value = String> {
        let values = [field(), field(), field(), field()];
        values.prop_map(move |values| {
            let fields = names.iter().zip(values);
            let fields = fields.map(|(name, value)| format!(r#""{name}" : {value}"#));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(",\n"))
        })
    }

    proptest! {
        #[test]
        fn the_key_is_the_plain_one_whatever_the_fields_hold(
            id in prop::sample::select(vec!["7", "1E5", "-0", "true", r#""x-1""#, r#""\u0041""#]),
            legs in prop::collection::vec(
                prop_oneof![
                    6 => fields(["id", "txid", "amount", "amount_to"]),
                    1 => field().prop_map(str::to_owned),
                ],
                0..4,
            ),
            sent in prop_oneof![
                3 => fields(["remaining_amount", "received_amount", "amount", "x"]),
                1 => field().prop_map(str::to_owned),
            ],
        ) {
            let text = format!(
                r#"{{"type":"invoice","id":{id},"payment_request_id":"p","status":"paid",
                    "transactions":[{}],"currency_sent":{sent}}}"#,
                legs.join(","),
            );
            let callback = Callback::parse(text.as_bytes()).unwrap();
            let whole: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(callback.event_key().as_str(), plain_key(&whole), "{}", text);
        }
    }
}
