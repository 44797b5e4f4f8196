//! Payments as scripts see them: keys, conflicts, refusals, batches, and what is remembered.

use std::time::Duration;

use bursar::simulator::{Operation, Options};
use serde_json::{Value, json};

use crate::kit::Shop;
use crate::stage::{SENDER, Stage, executed};

/// A schedule that is fired by hand.
pub fn by_hand(body: &str) -> String {
    format!(
        r#"schedule("go", "0 0 1 1 *", #{{ retry: #{{ first: "1s" }} }}, |tick| {{ {body} }});"#
    )
}

/// A call of `withdraw`.
pub fn withdraw(foreign_id: &str, amount: &str) -> String {
    format!(
        r#"gateway::withdraw(#{{ {SENDER} foreign_id: "{foreign_id}", currency: "BTC", amount: {amount}, address: "tb1q" }})"#
    )
}

/// Tells the shop what comes of an expression: its value, or the error it throws.
pub fn telling(shop: &Shop, path: &str, expression: &str) -> String {
    format!(
        r#"let told = (); try {{ told = {expression}; }} catch (e) {{ told = e; }} http::post("{}{path}", told);"#,
        shop.url
    )
}

fn requests(stage: &Stage, operation: Operation) -> u64 {
    let requests = stage.control.requests();
    requests.get(&operation).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_and_content_is_one_request_for_every_run_and_script_and_start() {
    let shop = Shop::open().await;
    let pay = by_hand(&telling(&shop, "/paid", &withdraw("one", "0.0100")));
    let same = by_hand(&telling(&shop, "/paid", &withdraw("one", r#""0.01""#)));
    let stage = Stage::new()
        .await
        .config(&shop.allowed())
        .script("a.rhai", &pay)
        .script("b.rhai", &same);
    let daemon = stage.start().await;
    let runs = tokio::join!(
        daemon.trigger("a", "go"),
        daemon.trigger("b", "go"),
        daemon.trigger("a", "go")
    );
    for run in [runs.0, runs.1, runs.2] {
        assert_eq!(run["state"], "succeeded", "{run:#}");
    }
    daemon.payment("one", "confirmed").await;
    daemon.stop().await;
    let daemon = stage.start().await;
    daemon.trigger("b", "go").await;
    let told = shop.received("/paid");
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|one| one.body["foreign_id"] == "one"));
    assert_eq!(told[3].body["status"], "confirmed");
    assert_eq!(told[3].body["amount"].to_string(), "0.01");
    assert_eq!(requests(&stage, Operation::Withdrawal), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_with_other_content_is_a_conflict_that_names_the_field() {
    let shop = Shop::open().await;
    let script = [
        withdraw("one", "0.01"),
        telling(&shop, "/amount", &withdraw("one", "0.02")),
        telling(
            &shop,
            "/operation",
            r#"gateway::exchange_now(#{ foreign_id: "one", sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02 })"#,
        ),
    ]
    .join(";\n");
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &by_hand(&script));
    let daemon = stage.start().await;
    let run = daemon.trigger("a", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    for (path, field) in [("/amount", "amount"), ("/operation", "operation")] {
        let told = &shop.received(path)[0].body;
        assert_eq!(told["code"], "conflict", "{told}");
        assert_eq!(told["field"], field, "{told}");
        assert!(told["message"].as_str().unwrap().contains("`one`"));
    }
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reports_the_mistakes_of_all_rows_and_sends_none() {
    let shop = Shop::open().await;
    let row = |id: &str, amount: &str, rest: &str| {
        format!(
            r#"#{{ {SENDER} foreign_id: "{id}", currency: "BTC", amount: {amount}, address: "tb1q", {rest} }}"#
        )
    };
    let rows = [
        row("good", "0.01", ""),
        row("negative", "-1", ""),
        row("typo", "0.01", r#"adress: "x""#),
        row("good", "0.01", ""),
        row("known", "0.05", ""),
        row("text", r#""ten""#, ""),
    ]
    .join(",");
    let script = format!(
        "{}; {}",
        withdraw("known", "0.01"),
        telling(&shop, "/told", &format!("gateway::withdraw_all([{rows}])"))
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &by_hand(&script));
    let daemon = stage.start().await;
    let run = daemon.trigger("a", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    let told = &shop.received("/told")[0].body;
    assert_eq!(told["code"], "invalid_argument", "{told}");
    let wrong: Vec<u64> = told["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["row"].as_u64().unwrap())
        .collect();
    for row in [1, 2, 3, 4, 5] {
        assert!(wrong.contains(&row), "row {row}: {told}");
    }
    assert!(!wrong.contains(&0), "{told}");
    let text = told["message"].as_str().unwrap();
    assert!(
        text.contains("nothing was sent") && text.contains("row 0"),
        "{text}"
    );
    assert_eq!(executed(&stage.control), [("known".into(), 1)].into());
    assert!(daemon.runner.payment("good").is_err());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_gateway_is_an_error_with_its_fields_and_final() {
    let shop = Shop::open().await;
    let script = telling(&shop, "/told", &withdraw("small", "0.00000001"));
    let uncaught = withdraw("small-too", "0.00000001");
    let stage = Stage::new()
        .await
        .config(&shop.allowed())
        .script("a.rhai", &by_hand(&script))
        .script("b.rhai", &by_hand(&uncaught));
    let daemon = stage.start().await;
    for _ in 0..2 {
        daemon.trigger("a", "go").await;
    }
    for told in shop.received("/told") {
        assert_eq!(told.body["code"], "gateway_rejected", "{}", told.body);
        assert!(told.body["errors"]["amount"].is_string(), "{}", told.body);
    }
    assert_eq!(shop.received("/told").len(), 2);
    assert_eq!(requests(&stage, Operation::Withdrawal), 1);
    let run = daemon.trigger("b", "go").await;
    assert_eq!(run["state"], "parked");
    let error = run["error"].as_str().unwrap();
    assert!(error.contains("b.rhai:1"), "{error}");
    let payment = daemon.payment("small-too", "rejected").await;
    assert_eq!(payment["is_final"], true);
    assert!(executed(&stage.control).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_other_operations_come_back_as_the_script_expects_them() {
    let shop = Shop::open().await;
    let told: Vec<String> = [
        ("/ping", "gateway::ping()"),
        ("/accounts", "gateway::list_accounts().find(|a| a.currency == \"BTC\").balance + 0.1"),
        ("/currencies", "gateway::list_currencies().len()"),
        ("/pairs", r#"gateway::list_pairs("BTC", "EUR").len()"#),
        ("/rates", r#"gateway::list_rates("BTC", "EUR").len()"#),
        ("/quote", r#"gateway::calculate_exchange(#{ sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02 }).sender_amount + 0.1"#),
        ("/exchange", r#"gateway::exchange_now(#{ foreign_id: "ex", sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02 })"#),
        ("/instant", &format!(r#"gateway::withdraw_instant(#{{ {SENDER} foreign_id: "fast", currency: "LTC", amount: "1.5", address: "ltc1q" }})"#)),
        ("/nothing", r#"gateway::transaction_info("never")"#),
        ("/info", r#"gateway::transaction_info("fast").status"#),
        ("/get", r#"payments::get("ex").kind"#),
        ("/none", r#"payments::get("never") == ()"#),
    ]
    .iter()
    .map(|(path, expression)| telling(&shop, path, expression))
    .collect();
    let stage = Stage::with(Options {
        settle_after: None,
        ..Options::default()
    })
    .await
    .config(&shop.allowed())
    .script("a.rhai", &by_hand(&told.join("\n")));
    let daemon = stage.start().await;
    let run = daemon.trigger("a", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    let told = |path: &str| shop.received(path)[0].body.clone();
    assert_eq!(told("/ping"), "OK");
    assert_eq!(told("/accounts").to_string(), "1000000.10000000");
    assert!(told("/currencies").as_u64().unwrap() > 3);
    assert_eq!((told("/pairs"), told("/rates")), (json!(1), json!(1)));
    assert_eq!(told("/quote").to_string().trim_end_matches('0'), "0.12");
    assert_eq!(
        told("/exchange")["status"],
        "accepted",
        "{}",
        told("/exchange")
    );
    assert_eq!(
        told("/instant")["status"],
        "accepted",
        "{}",
        told("/instant")
    );
    assert_eq!(told("/nothing")["code"], "gateway_rejected");
    assert_eq!(told("/info"), "not_confirmed");
    assert_eq!(
        (told("/get"), told("/none")),
        (json!("exchange_now"), json!(true))
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_invoices_and_exchanges_are_asked_for_once_also_after_a_restart() {
    let shop = Shop::open().await;
    let told: Vec<String> = [
        ("/address", r#"gateway::take_address(#{ foreign_id: "customer-7", currency: "BTC", end_user_reference: "customer-7", sender_type: "legal", sender_data: #{ legal_name: "Shop Ltd", country_of_registration: "DEU" } }).address"#),
        ("/other", r#"gateway::take_address(#{ foreign_id: "customer-7", currency: "BTC", convert_to: "EUR", end_user_reference: "customer-7", sender_type: "legal", sender_data: #{ legal_name: "Shop Ltd", country_of_registration: "DEU" } }).address"#),
        ("/invoice", r#"gateway::create_invoice(#{ foreign_id: "order-9", timer: true, title: "Order 9", currency: "EUR", amount: 100, end_user_reference: "customer-7", email_user: "customer@shop.example", url_success: "https://shop.example/paid", url_failed: "https://shop.example/failed" }).url"#),
        ("/exchange", r#"gateway::exchange_now(#{ foreign_id: "ex", sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02 }).foreign_id"#),
    ]
    .iter()
    .map(|(path, expression)| telling(&shop, path, expression))
    .collect();
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &by_hand(&told.join("\n")));
    for _ in 0..2 {
        let daemon = stage.start().await;
        for _ in 0..2 {
            let run = daemon.trigger("a", "go").await;
            assert_eq!(run["state"], "succeeded", "{run:#}");
        }
        daemon.stop().await;
    }
    for path in ["/address", "/other", "/invoice", "/exchange"] {
        let told: Vec<Value> = shop
            .received(path)
            .into_iter()
            .map(|one| one.body)
            .collect();
        assert_eq!(told.len(), 4);
        assert!(told[0].is_string(), "{path} {told:?}");
        assert!(told.iter().all(|one| *one == told[0]), "{path} {told:?}");
    }
    assert_ne!(
        shop.received("/address")[0].body,
        shop.received("/other")[0].body
    );
    assert_eq!(requests(&stage, Operation::TakeAddress), 2);
    assert_eq!(requests(&stage, Operation::Invoice), 1);
    assert_eq!(requests(&stage, Operation::ExchangeNow), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_waits_for_a_person_there_may_be_declined() {
    let stage = Stage::with(Options {
        pending_above: Some(1.into()),
        settle_after: Some(Duration::from_millis(20)),
        ..Options::default()
    })
    .await
    .script("a.rhai", &by_hand(&withdraw("large", "2")));
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    let payment = daemon.payment("large", "pending").await;
    assert_eq!(payment["is_final"], false);
    stage.control.settle("large", "declined").unwrap();
    let payment = daemon.payment("large", "declined").await;
    assert_eq!(payment["is_final"], true);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_script_leaves_out_stay_the_same_when_its_run_is_tried_again() {
    let shop = Shop::open().await;
    let unnamed = withdraw("", "0.01").replace(r#"foreign_id: "","#, "");
    let script = format!(
        r#"let first = {unnamed}; let second = {unnamed};
        http::post("{}/told", [first.foreign_id, second.foreign_id]);"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &by_hand(&script));
    shop.answers("/told", &[500, 503]);
    let daemon = stage.start().await;
    for _ in 0..2 {
        let run = daemon.trigger("a", "go").await;
        assert_eq!(run["state"], "succeeded", "{run:#}");
    }
    let told = shop.received("/told");
    assert_eq!(told.len(), 4);
    assert_eq!(told[0].body, told[1].body);
    assert_eq!(told[1].body, told[2].body);
    assert_ne!(told[0].body[0], told[0].body[1]);
    assert_ne!(told[0].body[0], told[3].body[0]);
    assert_eq!(told[0].idempotency_key, told[2].idempotency_key);
    assert_ne!(told[0].idempotency_key, told[3].idempotency_key);
    assert_eq!(executed(&stage.control).len(), 4);
    assert!(executed(&stage.control).values().all(|count| *count == 1));
    daemon.stop().await;
}
