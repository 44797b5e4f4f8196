//! Rates between currencies, and how old they are.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::Value;

use crate::domain::clock::Timestamp;
use crate::domain::money::{MAX_DECIMALS, decimal_from_json};

/// What one unit of a currency is worth in another, each with the time it was learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rates(BTreeMap<(String, String), (Decimal, Timestamp)>);

/// Why an amount cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRate {
    /// There never was one.
    #[error("there is no rate from {from} to {to}")]
    Unknown {
        /// The currency of the amount.
        from: String,
        /// The currency it is wanted in.
        to: String,
    },
    /// It is too old.
    #[error("the rate from {from} to {to} is {age} old, at most {most} is allowed")]
    Stale {
        /// The currency of the amount.
        from: String,
        /// The currency it is wanted in.
        to: String,
        /// How old, in words.
        age: String,
        /// How old it may be, in words.
        most: String,
    },
    /// The result is beyond all reason.
    #[error("{amount} {from} cannot be converted to {to}")]
    TooLarge {
        /// The amount.
        amount: Decimal,
        /// Its currency.
        from: String,
        /// The currency it is wanted in.
        to: String,
    },
}

impl Rates {
    /// Takes over what the gateway answers to `list_rates` or `list_pairs`, as it was at `at`.
    /// Answers how many rates were in it; what cannot be read is left out.
    pub fn learn(&mut self, answer: &Value, at: Timestamp) -> usize {
        let items = answer.as_array().map_or(&[][..], Vec::as_slice);
        let mut learnt = 0;
        for item in items {
            let code = |side: &str| {
                let side = item.get(side)?;
                let code = side.get("currency").unwrap_or(side).as_str()?;
                Some(code.to_owned())
            };
            let number = |name: &str| decimal_from_json(item.get(name)?).ok();
            let rate = || number("rate_to")?.checked_div(number("rate_from")?);
            if let (Some(from), Some(to), Some(rate)) =
                (code("currency_from"), code("currency_to"), rate())
                && rate > Decimal::ZERO
            {
                self.0.insert((from, to), (rate, at));
                learnt += 1;
            }
        }
        learnt
    }

    /// What `amount` of one currency is in another, rounded up to the gateway's decimals: what is
    /// counted against a limit must never be less than it is.
    ///
    /// # Errors
    /// [`NoRate`], to be shown.
    pub fn convert(
        &self,
        amount: Decimal,
        from: &str,
        to: &str,
        now: Timestamp,
        max_age: TimeDelta,
    ) -> Result<Decimal, NoRate> {
        if from == to {
            return Ok(amount);
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        let (there, back) = ((from.clone(), to.clone()), (to.clone(), from.clone()));
        let direct = self.0.get(&there).map(|(rate, at)| (*rate, *at, false));
        let inverse = self.0.get(&back).map(|(rate, at)| (*rate, *at, true));
        let Some((rate, at, is_inverse)) = direct.or(inverse) else {
            return Err(NoRate::Unknown { from, to });
        };
        let words = |age: TimeDelta| {
            let age = age.abs().to_std().unwrap_or_default();
            crate::domain::duration::format(std::time::Duration::from_secs(age.as_secs()))
        };
        // A clock that was set back makes a rate of the future: it is as unsure as an old one.
        if (now - at).abs() > max_age {
            return Err(NoRate::Stale {
                from,
                to,
                age: words(now - at),
                most: words(max_age),
            });
        }
        let converted = if is_inverse {
            amount.checked_div(rate)
        } else {
            amount.checked_mul(rate)
        };
        converted
            .map(|amount| {
                amount.round_dp_with_strategy(MAX_DECIMALS, RoundingStrategy::AwayFromZero)
            })
            .ok_or(NoRate::TooLarge { amount, from, to })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn number(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    fn rates() -> Rates {
        let mut rates = Rates::default();
        let learnt = rates.learn(
            &json!([
                {"currency_from": {"currency": "BTC"}, "currency_to": {"currency": "EUR"},
                 "rate_from": "1", "rate_to": "60000.5"},
                {"currency_from": {"currency": "TRX"}, "currency_to": {"currency": "EUR"},
                 "rate_from": "3", "rate_to": "1"},
                {"currency_from": {"currency": "X"}, "currency_to": {"currency": "EUR"},
                 "rate_from": "0", "rate_to": "1"},
                {"rate_to": "1"},
            ]),
            at("2026-11-22T09:00:00Z"),
        );
        assert_eq!(learnt, 2);
        rates
    }

    #[test]
    fn amounts_are_converted_exactly_and_rounded_up() {
        let now = at("2026-11-22T09:05:00Z");
        let convert = |amount, from, to| {
            rates().convert(number(amount), from, to, now, TimeDelta::minutes(10))
        };
        assert_eq!(convert("0.1", "BTC", "EUR"), Ok(number("6000.05")));
        assert_eq!(convert("1", "TRX", "EUR"), Ok(number("0.33333334")));
        assert_eq!(convert("1", "EUR", "TRX"), Ok(number("3.00000001")));
        assert_eq!(convert("7", "X", "X"), Ok(number("7")));
        assert_eq!(
            convert("7", "X", "EUR").unwrap_err().to_string(),
            "there is no rate from X to EUR"
        );
        assert!(convert("79228162514264337593543950335", "BTC", "EUR").is_err());
    }

    #[test]
    fn an_old_rate_is_none_and_so_is_one_of_the_future() {
        let convert = |now| {
            let now = at(now);
            rates().convert(Decimal::ONE, "BTC", "EUR", now, TimeDelta::minutes(10))
        };
        assert!(convert("2026-11-22T09:10:00Z").is_ok());
        assert_eq!(
            convert("2026-11-22T09:10:01Z").unwrap_err().to_string(),
            "the rate from BTC to EUR is 10m1s old, at most 10m is allowed"
        );
        assert!(convert("2026-11-22T08:49:59Z").is_err());
    }
}
