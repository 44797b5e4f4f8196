//! State, `once` and emitted events: once each, whatever happens to the run.

use serde_json::{Value, json};

use crate::kit::{Shop, deliver};
use crate::stage::{Running, Stage};

/// A withdrawal's callback with that id and status.
async fn happens(daemon: &Running, id: u64, status: &str) {
    let body = json!({"id": id, "type": "withdrawal", "status": status}).to_string();
    assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
}

/// An invoice's callback with that id.
async fn invoice(daemon: &Running, id: u64) {
    let body = json!({"id": id, "type": "invoice", "status": "confirmed"}).to_string();
    assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
}

/// Retries that do not keep a test waiting.
const SOON: &str = r#"retry: #{ first: "1ms", max: "1ms" }"#;

async fn told(shop: &Shop, daemon: &Running, path: &str, id: u64) -> Value {
    let body = json!({"id": id, "type": "deposit", "status": "confirmed"}).to_string();
    assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
    shop.visited(path, 1).await.last().unwrap().body.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_from_many_concurrent_handlers_are_exact_and_survive_a_restart() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
on("withdrawal.*", #{{ name: "a" }}, |event| {{ state::add("sum", 0.1); shared_state::add("all", 1); }});
on("withdrawal.*", #{{ name: "b" }}, |event| {{ state::add("sum", 0.2); shared_state::add("all", 1); }});
on("deposit.*", |event| {{ http::post(`{}/sum${{event.id}}`, [state::get("sum"), shared_state::get("all")]); }});
"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("sums.rhai", &script);
    let daemon = stage.start().await;
    let mut posting = tokio::task::JoinSet::new();
    for id in 0..60_u64 {
        let url = daemon.callbacks.clone();
        posting.spawn(async move {
            let body = json!({"id": id, "type": "withdrawal", "status": "confirmed"}).to_string();
            assert_eq!(deliver(&url, body.as_bytes()).await.0, 200);
        });
    }
    posting.join_all().await;
    daemon.all_closed(120).await;
    let sums = told(&shop, &daemon, "/sum1", 1).await;
    assert_eq!(sums.to_string(), "[18.0,120]");
    daemon.stop().await;
    let daemon = stage.start().await;
    assert_eq!(told(&shop, &daemon, "/sum2", 2).await, sums);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_tried_again_adds_emits_and_posts_once() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
on("withdrawal.*", #{{ {SOON} }}, |event| {{
    state::add("n", 1);
    emit("started", #{{ n: state::get("n") }});
    http::post("{0}/first", ());
    state::add("n", 1);
    http::post("{0}/second", state::get("n"));
    state::add("n", 1);
}});
on("started", |event| {{ http::post("{0}/started", event); }});
on("deposit.*", |event| {{ http::post("{0}/n", state::get("n")); }});
"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script);
    shop.answers("/first", &[500]);
    shop.answers("/second", &[503, 500]);
    let daemon = stage.start().await;
    happens(&daemon, 1, "confirmed").await;
    let runs = daemon.all_closed(2).await;
    assert!(runs.iter().all(|run| run["state"] == "succeeded"));
    assert_eq!(told(&shop, &daemon, "/n", 2).await, json!(3));
    assert_eq!(shop.received("/started").len(), 1);
    assert_eq!(shop.received("/first").len(), 2);
    let second = shop.received("/second");
    assert_eq!(second.len(), 3);
    assert!(second.iter().all(|one| one.body == json!(2)));
    assert!(
        second
            .iter()
            .all(|one| one.idempotency_key == second[0].idempotency_key)
    );
    assert_ne!(
        second[0].idempotency_key,
        shop.received("/first")[0].idempotency_key
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_did_before_it_failed_stays_done_and_is_done_once() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
on("withdrawal.*", |event| {{
    state::add("n", 1);
    emit("failing", 1);
    throw "on purpose";
}});
on("failing", |event| {{ http::post("{0}/failing", event); }});
on("deposit.*", |event| {{ http::post("{0}/n", state::get("n")); }});
"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script);
    let daemon = stage.start().await;
    happens(&daemon, 1, "confirmed").await;
    shop.visited("/failing", 1).await;
    let runs = daemon.all_closed(2).await;
    let parked = runs.iter().find(|run| run["state"] == "parked").unwrap();
    let error = parked["error"].as_str().unwrap();
    assert!(
        error.contains("on purpose") && error.contains("a.rhai:5"),
        "{error}"
    );
    daemon.stop().await;
    let daemon = stage.start().await;
    assert_eq!(told(&shop, &daemon, "/n", 2).await, json!(1));
    assert_eq!(shop.received("/failing").len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_race_for_a_once_run_it_once() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
fn welcome(shop) {{
    once("welcome", || {{ state::add("n", 1); http::post(`${{shop}}/welcome`, ()).status + state::get("n") }})
}}
on("withdrawal.*", #{{ name: "a" }}, |event| {{ http::post("{0}/got", welcome("{0}")); }});
on("withdrawal.*", #{{ name: "b" }}, |event| {{ http::post("{0}/got", welcome("{0}")); }});
"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script);
    let daemon = stage.start().await;
    shop.hold("/welcome");
    for id in 0..5 {
        happens(&daemon, id, "confirmed").await;
    }
    shop.visited("/welcome", 1).await;
    shop.release("/welcome");
    let runs = daemon.all_closed(10).await;
    assert!(
        runs.iter().all(|run| run["state"] == "succeeded"),
        "{runs:#?}"
    );
    let got = shop.received("/got");
    assert_eq!(got.len(), 10);
    assert!(got.iter().all(|one| one.body == json!(201)), "{got:?}");
    assert_eq!(shop.received("/welcome").len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_once_that_failed_and_was_caught_is_left() {
    let shop = Shop::open().await;
    let pay = crate::payments::withdraw("", "0.01").replace(r#"foreign_id: "","#, "");
    let script = format!(
        r#"
on("invoice.*", #{{ {SOON} }}, |event| {{
    try {{ once("daily", || {{ http::post("{0}/daily", event.id); }}); }} catch (e) {{ log::warn(e.code); }}
    let payment = {pay};
    http::post("{0}/paid", payment.foreign_id);
    once("daily", || http::post("{0}/daily", event.id).status);
}});
"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script);
    shop.answers("/daily", &[404, 404, 200]);
    let daemon = stage.start().await;
    shop.answers("/paid", &[500]);
    invoice(&daemon, 1).await;
    daemon.all_closed(1).await;
    invoice(&daemon, 2).await;
    let runs = daemon.all_closed(2).await;
    assert!(
        runs.iter().all(|run| run["state"] == "succeeded"),
        "{runs:#?}"
    );
    let paid: Vec<Value> = shop
        .received("/paid")
        .into_iter()
        .map(|one| one.body)
        .collect();
    assert_eq!(paid.len(), 3);
    assert_eq!(paid[0], paid[1]);
    assert_ne!(paid[1], paid[2], "two runs have made one payment");
    assert_eq!(stage.control.executions().len(), 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_parked_raises_one_alert_and_a_failing_handler_of_alerts_none() {
    let shop = Shop::open().await;
    let script = format!(
        r#"
on("withdrawal.*", |event| {{ throw "on purpose"; }});
on("alert.run_parked", |event| {{ http::post("{}/alert", event); throw "also on purpose"; }});
"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script);
    let daemon = stage.start().await;
    happens(&daemon, 1, "confirmed").await;
    let runs = daemon.all_closed(2).await;
    assert!(runs.iter().all(|run| run["state"] == "parked"), "{runs:#?}");
    assert_eq!(runs.len(), 2);
    let alerts = shop.received("/alert");
    assert_eq!(alerts.len(), 1);
    let alert = &alerts[0].body;
    assert_eq!(alert["kind"], "alert.run_parked");
    assert_eq!(alert["run"], runs[1]["id"]);
    assert_eq!(alert["handler"], "withdrawal.*");
    assert!(
        alert["error"].as_str().unwrap().contains("on purpose"),
        "{alert}"
    );
    daemon.stop().await;
}
