//! Drafts a plan: checks every row against what the gateway and the past say, and adds up.
//!
//! What a row cannot be paid with is a mistake, and with one mistake there is no plan; what a
//! person should look at is a warning, and they decide.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde_json::Value;

use super::{Contents, Row, Total, by_code, number, text};
use crate::domain::diagnostic::closest;
use crate::domain::id::ForeignId;
use crate::domain::payment::Content;

/// Currencies of which a payment without a tag may be lost. The gateway's list does not say it;
/// its documentation names XRP.
const NEED_TAG: [&str; 1] = ["XRP"];

/// A payment that is asked for, and what the past knows of it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its key.
    pub foreign_id: ForeignId,
    /// What is asked of the gateway.
    pub content: Content,
    /// The state of the payment that has this key already, with the same content.
    pub known: Option<String>,
    /// Whether the address was ever paid from here.
    pub paid_before: bool,
    /// A payment of the same amount to the same address in the last days: its key and day.
    pub same_lately: Option<String>,
}

/// What the gateway says of currencies and balances.
#[derive(Debug, Clone, Default)]
pub struct Market {
    currencies: BTreeMap<String, Value>,
    accounts: BTreeMap<String, Value>,
}

impl Market {
    /// From the gateway's lists of currencies and of accounts.
    #[must_use]
    pub fn new(currencies: &Value, accounts: &Value) -> Self {
        Self {
            currencies: by_code(currencies, "currency"),
            accounts: by_code(accounts, "currency"),
        }
    }
}

/// What is wrong with one row; rows count from 0, as in the script's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The row.
    pub row: usize,
    /// What is wrong.
    pub message: String,
}

/// What leaves the account in one currency, while it is added up.
#[derive(Debug, Default)]
struct Sum {
    rows: usize,
    amount: Decimal,
    /// Whether some rows say what arrives, and so not what leaves.
    open: bool,
}

/// A plan of these payments.
///
/// # Errors
/// Every mistake of every row.
pub fn draft(plan: String, asked: &[Asked], market: &Market) -> Result<Contents, Vec<RowError>> {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    let mut new_addresses = BTreeSet::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (row, one) in asked.iter().enumerate() {
        let fields = one.content.fields();
        let wrong = mistakes(fields, market);
        errors.extend(wrong.into_iter().map(|message| RowError { row, message }));
        let id = &one.foreign_id;
        if let Some(state) = &one.known {
            warnings.push(format!(
                "row {row}, `{id}`, was asked for before and is {state}: it is not paid again"
            ));
            continue;
        }
        if let Some(other) = seen.insert(goal(fields), row) {
            warnings.push(format!(
                "rows {other} and {row} pay the same amount to the same address"
            ));
        }
        if let Some(same) = &one.same_lately {
            warnings.push(format!(
                "row {row}, `{id}`, pays the same amount to the same address as {same}"
            ));
        }
        if let (false, Some(address)) = (one.paid_before, text(fields, "address")) {
            new_addresses.insert(address.to_owned());
        }
        let currency = text(fields, "currency").unwrap_or_default().to_owned();
        let sum = sums.entry(currency.clone()).or_default();
        sum.rows = sum.rows.saturating_add(1);
        if let Some(amount) = number(fields, "amount") {
            sum.amount = sum.amount.saturating_add(amount);
        } else {
            sum.open = true;
            warnings.push(format!(
                "row {row}, `{id}`, says what arrives; how much {currency} leaves is the gateway's rate then, and is in no total"
            ));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let totals: Vec<Total> = sums
        .iter()
        .map(|(currency, sum)| total(currency, sum, market, &mut warnings))
        .collect();
    let rows = asked.iter().map(|one| Row {
        foreign_id: one.foreign_id.clone(),
        fingerprint: one.content.fingerprint(),
        content: one.content.clone(),
        known: one.known.is_some(),
    });
    Ok(Contents {
        plan,
        rows: rows.collect(),
        totals,
        warnings,
        new_addresses: new_addresses.into_iter().collect(),
        limits: Vec::new(),
    })
}

/// What two payments have in common that pay the same amount to the same address.
fn goal(fields: &Value) -> String {
    [
        "currency",
        "amount",
        "convert_to",
        "amount_to",
        "address",
        "tag",
    ]
    .map(|name| fields.get(name).map_or_else(String::new, Value::to_string))
    .join(" ")
}

/// What is wrong with a row's fields by what the gateway says of currencies.
fn mistakes(fields: &Value, market: &Market) -> Vec<String> {
    let mut mistakes = Vec::new();
    let converts = text(fields, "convert_to").is_some();
    for (code, amount) in [("currency", "amount"), ("convert_to", "amount_to")] {
        let Some(code) = text(fields, code) else {
            continue;
        };
        let Some(currency) = market.currencies.get(code) else {
            let near = closest(code, market.currencies.keys().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            mistakes.push(format!("{code} is none of the gateway's currencies{near}"));
            continue;
        };
        let Some(value) = number(fields, amount) else {
            continue;
        };
        let precision = number(currency, "precision");
        if let Some(precision) = precision
            && Decimal::from(value.normalize().scale()) > precision
        {
            mistakes.push(format!(
                "`{amount}` {value} has more than {precision} decimals, the most of {code}"
            ));
        }
        // The least amount of an exchange is another one, and moves.
        if let Some(least) = number(currency, "minimum_amount")
            && value < least
            && !converts
        {
            let least = least.normalize();
            mistakes.push(format!(
                "`{amount}` {value} is below {least} {code}, the least"
            ));
        }
    }
    let arrives = text(fields, "convert_to").or_else(|| text(fields, "currency"));
    let has_tag = fields.get("tag").is_some_and(|tag| !tag.is_null());
    if let Some(code) = arrives
        && NEED_TAG.contains(&code)
        && !has_tag
    {
        mistakes.push(format!("`tag` is missing: {code} without it may be lost"));
    }
    mistakes
}

fn total(currency: &str, sum: &Sum, market: &Market, warnings: &mut Vec<String>) -> Total {
    let listed = market.currencies.get(currency);
    let fee = listed
        .and_then(|listed| number(listed, "withdrawal_fee_percent"))
        .and_then(|percent| {
            let part = percent.checked_div(Decimal::ONE_HUNDRED)?;
            sum.amount.checked_mul(part)
        })
        .map(|fee| fee.normalize());
    let account = market.accounts.get(currency);
    let before = account.and_then(|account| number(account, "balance"));
    let after = before
        .filter(|_| !sum.open)
        .and_then(|before| before.checked_sub(sum.amount)?.checked_sub(fee?));
    if let Some(after) = after
        && after.is_sign_negative()
    {
        let missing = after.abs().normalize();
        warnings.push(format!(
            "the balance does not cover it: {missing} {currency} are missing"
        ));
    }
    let shown = |number: Decimal| number.normalize().to_string();
    Total {
        currency: currency.to_owned(),
        rows: sum.rows,
        amount: shown(sum.amount),
        fee: fee.map(shown),
        before: before.map(shown),
        after: after.map(shown),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::operation::Operation;

    fn market() -> Market {
        Market::new(
            &json!([
                {"currency": "BTC", "minimum_amount": "0.00010000", "withdrawal_fee_percent": "0.800000", "precision": 8},
                {"currency": "EUR", "minimum_amount": "0.00000000", "withdrawal_fee_percent": "0", "precision": 2},
                {"currency": "XRP", "minimum_amount": "0.001", "withdrawal_fee_percent": "0", "precision": 6},
            ]),
            &json!([
                {"currency": "BTC", "balance": "1.00000000"},
                {"currency": "XRP", "balance": 5},
            ]),
        )
    }

    fn asked(id: &str, fields: &Value) -> Asked {
        Asked {
            foreign_id: id.parse().unwrap(),
            content: Content::new(Operation::Withdraw, fields.to_string()),
            known: None,
            paid_before: true,
            same_lately: None,
        }
    }

    fn btc(id: &str, amount: &str, address: &str) -> Asked {
        asked(
            id,
            &json!({"currency": "BTC", "amount": amount, "address": address}),
        )
    }

    #[test]
    fn totals_are_by_currency_with_fees_and_what_is_left() {
        let rows = [
            btc("a", "0.1", "x"),
            btc("b", "0.20", "y"),
            asked(
                "c",
                &json!({"currency": "XRP", "amount": "1", "address": "z", "tag": "7"}),
            ),
        ];
        let plan = draft("p".into(), &rows, &market()).unwrap();
        let totals: Vec<_> = plan
            .totals
            .iter()
            .map(|total| {
                (
                    total.currency.as_str(),
                    total.rows,
                    total.amount.as_str(),
                    total.fee.as_deref(),
                    total.after.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            totals,
            [
                ("BTC", 2, "0.3", Some("0.0024"), Some("0.6976")),
                ("XRP", 1, "1", Some("0"), Some("4")),
            ]
        );
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    }

    #[test]
    fn the_mistakes_of_all_rows_are_found_at_once() {
        let rows = [
            btc("good", "0.1", "x"),
            btc("little", "0.00001", "x"),
            asked(
                "what",
                &json!({"currency": "BTD", "amount": "1", "address": "x"}),
            ),
            asked(
                "cents",
                &json!({"currency": "EUR", "amount": "1.001", "address": "x"}),
            ),
            asked(
                "lost",
                &json!({"currency": "XRP", "amount": "1", "address": "x"}),
            ),
        ];
        let errors = draft("p".into(), &rows, &market()).unwrap_err();
        let errors: Vec<String> = errors
            .iter()
            .map(|error| format!("{}: {}", error.row, error.message))
            .collect();
        assert_eq!(
            errors,
            [
                "1: `amount` 0.00001 is below 0.0001 BTC, the least",
                "2: BTD is none of the gateway's currencies; did you mean BTC?",
                "3: `amount` 1.001 has more than 2 decimals, the most of EUR",
                "4: `tag` is missing: XRP without it may be lost",
            ]
        );
    }

    #[test]
    fn what_a_person_should_look_at_is_a_warning() {
        let mut known = btc("known", "5", "k");
        known.known = Some("confirmed".into());
        let mut again = btc("again", "0.3", "y");
        again.same_lately = Some("`old` of 2026-11-20".into());
        let mut first = btc("first", "0.9", "new");
        first.paid_before = false;
        let open = asked(
            "open",
            &json!({"currency": "EUR", "convert_to": "BTC", "amount_to": "0.1", "address": "x"}),
        );
        let rows = [
            btc("a", "0.1", "x"),
            btc("b", "0.1", "x"),
            known,
            again,
            first,
            open,
        ];
        let plan = draft("p".into(), &rows, &market()).unwrap();
        assert_eq!(plan.new_addresses, ["new"]);
        assert_eq!(
            plan.warnings,
            [
                "rows 0 and 1 pay the same amount to the same address",
                "row 2, `known`, was asked for before and is confirmed: it is not paid again",
                "row 3, `again`, pays the same amount to the same address as `old` of 2026-11-20",
                "row 5, `open`, says what arrives; how much EUR leaves is the gateway's rate then, and is in no total",
                "the balance does not cover it: 0.4112 BTC are missing",
            ]
        );
        assert_eq!(plan.totals[0].amount, "1.4");
        assert!(plan.totals[1].after.is_none());
    }

    #[test]
    fn the_hash_changes_with_every_part_and_drift_is_named() {
        let rows = [btc("a", "0.1", "x"), btc("b", "0.2", "y")];
        let plan = draft("p".into(), &rows, &market()).unwrap();
        let hash = plan.hash().unwrap();
        let other = draft("q".into(), &rows, &market()).unwrap();
        assert_ne!(hash, other.hash().unwrap());
        let now = |rows: &[Asked]| {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| (row.foreign_id.clone(), row.content.clone()))
                .collect();
            plan.drift(rows.iter().map(|(id, content)| (id, content)))
        };
        assert_eq!(now(&rows), None);
        let changed = [btc("a", "0.1", "x"), btc("b", "0.3", "y")];
        assert_eq!(
            now(&changed).unwrap(),
            "the `amount` of row 1, `b`, is \"0.2\", and \"0.3\" is asked for"
        );
        assert_eq!(
            now(&rows[..1]).unwrap(),
            "it has 2 rows, and 1 are asked for"
        );
        let swapped = [rows[1].clone(), rows[0].clone()];
        assert!(now(&swapped).unwrap().contains("row 0 is `a`, and `b`"));
    }
}
