//! Sending: signatures, shapes, the retry schedule, and the controls over it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::kit::{Receiver, expect, options, rig, until, with, withdrawal};
use crate::simulator::callbacks::RETRY_AFTER_MINUTES;
use crate::simulator::{Forgery, Options};

const PATH: &str = "withdrawal/crypto";

#[tokio::test]
async fn a_confirmed_withdrawal_is_told_once_with_a_genuine_signature() {
    let (receiver, url) = Receiver::start(&[]).await;
    let rig = rig(Options {
        callback_url: Some(url),
        ..options()
    })
    .await;
    let reply = expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    let callback = &receiver.wait_for(1).await[0];
    assert!(callback.genuine);
    let body = &callback.body;
    assert_eq!(body["id"], reply["data"]["id"]);
    assert_eq!(body["foreign_id"], "w-1");
    assert_eq!(body["status"], "confirmed");
    assert_eq!(body["transactions"][0]["amount"], "0.01000000");
    assert_eq!(body["transactions"][0]["txid"].as_str().unwrap().len(), 64);
    assert_same_fields(body, "withdrawal");
    until("recorded", || rig.control.callbacks()[0].delivered).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(receiver.all().len(), 1);
}

#[tokio::test]
async fn a_converted_withdrawal_has_both_legs() {
    let (receiver, url) = Receiver::start(&[]).await;
    let rig = rig(Options {
        callback_url: Some(url),
        ..options()
    })
    .await;
    let change = serde_json::json!({"currency": "EUR", "amount": "1000", "convert_to": "BTC"});
    expect(&rig, PATH, &with(withdrawal("w-1"), &change), 201).await;
    let body = &receiver.wait_for(1).await[0].body;
    assert_same_fields(body, "withdrawal_exchange");
    assert_eq!(body["currency_sent"]["amount"], "1000.00000000");
    assert_eq!(body["transactions"][1]["transaction_type"], "exchange");
}

/// The fields of the published samples, which the callbacks must have, and no others.
fn assert_same_fields(body: &Value, kind: &str) {
    let mut expected: BTreeSet<&str> = "id foreign_id end_user_reference type crypto_address \
        transactions fees error status"
        .split_whitespace()
        .collect();
    if kind == "withdrawal_exchange" {
        expected.extend(["currency_sent", "currency_received"]);
    }
    assert_eq!(body["type"], kind);
    let got: BTreeSet<&str> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn anything_but_200_is_retried_on_the_documented_schedule() {
    // The whole schedule is a day and a bit; at this speed it takes under two seconds.
    let mut answers = vec![500, 201, 404];
    answers.extend([503; 10]);
    let (receiver, url) = Receiver::start(&answers).await;
    let rig = rig(Options {
        callback_url: Some(url),
        speed: 50_000,
        ..options()
    })
    .await;
    expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    receiver.wait_for(13).await;
    until("all attempts recorded", || {
        rig.control.callbacks()[0].attempts.len() == 13
    })
    .await;
    let callback = rig.control.callbacks().remove(0);
    assert!(!callback.delivered);
    assert_eq!(callback.attempts[1].answer, Some(201));
    for (minutes, pair) in RETRY_AFTER_MINUTES.iter().zip(callback.attempts.windows(2)) {
        assert!(pair[1].at - pair[0].at >= minutes * 60, "{minutes}");
    }
    assert!(rig.control.resend_callback(1).await.unwrap());
    assert!(rig.control.callbacks()[0].delivered);
}

#[tokio::test]
async fn a_retry_goes_to_the_url_of_the_moment_and_ends_with_200() {
    let (receiver, url) = Receiver::start(&[]).await;
    let rig = rig(Options {
        callback_url: Some("http://127.0.0.1:1/nobody".to_owned()),
        ..options()
    })
    .await;
    expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    until("the first attempt failed", || {
        let callbacks = rig.control.callbacks();
        callbacks.first().is_some_and(|c| !c.attempts.is_empty())
    })
    .await;
    assert_eq!(rig.control.callbacks()[0].attempts[0].answer, None);
    rig.control.set_callback_url(Some(url));
    receiver.wait_for(1).await;
    until("delivered", || rig.control.callbacks()[0].delivered).await;
}

#[tokio::test]
async fn forged_callbacks_are_sent_on_request_and_deliver_nothing() {
    let (receiver, url) = Receiver::start(&[403, 403]).await;
    // In real time, so that no retry comes in between.
    let rig = rig(Options {
        speed: 1,
        ..options()
    })
    .await;
    expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    until("recorded", || rig.control.callbacks().len() == 1).await;
    rig.control.set_callback_url(Some(url));
    for forgery in [Forgery::Signature, Forgery::Key] {
        let answer = rig.control.forge_callback(1, forgery).await.unwrap();
        assert_eq!(answer, Some(403));
    }
    assert!(
        receiver
            .all()
            .iter()
            .take(2)
            .all(|callback| !callback.genuine)
    );
    assert!(rig.control.forge_callback(7, Forgery::Key).await.is_err());
}
