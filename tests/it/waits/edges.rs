//! What waits must survive that is rare: a death between two commits, long lists, closures and lanes.

use bursar::domain::clock::Timestamp;
use bursar::store::schema::{EVENTS, EVENTS_BY_ORDER, EventContent, EventRecord, RUNS, Text};
use bursar::store::{Changes, Store};
use bursar::telemetry::Telemetry;
use serde_json::json;

use super::{happens, is, patient, suspended, told, with_shop};
use crate::kit::Shop;
use crate::stage::{SENDER, Stage, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_committed_just_before_the_process_died_ends_the_wait_after_the_next_start() {
    let shop = Shop::open().await;
    let script = format!(
        r#"schedule("w", "0 0 1 1 *", |tick| {{ http::post("{}/by", wait_for("approved", #{{ "order.id": 7 }}).by); }});"#,
        shop.url
    );
    let stage = with_shop(&shop, &script).await;
    let daemon = stage.start().await;
    let run = suspended(&daemon, "w", "w").await;
    daemon.stop().await;

    // As a process leaves it that dies after the wait is on disk, before its run looks once more:
    // the event is there, and that it is news was settled before anybody waited.
    let options = bursar::store::Options {
        cache_bytes: 1024 * 1024,
        segment_bytes: 1024 * 1024,
    };
    let path = stage.resolved().store.path;
    let store = Store::open(&path, &options, &Telemetry::default()).unwrap();
    let run_id = run.parse().unwrap();
    let order = store.get(&RUNS, &run_id).unwrap().unwrap().id.order() + 1_000_000_000;
    let key = "custom:test:0".to_owned();
    let approved = json!({"order": {"id": 7}, "by": "ana"}).to_string();
    let content = EventContent::Custom(Text::Here(approved));
    let record = EventRecord {
        order,
        ..EventRecord::of("approved", content, Timestamp::UNIX_EPOCH)
    };
    let mut changes = Changes::new();
    changes.put(&EVENTS_BY_ORDER, &(order, key.clone()), &record.kind);
    changes.put(&EVENTS, &key, &record);
    store.commit(changes).await.unwrap();
    store.close().await.unwrap();

    let daemon = stage.start().await;
    assert_eq!(told(&shop, "/by").await, "ana");
    assert_eq!(daemon.closed(&run).await["state"], "succeeded");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_with_payments_named_twice_waits_for_all_and_answers_each_as_often() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
schedule("pay", "0 0 1 1 *", |tick| {{
    let rows = [];
    for n in 0..300 {{
        rows.push(#{{ {SENDER} foreign_id: `a-rather-long-row-${{n}}`, currency: "BTC", amount: 0.01, address: "tb1q" }});
    }}
    let paid = gateway::withdraw_all(rows);
    let settled = (paid + [paid[0], paid[299]]).wait();
    http::post("{}/done", [settled.confirmed.len(), settled.failed.len(), settled.open.len()]);
}});
"#,
        shop.url
    );
    let stage = Stage::with(patient())
        .await
        .config(&shop.allowed())
        .script("pay.rhai", &script);
    let daemon = stage.start().await;
    let run = suspended(&daemon, "pay", "pay").await;
    for row in (0..300).rev() {
        let status = if row == 299 { "declined" } else { "confirmed" };
        let id = format!("a-rather-long-row-{row}");
        stage.control.settle(&id, status).unwrap();
    }
    assert_eq!(told(&shop, "/done").await, json!([300, 2, 0]));
    let run = daemon.closed(&run).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_inside_of_once_keeps_others_out_of_it_and_pays_once() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
on("invoice.created", #{{ retry: #{{ attempts: 500, first: "1s", max: "1s" }} }}, |event| {{
    let paid = once("bonus", || {{
        let payment = gateway::withdraw(#{{ {SENDER} currency: "BTC", amount: 0.01, address: "tb1q" }});
        payment.wait().status
    }});
    http::post("{}/paid", [event.id, paid]);
}});
"#,
        shop.url
    );
    let stage = Stage::with(patient())
        .await
        .config(&shop.allowed())
        .script("w.rhai", &script);
    let daemon = stage.start().await;
    happens(&daemon, "invoice", 1, "created", "a").await;
    let first = eventually("the first run waits", || async {
        let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
        (runs[0]["state"] == "waiting").then(|| runs[0]["id"].as_str().unwrap().to_owned())
    })
    .await;
    happens(&daemon, "invoice", 2, "created", "b").await;
    eventually("the second run is kept out", || async {
        let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
        (runs[0]["state"] == "retrying").then_some(())
    })
    .await;
    daemon.stop().await;
    let daemon = stage.start().await;
    is(&daemon, &first, "waiting").await;
    let made = stage.control.executions();
    assert_eq!(made.len(), 1);
    stage
        .control
        .settle(&made[0].foreign_id, "confirmed")
        .unwrap();
    let paid = shop.visited("/paid", 2).await;
    let mut paid: Vec<String> = paid.iter().map(|one| one.body.to_string()).collect();
    paid.sort();
    assert_eq!(paid, [r#"[1,"confirmed"]"#, r#"[2,"confirmed"]"#]);
    assert_eq!(stage.control.executions().len(), 1);
    daemon.all_closed(2).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_comes_back_from_a_wait_is_not_held_up_by_one_that_needs_what_it_holds() {
    let shop = Shop::open().await;
    let handler = |name: &str| {
        format!(
            r#"
on("invoice.created", #{{ name: "{name}", retry: #{{ first: "1h", max: "1h" }} }}, |event| {{
    let paid = once("bonus", || {{
        let payment = gateway::withdraw(#{{ {SENDER} foreign_id: "bonus", currency: "BTC", amount: 0.01, address: "tb1q" }});
        payment.wait().status
    }});
    http::post("{}/{name}", paid);
}});
"#,
            shop.url
        )
    };
    let stage = Stage::with(patient())
        .await
        .config(&shop.allowed())
        .script("w.rhai", &format!("{}{}", handler("a"), handler("b")));
    let mut daemon = stage.start().await;
    happens(&daemon, "invoice", 1, "created", "a").await;
    // One waits inside of the closure, the other one is to be tried again in an hour.
    let states = || {
        let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
        let runs = runs.as_array().unwrap().iter();
        let mut states: Vec<_> = runs.map(|run| run["state"].to_string()).collect();
        states.sort();
        states
    };
    eventually("one waits for the other", || async {
        (states() == [r#""retrying""#, r#""waiting""#]).then_some(())
    })
    .await;
    daemon.stop().await;
    daemon = stage.start().await;
    stage.control.settle("bonus", "confirmed").unwrap();
    assert_eq!(told(&shop, "/a").await, "confirmed");
    daemon.stop().await;
}
