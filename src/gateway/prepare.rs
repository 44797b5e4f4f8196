//! Turns arguments into the exact bytes of a request, once.
//!
//! The same bytes are stored as a payment's intent, signed and sent. Nothing here sends.

use serde_json::{Map, Value};

use super::fields::{ArgumentError, Fields};
use super::operations::{self, Path};
use crate::domain::id::ForeignId;
use crate::domain::operation::Operation;

/// A request that is ready to be sent: checked, and serialised for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    operation: Operation,
    fields: Map<String, Value>,
    body: Vec<u8>,
}

/// Why stored bytes are not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// The bytes are damaged; nothing may be done with them.
    #[error("the stored body of {0} is not a JSON object")]
    Unreadable(Operation),
    /// The bytes are not what [`prepare()`] writes: damaged, or written under other rules.
    #[error("the stored body of {operation} is not valid: {}", list(errors))]
    Invalid {
        /// Whose body it was stored as.
        operation: Operation,
        /// The mistakes; empty when the body is right but not written canonically.
        errors: Vec<ArgumentError>,
    },
}

fn list(errors: &[ArgumentError]) -> String {
    if errors.is_empty() {
        return "it is not written canonically".to_owned();
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Checks the arguments of an operation and serialises its body.
///
/// The fields are the gateway's own. Amounts may be numbers or texts and go out as plain decimal
/// strings; fields that are null are left out. A payment's `foreign_id` must be there already.
///
/// # Errors
/// All mistakes at once, in the order of the documentation; the author of the arguments must
/// change them.
pub fn prepare(operation: Operation, arguments: &Value) -> Result<Prepared, Vec<ArgumentError>> {
    let nothing = Map::new();
    let given = match arguments {
        Value::Object(given) => given,
        Value::Null => &nothing,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(vec![ArgumentError {
                field: String::new(),
                message: format!("the arguments of {operation} must be a map"),
                help: None,
            }]);
        }
    };
    let mut fields = Fields::new(given);
    operations::read(operation, &mut fields);
    let fields = fields.finish()?;
    let body = if operations::is_signed(operation) {
        serde_json::to_vec(&fields).expect("a map with text keys can be written as JSON")
    } else {
        Vec::new()
    };
    Ok(Prepared {
        operation,
        fields,
        body,
    })
}

impl Prepared {
    /// Rebuilds a request from the bytes that [`Prepared::body`] gave, and checks them again as if
    /// they were new: they must be, byte by byte, what would be written today. The caller compares
    /// [`foreign_id`](Self::foreign_id) with the key it stored them under.
    ///
    /// # Errors
    /// [`StoredError`]: the bytes must not be sent; the payment needs a human.
    pub fn from_stored(operation: Operation, body: Vec<u8>) -> Result<Self, StoredError> {
        let stored: Value = if operations::is_signed(operation) {
            serde_json::from_slice(&body).map_err(|_| StoredError::Unreadable(operation))?
        } else {
            Value::Null
        };
        let again = prepare(operation, &stored)
            .map_err(|errors| StoredError::Invalid { operation, errors })?;
        if again.body == body {
            Ok(Self { body, ..again })
        } else {
            let errors = Vec::new();
            Err(StoredError::Invalid { operation, errors })
        }
    }

    /// What it asks for.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The exact bytes that are signed and sent; empty for `ping` only.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The fields of the body: amounts as canonical decimal strings, nothing null.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The key in the body: a payment always has one.
    #[must_use]
    pub fn foreign_id(&self) -> Option<ForeignId> {
        self.fields.get("foreign_id")?.as_str()?.parse().ok()
    }

    pub(super) fn path(&self) -> Path {
        operations::path(self.operation, self.fields.contains_key("convert_to"))
    }

    /// A request with a body that no operation would write, for tests of the wire.
    #[cfg(test)]
    pub(super) fn of_raw_body(operation: Operation, body: &[u8]) -> Self {
        Self {
            operation,
            fields: Map::new(),
            body: body.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(operation: Operation, arguments: &Value) -> String {
        let prepared = prepare(operation, arguments).unwrap();
        String::from_utf8(prepared.body().to_vec()).unwrap()
    }

    fn mistakes(operation: Operation, arguments: &Value) -> Vec<String> {
        let errors = prepare(operation, arguments).unwrap_err();
        errors.iter().map(ToString::to_string).collect()
    }

    fn exact(json: &str) -> Value {
        serde_json::from_str(json).unwrap()
    }

    fn with(mut arguments: Value, changes: Value) -> Value {
        let Value::Object(changes) = changes else {
            panic!("changes are a map");
        };
        for (field, value) in changes {
            arguments[field] = value;
        }
        arguments
    }

    fn withdrawal() -> Value {
        json!({
            "foreign_id": "payroll-1", "currency": "BTC", "amount": "0.0002",
            "address": "tb1q", "end_user_reference": "c1", "receiver_type": "natural",
            "receiver_data": {
                "first_name": "Ana", "last_name": "Müller", "date_of_birth": "1990-12-31"
            },
        })
    }

    fn exchange() -> Value {
        json!({"sender_currency": "BTC", "receiver_currency": "EUR", "sender_amount": "1"})
    }

    fn invoice() -> Value {
        json!({
            "timer": true, "title": "Order 7", "currency": "EUR", "amount": "100",
            "foreign_id": "order-7", "end_user_reference": "c1", "email_user": "a@b.example",
            "url_success": "https://shop.example/yes", "url_failed": "https://shop.example/no",
        })
    }

    #[test]
    fn operations_without_fields_send_an_empty_object_and_ping_sends_nothing() {
        assert_eq!(body(Operation::ListAccounts, &Value::Null), "{}");
        assert_eq!(body(Operation::ListAccounts, &json!({})), "{}");
        assert_eq!(body(Operation::ListCurrencies, &json!({})), "{}");
        assert_eq!(body(Operation::Ping, &json!({})), "");
    }

    #[test]
    fn a_withdrawal_goes_out_with_plain_texts_and_without_nulls() {
        let arguments = with(withdrawal(), json!({"tag": 77, "convert_to": null}));
        assert_eq!(
            body(Operation::Withdraw, &arguments),
            r#"{"address":"tb1q","amount":"0.0002","currency":"BTC","end_user_reference":"c1","foreign_id":"payroll-1","receiver_data":{"date_of_birth":"1990-12-31","first_name":"Ana","last_name":"Müller"},"receiver_type":"natural","tag":"77"}"#
        );
    }

    #[test]
    fn amounts_may_be_numbers_or_texts_and_leave_as_canonical_texts() {
        for (given, sent) in [
            (r#""0.00020000""#, "0.0002"),
            ("0.00020000", "0.0002"),
            ("2e-4", "0.0002"),
            ("100", "100"),
            ("100.0", "100"),
            (
                "12345678901234567890.12345678",
                "12345678901234567890.12345678",
            ),
        ] {
            let arguments = with(withdrawal(), json!({"amount": exact(given)}));
            let prepared = prepare(Operation::Withdraw, &arguments).unwrap();
            assert_eq!(prepared.fields()["amount"], json!(sent), "{given}");
        }
    }

    #[test]
    fn a_price_keeps_its_decimals() {
        let arguments = with(
            exchange(),
            json!({"foreign_id": "x", "price": exact("77314.2644445000")}),
        );
        let prepared = prepare(Operation::ExchangeFixed, &arguments).unwrap();
        assert_eq!(prepared.fields()["price"], json!("77314.2644445000"));
    }

    #[test]
    fn bad_amounts_are_refused_one_by_one() {
        for given in [
            "0",
            "-1",
            "0.000000001",
            r#""1,5""#,
            r#""1e5""#,
            r#""""#,
            r#"" 1""#,
            "1e400",
            "true",
            "[]",
            "{}",
        ] {
            let arguments = with(withdrawal(), json!({"amount": exact(given)}));
            let found = mistakes(Operation::Withdraw, &arguments);
            assert_eq!(found.len(), 1, "{given}: {found:?}");
            assert!(found[0].starts_with("`amount` is no amount: "), "{found:?}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let arguments = json!({
            "foreign_id": "x".repeat(256), "currncy": "BTC", "amount": "-1", "amount_to": "1",
            "address": 7, "receiver_type": "natural", "tag": "",
            "receiver_data": {"frist_name": "Ana", "last_name": "B", "date_of_birth": "1.1.90"},
            "sender_data": {},
        });
        insta::assert_snapshot!(mistakes(Operation::Withdraw, &arguments).join("\n"));
    }

    #[test]
    fn amounts_exclude_each_other_and_amount_to_needs_convert_to() {
        let to = |changes| with(with(withdrawal(), json!({"amount": null})), changes);
        assert_eq!(
            mistakes(Operation::Withdraw, &to(json!({}))),
            ["`amount` is missing (or `amount_to` in its place)"]
        );
        assert_eq!(
            mistakes(Operation::Withdraw, &to(json!({"amount_to": "1"}))),
            ["`amount_to` needs a `convert_to`, the currency it is in"]
        );
        body(
            Operation::Withdraw,
            &to(json!({"amount_to": "1", "convert_to": "EUR"})),
        );
        let both = json!({"amount_to": "1", "convert_to": "EUR"});
        assert_eq!(
            mistakes(Operation::Withdraw, &with(withdrawal(), both)),
            ["`amount` and `amount_to` exclude each other, give one of them"]
        );
        for operation in [Operation::CalculateExchange, Operation::ExchangeNow] {
            let both = with(
                exchange(),
                json!({"receiver_amount": "1", "foreign_id": "x"}),
            );
            assert!(
                mistakes(operation, &both)[0].starts_with("`sender_amount` and `receiver_amount`")
            );
        }
    }

    #[test]
    fn each_receiver_type_has_the_data_it_needs() {
        let receiver = |type_: &str, data: Value| {
            with(
                withdrawal(),
                json!({"receiver_type": type_, "receiver_data": data}),
            )
        };
        let company = json!({"legal_name": "Acme", "country_of_registration": "DEU"});
        body(Operation::Withdraw, &receiver("legal", company.clone()));
        body(Operation::Withdraw, &receiver("self", Value::Null));
        for (type_, data, expected) in [
            ("natural", Value::Null, "`receiver_data` is missing"),
            (
                "natural",
                json!("Ana"),
                "`receiver_data` must be a map, not a text",
            ),
            (
                "legal",
                json!({"legal_name": "Acme", "country_of_registration": "Germany"}),
                "`receiver_data.country_of_registration` must be a country code of three capital letters, such as DEU",
            ),
            (
                "self",
                company,
                "`receiver_data` goes with receiver_type natural or legal, not with self",
            ),
            (
                "person",
                Value::Null,
                "`receiver_type` must be one of natural, legal, self",
            ),
        ] {
            assert_eq!(
                mistakes(Operation::Withdraw, &receiver(type_, data)),
                [expected]
            );
        }
    }

    #[test]
    fn instant_withdrawals_take_the_senders_amount_and_choose_their_path() {
        let plain = prepare(Operation::WithdrawInstant, &withdrawal()).unwrap();
        assert_eq!(plain.path(), Path::V2("/crypto/withdrawal_instant"));
        let converted = with(withdrawal(), json!({"convert_to": "EUR"}));
        let converted = prepare(Operation::WithdrawInstant, &converted).unwrap();
        assert_eq!(
            converted.path(),
            Path::V2("/crypto/withdrawal_instant_exchange")
        );
        let target = with(
            withdrawal(),
            json!({"convert_to": "EUR", "amount": null, "amount_to": "1"}),
        );
        assert_eq!(
            mistakes(Operation::WithdrawInstant, &target),
            ["`amount` is missing", "`amount_to` is not a field here"]
        );
    }

    #[test]
    fn invoices_keep_to_the_documented_lengths_urls_and_words() {
        body(Operation::CreateInvoice, &invoice());
        for (field, value, expected) in [
            ("timer", json!("yes"), "must be true or false, not a text"),
            (
                "title",
                json!("x".repeat(51)),
                "has 51 characters, 50 are the most there may be",
            ),
            (
                "url_failed",
                json!("http://shop.example"),
                "must be an https URL with a domain name",
            ),
            ("email_user", json!("ana"), "must be an e-mail address"),
            (
                "type",
                json!("partial"),
                "must be one of fill_or_kill, good_until_expired",
            ),
        ] {
            let mut arguments = invoice();
            arguments[field] = value;
            assert_eq!(
                mistakes(Operation::CreateInvoice, &arguments),
                [format!("`{field}` {expected}")]
            );
        }
    }

    #[test]
    fn payment_requests_name_currencies_by_iso_and_network() {
        let arguments = json!({
            "amount": exact("0.3"), "currency": {"iso": "ETH", "network_name": "ethereum"},
            "life_time_duration": 3600,
        });
        assert_eq!(
            body(Operation::CreatePaymentRequest, &arguments),
            r#"{"amount":"0.3","currency":{"iso":"ETH","network_name":"ethereum"},"life_time_duration":3600}"#
        );
        let wrong = with(
            arguments,
            json!({"currency": "ETH", "life_time_datetime": 1}),
        );
        assert_eq!(mistakes(Operation::CreatePaymentRequest, &wrong).len(), 2);
    }

    #[test]
    fn a_look_up_names_exactly_one_thing() {
        assert_eq!(
            body(Operation::TransactionInfo, &json!({"id": 717_535})),
            r#"{"id":717535}"#
        );
        for arguments in [json!({}), json!({"id": 1, "foreign_id": "x"})] {
            assert_eq!(mistakes(Operation::TransactionInfo, &arguments).len(), 1);
        }
        assert!(!mistakes(Operation::TransactionInfo, &json!({"id": 0})).is_empty());
    }

    #[test]
    fn unknown_fields_are_refused_by_every_operation() {
        for operation in Operation::ALL {
            let found = mistakes(operation, &json!({"zebra": 1}));
            assert!(
                found.contains(&"`zebra` is not a field here".to_owned()),
                "{operation}: {found:?}"
            );
            assert_eq!(mistakes(operation, &json!([])).len(), 1);
        }
    }

    #[test]
    fn stored_bytes_are_the_bytes_that_are_sent() {
        let prepared = prepare(Operation::Withdraw, &withdrawal()).unwrap();
        let again = Prepared::from_stored(Operation::Withdraw, prepared.body().to_vec()).unwrap();
        assert_eq!(again, prepared);
        assert_eq!(again.foreign_id().unwrap().as_str(), "payroll-1");
    }

    #[test]
    fn damaged_or_foreign_stored_bytes_are_refused() {
        let sent = body(Operation::Withdraw, &withdrawal());
        for damaged in [
            sent[..sent.len() - 1].to_owned(),
            sent.replace("0.0002", "-0.0002"),
            sent.replace("\"0.0002\"", "0.0002"),
            sent.replace("payroll-1", ""),
            sent.replace("receiver_type", "receiver_tape"),
            sent.replace("{\"address\"", "{\"amount\":\"9\",\"address\""),
            sent.replace("\":\"", "\": \""),
            "[]".to_owned(),
            String::new(),
        ] {
            let stored = Prepared::from_stored(Operation::Withdraw, damaged.clone().into_bytes());
            assert!(stored.is_err(), "{damaged}");
        }
        let wrong = Prepared::from_stored(Operation::ExchangeNow, sent.into_bytes());
        assert!(matches!(wrong, Err(StoredError::Invalid { .. })));
    }

    proptest::proptest! {
        #[test]
        fn what_is_prepared_is_read_back_byte_by_byte(
            units in 1_i64..,
            scale in 0_u32..=8,
            key in "[^\\p{C}]{1,255}",
            last_name in "[^\\p{C}]{1,50}",
        ) {
            let amount = rust_decimal::Decimal::new(units, scale).to_string();
            let mut arguments = with(withdrawal(), json!({"amount": amount, "foreign_id": key}));
            arguments["receiver_data"]["last_name"] = json!(last_name);
            let prepared = prepare(Operation::Withdraw, &arguments).unwrap();
            let again =
                Prepared::from_stored(Operation::Withdraw, prepared.body().to_vec()).unwrap();
            proptest::prop_assert_eq!(again.foreign_id(), key.parse().ok());
            proptest::prop_assert_eq!(again, prepared);
        }

        #[test]
        fn any_stored_bytes_are_read_or_refused_without_panic(body: Vec<u8>) {
            for operation in Operation::ALL {
                drop(Prepared::from_stored(operation, body.clone()));
            }
        }
    }
}
