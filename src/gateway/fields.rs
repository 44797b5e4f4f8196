//! Reads the arguments of one operation field by field, and collects every mistake on the way.
//!
//! What is read goes into the body as the gateway wants it: amounts as plain decimal strings,
//! fields left out or null not at all. Which fields an operation has stands in `operations`.

use std::fmt;

use rust_decimal::Decimal;
use serde_json::{Map, Value};

use crate::domain::diagnostic::closest;
use crate::domain::id::ForeignId;
use crate::domain::money::{Amount, Currency, decimal_from_json};

/// One mistake in the arguments of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgumentError {
    /// The field, dotted for nested ones (`receiver_data.first_name`); empty for the arguments as
    /// a whole.
    pub field: String,
    /// What is wrong with it, as a lower-case fragment.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "`{}` ", self.field)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Whether a field may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Required,
    Optional,
}

/// The arguments being read, the body being written and the mistakes found so far.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    given: &'a Map<String, Value>,
    prefix: String,
    known: Vec<&'static str>,
    body: Map<String, Value>,
    errors: Vec<ArgumentError>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(given: &'a Map<String, Value>) -> Self {
        Self::nested(given, String::new())
    }

    fn nested(given: &'a Map<String, Value>, prefix: String) -> Self {
        Self {
            given,
            prefix,
            known: Vec::new(),
            body: Map::new(),
            errors: Vec::new(),
        }
    }

    /// The body, or every mistake: those of the fields in the order they were read, then the
    /// fields that nothing asked for.
    pub(super) fn finish(mut self) -> Result<Map<String, Value>, Vec<ArgumentError>> {
        let unknown: Vec<&String> = self
            .given
            .keys()
            .filter(|key| !self.known.contains(&key.as_str()))
            .collect();
        for key in unknown {
            let help = closest(key, self.known.iter().copied())
                .map(|near| format!("did you mean `{near}`?"));
            self.refuse_with(key, "is not a field here", help);
        }
        if self.errors.is_empty() {
            Ok(self.body)
        } else {
            Err(self.errors)
        }
    }

    /// Records a mistake of `field`.
    pub(super) fn refuse(&mut self, field: &str, message: impl Into<String>) {
        self.refuse_with(field, message, None);
    }

    fn refuse_with(&mut self, field: &str, message: impl Into<String>, help: Option<String>) {
        self.errors.push(ArgumentError {
            field: format!("{}{field}", self.prefix),
            message: message.into(),
            help,
        });
    }

    /// Whether the field was given, rightly or wrongly.
    pub(super) fn has(&self, field: &str) -> bool {
        self.given.get(field).is_some_and(|value| !value.is_null())
    }

    /// The text of a field that was read without a mistake.
    pub(super) fn text_of(&self, field: &str) -> Option<&str> {
        self.body.get(field).and_then(Value::as_str)
    }

    /// The given value, unless it is missing or null; missing is a mistake when it is required.
    fn take(&mut self, field: &'static str, need: Need) -> Option<&'a Value> {
        self.known.push(field);
        let value = self.given.get(field).filter(|value| !value.is_null());
        if value.is_none() && need == Need::Required {
            self.refuse(field, "is missing");
        }
        value
    }

    /// A text without control characters, from 1 to `longest` characters.
    pub(super) fn text(&mut self, field: &'static str, need: Need, longest: usize) {
        self.checked_text(field, need, |text| {
            let length = text.chars().count();
            if length == 0 {
                Err("must not be empty".to_owned())
            } else if length > longest {
                Err(format!(
                    "has {length} characters, {longest} are the most there may be"
                ))
            } else if text.chars().any(char::is_control) {
                Err("must not contain control characters".to_owned())
            } else {
                Ok(())
            }
        });
    }

    /// A text that `check` accepts; its error is the rest of a sentence about the field.
    pub(super) fn checked_text(
        &mut self,
        field: &'static str,
        need: Need,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) {
        let Some(value) = self.take(field, need) else {
            return;
        };
        let Some(text) = value.as_str() else {
            self.refuse(field, format!("must be a text, not {}", kind_of(value)));
            return;
        };
        match check(text) {
            Ok(()) => self.write(field, Value::from(text)),
            Err(message) => self.refuse(field, message),
        }
    }

    /// One of a closed set of words.
    pub(super) fn choice(&mut self, field: &'static str, need: Need, words: &[&'static str]) {
        self.checked_text(field, need, |text| {
            if words.contains(&text) {
                Ok(())
            } else {
                Err(format!("must be one of {}", words.join(", ")))
            }
        });
    }

    /// A currency code. Which codes exist is the gateway's to say.
    pub(super) fn currency(&mut self, field: &'static str, need: Need) {
        self.checked_text(field, need, |text| {
            text.parse::<Currency>()
                .map(drop)
                .map_err(|error| format!("is no currency: {error}"))
        });
    }

    /// The `foreign_id`.
    pub(super) fn foreign_id(&mut self, need: Need) {
        self.checked_text("foreign_id", need, |text| {
            text.parse::<ForeignId>()
                .map(drop)
                .map_err(|error| format!("is no key: {error}"))
        });
    }

    /// A destination tag: a text, or a whole number that goes out as a text.
    pub(super) fn tag(&mut self, field: &'static str) {
        if let Some(Value::Number(number)) = self.given.get(field)
            && number.is_u64()
        {
            self.known.push(field);
            self.write(field, Value::from(number.to_string()));
            return;
        }
        self.text(field, Need::Optional, 255);
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, field: &'static str, need: Need) {
        let Some(value) = self.take(field, need) else {
            return;
        };
        if value.is_boolean() {
            self.write(field, value.clone());
        } else {
            self.refuse(
                field,
                format!("must be true or false, not {}", kind_of(value)),
            );
        }
    }

    /// A whole number above zero.
    pub(super) fn whole(&mut self, field: &'static str, need: Need) {
        let Some(value) = self.take(field, need) else {
            return;
        };
        if value.as_u64().is_some_and(|number| number > 0) {
            self.write(field, value.clone());
        } else {
            self.refuse(field, "must be a whole number above zero");
        }
    }

    /// An [`Amount`], from a number or a text; goes out in its canonical form.
    pub(super) fn amount(&mut self, field: &'static str, need: Need) {
        self.decimal(field, need, |value| {
            Amount::new(value)
                .map(|amount| amount.to_string())
                .map_err(|error| error.to_string())
        });
    }

    /// A price above zero, as exact and with the same decimals as it was quoted.
    pub(super) fn price(&mut self, field: &'static str, need: Need) {
        self.decimal(field, need, |value| {
            if value > Decimal::ZERO {
                Ok(value.to_string())
            } else {
                Err(format!("the price must be above zero, not {value}"))
            }
        });
    }

    fn decimal(
        &mut self,
        field: &'static str,
        need: Need,
        write: impl FnOnce(Decimal) -> Result<String, String>,
    ) {
        let Some(value) = self.take(field, need) else {
            return;
        };
        let text = decimal_from_json(value)
            .map_err(|error| error.to_string())
            .and_then(write);
        match text {
            Ok(text) => self.write(field, Value::from(text)),
            Err(error) => self.refuse(field, format!("is no amount: {error}")),
        }
    }

    /// An object whose fields `read` reads.
    pub(super) fn object(
        &mut self,
        field: &'static str,
        need: Need,
        read: impl FnOnce(&mut Fields<'a>),
    ) {
        let Some(value) = self.take(field, need) else {
            return;
        };
        let Some(given) = value.as_object() else {
            self.refuse(field, format!("must be a map, not {}", kind_of(value)));
            return;
        };
        let mut nested = Fields::nested(given, format!("{}{field}.", self.prefix));
        read(&mut nested);
        match nested.finish() {
            Ok(body) => self.write(field, Value::Object(body)),
            Err(errors) => self.errors.extend(errors),
        }
    }

    /// A field whose rightness depends on another one that is wrong: known, otherwise left alone.
    pub(super) fn skip(&mut self, field: &'static str) {
        self.known.push(field);
    }

    /// Exactly one of two fields; call after reading both as optional.
    pub(super) fn exactly_one(&mut self, left: &'static str, right: &'static str) {
        match (self.has(left), self.has(right)) {
            (true, true) => self.refuse(
                left,
                format!("and `{right}` exclude each other, give one of them"),
            ),
            (false, false) => {
                self.refuse(left, format!("is missing (or `{right}` in its place)"));
            }
            (true, false) | (false, true) => {}
        }
    }

    fn write(&mut self, field: &'static str, value: Value) {
        self.body.insert(field.to_owned(), value);
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
