//! Runs that wait: for their payments, for events, for the time. Over restarts, reloads and clocks
//! that jump, each goes on once, where it stopped and as it was written.

mod edges;

use std::time::Duration;

use bursar::domain::id::RunId;
use bursar::runner::Filter;
use bursar::simulator::Options;
use bursar::store::{Changes, Store, Table, schema};
use bursar::telemetry::Telemetry;
use serde_json::{Value, json};

use crate::kit::{SetClock, Shop, deliver};
use crate::stage::{Running, SENDER, Stage, eventually, executed};

/// A gateway that settles withdrawals only when it is told to.
fn patient() -> Options {
    Options {
        settle_after: None,
        ..Options::default()
    }
}

/// A batch that waits for its payments and posts what came of them.
fn payroll(shop: &Shop, rows: usize, wait: &str, path: &str) -> String {
    format!(
        r#"
schedule("pay", "0 0 1 1 *", |tick| {{
    state::add("begun", 1);
    let rows = [];
    for n in 0..{rows} {{
        rows.push(#{{ {SENDER}
            foreign_id: `row-${{n}}`, currency: "BTC", amount: 0.01, address: `tb1q${{n}}`,
        }});
    }}
    let settled = gateway::withdraw_all(rows).wait({wait});
    http::post("{}/{path}", #{{
        confirmed: settled.confirmed.map(|payment| payment.foreign_id),
        failed: settled.failed.map(|payment| payment.foreign_id),
        open: settled.open.map(|payment| payment.foreign_id),
        begun: state::get("begun"),
    }});
}});
"#,
        shop.url
    )
}

/// A stage with one script, which may reach the shop.
async fn with_shop(shop: &Shop, script: &str) -> Stage {
    let stage = Stage::new().await.config(&shop.allowed());
    stage.script("w.rhai", script)
}

/// Fires a schedule by hand and waits until its run waits. Answers the run's id.
async fn suspended(daemon: &Running, script: &str, name: &str) -> String {
    let run = daemon.runner.trigger(script, name, None).await.unwrap();
    is(daemon, &run.to_string(), "waiting").await;
    run.to_string()
}

/// Waits until a run is in that state. Answers it.
async fn is(daemon: &Running, run: &str, state: &str) -> Value {
    eventually(&format!("run {run} is {state}"), || async {
        let run = daemon.runner.run(run).unwrap();
        (run["state"] == state).then_some(run)
    })
    .await
}

async fn happens(daemon: &Running, kind: &str, id: u64, status: &str, order: &str) {
    let body = json!({"id": id, "type": kind, "status": status, "foreign_id": order}).to_string();
    assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
}

async fn told(shop: &Shop, path: &str) -> Value {
    let received = shop.visited(path, 1).await;
    assert_eq!(received.len(), 1, "told once");
    received[0].body.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_for_its_final_callbacks_over_a_restart_and_pays_once() {
    let shop = Shop::open().await;
    let stage = Stage::with(patient()).await.config(&shop.allowed());
    let stage = stage.script("pay.rhai", &payroll(&shop, 30, "\"6h\"", "done"));
    let daemon = stage.start().await;
    let run = suspended(&daemon, "pay", "pay").await;
    for row in 0..10 {
        stage
            .control
            .settle(&format!("row-{row}"), "confirmed")
            .unwrap();
        daemon.payment(&format!("row-{row}"), "confirmed").await;
    }
    daemon.stop().await;
    let daemon = stage.start().await;
    assert_eq!(is(&daemon, &run, "waiting").await["tries"], 0);
    for row in (10..30).rev() {
        let status = if row == 20 { "cancelled" } else { "confirmed" };
        stage.control.settle(&format!("row-{row}"), status).unwrap();
    }
    let told = told(&shop, "/done").await;
    assert_eq!(told["confirmed"].as_array().unwrap().len(), 29, "{told}");
    assert_eq!(told["failed"], json!(["row-20"]));
    assert_eq!(told["open"], json!([]));
    assert_eq!(told["begun"], 1);
    let run = daemon.closed(&run).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    let executed = executed(&stage.control);
    assert_eq!(executed.len(), 30);
    assert!(executed.values().all(|times| *times == 1), "{executed:?}");
    assert_eq!(shop.received("/done").len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_finishes_as_it_was_written_and_the_next_one_uses_the_new_script() {
    let shop = Shop::open().await;
    let stage = Stage::with(patient()).await.config(&shop.allowed());
    let stage = stage.script("pay.rhai", &payroll(&shop, 1, "", "old"));
    let daemon = stage.start().await;
    let run = suspended(&daemon, "pay", "pay").await;

    stage.write("scripts/pay.rhai", &payroll(&shop, 1, "", "new"));
    let old = daemon.runner.overview()["set"].clone();
    eventually("the changed script is in use", || async {
        (daemon.runner.overview()["set"] != old).then_some(())
    })
    .await;
    daemon.stop().await;
    let daemon = stage.start().await;

    stage.control.settle("row-0", "confirmed").unwrap();
    assert_eq!(told(&shop, "/old").await["confirmed"], json!(["row-0"]));
    assert_eq!(daemon.closed(&run).await["state"], "succeeded");
    assert!(shop.received("/new").is_empty());

    let next = daemon.trigger("pay", "pay").await;
    assert_eq!(next["state"], "succeeded", "{next:#}");
    assert_eq!(told(&shop, "/new").await["confirmed"], json!(["row-0"]));
    assert_eq!(shop.received("/old").len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_deadline_a_list_answers_what_is_open_and_a_payment_throws_timeout() {
    let shop = Shop::open().await;
    let one = format!(
        r#"
schedule("one", "0 0 1 1 *", |tick| {{
    let payment = payments::get("row-1");
    let caught = "";
    try {{ payment.wait("1h"); }} catch (error) {{ caught = error.code; }}
    http::post("{}/one", #{{ caught: caught }});
}});
"#,
        shop.url
    );
    let clock = SetClock::at("2026-11-22T08:00:00Z");
    let stage = Stage::with(patient())
        .await
        .config(&shop.allowed())
        .clock(clock.clone());
    let stage = stage.script("pay.rhai", &payroll(&shop, 2, "\"2h\"", "all"));
    let stage = stage.script("one.rhai", &one);
    let daemon = stage.start().await;
    suspended(&daemon, "pay", "pay").await;
    suspended(&daemon, "one", "one").await;
    stage.control.settle("row-0", "confirmed").unwrap();
    daemon.payment("row-0", "confirmed").await;
    daemon.stop().await;

    // Both deadlines pass while nobody looks; the one of the single payment is the earlier one.
    clock.set("2026-11-23T08:00:00Z");
    let daemon = stage.start().await;
    assert_eq!(told(&shop, "/one").await, json!({"caught": "timeout"}));
    let all = told(&shop, "/all").await;
    assert_eq!(all["confirmed"], json!(["row-0"]));
    assert_eq!(all["open"], json!(["row-1"]));
    daemon.all_closed(2).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_or_forward_neither_loses_nor_doubles_a_wake_up() {
    let shop = Shop::open().await;
    let script = format!(
        r#"schedule("nap", "0 0 1 1 *", |tick| {{ sleep("1h"); http::post("{0}/woken", tick.date); sleep("1h"); http::post("{0}/again", tick.date); }});"#,
        shop.url
    );
    let clock = SetClock::at("2026-11-22T08:00:00Z");
    let stage = Stage::new()
        .await
        .config(&shop.allowed())
        .clock(clock.clone());
    let daemon = stage.script("nap.rhai", &script);
    let stage = daemon;
    let daemon = stage.start().await;
    let run = suspended(&daemon, "nap", "nap").await;
    for back in [
        "2026-11-22T07:00:00Z",
        "2020-01-01T00:00:00Z",
        "2026-11-22T08:59:59Z",
    ] {
        clock.set(back);
        daemon.runner.wake().await;
        assert_eq!(is(&daemon, &run, "waiting").await["state"], "waiting");
    }
    clock.set("2026-11-22T09:00:00Z");
    daemon.runner.wake().await;
    told(&shop, "/woken").await;
    is(&daemon, &run, "waiting").await;
    clock.set("2036-01-01T00:00:00Z");
    daemon.runner.wake().await;
    told(&shop, "/again").await;
    assert_eq!(daemon.closed(&run).await["state"], "succeeded");
    assert_eq!(shop.received("/woken").len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_come_before_during_and_after_the_wait_are_answered_once_each_in_order() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
on("invoice.created", |event| {{
    let wanted = #{{ foreign_id: event.foreign_id }};
    http::post("{0}/begun", 1);
    let seen = [];
    for n in 0..3 {{
        seen.push(wait_for("deposit.*", wanted, "1d").id);
        state::add("seen", 1);
    }}
    http::post("{0}/seen", seen);
}});
"#,
        shop.url
    );
    let stage = with_shop(&shop, &script).await;
    let daemon = stage.start().await;
    // What came before the run's own firing is no answer.
    happens(&daemon, "deposit", 1, "confirmed", "order-1").await;
    shop.hold("/begun");
    happens(&daemon, "invoice", 7, "created", "order-1").await;
    shop.visited("/begun", 1).await;
    happens(&daemon, "deposit", 2, "confirmed", "order-1").await;
    happens(&daemon, "deposit", 3, "confirmed", "order-2").await;
    shop.release("/begun");
    let runs = eventually("the run waits for the second deposit", || async {
        let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
        (runs[0]["state"] == "waiting").then_some(runs)
    })
    .await;
    let run = runs[0]["id"].as_str().unwrap().to_owned();
    daemon.stop().await;
    let daemon = stage.start().await;
    happens(&daemon, "deposit", 4, "confirmed", "order-1").await;
    happens(&daemon, "deposit", 5, "confirmed", "order-2").await;
    happens(&daemon, "deposit", 6, "confirmed", "order-1").await;
    assert_eq!(told(&shop, "/seen").await, json!([2, 4, 6]));
    assert_eq!(daemon.closed(&run).await["state"], "succeeded");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_in_a_try_block_is_not_caught_and_emitted_events_end_waits() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
on("invoice.created", |event| {{
    try {{
        let event = wait_for("approved", #{{ "order.id": event.id }});
        http::post("{0}/approved", event.by);
    }} catch (error) {{
        http::post("{0}/caught", error);
    }}
}});
on("deposit.confirmed", |event| {{ emit("approved", #{{ order: #{{ id: event.id }}, by: "ana" }}); }});
"#,
        shop.url
    );
    let stage = with_shop(&shop, &script).await;
    let daemon = stage.start().await;
    happens(&daemon, "invoice", 7, "created", "o").await;
    happens(&daemon, "invoice", 8, "created", "o").await;
    happens(&daemon, "deposit", 8, "confirmed", "o").await;
    assert_eq!(told(&shop, "/approved").await, "ana");
    let waiting = eventually("one run waits", || async {
        let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
        let runs = runs.as_array().unwrap().clone();
        let open: Vec<Value> = runs
            .into_iter()
            .filter(|run| run["state"] != "succeeded")
            .collect();
        (open.len() == 1 && open[0]["state"] == "waiting").then_some(open)
    })
    .await;
    assert!(
        waiting[0]["firing"].as_str().unwrap().contains('7'),
        "{waiting:?}"
    );
    assert!(shop.received("/caught").is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_runs_that_wait_for_one_payment_wake_once_each() {
    const WAITING: u64 = 350;
    let shop = Shop::open().await;
    let script = format!(
        r#"
schedule("pay", "0 0 1 1 *", |tick| {{
    gateway::withdraw(#{{ {SENDER} foreign_id: "one", currency: "BTC", amount: 0.01, address: "tb1q" }});
}});
on("invoice.created", |event| {{
    let payment = payments::get("one").wait();
    state::add("woken", 1);
    state::set(`status/${{event.id}}`, payment.status);
}});
on("deposit.confirmed", |event| {{ http::post("{}/sum", [state::get("woken"), state::list("status/").len()]); }});
"#,
        shop.url
    );
    let stage = Stage::with(patient())
        .await
        .config(&shop.allowed())
        .script("w.rhai", &script);
    let daemon = stage.start().await;
    assert_eq!(daemon.trigger("w", "pay").await["state"], "succeeded");
    for id in 0..WAITING {
        happens(&daemon, "invoice", id, "created", "o").await;
    }
    let state_of_all = || {
        let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
        let runs = runs.as_array().unwrap().clone();
        let count = |state: &str| runs.iter().filter(|run| run["state"] == state).count() as u64;
        (count("waiting"), count("succeeded"))
    };
    eventually("all wait", || async {
        (state_of_all() == (WAITING, 1)).then_some(())
    })
    .await;
    stage.control.settle("one", "confirmed").unwrap();
    eventually("all are done", || async {
        (state_of_all() == (0, WAITING + 1)).then_some(())
    })
    .await;
    happens(&daemon, "deposit", 1, "confirmed", "o").await;
    assert_eq!(told(&shop, "/sum").await, json!([WAITING, WAITING]));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_run_holds_up_its_schedule_but_neither_its_transaction_nor_a_place() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
schedule("skips", "0 * * * *", |tick| {{ sleep("150m"); http::post("{0}/skips", tick.scheduled_at); }});
schedule("queues", "0 * * * *", #{{ overlap: "queue" }}, |tick| {{ sleep("90m"); http::post("{0}/queues", tick.scheduled_at); }});
schedule("allows", "0 * * * *", #{{ overlap: "allow" }}, |tick| {{ sleep("90m"); http::post("{0}/allows", tick.scheduled_at); }});
on("deposit.pending", |event| {{ sleep("30d"); }});
on("deposit.confirmed", |event| {{ http::post("{0}/confirmed", event.id); }});
"#,
        shop.url
    );
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let stage = Stage::new()
        .await
        .clock(clock.clone())
        .config(&shop.allowed());
    // With more waiting runs than places.
    let stage = stage
        .config("scripts.limits.concurrent_runs = 2\n")
        .script("s.rhai", &script);
    let mut daemon = stage.start().await;
    daemon.runner.wake().await;
    for id in 0..5 {
        happens(&daemon, "deposit", id, "pending", "o").await;
    }
    happens(&daemon, "deposit", 3, "confirmed", "o").await;
    assert_eq!(told(&shop, "/confirmed").await, 3);
    for hour in 9..=12 {
        clock.set(&format!("2026-11-22T{hour:02}:00:01Z"));
        daemon.runner.wake().await;
        eventually("nothing is about to be executed", || async {
            let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
            let runs = runs.as_array().unwrap();
            let queued = runs.iter().filter(|run| {
                run["state"] == "running"
                    || (run["state"] == "queued" && run["handler"] != "queues")
            });
            (queued.count() == 0).then_some(())
        })
        .await;
        if hour == 10 {
            daemon.stop().await;
            daemon = stage.start().await;
        }
    }
    let slots = |name: &str| -> Vec<String> {
        let received = shop.received(&format!("/{name}"));
        let slot = |one: &Value| one.as_str().unwrap()[11..13].to_owned();
        received.iter().map(|one| slot(&one.body)).collect()
    };
    // 09:00 slept until 11:30, seen at 12:00; the slots of 10:00 and 11:00 were skipped.
    shop.visited("/skips", 1).await;
    assert_eq!(slots("skips"), ["09"]);
    shop.visited("/allows", 2).await;
    assert_eq!(slots("allows"), ["09", "10"]);
    // 09:00 slept until 10:30; 10:00 began when that had ended, at 11:00, and sleeps until 12:30.
    shop.visited("/queues", 1).await;
    assert_eq!(slots("queues"), ["09"]);
    clock.set("2026-11-22T12:31:00Z");
    daemon.runner.wake().await;
    shop.visited("/queues", 2).await;
    assert_eq!(slots("queues"), ["09", "10"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_something_unknown_is_refused_by_name() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
on("deposit.confirmed", |event| {{
    let caught = [];
    for payments in [[#{{ foreign_id: "nobody" }}], [#{{ foreign_id: "" }}], []] {{
        try {{ payments.wait("1s"); caught.push("none"); }} catch (error) {{ caught.push(error.code); }}
    }}
    http::post("{}/caught", caught);
}});
"#,
        shop.url
    );
    let stage = with_shop(&shop, &script).await;
    let daemon = stage.start().await;
    happens(&daemon, "deposit", 1, "confirmed", "o").await;
    assert_eq!(
        told(&shop, "/caught").await,
        json!(["not_found", "invalid_argument", "none"])
    );
    daemon.stop().await;
}

/// Changes records while the daemon is down.
async fn tampered(stage: &Stage, change: impl FnOnce(&Store, &mut Changes)) {
    let options = bursar::store::Options::default();
    let store = Store::open(&stage.path("state"), &options, &Telemetry::default()).unwrap();
    let mut changes = Changes::new();
    change(&store, &mut changes);
    store.commit(changes).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_decoded_parks_its_run_only_and_is_kept() {
    /// What is in the place of a journal's entries.
    const RUBBISH: Table<(RunId, u64), String> = Table::new("step/", 1);
    let shop = Shop::open().await;
    let script = format!(
        r#"on("invoice.created", |event| {{
    state::add("n", 1);
    wait_for("go", #{{}});
    http::post("{}/done", event.id);
}});
on("deposit.confirmed", |event| {{ emit("go", 1); }});
"#,
        shop.url
    );
    let stage = with_shop(&shop, &script).await;
    let daemon = stage.start().await;
    for id in [1, 2] {
        happens(&daemon, "invoice", id, "created", "o").await;
    }
    let rows = eventually("both wait", || async {
        let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
        let runs = runs.as_array().unwrap().clone();
        let waiting = runs.iter().filter(|run| run["state"] == "waiting");
        (waiting.count() == 2).then_some(runs)
    })
    .await;
    let broken = rows
        .iter()
        .find(|run| run["firing"].as_str().unwrap().contains(":1:"))
        .unwrap();
    let id: RunId = broken["id"].as_str().unwrap().parse().unwrap();
    daemon.stop().await;
    tampered(&stage, |_, changes| {
        changes.put(&RUBBISH, &(id, 0), &"rubbish".to_owned());
    })
    .await;

    let daemon = stage.start().await;
    happens(&daemon, "deposit", 3, "confirmed", "o").await;
    assert_eq!(told(&shop, "/done").await, 2);
    eventually("the broken one is parked", || async {
        let parked = Filter {
            state: Some("parked".to_owned()),
            ..crate::stage::everything()
        };
        let parked = daemon.runner.runs(&parked).unwrap();
        let error = parked[0]["error"].as_str()?.to_owned();
        assert_eq!(parked[0]["id"], id.to_string());
        assert!(error.contains("journal cannot be read"), "{error}");
        Some(())
    })
    .await;
    assert_eq!(shop.received("/done").len(), 1);
    daemon.stop().await;
    tampered(&stage, |store, _| {
        let kept = store.get(&RUBBISH, &(id, 0)).unwrap();
        assert_eq!(kept.as_deref(), Some("rubbish"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_scripts_are_gone_is_parked_and_says_so() {
    let shop = Shop::open().await;
    let script = |path: &str| {
        format!(
            r#"on("invoice.created", |event| {{ wait_for("go", #{{}}); http::post("{}/{path}", event.id); }});
on("deposit.confirmed", |event| {{ emit("go", 1); }});
"#,
            shop.url
        )
    };
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("w.rhai", &script("old"));
    let daemon = stage.start().await;
    happens(&daemon, "invoice", 1, "created", "o").await;
    let old = eventually("it waits", || async {
        let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
        (runs[0]["state"] == "waiting").then_some(runs[0]["id"].as_str()?.to_owned())
    })
    .await;
    daemon.stop().await;
    stage.write("scripts/w.rhai", &script("new"));
    let id: RunId = old.parse().unwrap();
    tampered(&stage, |store, changes| {
        let run = store.get(&schema::RUNS, &id).unwrap().unwrap();
        changes.remove(&schema::SETS, &run.set);
    })
    .await;
    let daemon = stage.start().await;
    happens(&daemon, "deposit", 2, "confirmed", "o").await;
    let run = is(&daemon, &old, "parked").await;
    let error = run["error"].as_str().unwrap();
    assert!(error.contains("script set"), "{error}");
    assert!(shop.received("/old").is_empty() && shop.received("/new").is_empty());
    daemon.stop().await;
}

/// Waits must not depend on being looked at within the same second.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_sleeps_for_a_moment_goes_on_by_itself() {
    let stage = Stage::new().await.script(
        "nap.rhai",
        r#"schedule("nap", "0 0 1 1 *", |tick| { for n in 0..3 { sleep("10ms"); } });"#,
    );
    let daemon = stage.start().await;
    let run = tokio::time::timeout(Duration::from_secs(50), daemon.trigger("nap", "nap"))
        .await
        .unwrap();
    assert_eq!(run["state"], "succeeded", "{run:#}");
    daemon.stop().await;
}
