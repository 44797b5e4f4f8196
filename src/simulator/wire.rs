//! The shapes on the wire that all operations share: the documented error bodies, padded amounts,
//! and a reader of request fields that collects every mistake before it refuses.

use std::collections::BTreeMap;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::currencies::{self, Currency};
use crate::domain::money::decimal_from_json;

/// The largest amount taken: keeps every product of amount and rate within the exact range.
const MAX_AMOUNT: i64 = 1_000_000_000_000;

/// A request that was understood and acted upon.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    body: Value,
    /// The operation that now goes its way to a final status.
    pub(super) settles: Option<u64>,
}

impl Answer {
    /// 200: something was read.
    pub(super) fn read(body: Value) -> Self {
        Self {
            status: StatusCode::OK,
            body,
            settles: None,
        }
    }

    /// 201: something was created. `data` goes into the usual envelope.
    pub(super) fn created(data: &Value, settles: Option<u64>) -> Self {
        Self {
            status: StatusCode::CREATED,
            body: json!({ "data": data }),
            settles,
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        json_response(self.status, &self.body)
    }
}

/// A request that was refused; nothing happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No `X-Processing-Key`, or a path that does not exist.
    NoKey,
    /// The key is not ours.
    BadKey,
    /// No `X-Processing-Signature`.
    NoSignature,
    /// The signature does not belong to the body.
    BadSignature,
    /// The body is not JSON, or not declared as such.
    BadFormat,
    /// Field → message.
    Invalid(BTreeMap<String, String>),
    /// A look-up found nothing. The contract does not document this body.
    NotFound,
    /// More than 30 quotes in a minute. The documented body is not JSON.
    TooMany,
}

impl Refusal {
    /// One field is wrong.
    pub(super) fn field(name: &str, message: impl Into<String>) -> Self {
        Self::Invalid(BTreeMap::from([(name.to_owned(), message.into())]))
    }

    /// The `foreign_id` was used before.
    pub(super) fn taken() -> Self {
        Self::field("foreign_id", "The foreign id has already been taken.")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let header = |status, error: &str, code: &str| {
            json_response(status, &json!({"error": error, "code": code}))
        };
        let forbidden = StatusCode::FORBIDDEN;
        match self {
            Self::NoKey => header(forbidden, "No key header", "required_header_key"),
            Self::BadKey => header(forbidden, "Bad key header", "bad_header_key"),
            Self::NoSignature => header(
                forbidden,
                "No signature header",
                "required_header_signature",
            ),
            Self::BadSignature => header(forbidden, "Bad signature header", "bad_header_signature"),
            Self::BadFormat => header(
                StatusCode::BAD_REQUEST,
                "Bad content format",
                "bad_content_format",
            ),
            Self::Invalid(errors) => {
                json_response(StatusCode::BAD_REQUEST, &json!({ "errors": errors }))
            }
            Self::NotFound => header(
                StatusCode::NOT_FOUND,
                "Transaction not found",
                "transaction_not_found",
            ),
            Self::TooMany => (
                StatusCode::TOO_MANY_REQUESTS,
                r#"{"errors":{"error code: 1015"}}"#,
            )
                .into_response(),
        }
    }
}

/// A JSON body, compact.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (status, content_type, body.to_string()).into_response()
}

/// Sets a field of an object under construction.
pub(super) fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(name.to_owned(), value);
    }
}

/// An amount as the gateway writes it: padded to eight decimals.
pub(super) fn padded(amount: Decimal) -> String {
    format!("{amount:.8}")
}

/// Reads the fields of one request. Each reader notes what is wrong and goes on with a stand-in;
/// [`Fields::finish`] refuses with all of it at once, so the stand-ins never get further.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    map: Option<&'a Map<String, Value>>,
    errors: BTreeMap<String, String>,
}

impl<'a> Fields<'a> {
    /// Begins with the document and the names it may hold. An array counts as no fields.
    pub(super) fn read(body: &'a Value, known: &[&str]) -> Result<Self, Refusal> {
        if !body.is_object() && !body.is_array() {
            return Err(Refusal::BadFormat);
        }
        let map = body.as_object();
        let errors = map
            .into_iter()
            .flat_map(Map::keys)
            .filter(|name| !known.contains(&name.as_str()))
            .map(|name| {
                (
                    name.clone(),
                    format!("The {} field is unknown.", words(name)),
                )
            })
            .collect();
        Ok(Self { map, errors })
    }

    /// Refuses when anything was wrong so far.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(Refusal::Invalid(self.errors))
        }
    }

    /// Notes a mistake; the first one of a field stands.
    pub(super) fn wrong(&mut self, name: &str, message: impl Into<String>) {
        self.errors
            .entry(name.to_owned())
            .or_insert_with(|| message.into());
    }

    /// The value of a field; null and the empty text count as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        let value = self.map?.get(name)?;
        (!value.is_null() && value.as_str() != Some("")).then_some(value)
    }

    fn required(&mut self, name: &str) -> Option<&'a Value> {
        let value = self.get(name);
        if value.is_none() {
            self.wrong(name, format!("The {} field is required.", words(name)));
        }
        value
    }

    /// A text of at most `max` characters, when given.
    pub(super) fn optional_text(&mut self, name: &str, max: usize) -> Option<String> {
        let value = self.get(name)?;
        let Some(text) = value.as_str() else {
            self.wrong(name, format!("The {} must be a string.", words(name)));
            return None;
        };
        if text.chars().count() > max {
            let message = format!(
                "The {} may not be greater than {max} characters.",
                words(name)
            );
            self.wrong(name, message);
        }
        Some(text.to_owned())
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, name: &str, max: usize) -> String {
        self.required(name);
        self.optional_text(name, max).unwrap_or_default()
    }

    /// A text out of a fixed set.
    pub(super) fn one_of(&mut self, name: &str, set: &[&str]) -> Option<String> {
        let text = self.optional_text(name, 255)?;
        if !set.contains(&text.as_str()) {
            self.wrong(name, format!("The selected {} is invalid.", words(name)));
        }
        Some(text)
    }

    /// A boolean, when given.
    pub(super) fn optional_bool(&mut self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        if !value.is_boolean() {
            self.wrong(
                name,
                format!("The {} field must be true or false.", words(name)),
            );
        }
        value.as_bool()
    }

    /// A boolean that must be there.
    pub(super) fn bool(&mut self, name: &str) -> bool {
        self.required(name);
        self.optional_bool(name).unwrap_or_default()
    }

    /// The code of a known currency, when given.
    pub(super) fn optional_currency(&mut self, name: &str) -> Option<Currency> {
        let code = self.optional_text(name, 16)?;
        let found = currencies::find(&code);
        if found.is_none() {
            self.wrong(name, format!("The selected {} is invalid.", words(name)));
        }
        found
    }

    /// The code of a known currency that must be there.
    pub(super) fn currency(&mut self, name: &str) -> Currency {
        self.required(name);
        self.optional_currency(name).unwrap_or(currencies::STAND_IN)
    }

    /// A positive amount with at most eight decimals, when given; string or number.
    pub(super) fn optional_amount(&mut self, name: &str) -> Option<Decimal> {
        let value = self.get(name)?;
        let words = words(name);
        let message = match decimal_from_json(value) {
            Err(_) => format!("The {words} must be a number."),
            Ok(amount) if amount <= Decimal::ZERO => {
                format!("The {words} must be greater than 0.")
            }
            Ok(amount) if amount.normalize().scale() > 8 => {
                format!("The {words} format is invalid.")
            }
            Ok(amount) if amount > Decimal::from(MAX_AMOUNT) => {
                format!("The {words} may not be greater than {MAX_AMOUNT}.")
            }
            Ok(amount) => return Some(amount),
        };
        self.wrong(name, message);
        // Not the value itself: it may be too large to be multiplied by a rate.
        Some(Decimal::ONE)
    }

    /// A positive amount that must be there.
    pub(super) fn amount(&mut self, name: &str) -> Decimal {
        self.required(name);
        self.optional_amount(name).unwrap_or_default()
    }

    /// Exactly one of two amounts.
    pub(super) fn either_amount(&mut self, first: &str, second: &str) -> Either {
        let amounts = (self.optional_amount(first), self.optional_amount(second));
        match amounts {
            (Some(amount), None) => Either::First(amount),
            (None, Some(amount)) => Either::Second(amount),
            (Some(_), Some(_)) => {
                let message = format!(
                    "Only one of {} and {} may be present.",
                    words(first),
                    words(second)
                );
                self.wrong(second, message);
                Either::First(Decimal::ZERO)
            }
            (None, None) => {
                let message = format!(
                    "The {} field is required when {} is not present.",
                    words(first),
                    words(second)
                );
                self.wrong(first, message);
                Either::First(Decimal::ZERO)
            }
        }
    }

    /// An `https` address.
    pub(super) fn https(&mut self, name: &str) {
        let text = self.text(name, 2048);
        if !text.is_empty() && !text.starts_with("https://") {
            self.wrong(name, format!("The {} format is invalid.", words(name)));
        }
    }

    /// The travel-rule description of one side (`sender`, `receiver`): its type and its data.
    pub(super) fn person(&mut self, side: &str, allowed: &[&str]) {
        let (kind_name, data_name) = (format!("{side}_type"), format!("{side}_data"));
        self.required(&kind_name);
        let Some(kind) = self.one_of(&kind_name, allowed) else {
            return;
        };
        if kind == "self" {
            return;
        }
        let Some(data) = self.required(&data_name) else {
            return;
        };
        let names: &[&str] = if kind == "legal" {
            &["legal_name", "country_of_registration"]
        } else {
            &["first_name", "last_name", "date_of_birth"]
        };
        for name in names {
            let text = data.get(name).and_then(Value::as_str).unwrap_or_default();
            let path = format!("{data_name}.{name}");
            if text.is_empty() {
                self.wrong(&path, format!("The {path} field is required."));
            } else if !person_field_is_valid(name, text) {
                self.wrong(&path, format!("The {path} format is invalid."));
            }
        }
    }
}

/// Which of two alternative amounts was given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Either {
    /// The first name.
    First(Decimal),
    /// The second name.
    Second(Decimal),
}

fn person_field_is_valid(name: &str, text: &str) -> bool {
    match name {
        "country_of_registration" => {
            text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
        }
        "date_of_birth" => {
            text.len() == 10 && chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
        }
        _ => text.chars().count() <= 255,
    }
}

/// A field's name as messages spell it.
fn words(name: &str) -> String {
    name.replace('_', " ")
}
