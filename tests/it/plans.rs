//! Batches that people approve as a whole: exactly what was approved is paid, and nothing else.

use std::sync::Arc;

use bursar::domain::payment::Content;
use bursar::domain::plan::Contents;
use bursar::simulator::{Fault, Faults, Operation, Rule};
use bursar::store::schema::PLANS;
use bursar::store::{Changes, Options, Store};
use bursar::telemetry::Telemetry;
use serde_json::{Value, json};

use crate::approvals::{act, with_people};
use crate::kit::{SetClock, Shop, ask};
use crate::payments::{by_hand, telling};
use crate::stage::{Running, SENDER, Stage, eventually, executed};

/// The fields of a row, as a map literal.
fn row(id: &str, amount: &str, address: &str) -> String {
    format!(
        r#"#{{ {SENDER} foreign_id: "{id}", currency: "BTC", amount: {amount}, address: "{address}" }}"#
    )
}

/// A script that asks for approval of rows, and tells the shop what comes of it.
fn asking(shop: &Shop, rows: &[String]) -> String {
    let list = rows.join(",\n");
    let batch = format!("gateway::withdraw_all([{list}], #{{ approve: true }})");
    by_hand(&telling(shop, "/told", &batch))
}

/// Fires the script and waits until its batch is there. Answers the batch.
async fn planned(daemon: &Running) -> Value {
    daemon.runner.trigger("pay", "go", None).await.unwrap();
    the_batch(daemon).await
}

async fn the_batch(daemon: &Running) -> Value {
    eventually("there is a batch and its run waits", || async {
        let (_, batches) = ask(daemon, Some("vera"), "batches", None).await;
        let id = batches[0]["id"].as_str()?.to_owned();
        let run = batches[0]["run"].as_str()?.to_owned();
        let waits = daemon.runner.run(&run).unwrap()["state"] == "waiting";
        let path = format!("batches/{id}");
        let (_, batch) = ask(daemon, Some("vera"), &path, None).await;
        waits.then_some(batch)
    })
    .await
}

fn approve(batch: &Value) -> Value {
    json!({"batch": batch["id"], "hash": batch["hash"]})
}

fn three() -> [String; 3] {
    [
        row("p-1", "0.1", "tb1qa"),
        row("p-2", "0.25", "tb1qb"),
        row("p-3", "0.1", "tb1qa"),
    ]
}

async fn stage(shop: &Shop, rows: &[String]) -> Stage {
    let stage = with_people().await.config(&shop.allowed());
    stage.script("pay.rhai", &asking(shop, rows))
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_approved_rows_are_paid_over_restarts_and_the_run_goes_on() {
    let shop = Shop::open().await;
    let stage = stage(&shop, &three()).await;
    let daemon = stage.start().await;
    let batch = planned(&daemon).await;
    assert_eq!(batch["status"], "awaiting_approval", "{batch:#}");
    assert_eq!(batch["amounts"], json!(["0.45 BTC"]));
    let total = &batch["totals"][0];
    assert_eq!(
        (&total["rows"], &total["amount"]),
        (&json!(3), &json!("0.45"))
    );
    assert!(
        total["before"].is_string() && total["after"].is_string(),
        "{total}"
    );
    assert_eq!(batch["new_addresses"], json!(["tb1qa", "tb1qb"]));
    assert_eq!(
        batch["warnings"],
        json!(["rows 0 and 2 pay the same amount to the same address"])
    );
    assert!(batch["payments"][0]["status"].is_null());
    assert!(executed(&stage.control).is_empty());

    let (status, text) = act(&daemon, "olga", "approve", approve(&batch)).await;
    assert_eq!(status, 403);
    assert_eq!(text, "olga has the role operate; approving needs approve");
    let other = json!({"batch": batch["id"], "hash": "beef"});
    let (status, text) = act(&daemon, "ana", "approve", other).await;
    assert_eq!(status, 409);
    assert!(text.contains("not beef"), "{text}");
    daemon.stop().await;

    // Approved while money is paused, so the daemon ends between the approval and the payments.
    let daemon = stage.start().await;
    assert_eq!(the_batch(&daemon).await["hash"], batch["hash"]);
    daemon.runner.pause(None, "olga", None).await.unwrap();
    let (status, text) = act(&daemon, "ana", "approve", approve(&batch)).await;
    assert_eq!(status, 200, "{text}");
    let told = shop.visited("/told", 1).await;
    assert_eq!(told[0].body.as_array().unwrap().len(), 3, "{told:?}");
    assert_eq!(told[0].body[0]["status"], "intended");
    let (status, text) = act(&daemon, "ben", "approve", approve(&batch)).await;
    assert_eq!(status, 409);
    assert!(
        text.contains("is approved") && text.contains("approved by ana"),
        "{text}"
    );
    daemon.stop().await;

    let daemon = stage.start().await;
    daemon.runner.resume(None, "olga").await.unwrap();
    for id in ["p-1", "p-2", "p-3"] {
        let payment = daemon.payment(id, "confirmed").await;
        assert_eq!(payment["plan"], batch["id"], "{payment:#}");
        assert_eq!(payment["approvals"][0]["by"], "ana");
        let story = payment["story"].to_string();
        assert!(story.contains("approved by ana"), "{story}");
    }
    let once = ["p-1", "p-2", "p-3"].map(|id| (id.to_owned(), 1));
    assert_eq!(executed(&stage.control), once.into());
    let path = format!("batches/{}", batch["id"].as_str().unwrap());
    let (_, shown) = ask(&daemon, Some("vera"), &path, None).await;
    assert_eq!(shown["payments"][2]["status"], "confirmed");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_rejected_batch_nothing_is_paid_and_the_script_hears_who_and_why() {
    let shop = Shop::open().await;
    let stage = stage(&shop, &three()).await;
    let daemon = stage.start().await;
    let batch = planned(&daemon).await;
    let body = json!({"batch": batch["id"], "reason": "wrong month"});
    let (status, text) = act(&daemon, "ben", "reject", body.clone()).await;
    assert_eq!(status, 200, "{text}");
    let told = &shop.visited("/told", 1).await[0].body;
    assert_eq!(told["code"], "policy_refused", "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("rejected by ben: wrong month"),
        "{message}"
    );
    for (path, body) in [("approve", approve(&batch)), ("reject", body)] {
        let (status, text) = act(&daemon, "ana", path, body).await;
        assert_eq!(status, 409);
        assert!(
            text.contains("is rejected") && text.contains("by ben"),
            "{text}"
        );
    }
    assert!(executed(&stage.control).is_empty());
    assert!(daemon.runner.payment("p-1").is_err());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_nobody_decides_about_expires_with_an_alert() {
    let shop = Shop::open().await;
    let clock = SetClock::at("2026-11-20T12:00:00Z");
    let alerts = ["approval_needed", "approval_expired"].map(|what| {
        format!(
            r#"on("alert.{what}", |event| {{ http::post("{}/{what}", event); }});"#,
            shop.url
        )
    });
    let stage = stage(&shop, &three())
        .await
        .script("alerts.rhai", &alerts.join("\n"))
        .clock(Arc::<SetClock>::clone(&clock) as _);
    let daemon = stage.start().await;
    let batch = planned(&daemon).await;
    let needed = &shop.visited("/approval_needed", 1).await[0].body;
    assert_eq!(
        (&needed["batch"], &needed["hash"]),
        (&batch["id"], &batch["hash"])
    );
    clock.set("2026-11-23T11:59:59Z");
    daemon.runner.wake().await;
    assert_eq!(the_batch(&daemon).await["status"], "awaiting_approval");
    clock.set("2026-11-23T12:00:00Z");
    let (status, text) = act(&daemon, "ana", "approve", approve(&batch)).await;
    assert_eq!(status, 409);
    assert!(text.contains("nobody decided in time"), "{text}");
    let told = &shop.visited("/told", 1).await[0].body;
    assert_eq!(told["code"], "policy_refused", "{told}");
    let expired = &shop.visited("/approval_expired", 1).await[0].body;
    assert_eq!(expired["status"], "expired");
    assert!(executed(&stage.control).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mistakes_of_all_rows_are_reported_and_there_is_no_plan() {
    let shop = Shop::open().await;
    let other = |id: &str, currency: &str| {
        row(id, "5", "r1").replace(r#"currency: "BTC""#, &format!(r#"currency: "{currency}""#))
    };
    let rows = [
        row("good", "0.1", "tb1q"),
        row("little", "0.00001", "tb1q"),
        other("what", "BTD"),
        other("lost", "XRP"),
    ];
    let stage = stage(&shop, &rows).await;
    let daemon = stage.start().await;
    daemon.trigger("pay", "go").await;
    let told = &shop.visited("/told", 1).await[0].body;
    assert_eq!(told["code"], "invalid_argument", "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(
        message.starts_with("nothing was sent; row 1: "),
        "{message}"
    );
    for part in [
        "below 0.0001 BTC",
        "did you mean BTC?",
        "row 3: `tag` is missing",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let (_, batches) = ask(&daemon, Some("vera"), "batches", None).await;
    assert_eq!(batches, json!([]));
    assert!(executed(&stage.control).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_list_of_currencies_nothing_is_planned_or_sent() {
    let shop = Shop::open().await;
    let stage = stage(&shop, &three()).await;
    stage.control.set_faults(Faults(vec![Rule {
        operation: Some(Operation::Currencies),
        times: Some(1),
        ..Rule::always(Fault::ErrorBeforeActing)
    }]));
    let daemon = stage.start().await;
    daemon.runner.trigger("pay", "go", None).await.unwrap();
    let told = &shop.visited("/told", 1).await[0].body;
    assert_eq!(told["code"], "gateway_unavailable", "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(message.starts_with("nothing was sent"), "{message}");
    assert!(executed(&stage.control).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_held_against_a_batch() {
    let shop = Shop::open().await;
    let again = [
        row("p-1", "0.1", "tb1qa"),
        row("new", "0.25", "tb1qb"),
        row("next", "0.2", "tb1qc"),
    ];
    let first = three().join(",");
    let body = format!("gateway::withdraw_all([{first}]).wait(\"1h\");");
    let stage = with_people()
        .await
        .config(&shop.allowed())
        .script("first.rhai", &by_hand(&body))
        .script("pay.rhai", &asking(&shop, &again));
    let daemon = stage.start().await;
    daemon.trigger("first", "go").await;
    let batch = planned(&daemon).await;
    assert_eq!(batch["new_addresses"], json!(["tb1qc"]));
    assert_eq!(batch["amounts"], json!(["0.45 BTC"]));
    let warnings = batch["warnings"].as_array().unwrap();
    let expected = [
        "row 0, `p-1`, was asked for before and is confirmed: it is not paid again",
        "row 1, `new`, pays the same amount to the same address as `p-2` of ",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        let warning = warning.as_str().unwrap();
        assert!(warning.starts_with(expected), "{warning}");
    }
    act(&daemon, "ana", "approve", approve(&batch)).await;
    daemon.payment("next", "confirmed").await;
    daemon.payment("new", "confirmed").await;
    assert!(executed(&stage.control).values().all(|times| *times == 1));
    assert_eq!(executed(&stage.control).len(), 5);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_of_something_else_than_is_asked_for_is_void() {
    let shop = Shop::open().await;
    let stage = stage(&shop, &three()).await;
    let daemon = stage.start().await;
    let batch = planned(&daemon).await;
    daemon.stop().await;
    // A plan of another amount, sound in itself, in the place of the one that was made.
    let options = Options {
        cache_bytes: 1 << 20,
        ..Options::default()
    };
    let store = Store::open(&stage.path("state"), &options, &Telemetry::default()).unwrap();
    let id = batch["id"].as_str().unwrap().to_owned();
    let mut plan = store.get(&PLANS, &id).unwrap().unwrap();
    let blob = store.get_blob(&plan.contents.parse().unwrap()).unwrap();
    let mut contents: Contents = serde_json::from_slice(&blob).unwrap();
    let row = &mut contents.rows[1];
    let less = row.content.body().replace("0.25", "0.2");
    row.content = Content::new(row.content.operation, less);
    row.fingerprint = row.content.fingerprint();
    plan.hash = contents.hash().unwrap();
    let blob = serde_json::to_vec(&contents).unwrap();
    plan.contents = store.put_blob(blob).await.unwrap().to_string();
    let hash = plan.hash.clone();
    let mut changes = Changes::new();
    changes.put(&PLANS, &id, &plan);
    store.commit(changes).await.unwrap();
    store.close().await.unwrap();

    let daemon = stage.start().await;
    let body = json!({"batch": id, "hash": hash});
    let (status, text) = act(&daemon, "ana", "approve", body).await;
    assert_eq!(status, 200, "{text}");
    let told = &shop.visited("/told", 1).await[0].body;
    assert_eq!(told["code"], "policy_refused", "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("is void") && message.contains("the `amount` of row 1, `p-2`"),
        "{message}"
    );
    assert!(executed(&stage.control).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_run_was_cancelled_cannot_be_approved() {
    let shop = Shop::open().await;
    let stage = stage(&shop, &three()).await;
    let daemon = stage.start().await;
    let batch = planned(&daemon).await;
    let run = batch["run"].as_str().unwrap();
    daemon.runner.cancel(run).await.unwrap();
    let (status, text) = act(&daemon, "ana", "approve", approve(&batch)).await;
    assert_eq!(status, 409);
    assert!(text.contains("nobody would pay it"), "{text}");
    assert!(executed(&stage.control).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_turns_a_batch_into_one_that_people_approve_and_shows_how_it_stands_to_the_limits() {
    const POLICY: &str = r#"
[[policy.limit]]
name = "day"
currency = "BTC"
amount = "0.46"
per = "day"
[[policy.rule]]
name = "large"
currency = "BTC"
above = "0.2"
decide = "approve"
quorum = 2
"#;
    let shop = Shop::open().await;
    let list = three().join(",\n");
    let batch = format!("gateway::withdraw_all([{list}])");
    let stage = with_people().await.config(&shop.allowed());
    let stage = stage
        .config(POLICY)
        .script("pay.rhai", &by_hand(&telling(&shop, "/told", &batch)))
        .script(
            "one.rhai",
            &by_hand(&telling(
                &shop,
                "/one",
                &format!("gateway::withdraw({})", row("one", "0.3", "tb1qc")),
            )),
        );
    let daemon = stage.start().await;
    let batch = planned(&daemon).await;
    assert_eq!(batch["quorum"], 2, "{batch:#}");
    assert_eq!(
        batch["limits"],
        json!(["`day`: 0.35 of 0.46 BTC spent today, 0.1 more makes 0.45"]),
        "{batch:#}"
    );
    let (status, text) = act(&daemon, "ana", "approve", approve(&batch)).await;
    assert_eq!(status, 200, "{text}");
    assert!(executed(&stage.control).is_empty(), "one is not enough");
    daemon.stop().await;
    let daemon = stage.start().await;
    let (status, text) = act(&daemon, "ben", "approve", approve(&batch)).await;
    assert_eq!(status, 200, "{text}");
    for id in ["p-1", "p-2", "p-3"] {
        daemon.payment(id, "confirmed").await;
    }
    let told = shop.visited("/told", 1).await;
    assert_eq!(told[0].body.as_array().unwrap().len(), 3, "{told:?}");

    // A single payment waits by itself, until the limit, which it does not pass, refuses it.
    let run = daemon.trigger("one", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    let told = &shop.visited("/one", 1).await[0].body;
    assert_eq!(told["code"], "policy_refused", "{told}");
    let once = ["p-1", "p-2", "p-3"].map(|id| (id.to_owned(), 1));
    assert_eq!(executed(&stage.control), once.into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_payment_that_policy_leaves_to_people_is_sent_when_they_have_approved_it() {
    let shop = Shop::open().await;
    let policy = "[[policy.rule]]\nname = \"all\"\ndecide = \"approve\"\n";
    let body = format!(
        "gateway::withdraw({}).wait(\"9d\")",
        row("one", "0.3", "tb1qc")
    );
    let stage = with_people().await.config(&shop.allowed()).config(policy);
    let stage = stage.script("pay.rhai", &by_hand(&telling(&shop, "/told", &body)));
    let daemon = stage.start().await;
    let run = daemon.runner.trigger("pay", "go", None).await.unwrap();
    eventually("the run waits", || async {
        (daemon.runner.run(&run.to_string()).unwrap()["state"] == "waiting").then_some(())
    })
    .await;
    let payment = daemon.payment("one", "awaiting_approval").await;
    daemon.stop().await;
    let daemon = stage.start().await;
    let body = json!({"payment": "one", "hash": payment["fingerprint"]});
    let (status, text) = act(&daemon, "ana", "approve", body).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(
        shop.visited("/told", 1).await[0].body["status"],
        "confirmed"
    );
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    daemon.stop().await;
}
