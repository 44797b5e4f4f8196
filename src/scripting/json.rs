//! Values between JSON and scripts, with every number exact.
//!
//! Rhai's own serde support sends numbers through binary fractions, so money never takes that way.
//! Integers stay integers; a number with a point or an exponent is a decimal, and is written with
//! a point, so that it stays one.

use std::borrow::Cow;

use rhai::{Array, Dynamic, Map};
use serde_json::Value;

use super::api::secret::SecretText;
use crate::domain::exact::Exact;
use crate::domain::money::{decimal_from_number, json_from_decimal};

/// Values within each other, at most; beyond, the text was made to break something.
const MAX_DEPTH: usize = 64;

/// Makes a script's value.
///
/// # Errors
/// Names the number that cannot be held exactly.
pub(super) fn to_dynamic<'a>(value: impl Into<Exact<'a>>) -> Result<Dynamic, String> {
    of_exact(value.into())
}

fn of_exact(value: Exact<'_>) -> Result<Dynamic, String> {
    Ok(match value {
        Exact::Null => Dynamic::UNIT,
        Exact::Bool(value) => value.into(),
        Exact::Integer(integer) => integer.into(),
        Exact::Text(Cow::Borrowed(text)) => text.into(),
        Exact::Text(Cow::Owned(text)) => text.into(),
        Exact::Number(text) => {
            if let Ok(integer) = text.parse::<i64>() {
                return Ok(integer.into());
            }
            let decimal = decimal_from_number(&text).map_err(|_| inexact(&text))?;
            Dynamic::from_decimal(decimal)
        }
        Exact::Decimal(value) => Dynamic::from_decimal(value),
        Exact::List(items) => {
            let items: Result<Array, String> = items.into_iter().map(of_exact).collect();
            Dynamic::from_array(items?)
        }
        Exact::Fields(fields) => {
            // Collected, which makes a sorted map of sorted fields at once.
            let mut sorted = Vec::with_capacity(fields.len());
            for (name, value) in fields {
                sorted.push((name.as_ref().into(), of_exact(value)?));
            }
            Dynamic::from_map(sorted.into_iter().collect())
        }
    })
}

fn inexact(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    format!("the number {shown} cannot be held exactly (at most 28 digits)")
}

/// Makes JSON of a script's value.
///
/// # Errors
/// Names what has no JSON: a function, a secret, or a type of Rhai's without one.
pub(super) fn from_dynamic(value: &Dynamic) -> Result<Value, String> {
    from_nested(value, 0)
}

fn from_nested(value: &Dynamic, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err(format!(
            "the value has more than {MAX_DEPTH} values within each other"
        ));
    }
    if value.is_shared() {
        return from_nested(&value.flatten_clone(), depth);
    }
    // What rows of payments are made of comes first.
    if let Ok(value) = value.as_immutable_string_ref() {
        Ok(Value::String(value.to_string()))
    } else if let Ok(map) = value.as_map_ref() {
        map_to_object(&map, depth)
    } else if value.is_unit() {
        Ok(Value::Null)
    } else if let Ok(value) = value.as_bool() {
        Ok(Value::Bool(value))
    } else if let Ok(value) = value.as_int() {
        Ok(value.into())
    } else if let Ok(value) = value.as_decimal() {
        Ok(json_from_decimal(value))
    } else if let Ok(value) = value.as_char() {
        Ok(Value::String(value.into()))
    } else if let Ok(items) = value.as_array_ref() {
        items
            .iter()
            .map(|item| from_nested(item, depth + 1))
            .collect::<Result<_, _>>()
            .map(Value::Array)
    } else if value.is::<SecretText>() {
        Err("a secret can only stand in HTTP headers and in the user part of a URL".to_owned())
    } else {
        Err(format!(
            "a value of type `{}` cannot be stored or sent",
            value.type_name()
        ))
    }
}

fn map_to_object(map: &Map, depth: usize) -> Result<Value, String> {
    map.iter()
        .map(|(key, value)| Ok((key.to_string(), from_nested(value, depth + 1)?)))
        .collect::<Result<_, _>>()
        .map(Value::Object)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::Decimal;
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn numbers_keep_their_value_and_their_type() {
        for (text, back, kind) in [
            ("7", "7", "i64"),
            ("-9223372036854775808", "-9223372036854775808", "i64"),
            ("1.10", "1.10", "decimal"),
            ("381.0", "381.0", "decimal"),
            ("1e-8", "0.00000001", "decimal"),
            (
                "1234567890.123456789012345",
                "1234567890.123456789012345",
                "decimal",
            ),
            ("18446744073709551616", "18446744073709551616.0", "decimal"),
        ] {
            let value = to_dynamic(parsed(text)).unwrap();
            assert_eq!(from_dynamic(&value).unwrap().to_string(), back);
            let is_integer = value.is_int();
            assert_eq!(is_integer, kind == "i64", "{text}");
        }
    }

    #[test]
    fn a_number_that_cannot_be_held_exactly_is_an_error() {
        for text in [
            "0.12345678901234567890123456789012",
            "0.12345678901234567890123456789012e1",
            "1e400",
            "1e-40",
            "99999999999999999999999999999999999",
        ] {
            let error = to_dynamic(parsed(text)).unwrap_err();
            assert!(error.contains("exactly"), "{text}: {error}");
        }
    }

    #[test]
    fn functions_and_secrets_have_no_json() {
        let function = Dynamic::from(rhai::FnPtr::new("f").unwrap());
        assert!(from_dynamic(&function).is_err());
        let secret = Dynamic::from(SecretText::named("TOKEN"));
        assert!(
            from_dynamic(&Dynamic::from_array(vec![secret]))
                .unwrap_err()
                .contains("secret")
        );
    }

    #[test]
    fn structure_survives() {
        let value = json!({"a": [null, true, "x", {"b": []}], "größe": "ü"});
        let dynamic = to_dynamic(value.clone()).unwrap();
        assert_eq!(from_dynamic(&dynamic).unwrap(), value);
    }

    proptest! {
        #[test]
        fn every_decimal_survives(units: i64, scale in 1_u32..=28) {
            let value = json_from_decimal(Decimal::new(units, scale));
            let back = from_dynamic(&to_dynamic(value.clone()).unwrap()).unwrap();
            prop_assert_eq!(back, value);
        }
    }
}
