//! Payments whose answer is lost, taken further: sent again where that is allowed, adopted only
//! when they are proven to be ours, delivered to handlers when only a look-up finds their end, and
//! handed to a person where nothing can be concluded.

use std::time::Duration;

use bursar::simulator::{Fault, Faults, Operation, Options, Rule};
use serde_json::{Value, json};

use crate::kit::{SetClock, Shop, deliver, events, post, sign};
use crate::payments::{by_hand, withdraw};
use crate::stage::{Running, SENDER, Stage, eventually, everything, executed};

/// That fault, on requests of that operation, so many times.
fn on(operation: Operation, fault: Fault, times: u32) -> Rule {
    Rule {
        operation: Some(operation),
        times: Some(times),
        ..Rule::always(fault)
    }
}

const RESENDS: &str = "gateway.resend_unknown = true\ngateway.unknown_after = \"1m\"\n";

/// Tells the shop of every withdrawal's end and of every alert.
fn hooks(shop: &Shop) -> String {
    format!(
        r#"on("withdrawal.*", |event| {{ http::post("{0}/end", event); }});
        on("alert.*", |event| {{ http::post("{0}/alert", event); }});"#,
        shop.url
    )
}

async fn stage_with(shop: &Shop, faults: Vec<Rule>, config: &str) -> Stage {
    Stage::with(Options {
        faults: Faults(faults),
        ..Options::default()
    })
    .await
    .config(&shop.allowed())
    .config(config)
    .script("hooks.rhai", &hooks(shop))
    .script("a.rhai", &by_hand(&withdraw("one", "0.01")))
}

fn requests(stage: &Stage, operation: Operation) -> u64 {
    let requests = stage.control.requests();
    requests.get(&operation).copied().unwrap_or_default()
}

fn story(payment: &Value) -> Vec<&str> {
    let lines = payment["story"].as_array().unwrap();
    lines
        .iter()
        .filter_map(|line| line["event"].as_str())
        .collect()
}

fn note(payment: &Value) -> &str {
    let lines = payment["story"].as_array().unwrap();
    lines.last().unwrap()["note"].as_str().unwrap()
}

/// Waits until look-ups have certainly not found a payment so many times.
async fn not_found(daemon: &Running, foreign_id: &str, times: usize) {
    eventually(
        &format!("{foreign_id} is not found {times} times"),
        || async {
            let payment = daemon.runner.payment(foreign_id).ok()?;
            let story = story(&payment);
            (story.iter().filter(|event| **event == "not_found").count() >= times).then_some(())
        },
    )
    .await;
}

/// Somebody else withdraws with the same account.
pub async fn by_a_stranger(stage: &Stage, foreign_id: &str, amount: &str, address: &str) {
    let body = json!({
        "foreign_id": foreign_id, "currency": "BTC", "amount": amount, "address": address,
        "end_user_reference": "somebody", "sender_type": "legal",
        "sender_data": {"legal_name": "Shop Ltd", "country_of_registration": "DEU"},
        "receiver_type": "natural",
        "receiver_data": {"first_name": "Eve", "last_name": "E", "date_of_birth": "1990-12-10"},
    });
    let body = body.to_string().into_bytes();
    let key = Options::default().key;
    let signature = sign(&body);
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Processing-Key", key.as_str()),
        ("X-Processing-Signature", signature.as_str()),
    ];
    let url = format!("{}/withdrawal/crypto", stage.simulator.base_url());
    let (status, answer) = post(&url, &headers, &body).await;
    assert_eq!(status, 201, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_somebody_else_has_is_held_with_the_difference_and_his_payment_is_left_alone() {
    let shop = Shop::open().await;
    let stage = stage_with(&shop, Vec::new(), RESENDS).await;
    by_a_stranger(&stage, "one", "0.02", "tb1qstranger").await;
    let daemon = stage.start().await;
    let run = daemon.trigger("a", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    let payment = daemon.payment("one", "held").await;
    assert_eq!(
        story(&payment),
        ["allowed", "send_started", "key_taken", "not_ours"]
    );
    assert_eq!(
        note(&payment),
        "the gateway has another transaction under this key: its amount is 0.02, ours is 0.01"
    );
    let alert = shop.visited("/alert", 1).await.remove(0).body;
    assert_eq!(alert["kind"], "alert.payment_held");
    assert_eq!(alert["foreign_id"], "one");
    assert_eq!(alert["why"], note(&payment));
    // Its callback carries our key as well, and is an event like every other.
    let body = json!({
        "id": 77, "foreign_id": "one", "type": "withdrawal", "status": "confirmed",
        "transactions": [{"id": 1, "currency": "BTC", "transaction_type": "blockchain",
            "type": "withdrawal", "address": "tb1qstranger", "amount": "0.02"}],
    });
    deliver(&daemon.callbacks, body.to_string().as_bytes()).await;
    shop.visited("/end", 1).await;
    assert_eq!(daemon.runner.payment("one").unwrap()["status"], "held");
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    let kept = &stage.control.executions()[0];
    assert_eq!(kept.address.as_deref(), Some("tb1qstranger"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_by_our_own_payment_is_adopted_once_a_look_up_proves_it() {
    let shop = Shop::open().await;
    let stage = stage_with(&shop, Vec::new(), "").await;
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    daemon.payment("one", "confirmed").await;
    daemon.stop().await;
    // Everything is forgotten here; the gateway remembers.
    std::fs::remove_dir_all(stage.path("state")).unwrap();
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    let payment = daemon.payment("one", "confirmed").await;
    assert_eq!(story(&payment), ["allowed", "send_started", "key_taken"]);
    assert_eq!(note(&payment), "look-up: confirmed");
    assert_eq!(payment["error"], Value::Null);
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_certainly_not_there_is_sent_again_under_the_same_key_when_that_is_allowed() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let shop = Shop::open().await;
    let faults = vec![on(Operation::Withdrawal, Fault::ErrorBeforeActing, 1)];
    let stage = stage_with(&shop, faults, RESENDS)
        .await
        .clock(clock.clone());
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    let before = daemon.payment("one", "unknown").await;
    not_found(&daemon, "one", 3).await;
    assert_eq!(requests(&stage, Operation::Withdrawal), 1, "not yet");
    clock.set("2026-11-22T12:01:01Z");
    let payment = daemon.payment("one", "confirmed").await;
    let story = story(&payment);
    let again = story.iter().position(|event| *event == "resend").unwrap();
    assert_eq!(story[again - 1], "not_found", "{story:?}");
    assert_eq!(story[again + 1], "send_started", "{story:?}");
    assert_eq!(payment["fingerprint"], before["fingerprint"]);
    assert_eq!(requests(&stage, Operation::Withdrawal), 2);
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    assert!(shop.received("/alert").is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_and_was_there_all_the_time_is_adopted_and_executed_once() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let shop = Shop::open().await;
    let blind = Rule::always(Fault::BlindLookup(3_600_000));
    let never = Rule::always(Fault::CallbackNever);
    let faults = vec![
        on(Operation::Withdrawal, Fault::DropAnswer, 1),
        blind.clone(),
        never.clone(),
    ];
    let stage = stage_with(&shop, faults, RESENDS)
        .await
        .clock(clock.clone());
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    not_found(&daemon, "one", 3).await;
    clock.set("2026-11-22T12:01:01Z");
    eventually("it is sent again", || async {
        (requests(&stage, Operation::Withdrawal) == 2).then_some(())
    })
    .await;
    stage.control.set_faults(Faults(vec![never]));
    let payment = daemon.payment("one", "confirmed").await;
    assert!(story(&payment).contains(&"key_taken"), "{payment:#}");
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resend_that_is_refused_says_nothing_of_the_request_before_it() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let shop = Shop::open().await;
    let faults = vec![
        on(Operation::Withdrawal, Fault::DropAnswer, 1),
        on(Operation::Withdrawal, Fault::Refuse, 1),
        Rule::always(Fault::BlindLookup(3_600_000)),
        Rule::always(Fault::CallbackNever),
    ];
    let stage = stage_with(&shop, faults, RESENDS)
        .await
        .clock(clock.clone());
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    not_found(&daemon, "one", 3).await;
    clock.set("2026-11-22T12:01:01Z");
    let payment = daemon.payment("one", "held").await;
    assert!(story(&payment).contains(&"resend"), "{payment:#}");
    assert!(!story(&payment).contains(&"rejected"), "{payment:#}");
    shop.visited("/alert", 1).await;
    // It was executed, as its callback tells at last.
    let callback = stage.control.callbacks()[0].id;
    stage.control.resend_callback(callback).await.unwrap();
    daemon.payment("one", "confirmed").await;
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_permission_nothing_is_sent_again_and_a_person_is_told_once() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let shop = Shop::open().await;
    let faults = vec![on(Operation::Withdrawal, Fault::ErrorBeforeActing, 1)];
    let config = "gateway.unknown_after = \"1m\"\n";
    let stage = stage_with(&shop, faults, config).await.clock(clock.clone());
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    not_found(&daemon, "one", 3).await;
    clock.set("2026-11-22T12:01:01Z");
    let payment = daemon.payment("one", "held").await;
    assert!(
        note(&payment).contains("`gateway.resend_unknown` is off"),
        "{payment:#}"
    );
    shop.visited("/alert", 1).await;
    daemon.stop().await;
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    assert_eq!(requests(&stage, Operation::Withdrawal), 1);
    let alerts = daemon.runner.callbacks(&everything()).unwrap();
    let alerts = alerts.as_array().unwrap().iter();
    let held = alerts.filter(|event| event["kind"] == "alert.payment_held");
    assert_eq!(held.count(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_only_a_look_up_finds_is_an_event_and_its_late_callback_a_duplicate() {
    let shop = Shop::open().await;
    let faults = vec![
        on(Operation::Withdrawal, Fault::DropAnswer, 1),
        Rule::always(Fault::BlindLookup(1500)),
        Rule::always(Fault::CallbackNever),
    ];
    let waiting = by_hand(&format!(
        r#"let paid = {}; let end = paid.wait("1h"); http::post("{}/waited", #{{ status: end.status }});"#,
        withdraw("one", "0.01"),
        shop.url
    ));
    let stage = stage_with(&shop, faults, "")
        .await
        .script("a.rhai", &waiting);
    let daemon = stage.start().await;
    let run = daemon.trigger("a", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    daemon.payment("one", "confirmed").await;
    assert_eq!(
        shop.visited("/waited", 1).await[0].body["status"],
        "confirmed"
    );
    let event = shop.visited("/end", 1).await.remove(0).body;
    assert_eq!(event["kind"], "withdrawal.confirmed");
    assert_eq!(event["source"], "reconciled");
    assert_eq!(event["foreign_id"], "one");
    assert_eq!(event["final"], true);
    assert_eq!(event["transactions"][0]["amount"].to_string(), "0.01000000");
    assert_eq!(events(&daemon), 1);
    // The callback after all, as it was, and once more with something else in it.
    let callback = stage.control.callbacks()[0].clone();
    assert!(stage.control.resend_callback(callback.id).await.unwrap());
    let mut body: Value = serde_json::from_str(&callback.body).unwrap();
    body["transactions"][0]["id"] = json!(4711);
    body["type"] = json!("withdrawal_exchange");
    let (status, _) = deliver(&daemon.callbacks, body.to_string().as_bytes()).await;
    assert_eq!(status, 200);
    assert_eq!(events(&daemon), 1);
    daemon.stop().await;
    let daemon = stage.start().await;
    assert!(stage.control.resend_callback(callback.id).await.unwrap());
    assert_eq!(events(&daemon), 1);
    assert_eq!(shop.received("/end").len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_whose_answer_is_lost_says_that_only_a_callback_can_tell_and_is_told_by_it() {
    let shop = Shop::open().await;
    let invoice = r#"gateway::create_invoice(#{ foreign_id: "order", timer: true, title: "Order", currency: "EUR", sender_currency: "BTC", amount: 100, end_user_reference: "customer-7", email_user: "customer@shop.example", url_success: "https://shop.example/paid", url_failed: "https://shop.example/failed", sender_type: "natural", sender_data: #{ first_name: "Ada", last_name: "Lovelace", date_of_birth: "1990-12-10" } })"#;
    let request = r#"gateway::create_payment_request(#{ foreign_id: "ask", amount: "50", currency: #{ iso: "EUR" }, life_time_duration: 3600, end_user_email: "customer@shop.example", end_user_reference: "customer-7", url_store: "https://shop.example" })"#;
    let faults = vec![
        on(Operation::Invoice, Fault::DropAnswer, 1),
        on(Operation::PaymentRequest, Fault::DropAnswer, 1),
    ];
    let stage = stage_with(&shop, faults, RESENDS)
        .await
        .script("b.rhai", &by_hand(invoice))
        .script("c.rhai", &by_hand(request));
    let daemon = stage.start().await;
    for (script, key, what) in [
        ("b", "order", "no look-up for invoices"),
        ("c", "ask", "no look-up for payment requests"),
    ] {
        let run = daemon.trigger(script, "go").await;
        assert_eq!(run["state"], "succeeded", "{run:#}");
        let payment = daemon.payment(key, "unknown").await;
        assert!(note(&payment).contains(what), "{payment:#}");
        assert!(note(&payment).contains("only a callback can tell"));
    }
    stage
        .control
        .pay_invoice("order", None, Some("BTC"))
        .unwrap();
    daemon.payment("order", "confirmed").await;
    stage.control.pay_payment_request("ask", None).unwrap();
    daemon.payment("ask", "confirmed").await;
    assert_eq!(requests(&stage, Operation::TransactionInfo), 0);
    assert_eq!(requests(&stage, Operation::Invoice), 1);
    assert_eq!(requests(&stage, Operation::PaymentRequest), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_whose_answer_is_lost_is_held_with_the_callbacks_that_may_be_it() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let shop = Shop::open().await;
    let exchange = r#"gateway::exchange_now(#{ foreign_id: "ex", sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02 })"#;
    let faults = vec![on(Operation::ExchangeNow, Fault::DropAnswer, 1)];
    let stage = stage_with(&shop, faults, RESENDS)
        .await
        .clock(clock.clone())
        .script("b.rhai", &by_hand(exchange));
    let daemon = stage.start().await;
    let run = daemon.trigger("b", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    // Its callback has come, and nothing in it says whose it is.
    eventually("the callback is taken in", || async {
        let callbacks = stage.control.callbacks();
        callbacks.first().filter(|one| one.delivered).map(|_| ())
    })
    .await;
    not_found(&daemon, "ex", 3).await;
    clock.set("2026-11-22T12:01:01Z");
    let payment = daemon.payment("ex", "held").await;
    let id = stage.control.executions()[0].id.clone();
    assert!(
        note(&payment).ends_with(&format!(
            "callbacks came about exchanges of the same amount, of which one may be this: {id}"
        )),
        "{payment:#}"
    );
    assert_eq!(requests(&stage, Operation::ExchangeNow), 1);
    assert_eq!(executed(&stage.control), [("ex".into(), 1)].into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_with_an_id_is_found_by_it() {
    let shop = Shop::open().await;
    let exchange = r#"gateway::exchange_now(#{ foreign_id: "ex", sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02 })"#;
    let stage = stage_with(&shop, vec![Rule::always(Fault::CallbackNever)], "")
        .await
        .script("b.rhai", &by_hand(exchange))
        .script(
            "c.rhai",
            &format!(
                r#"on("exchange.*", |event| {{ http::post("{}/exchanged", event); }});"#,
                shop.url
            ),
        );
    stage
        .control
        .set_settle_after(Some(Duration::from_millis(200)));
    let daemon = stage.start().await;
    daemon.trigger("b", "go").await;
    daemon.payment("ex", "accepted").await;
    eventually("it is done there", || async {
        (stage.control.executions()[0].status == "confirmed").then_some(())
    })
    .await;
    daemon.stop().await;
    let daemon = stage.start().await;
    daemon.payment("ex", "confirmed").await;
    let event = shop.visited("/exchanged", 1).await.remove(0).body;
    assert_eq!(event["source"], "reconciled");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callback_of_every_operation_may_come_before_the_answer_to_its_request() {
    let script = [
        withdraw("one", "0.01"),
        format!(r#"gateway::withdraw(#{{ {SENDER} foreign_id: "converted", currency: "EUR", convert_to: "BTC", amount: 50, address: "tb1q" }})"#),
        format!(r#"gateway::withdraw_instant(#{{ {SENDER} foreign_id: "fast", currency: "LTC", amount: "1.5", address: "ltc1q" }})"#),
        r#"gateway::exchange_now(#{ foreign_id: "ex", sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02 })"#.to_owned(),
        r#"let quote = gateway::calculate_exchange(#{ sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02 }); gateway::exchange_fixed(#{ foreign_id: "fixed", sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02, price: quote.price })"#.to_owned(),
    ]
    .join(";\n");
    let shop = Shop::open().await;
    // Also when that answer never comes.
    for fault in [None, Some(Fault::DropAnswer)] {
        let mut faults = vec![Rule::always(Fault::CallbackBeforeReply)];
        for operation in [Operation::Withdrawal, Operation::InstantWithdrawal] {
            faults.extend(fault.map(|fault| on(operation, fault, 9)));
        }
        let stage = stage_with(&shop, faults, "")
            .await
            .script("a.rhai", &by_hand(&script));
        let daemon = stage.start().await;
        let run = daemon.trigger("a", "go").await;
        assert_eq!(run["state"], "succeeded", "{run:#}");
        for key in ["one", "converted", "fast", "ex", "fixed"] {
            let payment = daemon.payment(key, "confirmed").await;
            assert!(payment["id"].is_string(), "{payment:#}");
        }
        assert_eq!(stage.control.callbacks().len(), 5);
        assert!(stage.control.callbacks().iter().all(|one| one.delivered));
        assert_eq!(stage.control.executions().len(), 5);
        daemon.stop().await;
    }
}
