//! Whether what the gateway shows is the payment that was asked for. Pure: the content that was
//! decided and the gateway's document go in.
//!
//! A key alone proves nothing: the account may be used by others, and a store may have been set
//! back to a copy. So everything that a document shows is compared with what was asked for. The
//! gateway's documents are loose (which blocks there are, and in which order the legs come, differs
//! between its versions), so a field that is not shown contradicts nothing.

use rust_decimal::Decimal;
use serde_json::Value;

use super::record::{Content, Difference};
use crate::domain::money::decimal_from_json;
use crate::domain::operation::Operation;

/// How a document of the gateway stands to what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Likeness {
    /// It shows amount and currency, and for withdrawals the address, and all are ours.
    Proven,
    /// Nothing contradicts, but too little is shown to prove anything.
    Possible,
    /// It is about something else; this is the first field that says so.
    Foreign(Difference),
}

/// Compares a callback's body, or the answer to a look-up, with what was asked for.
#[must_use]
pub fn likeness(content: &Content, document: &Value) -> Likeness {
    let asked = content.fields();
    let shown = Shown::of(document);
    let verdict = match content.operation {
        Operation::Withdraw | Operation::WithdrawInstant => withdrawal(asked, &shown),
        Operation::ExchangeFixed | Operation::ExchangeNow => exchange(asked, &shown),
        Operation::CreateInvoice => invoice(asked, &shown),
        Operation::CreatePaymentRequest => payment_request(asked, &shown),
        Operation::Ping
        | Operation::ListAccounts
        | Operation::ListCurrencies
        | Operation::ListPairs
        | Operation::ListRates
        | Operation::TakeAddress
        | Operation::CalculateExchange
        | Operation::TransactionInfo => Ok(false),
    };
    match verdict {
        Ok(true) => Likeness::Proven,
        Ok(false) => Likeness::Possible,
        Err(difference) => Likeness::Foreign(difference),
    }
}

/// A document of the gateway, read leniently.
struct Shown<'a> {
    document: &'a Value,
    legs: Vec<&'a Value>,
}

/// An amount with its currency.
type Money = (String, Decimal);

impl<'a> Shown<'a> {
    fn of(document: &'a Value) -> Self {
        let legs = document.get("transactions").and_then(Value::as_array);
        Self {
            document,
            legs: legs.into_iter().flatten().collect(),
        }
    }

    fn block(&self, name: &str) -> Option<&'a Value> {
        self.document.get(name).filter(|block| block.is_object())
    }

    /// The legs in which something is converted.
    fn conversions(&self) -> impl Iterator<Item = &'a Value> {
        let is_conversion = |leg: &&Value| word(leg, "transaction_type") == Some("exchange");
        self.legs.iter().copied().filter(is_conversion)
    }

    /// The legs in which something leaves for an address.
    fn transfers(&self) -> impl Iterator<Item = &'a Value> {
        let is_transfer = |leg: &&Value| word(leg, "transaction_type") != Some("exchange");
        self.legs.iter().copied().filter(is_transfer)
    }

    /// What is shown as taken from the account.
    fn sent(&self) -> Vec<Money> {
        let block = self.block("currency_sent");
        let legs = self.conversions();
        block
            .into_iter()
            .chain(legs)
            .filter_map(|place| money(place, "amount", "currency"))
            .collect()
    }

    /// What is shown as given for it.
    fn received(&self) -> Vec<Money> {
        let block = self.block("currency_received");
        let places = block.into_iter().chain(self.transfers());
        let plain = places.filter_map(|place| money(place, "amount", "currency"));
        let converted = self
            .conversions()
            .filter_map(|leg| money(leg, "amount_to", "currency_to"));
        plain.chain(converted).collect()
    }

    /// What is shown of where it goes.
    fn destinations(&self, name: &str) -> Vec<String> {
        let block = self.block("crypto_address");
        let places = block.into_iter().chain(self.transfers());
        places.filter_map(|place| text(place.get(name)?)).collect()
    }
}

/// Whether everything that is needed is shown.
type Verdict = Result<bool, Difference>;

fn withdrawal(asked: &Value, shown: &Shown<'_>) -> Verdict {
    same_family(shown, "withdrawal")?;
    same_key(asked, shown)?;
    let source = word(asked, "currency").unwrap_or_default();
    let target = word(asked, "convert_to").unwrap_or(source);
    if target == source && shown.conversions().next().is_some() {
        return Err(difference("convert_to", "nothing", "a conversion"));
    }
    let amount = if asked.get("amount").is_some_and(|value| !value.is_null()) {
        let mut places = shown.sent();
        if target == source {
            places.extend(shown.received());
        }
        same_amount(asked, "amount", source, &places)?
    } else {
        same_amount(asked, "amount_to", target, &shown.received())?
    };
    if target != source {
        same_currency("convert_to", target, &shown.received())?;
    }
    let address = same_address(asked, &shown.destinations("address"))?;
    same_tag(asked, &shown.destinations("tag"))?;
    Ok(amount && address)
}

fn exchange(asked: &Value, shown: &Shown<'_>) -> Verdict {
    same_family(shown, "exchange")?;
    same_key(asked, shown)?;
    let given = word(asked, "sender_currency").unwrap_or_default();
    let wanted = word(asked, "receiver_currency").unwrap_or_default();
    let (sent, received) = (shown.sent(), shown.received());
    let currencies = same_currency("sender_currency", given, &sent)?
        & same_currency("receiver_currency", wanted, &received)?;
    let fixed_by_sender = asked
        .get("sender_amount")
        .is_some_and(|value| !value.is_null());
    let amount = if fixed_by_sender {
        same_amount(asked, "sender_amount", given, &sent)?
    } else {
        same_amount(asked, "receiver_amount", wanted, &received)?
    };
    Ok(currencies && amount)
}

/// In callbacks about invoices `currency_received` is what was asked for, not what was paid.
fn invoice(asked: &Value, shown: &Shown<'_>) -> Verdict {
    same_family(shown, "invoice")?;
    same_key(asked, shown)?;
    let block = shown.block("currency_received");
    let wanted: Vec<Money> = block
        .and_then(|block| money(block, "amount", "currency"))
        .into_iter()
        .collect();
    let currency = word(asked, "currency").unwrap_or_default();
    same_amount(asked, "amount", currency, &wanted)
}

fn payment_request(asked: &Value, shown: &Shown<'_>) -> Verdict {
    same_family(shown, "payment_request")?;
    same_key(asked, shown)?;
    let iso = |place: &Value| text(place.get("currency")?.get("iso")?);
    let block = shown.block("payment_request_amount");
    let wanted: Vec<Money> = block
        .and_then(|block| {
            let amount = decimal_from_json(block.get("amount")?).ok()?;
            Some((iso(block)?, amount))
        })
        .into_iter()
        .collect();
    same_amount(asked, "amount", &iso(asked).unwrap_or_default(), &wanted)
}

/// The gateway's types begin with the family: `withdrawal`, `withdrawal_exchange`,
/// `withdrawal_instant` are one, because its pages do not agree on which of them it says.
fn same_family(shown: &Shown<'_>, family: &str) -> Result<(), Difference> {
    match word(shown.document, "type") {
        Some(kind) if !kind.starts_with(family) => Err(difference("type", family, kind)),
        Some(_) | None => Ok(()),
    }
}

fn same_key(asked: &Value, shown: &Shown<'_>) -> Result<(), Difference> {
    let ours = asked.get("foreign_id").and_then(text);
    let theirs = shown.document.get("foreign_id").and_then(text);
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            Err(difference("foreign_id", &ours, &theirs))
        }
        (_, _) => Ok(()),
    }
}

/// Whether the currency is shown; an error when only others are.
fn same_currency(field: &str, ours: &str, places: &[Money]) -> Verdict {
    match places.first() {
        None => Ok(false),
        Some(_) if places.iter().any(|(currency, _)| currency == ours) => Ok(true),
        Some((theirs, _)) => Err(difference(field, ours, theirs)),
    }
}

/// Whether the amount is shown in its currency; an error when only others are. Fees may be added
/// in one of the places, so one that agrees is enough.
fn same_amount(asked: &Value, field: &str, currency: &str, places: &[Money]) -> Verdict {
    let Some(ours) = asked
        .get(field)
        .and_then(|value| decimal_from_json(value).ok())
    else {
        return Ok(false);
    };
    if !same_currency("currency", currency, places)? {
        return Ok(false);
    }
    let mut amounts = places.iter().filter(|(shown, _)| shown == currency);
    let first = amounts.clone().next();
    if amounts.any(|(_, amount)| *amount == ours) {
        return Ok(true);
    }
    let theirs = first.map_or_else(String::new, |(_, amount)| amount.normalize().to_string());
    let ours = ours.normalize().to_string();
    Err(difference(field, &ours, &theirs))
}

/// Addresses are compared without regard to case and without a prefix such as `bitcoincash:`,
/// which the gateway may write in its own way; no two valid addresses differ in these alone.
fn same_address(asked: &Value, shown: &[String]) -> Verdict {
    let bare = |text: &str| {
        let (_, after) = text.rsplit_once(':').unwrap_or(("", text));
        after.trim().to_ascii_lowercase()
    };
    let ours = word(asked, "address").unwrap_or_default();
    match shown.first() {
        None => Ok(false),
        Some(_) if shown.iter().all(|theirs| bare(theirs) == bare(ours)) => Ok(true),
        Some(first) => {
            let other = shown.iter().find(|theirs| bare(theirs) != bare(ours));
            Err(difference("address", ours, other.unwrap_or(first)))
        }
    }
}

fn same_tag(asked: &Value, shown: &[String]) -> Result<(), Difference> {
    let ours = asked.get("tag").and_then(text);
    let other = shown.iter().find(|theirs| Some(*theirs) != ours.as_ref());
    match other {
        None => Ok(()),
        Some(theirs) => Err(difference(
            "tag",
            ours.as_deref().unwrap_or("nothing"),
            theirs,
        )),
    }
}

fn difference(field: &str, ours: &str, theirs: &str) -> Difference {
    Difference {
        field: field.to_owned(),
        recorded: ours.to_owned(),
        now: theirs.to_owned(),
    }
}

fn word<'a>(place: &'a Value, name: &str) -> Option<&'a str> {
    place.get(name)?.as_str()
}

/// A text or a number; `None` for everything else, and for an empty text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn money(place: &Value, amount: &str, currency: &str) -> Option<Money> {
    let amount = decimal_from_json(place.get(amount)?).ok()?;
    Some((word(place, currency)?.to_owned(), amount))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn content(operation: Operation, body: &Value) -> Content {
        Content::new(operation, body.to_string())
    }

    fn sample(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    fn withdrawal() -> (Content, Value) {
        let asked = json!({
            "foreign_id": "operation_987", "currency": "BTC", "amount": "0.01",
            "address": "tb1qurv0m4ufsj8xqejvmn0y43kqew33kvqrrxswgm",
        });
        let shown = sample(include_str!(
            "../../../tests/it/callbacks/withdrawal-confirmed.json"
        ));
        (content(Operation::Withdraw, &asked), shown)
    }

    fn field(likeness: &Likeness) -> &str {
        match likeness {
            Likeness::Proven => "proven",
            Likeness::Possible => "possible",
            Likeness::Foreign(difference) => &difference.field,
        }
    }

    /// A change to a document.
    type Change = fn(&mut Value);

    #[test]
    fn a_withdrawal_is_ours_when_everything_shown_is_ours() {
        let cases: [(&str, Change); 14] = [
            ("proven", |_| {}),
            ("proven", |shown| {
                shown["type"] = json!("withdrawal_instant");
            }),
            ("proven", |shown| {
                shown["transactions"][0]["amount"] = json!(0.01);
            }),
            ("proven", |shown| {
                shown["crypto_address"]["address"] =
                    json!("TB1QURV0M4UFSJ8XQEJVMN0Y43KQEW33KVQRRXSWGM");
            }),
            // Debited with a fee, and still shown as it was asked for.
            ("proven", |shown| {
                shown["currency_sent"] = json!({"currency": "BTC", "amount": "0.0101"});
            }),
            ("possible", |shown| shown["transactions"] = json!([])),
            ("foreign_id", |shown| shown["foreign_id"] = json!("other")),
            ("type", |shown| shown["type"] = json!("deposit")),
            ("amount", |shown| {
                shown["transactions"][0]["amount"] = json!("0.02");
            }),
            ("currency", |shown| {
                shown["transactions"][0]["currency"] = json!("LTC");
            }),
            ("address", |shown| {
                shown["crypto_address"]["address"] = json!("tb1qother");
            }),
            ("address", |shown| {
                shown["transactions"][0]["address"] = json!("tb1qother");
            }),
            ("tag", |shown| shown["crypto_address"]["tag"] = json!(7)),
            ("convert_to", |shown| {
                let leg = json!({
                    "transaction_type": "exchange", "type": "exchange", "currency": "BTC",
                    "amount": "0.01", "currency_to": "ETH", "amount_to": "0.3",
                });
                shown["transactions"].as_array_mut().unwrap().push(leg);
            }),
        ];
        for (number, (expected, change)) in cases.into_iter().enumerate() {
            let (asked, mut shown) = withdrawal();
            change(&mut shown);
            let likeness = likeness(&asked, &shown);
            assert_eq!(field(&likeness), expected, "case {number}: {likeness:?}");
        }
    }

    #[test]
    fn a_conversion_is_compared_by_the_amount_that_was_given() {
        let shown = sample(include_str!(
            "../../../tests/it/callbacks/withdrawal_exchange-confirmed.json"
        ));
        let asked = |amounts: &Value| {
            let mut asked = json!({
                "foreign_id": shown["foreign_id"], "currency": "EUR", "convert_to": "BTC",
                "address": shown["crypto_address"]["address"],
            });
            let fields = amounts.as_object().unwrap().clone();
            asked.as_object_mut().unwrap().extend(fields);
            likeness(&content(Operation::Withdraw, &asked), &shown)
        };
        let sent = shown["currency_sent"]["amount"].clone();
        let received = shown["currency_received"]["amount"].clone();
        assert_eq!(field(&asked(&json!({"amount": sent}))), "proven");
        assert_eq!(field(&asked(&json!({"amount_to": received}))), "proven");
        assert_eq!(field(&asked(&json!({"amount": "1"}))), "amount");
        assert_eq!(field(&asked(&json!({"amount_to": "1"}))), "amount_to");
        let eth = json!({"amount": sent, "convert_to": "ETH"});
        assert_eq!(field(&asked(&eth)), "convert_to");
    }

    #[test]
    fn an_exchange_is_ours_by_its_currencies_and_its_amount() {
        let shown = sample(include_str!(
            "../../../tests/it/callbacks/exchange-confirmed.json"
        ));
        let asked = |sender: &str, receiver: &str, amount: &str| {
            let asked = json!({
                "foreign_id": "e", "sender_currency": sender, "receiver_currency": receiver,
                "sender_amount": amount,
            });
            likeness(&content(Operation::ExchangeNow, &asked), &shown)
        };
        assert_eq!(field(&asked("BTC", "ETH", "0.0001")), "proven");
        assert_eq!(field(&asked("BTC", "ETH", "0.0002")), "sender_amount");
        assert_eq!(field(&asked("LTC", "ETH", "0.0001")), "sender_currency");
        assert_eq!(field(&asked("BTC", "EUR", "0.0001")), "receiver_currency");
    }

    #[test]
    fn invoices_and_payment_requests_are_compared_by_what_was_asked_for() {
        let shown = sample(include_str!(
            "../../../tests/it/callbacks/invoice-processing.json"
        ));
        let asked = |amount: &str| {
            let asked =
                json!({"foreign_id": shown["foreign_id"], "currency": "EUR", "amount": amount});
            likeness(&content(Operation::CreateInvoice, &asked), &shown)
        };
        assert_eq!(field(&asked("26")), "proven");
        assert_eq!(field(&asked("27")), "amount");
        let shown = sample(include_str!(
            "../../../tests/it/callbacks/payment_request-processing.json"
        ));
        let asked = |iso: &str| {
            let asked = json!({"foreign_id": shown["foreign_id"], "currency": {"iso": iso}, "amount": "0.3"});
            likeness(&content(Operation::CreatePaymentRequest, &asked), &shown)
        };
        assert_eq!(field(&asked("ETH")), "proven");
        assert_eq!(field(&asked("BTC")), "currency");
    }
}
