//! JSON whose numbers are exact, borrowed from its text where it stands there as it is.
//!
//! What most values are read for is to be handed on at once, to a script or into a record; building
//! [`Value`]s for that costs more than the reading.

use std::borrow::Cow;
use std::fmt;

use rust_decimal::Decimal;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::money::{decimal_from_number, json_from_decimal, parse_decimal};

/// The only key of the object as which serde_json gives a number whose digits are kept.
const NUMBER: &str = "$serde_json::private::Number";

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Exact<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// Any other number, as it is written.
    Number(Cow<'a, str>),
    /// A number with a point; see [`Exact::of_decimal`].
    Decimal(Decimal),
    /// A string.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Exact<'a>>),
    /// An object: its fields in the order of their names, each name once.
    Fields(Vec<(Cow<'a, str>, Exact<'a>)>),
}

impl<'a> Exact<'a> {
    /// A number with a point.
    #[must_use]
    pub fn of_decimal(mut decimal: Decimal) -> Self {
        if decimal.scale() == 0 {
            decimal.rescale(1);
        }
        Self::Decimal(decimal)
    }

    /// An object of these fields. Of two with one name the later counts.
    #[must_use]
    pub fn of_fields(mut fields: Vec<(Cow<'a, str>, Exact<'a>)>) -> Self {
        fields.sort_by(|(left, _), (right, _)| left.cmp(right));
        fields.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        Self::Fields(fields)
    }

    /// The field of that name, of an object that has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Fields(fields) = self else {
            return None;
        };
        let place = fields.binary_search_by(|(other, _)| other.as_ref().cmp(name));
        place
            .ok()
            .and_then(|place| fields.get(place))
            .map(|(_, value)| value)
    }

    /// The text of a string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null
            | Self::Bool(_)
            | Self::Integer(_)
            | Self::Number(_)
            | Self::Decimal(_)
            | Self::List(_)
            | Self::Fields(_) => None,
        }
    }

    /// The amount that a string or a number holds exactly.
    #[must_use]
    pub fn amount(&self) -> Option<Decimal> {
        match self {
            Self::Text(text) => parse_decimal(text).ok(),
            Self::Integer(integer) => Some(Decimal::from(*integer)),
            Self::Number(text) => decimal_from_number(text).ok(),
            Self::Decimal(amount) => Some(*amount),
            Self::Null | Self::Bool(_) | Self::List(_) | Self::Fields(_) => None,
        }
    }
}

impl From<Exact<'_>> for Value {
    fn from(exact: Exact<'_>) -> Self {
        match exact {
            Exact::Null => Self::Null,
            Exact::Bool(is) => Self::Bool(is),
            Exact::Integer(integer) => Self::from(integer),
            Exact::Number(text) => match text.parse() {
                Ok(number) => Self::Number(number),
                Err(_) => Self::String(text.into_owned()),
            },
            Exact::Decimal(decimal) => json_from_decimal(decimal),
            Exact::Text(text) => Self::String(text.into_owned()),
            Exact::List(items) => items.into_iter().map(Self::from).collect(),
            Exact::Fields(fields) => {
                let fields = fields.into_iter();
                let owned = fields.map(|(name, value)| (name.into_owned(), Self::from(value)));
                Self::Object(owned.collect())
            }
        }
    }
}

impl From<Value> for Exact<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(is) => Self::Bool(is),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Self::Integer(integer),
                None => Self::Number(Cow::Owned(number.as_str().to_owned())),
            },
            Value::String(text) => Self::Text(Cow::Owned(text)),
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            // They come in the order of their names.
            Value::Object(fields) => {
                let fields = fields.into_iter();
                let owned = fields.map(|(name, value)| (Cow::Owned(name), Self::from(value)));
                Self::Fields(owned.collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Exact<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// Reads any JSON value.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Exact<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Exact::Null)
    }

    fn visit_bool<E: Error>(self, is: bool) -> Result<Self::Value, E> {
        Ok(Exact::Bool(is))
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<Self::Value, E> {
        Ok(Exact::Integer(integer))
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<Self::Value, E> {
        Ok(match i64::try_from(integer) {
            Ok(integer) => Exact::Integer(integer),
            Err(_) => Exact::Number(Cow::Owned(integer.to_string())),
        })
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Exact::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Exact::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Exact::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            let value = map.next_value()?;
            if let Exact::Text(text) = &value
                && fields.is_empty()
                && name == NUMBER
                && let Ok(number) = text.parse::<serde_json::Number>()
            {
                return Ok(Exact::Number(Cow::Owned(number.as_str().to_owned())));
            }
            fields.push((name, value));
        }
        Ok(Exact::of_fields(fields))
    }
}

/// The name of a field.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(Reader)? {
            Exact::Text(name) => Ok(Self(name)),
            Exact::Null
            | Exact::Bool(_)
            | Exact::Integer(_)
            | Exact::Number(_)
            | Exact::Decimal(_)
            | Exact::List(_)
            | Exact::Fields(_) => Err(D::Error::custom("the name of a field is no text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Value, serde_json::Error> {
        serde_json::from_str::<Exact<'_>>(text).map(Value::from)
    }

    #[test]
    fn json_is_read_as_serde_json_reads_it() {
        for text in [
            "null",
            "-0",
            "9223372036854775808",
            "-9223372036854775809",
            "1.10",
            "1E+5",
            "123456789012345678901234567890.123456789",
            r#""a\n\u00e9\"""#,
            r#"{"b":1,"a":[{},[],{"\u0061":2}],"b":{"c":"later"},"":true}"#,
            "{",
            "[1,]",
            r#"{"a":1 "b"}"#,
            r#"{"a":01}"#,
            "tru",
            "",
        ] {
            let value = serde_json::from_str::<Value>(text);
            assert_eq!(read(text).ok(), value.ok(), "{text}");
        }
        let deep = "[".repeat(200);
        assert!(read(&deep).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_serde_json_reads_it(text in "[\\[\\]{}:,\"a-b0-9.e\\-+ ]{0,40}|\\PC*") {
            let value = serde_json::from_str::<Value>(&text);
            prop_assert_eq!(read(&text).ok(), value.ok());
        }

        #[test]
        fn a_value_comes_back(numbers: Vec<i64>, text: String, name: String) {
            let value = serde_json::json!({"n": numbers, name: [text, null, true, 1.5]});
            prop_assert_eq!(Value::from(Exact::from(value.clone())), value.clone());
            prop_assert_eq!(read(&value.to_string()).unwrap(), value);
        }
    }

    #[test]
    fn an_object_that_looks_like_a_number_of_serde_json_s_takes_nothing_else_with_it() {
        for inner in [r#""x""#, "5", "{}", "null"] {
            let text = format!(r#"{{"id":1,"odd":{{"{NUMBER}":{inner}}}}}"#);
            let exact: Exact<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(exact.get("id"), Some(&Exact::Integer(1)), "{text}");
            let odd = exact.get("odd").and_then(|odd| odd.get(NUMBER));
            assert!(odd.is_some(), "{text}");
        }
    }

    #[test]
    fn fields_are_found_by_name_and_amounts_are_exact() {
        let text = r#"{"b":"0.10","a":1e-8,"c":{"b":2},"d":"x","b":"0.20"}"#;
        let exact: Exact<'_> = serde_json::from_str(text).unwrap();
        let amount = |name| {
            exact
                .get(name)
                .and_then(Exact::amount)
                .map(|amount| amount.to_string())
        };
        assert_eq!(amount("a").as_deref(), Some("0.00000001"));
        assert_eq!(amount("b").as_deref(), Some("0.20"));
        assert_eq!(
            exact.get("c").and_then(|c| c.get("b")),
            Some(&Exact::Integer(2))
        );
        assert_eq!((amount("c"), amount("d"), amount("e")), (None, None, None));
        let whole = Exact::of_decimal(Decimal::from(7));
        assert_eq!(Value::from(whole).to_string(), "7.0");
    }
}
