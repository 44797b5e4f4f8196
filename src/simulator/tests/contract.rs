//! Keys, signatures, paths, error bodies, and the operations that only read.

use serde_json::{Value, json};

use super::kit::{
    KEY, SECRET, expect, invoice, options, raw, refused, request, rig, send, withdrawal,
};
use crate::simulator::{Operation, signing};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[tokio::test]
async fn a_ping_needs_no_key() {
    let rig = rig(options()).await;
    let reply = raw(&rig, "GET", "/api/v2/ping", &[], "").await;
    assert_eq!(reply, Some((200, "OK".to_owned())));
}

#[tokio::test]
async fn keys_signatures_and_forms_are_checked_with_the_documented_bodies() {
    let rig = rig(options()).await;
    let good = signing::sign(SECRET, b"{}");
    let other = signing::sign(SECRET, b"{ }");
    let text = signing::sign(SECRET, b"not json");
    let key = ("X-Processing-Key", KEY);
    let secret_as_key = ("X-Processing-Key", SECRET);
    let no_key = answer(403, "No key header", "required_header_key");
    let bad_key = answer(403, "Bad key header", "bad_header_key");
    let no_signature = answer(403, "No signature header", "required_header_signature");
    let bad_signature = answer(403, "Bad signature header", "bad_header_signature");
    let bad_format = answer(400, "Bad content format", "bad_content_format");
    for (headers, body, expected) in [
        (vec![JSON, sign(&good)], "{}", &no_key),
        (vec![JSON, secret_as_key, sign(&good)], "{}", &bad_key),
        (vec![JSON, key], "{}", &no_signature),
        (vec![JSON, key, sign(&other)], "{}", &bad_signature),
        (vec![JSON, key, sign("no hex")], "{}", &bad_signature),
        (vec![key, sign(&good)], "{}", &bad_format),
        (vec![JSON, key, sign(&text)], "not json", &bad_format),
    ] {
        let path = "/api/v2/accounts/list";
        let (status, text) = raw(&rig, "POST", path, &headers, body).await.unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(&(status, document), expected, "{headers:?}");
    }
}

fn sign(signature: &str) -> (&str, &str) {
    ("X-Processing-Signature", signature)
}

fn answer(status: u16, error: &str, code: &str) -> (u16, Value) {
    (status, json!({"error": error, "code": code}))
}

#[tokio::test]
async fn a_wrong_path_or_method_answers_like_a_missing_key() {
    let rig = rig(options()).await;
    let no_key = json!({"error": "No key header", "code": "required_header_key"});
    for path in ["withdrawal/cryptoo", "", "ping"] {
        assert_eq!(expect(&rig, path, &json!({}), 403).await, no_key, "{path}");
    }
}

#[tokio::test]
async fn unknown_fields_are_refused_by_name() {
    let rig = rig(options()).await;
    let message = refused(&rig, "accounts/list", &json!({"visible": true}), "visible").await;
    assert_eq!(message, "The visible field is unknown.");
}

#[tokio::test]
async fn balances_currencies_and_pairs_are_listed() {
    let rig = rig(options()).await;
    let accounts = expect(&rig, "accounts/list", &json!({}), 200).await;
    assert!(
        accounts["data"]
            .as_array()
            .unwrap()
            .contains(&json!({"currency": "EUR", "type": "fiat", "balance": "1000000.00000000"}))
    );
    let list = expect(&rig, "currencies/list", &json!({"visible": true}), 200).await;
    let btc = &list["data"][0];
    assert_eq!(btc["currency"], "BTC");
    assert_eq!(btc["minimum_amount"], "0.00010000");
    for path in ["currencies/pairs", "currencies/rates"] {
        let filter = json!({"currency_from": "BTC", "currency_to": "EUR"});
        let pairs = expect(&rig, path, &filter, 200).await;
        assert_eq!(pairs["data"].as_array().unwrap().len(), 1);
        assert_eq!(
            pairs["data"][0]["currency_from"]["min_amount"],
            "0.00300000"
        );
        assert_eq!(pairs["data"][0]["rate_to"], "77159.37200000");
        let wrong = json!({"currency_from": "XXX", "currency_to": "YYY"});
        let errors = expect(&rig, path, &wrong, 400).await;
        let invalid = json!({
            "currency_from": "The selected currency from is invalid.",
            "currency_to": "The selected currency to is invalid.",
        });
        assert_eq!(errors["errors"], invalid);
    }
}

#[tokio::test]
async fn every_request_is_counted_refused_ones_too() {
    let rig = rig(options()).await;
    send(&rig, "accounts/list", &json!({})).await;
    send(&rig, "withdrawal/crypto", &json!({})).await;
    send(&rig, "withdrawal/crypto", &withdrawal("w-1")).await;
    let requests = rig.control.requests();
    assert_eq!(requests[&Operation::Accounts], 1);
    assert_eq!(requests[&Operation::Withdrawal], 2);
}

#[tokio::test]
async fn a_stopped_simulator_frees_its_port_and_a_taken_one_is_an_error() {
    let rig = rig(options()).await;
    let taken = crate::simulator::Options {
        listen: rig.simulator.addr(),
        ..options()
    };
    let error = crate::simulator::start(taken).await.unwrap_err();
    assert_eq!(error.listen, rig.simulator.addr());
    let addr = rig.simulator.addr();
    rig.simulator.stop().await;
    assert!(tokio::net::TcpListener::bind(addr).await.is_ok());
}

#[tokio::test]
async fn the_controls_answer_over_http() {
    let rig = rig(options()).await;
    send(&rig, "withdrawal/crypto", &withdrawal("w-1")).await;
    let (status, text) = raw(&rig, "GET", "/simulator/executions", &[], "")
        .await
        .unwrap();
    let ledger: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &ledger[0]["foreign_id"]), (200, &json!("w-1")));
    assert_eq!(ledger[0]["amount"], "0.01");

    let faults = r#"[{"fault":"refuse","foreign_id":"w-2"}]"#;
    let set = raw(&rig, "POST", "/simulator/faults", &[], faults)
        .await
        .unwrap();
    assert_eq!(set.0, 200);
    assert_eq!(
        send(&rig, "withdrawal/crypto", &withdrawal("w-2"))
            .await
            .unwrap()
            .0,
        400
    );
    let misspelt = r#"[{"fault":"refuses"}]"#;
    let (status, _) = raw(&rig, "POST", "/simulator/faults", &[], misspelt)
        .await
        .unwrap();
    assert_eq!(status, 400);

    let missing = r#"{"what":"nothing","status":"confirmed"}"#;
    let (status, text) = raw(&rig, "POST", "/simulator/settle", &[], missing)
        .await
        .unwrap();
    assert_eq!(
        (status, text.as_str()),
        (404, r#"{"error":"there is no nothing"}"#)
    );
}

/// Values that break careless readers.
fn nasty() -> Vec<Value> {
    let text = r#"[true, 0, -1, 0.1, 1e400, 1e-400, 18446744073709551615,
        79228162514264337593543950335, "79228162514264337593543950335", "-0.000000001",
        "1000000000000", "", "\u0000", "0x10", "\ud83d\ude00", [], {}, [1], {"iso": 1}]"#;
    let mut values: Vec<Value> = serde_json::from_str(text).unwrap();
    values.push(json!("x".repeat(10_000)));
    values
}

#[tokio::test]
async fn whatever_stands_in_a_field_there_is_an_answer() {
    let rig = rig(options()).await;
    let exchange = json!({
        "sender_currency": "BTC",
        "receiver_currency": "EUR",
        "sender_amount": "1",
        "receiver_amount": null,
        "price": "1",
        "foreign_id": "x-1",
    });
    let converted = json!({"convert_to": "EUR", "amount_to": null, "tag": null});
    let mut withdrawal_body = withdrawal("w-1");
    for (name, value) in converted.as_object().unwrap() {
        withdrawal_body[name] = value.clone();
    }
    for (path, body) in [
        ("withdrawal/crypto", withdrawal_body),
        ("exchange/fixed", exchange),
        ("invoices/create", invoice("i-1")),
        ("requests", request("p-1")),
        ("transactions/info", json!({"id": 1, "txid": null})),
    ] {
        for name in body.as_object().unwrap().keys() {
            for value in nasty() {
                let mut body = body.clone();
                body[name] = value;
                // The sibling of an alternative would be refused before the value is looked at.
                if name == "amount_to" || name == "receiver_amount" {
                    body.as_object_mut().unwrap().remove("amount");
                    body.as_object_mut().unwrap().remove("sender_amount");
                }
                let reply = send(&rig, path, &body).await;
                let status = reply.as_ref().map(|(status, _)| *status);
                assert!(
                    matches!(status, Some(200..=404)),
                    "{path} {body}: {reply:?}"
                );
            }
        }
    }
}
