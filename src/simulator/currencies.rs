//! The currencies the simulator knows, with fixed minimums and rates.
//!
//! Codes and minimums are the published defaults; the rates are of one plausible day and never
//! move. The payment API names the same currencies by ISO code and network.

use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::wire::{Answer, Fields, Refusal, padded, set};

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Currency {
    /// The API's code.
    pub(super) code: &'static str,
    /// Coins and tokens; otherwise fiat.
    pub(super) crypto: bool,
    /// Smallest deposit and withdrawal.
    pub(super) minimum: Decimal,
    /// Smallest exchange.
    pub(super) exchange_minimum: Decimal,
    /// Value of one unit in EUR.
    pub(super) eur: Decimal,
    /// Name of the network in the payment API; empty for fiat.
    pub(super) network: &'static str,
    /// Code in the payment API.
    pub(super) iso: &'static str,
}

/// A decimal of the table: mantissa and number of decimals.
const fn dec(mantissa: u32, scale: u32) -> Decimal {
    Decimal::from_parts(mantissa, 0, 0, false, scale)
}

const fn coin(
    code: &'static str,
    (iso, network): (&'static str, &'static str),
    minimum: Decimal,
    exchange_minimum: Decimal,
    eur: Decimal,
) -> Currency {
    Currency {
        code,
        crypto: true,
        minimum,
        exchange_minimum,
        eur,
        network,
        iso,
    }
}

const fn fiat(code: &'static str, exchange_minimum: Decimal, eur: Decimal) -> Currency {
    Currency {
        code,
        crypto: false,
        minimum: Decimal::ZERO,
        exchange_minimum,
        eur,
        network: "",
        iso: code,
    }
}

/// What a reader of fields goes on with when the real one is wrong.
pub(super) const STAND_IN: Currency = fiat("EUR", dec(25, 0), dec(1, 0));

/// Minimums: the published table of confirmations and limits.
const TABLE: [Currency; 15] = [
    coin(
        "BTC",
        ("BTC", "bitcoin"),
        dec(1, 4),
        dec(3, 3),
        dec(77_314, 0),
    ),
    coin(
        "ETH",
        ("ETH", "ethereum"),
        dec(1, 2),
        dec(1, 2),
        dec(2_368, 0),
    ),
    coin(
        "USDTE",
        ("USDT", "ethereum"),
        dec(5, 0),
        dec(30, 0),
        dec(92, 2),
    ),
    coin("USDTT", ("USDT", "tron"), dec(2, 0), dec(30, 0), dec(92, 2)),
    coin(
        "USDTB",
        ("USDT", "binance"),
        dec(5, 0),
        dec(30, 0),
        dec(92, 2),
    ),
    coin(
        "USDC",
        ("USDC", "ethereum"),
        dec(5, 0),
        dec(30, 0),
        dec(92, 2),
    ),
    coin("ADA", ("ADA", "cardano"), dec(2, 0), dec(50, 0), dec(58, 2)),
    coin(
        "BCH",
        ("BCH", "bitcoin_cash"),
        dec(1, 3),
        dec(6, 2),
        dec(440, 0),
    ),
    coin("LTC", ("LTC", "litecoin"), dec(1, 2), dec(3, 1), dec(95, 0)),
    coin(
        "DOGE",
        ("DOGE", "dogecoin"),
        dec(1, 0),
        dec(150, 0),
        dec(18, 2),
    ),
    coin("TRX", ("TRX", "tron"), dec(10, 0), dec(100, 0), dec(26, 2)),
    coin("XRP", ("XRP", "ripple"), dec(1, 3), dec(12, 0), dec(21, 1)),
    STAND_IN,
    fiat("USD", dec(30, 0), dec(92, 2)),
    fiat("GBP", dec(22, 0), dec(117, 2)),
];

/// Every currency, in the order of the lists.
pub(super) fn all() -> impl Iterator<Item = Currency> {
    TABLE.into_iter()
}

/// The currency with this code.
pub(super) fn find(code: &str) -> Option<Currency> {
    all().find(|currency| currency.code == code)
}

/// The currency the payment API names so. Without a network the first one with that code.
pub(super) fn find_iso(iso: &str, network: Option<&str>) -> Option<Currency> {
    all().find(|currency| {
        currency.iso == iso && network.is_none_or(|network| network == currency.network)
    })
}

impl Currency {
    fn kind(self) -> &'static str {
        if self.crypto { "crypto" } else { "fiat" }
    }

    /// Coins that need a destination tag beside the address.
    pub(super) fn needs_tag(self) -> bool {
        self.code == "XRP"
    }

    /// `{iso, network_name}` of the payment API.
    pub(super) fn iso_json(self) -> Value {
        if self.crypto {
            json!({"iso": self.iso, "network_name": self.network})
        } else {
            json!({"iso": self.iso})
        }
    }
}

/// Units of `to` for one unit of `from`. Each direction keeps 0.2 % for the house, so that the two
/// directions differ as they do at the gateway.
pub(super) fn rate(from: Currency, to: Currency) -> Decimal {
    (from.eur / to.eur * dec(998, 3)).round_dp(8)
}

/// What `amount` of `from` buys, rounded down to eight decimals.
pub(super) fn convert(amount: Decimal, from: Currency, to: Currency) -> Decimal {
    truncated(amount * rate(from, to))
}

/// What has to be paid in `from` to get `amount` of `to`, rounded up to eight decimals.
pub(super) fn cost(amount: Decimal, from: Currency, to: Currency) -> Decimal {
    (amount / rate(from, to))
        .round_dp_with_strategy(8, rust_decimal::RoundingStrategy::AwayFromZero)
}

/// A part of an amount in thousandths, rounded down to eight decimals.
pub(super) fn per_mille(amount: Decimal, thousandths: u32) -> Decimal {
    truncated(amount * dec(thousandths, 3))
}

fn truncated(amount: Decimal) -> Decimal {
    amount.round_dp_with_strategy(8, rust_decimal::RoundingStrategy::ToZero)
}

/// Answers `POST /currencies/list`.
pub(super) fn list(_: &Arc<super::Shared>, body: &Value) -> Result<Answer, Refusal> {
    let mut fields = Fields::read(body, &["visible"])?;
    fields.optional_bool("visible");
    fields.finish()?;
    let rows: Vec<Value> = (1_u32..)
        .zip(all())
        .map(|(id, currency)| {
            let fee = if currency.crypto {
                "0.008000"
            } else {
                "0.000000"
            };
            json!({
                "id": id,
                "type": currency.kind(),
                "currency": currency.code,
                "minimum_amount": padded(currency.minimum),
                "deposit_fee_percent": fee,
                "withdrawal_fee_percent": "0.000000",
                "precision": 8,
            })
        })
        .collect();
    Ok(Answer::read(json!({ "data": rows })))
}

/// Answers `POST /currencies/pairs` and `POST /currencies/rates`, which have the same shape.
pub(super) fn pairs(_: &Arc<super::Shared>, body: &Value) -> Result<Answer, Refusal> {
    let mut fields = Fields::read(body, &["currency_from", "currency_to"])?;
    let from = fields.optional_currency("currency_from");
    let to = fields.optional_currency("currency_to");
    fields.finish()?;
    let wanted = |filter: Option<Currency>, currency: Currency| {
        filter.is_none_or(|filter| filter.code == currency.code)
    };
    let mut rows = Vec::new();
    for source in all().filter(|c| wanted(from, *c)) {
        for target in all().filter(|c| wanted(to, *c) && c.code != source.code) {
            let mut left = json!({
                "currency": source.code,
                "type": source.kind(),
                "min_amount": padded(source.exchange_minimum),
            });
            if source.crypto {
                set(
                    &mut left,
                    "min_amount_deposit_with_exchange",
                    json!(padded(source.minimum)),
                );
            }
            rows.push(json!({
                "currency_from": left,
                "currency_to": {"currency": target.code, "type": target.kind()},
                "rate_from": "1",
                "rate_to": padded(rate(source, target)),
            }));
        }
    }
    Ok(Answer::read(json!({ "data": rows })))
}

/// Answers `POST /accounts/list`: every balance, zero ones too.
pub(super) fn accounts(shared: &Arc<super::Shared>, body: &Value) -> Result<Answer, Refusal> {
    Fields::read(body, &[])?.finish()?;
    let state = shared.state();
    let rows: Vec<Value> = all()
        .map(|currency| {
            json!({
                "currency": currency.code,
                "type": currency.kind(),
                "balance": padded(state.balance(currency.code)),
            })
        })
        .collect();
    Ok(Answer::read(json!({ "data": rows })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_amount_costs_is_enough_to_buy_it() {
        for from in all() {
            for to in all().filter(|to| to.code != from.code) {
                let wanted = dec(1_234_567, 4);
                let paid = cost(wanted, from, to);
                assert!(rate(from, to) > Decimal::ZERO, "{} {}", from.code, to.code);
                assert!(
                    convert(paid, from, to) + dec(1, 3) >= wanted,
                    "{} {}",
                    from.code,
                    to.code
                );
            }
        }
    }
}
