//! What becomes of payments whose answer is lost, late or wrong: looked up, never sent twice.

use std::net::SocketAddr;

use bursar::simulator::{self, Fault, Faults, Operation, Options, Rule};
use serde_json::{Value, json};

use crate::kit::{SetClock, Shop, deliver};
use crate::payments::{by_hand, telling, withdraw};
use crate::stage::{SENDER, Stage, eventually, everything, executed};

/// That fault, on withdrawals, so many times.
fn on_withdrawals(fault: Fault, times: u32) -> Rule {
    Rule {
        operation: Some(Operation::Withdrawal),
        times: Some(times),
        ..Rule::always(fault)
    }
}

async fn stage_with(faults: Vec<Rule>) -> Stage {
    Stage::with(Options {
        faults: Faults(faults),
        ..Options::default()
    })
    .await
}

fn requests(stage: &Stage, operation: Operation) -> u64 {
    let requests = stage.control.requests();
    requests.get(&operation).copied().unwrap_or_default()
}

/// What happened to a payment, in order.
fn story(payment: &Value) -> Vec<&str> {
    let lines = payment["story"].as_array().unwrap();
    lines
        .iter()
        .filter_map(|line| line["event"].as_str())
        .collect()
}

/// Takes the gateway away from its port.
async fn unplug(stage: &mut Stage) -> SocketAddr {
    let address = stage.simulator.addr();
    let spare = simulator::start(Options::default()).await.unwrap();
    std::mem::replace(&mut stage.simulator, spare).stop().await;
    address
}

/// Puts a new gateway, which knows nothing, on the port of the old one.
async fn plug_in(stage: &mut Stage, address: SocketAddr, callbacks: &str) {
    stage.simulator = simulator::start(Options {
        listen: address,
        callback_url: Some(callbacks.to_owned()),
        ..Options::default()
    })
    .await
    .unwrap();
    stage.control = stage.simulator.control();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_hides_the_answer_the_payment_is_found_and_executed_once() {
    for fault in [
        Fault::DropAnswer,
        Fault::ActThenBadGateway,
        Fault::ActThenRubbish,
        Fault::SlowAnswer(2500),
    ] {
        let stage = stage_with(vec![
            on_withdrawals(fault, 1),
            Rule::always(Fault::ExecuteRepeat),
        ])
        .await
        .config("gateway.timeout = \"1s\"\n")
        .script("a.rhai", &by_hand(&withdraw("one", "0.01")));
        let daemon = stage.start().await;
        let run = daemon.trigger("a", "go").await;
        assert_eq!(run["state"], "succeeded", "{fault:?} {run:#}");
        let payment = daemon.payment("one", "confirmed").await;
        let story = story(&payment);
        assert_eq!(
            &story[..3],
            ["allowed", "send_started", "answer_lost"],
            "{fault:?}"
        );
        daemon.trigger("a", "go").await;
        assert_eq!(requests(&stage, Operation::Withdrawal), 1, "{fault:?}");
        assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_look_up_that_finds_nothing_proves_nothing() {
    let stage = stage_with(vec![
        on_withdrawals(Fault::DropAnswer, 1),
        Rule::always(Fault::BlindLookup(1500)),
        Rule::always(Fault::CallbackNever),
    ])
    .await
    .script("a.rhai", &by_hand(&withdraw("one", "0.01")));
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    let payment = daemon.runner.payment("one").unwrap();
    assert_eq!(payment["status"], "unknown");
    let payment = daemon.payment("one", "confirmed").await;
    assert!(story(&payment).contains(&"not_found"), "{payment:#}");
    assert_eq!(requests(&stage, Operation::Withdrawal), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_find_is_handed_to_a_person_and_never_sent_again() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let invoice = r#"gateway::create_invoice(#{ foreign_id: "order", timer: true, title: "Order", currency: "EUR", amount: 100, end_user_reference: "customer-7", email_user: "customer@shop.example", url_success: "https://shop.example/paid", url_failed: "https://shop.example/failed" })"#;
    let stage = stage_with(vec![
        on_withdrawals(Fault::ErrorBeforeActing, 1),
        Rule {
            operation: Some(Operation::Invoice),
            ..Rule::always(Fault::ErrorBeforeActing)
        },
    ])
    .await
    .clock(clock.clone())
    .script("a.rhai", &by_hand(&withdraw("one", "0.01")))
    .script("b.rhai", &by_hand(invoice));
    let daemon = stage.start().await;
    for script in ["a", "b"] {
        let run = daemon.trigger(script, "go").await;
        assert_eq!(run["state"], "succeeded", "{run:#}");
    }
    daemon.payment("order", "unknown").await;
    eventually("the sweep has asked about both", || async {
        let payment = daemon.runner.payment("one").ok()?;
        let asked = story(&payment)
            .into_iter()
            .filter(|event| *event == "not_found");
        (asked.count() >= 3).then_some(())
    })
    .await;
    clock.set("2026-11-22T12:15:01Z");
    let held = daemon.payment("one", "held").await;
    assert!(story(&held).contains(&"gave_up"), "{held:#}");
    // Invoices cannot be looked up; all the more must somebody be told.
    daemon.payment("order", "held").await;
    daemon.stop().await;
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    assert_eq!(requests(&stage, Operation::Withdrawal), 1);
    assert!(executed(&stage.control).is_empty());
    daemon.payment("one", "held").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_cannot_be_reached_is_paid_through_once_when_it_is_back() {
    let mut stage = Stage::new()
        .await
        .script("a.rhai", &by_hand(&withdraw("one", "0.01")));
    let daemon = stage.start().await;
    let address = unplug(&mut stage).await;
    let run = daemon.runner.trigger("a", "go", None).await.unwrap();
    let waiting = eventually("the run waits for another try", || async {
        let run = daemon.runner.run(&run.to_string()).unwrap();
        (run["state"] == "retrying").then_some(run)
    })
    .await;
    let error = waiting["error"].as_str().unwrap();
    assert!(error.contains("cannot be reached"), "{error}");
    plug_in(&mut stage, address, &daemon.callbacks).await;
    let run = daemon.closed(&run.to_string()).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    daemon.payment("one", "confirmed").await;
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    assert_eq!(stage.control.executions()[0].times_requested, 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_goes_on_although_its_script_has_caught_the_error() {
    let shop = Shop::open().await;
    let script = by_hand(&telling(&shop, "/told", &withdraw("one", "0.01")));
    let mut stage = Stage::new().await.config(&shop.allowed());
    stage = stage.script("a.rhai", &script);
    let daemon = stage.start().await;
    let address = unplug(&mut stage).await;
    let run = daemon.trigger("a", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    assert_eq!(
        shop.received("/told")[0].body["code"],
        "gateway_unavailable"
    );
    daemon.payment("one", "intended").await;
    plug_in(&mut stage, address, &daemon.callbacks).await;
    daemon.payment("one", "confirmed").await;
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_the_gateway_turns_out_to_have_is_not_sent_any_more() {
    let mut stage = Stage::new()
        .await
        .script("a.rhai", &by_hand(&withdraw("one", "0.01")));
    let daemon = stage.start().await;
    let address = unplug(&mut stage).await;
    let run = daemon.runner.trigger("a", "go", None).await.unwrap();
    // The third try is two seconds after the second one.
    eventually("two tries have failed", || async {
        let payment = daemon.runner.payment("one").ok()?;
        (payment["attempts"].as_u64()? >= 3).then_some(())
    })
    .await;
    let body = json!({"id": 77, "foreign_id": "one", "type": "withdrawal", "status": "confirmed"});
    let body = body.to_string().into_bytes();
    assert_eq!(deliver(&daemon.callbacks, &body).await.0, 200);
    daemon.payment("one", "confirmed").await;
    plug_in(&mut stage, address, &daemon.callbacks).await;
    let run = daemon.closed(&run.to_string()).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    assert_eq!(requests(&stage, Operation::Withdrawal), 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_open_payments_are_looked_up_before_anything_is_sent() {
    let mut stage = stage_with(vec![
        on_withdrawals(Fault::DropAnswer, 1),
        Rule::always(Fault::BlindLookup(3_600_000)),
        Rule::always(Fault::CallbackNever),
        Rule::always(Fault::ExecuteRepeat),
    ])
    .await
    .script("a.rhai", &by_hand(&withdraw("lost", "0.01")))
    .script(
        "b.rhai",
        &by_hand(&format!(
            "try {{ {} }} catch {{ }}",
            withdraw("unsent", "0.02")
        )),
    );
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    daemon.payment("lost", "unknown").await;
    daemon.stop().await;
    stage
        .control
        .set_faults(Faults(vec![Rule::always(Fault::ExecuteRepeat)]));
    let daemon = stage.start().await;
    daemon.payment("lost", "confirmed").await;
    assert_eq!(requests(&stage, Operation::Withdrawal), 1);
    let address = unplug(&mut stage).await;
    daemon.trigger("b", "go").await;
    daemon.payment("unsent", "intended").await;
    daemon.stop().await;
    let spare = stage.simulator.addr();
    plug_in(&mut stage, address, "http://127.0.0.1:9/nobody").await;
    assert_ne!(spare, address);
    let daemon = stage.start().await;
    let payment = daemon.payment("unsent", "confirmed").await;
    let story = story(&payment);
    let found_nothing = story
        .iter()
        .rposition(|event| *event == "not_found")
        .unwrap();
    let sent = story
        .iter()
        .rposition(|event| *event == "send_started")
        .unwrap();
    assert!(found_nothing < sent, "{story:?}");
    assert_eq!(executed(&stage.control), [("unsent".into(), 1)].into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_is_faster_than_the_answer_settles_the_payment() {
    let script = [
        withdraw("one", "0.01"),
        r#"gateway::exchange_now(#{ foreign_id: "ex", sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02 })"#.to_owned(),
        format!(r#"gateway::withdraw_instant(#{{ {SENDER} foreign_id: "fast", currency: "LTC", amount: "1.5", address: "ltc1q" }})"#),
    ]
    .join(";\n");
    let stage = stage_with(vec![Rule::always(Fault::CallbackBeforeReply)])
        .await
        .script("a.rhai", &by_hand(&script));
    let daemon = stage.start().await;
    let run = daemon.trigger("a", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    for key in ["one", "ex", "fast"] {
        let payment = daemon.payment(key, "confirmed").await;
        assert!(payment["id"].is_string(), "{payment:#}");
    }
    assert_eq!(stage.control.callbacks().len(), 3);
    assert!(stage.control.callbacks().iter().all(|one| one.delivered));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn final_is_final_whatever_comes_late() {
    let stage = Stage::new()
        .await
        .script("a.rhai", &by_hand(&withdraw("one", "0.01")));
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    let payment = daemon.payment("one", "confirmed").await;
    for status in [
        "pending",
        "processing",
        "cancelled",
        "declined",
        "confirmed",
    ] {
        let body = json!({
            "id": payment["id"], "foreign_id": "one", "type": "withdrawal", "status": status,
            "error": "too late",
        });
        let body = body.to_string().into_bytes();
        assert_eq!(deliver(&daemon.callbacks, &body).await.0, 200);
        let now = daemon.runner.payment("one").unwrap();
        assert_eq!(now["status"], "confirmed", "after {status}");
    }
    // All of them are kept: the five and the one the gateway sent itself.
    let events = daemon.runner.callbacks(&everything()).unwrap();
    assert_eq!(events.as_array().unwrap().len(), 6);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_payments_under_every_fault_are_each_executed_once_at_most() {
    under_every_fault(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_are_they_with_a_second_seed() {
    under_every_fault(14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_are_they_with_a_third_seed() {
    under_every_fault(15).await;
}

/// Every fault now and then, and a gateway that pays a repeated key again.
fn every_fault() -> Faults {
    let share = |fault| Rule {
        per_mille: Some(60),
        ..Rule::always(fault)
    };
    let faults = [
        Fault::ErrorBeforeActing,
        Fault::DropRequest,
        Fault::DropAnswer,
        Fault::ActThenBadGateway,
        Fault::ActThenRubbish,
        Fault::Refuse,
        Fault::Delay(1200),
        Fault::SlowAnswer(1200),
        Fault::BlindLookup(700),
        Fault::CallbackTwice,
        Fault::CallbackLate(500),
        Fault::CallbackReordered,
        Fault::CallbackForged,
        Fault::CallbackNever,
        Fault::CallbackBeforeReply,
    ]
    .map(share);
    let mut rules = vec![Rule::always(Fault::ExecuteRepeat)];
    rules.extend(faults);
    Faults(rules)
}

/// Every fault but 429, which holds the client back for a minute; and a restart in the middle.
async fn under_every_fault(seed: u64) {
    let batch = format!(
        r#"let rows = []; for n in 0..200 {{ rows.push(#{{ {SENDER} foreign_id: `row-${{n}}`, currency: "BTC", amount: 0.01, address: `tb1q${{n}}` }}); }} gateway::withdraw_all(rows)"#
    );
    let stage = Stage::with(Options {
        seed,
        faults: every_fault(),
        ..Options::default()
    })
    .await
    .config("gateway.timeout = \"1s\"\n")
    .script("a.rhai", &by_hand(&batch));
    let daemon = stage.start().await;
    daemon.runner.trigger("a", "go", None).await.unwrap();
    eventually("half of the batch is sent", || async {
        (requests(&stage, Operation::Withdrawal) > 100).then_some(())
    })
    .await;
    daemon.stop().await;
    let daemon = stage.start().await;
    let run = daemon.all_closed(1).await[0].clone();
    assert_eq!(run["state"], "succeeded", "seed {seed}: {run:#}");
    stage
        .control
        .set_faults(Faults(vec![Rule::always(Fault::ExecuteRepeat)]));
    daemon.trigger("a", "go").await;
    let executed = executed(&stage.control);
    let open = ["intended", "sending", "accepted", "pending"];
    eventually("every payment stands still", || async {
        let payments = daemon.runner.payments(&everything()).unwrap();
        let payments = payments.as_array().unwrap();
        assert_eq!(payments.len(), 200);
        payments
            .iter()
            .all(|payment| {
                let known = executed.contains_key(payment["foreign_id"].as_str().unwrap());
                let status = payment["status"].as_str().unwrap();
                !open.contains(&status) && (known == (status == "confirmed"))
            })
            .then_some(())
    })
    .await;
    let executions = stage.control.executions();
    for execution in &executions {
        assert_eq!(execution.times_requested, 1, "seed {seed}: {execution:?}");
    }
    assert_eq!(executions.len(), executed.len(), "seed {seed}");
    assert!(executed.len() > 100, "seed {seed}: {}", executed.len());
    daemon.stop().await;
}
