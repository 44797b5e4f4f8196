//! Withdrawals, exchanges and the look-up.

use serde_json::{Value, json};

use super::kit::{
    Receiver, balance, decimal, executed, expect, options, refused, rig, send, until, with,
    withdrawal,
};
use crate::simulator::{ControlError, Options};

const PATH: &str = "withdrawal/crypto";

fn quiet() -> Options {
    Options {
        settle_after: None,
        ..options()
    }
}

#[tokio::test]
async fn a_withdrawal_is_accepted_debited_and_in_the_ledger_once() {
    let rig = rig(quiet()).await;
    let reply = expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    let data = &reply["data"];
    assert_eq!(data["type"], "withdrawal");
    assert_eq!(data["status"], "processing");
    assert_eq!(data["amount"], "0.01000000");
    assert_eq!(data["receiver_amount"], "0.01000000");
    assert!(data["id"].as_u64().unwrap() > 134_700_000);
    let ledger = executed(&rig, "w-1");
    assert_eq!(ledger.len(), 1);
    assert_eq!(
        (ledger[0].status.as_str(), ledger[0].amount),
        ("processing", decimal("0.01"))
    );
    assert_eq!(balance(&rig, "BTC"), decimal("999999.99"));
}

#[tokio::test]
async fn a_repeated_foreign_id_is_refused_and_moves_nothing() {
    let rig = rig(quiet()).await;
    expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    let message = refused(&rig, PATH, &withdrawal("w-1"), "foreign_id").await;
    assert_eq!(message, "The foreign id has already been taken.");
    let path = "crypto/withdrawal_instant";
    let instant = refused(&rig, path, &withdrawal("w-1"), "foreign_id").await;
    assert_eq!(instant, message);
    let ledger = executed(&rig, "w-1");
    assert_eq!((ledger.len(), ledger[0].times_requested), (1, 3));
    assert_eq!(balance(&rig, "BTC"), decimal("999999.99"));
}

#[tokio::test]
async fn every_missing_field_of_a_withdrawal_is_named_at_once() {
    let rig = rig(quiet()).await;
    let errors = expect(&rig, PATH, &json!({}), 400).await;
    for field in [
        "currency",
        "amount",
        "address",
        "foreign_id",
        "end_user_reference",
        "sender_type",
        "receiver_type",
    ] {
        assert!(errors["errors"][field].is_string(), "{field}: {errors}");
    }
}

/// Each change to a valid withdrawal must be refused with this message, and move nothing.
async fn assert_refused(cases: &[(&str, &str, &str)]) {
    let rig = rig(quiet()).await;
    for (change, field, message) in cases {
        let change = serde_json::from_str(change).unwrap();
        let body = with(withdrawal("w-1"), &change);
        let got = refused(&rig, PATH, &body, field).await;
        assert_eq!(got, *message, "{change}");
    }
    assert!(rig.control.executions().is_empty());
}

#[tokio::test]
async fn wrong_amounts_and_currencies_are_refused() {
    let cases = [
        (
            r#"{"amount": "0.00001"}"#,
            "amount",
            "The amount must be at least 0.0001.",
        ),
        (
            r#"{"amount": "1.123456789"}"#,
            "amount",
            "The amount format is invalid.",
        ),
        (
            r#"{"amount": "-1"}"#,
            "amount",
            "The amount must be greater than 0.",
        ),
        (
            r#"{"amount": "1e3"}"#,
            "amount",
            "The amount must be a number.",
        ),
        (
            r#"{"amount": "9999999999999999"}"#,
            "amount",
            "The amount may not be greater than 1000000000000.",
        ),
        (
            r#"{"currency": "ABC"}"#,
            "currency",
            "The selected currency is invalid.",
        ),
        (
            r#"{"currency": "EUR", "amount": "100"}"#,
            "currency",
            "The selected currency is invalid.",
        ),
        (
            r#"{"currency": "XRP", "amount": "100"}"#,
            "tag",
            "The tag field is required.",
        ),
        (
            r#"{"amount_to": "1"}"#,
            "amount_to",
            "Only one of amount and amount to may be present.",
        ),
        (
            r#"{"amount": null, "amount_to": "1"}"#,
            "amount_to",
            "The amount to field needs convert to.",
        ),
    ];
    assert_refused(&cases).await;
}

#[tokio::test]
async fn wrong_names_and_people_are_refused() {
    let long = format!(r#"{{"foreign_id": "{}"}}"#, "x".repeat(256));
    let cases = [
        (
            r#"{"foreign_id": 7}"#,
            "foreign_id",
            "The foreign id must be a string.",
        ),
        (
            long.as_str(),
            "foreign_id",
            "The foreign id may not be greater than 255 characters.",
        ),
        (
            r#"{"receiver_data": null}"#,
            "receiver_data",
            "The receiver data field is required.",
        ),
        (
            r#"{"receiver_data": {"first_name": "A", "last_name": "B", "date_of_birth": "1.1.90"}}"#,
            "receiver_data.date_of_birth",
            "The receiver_data.date_of_birth format is invalid.",
        ),
        (
            r#"{"sender_data": {"legal_name": "A", "country_of_registration": "DE"}}"#,
            "sender_data.country_of_registration",
            "The sender_data.country_of_registration format is invalid.",
        ),
    ];
    assert_refused(&cases).await;
}

#[tokio::test]
async fn amounts_are_read_from_numbers_exactly_and_a_tag_goes_with_xrp() {
    let rig = rig(quiet()).await;
    let body = withdrawal("w-1")
        .to_string()
        .replace(r#""0.01""#, "0.10000001");
    let body: Value = serde_json::from_str(&body).unwrap();
    let reply = expect(&rig, PATH, &body, 201).await;
    assert_eq!(reply["data"]["amount"], "0.10000001");
    let xrp = json!({"currency": "XRP", "amount": "25", "tag": "77", "receiver_type": "self", "receiver_data": null});
    expect(&rig, PATH, &with(withdrawal("w-2"), &xrp), 201).await;
    let info = expect(
        &rig,
        "transactions/info",
        &json!({"foreign_id": "w-2"}),
        200,
    )
    .await;
    assert_eq!(info["crypto_address"]["tag"], "77");
}

#[tokio::test]
async fn a_conversion_debits_the_source_and_pays_the_target_exactly() {
    let rig = rig(quiet()).await;
    let by_target =
        json!({"currency": "EUR", "convert_to": "BTC", "amount": null, "amount_to": "0.01"});
    let reply = expect(&rig, PATH, &with(withdrawal("w-1"), &by_target), 201).await;
    let data = &reply["data"];
    assert_eq!(data["type"], "withdrawal_exchange");
    assert_eq!(
        (&data["sender_currency"], &data["receiver_currency"]),
        (&json!("EUR"), &json!("BTC"))
    );
    assert_eq!(data["receiver_amount"], "0.01000000");
    let paid = decimal(data["sender_amount"].as_str().unwrap());
    assert!(paid > decimal("773.14"), "{paid}");
    assert_eq!(balance(&rig, "EUR"), decimal("1000000") - paid);
    let small = with(by_target, &json!({"amount_to": "0.0001"}));
    let message = refused(&rig, PATH, &with(withdrawal("w-2"), &small), "amount").await;
    assert_eq!(message, "The amount must be at least 25.");
}

#[tokio::test]
async fn instant_withdrawals_have_their_own_types_and_few_coins() {
    let rig = rig(quiet()).await;
    let plain = expect(&rig, "crypto/withdrawal_instant", &withdrawal("w-1"), 201).await;
    assert_eq!(plain["data"]["type"], "withdrawal_instant");
    let exchange = "crypto/withdrawal_instant_exchange";
    let message = refused(&rig, exchange, &withdrawal("w-2"), "convert_to").await;
    assert_eq!(message, "The convert to field is required.");
    let change = json!({"currency": "EUR", "amount": "100", "convert_to": "LTC"});
    let converted = expect(&rig, exchange, &with(withdrawal("w-2"), &change), 201).await;
    assert_eq!(converted["data"]["type"], "withdrawal_instant_exchange");
    let eth = json!({"currency": "ETH", "amount": "1"});
    refused(
        &rig,
        "crypto/withdrawal_instant",
        &with(withdrawal("w-3"), &eth),
        "currency",
    )
    .await;
}

#[tokio::test]
async fn without_money_a_withdrawal_is_accepted_and_cancelled_later() {
    let (receiver, url) = Receiver::start(&[]).await;
    let rig = rig(Options {
        callback_url: Some(url),
        ..options()
    })
    .await;
    let rich = json!({"amount": "2000000"});
    expect(&rig, PATH, &with(withdrawal("w-1"), &rich), 201).await;
    let callback = &receiver.wait_for(1).await[0];
    assert_eq!(callback.status(), "cancelled");
    assert_eq!(callback.body["error"], "Not enough money on balance");
    assert_eq!(executed(&rig, "w-1")[0].status, "cancelled");
    assert_eq!(balance(&rig, "BTC"), decimal("1000000"));
}

#[tokio::test]
async fn over_the_limit_a_withdrawal_waits_for_a_person() {
    let (receiver, url) = Receiver::start(&[]).await;
    let rig = rig(Options {
        callback_url: Some(url),
        pending_above: Some(decimal("0.005")),
        ..options()
    })
    .await;
    expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    assert_eq!(receiver.wait_for(1).await[0].status(), "pending");
    let unknown = rig.control.settle("w-1", "lost").unwrap_err();
    assert!(matches!(unknown, ControlError::NotPossible(_)));
    rig.control.settle("w-1", "declined").unwrap();
    assert_eq!(receiver.wait_for(2).await[1].status(), "declined");
    assert_eq!(balance(&rig, "BTC"), decimal("1000000"));
    let again = rig.control.settle("w-1", "confirmed").unwrap_err();
    assert_eq!(
        again.to_string().split(" is ").last(),
        Some("already declined")
    );
}

#[tokio::test]
async fn the_lookup_finds_withdrawals_by_every_key_and_answers_the_bare_document() {
    let rig = rig(quiet()).await;
    let reply = expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    let id = &reply["data"]["id"];
    let info = "transactions/info";
    let early = expect(&rig, info, &json!({"foreign_id": "w-1"}), 200).await;
    assert_eq!(early["status"], "not_confirmed");
    assert_eq!(&early["id"], id);
    rig.control.settle("w-1", "confirmed").unwrap();
    let late = expect(&rig, info, &json!({"id": id}), 200).await;
    assert_eq!(late["status"], "confirmed");
    let txid = &late["transactions"][0]["txid"];
    let same = expect(&rig, info, &json!({"txid": txid}), 200).await;
    assert_eq!(same, late);
    expect(&rig, info, &json!({"foreign_id": "other"}), 404).await;
    expect(&rig, info, &json!({}), 400).await;
    expect(&rig, info, &json!({"id": id, "foreign_id": "w-1"}), 400).await;
    expect(&rig, info, &json!({"id": id.to_string()}), 400).await;
}

#[tokio::test]
async fn an_exchange_moves_both_balances_when_it_is_confirmed() {
    let rig = rig(options()).await;
    let order = json!({"sender_currency": "BTC", "receiver_currency": "EUR", "sender_amount": "1", "foreign_id": "x-1"});
    let reply = expect(&rig, "exchange/now", &order, 201).await;
    assert_eq!(reply["data"]["type"], "exchange");
    assert_eq!(reply["data"]["receiver_amount"], "77159.37200000");
    until("confirmed", || {
        executed(&rig, "x-1")[0].status == "confirmed"
    })
    .await;
    assert_eq!(balance(&rig, "BTC"), decimal("999998.98"));
    assert_eq!(balance(&rig, "EUR"), decimal("1077159.372"));
    let message = refused(&rig, "exchange/now", &order, "foreign_id").await;
    assert_eq!(message, "The foreign id has already been taken.");
    let id = &reply["data"]["id"];
    let info = expect(&rig, "transactions/info", &json!({"id": id}), 200).await;
    assert_eq!(info["type"], "exchange");
    expect(
        &rig,
        "transactions/info",
        &json!({"foreign_id": "x-1"}),
        404,
    )
    .await;
    let small = with(
        order,
        &json!({"sender_amount": "0.001", "foreign_id": "x-2"}),
    );
    let message = refused(&rig, "exchange/now", &small, "sender_amount").await;
    assert_eq!(message, "The amount must be at least 0.00300000 ");
}

#[tokio::test]
async fn a_fixed_exchange_needs_its_quote() {
    let rig = rig(Options {
        speed: 1,
        ..options()
    })
    .await;
    let pair = json!({"sender_currency": "BTC", "receiver_currency": "EUR", "sender_amount": "1"});
    let quote = expect(&rig, "exchange/calculate", &pair, 200).await["data"].clone();
    assert_eq!(quote["fix_period"], 60);
    let price = &quote["price"];
    let fixed = with(pair, &json!({"foreign_id": "x-1", "price": price}));
    for change in [json!({"price": "1"}), json!({"sender_amount": "2"})] {
        refused(
            &rig,
            "exchange/fixed",
            &with(fixed.clone(), &change),
            "price",
        )
        .await;
    }
    expect(&rig, "exchange/fixed", &fixed, 201).await;
    assert_eq!(executed(&rig, "x-1").len(), 1);
    let same = json!({"sender_currency": "BTC", "receiver_currency": "BTC", "sender_amount": "1"});
    let message = refused(&rig, "exchange/calculate", &same, "sender_currency").await;
    assert_eq!(message, "Exchange is unavailable for given currencies");
}

#[tokio::test]
async fn a_quote_expires_after_a_minute_of_the_simulators_clock() {
    let rig = rig(Options {
        speed: 1_000,
        ..options()
    })
    .await;
    let pair = json!({"sender_currency": "BTC", "receiver_currency": "EUR", "sender_amount": "1"});
    let quote = expect(&rig, "exchange/calculate", &pair, 200).await;
    tokio::time::sleep(std::time::Duration::from_millis(70)).await;
    let price = &quote["data"]["price"];
    let fixed = with(pair, &json!({"foreign_id": "x-1", "price": price}));
    refused(&rig, "exchange/fixed", &fixed, "price").await;
    assert!(executed(&rig, "x-1").is_empty());
}

#[tokio::test]
async fn the_31st_quote_in_a_minute_is_refused_without_json() {
    let rig = rig(Options {
        speed: 1,
        ..options()
    })
    .await;
    let pair = json!({"sender_currency": "BTC", "receiver_currency": "EUR", "sender_amount": "1"});
    for _ in 0..30 {
        expect(&rig, "exchange/calculate", &pair, 200).await;
    }
    let reply = send(&rig, "exchange/calculate", &pair).await.unwrap();
    assert_eq!(
        reply,
        (429, r#"{"errors":{"error code: 1015"}}"#.to_owned())
    );
}
