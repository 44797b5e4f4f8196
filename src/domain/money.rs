//! Exact amounts and currency codes. No binary fraction ever holds money.

#![deny(clippy::arithmetic_side_effects)]

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most decimals an amount may have. Every amount the gateway publishes has eight; what it
/// does with more is not documented, so more are refused here instead of being rounded there.
pub const MAX_DECIMALS: u32 = 8;

/// A positive, exact amount, in units of its currency, with at most [`MAX_DECIMALS`] decimals.
///
/// Equal numbers are equal amounts: `1.10` is `1.1`. Serialised as a plain decimal string without
/// exponent or trailing zeros, which is also its canonical form in fingerprints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(Decimal);

/// Why a value is not an amount. The text names the value, so that it can stand in an error shown
/// to the author of a script or a CSV file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a plain decimal number such as `12.50`.
    #[error("`{0}` is not a decimal amount (write it like 12.50)")]
    NotADecimal(String),
    /// Zero or negative.
    #[error("the amount must be above zero, not {0}")]
    NotPositive(Decimal),
    /// More decimals than the gateway defines.
    #[error("the amount {0} has more than {MAX_DECIMALS} decimals")]
    TooPrecise(Decimal),
}

impl Amount {
    /// Makes an amount from an exact decimal.
    ///
    /// # Errors
    /// When the value is not above zero or has more than [`MAX_DECIMALS`] decimals.
    pub fn new(value: Decimal) -> Result<Self, AmountError> {
        let value = value.normalize();
        if value <= Decimal::ZERO {
            return Err(AmountError::NotPositive(value));
        }
        if value.scale() > MAX_DECIMALS {
            return Err(AmountError::TooPrecise(value));
        }
        Ok(Self(value))
    }

    /// The exact number.
    #[must_use]
    pub fn value(self) -> Decimal {
        self.0
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(parse_decimal(text)?)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads a plain decimal (`-12.50`, `7`, `0.00000001`) exactly. No exponent, no thousands
/// separator, no surrounding space.
///
/// # Errors
/// [`AmountError::NotADecimal`] for everything else, and for numbers beyond 28 digits.
pub fn parse_decimal(text: &str) -> Result<Decimal, AmountError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit());
    if !plain {
        return Err(refused(text));
    }
    Decimal::from_str_exact(text).map_err(|_| refused(text))
}

/// Reads an amount as the gateway writes it: a decimal string or a JSON number, exponents
/// included (`1e-8`), negative balances included.
///
/// # Errors
/// [`AmountError::NotADecimal`] when it is neither, or cannot be held exactly.
pub fn decimal_from_json(value: &serde_json::Value) -> Result<Decimal, AmountError> {
    match value {
        serde_json::Value::String(text) => parse_decimal(text),
        serde_json::Value::Number(number) => decimal_from_number(number.as_str()),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => Err(refused(&value.to_string())),
    }
}

/// Reads a JSON number exactly.
///
/// # Errors
/// [`AmountError::NotADecimal`] when it is none, or cannot be held exactly.
pub fn decimal_from_number(text: &str) -> Result<Decimal, AmountError> {
    // Before an exponent, more digits than a decimal holds would be rounded.
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let plain = Decimal::from_str_exact(mantissa).map_err(|_| refused(text))?;
    if mantissa == text {
        return Ok(plain);
    }
    Decimal::from_scientific(text).map_err(|_| refused(text))
}

fn refused(text: &str) -> AmountError {
    AmountError::NotADecimal(text.chars().take(60).collect())
}

/// Writes a decimal as a JSON number that keeps its type: there is always a point, so that a
/// reader never takes a whole amount for an integer and then divides without remainder.
#[must_use]
pub fn json_from_decimal(value: Decimal) -> serde_json::Value {
    let mut text = value.to_string();
    if !text.contains('.') {
        text.push_str(".0");
    }
    let number = text
        .parse()
        .expect("a decimal with a point is a JSON number");
    serde_json::Value::Number(number)
}

/// A currency code as the gateway writes it (`BTC`, `USDTE`, `EUR`). The set is open: which codes
/// exist is the gateway's to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Currency(String);

/// Why a text is not a currency code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a currency code (2 to 16 capital letters, digits or -, such as BTC)")]
pub struct CurrencyError(String);

impl Currency {
    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Currency {
    type Err = CurrencyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ok = (2..=16).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-');
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(CurrencyError(text.chars().take(60).collect()))
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_numbers_are_equal_amounts_and_print_alike() {
        let (long, short): (Amount, Amount) =
            ("1.10000000".parse().unwrap(), "1.1".parse().unwrap());
        assert_eq!(long, short);
        assert_eq!(long.to_string(), "1.1");
        assert_eq!("100".parse::<Amount>().unwrap().to_string(), "100");
    }

    #[test]
    fn what_is_not_a_positive_plain_decimal_is_refused_by_name() {
        for text in [
            "", "1e5", "1,5", " 1", "+1", ".5", "5.", "0x10", "--1", "1.2.3", "ten",
        ] {
            assert_eq!(
                text.parse::<Amount>(),
                Err(AmountError::NotADecimal(text.to_owned()))
            );
        }
        assert!(matches!(
            "0".parse::<Amount>(),
            Err(AmountError::NotPositive(_))
        ));
        assert!(matches!(
            "-1".parse::<Amount>(),
            Err(AmountError::NotPositive(_))
        ));
        assert!(matches!(
            "0.000000001".parse::<Amount>(),
            Err(AmountError::TooPrecise(_))
        ));
    }

    #[test]
    fn amounts_are_read_from_json_strings_and_numbers_exactly() {
        for (json, expected) in [
            (r#""0.00300000""#, "0.00300000"),
            ("0.04", "0.04"),
            ("1", "1"),
            ("1e-8", "0.00000001"),
            ("1234567890.123456789012345", "1234567890.123456789012345"),
            (r#""-3.5""#, "-3.5"),
        ] {
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(decimal_from_json(&value).unwrap().to_string(), expected);
        }
        for json in [
            "null",
            "true",
            "[]",
            r#""1e5""#,
            "1e400",
            "0.12345678901234567890123456789012",
            "0.12345678901234567890123456789012e1",
        ] {
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            assert!(decimal_from_json(&value).is_err(), "{json}");
        }
    }

    #[test]
    fn a_whole_amount_keeps_its_point_in_json() {
        assert_eq!(json_from_decimal(Decimal::from(381)).to_string(), "381.0");
        let amount = Decimal::from_str_exact("1.10").unwrap();
        assert_eq!(json_from_decimal(amount).to_string(), "1.10");
    }

    #[test]
    fn currency_codes_are_capital_letters_and_digits() {
        assert_eq!("BNB-BSC".parse::<Currency>().unwrap().as_str(), "BNB-BSC");
        for text in ["", "B", "btc", "BTC ", "ABCDEFGHIJKLMNOPQ"] {
            assert!(text.parse::<Currency>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_survives_its_own_text_and_json(units in 1_i64.., scale in 0_u32..=8) {
            let amount = Amount::new(Decimal::new(units, scale)).unwrap();
            prop_assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), amount);
        }
    }
}
