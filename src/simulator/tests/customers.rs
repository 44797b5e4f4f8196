//! Deposits, invoices and payment requests: what the merchant asks for, what customers do.

use serde_json::{Value, json};

use super::kit::{
    Receiver, Rig, balance, decimal, executed, expect, invoice, options, person, refused, request,
    rig, with,
};
use crate::simulator::{ControlError, Options};

async fn rig_and_receiver(options: Options) -> (Rig, Receiver) {
    let (receiver, url) = Receiver::start(&[]).await;
    let callback_url = Some(url);
    let rig = rig(Options {
        callback_url,
        ..options
    })
    .await;
    (rig, receiver)
}

/// A clock slow enough that no timer runs out meanwhile.
fn slow() -> Options {
    Options {
        speed: 1,
        ..options()
    }
}

fn address(currency: &str) -> Value {
    json!({
        "currency": currency,
        "foreign_id": "customer-1",
        "end_user_reference": "customer-1",
        "sender_type": "natural",
        "sender_data": person(),
    })
}

#[tokio::test]
async fn every_take_gives_a_new_address() {
    let rig = rig(options()).await;
    let first = expect(&rig, "addresses/take", &address("BTC"), 201).await;
    let second = expect(&rig, "addresses/take", &address("BTC"), 201).await;
    assert_eq!(first["data"]["foreign_id"], "customer-1");
    assert!(first["data"]["tag"].is_null());
    assert_ne!(first["data"]["address"], second["data"]["address"]);
    assert_ne!(first["data"]["id"], second["data"]["id"]);
    let xrp = expect(&rig, "addresses/take", &address("XRP"), 201).await;
    assert!(xrp["data"]["tag"].is_u64());
    refused(&rig, "addresses/take", &address("EUR"), "currency").await;
}

#[tokio::test]
async fn a_deposit_is_seen_then_confirmed_and_credited_without_the_fee() {
    let (rig, receiver) = rig_and_receiver(options()).await;
    let taken = expect(&rig, "addresses/take", &address("BTC"), 201).await;
    let to = taken["data"]["address"].as_str().unwrap();
    rig.control.deposit(to, decimal("0.01"), None).unwrap();
    let all = receiver.wait_for(2).await;
    let not_confirmed = all.iter().find(|c| c.status() == "not_confirmed").unwrap();
    let confirmed = all.iter().find(|c| c.status() == "confirmed").unwrap();
    assert_eq!(not_confirmed.body["id"], confirmed.body["id"]);
    assert_eq!(confirmed.body["type"], "deposit");
    assert_eq!(confirmed.body["crypto_address"]["foreign_id"], "customer-1");
    assert_eq!(
        confirmed.body["currency_received"]["amount_minus_fee"],
        "0.00992000"
    );
    assert!(confirmed.body.get("foreign_id").is_none());
    assert_eq!(balance(&rig, "BTC"), decimal("1000000.00992"));
    let question = json!({"id": confirmed.body["id"]});
    let info = expect(&rig, "transactions/info", &question, 200).await;
    assert_eq!(info, confirmed.body);
}

#[tokio::test]
async fn a_deposit_below_the_minimum_is_cancelled_and_not_credited() {
    let (rig, receiver) = rig_and_receiver(options()).await;
    expect(&rig, "addresses/take", &address("BTC"), 201).await;
    rig.control
        .deposit("customer-1", decimal("0.000005"), None)
        .unwrap();
    let all = receiver.wait_for(2).await;
    let cancelled = all.iter().find(|c| c.status() == "cancelled").unwrap();
    assert_eq!(
        cancelled.body["error"],
        "Transaction amount less than minimum deposit"
    );
    assert_eq!(balance(&rig, "BTC"), decimal("1000000"));
    let nobody = rig.control.deposit("nobody", decimal("1"), None);
    assert_eq!(nobody, Err(ControlError::NotFound("nobody".to_owned())));
}

#[tokio::test]
async fn a_deposit_is_converted_where_the_address_says_so() {
    let (rig, receiver) = rig_and_receiver(options()).await;
    let asked = with(address("BTC"), &json!({"convert_to": "EUR"}));
    let taken = expect(&rig, "addresses/take", &asked, 201).await;
    assert_eq!(taken["data"]["convert_to"], "EUR");
    rig.control
        .deposit("customer-1", decimal("0.01"), None)
        .unwrap();
    let all = receiver.wait_for(2).await;
    let confirmed = &all.iter().find(|c| c.status() == "confirmed").unwrap().body;
    assert_eq!(confirmed["type"], "deposit_exchange");
    assert_eq!(confirmed["currency_received"]["amount"], "771.59372000");
    assert_eq!(confirmed["transactions"][1]["amount_to"], "771.59372000");
    assert!(balance(&rig, "EUR") > decimal("1000750"));
}

#[tokio::test]
async fn a_deposit_in_another_coin_says_what_was_expected() {
    let (rig, receiver) = rig_and_receiver(options()).await;
    expect(&rig, "addresses/take", &address("USDTE"), 201).await;
    rig.control
        .deposit("customer-1", decimal("20"), Some("USDC"))
        .unwrap();
    let body = &receiver.wait_for(1).await[0].body;
    assert_eq!(body["crypto_address"]["cross_currency"], true);
    assert_eq!(body["crypto_address"]["expected_currency"], "USDTE");
    assert_eq!(body["currency_received"]["currency"], "USDC");
}

#[tokio::test]
async fn the_three_kinds_of_invoice_answer_differently() {
    let rig = rig(slow()).await;
    let first = expect(&rig, "invoices/create", &invoice("i-1"), 201).await["data"].clone();
    assert_eq!(
        (&first["status"], &first["seconds_left"]),
        (&json!("created"), &Value::Null)
    );
    let timed = with(invoice("i-2"), &json!({"timer": true}));
    let second = expect(&rig, "invoices/create", &timed, 201).await["data"].clone();
    assert_eq!(
        (&second["status"], &second["seconds_left"]),
        (&json!("pending"), &json!(899))
    );
    assert!(second["address"].is_null());
    let chosen = json!({"timer": true, "sender_currency": "BTC"});
    let chosen = with(invoice("i-3"), &chosen);
    refused(&rig, "invoices/create", &chosen, "sender_type").await;
    let chosen = with(
        chosen,
        &json!({"sender_type": "natural", "sender_data": person()}),
    );
    let third = expect(&rig, "invoices/create", &chosen, 201).await["data"].clone();
    assert!(third["address"].is_string() && third["sender_amount"].is_string());
    let again = refused(&rig, "invoices/create", &invoice("i-1"), "foreign_id").await;
    assert_eq!(again, "The foreign id has already been taken.");
    let small = with(invoice("i-4"), &json!({"amount": "9.99"}));
    let message = refused(&rig, "invoices/create", &small, "amount").await;
    assert_eq!(
        message,
        "The amount is too small. The minimum amount is 10.00 EUR."
    );
    let unsafe_url = with(
        invoice("i-4"),
        &json!({"url_failed": "http://shop.example"}),
    );
    refused(&rig, "invoices/create", &unsafe_url, "url_failed").await;
}

#[tokio::test]
async fn a_paid_invoice_is_processed_confirmed_and_credited() {
    let (rig, receiver) = rig_and_receiver(slow()).await;
    expect(&rig, "invoices/create", &invoice("i-1"), 201).await;
    rig.control.pay_invoice("i-1", None, Some("BTC")).unwrap();
    let all = receiver.wait_for(3).await;
    let confirmed = &all.iter().find(|c| c.status() == "confirmed").unwrap().body;
    assert!(all.iter().any(|c| c.status() == "processing"));
    assert_eq!(confirmed["currency_sent"]["remaining_amount"], "0.00000000");
    assert_eq!(confirmed["crypto_address"]["convert_to"], "EUR");
    assert_eq!(confirmed["transactions"].as_array().unwrap().len(), 1);
    assert_eq!(executed(&rig, "i-1")[0].status, "confirmed");
    assert_eq!(balance(&rig, "EUR"), decimal("1000099.2"));
    assert!(rig.control.pay_invoice("i-1", None, None).is_err());
}

#[tokio::test]
async fn an_unpaid_invoice_expires_by_itself_after_fifteen_minutes() {
    let (rig, receiver) = rig_and_receiver(options()).await;
    let timed = with(invoice("i-1"), &json!({"timer": true}));
    let reply = expect(&rig, "invoices/create", &timed, 201).await;
    let body = &receiver.wait_for(1).await[0].body;
    assert_eq!(
        (&body["status"], &body["error"]),
        (&json!("failed"), &json!("Timer expired. User not paid."))
    );
    assert_eq!(body["expires_at"], reply["data"]["release_at"]);
    assert_eq!(executed(&rig, "i-1")[0].status, "failed");
}

#[tokio::test]
async fn an_underpaid_invoice_fails_when_it_expires_and_shows_what_was_paid() {
    let (rig, receiver) = rig_and_receiver(slow()).await;
    let in_btc = json!({"currency": "BTC", "amount": "0.02"});
    expect(&rig, "invoices/create", &with(invoice("i-1"), &in_btc), 201).await;
    rig.control
        .pay_invoice("i-1", Some(decimal("0.005")), None)
        .unwrap();
    // fill_or_kill takes one payment.
    let second = rig.control.pay_invoice("i-1", None, None);
    assert!(matches!(second, Err(ControlError::NotPossible(_))));
    rig.control.expire_invoice("i-1").unwrap();
    let all = receiver.wait_for(3).await;
    let failed = &all.iter().find(|c| c.status() == "failed").unwrap().body;
    assert_eq!(
        failed["error"],
        "Timer expired. User paid less than requested."
    );
    assert_eq!(failed["currency_sent"]["remaining_amount"], "0.01500000");
    assert_eq!(failed["transactions"][0]["amount"], "0.00500000");
    assert_eq!(balance(&rig, "BTC"), decimal("1000000"));
}

#[tokio::test]
async fn parts_add_up_where_they_are_allowed() {
    let (rig, receiver) = rig_and_receiver(slow()).await;
    let parts = json!({"currency": "BTC", "amount": "0.02", "type": "good_until_expired"});
    expect(&rig, "invoices/create", &with(invoice("i-1"), &parts), 201).await;
    rig.control
        .pay_invoice("i-1", Some(decimal("0.01")), None)
        .unwrap();
    rig.control
        .pay_invoice("i-1", Some(decimal("0.015")), None)
        .unwrap();
    let all = receiver.wait_for(4).await;
    let confirmed = &all.iter().find(|c| c.status() == "confirmed").unwrap().body;
    assert_eq!(confirmed["transactions"].as_array().unwrap().len(), 2);
    assert_eq!(confirmed["currency_sent"]["remaining_amount"], "0.00000000");
    assert_eq!(all.iter().filter(|c| c.status() == "processing").count(), 2);
}

#[tokio::test]
async fn a_payment_request_is_paid_or_expires_or_fails() {
    let (rig, receiver) = rig_and_receiver(slow()).await;
    for foreign_id in ["p-1", "p-2", "p-3"] {
        let reply = expect(&rig, "requests", &request(foreign_id), 201).await;
        assert_eq!(reply["data"]["status"], "created");
        assert_eq!(reply["data"]["id"].as_str().unwrap().len(), 36);
    }
    rig.control.pay_payment_request("p-1", None).unwrap();
    rig.control.expire_payment_request("p-2").unwrap();
    rig.control
        .pay_payment_request("p-3", Some(decimal("0.001")))
        .unwrap();
    rig.control.expire_payment_request("p-3").unwrap();
    let all = receiver.wait_for(5).await;
    let told = |foreign_id: &str, status: &str| {
        let mut all = all.iter();
        all.any(|c| c.body["foreign_id"] == foreign_id && c.status() == status)
    };
    assert!(told("p-1", "processing") && told("p-1", "paid"));
    assert!(told("p-2", "expired"));
    assert!(told("p-3", "processing") && told("p-3", "failed"));
    assert_eq!(balance(&rig, "ETH"), decimal("1000000.3"));
}

#[tokio::test]
async fn mistakes_in_payment_requests_are_named() {
    let rig = rig(options()).await;
    for (change, field) in [
        (json!({"amount": null}), "amount"),
        (
            json!({"currency": {"iso": "ETH", "network_name": "tron"}}),
            "currency",
        ),
        (json!({"life_time_duration": null}), "life_time_duration"),
        (
            json!({"life_time_datetime": 4_000_000_000_u64}),
            "life_time_duration",
        ),
        (json!({"url_store": "http://shop.example"}), "url_store"),
    ] {
        refused(&rig, "requests", &with(request("p-1"), &change), field).await;
    }
    assert!(rig.control.executions().is_empty());
}

/// The fields of the published samples.
const SAMPLES: [(&str, &str, &str); 4] = [
    (
        "deposit",
        "confirmed",
        "id end_user_reference type crypto_address currency_sent currency_received transactions \
         fees error status",
    ),
    (
        "exchange",
        "confirmed",
        "id type currency_sent currency_received transactions fees error status",
    ),
    (
        "invoice",
        "confirmed",
        "id foreign_id end_user_reference type crypto_address currency_sent currency_received \
         transactions fees error status fixed_at expires_at",
    ),
    (
        "payment_request",
        "processing",
        "payment_request_id foreign_id type status end_user_email payment_request_address \
         payment_request_amount currency_sent fixed_at expires_at valid_until",
    ),
];

#[tokio::test]
async fn callbacks_have_the_fields_of_the_published_samples() {
    let (rig, receiver) = rig_and_receiver(slow()).await;
    expect(&rig, "addresses/take", &address("BTC"), 201).await;
    rig.control
        .deposit("customer-1", decimal("0.01"), None)
        .unwrap();
    let exchange = json!({
        "sender_currency": "BTC",
        "receiver_currency": "ETH",
        "sender_amount": "1",
        "foreign_id": "x-1",
    });
    expect(&rig, "exchange/now", &exchange, 201).await;
    expect(&rig, "invoices/create", &invoice("i-1"), 201).await;
    rig.control.pay_invoice("i-1", None, None).unwrap();
    expect(&rig, "requests", &request("p-1"), 201).await;
    rig.control.pay_payment_request("p-1", None).unwrap();
    let all = receiver.wait_for(8).await;
    for (kind, status, fields) in SAMPLES {
        let found = all
            .iter()
            .find(|c| c.body["type"] == kind && c.status() == status);
        let body = &found.unwrap_or_else(|| panic!("{kind} {status}")).body;
        let mut expected: Vec<&str> = fields.split_whitespace().collect();
        expected.sort_unstable();
        let got: Vec<&str> = body
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(got, expected, "{kind}");
    }
}
