//! What the gateway's callbacks say: identity, life cycle, and the event that scripts are given.
//!
//! Types, statuses and fields are open sets: the raw words are kept, and what is unknown is never
//! final. Verifying signatures is [`super::signature`]'s, storing and ordering the runner's. All
//! facts are from the gateway's callback pages and their samples, which are this module's tests.

mod identity;

use std::borrow::Cow;
use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::clock::Timestamp;
use super::exact::Exact;
use super::id::TransactionKey;
use identity::{Given, Named};

/// The longest type or status taken, in bytes; known ones have at most 27.
const MAX_WORD: usize = 64;

/// The longest root id taken, in bytes; a UUID has 36.
const MAX_ID: usize = 128;

/// One callback whose signature has been verified. Prints as its event key alone, because bodies
/// hold personal data.
///
/// # Design
/// Most callbacks start nothing, and for taking one in its identity is enough: the rest is read
/// when somebody asks for the event.
#[derive(Clone)]
pub struct Callback {
    transaction: TransactionKey,
    status: String,
    foreign_id: Option<String>,
    key: EventKey,
    text: String,
}

/// Why a signed body cannot be taken for a callback. Names no content of the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// The permanent identity of one event: the same for every delivery of it, another for a further
/// status or a further part of a payment. Deduplication by it never expires.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventKey(String);

impl EventKey {
    /// The key of a signed body that is no callback: each different body is an event of its own.
    #[must_use]
    pub fn of_unreadable(body: &[u8]) -> Self {
        Self(format!(
            "callback:unreadable:{}",
            hex::encode(Sha256::digest(body))
        ))
    }

    /// The key as it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an event came to Bursar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The gateway posted it.
    Callback,
    /// The sweep found it at the gateway.
    Reconciled,
    /// A person delivered it again.
    Replayed,
    /// It came from a simulated world.
    Simulated,
}

impl Source {
    /// The word that scripts see in `event.source`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::Reconciled => "reconciled",
            Self::Replayed => "replayed",
            Self::Simulated => "simulated",
        }
    }
}

impl Callback {
    /// Reads the exact bytes of a verified body.
    ///
    /// # Errors
    /// When it is not a JSON object with a `type`, a `status` and an `id` (or
    /// `payment_request_id`). The caller stores the body as unreadable and raises an alert.
    pub fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        let not_json =
            |error: &dyn fmt::Display| Unreadable(format!("the body is not JSON: {error}"));
        let text = std::str::from_utf8(body).map_err(|error| not_json(&error))?;
        let named = match Named::of_text(text) {
            Some(named) => named,
            None => match serde_json::from_str(text).map_err(|error| not_json(&error))? {
                Value::Object(body) => Named::of_fields(&body),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_) => {
                    return Err(Unreadable("the body is not a JSON object".to_owned()));
                }
            },
        };
        let kind = word(named.kind.as_ref(), "type")?;
        let status = word(named.status.as_ref(), "status")?;
        let id = [&named.id, &named.payment_request_id]
            .into_iter()
            .find_map(|id| id.as_ref()?.id())
            .filter(|id| is_plain(id, MAX_ID))
            .ok_or_else(|| Unreadable("the body has no usable `id`".to_owned()))?;
        Ok(Self {
            key: named.event_key(kind, id, status),
            transaction: TransactionKey {
                kind: kind.to_owned(),
                id: id.to_owned(),
            },
            status: status.to_owned(),
            foreign_id: named
                .foreign_id
                .as_ref()
                .and_then(Given::id)
                .map(str::to_owned),
            text: text.to_owned(),
        })
    }

    /// The body as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `type.status`, what `on(…)` matches.
    #[must_use]
    pub fn kind(&self) -> String {
        [self.transaction.kind.as_str(), ".", self.status.as_str()].concat()
    }

    /// The gateway's transaction. Events of one transaction are handled in order.
    #[must_use]
    pub const fn transaction(&self) -> &TransactionKey {
        &self.transaction
    }

    /// The raw status.
    #[must_use]
    pub fn status(&self) -> &str {
        &self.status
    }

    /// The root `foreign_id`: the key of the withdrawal, invoice or payment request. Exchanges and
    /// deposits have none.
    #[must_use]
    pub fn foreign_id(&self) -> Option<&str> {
        self.foreign_id.as_deref()
    }

    /// Whether no further status is expected.
    #[must_use]
    pub fn is_final(&self) -> bool {
        is_final(&self.transaction.kind, &self.status)
    }

    /// The permanent key of this event: transaction, status and what part-payments change. The
    /// number of confirmations, which grows between deliveries, is no part of it.
    #[must_use]
    pub const fn event_key(&self) -> &EventKey {
        &self.key
    }

    /// What came in: for deposits what was sent, for invoices the sum of the deposits; in the
    /// currency that was sent. `None` for other types, and when the body does not say it exactly.
    fn paid(&self, body: &Exact<'_>) -> Option<Decimal> {
        match self.transaction.kind.as_str() {
            "invoice" => deposited(body),
            "deposit" | "deposit_exchange" => match body.get("currency_sent") {
                Some(sent) => sent.get("amount")?.amount(),
                None => deposited(body),
            },
            _ => None,
        }
    }

    /// The event as scripts get it: the callback's JSON with exact amounts, and our own fields
    /// `kind`, `final`, `received_at` (RFC 3339, UTC), `paid` (or null) and `source`.
    #[must_use]
    pub fn event(&self, received_at: Timestamp, source: Source) -> Exact<'_> {
        // The body was found to be an object when it was parsed.
        let mut event = serde_json::from_str(&self.text).unwrap_or(Exact::Fields(Vec::new()));
        let paid = self.paid(&event);
        make_amounts_exact("", &mut event);
        let Exact::Fields(mut fields) = event else {
            return event;
        };
        let text = |text: String| Exact::Text(Cow::Owned(text));
        let own = [
            ("kind", text(self.kind())),
            ("final", Exact::Bool(self.is_final())),
            ("received_at", text(super::clock::shown(received_at))),
            ("paid", paid.map_or(Exact::Null, Exact::of_decimal)),
            ("source", Exact::Text(Cow::Borrowed(source.as_str()))),
        ];
        fields.extend(own.map(|(name, value)| (Cow::Borrowed(name), value)));
        Exact::of_fields(fields)
    }
}

/// The sum of the legs that are deposits, when all are in one currency. Legs are found by type:
/// their order differs between the gateway's versions.
fn deposited(body: &Exact<'_>) -> Option<Decimal> {
    let legs = match body.get("transactions") {
        Some(Exact::List(legs)) => legs.as_slice(),
        _ => &[],
    };
    let is_deposit = |leg: &&Exact<'_>| leg.get("type").and_then(Exact::text) == Some("deposit");
    let deposits: Vec<_> = legs.iter().filter(is_deposit).collect();
    let mut currencies = deposits.iter().map(|leg| leg.get("currency"));
    if let Some(first) = currencies.next()
        && currencies.any(|currency| currency != first)
    {
        return None;
    }
    deposits.iter().try_fold(Decimal::ZERO, |sum, leg| {
        sum.checked_add(leg.get("amount")?.amount()?)
    })
}

impl PartialEq for Callback {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Callback({})", self.event_key())
    }
}

/// Whether the gateway documents `status` as the last one of a transaction of type `kind`. What is
/// unknown is not final.
#[must_use]
pub fn is_final(kind: &str, status: &str) -> bool {
    let last: &[&str] = match kind {
        "deposit" | "deposit_exchange" | "exchange" => &["confirmed", "cancelled"],
        "withdrawal"
        | "withdrawal_exchange"
        | "withdrawal_instant"
        | "withdrawal_instant_exchange" => &["confirmed", "declined", "cancelled"],
        "invoice" => &["confirmed", "failed"],
        "payment_request" => &["paid", "failed", "expired"],
        _ => &[],
    };
    last.contains(&status)
}

/// What a status means after the one known before it. The gateway guarantees no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The first status, or another one after a status that was not final: apply it.
    Advances,
    /// The same status again, such as a further part of a payment: apply what it adds.
    Repeats,
    /// Not final, after a final one: record and ignore it.
    Late,
    /// Final, after another final one: raise an alarm and do nothing.
    Contradicts,
}

/// How `new` stands to `previous` for a transaction of type `kind`.
#[must_use]
pub fn order(kind: &str, previous: Option<&str>, new: &str) -> Order {
    match previous {
        None => Order::Advances,
        Some(previous) if previous == new => Order::Repeats,
        Some(previous) if !is_final(kind, previous) => Order::Advances,
        Some(_) if is_final(kind, new) => Order::Contradicts,
        Some(_) => Order::Late,
    }
}

fn word<'a>(given: Option<&'a Given<'_>>, name: &str) -> Result<&'a str, Unreadable> {
    given
        .and_then(Given::text)
        .filter(|text| is_plain(text, MAX_WORD))
        .ok_or_else(|| Unreadable(format!("the body has no usable `{name}`")))
}

fn is_plain(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether a field of that name holds an amount, in every version of the gateway's bodies.
fn names_an_amount(name: &str) -> bool {
    name == "amount" || name.starts_with("amount_") || name.ends_with("_amount")
}

/// Turns amounts below `value` into exact numbers with a point. What is not an amount after all
/// stays as it is.
fn make_amounts_exact(name: &str, value: &mut Exact<'_>) {
    match value {
        Exact::Fields(fields) => {
            for (name, value) in fields {
                make_amounts_exact(name, value);
            }
        }
        Exact::List(items) => {
            for item in items {
                make_amounts_exact("", item);
            }
        }
        Exact::Text(_) | Exact::Integer(_) | Exact::Number(_) if names_an_amount(name) => {
            if let Some(amount) = value.amount() {
                *value = Exact::of_decimal(amount);
            }
        }
        Exact::Null
        | Exact::Bool(_)
        | Exact::Integer(_)
        | Exact::Number(_)
        | Exact::Decimal(_)
        | Exact::Text(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;
    use crate::domain::money::{decimal_from_json, json_from_decimal};

    macro_rules! samples {
        ($($name:literal),+ $(,)?) => {
            [$(($name, include_str!(concat!("../../../tests/it/callbacks/", $name, ".json")))),+]
        };
    }

    /// The bodies the gateway publishes.
    const SAMPLES: [(&str, &str); 12] = samples![
        "deposit-cancelled",
        "deposit-confirmed",
        "deposit-not_confirmed",
        "deposit_exchange-confirmed",
        "exchange-confirmed",
        "invoice-confirmed",
        "invoice-failed",
        "invoice-processing",
        "payment_request-processing",
        "withdrawal-cancelled",
        "withdrawal-confirmed",
        "withdrawal_exchange-confirmed",
    ];

    fn sample(name: &str) -> Value {
        let (_, text) = SAMPLES.iter().find(|(known, _)| *known == name).unwrap();
        serde_json::from_str(text).unwrap()
    }

    fn parse(body: &Value) -> Callback {
        Callback::parse(body.to_string().as_bytes()).unwrap()
    }

    fn received() -> Timestamp {
        Timestamp::from_timestamp_millis(1_790_000_000_123).unwrap()
    }

    fn event(callback: &Callback, source: Source) -> Value {
        callback.event(received(), source).into()
    }

    /// The body with exact amounts, said plainly.
    fn plain(name: &str, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.iter();
                let exact = fields.map(|(name, value)| (name.clone(), plain(name, value)));
                Value::Object(exact.collect())
            }
            Value::Array(items) => items.iter().map(|item| plain("", item)).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let amount = decimal_from_json(value).ok();
                let amount = amount.filter(|_| names_an_amount(name));
                amount.map_or_else(|| value.clone(), json_from_decimal)
            }
        }
    }

    /// What both ways of reading make of a body.
    fn both(text: &str) -> (Option<Named<'_>>, Option<Named<'_>>) {
        let whole = serde_json::from_str::<Map<String, Value>>(text).ok();
        (Named::of_text(text), whole.as_ref().map(Named::of_fields))
    }

    #[test]
    fn every_published_callback_is_read_without_the_rest_to_the_same_result() {
        for (name, text) in SAMPLES {
            let (brief, whole) = both(text);
            assert!(brief.is_some(), "{name}");
            assert_eq!(brief, whole, "{name}");
        }
    }

    #[test]
    fn what_only_a_whole_reading_decides_is_left_to_it() {
        for text in [
            r#"{"type":"deposit","type":"invoice","status":"s","id":1}"#,
            r#"{"type":"de\u0070osit","status":"s","id":1}"#,
            r#"{"type":"deposit","status":"s","id":1,"transactions":{}}"#,
            r#"{"type":"deposit","status":"s","id":1,"currency_sent":[]}"#,
            &format!(
                r#"{{"type":"deposit","status":"s","id":1,"x":{}{}}}"#,
                "[".repeat(101),
                "]".repeat(101)
            ),
        ] {
            assert_eq!(Named::of_text(text), None, "{text}");
            assert!(Callback::parse(text.as_bytes()).is_ok(), "{text}");
        }
        let deep = format!(
            r#"{{"type":"deposit","status":"s","id":1,"x":{}"#,
            "[".repeat(200)
        );
        assert!(Callback::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn every_published_callback_is_understood() {
        let table: Vec<String> = SAMPLES
            .iter()
            .map(|(name, text)| {
                let callback = Callback::parse(text.as_bytes()).unwrap();
                assert_eq!(callback.kind(), name.replace('-', "."));
                let event = event(&callback, Source::Callback);
                format!(
                    "{}\n  foreign_id {:?} customer {} error {}\n  final {} paid {}",
                    callback.event_key(),
                    callback.foreign_id(),
                    event["crypto_address"]["foreign_id"],
                    event["error"],
                    callback.is_final(),
                    event["paid"],
                )
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"), @r#"
            callback:deposit.cancelled:2686601:053311cfda5112d2fce9
              foreign_id None customer "991904" error "Transaction amount less than minimum deposit"
              final true paid 0.00000500
            callback:deposit.confirmed:2686579:ffc69c7d4cd5a7cedce8
              foreign_id None customer "991904" error ""
              final true paid 0.01000000
            callback:deposit.not_confirmed:2686579:fe1d25672a47ea02d8a7
              foreign_id None customer "991904" error ""
              final false paid 0.01000000
            callback:deposit_exchange.confirmed:2686510:83a87e5c44e34724dd79
              foreign_id None customer "13a" error ""
              final true paid 0.01000000
            callback:exchange.confirmed:134782394:19b45de36931b218fba5
              foreign_id None customer null error ""
              final true paid null
            callback:invoice.confirmed:588:eb662752a7443c95fcb8
              foreign_id Some("8FW1KI7LesB9yxWcK1K") customer null error ""
              final true paid 0.02000000
            callback:invoice.failed:23:590b50748306238e5b93
              foreign_id Some("77xa2pd") customer null error "Timer expired. User not paid."
              final true paid 0.0
            callback:invoice.processing:22:3bb0ab81fa5cfcf7e68f
              foreign_id Some("229-hdsa") customer null error ""
              final false paid 0.00309556
            callback:payment_request.processing:019c0ebf-81e5-751d-aa57-fb9e2cba23c2:5d268ff95695925d257c
              foreign_id Some("order_12345") customer null error null
              final false paid null
            callback:withdrawal.cancelled:2686580:eb37bbc206b34ff5035d
              foreign_id Some("123") customer null error "Invalid params: expected a hex-encoded hash with 0x prefix."
              final true paid null
            callback:withdrawal.confirmed:134702815:e689ba2e9cb149fa846f
              foreign_id Some("operation_987") customer null error ""
              final true paid null
            callback:withdrawal_exchange.confirmed:123:1fc5b7e59f965d093b06
              foreign_id Some("operation_987") customer null error ""
              final true paid null
            "#);
    }

    #[test]
    fn an_event_has_exact_amounts_and_our_own_fields() {
        let event = event(
            &parse(&sample("deposit_exchange-confirmed")),
            Source::Replayed,
        );
        let text = |value: &Value| value.to_string();
        assert_eq!(text(&event["currency_received"]["amount"]), "84.17070222");
        assert_eq!(
            text(&event["currency_received"]["amount_minus_fee"]),
            "79.96216711"
        );
        assert_eq!(text(&event["transactions"][1]["amount_to"]), "84.17070222");
        assert_eq!(text(&event["fees"][0]["amount"]), "4.20853511");
        assert_eq!(text(&event["transactions"][0]["riskscore"]), "\"0.42\"");
        assert_eq!(text(&event["transactions"][0]["confirmations"]), "\"1\"");
        assert_eq!(text(&event["id"]), "2686510");
        assert_eq!(text(&event["kind"]), "\"deposit_exchange.confirmed\"");
        assert_eq!(text(&event["final"]), "true");
        assert_eq!(event["received_at"], "2026-09-21T14:13:20.123Z");
        assert_eq!(text(&event["paid"]), "0.01000000");
        assert_eq!(text(&event["source"]), "\"replayed\"");

        let request = parse(&sample("payment_request-processing"));
        let request = Value::from(request.event(received(), Source::Callback));
        assert_eq!(text(&request["currency_sent"]["received_amount"]), "0.0");
        assert_eq!(text(&request["payment_request_amount"]["amount"]), "0.3");
        assert_eq!(text(&request["paid"]), "null");
    }

    #[test]
    fn amounts_may_be_strings_or_numbers_and_odd_ones_stay_as_they_are() {
        let body = json!({"id": "7", "type": "deposit", "status": "confirmed", "error": null,
            "currency_sent": {"amount": 381}, "amount": "a lot", "amount_to": null,
            "crypto_address": {"tag": 12345, "foreign_id": 99}});
        let callback = parse(&body);
        let event = event(&callback, Source::Callback);
        assert_eq!(event["currency_sent"]["amount"].to_string(), "381.0");
        assert_eq!(event["amount"], json!("a lot"));
        assert_eq!(event["amount_to"], Value::Null);
        assert_eq!(event["crypto_address"]["tag"], json!(12345));
        assert_eq!(event["paid"].to_string(), "381.0");
        assert_eq!(event["crypto_address"]["foreign_id"], json!(99));
        assert_eq!(event["error"], Value::Null);
        assert_eq!(callback.transaction().to_string(), "deposit:7");
    }

    #[test]
    fn a_repeated_delivery_keeps_its_key_and_what_happened_since_changes_it() {
        let body = sample("invoice-processing");
        let key = |change: &dyn Fn(&mut Value)| {
            let mut body = body.clone();
            change(&mut body);
            parse(&body).event_key().clone()
        };
        let original = key(&|_| ());
        let same: [&dyn Fn(&mut Value); 4] = [
            &|body| body["transactions"][0]["confirmations"] = json!(5),
            &|body| body["transactions"][0]["amount"] = json!("0.0030955600"),
            &|body| body["fees"] = json!([{"type": "deposit", "amount": "1"}]),
            &|body| body["expires_at"] = json!(1),
        ];
        for (index, change) in same.iter().enumerate() {
            assert_eq!(key(change), original, "change {index}");
        }
        let other: [&dyn Fn(&mut Value); 5] = [
            &|body| body["status"] = json!("confirmed"),
            &|body| body["id"] = json!(23),
            &|body| body["type"] = json!("deposit"),
            &|body| body["currency_sent"]["remaining_amount"] = json!("0.001"),
            &|body| {
                let mut part = body["transactions"][0].clone();
                part["id"] = json!(1505);
                body["transactions"].as_array_mut().unwrap().push(part);
            },
        ];
        for (index, change) in other.iter().enumerate() {
            assert_ne!(key(change), original, "change {index}");
        }
    }

    #[test]
    fn the_order_of_parts_does_not_change_the_key() {
        let body = sample("invoice-confirmed");
        let mut turned = body.clone();
        turned["transactions"].as_array_mut().unwrap().reverse();
        assert_eq!(parse(&body).event_key(), parse(&turned).event_key());
    }

    #[test]
    fn what_came_in_is_never_guessed() {
        let paid = |body: &Value| event(&parse(body), Source::Callback)["paid"].to_string();
        let mut body = sample("invoice-confirmed");
        assert_eq!(paid(&body), "0.02000000");
        let exchange = json!({"type": "exchange", "currency": "BTC", "amount": "9"});
        body["transactions"].as_array_mut().unwrap().push(exchange);
        assert_eq!(paid(&body), "0.02000000");
        body["transactions"][0]["currency"] = json!("ETH");
        assert_eq!(paid(&body), "null");
        body["transactions"][0]["currency"] = json!("BTC");
        body["transactions"][0]["amount"] = json!("much");
        assert_eq!(paid(&body), "null");
        assert_eq!(paid(&sample("invoice-failed")), "0.0");
        assert_eq!(paid(&sample("withdrawal-confirmed")), "null");
    }

    #[test]
    fn the_life_cycle_table_says_what_is_final() {
        let kinds = [
            "deposit",
            "deposit_exchange",
            "withdrawal",
            "withdrawal_exchange",
            "withdrawal_instant",
            "withdrawal_instant_exchange",
            "exchange",
            "invoice",
            "payment_request",
            "withdrawal_by_pigeon",
        ];
        let statuses = [
            "created",
            "pending",
            "processing",
            "not_confirmed",
            "confirmed",
            "declined",
            "cancelled",
            "failed",
            "paid",
            "expired",
            "restricted",
        ];
        let table: Vec<String> = kinds
            .iter()
            .map(|kind| {
                let last: Vec<&str> = statuses
                    .into_iter()
                    .filter(|status| is_final(kind, status))
                    .collect();
                format!("{kind}: {}", last.join(" "))
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"), @r#"
            deposit: confirmed cancelled
            deposit_exchange: confirmed cancelled
            withdrawal: confirmed declined cancelled
            withdrawal_exchange: confirmed declined cancelled
            withdrawal_instant: confirmed declined cancelled
            withdrawal_instant_exchange: confirmed declined cancelled
            exchange: confirmed cancelled
            invoice: confirmed failed
            payment_request: failed paid expired
            withdrawal_by_pigeon:
            "#);
    }

    #[test]
    fn after_a_final_status_nothing_else_is_applied() {
        for (previous, new, expected) in [
            (None, "pending", Order::Advances),
            (None, "confirmed", Order::Advances),
            (Some("pending"), "confirmed", Order::Advances),
            (Some("pending"), "pending", Order::Repeats),
            (Some("confirmed"), "confirmed", Order::Repeats),
            (Some("confirmed"), "pending", Order::Late),
            (Some("confirmed"), "never_seen", Order::Late),
            (Some("never_seen"), "pending", Order::Advances),
            (Some("confirmed"), "cancelled", Order::Contradicts),
            (Some("declined"), "confirmed", Order::Contradicts),
        ] {
            assert_eq!(
                order("withdrawal", previous, new),
                expected,
                "{new} after {previous:?}"
            );
        }
    }

    #[test]
    fn what_is_no_callback_says_why_without_quoting_it() {
        let long = format!(r#"{{"id":1,"type":"{}","status":"s"}}"#, "x".repeat(65));
        for (body, expected) in [
            (
                "",
                "the body is not JSON: EOF while parsing a value at line 1 column 0",
            ),
            ("[]", "the body is not a JSON object"),
            ("{}", "the body has no usable `type`"),
            (r#"{"type":7}"#, "the body has no usable `type`"),
            (&long, "the body has no usable `type`"),
            (r#"{"type":"a"}"#, "the body has no usable `status`"),
            (
                r#"{"type":"a","status":""}"#,
                "the body has no usable `status`",
            ),
            (
                r#"{"type":"a","status":"b"}"#,
                "the body has no usable `id`",
            ),
            (
                r#"{"type":"a","status":"b","id":null}"#,
                "the body has no usable `id`",
            ),
        ] {
            let error = Callback::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{body}");
        }
        assert_ne!(EventKey::of_unreadable(b"1"), EventKey::of_unreadable(b"2"));
    }

    #[test]
    fn a_callback_prints_nothing_of_its_body() {
        let printed = format!("{:?}", parse(&sample("payment_request-processing")));
        assert!(!printed.contains("user@example.com"));
        assert!(printed.starts_with("Callback(callback:payment_request.processing:019c0ebf"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[0-9.e-]{0,40}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(
                    prop_oneof![
                        Just("id".to_owned()),
                        Just("amount".to_owned()),
                        Just("type".to_owned()),
                        Just("remaining_amount".to_owned()),
                        any::<String>()
                    ],
                    inner,
                    0..6
                )
                .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(body: Vec<u8>) {
            if let Ok(callback) = Callback::parse(&body) {
                prop_assert!(!callback.kind().is_empty());
            }
        }

        #[test]
        fn whatever_the_fields_hold_there_is_an_event_and_a_stable_key(
            id in 1_u64..,
            kind in "invoice|deposit|withdrawal|other",
            error in any_json(),
            legs in any_json(),
            leg in any_json(),
            sent in any_json(),
            address in any_json(),
        ) {
            for transactions in [legs, json!([leg])] {
                let body = json!({"id": id, "type": kind, "status": "confirmed", "error": error,
                    "transactions": transactions, "currency_sent": sent, "crypto_address": address});
                let callback = parse(&body);
                let event = event(&callback, Source::Callback);
                prop_assert_eq!(&event["kind"], &json!(format!("{kind}.confirmed")));
                for (name, value) in body.as_object().unwrap() {
                    prop_assert_eq!(&event[name], &plain(name, value));
                }
                let again = parse(&body);
                prop_assert_eq!(callback.event_key(), again.event_key());
                let text = body.to_string();
                if let (Some(brief), whole) = both(&text) {
                    prop_assert_eq!(Some(brief), whole);
                }
            }
        }

        /// Bytes are changed at random: what is read without the rest is what a whole reading
        /// says, and never something of a body that a whole reading refuses.
        #[test]
        fn a_damaged_body_is_read_alike_both_ways(
            sample in 0..SAMPLES.len(),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = SAMPLES[sample].1.as_bytes().to_vec();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if let Ok(text) = std::str::from_utf8(&bytes)
                && let (Some(brief), whole) = both(text)
            {
                prop_assert_eq!(Some(brief), whole);
            }
        }
    }
}
