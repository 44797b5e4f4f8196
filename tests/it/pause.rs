//! The switch that stops money: at once, for good, and nothing but money.

use std::time::Duration;

use bursar::runner::Handle;
use bursar::simulator::{Fault, Faults, Rule};
use serde_json::{Value, json};

use crate::kit::{Shop, ask, counted, get};
use crate::payments::{by_hand, telling, withdraw};
use crate::stage::{SENDER, Stage, eventually, everything, executed};

/// How many payments have left, or may leave: those that were marked as being sent and did not go
/// back.
fn marked(runner: &Handle) -> usize {
    let payments = runner.payments(&everything()).unwrap();
    let payments = payments.as_array().unwrap();
    let sent = payments
        .iter()
        .filter(|payment| payment["attempts"] != 0 && payment["status"] != "intended");
    sent.count()
}

/// How many payments there are in that state.
fn in_state(runner: &Handle, state: &str) -> usize {
    let payments = runner.payments(&everything()).unwrap();
    let payments = payments.as_array().unwrap();
    let there = payments.iter().filter(|payment| payment["status"] == state);
    there.count()
}

const ROWS: usize = 200;

/// `gateway.max_in_flight`, as it is by default.
const IN_FLIGHT: usize = 16;

fn batch() -> String {
    by_hand(&format!(
        r#"let rows = [];
        for i in 0..{ROWS} {{ rows.push(#{{ {SENDER} foreign_id: `row-${{i}}`, currency: "BTC", amount: 0.001, address: "tb1q" }}); }}
        gateway::withdraw_all(rows).wait("1h");"#
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_pause_nothing_leaves_over_restarts_until_it_is_lifted_and_then_each_once() {
    let stage = Stage::new().await.script("pay.rhai", &batch());
    stage
        .control
        .set_faults(Faults(vec![Rule::always(Fault::Delay(30))]));
    let daemon = stage.start().await;
    let run = daemon.runner.trigger("pay", "go", None).await.unwrap();
    eventually("the batch is under way", || async {
        (executed(&stage.control).len() >= 20).then_some(())
    })
    .await;
    let body = json!({"reason": "the bank called"});
    let (status, answer) = ask(&daemon, None, "pause", Some(&body)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["changed"], true);
    let before = executed(&stage.control).len();
    // All others are decided, and none leaves: not even those that were marked and waited for a place.
    let sent = eventually("the others are decided", || async {
        let sent = marked(&daemon.runner);
        let under_way = in_state(&daemon.runner, "sending");
        (under_way == 0 && in_state(&daemon.runner, "intended") == ROWS - sent).then_some(sent)
    })
    .await;
    assert!((20..ROWS).contains(&sent), "{sent} were sent");
    assert!(sent <= before + IN_FLIGHT, "{before} and those under way");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(marked(&daemon.runner), sent);
    daemon.stop().await;

    let daemon = stage.start().await;
    let pauses = daemon.runner.pauses();
    assert_eq!(pauses[0]["by"], "admin");
    assert_eq!(pauses[0]["reason"], "the bank called");
    eventually("those that were sent are settled", || async {
        (in_state(&daemon.runner, "confirmed") == sent).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(marked(&daemon.runner), sent);
    assert_eq!(executed(&stage.control).len(), sent);
    daemon.stop().await;

    let daemon = stage.start().await;
    stage.control.set_faults(Faults::default());
    let (status, answer) = ask(&daemon, None, "resume", Some(&json!({}))).await;
    assert_eq!((status, &answer["changed"]), (200, &json!(true)));
    assert_eq!(answer["pauses"], json!([]));
    let run = daemon.closed(&run.to_string()).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    let executed = executed(&stage.control);
    assert_eq!(executed.len(), ROWS);
    assert!(executed.values().all(|times| *times == 1), "{executed:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_asked_for_meanwhile_is_intended_and_its_run_waits() {
    let shop = Shop::open().await;
    let body = format!(
        r#"let payment = {};
        http::post("{}/asked", payment);
        http::post("{}/paid", payment.wait("1h"));"#,
        withdraw("one", "0.01"),
        shop.url,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("pay.rhai", &by_hand(&body));
    let daemon = stage.start().await;
    daemon.runner.pause(None, "ana", None).await.unwrap();
    let run = daemon.runner.trigger("pay", "go", None).await.unwrap();
    let asked = shop.visited("/asked", 1).await;
    assert_eq!(asked[0].body["status"], "intended");
    eventually("the run waits", || async {
        let run = daemon.runner.run(&run.to_string()).unwrap();
        (run["state"] == "waiting").then_some(())
    })
    .await;
    let payment = daemon.runner.payment("one").unwrap();
    assert_eq!(payment["paused"], true, "{payment}");
    assert!(executed(&stage.control).is_empty());
    daemon.runner.resume(None, "ana").await.unwrap();
    let paid = shop.visited("/paid", 1).await;
    assert_eq!(paid[0].body["status"], "confirmed");
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_one_script_stops_no_other_and_no_reads_invoices_or_callbacks() {
    let shop = Shop::open().await;
    let invoice = r#"gateway::create_invoice(#{
        foreign_id: "order-1", timer: true, title: "Order 1", currency: "EUR", amount: 100,
        end_user_reference: "customer-7", email_user: "customer@shop.example",
        url_success: "https://shop.example/paid", url_failed: "https://shop.example/failed" })"#;
    let stopped = [
        telling(&shop, "/read", "gateway::list_accounts().len()"),
        telling(&shop, "/invoice", invoice),
        telling(&shop, "/pay", &withdraw("stopped", "0.01")),
    ]
    .join("\n");
    let stage = Stage::new()
        .await
        .config(&shop.allowed())
        .script("stopped.rhai", &by_hand(&stopped))
        .script("free.rhai", &by_hand(&withdraw("free", "0.01")));
    let daemon = stage.start().await;
    let body = json!({"script": "stopped"});
    let (_, answer) = ask(&daemon, None, "pause", Some(&body)).await;
    assert_eq!(answer["pauses"][0]["script"], "stopped");
    let (stopped, free) = tokio::join!(
        daemon.trigger("stopped", "go"),
        daemon.trigger("free", "go")
    );
    for run in [stopped, free] {
        assert_eq!(run["state"], "succeeded", "{run:#}");
    }
    daemon.payment("free", "confirmed").await;
    assert_eq!(shop.received("/read").len(), 1);
    assert_eq!(shop.received("/invoice")[0].body["status"], "accepted");
    assert_eq!(shop.received("/pay")[0].body["status"], "intended");
    daemon.runner.resume(Some("stopped"), "ana").await.unwrap();
    daemon.payment("stopped", "confirmed").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_effect_says_so_and_what_is_paused_is_shown_everywhere() {
    let stage = Stage::new()
        .await
        .script("pay.rhai", &by_hand(&withdraw("one", "0.01")));
    let daemon = stage.start().await;
    let post = async |path: &str, body: Value| ask(&daemon, None, path, Some(&body)).await.1;
    let note = |answer: &Value| answer["note"].as_str().unwrap().to_owned();
    let answer = post("resume", json!({})).await;
    assert_eq!(answer["changed"], false);
    assert_eq!(note(&answer), "nothing has changed: money was not paused");
    let answer = post("pause", json!({"script": "none"})).await;
    assert!(note(&answer).ends_with("no script of that name is in use now"));
    let answer = post("pause", json!({"reason": "audit"})).await;
    assert!(
        note(&answer).starts_with("all money is paused since"),
        "{answer}"
    );
    let again = post("pause", json!({"reason": "another"})).await;
    assert_eq!(again["changed"], false);
    assert!(note(&again).starts_with("nothing has changed: all money"));
    assert!(note(&again).ends_with("by admin: audit"), "{again}");
    assert_eq!(counted(&daemon, "bursar_pauses_in_force").await, 2);
    let ready: Value =
        serde_json::from_str(&get(&format!("{}/readyz", daemon.admin)).await).unwrap();
    assert_eq!(ready["paused"], json!(["everything", "none"]));
    let answer = post("resume", json!({})).await;
    assert!(note(&answer).contains("still in force: the money of `none`"));
    daemon.stop().await;
}
