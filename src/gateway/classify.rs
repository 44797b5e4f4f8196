//! What an answer of the gateway means, as one pure function.
//!
//! | status | body | disposition |
//! |---|---|---|
//! | 2xx | what the operation promises | `Accepted` |
//! | 400, 403 | `{"error": …, "code": …}` | `Rejected` |
//! | 400 | `{"errors": {field: …}}` | `Rejected` |
//! | 404, `transaction_info` only | a JSON object, or nothing | `Rejected`, not found |
//! | everything else | | `Unknown` |
//!
//! `NotSent` never comes from here: where there is an answer, something was sent.
//!
//! # Design
//! `Rejected` tells the money path that nothing happened, so it needs proof: a shape that the
//! gateway documents. A page of some proxy in between, a truncated text, a status that is not in
//! the documentation prove nothing. 429 is among them: the documentation shows it for quotes only,
//! as a block by the network in front of the gateway.

use std::collections::BTreeMap;

use serde_json::Value;

use super::amounts;
use crate::domain::operation::Operation;

/// What became of one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Disposition {
    /// Certainly no byte of it left; it may be sent again at will.
    NotSent {
        /// Why, for people.
        reason: String,
    },
    /// The gateway refused it, in a way it documents: nothing happened.
    Rejected(Rejection),
    /// The gateway took it: `data`, for `transaction_info` the bare object, for `ping` the text.
    /// Amounts are numbers with a point. For a payment this is not the end: its fate comes later.
    Accepted(Value),
    /// Anything may have happened. A payment must be looked up, never sent again under another key.
    Unknown {
        /// Why, for people. Quotes nothing of the answer.
        reason: String,
        /// The status, when at least that arrived.
        status: Option<u16>,
    },
}

impl Disposition {
    /// The word in logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotSent { .. } => "not_sent",
            Self::Rejected(_) => "rejected",
            Self::Accepted(_) => "accepted",
            Self::Unknown { .. } => "unknown",
        }
    }

    pub(super) fn not_sent(reason: impl Into<String>) -> Self {
        Self::NotSent {
            reason: reason.into(),
        }
    }

    pub(super) fn unknown(reason: impl Into<String>, status: Option<u16>) -> Self {
        Self::Unknown {
            reason: reason.into(),
            status,
        }
    }
}

/// A refusal in one of the documented shapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// 400, 403, or 404 for a transaction that was not found.
    pub status: u16,
    /// The gateway's code of an authentication error (`bad_header_signature`, …).
    pub code: Option<String>,
    /// What is wrong, by field. Prose, and by itself no ground for a decision.
    pub errors: BTreeMap<String, String>,
    /// One sentence for people.
    pub message: String,
}

impl Rejection {
    /// Whether this is `transaction_info` not finding anything. It proves nothing by itself: a new
    /// transaction may become visible later.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status == 404
    }

    /// Whether the key was used before. For a payment this means the opposite of "nothing
    /// happened" unless a look-up says otherwise. Documented for invoices; assumed for payments.
    #[must_use]
    pub fn is_foreign_id_taken(&self) -> bool {
        self.errors
            .get("foreign_id")
            .is_some_and(|text| text.contains("already been taken"))
    }
}

/// Says what the answer to a request of `operation` means.
#[must_use]
pub fn classify(
    operation: Operation,
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
) -> Disposition {
    let verdict = match status {
        200..=299 => accepted(operation, body),
        400 => documented_error(status, body).or_else(|()| validation_errors(status, body)),
        403 => documented_error(status, body),
        404 if operation == Operation::TransactionInfo => not_found(status, body),
        _ => Err(()),
    };
    verdict.unwrap_or_else(|()| {
        let reason = match status {
            200..=299 => format!(
                "the gateway answered {status} without what {operation} promises ({}, {} bytes)",
                media_type(content_type),
                body.len()
            ),
            _ => format!(
                "the gateway answered {status} ({}, {} bytes), which proves nothing",
                media_type(content_type),
                body.len()
            ),
        };
        Disposition::unknown(reason, Some(status))
    })
}

/// The media type when it is a sane one; it goes into texts that people read.
fn media_type(content_type: Option<&str>) -> &str {
    content_type
        .and_then(|text| text.split(';').next())
        .map(str::trim)
        .filter(|text| text.len() <= 60 && text.bytes().all(|b| b.is_ascii_graphic()))
        .filter(|text| !text.is_empty())
        .unwrap_or("no content type")
}

fn accepted(operation: Operation, body: &[u8]) -> Result<Disposition, ()> {
    if operation == Operation::Ping {
        let text = str::from_utf8(body).map_err(drop)?.trim();
        return if text == "OK" {
            Ok(Disposition::Accepted(Value::from(text)))
        } else {
            Err(())
        };
    }
    let mut answer: Value = serde_json::from_slice(body).map_err(drop)?;
    let content = if operation == Operation::TransactionInfo {
        answer
    } else {
        answer.get_mut("data").map(Value::take).ok_or(())?
    };
    if promises(operation, &content) {
        Ok(Disposition::Accepted(amounts::exact(content)))
    } else {
        Err(())
    }
}

/// Whether an answer has what nobody can go on without.
fn promises(operation: Operation, content: &Value) -> bool {
    let number = |field| {
        content
            .get(field)
            .and_then(Value::as_u64)
            .is_some_and(|id| id > 0)
    };
    let text = |field| {
        content
            .get(field)
            .and_then(Value::as_str)
            .is_some_and(|text| !text.is_empty())
    };
    let amount = |field| {
        content
            .get(field)
            .is_some_and(|value| crate::domain::money::decimal_from_json(value).is_ok())
    };
    match operation {
        Operation::Ping => false,
        Operation::ListAccounts
        | Operation::ListCurrencies
        | Operation::ListPairs
        | Operation::ListRates => content.is_array(),
        Operation::CalculateExchange => {
            amount("price") && amount("sender_amount") && amount("receiver_amount")
        }
        Operation::TakeAddress => number("id") && text("address"),
        Operation::Withdraw
        | Operation::WithdrawInstant
        | Operation::ExchangeFixed
        | Operation::ExchangeNow
        | Operation::CreateInvoice => number("id"),
        Operation::CreatePaymentRequest => text("id"),
        Operation::TransactionInfo => number("id") && text("type") && text("status"),
    }
}

/// The shape of authentication and transport errors.
fn documented_error(status: u16, body: &[u8]) -> Result<Disposition, ()> {
    let answer: Value = serde_json::from_slice(body).map_err(drop)?;
    let text = |field| answer.get(field).and_then(Value::as_str);
    let (message, code) = text("error").zip(text("code")).ok_or(())?;
    Ok(Disposition::Rejected(Rejection {
        status,
        code: Some(code.to_owned()),
        errors: BTreeMap::new(),
        message: message.to_owned(),
    }))
}

/// The shape of validation errors: field → text. Lists of texts are taken too, as the framework
/// that words these errors writes them.
fn validation_errors(status: u16, body: &[u8]) -> Result<Disposition, ()> {
    let answer: Value = serde_json::from_slice(body).map_err(drop)?;
    let given = answer.get("errors").and_then(Value::as_object).ok_or(())?;
    let errors = given
        .iter()
        .map(|(field, value)| Ok((field.clone(), texts(value).ok_or(())?)))
        .collect::<Result<BTreeMap<String, String>, ()>>()?;
    if errors.is_empty() {
        return Err(());
    }
    let message = errors
        .iter()
        .map(|(field, text)| format!("{field}: {text}"))
        .collect::<Vec<_>>()
        .join("; ");
    Ok(Disposition::Rejected(Rejection {
        status,
        code: None,
        errors,
        message,
    }))
}

/// A text, or a list of texts joined. The gateway leaves spaces at the end of some.
fn texts(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.trim().to_owned());
    }
    let list = value.as_array().filter(|list| !list.is_empty())?;
    let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
    Some(texts?.join(" ").trim().to_owned())
}

/// "Not found" is assumed to be a 404 whose body is not documented; but the page of a proxy in
/// between is not the gateway's word.
fn not_found(status: u16, body: &[u8]) -> Result<Disposition, ()> {
    let is_the_gateways = body.trim_ascii().is_empty()
        || serde_json::from_slice::<Value>(body).is_ok_and(|answer| answer.is_object());
    if !is_the_gateways {
        return Err(());
    }
    Ok(Disposition::Rejected(Rejection {
        status,
        code: None,
        errors: BTreeMap::new(),
        message: "the gateway knows no such transaction".to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD_SIGNATURE: &str = r#"{"error":"Bad signature header","code":"bad_header_signature"}"#;
    const TOO_SMALL: &str = r#"{"errors":{"amount":"The amount must be at least 0.001. "}}"#;
    const WITHDRAWN: &str = r#"{"data":{"id":134702815,"foreign_id":"f","status":"processing","amount":"0.00020000","receiver_amount":1}}"#;
    const INFO: &str =
        r#"{"id":7,"type":"withdrawal","status":"confirmed","fees":[{"amount":"0.1"}]}"#;
    const HTML: &str = "<html><body>502 Bad Gateway</body></html>";

    fn name(operation: Operation, status: u16, body: &str) -> &'static str {
        classify(operation, status, None, body.as_bytes()).name()
    }

    fn rejection(operation: Operation, status: u16, body: &str) -> Rejection {
        match classify(operation, status, None, body.as_bytes()) {
            Disposition::Rejected(rejection) => rejection,
            other @ (Disposition::NotSent { .. }
            | Disposition::Accepted(_)
            | Disposition::Unknown { .. }) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_payment_is_rejected_or_accepted_only_by_what_is_documented() {
        for (status, body, expected) in [
            (200, WITHDRAWN, "accepted"),
            (201, WITHDRAWN, "accepted"),
            (202, WITHDRAWN, "accepted"),
            (200, r#"{"data":{}}"#, "unknown"),
            (200, r#"{"data":{"id":0}}"#, "unknown"),
            (200, r#"{"data":{"id":null}}"#, "unknown"),
            (200, r#"{"data":{"id":"12"}}"#, "unknown"),
            (200, r#"{"data":[]}"#, "unknown"),
            (200, r#"{"id":12}"#, "unknown"),
            (200, r#"{"data":{"id":12}"#, "unknown"),
            (200, TOO_SMALL, "unknown"),
            (200, BAD_SIGNATURE, "unknown"),
            (200, HTML, "unknown"),
            (200, "", "unknown"),
            (204, "", "unknown"),
            (301, WITHDRAWN, "unknown"),
            (302, "", "unknown"),
            (307, BAD_SIGNATURE, "unknown"),
            (400, TOO_SMALL, "rejected"),
            (
                400,
                r#"{"errors":{"amount":["Too small.","Too odd."]}}"#,
                "rejected",
            ),
            (
                400,
                r#"{"error":"Bad content format","code":"bad_content_format"}"#,
                "rejected",
            ),
            (400, r#"{"errors":{}}"#, "unknown"),
            (400, r#"{"errors":[]}"#, "unknown"),
            (400, r#"{"errors":{"amount":7}}"#, "unknown"),
            (400, r#"{"errors":{"amount":[]}}"#, "unknown"),
            (400, r#"{"errors":"no"}"#, "unknown"),
            (400, r#"{"errors":{"error code: 1015"}}"#, "unknown"),
            (400, r#"{"error":"no code"}"#, "unknown"),
            (400, r#"{"message":"no"}"#, "unknown"),
            (400, WITHDRAWN, "unknown"),
            (400, HTML, "unknown"),
            (400, "", "unknown"),
            (401, BAD_SIGNATURE, "unknown"),
            (403, BAD_SIGNATURE, "rejected"),
            (403, TOO_SMALL, "unknown"),
            (403, HTML, "unknown"),
            (403, "", "unknown"),
            (404, "", "unknown"),
            (404, BAD_SIGNATURE, "unknown"),
            (408, TOO_SMALL, "unknown"),
            (409, TOO_SMALL, "unknown"),
            (422, TOO_SMALL, "unknown"),
            (429, r#"{"errors":{"error code: 1015"}}"#, "unknown"),
            (429, TOO_SMALL, "unknown"),
            (500, "Internal server error", "unknown"),
            (500, TOO_SMALL, "unknown"),
            (502, HTML, "unknown"),
            (503, BAD_SIGNATURE, "unknown"),
            (504, "", "unknown"),
            (599, WITHDRAWN, "unknown"),
        ] {
            for operation in [Operation::Withdraw, Operation::ExchangeNow] {
                assert_eq!(name(operation, status, body), expected, "{status} {body}");
            }
        }
    }

    #[test]
    fn each_operation_must_get_what_it_promises() {
        for (operation, good, bad) in [
            (Operation::Ping, "OK\n", "<html>login</html>"),
            (Operation::ListAccounts, r#"{"data":[]}"#, r#"{"data":{}}"#),
            (Operation::ListPairs, r#"{"data":[{}]}"#, "[]"),
            (
                Operation::TakeAddress,
                r#"{"data":{"id":1,"address":"tb1q"}}"#,
                r#"{"data":{"id":1}}"#,
            ),
            (
                Operation::CalculateExchange,
                r#"{"data":{"price":"1","sender_amount":"1","receiver_amount":1}}"#,
                r#"{"data":{"price":"1","sender_amount":"1","receiver_amount":"much"}}"#,
            ),
            (
                Operation::CreateInvoice,
                r#"{"data":{"id":1}}"#,
                r#"{"data":{"id":"1"}}"#,
            ),
            (
                Operation::CreatePaymentRequest,
                r#"{"data":{"id":"019c0ebf-81e5-751d-aa57-fb9e2cba23c2"}}"#,
                r#"{"data":{"id":""}}"#,
            ),
            (Operation::TransactionInfo, INFO, r#"{"data":{"id":7}}"#),
        ] {
            assert_eq!(name(operation, 200, good), "accepted", "{operation}");
            assert_eq!(name(operation, 200, bad), "unknown", "{operation}");
        }
    }

    #[test]
    fn not_found_is_a_404_to_a_look_up_that_can_come_from_the_gateway() {
        let info = Operation::TransactionInfo;
        for body in ["", "\n", r#"{"errors":{"id":"Not found"}}"#, "{}"] {
            assert!(rejection(info, 404, body).is_not_found(), "{body}");
        }
        for (status, body) in [
            (404, HTML),
            (404, "Not Found"),
            (404, "[]"),
            (404, r#"{"a":"#),
            (410, ""),
        ] {
            assert_eq!(name(info, status, body), "unknown", "{status} {body}");
        }
        assert!(!rejection(info, 400, TOO_SMALL).is_not_found());
    }

    #[test]
    fn a_rejection_says_what_the_gateway_said() {
        let validation = rejection(Operation::Withdraw, 400, TOO_SMALL);
        assert_eq!(validation.code, None);
        assert_eq!(
            validation.errors["amount"],
            "The amount must be at least 0.001."
        );
        assert_eq!(
            validation.message,
            "amount: The amount must be at least 0.001."
        );
        let signature = rejection(Operation::Withdraw, 403, BAD_SIGNATURE);
        assert_eq!(signature.code.as_deref(), Some("bad_header_signature"));
        assert_eq!(signature.message, "Bad signature header");
        assert!(signature.errors.is_empty());
    }

    #[test]
    fn a_used_key_is_recognised_by_field_and_words() {
        let taken = r#"{"errors":{"foreign_id":"The foreign id has already been taken."}}"#;
        assert!(rejection(Operation::Withdraw, 400, taken).is_foreign_id_taken());
        let missing = r#"{"errors":{"foreign_id":"The foreign id field is required."}}"#;
        assert!(!rejection(Operation::Withdraw, 400, missing).is_foreign_id_taken());
        assert!(!rejection(Operation::Withdraw, 400, TOO_SMALL).is_foreign_id_taken());
    }

    #[test]
    fn accepted_amounts_are_numbers_with_a_point() {
        let Disposition::Accepted(data) =
            classify(Operation::Withdraw, 201, None, WITHDRAWN.as_bytes())
        else {
            panic!("accepted above");
        };
        assert_eq!(data["amount"].to_string(), "0.00020000");
        assert_eq!(data["receiver_amount"].to_string(), "1.0");
        assert_eq!(data["id"].to_string(), "134702815");
    }

    #[test]
    fn the_reason_names_status_and_type_but_quotes_nothing() {
        let answer = classify(
            Operation::Withdraw,
            502,
            Some("text/html; charset=utf-8"),
            b"<b>secret</b>",
        );
        assert_eq!(
            answer,
            Disposition::Unknown {
                reason: "the gateway answered 502 (text/html, 13 bytes), which proves nothing"
                    .to_owned(),
                status: Some(502),
            }
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_classified_and_rubbish_is_never_more_than_unknown(
            status in 100_u16..600,
            body: Vec<u8>,
            which in 0..Operation::ALL.len(),
        ) {
            let operation = Operation::ALL[which];
            let rubbish = serde_json::from_slice::<Value>(&body).is_err();
            let disposition = classify(operation, status, None, &body);
            if rubbish && operation.effect() == crate::domain::operation::Effect::Pay {
                proptest::prop_assert_eq!(disposition.name(), "unknown");
            }
        }
    }
}
